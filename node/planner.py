"""What to try next: the program to start from, the proposer's hypothesis, the gate, and the plan that is journaled."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from ..protocols.diffs import EDITABLE, added_text, make_diff, normal_digest
from ..protocols.errors import DiffRejected, SwarmNodeError
from ..protocols.records import Lead, Result
from ..protocols.task import program_digest
from ..swarm.ledger import Ledger
from ..trainer.corpus import Corpus
from ..trainer.types import DiskFull
from .egress import Egress
from .experiment import Plan
from .fetcher import restore
from .format import clean
from .group import ENOUGH, together
from .laboratory import Laboratory
from .proposers.base import Hypothesis, Proposer, Refused
from .queue import rerun_name
from .screen import Screen
from .situation import build
from .stagnation import Course, course
from .tasks import quotable_names

if TYPE_CHECKING:
    from ..swarm.net import Network

log = structlog.get_logger()
LEAD_SECONDS = 600.0
_LEADS_OF_ONE = 16  # at a time: a node announces one for each of its lanes
_GATE_TRIES = 5
_PLAN_TRIES = 3  # a bug that a plan runs into every time must not stop the lanes for ever


@dataclass
class Taken:
    """Normal digests that are not to be proposed now: a lane of this node runs or refused them, or a peer runs them."""

    here: set[bytes] = field(default_factory=set)
    grouped: set[bytes] = field(default_factory=set)  # results that are in a group which is being tried here
    refused: set[bytes] = field(default_factory=set)  # peers' programs that the gate does not let pass
    unfit: set[bytes] = field(default_factory=set)  # peers' edits that were in a group which it did not let pass
    leads: dict[bytes, tuple[float, bytes]] = field(default_factory=dict)  # monotonic time of expiry, and whose
    jobs: dict[str, bytes | None] = field(default_factory=dict)  # re-runs by name; None: at twice the width
    adopted: dict[str, str] = field(default_factory=dict)  # by experiment: the re-run of the very claim that it tries

    def lead(self, normal: bytes, author: bytes) -> None:
        now = time.monotonic()
        self.leads = {one: lead for one, lead in self.leads.items() if lead[0] > now}
        its = self.leads.get(normal)
        of_author = sum(whose == author for _, whose in self.leads.values())
        if (its is None and of_author < _LEADS_OF_ONE) or (its is not None and its[1] == author):
            self.leads[normal] = now + LEAD_SECONDS, author

    def begin(self, plan: Plan, normal: bytes, rerun: str | None = None) -> None:
        self.here.add(normal)
        self.grouped |= set(plan.hypothesis.inspired_by)
        if rerun is not None:
            self.adopted[plan.id] = rerun

    def end(self, plan: Plan, normal: bytes) -> None:
        self.here.discard(normal)
        self.grouped -= set(plan.hypothesis.inspired_by)
        self.adopted.pop(plan.id, None)

    @property
    def names(self) -> tuple[str, ...]:
        """Of re-runs that may not begin now: they run, or what they would run again does."""
        return (*self.jobs, *self.adopted.values())

    def in_rerun(self, normal: bytes) -> bool:
        return normal in list(self.jobs.values())

    def by_us(self, normal: bytes) -> bool:
        return normal in self.here or normal in self.refused or self.in_rerun(normal)

    def anywhere(self, normal: bytes) -> bool:
        return self.by_us(normal) or self.leads.get(normal, (0.0,))[0] > time.monotonic()


class Planner:
    """Makes one plan at a time, for whichever lane asks."""

    def __init__(
        self,
        lab: Laboratory,
        corpus: Corpus,
        ledger: Ledger,
        proposer: Proposer,
        screen: Screen,
        machine: str,
        egress: Egress,
        network: Callable[[], Network | None],
        announce: Callable[[Lead], Awaitable[None]],
        wanted: Callable[[Collection[bytes]], None],
    ) -> None:
        """`network`: as it is by then. `announce`: tells peers what is about to be tried. `wanted`: gets programs that
        would have been looked at, and are not here."""
        self.frontier = lab.frontier
        self._lab, self._corpus, self._ledger, self._programs = lab, corpus, ledger, lab.programs
        self._proposer, self._screen, self._machine, self._egress = proposer, screen, machine, egress
        self._network, self._announce, self._wanted = network, announce, wanted
        self._missed = set[bytes]()  # programs that were looked for in this proposal
        self.taken = Taken()
        self.avoided = set[bytes]()  # edits passed over because a peer tried them or was trying them, by normal digest
        self._course = Course()  # the one that was told
        self._failures = Counter[str]()  # of this machine, by experiment
        self._proposing = asyncio.Lock()

    async def next(self, resumed: list[str], number: Callable[[], int]) -> Plan | Refused | None:
        """The plan of own experiment `number()`: of `resumed`, which gets shorter, or a new one; Refused when what was
        proposed cannot run, None when nothing is left to try now."""
        async with self._proposing:
            while resumed:
                experiment = resumed[0]  # it stays there until it has begun: no re-run is chosen meanwhile
                saved = (await asyncio.to_thread(self._ledger.journal, experiment)).get("plan")
                try:
                    plan = Plan.from_json(experiment, saved) if saved is not None else None
                except (KeyError, TypeError, ValueError) as error:  # of another version of this program
                    log.warning("a plan could not be read", experiment=experiment, error=repr(error))
                    plan = None
                resumed.remove(experiment)
                if plan is not None and plan.task == self._lab.task.spec.id:  # others wait for their own task
                    self._begin(plan)
                    self._screen.say(f"  resuming   {clean(plan.hypothesis.title)}")
                    return plan
            # Leads are soft: when nothing else is left, what a peer is said to try is better than nothing.
            return await self.propose(self.taken.anywhere, number) or await self.propose(self.taken.by_us, number)

    async def propose(
        self, taken: Callable[[bytes], bool], number: Callable[[], int] = lambda: 0
    ) -> Plan | Refused | None:
        """A new plan, of a program that is not `taken`, by its normal digest."""
        self._missed.clear()
        try:
            return await self._propose(taken, number)
        finally:
            self._wanted(self._missed)

    async def _propose(self, taken: Callable[[bytes], bool], number: Callable[[], int]) -> Plan | Refused | None:
        program, parent, now = await self._start_from()
        if now.mode != "branch" and (plan := await self._together(program, parent, taken)) is not None:
            return plan
        refused = Refused("nothing proposed", "", self._proposer.name)
        for _ in range(_GATE_TRIES):
            noise = self._lab.noise.noise(program)
            situation = await asyncio.to_thread(  # peers' programs can take a second each
                build,
                self._lab.task,
                self._machine,
                self.frontier,
                parent,
                noise,
                self._text,
                hardware=self._lab.environment.hardware,
                course=now,
                journal=self._ledger.journal_of,
                taken_here=self.taken.by_us,
                taken=taken,
                track=quotable_names(self._ledger),
                avoided=self.avoided.add,
            )
            self._screen.busy(0, f"thinking about #{number()} ({self._proposer.name})")
            try:
                hypothesis = await self._proposer.propose(situation)
            finally:
                self._screen.idle(0)
            if hypothesis is None:
                return await self._together(program, parent, taken, 2) if now.mode != "branch" else None
            if isinstance(hypothesis, Refused):
                return hypothesis
            problem = await asyncio.to_thread(self._gate, parent, hypothesis, taken)
            normal = normal_digest(hypothesis.source)
            in_rerun = self.taken.in_rerun(normal)  # it may have begun during the gate
            if not problem and not in_rerun:
                return await self._planned(self._credited(hypothesis, program), program, parent)
            if hypothesis.inspired_by and not in_rerun:
                self.taken.refused.add(normal)
            log.info("gate refused a proposal", title=hypothesis.title, problem=problem)
            title = (
                "a proposal that holds the API key" if self._egress.holds_key(hypothesis.title) else hypothesis.title
            )
            refused = Refused(title, f"gate: {problem}", hypothesis.proposer, hypothesis.cost)
        return refused

    def _text(self, program: bytes) -> str | None:
        """A program's text, where it is here; called in worker threads."""
        source = self._programs.get(program)
        if source is None:
            self._missed.add(program)
        return source

    async def _together(
        self, program: bytes, parent: str, taken: Callable[[bytes], bool], least: int = ENOUGH
    ) -> Plan | None:
        """Edits that promised, in one program."""
        hypothesis = await asyncio.to_thread(
            together, self.frontier, parent, self._lab.task.baseline, self._text,
            self.taken.grouped | self.taken.unfit, taken, least,
        )  # fmt: skip
        if hypothesis is None:
            return None
        if problem := await asyncio.to_thread(self._gate, parent, hypothesis, self.taken.by_us):
            normal = normal_digest(hypothesis.source)
            if self._is_ours(normal):  # another lane's since it was made
                return await self._together(program, parent, taken, least)
            log.info("gate refused a group", title=hypothesis.title, problem=problem)
            self.taken.refused.add(normal)
            found = [one for edit in hypothesis.inspired_by if (one := self._ledger.get(edit)) is not None]
            peers = [one for one in found if one.author != self.frontier.own]
            unfit = [one for one in peers if not self.frontier.is_known(one.author)] or peers
            self.taken.unfit |= {one.id for one in unfit}
            return await self._together(program, parent, taken, least) if unfit else None
        return await self._planned(hypothesis, program, parent)

    async def _planned(self, hypothesis: Hypothesis, program: bytes, parent: str) -> Plan:
        """An experiment that is sure to be finished: journaled."""
        plan = Plan(self._name(hypothesis, program), self._lab.task.spec.id, parent, program, hypothesis)
        self._begin(plan)  # first: a re-run that begins meanwhile would share its journal
        try:
            await asyncio.to_thread(self._ledger.journal_put, plan.id, "plan", plan.to_json())
        except BaseException:
            self.end(plan)
            raise
        return plan

    def _begin(self, plan: Plan) -> None:
        """Nothing else here tries the same from now on, nor re-runs the very claim that it tries."""
        normal, rerun = normal_digest(plan.hypothesis.source), None
        if len(plan.hypothesis.inspired_by) == 1:
            (claim,) = plan.hypothesis.inspired_by
            found = self.frontier.peer_win(claim)
            rerun = rerun_name(claim) if found is not None and found[1].normal == normal else None
        self.taken.begin(plan, normal, rerun)

    def again(self, plan: Plan, resumed: list[str], error: Exception) -> None:
        """What this machine failed in is resumed first, unless that failed a few times: then at the next start. A full
        disk is no plan's fault, however long it lasts. Until then it stays taken, so that nobody proposes it anew."""
        if "done" in self._ledger.journal(plan.id):  # it failed in what comes after
            self.end(plan)
            return
        self._failures[plan.id] += not isinstance(error, DiskFull)
        if self._failures[plan.id] < _PLAN_TRIES:
            resumed.insert(0, plan.id)

    def end(self, plan: Plan) -> None:
        """It is over."""
        self.taken.end(plan, normal_digest(plan.hypothesis.source))

    def _credited(self, hypothesis: Hypothesis, parent: bytes) -> Hypothesis:
        """What a peer found on this very program is that peer's, whoever thinks of it again: what is known of it here
        counts, and what comes out is a word on it."""
        if hypothesis.inspired_by:
            return hypothesis
        claim = self.frontier.same_find(parent, normal_digest(hypothesis.source))
        return hypothesis if claim is None else replace(hypothesis, inspired_by=(claim,))

    def _name(self, hypothesis: Hypothesis, parent: bytes) -> str:
        """Of an experiment. A claim that this node re-ran, tried again as it stands, goes on with the same pairs."""
        fresh = f"x-{uuid4().hex}"
        if len(hypothesis.inspired_by) != 1:
            return fresh
        (claim,) = hypothesis.inspired_by
        subject, journal = self._ledger.get(claim), self._ledger.journal(rerun_name(claim))
        if subject is None or not isinstance(subject.body, Result) or not journal or "done" in journal:
            return fresh
        body, program = subject.body, program_digest({EDITABLE: hypothesis.source})
        same = (body.task, body.aim, body.parent, body.program) == (self._lab.task.spec.id, "gain", parent, program)
        return rerun_name(claim) if same else fresh

    async def _start_from(self) -> tuple[bytes, str, Course]:
        """The program to propose edits of: the own best, unless the search stands still and the course is another."""
        program = self.frontier.best_program
        parent = await self._programs.fetch(program, self._network())
        if parent is None:
            await restore(self._programs, self.frontier)  # the own log may have come back, child before parent
            parent = await asyncio.to_thread(self._programs.get, program)
        if parent is None:
            why = "its blob is lost, and no connected peer has it"
            raise SwarmNodeError("the own best program is missing", why=why, fix="join while a peer that has it is up")
        best = self.frontier.best_result
        if best is not None and isinstance(best.body, Result):
            await asyncio.to_thread(self._programs.keep, best.body)  # it may have come from a peer just now
        now = await asyncio.to_thread(course, self._lab.task.spec, self.frontier, self._text)
        if now.mode != self._course.mode and now.note:
            self._screen.item("search", now.note)
        self._course = now
        if now.branch is None:
            return program, parent, now
        await asyncio.to_thread(self._programs.store, now.branch.source)
        return now.branch.program, now.branch.source, now

    def _is_ours(self, normal: bytes) -> bool:
        return normal in self.frontier.own_tried or self.taken.by_us(normal)

    def _gate(self, parent: str, hypothesis: Hypothesis, taken: Callable[[bytes], bool]) -> str:
        """Why the proposal may not run, or nothing."""
        if self._egress.holds_key(f"{hypothesis.source}\n{hypothesis.title}\n{hypothesis.reason}"):
            return "the API key is in it"
        try:
            diff = make_diff(parent, hypothesis.source)
        except DiffRejected as error:
            return error.what
        if copied := self._corpus.remembered(added_text(diff)):
            return f"{copied} bytes of the edit are held-out text"
        normal = normal_digest(hypothesis.source)
        rerun = bool(hypothesis.inspired_by)  # a peer's win is to be re-run here, though the peer tried it
        if rerun:
            return "already tried here" if self._is_ours(normal) else ""
        if self.frontier.is_tried(normal) or taken(normal):
            return "already tried here or by a peer"
        return ""

    async def keep_telling(self, plan: Plan) -> None:
        """Tell peers what is tried, until cancelled: they remember it for LEAD_SECONDS, and it can take longer."""
        normal = normal_digest(plan.hypothesis.source)
        while True:
            await self._announce(Lead(task=self._lab.task.spec.id, normal=normal, parent=plan.parent_program))
            await asyncio.sleep(LEAD_SECONDS / 2)
