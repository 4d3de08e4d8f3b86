"""Who re-runs what in a simulated swarm, and what comes of it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scale_parts import CPU, PATIENCE, RUN, WORTHWHILE, Claim, Filtered, Found, Node, Program
from scale_world import World
from swarm_node.node.queue import NEWCOMERS, SHARE, TRANSFER_VERIFIERS, Queue
from swarm_node.protocols.canonical import digest
from swarm_node.swarm.verifiers import VERIFIERS, ranked
from swarm_node.trainer import decide


class Checks(World):
    """Verification: the production queue for observed nodes, the same rules with known ranks for all others."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.hearing.append(lambda claim: self._index(claim, b""))
        self.confirming.append(lambda claim: None if b"wider" in claim.ranks else self._index(claim, b"wider"))

    def next(self, node: Node) -> None:
        """What a node does after a re-run."""
        raise NotImplementedError

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

    def _is_chosen(self, claim: Claim, rank: int, purpose: bytes, waits: bool = True) -> bool:
        """`is_chosen` by the rank among everybody. Of those before it, the ones count that are in the table now."""
        waits = waits and not (purpose and claim.wider)  # else who comes first looks itself
        age = self.now - claim.heard if waits else 0.0
        circle = (VERIFIERS if not purpose else TRANSFER_VERIFIERS) + int(age / PATIENCE)
        if rank < circle or self.size <= self.table:
            return rank < circle
        before = claim.ranks[purpose][:rank]
        return int(np.count_nonzero(self._is_in_table(before))) < circle

    def _is_in_table(self, numbers: Any) -> Any:
        return (self.now - self.phase[numbers]) % self.hello < self.hello * self.table / self.size

    def _is_done(self, node: Node, claim: Claim, newcomers: bool) -> bool:
        """Whether this claim, or an equal find from the same program, is settled for this node; or is not the first
        that it may re-run."""
        found = (one for one in self.steps[claim.step] if one.record.author not in node.quarantined)
        equal = [one for one in found if one.author != node.index]
        if any(self.is_answered(node, one, claim) for one in equal):
            return True
        open_ = (
            one
            for one in equal
            if one not in node.words
            and not self.opinion(node, one)[1]
            and not any(self.is_answered(node, other, one) for other in equal)
        )
        first = next((one for one in open_ if newcomers or self._is_established(node, one.record.author)), None)
        return first is not claim

    def _is_denied(self, node: Node, claim: Claim, newcomers: bool) -> bool:
        """Whether it is the first of equal finds that others alone refute, as `Frontier.denied` and the queue say."""
        equal = [one for one in self.steps[claim.step] if one.author != node.index]
        equal = [one for one in equal if one.record.author not in node.quarantined]
        if any(one in node.words for one in equal):
            return False
        denied = (one for one in equal if self.opinion(node, one) == ("refuted", True))
        first = next((one for one in denied if newcomers or self._is_established(node, one.record.author)), None)
        return first is claim

    def _is_established(self, node: Node, author: bytes) -> bool:
        its = node.standings.get(author)
        return its is not None and its.established

    def _said(self, node: Node, claim: Claim) -> int:
        """How many who are believed came to a verdict about it."""
        words = (record for record in claim.words if record.body.outcome != "inconclusive")  # type: ignore[union-attr]
        return len(({record.author for record in words} & node.established) - node.quarantined - {claim.record.author})

    def next_job(self, node: Node) -> tuple[Claim, bytes] | None:
        """`Queue.next`, with ranks that are known."""
        total = node.verify + node.research
        if node.verify > SHARE * total:
            return None
        for claim in node.kept:
            if claim not in node.words and self.opinion(node, claim) == ("refuted", True):
                return claim, b""
        on_newcomers = sum(cost for who, cost in node.on_authors.items() if not self._is_established(node, who))
        allowed = on_newcomers <= NEWCOMERS * SHARE * total
        best: tuple[tuple[float, ...], Claim, bytes] | None = None
        for purpose, place in ((b"", 1.0), (b"wider", 2.0)):
            if best is not None:
                break
            node.due[purpose] = [one for one in node.due[purpose] if not self._is_over(node, one[0], purpose)]
            if node.frontier is not None:
                node.frontier.due, node.frontier.steps = node.due, self.steps
            for claim, rank in node.due[purpose]:
                author = claim.record.author
                if node.frontier is not None and claim.record.id not in node.frontier._seen:
                    continue
                new = not self._is_established(node, author)
                if author in node.quarantined or (not purpose and not allowed and new):
                    continue
                key = place, new, self._said(node, claim), -node.score(author), claim.heard
                if (best is None or key < best[0]) and self._is_chosen(claim, rank, purpose):
                    if purpose:
                        done = self.opinion(node, claim)[0] != "confirmed"
                    else:
                        named = self._is_chosen(claim, rank, purpose, waits=False)
                        denied = named and self._is_denied(node, claim, allowed)
                        done = self._is_done(node, claim, allowed) and not denied
                    if done:
                        continue
                    best = key, claim, purpose
        return (best[1], best[2]) if best is not None else None

    def _is_over(self, node: Node, claim: Claim, purpose: bytes) -> bool:
        if purpose:
            return claim in node.widened or any(self._is_established(node, author) for author in claim.wider)
        return claim in node.words

    def _job(self, node: Node) -> tuple[Claim, bytes] | None:
        self.trusting(node)
        if node.queue is not None and node.frontier is not None:
            self._receive(node, node.queue, node.frontier)
        job = self.next_job(node)
        if node.queue is not None:
            ours, job = job, self._ask(node, node.queue)
            self.agreed += ours == job
            self.disagreed += ours != job
        return job

    def _receive(self, node: Node, queue: Queue, frontier: Filtered) -> None:
        """What has arrived at this node."""
        while node.inbox and node.inbox[0][0] <= self.now:
            when, _, record = heapq.heappop(node.inbox)
            frontier.add(record)
            if record.id in self.by_id and record.author != node.key:
                queue.heard(record.id, self.by_id[record.id].heard or when)

    def _ask(self, node: Node, queue: Queue) -> tuple[Claim, bytes] | None:
        """The production queue over that."""
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
        self.trusting(node)
        if not purpose and not own:
            node.on_authors[claim.record.author] += seconds
        words = {"won": "confirmed", "discarded": "refuted", "inconclusive": "inconclusive"}
        outcome = words[found[0].outcome] if found is not None else "fabricated"
        if purpose:
            node.widened.add(claim)
            if outcome in ("confirmed", "refuted"):
                claim.wider.add(node.key)
            self._say(node, claim, outcome, found[1], found[0].e_value, seconds, wider=True)  # type: ignore[index]
        else:
            gains = found[1] if found is not None else []
            self._say(node, claim, outcome, gains, found[0].e_value if found is not None else 1.0, seconds)
            if own and outcome == "refuted":
                self._drop(node)
        self.next(node)

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
        bar = decide.refuted_below(WORTHWHILE, claim.gain)
        against = decide.against(gains, bar) if gains else 1.0
        record = self.word(node.index, claim, outcome, value, against, seconds, wider)
        if not wider:
            node.words[claim] = outcome
            node.trust.claimed(claim.record.id, claim.record.author)
            for word in (*claim.words, record):
                node.learn(word)
            claim.reran.append(node)
            node.spoke = True
        self.tell(record, self.hears_word, claim, record)

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
