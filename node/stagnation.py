"""Notices that the search stands still, and says what to do about it: a pure function of the frontier.

After so many own experiments in a row of which none was kept or promised to be, the node in turn widens its choice,
starts from another branch, and tries to take things back out; each for as many experiments, until something is kept.
What is kept on another branch does not become the own best: it is an idea for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ..protocols.diffs import EDITABLE
from ..protocols.quoting import without_words
from ..protocols.records import Record, Result
from ..protocols.task import TaskSpec, program_digest
from ..swarm.frontier import Frontier, Win
from .lineage import Lineages
from .proposers.base import Mode

STALLED = 10  # own finished experiments without a kept one
BRANCHES = 3  # of the best other programs, from which nodes and rounds choose differently
_LOOKED_AT = 8  # programs among which the one is found that a turn began with
_ANSWERS: tuple[Mode, ...] = ("widen", "branch", "simplify")


@dataclass(frozen=True)
class Branch:
    """Another program to propose edits of."""

    source: str
    score: float | None
    own: bool

    @property
    def program(self) -> bytes:
        """Its digest; not the peer's, when words were taken out of it."""
        return program_digest({EDITABLE: self.source})


@dataclass(frozen=True)
class Course:
    """What the next proposal should be like."""

    mode: Mode = "search"
    stalled: int = 0  # own experiments since the last one that was kept, or promised enough to wait for others
    branch: Branch | None = None

    @property
    def note(self) -> str:
        """What changes and why, for the screen; nothing while the search goes on as usual."""
        if self.mode == "search":
            return ""
        whose = "an own earlier win" if self.branch and self.branch.own else "a peer's confirmed program"
        what = {
            "widen": "choosing more widely, and trying again what failed on older programs",
            "branch": f"starting from {whose}; what wins there is then tried on the own best",
            "simplify": "taking own wins back out, one at a time, and simplifying",
        }[self.mode]
        return f"nothing kept in {self.stalled} experiments: {what}"


def course(spec: TaskSpec, frontier: Frontier, program: Callable[[bytes], str | None]) -> Course:
    """The course at this frontier. `program`: source text by digest, as far as it is known here.

    With no other branch to start from, the choice is widened instead.
    """
    own = [
        record for record in list(frontier.trials) if record.author == frontier.own and _finished(record) is not None
    ]
    since = list(itertools.takewhile(lambda record: not _promises(record), reversed(own)))
    stalled = len(since)
    if stalled < STALLED:
        return Course(stalled=stalled)
    turn = stalled // STALLED - 1
    mode = _ANSWERS[turn % len(_ANSWERS)]
    if mode != "branch":
        return Course(mode, stalled)
    begun = {result.parent for record in since[: stalled % STALLED] if (result := _finished(record)) is not None}
    branch = _branch(spec, frontier, program, turn // len(_ANSWERS), begun, _dead(own))
    return Course("widen", stalled) if branch is None else Course("branch", stalled, branch)


def _branch(
    spec: TaskSpec,
    frontier: Frontier,
    program: Callable[[bytes], str | None],
    round_: int,
    begun: set[bytes | None],
    dead: set[bytes],
) -> Branch | None:
    """A program from which this turn has `begun`, since its noise was measured; else one of the best."""
    best = program(frontier.best_program)
    found: list[Branch] = []
    for win in _others(spec, frontier)[:_LOOKED_AT] if best is not None else ():
        own = win.record.author == frontier.own
        source = program(win.result.program)
        if source is not None and source != best:
            # Shown to the language model in full, like an adopted program: without the peer's words.
            branch = Branch(source if own else without_words(source, best or ""), win.result.score, own)
            found += [branch] if branch.program not in dead else []
    going_on = [branch for branch in found if branch.program in begun]
    choice = going_on[:1] or found[:BRANCHES]
    return choice[(round_ + frontier.own[0]) % len(choice)] if choice else None


def _others(spec: TaskSpec, frontier: Frontier) -> list[Win]:
    """Peers' confirmed programs of other lineages, the best first, then own wins aside, the newest first."""
    lineages = Lineages(frontier, spec.id)
    wins = [win for win in frontier.peer_wins if win.state == "confirmed" and not win.flagged]
    apart = [win for win in wins if win.result.score is not None and lineages.is_apart(win.result.program)]
    best_first = sorted(apart, key=lambda win: -spec.better_by(win.result.score or 0.0, 0.0))
    return [*best_first, *reversed(frontier.own_wins_aside)]


def _dead(own: list[Record]) -> set[bytes]:
    """Programs from which every own experiment crashed: they may not run on this machine."""
    crashed, ran = set[bytes](), set[bytes]()
    for record in own:
        result = _finished(record)
        if result is not None and result.parent is not None:
            (crashed if result.outcome == "crashed" else ran).add(result.parent)
    return crashed - ran


def _finished(record: Record) -> Result | None:
    body = record.body
    return body if isinstance(body, Result) and body.outcome != "baseline" else None


def _promises(record: Record) -> bool:
    result = _finished(record)
    return result is not None and (result.outcome == "kept" or result.is_waiting)
