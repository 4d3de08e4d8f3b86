"""Pictures. They need matplotlib, which a node does not."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..protocols.errors import MachineError, UsageError, unwritable
from ..protocols.records import Result
from .board import Board, Results
from .format import clean

_LABELLED = 24  # steps of the staircase that get their title; more could not be read


class Point(NamedTuple):
    """One experiment of a track: its place in the order, its score, and what became of it."""

    number: int
    score: float
    error: float  # 0: unknown
    state: str  # baseline, kept, claimed (by others, and confirmed by nobody), refuted, discarded
    title: str


def points(board: Board, its: Results) -> list[Point]:
    """The experiments of a track with a score, in the order of their authors' clocks."""
    found: list[Point] = []
    for number, record in enumerate(sorted(its.records(), key=lambda one: one.time), 1):
        body = record.body
        assert isinstance(body, Result)
        state = body.outcome if body.outcome in ("baseline", "kept") else "discarded"
        if state == "kept":
            verdict = board.views.opinion(record).state
            if verdict == "refuted" or board.views.is_flagged(record):
                state = "refuted"
            elif verdict == "claimed" and record.author != board.views.own:
                state = "claimed"
        if body.score is not None and math.isfinite(body.score):
            error = body.noise if state == "baseline" else body.gain_error
            found.append(Point(number, body.score, error or 0.0, state, clean(body.title, 60)))
    return found


def staircase(found: Sequence[Point], direction: str) -> list[Point]:
    """The points that were the best so far: of what is confirmed or was found here, the baseline first."""
    sign = 1 if direction == "lower" else -1
    steps: list[Point] = []
    for point in found:
        if point.state in ("baseline", "kept") and (not steps or sign * point.score < sign * steps[-1].score):
            steps.append(point)
    return steps


def progress(board: Board, its: Results, out: Path) -> None:
    """Draw the running best of a track with every experiment around it, as a PNG file."""
    found = points(board, its)
    if not found:
        raise UsageError(f"nothing on {its.name} has a score yet", fix="swarm-node board")
    steps = staircase(found, its.direction)
    plots = pyplot()
    figure, axes = plots.subplots(figsize=(12, 6), layout="constrained")
    style = {"discarded": ("tab:gray", 14, "."), "kept": ("tab:green", 5, "o"), "baseline": ("black", 5, "s"),
             "claimed": ("tab:orange", 5, "o"), "refuted": ("tab:red", 6, "x")}  # fmt: skip
    bars = {"kept": ", own or confirmed; bars: 2 standard errors", "baseline": "; bars: 2 σ over seeds"}
    for state, (colour, size, marker) in style.items():
        of = [point for point in found if point.state == state]
        xs, ys, label = [point.number for point in of], [point.score for point in of], f"{state} ({len(of)})"
        if of and state == "discarded":
            axes.scatter(xs, ys, s=size, color=colour, alpha=min(0.5, max(0.05, 300 / len(of))), label=label)
        elif of:
            axes.errorbar(
                xs, ys, [2 * point.error for point in of], fmt=marker, color=colour, markersize=size, capsize=2,
                elinewidth=0.8, alpha=min(1.0, max(0.1, 300 / len(of))), label=label + bars.get(state, ""),
            )  # fmt: skip
    if steps:
        last = max(point.number for point in found)
        xs, ys = [*(point.number for point in steps), last], [*(point.score for point in steps), steps[-1].score]
        axes.step(xs, ys, where="post", color="tab:green", linewidth=1.5, label="best so far", zorder=4)
        for point in steps[-_LABELLED:]:
            side = -1 if 2 * point.number > last else 1  # of the point, so that no title leaves the picture
            axes.annotate(  # a title may hold $, which would be taken for a formula
                point.title, (point.number, point.score), xytext=(4 * side, 6), textcoords="offset points",
                rotation=25 * side, ha="right" if side < 0 else "left", fontsize=7, color="tab:green", parse_math=False,
            )  # fmt: skip
        _frame(axes, found, steps, its.direction)
    unit = clean(its.spec.metric, 16) if its.spec is not None else "score"
    axes.set_xlabel("experiment, of all nodes, in the order of their clocks")
    axes.set_ylabel(f"{unit}, {its.direction} is better", parse_math=False)
    kept = sum(point.state in ("kept", "claimed", "refuted") for point in found)
    axes.set_title(f"{its.name}: {its.total} results, {kept} kept", parse_math=False)
    axes.legend(loc="upper right" if its.direction == "lower" else "lower right")
    _save(figure, out)
    plots.close(figure)


def _frame(axes: Any, found: Sequence[Point], steps: Sequence[Point], direction: str) -> None:
    """Show from the best to a little beyond the start: what is hopeless would squeeze all else into a line, and so
    would a claim that is too good."""
    sign = 1 if direction == "lower" else -1
    start, best = sign * steps[0].score, sign * steps[-1].score
    claimed = [sign * point.score for point in found if point.state == "claimed"]
    if len(steps) > 1:
        claimed = [score for score in claimed if score > best - 2 * (start - best)]
    best = min([best, *claimed])
    room = start - best or steps[0].error or abs(start) / 10 or 1.0
    edges = sorted((sign * (best - 0.1 * room), sign * (start + 0.35 * room)))
    axes.set_ylim(*edges)
    outside = sum(not edges[0] <= point.score <= edges[1] for point in found)
    if outside:
        axes.text(0.01, 0.02, f"{outside} beyond the frame", transform=axes.transAxes, fontsize=8, color="tab:gray")


def _save(figure: Any, out: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of a title: drawn as a box
            if str(out) == "-":
                figure.savefig(sys.stdout.buffer, format="png", dpi=120)
            else:
                figure.savefig(out, format="png", dpi=120)
                print(f"written: {out}", file=sys.stderr)
    except OSError as error:
        raise unwritable(out, error, fix="choose another file: --out PATH") from error


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files; MachineError when it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        fix = f"{sys.executable} -m pip install 'matplotlib>=3.9'"
        raise MachineError(
            "a picture needs matplotlib", why="it is not installed, as no node needs it", fix=fix
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
