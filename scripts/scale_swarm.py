"""A simulated swarm: what its nodes do, hear and say, event by event (`bench_scale.py` says what is modelled)."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
import time
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
    GANG,
    GANG_SECONDS,
    HELLO,
    HELLOS_HEARD,
    HOP,
    KINDS,
    LEAD,
    LIE,
    LINKS,
    LOOK_AGAIN,
    PATIENCE,
    RUN,
    SPREAD,
    START,
    TABLE,
    TASK,
    WORTHWHILE,
    Attempt,
    Claim,
    Filtered,
    Found,
    Node,
    Program,
)
from swarm_node.node.ideas import MAX_ATTEMPTS, MAX_IDEAS
from swarm_node.node.proposers import belief, offline
from swarm_node.node.verifier import NEWCOMERS, SHARE, TRANSFER_VERIFIERS, Job, Queue
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.records import (
    DECISIVE,
    Cost,
    Evidence,
    Record,
    Result,
    Verification,
)
from swarm_node.swarm.frontier import Win
from swarm_node.swarm.trust import Trust
from swarm_node.swarm.verdicts import Verdicts
from swarm_node.swarm.verifiers import VERIFIERS, ranked
from swarm_node.trainer import decide, evidence


class Swarm:
    """One scenario."""

    def __init__(
        self,
        nodes: int,
        sybils: float = 0.0,
        hours: float = 2.0,
        seed: int = 1,
        rules: Collection[str] = (),
        lies_per_hour: float = 6.0,
        observed: int = 30,
        exact: bool = False,
    ) -> None:
        self.size, self.end, self.rules, self.lies_per_hour = nodes, 3600.0 * hours, frozenset(rules), lies_per_hour
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

    def run(self, say: Callable[[str], None] = lambda _: None) -> Swarm:
        """To the end."""
        for node in self.nodes:
            self.at(self.random.uniform(0.0, START), self._start, node)
        for sybil in range(self.honest, self.size):
            self.at(START + self._pause(), self._lie, sybil)
        told, begun = 0.0, time.monotonic()
        while self._events and self._events[0][0] < self.end:
            self.now, _, what, with_ = heapq.heappop(self._events)
            if self.now >= told:
                self.progress.append((self.now, statistics.fmean(node.program.worth for node in self.nodes)))
                if int(told) % 1800 == 0:
                    took = time.monotonic() - begun
                    say(
                        f"  {told / 3600:.1f} h  {len(self.claims)} claims  {self.progress[-1][1]:.1f} sd  {took:.0f} s"
                    )
                told += 300.0
            what(*with_)
        self.now = self.end
        return self

    def delay(self) -> float:
        """Seconds that a record needs to a node."""
        hops = max(1, math.ceil(math.log(self.size, LINKS)))
        return sum(HOP * math.exp(self.random.gauss(0.0, SPREAD)) for _ in range(hops))

    def _tell(self, record: Record, heard: Callable[..., None], *with_: Any) -> None:
        """Gossip a record."""
        self.at(self.now + self.delay(), heard, *with_)
        for node in getattr(self, "observed", ()):
            own = node.key == record.author
            heapq.heappush(node.inbox, (self.now + (0.0 if own else self.delay()), next(self._number), record))

    def _record(self, author: int, body: Result | Verification) -> Record:
        number = next(self._number)
        kind = "result" if isinstance(body, Result) else "verification"
        record = Record.model_construct(
            v=1, author=self.keys[author], epoch=0, seq=number, prev=None, time=int(self.now * 1000), kind=kind,
            body=body, sig=b"",
        )  # fmt: skip
        record.__dict__["id"] = digest(b"record %d" % number)  # unsigned and unencoded: nobody here forges
        return record

    # ---- honest nodes

    def _start(self, node: Node) -> None:
        runs = self._measure(node)
        node.research += runs * RUN
        if node.frontier is not None:
            body = self._result(node.program, node.program, None, 0.0, False, runs * RUN)
            node.frontier.add(self._record(node.index, body.model_copy(update={"outcome": "baseline", "parent": None})))
        self.at(self.now + runs * RUN, self._next, node)

    def _next(self, node: Node) -> None:
        if (job := self._job(node)) is not None:
            self._rerun(node, *job)
        elif (plan := self._plan(node)) is not None:
            self._experiment(node, *plan)
        else:
            self.at(self.now + LOOK_AGAIN, self._next, node)

    def _measure(self, node: Node) -> int:
        runs = max(0, decide.PROMOTE_AFTER - len(node.seeds))
        node.seeds += [self.random.gauss(0.0, 1.0) for _ in range(runs)]
        return runs

    def _plan(self, node: Node) -> tuple[Program, Claim | None, int | None] | None:
        """What the offline proposer would do: half of the time a peer's win, else an edit that nobody tries."""
        ideas = self._ideas(node)
        if ideas and self.random.random() < offline.IDEA_SHARE:
            return self._best(ideas)
        for leads in (self.leads, {}):
            for _ in range(50):
                edit = self.random.randrange(EDITS)
                name = node.program.name ^ self.names[edit]
                free = name not in self.failed and name not in node.tried and leads.get(name, 0.0) <= self.now
                if free and edit not in node.program.edits:
                    return self._with(node.program, edit), None, edit
        return self._best(ideas) if ideas else None

    def _with(self, program: Program, edit: int) -> Program:
        total = program.total + self.gains[edit]
        return Program(program.name ^ self.names[edit], total, program.edits | {edit})

    def _ideas(self, node: Node) -> list[tuple[Claim, str]]:
        out: list[tuple[Claim, str]] = []
        seen = 0
        self._trusting(node)
        for claim in reversed(self.wins):
            if claim.author == node.index or claim.program.name in node.tried:
                continue
            if claim.record.author in node.quarantined:
                continue
            seen += 1
            if seen > MAX_IDEAS:
                break
            if node.failures[id(claim)] >= MAX_ATTEMPTS or (state := self.opinion(node, claim)[0]) == "refuted":
                continue
            name = self._applied(node, claim)[0]
            if name != node.program.name and name not in node.tried:
                out.append((claim, state))
        return out

    def _applied(self, node: Node, claim: Claim) -> tuple[int, bool]:
        """The name of the program that trying it here makes, and whether as a diff."""
        edit, own = claim.edit, node.program
        if edit is None or (own.name ^ self.names[edit] * 0x9E3779B97F4A7C15) % 5 == 0:
            return claim.program.name, False
        return (own.name if edit in own.edits else own.name ^ self.names[edit]), True

    def _best(self, ideas: Sequence[tuple[Claim, str]]) -> tuple[Program | None, Claim, None]:
        def mean(claim: Claim, state: str) -> float:
            weight = belief.STATE_WEIGHT[state]
            gain = claim.gain * (belief.CLAIM if state == "claimed" else 1.0)
            won = belief.PRIOR_WEIGHT * belief.FIRST_RATE + weight * belief._share_of_win(gain, 1.0)
            return won / (belief.PRIOR_WEIGHT + weight)

        def noisy(mean: float) -> float:
            return mean / offline.TEMPERATURE - math.log(-math.log(self.random.random() or 1e-12))

        return None, max(ideas, key=lambda idea: noisy(mean(*idea)))[0], None

    def _experiment(self, node: Node, program: Program | None, claim: Claim | None, edit: int | None) -> None:
        if program is None:
            assert claim is not None
            as_diff = self._applied(node, claim)[1]
            edit = claim.edit if as_diff else None
            program = self._with(node.program, edit) if edit is not None else claim.program
        runs = self._measure(node) + 1
        if node.noise is None or node.noise.n != len(node.seeds):
            node.noise = decide.noise_of(node.seeds)
        noise = node.noise
        assert noise is not None
        true = program.worth - node.program.worth
        found: Found | None = None
        seeds: list[float] = []
        if decide.promotes(true + self.random.gauss(0.0, 1.0) - noise.mean, noise):
            level = evidence.level(decide.ALPHA, node.tested, node.found)
            node.tested += 1
            found = self._pairs(true, lambda gains: decide.look(gains, WORTHWHILE, level, noise), node.seeds, seeds)
            runs += 2 * len(found[1]) + (found[0].outcome == "won")  # and the audit
        self.leads[program.name] = self.now + LEAD
        self.sent["lead"] += 1
        attempt = Attempt(node.program, program, claim, edit, found, runs, seeds)
        self.at(self.now + runs * RUN, self._finished, node, attempt)

    def _pairs(
        self,
        true: float,
        judge: Callable[[list[float]], decide.Verdict | None],
        of_parent: list[float] | None = None,
        of_program: list[float] | None = None,
    ) -> Found:
        gains: list[float] = []
        while True:
            ours, theirs = self.random.gauss(0.0, 1.0), self.random.gauss(0.0, 1.0)
            gains.append(true + ours - theirs)
            if of_parent is not None and of_program is not None:
                of_parent.append(theirs)
                of_program.append(ours)
            if (verdict := judge(gains)) is not None:
                return verdict, gains

    def _finished(self, node: Node, done: Attempt) -> None:
        parent, program, claim, found, runs = done.parent, done.program, done.claim, done.found, done.runs
        self.leads.pop(program.name, None)
        node.research += runs * RUN
        node.chasing_lies += runs * RUN * (claim is not None and claim.lie)
        node.tried.add(program.name)
        kept = found is not None and found[0].outcome == "won"
        self.sent["kept" if kept else "other"] += 1
        if kept or node.frontier is not None:  # the others need not remember what it spent
            body = self._result(parent, program, claim, found[0].gain if found else 0.0, kept, runs * RUN)
            record = self._record(node.index, body)
            if not kept:
                heapq.heappush(node.inbox, (self.now, next(self._number), record))
        if kept:
            node.found += 1
            node.program, node.seeds, node.noise = program, done.seeds, None
            gained = program.worth > parent.worth
            self.luck += not gained
            self.lies_adopted += claim is not None and claim.lie and not gained
            for one in program.edits - parent.edits:
                self.had[one].append(self.now)
            node.kept.append(self._claim(record, node.index, parent, program, done.edit, claim))
        else:
            self.failed.add(program.name)
            if claim is not None:
                node.failures[id(claim)] += 1
        exactly = claim is not None and claim.step == (parent.name, program.name) and claim not in node.words
        if exactly and claim is not None and found is not None:
            value, down = found[0].e_value, decide.against(found[1], WORTHWHILE)
            outcome = "confirmed" if value >= DECISIVE else "refuted" if down >= DECISIVE else "inconclusive"
            self._say(node, claim, outcome, found[1], value, 0.0)
        self._next(node)

    def _result(
        self, parent: Program, program: Program, source: Claim | None, gain: float, kept: bool, seconds: float
    ) -> Result:
        return Result.model_construct(
            task=TASK, outcome="kept" if kept else "discarded", aim="gain", program=program.digest,
            parent=parent.digest, anchor=None, normal=program.digest, diff="d" if kept else None, title="t", gain=gain,
            score=0.0, evidence=None, inspired_by=(source.record.id,) if source else (), environment=CPU,
            proposer="offline", cost=Cost.model_construct(seconds=seconds, tokens_in=0, tokens_out=0, dollars=0.0),
        )  # fmt: skip

    def _claim(
        self, record: Record, author: int, parent: Program, program: Program, edit: int | None,
        source: Claim | None, lie: bool = False,
    ) -> Claim:  # fmt: skip
        assert isinstance(record.body, Result)
        gain = record.body.gain or 0.0
        claim = Claim(record, author, parent, program, edit, gain, self.now, lie, source is not None)
        self.claims.append(claim)
        self.by_id[record.id] = claim
        if edit is not None and not lie:
            self.first_claim.setdefault(edit, self.now)
        self._tell(record, self._heard, claim)
        return claim

    def _heard(self, claim: Claim) -> None:
        claim.heard = self.now
        self.wins.append(claim)
        self.steps[claim.step].append(claim)
        self._index(claim, b"")
        if not claim.lie:
            for sybil in self._gang(claim):
                # A third of them says that the author made it up, which needs no evidence at all.
                word = "fabricated" if self.random.random() < 1 / 3 else "refuted"
                self.at(self.now + self.random.uniform(0.0, GANG_SECONDS), self._slander, sybil, claim, word)

    # ---- re-runs

    def _index(self, claim: Claim, purpose: bytes) -> None:
        """Who comes first for it, of everybody but its author: once, by the production hash."""
        if self.exact:
            others = [key for key in self.keys if key != claim.record.author]
            order = np.array([self.index[key] for key in ranked(claim.record.id, others, purpose)[: self.first]])
        else:
            place = int.from_bytes(digest(claim.record.id + purpose)[:8], "big")
            mixed = self._words ^ np.uint64(place)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
            mixed ^= mixed >> np.uint64(31)
            mixed[claim.author] = np.iinfo(np.uint64).max
            order = np.argpartition(mixed, self.first)[: self.first]
            order = order[np.argsort(mixed[order])]
        claim.ranks[purpose] = order
        for rank, number in enumerate(order.tolist()):
            if number < self.honest:
                self.nodes[number].due[purpose].append((claim, rank))

    def _is_chosen(self, claim: Claim, rank: int, purpose: bytes) -> bool:
        """`is_chosen` by the rank among everybody. Of those before it, the ones count that are in the table now."""
        circle = (VERIFIERS if not purpose else TRANSFER_VERIFIERS) + int((self.now - claim.heard) / PATIENCE)
        if rank < circle or self.size <= self.table:
            return rank < circle
        before = claim.ranks[purpose][:rank]
        return int(np.count_nonzero(self._is_in_table(before))) < circle

    def _is_in_table(self, numbers: Any) -> Any:
        return (self.now - self.phase[numbers]) % self.hello < self.hello * self.table / self.size

    def _trusting(self, node: Node) -> None:
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
            self._trusting(node)

    def opinion(self, node: Node, claim: Claim) -> tuple[str, bool]:
        """State of a claim, and whether it is settled, as `Verdicts.of` says it to this node."""
        if (own := node.words.get(claim, "inconclusive")) != "inconclusive":
            return ("confirmed" if own == "confirmed" else "refuted"), True
        if not claim.words:
            return "claimed", False
        special = {record.author for record in claim.words} & {*node.established, *node.quarantined, node.key}
        if not special:  # strangers have one voice together, half a one beside anybody better
            return ("claimed" if node.established else claim.state), False
        found = self.verdicts.of(claim.record, node.key, node.established, node.quarantined)
        return found.state, found.settled

    def _is_settled(self, node: Node, claim: Claim) -> bool:
        """Whether this claim, or an equal find from the same program, is settled for this node."""
        equal = (one for one in self.steps[claim.step] if one.record.author not in node.quarantined)
        return any(self.opinion(node, one)[1] for one in equal if one.author != node.index)

    def next_job(self, node: Node) -> tuple[Claim, bytes] | None:
        """`Queue.next`, with ranks that are known."""
        total = node.verify + node.research
        if node.verify > SHARE * total:
            return None
        for claim in node.kept:
            if claim not in node.words and self.opinion(node, claim) == ("refuted", True):
                return claim, b""
        allowed = node.newcomers <= NEWCOMERS * SHARE * total
        best: tuple[tuple[float, ...], Claim, bytes] | None = None
        for purpose, place in ((b"", 1.0), (b"wider", 2.0)):
            if best is not None:
                break
            node.due[purpose] = [one for one in node.due[purpose] if not self._is_over(node, one[0], purpose)]
            if node.frontier is not None:
                node.frontier.due, node.frontier.steps = node.due, self.steps
            for claim, rank in node.due[purpose]:
                author = claim.record.author
                its = node.standings.get(author)
                if author in node.quarantined or (not purpose and not allowed and not (its and its.established)):
                    continue
                key = place, -node.score(author), claim.heard
                if (best is None or key < best[0]) and self._is_chosen(claim, rank, purpose):
                    if self.opinion(node, claim)[0] != "confirmed" if purpose else self._is_settled(node, claim):
                        continue
                    best = key, claim, purpose
        return (best[1], best[2]) if best is not None else None

    def _is_over(self, node: Node, claim: Claim, purpose: bytes) -> bool:
        return claim.wider or claim in node.widened if purpose else claim in node.words

    def _job(self, node: Node) -> tuple[Claim, bytes] | None:
        self._trusting(node)
        job = self.next_job(node)
        if node.queue is not None and node.frontier is not None:
            ours, job = job, self._ask(node, node.queue, node.frontier)
            self.agreed += ours == job
            self.disagreed += ours != job
        return job

    def _ask(self, node: Node, queue: Queue, frontier: Filtered) -> tuple[Claim, bytes] | None:
        """The production queue over what has arrived at this node."""
        while node.inbox and node.inbox[0][0] <= self.now:
            when, _, record = heapq.heappop(node.inbox)
            frontier.add(record)
            if record.id in self.by_id and record.author != node.key:
                queue.heard(record.id, self.by_id[record.id].heard or when)
        if self.size <= self.table:
            here = range(self.size)
        else:
            here = np.nonzero(self._is_in_table(np.arange(self.size)))[0].tolist()
        present = [(self.keys[number], CPU.hardware) for number in here if number != node.index]
        job = queue.next(present, (), self.now)
        if job is None:
            return None
        return self.by_id[job.win.id], b"" if job.setting == "same" else b"wider"

    def _rerun(self, node: Node, claim: Claim, purpose: bytes) -> None:
        if not purpose and claim.lie:  # the reported run is not what its program does
            found, runs = None, 1
        else:
            noise = decide.Noise(0.0, 1.0, decide.PROMOTE_AFTER)
            true = claim.program.worth - claim.parent.worth
            bar = decide.refuted_below(WORTHWHILE, claim.gain)
            found = self._pairs(true, lambda gains: decide.verify(gains, WORTHWHILE, bar, noise))
            runs = 2 * len(found[1]) + (not purpose)
        node.jobs += 1
        claim.checks += not purpose
        self.at(self.now + runs * RUN, self._reran, node, claim, purpose, found, runs)

    def _reran(self, node: Node, claim: Claim, purpose: bytes, found: Found | None, runs: int) -> None:
        seconds = runs * RUN
        node.verify += seconds
        node.runs += runs
        node.longest = max(node.longest, seconds)
        node.on_lies += seconds * claim.lie
        own = claim.author == node.index
        node.doubting += seconds * own
        self._trusting(node)
        its = node.standings.get(claim.record.author)
        if not (its and its.established) and not purpose:
            node.newcomers += seconds
        if node.queue is not None:
            win = Win(claim.record, claim.record.body, self.verdicts.of(claim.record))  # type: ignore[arg-type]
            node.queue.spent(Job(win, "wider" if purpose else "same"), seconds)
        words = {"won": "confirmed", "discarded": "refuted", "inconclusive": "inconclusive"}
        outcome = words[found[0].outcome] if found is not None else "fabricated"
        if purpose:
            node.widened.add(claim)
            claim.wider = claim.wider or outcome in ("confirmed", "refuted")
            self._say(node, claim, outcome, found[1], found[0].e_value, seconds, wider=True)  # type: ignore[index]
        else:
            gains = found[1] if found is not None else []
            self._say(node, claim, outcome, gains, found[0].e_value if found is not None else 1.0, seconds)
            if own and outcome == "refuted":
                self._drop(node)
        self._next(node)

    def _drop(self, node: Node) -> None:
        """As `Frontier`: the own best is what its own results lead to, without those that did not hold."""
        program, kept = Program(0, 0.0, frozenset()), list[Claim]()
        for claim in node.kept:
            if claim.parent.name == program.name and node.words.get(claim) != "refuted":
                program, kept = claim.program, [*kept, claim]
        node.program, node.seeds, node.noise, node.kept = program, [], None, kept

    def _say(
        self, node: Node, claim: Claim, outcome: str, gains: Sequence[float], value: float, seconds: float,
        wider: bool = False,
    ) -> None:  # fmt: skip
        against = decide.against(gains, WORTHWHILE) if gains else 1.0
        record = self._word(node.index, claim, outcome, value, against, seconds, wider)
        if not wider:
            node.words[claim] = outcome
            node.trust.claimed(claim.record.id, claim.record.author)
            for word in (*claim.words, record):
                node.learn(word)
            claim.reran.append(node)
            node.spoke = True
        self._tell(record, self._hears_word, claim, record)

    def _word(
        self, author: int, claim: Claim, outcome: str, value: float, against: float, seconds: float = 0.0,
        wider: bool = False,
    ) -> Record:  # fmt: skip
        found = Evidence.model_construct(
            pairs=1, required=WORTHWHILE, low=None, high=None, e_value=value, against=against, level=decide.ALPHA
        )
        body = Verification.model_construct(
            task=TASK, result=claim.record.id, outcome=outcome, setting="wider" if wider else "same", cause="",
            evidence=found if outcome != "fabricated" else None, environment=CPU, runs=(),
            cost=Cost.model_construct(seconds=seconds, tokens_in=0, tokens_out=0, dollars=0.0),
        )  # fmt: skip
        self.sent["verification"] += 1
        return self._record(author, body)

    def _hears_word(self, claim: Claim, record: Record) -> None:
        self.verdicts.add(record)
        body = record.body
        assert isinstance(body, Verification)
        if body.setting == "wider":
            return
        claim.words.append(record)
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
            if b"wider" not in claim.ranks:
                self._index(claim, b"wider")

    # ---- Sybils

    def _pause(self) -> float:
        return self.random.expovariate(self.lies_per_hour / 3600) if self.lies_per_hour else math.inf

    def _gang(self, claim: Claim) -> Sequence[int]:
        chosen = self.random.sample(range(self.honest, self.size), min(GANG + 1, self.size - self.honest))
        return [number for number in chosen if number != claim.author][:GANG]

    def _lie(self, sybil: int) -> None:
        parent = Program(0, 0.0, frozenset())  # an edit of somebody's better program would help who is behind
        edit = len(self.names)
        self.names.append(self.random.getrandbits(64))
        self.gains.append(LIE)
        self.first_lie.setdefault(self.keys[sybil], self.now)
        program = self._with(parent, edit)
        body = self._result(parent, program, None, 20.0, True, 0.0)
        record = self._record(sybil, body)
        claim = self._claim(record, sybil, parent, program, edit, None, lie=True)
        self.sent["kept"] += 1
        for friend in self._gang(claim):
            self.at(self.now + 1.0 + self.random.uniform(0.0, GANG_SECONDS), self._slander, friend, claim, "confirmed")
        self.at(self.now + self._pause(), self._lie, sybil)

    def _slander(self, sybil: int, claim: Claim, outcome: str) -> None:
        good = outcome == "confirmed"
        record = self._word(sybil, claim, outcome, 1e6 if good else 0.0, 0.0 if good else 1e6)
        self._tell(record, self._hears_word, claim, record)
