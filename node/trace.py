"""Repeating the run that a record reports, and what the comparison says: whether its program did that at all.

An equal environment must give the same logits bit for bit; another one the same first losses, within what arithmetic
in another order does to them. Another version of torch draws other random numbers, so that it proves nothing.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from ..protocols.records import Environment, Evidence, Result, Run
from ..protocols.task import TaskSpec
from ..trainer import evidence
from ..trainer.task import Task
from ..trainer.types import RunResult, RunSpec, Slice

LOSS_TOLERANCE = 1e-4  # relative, of the first 10 losses: other CPUs and builds differ by 1e-6, other programs by more
_TEXTS = {("screen", False), ("confirm", True)}  # slice, and whether text is drawn from it: what nodes report
_COST_ERROR = math.log(1.1)  # of steps: measured on another machine, the same program may get so many more or fewer
ROUNDING = 1e-5  # bits per byte, of answers that other CPUs compute in other batch shapes


@dataclass(frozen=True)
class Trace:
    """What a repeated run says. `differs`: the record's run was not made by this program, or its score was made up."""

    kind: Literal["same", "near", "differs", "unknown"]
    what: str  # for people
    why: str = ""


def reported(body: Result, choice: int = 0) -> Run | None:
    """The run of a record that is repeated: one of the pairs, of either arm, where there are any, by `choice`, which
    its author must not know beforehand; 0: the candidate's first. A record is anybody's: runs on text that no node
    scores do not count."""
    finished = [run for run in body.runs if run.score is not None and (run.slice, run.draw is not None) in _TEXTS]
    drawn = [run for run in finished if _decides(run)]
    mine = [run for run in finished if run.arm == "candidate"]
    runs = sorted(drawn, key=lambda run: run.arm) or [run for run in mine if run.role == "confirm"] or mine
    return runs[choice % len(runs)] if runs else None


def pair_gains(body: Result, spec: TaskSpec) -> list[float]:
    """The gains of the pairs of runs that a record reports, in their order."""
    drawn = [run for run in body.runs if _decides(run)]
    theirs = {run.draw: run.score or 0.0 for run in drawn if run.arm == "parent"}
    mine = [(run.draw, run.score or 0.0) for run in drawn if run.arm == "candidate"]
    return [spec.better_by(score, theirs[draw]) for draw, score in mine if draw in theirs]


def _decides(run: Run) -> bool:
    return run.role == "confirm" and run.draw is not None and run.score is not None


def missing_steps(body: Result, mine: int, theirs: int, here: Environment) -> float:
    """How far a program falls behind on this machine because it costs more here: ln of how many times as many steps it
    got beside its parent where the claim was made. 0 for up to a tenth more, on the same hardware, or where that is not
    known. mine, theirs: steps of the program and its parent here.

    What bfloat16 saves where a processor knows it, it costs several times over where one does not.
    """
    there = body.environment
    steps = {run.arm: run.steps for run in body.runs if _decides(run)}
    its, parents = steps.get("candidate", 0), steps.get("parent", 0)
    if (there.device, there.library) == (here.device, here.library) or not its or not parents:
        return 0.0
    missing = math.log(its / parents * theirs / mine)
    return missing if missing > _COST_ERROR else 0.0


def unsupported(body: Result, spec: TaskSpec) -> str:
    """Which number of a kept result does not follow from the runs that it reports; empty: none.

    Any of these runs may be repeated by a verifier, so numbers that follow from them cannot be made up with impunity.
    """
    found, gains = body.evidence, pair_gains(body, spec)
    drawn = [run for run in body.runs if _decides(run)]
    if found is None or not gains or len(drawn) != 2 * len(gains) or found.pairs != len(gains):
        return f"it reports the runs of {len(gains)} pairs, and evidence from {found.pairs if found else 'none'}"
    if len({run.seed for run in drawn}) < len(drawn) or len({run.draw for run in drawn}) < len(gains):
        return "it reports runs twice"
    try:
        return _wrong(body, found, gains)
    except (OverflowError, ValueError):  # sums of what is beyond numbers
        return "its numbers are no numbers"


def _wrong(body: Result, found: Evidence, gains: list[float]) -> str:
    numbers = {"gain": (body.gain, statistics.fmean(gains))}
    numbers["e-value"] = (found.e_value, evidence.e_value([gain - found.required for gain in gains]))
    if scores := {(run.seed, run.steps, run.digest): run.score or 0.0 for run in screens(body)}:
        mine = [(run.seed, run.steps, run.digest) for run in body.runs if run.arm == "candidate" and _decides(run)]
        numbers["score"] = (body.score, statistics.fmean(scores.get(run, math.nan) for run in mine))
    for name, (said, real) in numbers.items():
        if not math.isclose(said or 0.0, real, rel_tol=1e-6, abs_tol=1e-9):
            return f"its {name} is not that of the runs that it reports"
    return ""


def screens(body: Result) -> list[Run]:
    """What the candidate's runs of the pairs scored on the text that all runs share: the mean is the record's score."""
    runs = (run for run in body.runs if run.arm == "candidate" and run.role == "confirm" and run.score is not None)
    return [run for run in runs if run.slice == "screen" and run.draw is None]


def repeated(task: Task, source: str, run: Run, wall_s: float, *more: Slice) -> RunSpec:
    """The same run here: same seed, steps and text; `more`: slices to score besides."""
    part = task.screen if run.draw is None else task.drawn(run.draw)  # `reported` has looked at its name
    return RunSpec(source, run.seed, run.steps, (*more, part), wall_s=wall_s)


def compare(there: Run, here: RunResult, made_on: Environment, this: Environment, *also: Run) -> Trace:
    """What a finished repeated run says of the one that was reported; `also`: that one on other texts."""
    same = made_on == this
    if bytes.fromhex(here.logits_digest) == there.digest:
        gaps = [abs(here.scores[run.slice] - (run.score or 0.0)) for run in (there, *also)]
        if max(gaps) > (1e-9 if same else ROUNDING):
            return Trace("differs", "the model is the same and its recorded score is not", "the score was made up")
        return Trace("same", "the same, bit for bit")
    if same:
        why = "equal environments reproduce a run bit for bit"
        return Trace("differs", "this machine is like the author's and gets another model", why)
    gaps = [abs(a - b) / max(abs(a), 1e-9) for a, b in zip(there.losses, here.first_losses, strict=False)]
    if not gaps:
        return Trace("unknown", "there are no losses to compare")
    if max(gaps) <= LOSS_TOLERANCE:
        return Trace("near", f"the first {len(gaps)} agree within {max(gaps):.0e}, as on another machine")
    if made_on.library.split()[:2] != this.library.split()[:2]:
        return Trace("unknown", f"other losses, under {made_on.library} there and {this.library} here")
    why = f"its first losses differ by up to {max(gaps):.1e}, where other machines differ by less than 1e-4"
    return Trace("differs", "the recorded run was not made by this program", why)
