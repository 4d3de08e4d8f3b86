"""Repeating the run that a record reports, and what the comparison says: whether its program did that at all.

An equal environment must give the same logits bit for bit; another one the same first losses, within what arithmetic
in another order does to them. Another version of torch draws other random numbers, so that it proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..protocols.records import Environment, Result, Run
from ..trainer.task import Task
from ..trainer.types import RunResult, RunSpec, Slice

LOSS_TOLERANCE = 1e-4  # relative, of the first 10 losses: other CPUs and builds differ by 1e-6, other programs by more
_TEXTS = {("screen", False), ("confirm", True)}  # slice, and whether text is drawn from it: what nodes report
ROUNDING = 1e-5  # bits per byte, of answers that other CPUs compute in other batch shapes


@dataclass(frozen=True)
class Trace:
    """What a repeated run says. `differs`: the record's run was not made by this program, or its score was made up."""

    kind: Literal["same", "near", "differs", "unknown"]
    what: str  # for people
    why: str = ""


def reported(body: Result) -> Run | None:
    """The run of a record that is repeated: one that confirmed it, where there is one. A record is anybody's: runs on
    text that no node scores do not count."""
    finished = (run for run in body.runs if run.arm == "candidate" and run.score is not None)
    runs = [run for run in finished if (run.slice, run.draw is not None) in _TEXTS]
    return next((run for run in runs if run.role == "confirm"), runs[0] if runs else None)


def repeated(task: Task, source: str, run: Run, wall_s: float, *more: Slice) -> RunSpec:
    """The same run here: same seed, steps and text; `more`: slices to score besides."""
    part = task.screen if run.draw is None else task.drawn(run.draw)  # `reported` has looked at its name
    return RunSpec(source, run.seed, run.steps, (*more, part), wall_s=wall_s)


def compare(there: Run, here: RunResult, made_on: Environment, this: Environment) -> Trace:
    """What a finished repeated run says of the one that was reported."""
    score, same = here.scores[there.slice], made_on == this
    if bytes.fromhex(here.logits_digest) == there.digest:
        if abs(score - (there.score or 0.0)) > (1e-9 if same else ROUNDING):
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
