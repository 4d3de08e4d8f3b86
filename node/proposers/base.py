"""What a proposer is told, and what it answers. Both proposers, built in and language model, share this interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ...protocols.records import Cost
from ...protocols.tags import Tag
from ...protocols.task import TaskSpec
from .constants import Moves

State = Literal["claimed", "confirmed", "refuted"]
Outcome = Literal["kept", "discarded", "inconclusive", "crashed"]
Kind = Literal["rebase", "catch-up", "combine", "ablate"]
Mode = Literal["search", "widen", "branch", "simplify"]


@dataclass(frozen=True)
class Trial:
    """One finished experiment, own or a peer's, as a proposer learns from it. A `gain` > 0 is better."""

    title: str  # own trials only; empty for peers', whose words never enter a prompt
    tags: tuple[Tag, ...]
    outcome: Outcome
    gain: float | None
    own: bool
    edit: str = ""  # name of the offline catalogue's edit, when it was one
    cause: str = ""  # own crashes: the error's last line
    again: bool = False  # it tried what was found elsewhere
    moved: Moves = ()  # constants that it set, when it changed nothing else
    curve: tuple[float, float] | None = None  # own recent ones: score of the screening run at half time, and at its end


@dataclass(frozen=True)
class Idea:
    """Something won elsewhere that the program does not contain, offered to be tried on it.

    rebase: one win's change; catch-up: a peer's whole program, which is better; combine: several wins at once; ablate:
    the program without one of its own wins. `source`: the program with it applied; None when it conflicts with it.
    """

    result: bytes
    state: State
    diff: str
    gain: float
    tags: tuple[Tag, ...]
    source: str | None
    other_task: str = ""  # name/size of the task it was found on, when not this one
    own: bool = False  # found here: beside the win that became the own best, or one that is in it
    kind: Kind = "rebase"
    also: tuple[bytes, ...] = ()  # the other results of a combination
    edit: str = ""  # the built-in catalogue's edit that it was; tells how to do it again where its diff does not apply
    failed: int = 0  # own experiments with it that came to nothing; catch-up: with any whole program of that author
    ahead: int = 0  # catch-up: wins in that program that are not in the own one
    found_here: bool = False  # on this very program, though perhaps by somebody else
    checked: bool = False  # and confirmed by this node's own re-run: an adoption goes on with its pairs

    @property
    def inspired_by(self) -> tuple[bytes, ...]:
        """The results that an experiment with it is owed to."""
        return (self.result, *self.also)


@dataclass(frozen=True)
class Situation:
    """All that a proposer may know when it is asked for the next hypothesis."""

    task: TaskSpec
    brief: str  # program.md: what the human asks for
    machine: str  # "8 cores, no GPU: ..." one line
    parent: str  # source text of the program to edit
    parent_score: float | None
    noise: float | None  # standard deviation over seeds
    trials: tuple[Trial, ...]
    ideas: tuple[Idea, ...]
    tried: Callable[[str], bool]  # whether a source text was already tried, here or by a peer
    words: str = ""  # text by the task's author and this node, whose comments and literals may be shown
    hardware: str = "cpu"  # where runs happen: cpu, cuda-sm90, mps
    mode: Mode = "search"  # what to do other than usual, because the search stands still
    stalled: int = 0  # own experiments since the last one that was kept


@dataclass(frozen=True)
class Hypothesis:
    """A proposed edit. `source` is the whole edited program; the gate makes the canonical diff."""

    source: str
    title: str
    reason: str
    tags: tuple[Tag, ...]
    proposer: str  # offline, sweep, llm
    edit: str = ""
    inspired_by: tuple[bytes, ...] = ()
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Refused:
    """A proposal that cannot be run, kept as a recorded outcome: what came back and why it was refused.

    `answered`: false when nothing came back at all, which is no experiment for `--experiments` to count.
    """

    title: str
    cause: str
    proposer: str
    cost: Cost = field(default_factory=Cost)
    answered: bool = True


class Proposer(Protocol):
    """Turns a situation into a hypothesis."""

    @property
    def name(self) -> str:
        """offline or llm."""
        ...

    async def propose(self, situation: Situation) -> Hypothesis | Refused | None:
        """The next hypothesis; Refused when an answer came that cannot be run; None when nothing is left to try."""
        ...
