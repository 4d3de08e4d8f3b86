"""What a simulated swarm consists of: constants, programs, claims and nodes (`bench_scale.py` says what they mean)."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from swarm_node.node.queue import PATIENCE_RUNS, Queue
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.records import Environment, Record, Result
from swarm_node.swarm.frontier import Frontier, Win, hearsay, unanswered
from swarm_node.swarm.trust import Standing, Trust
from swarm_node.swarm.verdicts import Verdicts
from swarm_node.trainer import decide

RUN = 30.0
PATIENCE = PATIENCE_RUNS * RUN
HELLO, HELLOS_HEARD, TABLE, LOOK_AGAIN, LEAD = 30.0, 40, 8192, 20.0, 600.0  # node.app, swarm.overlay, node.planner
START = 600.0
COUNT_AGAIN = 600.0  # between two counts of whom a node believes, when it said nothing itself
EDITS, CEILING, WORTHWHILE, LIE = 5000, 40.0, 0.2, -1.0  # gains in standard deviations over seeds
KINDS = (0.6, 0.25, 0.15)  # of edits: nothing, a loss, a gain
HOP, SPREAD = 0.1, math.log(455 / 58) / statistics.NormalDist().inv_cdf(0.99)
LINKS, COPIES = 6, 5
GANG, GANG_SECONDS = 3, 60.0  # Sybils on each claim, within so many seconds
EXACT_UP_TO = 2000
CPU = Environment(hardware="cpu", device="d", system="s", python="3", library="t")
TASK, BASELINE = digest(b"task"), digest(b"baseline")
Found = tuple[decide.Verdict, list[float]]
RULES = ("table", "hearsay", "blind")


@cache
def _digest(number: int) -> bytes:
    return digest(b"program %d" % number) if number else BASELINE


@dataclass(frozen=True)
class Program:
    """What a node has: its edits, and the sum of their gains. `name`: exclusive or of the edits' names."""

    name: int
    total: float
    edits: frozenset[int]

    @property
    def worth(self) -> float:
        """Gain over the baseline."""
        return CEILING * -math.expm1(-self.total / CEILING)

    @property
    def digest(self) -> bytes:
        """As records name it."""
        return _digest(self.name)


@dataclass(eq=False, slots=True, repr=False)
class Claim:
    """A kept result, and what was said of it."""

    record: Record
    author: int
    parent: Program
    program: Program
    edit: int | None  # None: a whole program in place of another
    gain: float  # as reported
    at: float
    lie: bool
    adoption: bool
    heard: float = 0.0
    place: int = 0  # among all that were heard
    words: list[Record] = field(default_factory=list)
    reran: list[Node] = field(default_factory=list)
    state: str = "claimed"  # in the eyes of a stranger
    settled: float | None = None  # when it first was something else there
    wider: set[bytes] = field(default_factory=set)  # who came to a verdict at twice the width
    ranks: dict[bytes, Any] = field(default_factory=dict)  # identities by purpose, the first ones
    checks: int = 0

    @property
    def body(self) -> Result:
        """Of its record."""
        assert isinstance(self.record.body, Result)
        return self.record.body

    @property
    def step(self) -> tuple[int, int]:
        """From program to program."""
        return self.parent.name, self.program.name


@dataclass(frozen=True)
class Attempt:
    """An experiment that runs. `claims`: peers' wins that it tries; `edit`: of an own idea, or of a single diff."""

    parent: Program
    program: Program
    claims: tuple[Claim, ...]
    edit: int | None
    found: Found | None
    runs: int
    seeds: list[float]  # of `program`, less the true mean


@dataclass(eq=False, repr=False)
class Node:
    """An honest node."""

    index: int
    key: bytes
    program: Program
    trust: Trust
    fold: Verdicts = field(default_factory=Verdicts)  # the words that can matter to `trust`
    seeds: list[float] = field(default_factory=list)  # of its program, less the true mean
    noise: decide.Noise | None = None
    experiments: int = 0
    lost_on: Counter[bytes] = field(default_factory=Counter)  # experiments with one win of each author, for nothing
    tested: int = 0
    found: int = 0
    research: float = 0.0
    verify: float = 0.0
    on_authors: Counter[bytes] = field(default_factory=Counter)  # of `verify`, on the claims of each
    on_lies: float = 0.0  # of `verify`
    chasing_lies: float = 0.0  # of `research`
    doubting: float = 0.0  # of `verify`, on own wins that others refute
    jobs: int = 0
    runs: int = 0
    longest: float = 0.0
    stacks_kept: int = 0
    stacks_lost: int = 0
    tried: set[int] = field(default_factory=set)
    failures: Counter[int] = field(default_factory=Counter)
    words: dict[Claim, str] = field(default_factory=dict)
    looked_at: set[Claim] = field(default_factory=set)  # claims of which a reported run was repeated here
    widened: set[Claim] = field(default_factory=set)
    kept: list[Claim] = field(default_factory=list)
    due: dict[bytes, list[tuple[Claim, int]]] = field(default_factory=lambda: {b"": [], b"wider": []})
    established: frozenset[bytes] = frozenset()
    quarantined: frozenset[bytes] = frozenset()
    standings: dict[bytes, Standing] = field(default_factory=dict)
    dirty: bool = True
    spoke: bool = False  # since it counted
    counted: float = -math.inf
    told: dict[bytes, int] = field(default_factory=dict)  # accusations taken over from each believed author
    queue: Queue | None = None
    frontier: Filtered | None = None
    inbox: list[tuple[float, int, Record]] = field(default_factory=list)

    def learn(self, record: Record) -> None:
        """A word that can change whom it trusts."""
        self.fold.add(record)
        self.trust.changed()
        self.dirty = True

    def score(self, author: bytes) -> int:
        """As `Queue._order` counts."""
        its = self.standings.get(author)
        return its.confirmed - its.refuted - its.disagreed if its else 0


class Filtered(Frontier):
    """A frontier that shows its queue only claims that this node could be chosen for; the others would be passed over
    one by one, in 1 ms each."""

    due: dict[bytes, list[tuple[Claim, int]]]
    steps: dict[tuple[int, int], list[Claim]]  # claims by what they did to which program

    @property
    def claims(self) -> tuple[Win, ...]:
        """As the frontier, filtered."""
        return unanswered(self._due_wins())

    @property
    def denied(self) -> tuple[Win, ...]:
        """As the frontier, filtered."""
        return hearsay(self._due_wins(), lambda win: self.word(win.id) is not None)

    def _due_wins(self) -> list[Win]:
        steps = dict.fromkeys(one.step for one, _ in self.due[b""])
        equal = (one for step in steps for one in self.steps[step] if one.record.author != self.own)
        return [win for _, win in self._of(equal)]

    @property
    def confirmed(self) -> tuple[Win, ...]:
        """As the frontier, filtered."""
        return tuple(win for _, win in self._of(one for one, _ in self.due[b"wider"]) if win.state == "confirmed")

    def _of(self, claims: Iterable[Claim]) -> list[tuple[Claim, Win]]:
        gone = self.quarantined
        here = [one for one in claims if one.record.id in self._seen and one.record.author not in gone]
        return [(one, Win(one.record, one.record.body, self.opinion(one.record))) for one in here]  # type: ignore[arg-type]
