"""A simulated swarm: what its honest nodes do (`bench_scale.py` says what is modelled)."""

from __future__ import annotations

import heapq
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

from scale_checks import Checks
from scale_parts import EDITS, LEAD, LOOK_AGAIN, RUN, START, WORTHWHILE, Attempt, Claim, Found, Node, Program
from scale_sybils import Sybils
from swarm_node.node.ideas import (
    FREE_FOR_STRANGERS,
    MAX_ATTEMPTS,
    MAX_IDEAS,
    MAX_LOST_STACKS,
    MAX_OF_STRANGER,
    MAX_STACKED,
    MAX_STACKS,
    SHARE_FOR_STRANGERS,
)
from swarm_node.node.proposers import belief, offline
from swarm_node.protocols.records import DECISIVE
from swarm_node.trainer import decide, evidence


class Swarm(Checks):
    """One scenario."""

    def run(self, say: Callable[[str], None] = lambda _: None) -> Swarm:
        """To the end."""
        for node in self.nodes:
            self.at(self.random.uniform(0.0, START), self._start, node)
        if self.honest < self.size:
            Sybils(self).start()
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

    def _start(self, node: Node) -> None:
        runs = self._measure(node)
        node.research += runs * RUN
        if node.frontier is not None:
            body = self.result(node.program, node.program, (), 0.0, False, runs * RUN)
            node.frontier.add(self.record(node.index, body.model_copy(update={"outcome": "baseline", "parent": None})))
        self.at(self.now + runs * RUN, self.next, node)

    def next(self, node: Node) -> None:
        if (job := self._job(node)) is not None:
            self._rerun(node, *job)
        elif (plan := self._plan(node)) is not None:
            self._try(node, *plan)
        else:
            self.at(self.now + LOOK_AGAIN, self.next, node)

    def _measure(self, node: Node) -> int:
        runs = max(0, decide.PROMOTE_AFTER - len(node.seeds))
        node.seeds += [self.random.gauss(0.0, 1.0) for _ in range(runs)]
        return runs

    def _plan(self, node: Node) -> tuple[Program, tuple[Claim, ...], int | None] | None:
        """What the offline proposer would do: half the time several wins at once (a node only ranks those with claims
        among them), else a peer's large one, or perhaps a small one; else an edit that nobody tries."""
        ideas = self._ideas(node)
        if ideas and self.random.random() < offline.IDEA_SHARE:
            if (stack := self._stack(node, ideas)) is not None:
                return stack
            lone = self.random.random() < offline.LONE_SHARE
            now = [one for one in ideas if lone or self._expected(node, *one) >= offline.LARGE * belief.CLEAR_WIN]
            if now:
                return self._best(node, now)
        for leads in (self.leads, {}):
            for _ in range(50):
                edit = self.random.randrange(EDITS)
                name = node.program.name ^ self.names[edit]
                free = name not in self.failed and name not in node.tried and leads.get(name, 0.0) <= self.now
                if free and edit not in node.program.edits:
                    return self.with_edit(node.program, edit), (), edit
        return self._best(node, ideas) if ideas else None

    def _stack(self, node: Node, ideas: Sequence[tuple[Claim, str]]) -> tuple[Program, tuple[Claim, ...], None] | None:
        """As `ideas.stacks`: as many wins as go together, then only confirmed ones, or a half of those that failed."""
        may_claim = node.stacks_lost <= node.stacks_kept + MAX_LOST_STACKS
        fitting = [
            (one, state)
            for one, state in ideas
            if not node.failures[id(one)]
            and self._applied(node, one)[1]
            and (state == "confirmed" or (may_claim and self._vouched(node, one)))
        ]
        fitting.sort(key=lambda one: (one[1] != "confirmed", -one[0].gain))
        every, sure = [one for one, _ in fitting], [one for one, state in fitting if state == "confirmed"]
        todo = [every[:MAX_STACKED]] + ([sure[:MAX_STACKED]] if len(sure) < len(every) else [])
        for _ in range(MAX_STACKS):
            program, members = node.program, list[Claim]()
            for claim in todo.pop(0) if todo else ():
                assert claim.edit is not None  # it applies as a diff
                if claim.edit not in program.edits:
                    program = self.with_edit(program, claim.edit)
                    members.append(claim)
            if len(members) < 2:
                continue
            if program.name not in node.tried:
                return program, tuple(members), None
            half = len(members) // 2
            todo += [members[:half], members[half:]]
        return None

    def _ideas(self, node: Node) -> list[tuple[Claim, str]]:
        """As `ideas.ranked`: confirmed wins first, then claims of authors who are believed, then strangers', of each a
        few, and none after they took too many experiments for nothing; among equals what arrived last."""
        self.trusting(node)
        known = node.established
        near = {one.place: one for who in known for one in (*self.by_author[who], *self.confirmed_by[who])}
        near |= {one.place: one for one in node.words}
        found = [
            (state != "confirmed", claim.record.author not in known, -claim.place, claim, state)
            for claim in near.values()
            if (state := self._may_try(node, claim)) == "confirmed" or (state and claim.record.author in known)
        ]
        seen, there = Counter[bytes](), {claim.place for *_, claim, _ in found}
        lost = sum(count for author, count in node.lost_on.items() if author not in known)
        wins = reversed(self.wins) if lost <= FREE_FOR_STRANGERS + SHARE_FOR_STRANGERS * node.experiments else ()
        for claim in wins:
            author = claim.record.author
            if len(found) >= MAX_IDEAS:
                break
            if claim.place in there or seen[author] >= MAX_OF_STRANGER:
                continue
            if (state := self._may_try(node, claim)) is not None:
                seen[author] += 1
                found.append((state != "confirmed", True, -claim.place, claim, state))
        ideas = [(claim, state) for *_, claim, state in sorted(found, key=lambda one: one[:3])[:MAX_IDEAS]]
        names = ((one, self._applied(node, one[0])[0]) for one in ideas)
        return [one for one, name in names if name != node.program.name and name not in node.tried]

    def _may_try(self, node: Node, claim: Claim) -> str | None:
        """The state of a claim that may be built upon; what is left of strangers' turns aside."""
        author = claim.record.author
        if claim.author == node.index or claim.program.name in node.tried or author in node.quarantined:
            return None
        if node.failures[id(claim)] >= MAX_ATTEMPTS:
            return None
        state, its = self.opinion(node, claim)[0], node.standings.get(author)
        doubtful = its is not None and its.refuted + its.fabricated > its.confirmed
        return None if state == "refuted" or (state == "claimed" and doubtful) else state

    def _applied(self, node: Node, claim: Claim) -> tuple[int, bool]:
        """The name of the program that trying it here makes, and whether as a diff."""
        edit, own = claim.edit, node.program
        if edit is None or (own.name ^ self.names[edit] * 0x9E3779B97F4A7C15) % 5 == 0:
            return claim.program.name, False
        return (own.name if edit in own.edits else own.name ^ self.names[edit]), True

    def _vouched(self, node: Node, claim: Claim) -> bool:
        heard = node.established
        if hearsay := "hearsay" in self.rules:
            heard = frozenset(one.author for one in claim.words) - node.quarantined
        words = [one.body.outcome for one in claim.words if one.author in heard]
        known = claim.record.author in node.established or (hearsay and "confirmed" in words)
        return known and "refuted" not in words and "fabricated" not in words

    def _expected(self, node: Node, claim: Claim, state: str) -> float:
        """As `belief.expected_gain`."""
        gain = claim.gain * (belief.CLAIM if state == "claimed" else 1.0)
        as_it_was = claim.edit is None or claim.parent.name == node.program.name
        return gain if as_it_was else gain * belief.ELSEWHERE

    def _best(self, node: Node, ideas: Sequence[tuple[Claim, str]]) -> tuple[Program, tuple[Claim, ...], int | None]:
        def noisy(claim: Claim, state: str) -> float:
            weight = belief.STATE_WEIGHT[state]
            share = belief._share_of_win(self._expected(node, claim, state), 1.0)
            mean = (belief.PRIOR_WEIGHT * belief.FIRST_RATE + weight * share) / (belief.PRIOR_WEIGHT + weight)
            return mean / offline.TEMPERATURE - math.log(-math.log(self.random.random() or 1e-12))

        claim = max(ideas, key=lambda idea: noisy(*idea))[0]
        edit = claim.edit if self._applied(node, claim)[1] else None
        return (self.with_edit(node.program, edit) if edit is not None else claim.program), (claim,), edit

    def _try(self, node: Node, program: Program, claims: tuple[Claim, ...], edit: int | None) -> None:
        """As `Verifier.look`: before anything is built upon a claim, one of the runs that it reports is repeated here,
        once."""
        new = [one for one in claims if one not in node.words and one not in node.looked_at]
        lies = [one for one in new if one.lie]
        if "blind" in self.rules:
            new, lies = [], []
        node.looked_at.update(new)
        if lies:
            done = Attempt(node.program, program, claims, edit, None, len(new), [])
            self.at(self.now + len(new) * RUN, self._found_out, node, done, lies)
        else:
            self._experiment(node, program, claims, edit, len(new))

    def _found_out(self, node: Node, done: Attempt, lies: Sequence[Claim]) -> None:
        for claim in lies:
            if claim not in node.words:
                self._say(node, claim, "fabricated", [], 1.0, 0.0)
        self._finished(node, done)

    def _experiment(
        self, node: Node, program: Program, claims: tuple[Claim, ...], edit: int | None, looked: int
    ) -> None:
        runs = looked + self._measure(node) + 1
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
        attempt = Attempt(node.program, program, claims, edit, found, runs, seeds)
        self.at(self.now + runs * RUN, self._finished, node, attempt)

    def _finished(self, node: Node, done: Attempt) -> None:
        parent, program, claims, found, runs = done.parent, done.program, done.claims, done.found, done.runs
        self.leads.pop(program.name, None)
        node.research += runs * RUN
        node.experiments += 1
        node.chasing_lies += runs * RUN * any(one.lie for one in claims)
        node.tried.add(program.name)
        kept = found is not None and found[0].outcome == "won"
        node.stacks_kept += kept and len(claims) > 1
        node.stacks_lost += not kept and len(claims) > 1
        self.sent["kept" if kept else "other"] += 1
        if kept or node.frontier is not None:  # the others need not remember what it spent
            body = self.result(parent, program, claims, found[0].gain if found else 0.0, kept, runs * RUN)
            record = self.record(node.index, body)
            if not kept:
                heapq.heappush(node.inbox, (self.now, next(self._number), record))
        if kept:
            node.found += 1
            node.program, node.seeds, node.noise = program, done.seeds, None
            gained = program.worth > parent.worth
            self.luck += not gained
            self.lies_adopted += any(one.lie for one in claims) and (len(claims) > 1 or not gained)
            for one in program.edits - parent.edits:
                self.had[one].append(self.now)
            node.kept.append(self.claim(record, node.index, parent, program, done.edit, claims))
        else:
            self.failed.add(program.name)
            if len(claims) == 1:
                node.failures[id(claims[0])] += 1
                node.lost_on[claims[0].record.author] += 1
        claim = claims[0] if len(claims) == 1 else None
        exactly = claim is not None and claim.step == (parent.name, program.name) and claim not in node.words
        if exactly and claim is not None and found is not None:
            value, down = found[0].e_value, decide.against(found[1], decide.refuted_below(WORTHWHILE, claim.gain))
            outcome = "refuted" if down >= DECISIVE else "confirmed" if value >= DECISIVE else "inconclusive"
            self._say(node, claim, outcome, found[1], value, 0.0)
        self.next(node)
