"""A simulated swarm as all its parts see it: events, records, gossip, and what is believed of a claim."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from scale_parts import (
    BASELINE,
    COUNT_AGAIN,
    CPU,
    EDITS,
    EXACT_UP_TO,
    HELLO,
    HELLOS_HEARD,
    HOP,
    KINDS,
    LINKS,
    PATIENCE,
    RUN,
    SPREAD,
    TABLE,
    TASK,
    WORTHWHILE,
    Claim,
    Filtered,
    Node,
    Program,
)
from swarm_node.node.queue import SHARE, Queue
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.records import Cost, Evidence, Record, Result, Verification
from swarm_node.swarm.frontier import speaks_for
from swarm_node.swarm.trust import Trust
from swarm_node.swarm.verdicts import Verdicts
from swarm_node.swarm.verifiers import VERIFIERS
from swarm_node.trainer import decide


class World:
    """Time, the records that were made, and who heard them. What nodes do is in the subclasses."""

    def __init__(
        self,
        nodes: int,
        sybils: float = 0.0,
        hours: float = 2.0,
        seed: int = 1,
        rules: Collection[str] = (),
        lies_per_hour: float = 6.0,
        copies_per_hour: float = 0.0,
        observed: int = 30,
        exact: bool = False,
    ) -> None:
        self.now = 0.0
        self.size, self.end, self.rules = nodes, 3600.0 * hours, frozenset(rules)
        self.lies_per_hour, self.copies_per_hour = lies_per_hour, copies_per_hour
        self.random = random.Random(f"{seed}/{nodes}/{sybils}")
        self.honest = nodes - round(sybils * nodes)
        self.keys = [digest(b"%d/%d" % (seed, number)) for number in range(nodes)]
        self.index = {key: number for number, key in enumerate(self.keys)}
        self.exact = exact or nodes <= EXACT_UP_TO
        self.table = nodes if "table" in self.rules else TABLE
        self.hello = HELLO * max(1.0, nodes / HELLOS_HEARD)
        self.phase = np.array([self.random.uniform(0.0, self.hello) for _ in range(nodes)])
        self._words = np.array([self.random.getrandbits(64) for _ in range(nodes)], dtype=np.uint64)
        wide = nodes > self.table
        self.first = 100 if wide else VERIFIERS + int(self.end / PATIENCE) + 1  # ranks worth keeping
        self.gains = [self._gain() for _ in range(EDITS)]
        self.names = [self.random.getrandbits(64) for _ in range(EDITS)]
        baseline = Program(0, 0.0, frozenset())
        self.nodes = [Node(i, self.keys[i], baseline, Trust(self.keys[i])) for i in range(self.honest)]
        self.verdicts = Verdicts()
        self.claims: list[Claim] = []
        self.by_id: dict[bytes, Claim] = {}
        self.wins: list[Claim] = []  # that were heard, in this order
        self.by_author: dict[bytes, list[Claim]] = defaultdict(list)
        self.confirmed_by: dict[bytes, list[Claim]] = defaultdict(list)
        self.accusations: dict[bytes, list[tuple[Claim, Record]]] = defaultdict(list)
        self.steps: dict[tuple[int, int], list[Claim]] = defaultdict(list)
        self.failed: set[int] = set()
        self.leads: dict[int, float] = {}
        self.had: dict[int, list[float]] = defaultdict(list)  # by edit: when each honest node first had it
        self.first_claim: dict[int, float] = {}
        self.first_confirmed: dict[int, float] = {}
        self.sent: Counter[str] = Counter()
        self.first_lie: dict[bytes, float] = {}
        self.caught: dict[bytes, list[float]] = defaultdict(list)  # liars: seconds from first lie, one by one node
        self.lies_adopted = self.luck = self.agreed = self.disagreed = 0
        self.progress: list[tuple[float, float]] = []
        self.hearing: list[Callable[[Claim], None]] = []  # told of every claim that was heard
        self.confirming: list[Callable[[Claim], None]] = []  # and of every word after which one is confirmed
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = itertools.count()
        watched = self.honest if self.honest < observed else observed if nodes <= 300 else min(8, observed)
        if self.exact and not self.rules:
            self._observe(self.random.sample(self.nodes, watched))

    def _observe(self, nodes: Sequence[Node]) -> None:
        self.observed = nodes
        for node in nodes:
            node.frontier = Filtered(node.key, TASK, BASELINE)
            node.frontier.due = node.due
            node.queue = Queue(node.frontier, CPU.hardware, SHARE, lambda: RUN)

    def _gain(self) -> float:
        kind = self.random.random()
        return 0.0 if kind < KINDS[0] else -3.0 if kind < KINDS[0] + KINDS[1] else self.random.expovariate(1 / 3)

    # ---- events

    def at(self, when: float, what: Callable[..., None], *with_: Any) -> None:
        """Do something later."""
        heapq.heappush(self._events, (when, next(self._number), what, with_))

    def delay(self) -> float:
        """Seconds that a record needs to a node."""
        hops = max(1, math.ceil(math.log(self.size, LINKS)))
        return sum(HOP * math.exp(self.random.gauss(0.0, SPREAD)) for _ in range(hops))

    def tell(self, record: Record, heard: Callable[..., None], *with_: Any) -> None:
        """Gossip a record."""
        self.at(self.now + self.delay(), heard, *with_)
        for node in getattr(self, "observed", ()):
            own = node.key == record.author
            heapq.heappush(node.inbox, (self.now + (0.0 if own else self.delay()), next(self._number), record))

    def record(self, author: int, body: Result | Verification) -> Record:
        """What an author signs now; unsigned and unencoded: nobody here forges."""
        number = next(self._number)
        kind = "result" if isinstance(body, Result) else "verification"
        record = Record.model_construct(
            v=1, author=self.keys[author], epoch=0, seq=number, prev=None, time=int(self.now * 1000), kind=kind,
            body=body, sig=b"",
        )  # fmt: skip
        record.__dict__["id"] = digest(b"record %d" % number)
        return record

    # ---- records

    def result(
        self, parent: Program, program: Program, sources: Sequence[Claim], gain: float, kept: bool, seconds: float
    ) -> Result:
        """The body of a result."""
        return Result.model_construct(
            task=TASK, outcome="kept" if kept else "discarded", aim="gain", program=program.digest,
            parent=parent.digest, anchor=None, normal=program.digest, diff="d" if kept else None, title="t", gain=gain,
            score=0.0, evidence=None, inspired_by=tuple(one.record.id for one in sources), environment=CPU,
            proposer="offline", cost=Cost.model_construct(seconds=seconds, tokens_in=0, tokens_out=0, dollars=0.0),
        )  # fmt: skip

    def claim(
        self, record: Record, author: int, parent: Program, program: Program, edit: int | None,
        sources: Sequence[Claim], lie: bool = False,
    ) -> Claim:  # fmt: skip
        """Publish a win."""
        assert isinstance(record.body, Result)
        gain = record.body.gain or 0.0
        claim = Claim(record, author, parent, program, edit, gain, self.now, lie, bool(sources))
        self.claims.append(claim)
        self.by_id[record.id] = claim
        if edit is not None and not lie:
            self.first_claim.setdefault(edit, self.now)
        self.tell(record, self.heard, claim)
        return claim

    def word(
        self, author: int, claim: Claim, outcome: str, value: float, against: float, seconds: float = 0.0,
        wider: bool = False,
    ) -> Record:  # fmt: skip
        """A verification, counted as sent."""
        found = Evidence.model_construct(
            pairs=1, required=WORTHWHILE, low=None, high=None, e_value=value, against=against, level=decide.ALPHA
        )
        body = Verification.model_construct(
            task=TASK, result=claim.record.id, outcome=outcome, setting="wider" if wider else "same", cause="",
            evidence=found if outcome != "fabricated" else None, environment=CPU, runs=(),
            cost=Cost.model_construct(seconds=seconds, tokens_in=0, tokens_out=0, dollars=0.0),
        )  # fmt: skip
        self.sent["verification"] += 1
        return self.record(author, body)

    def heard(self, claim: Claim) -> None:
        """A claim has come to everybody."""
        claim.heard = self.now
        claim.place = len(self.wins)
        self.wins.append(claim)
        self.by_author[claim.record.author].append(claim)
        self.steps[claim.step].append(claim)
        for hear in self.hearing:
            hear(claim)

    def hears_word(self, claim: Claim, record: Record) -> None:
        """So has a verification."""
        self.verdicts.add(record)
        body = record.body
        assert isinstance(body, Verification)
        if body.setting == "wider":
            return
        claim.words.append(record)
        if body.outcome == "confirmed":
            self.confirmed_by[record.author].append(claim)
        if body.outcome == "fabricated":
            self.accusations[record.author].append((claim, record))
        for node in claim.reran:
            node.learn(record)
        claim.state = self.verdicts.of(claim.record).state
        if claim.state != "claimed" and claim.settled is None:
            claim.settled = self.now
        if claim.state == "confirmed":
            if claim.edit is not None and not claim.lie:
                self.first_confirmed.setdefault(claim.edit, self.now)
            for confirm in self.confirming:
                confirm(claim)

    # ---- belief

    def trusting(self, node: Node) -> None:
        """Whom this node believes, and whom it ignores, by `Trust`."""
        for author in node.established:
            said = self.accusations.get(author, ())
            for claim, record in said[node.told.get(author, 0) :]:
                node.trust.claimed(claim.record.id, claim.record.author)
                node.learn(record)
            node.told[author] = len(said)
        if not node.dirty or (self.now < node.counted + COUNT_AGAIN and node.frontier is None and not node.spoke):
            return
        node.dirty = node.spoke = False
        node.counted = self.now
        node.standings = node.trust.standings(node.fold)
        node.established = node.trust.established(node.fold)
        gone = node.trust.quarantined(node.fold)
        for liar in gone - node.quarantined:
            if liar in self.first_lie:
                self.caught[liar].append(self.now - self.first_lie[liar])
        node.quarantined = gone
        if node.established - node.told.keys():
            self.trusting(node)

    def opinion(self, node: Node, claim: Claim) -> tuple[str, bool]:
        """State of a claim, and whether it is settled, as `Frontier.opinion` says it to this node: what strangers alone
        say decides nothing."""
        state, settled, _ = self._opinion(node, claim)
        if not settled:
            for other in self.steps[claim.step]:
                refutes = other is not claim and self._opinion(node, other) == ("refuted", True, True)
                if refutes and speaks_for("refuted", other.body, claim.body):
                    return "refuted", True
        return (state if settled or "hearsay" in self.rules else "claimed"), settled

    def is_answered(self, node: Node, one: Claim, other: Claim) -> bool:
        """Whether what is known of one claim says that an equal one holds."""
        return self._opinion(node, one) == ("confirmed", True, True) and speaks_for("confirmed", one.body, other.body)

    def _opinion(self, node: Node, claim: Claim) -> tuple[str, bool, bool]:
        if (own := node.words.get(claim, "inconclusive")) != "inconclusive":
            return ("confirmed" if own == "confirmed" else "refuted"), True, own != "fabricated"
        if not claim.words:
            return "claimed", False, False
        special = {record.author for record in claim.words} & {*node.established, *node.quarantined, node.key}
        if not special:
            alone = "hearsay" in self.rules and not node.established
            return (claim.state if alone else "claimed"), False, False
        found = self.verdicts.of(claim.record, node.key, node.established, node.quarantined)
        return found.state, found.settled, found.tells_of_equals

    def with_edit(self, program: Program, edit: int) -> Program:
        """A program with one edit more."""
        total = program.total + self.gains[edit]
        return Program(program.name ^ self.names[edit], total, program.edits | {edit})
