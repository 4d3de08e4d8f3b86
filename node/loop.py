"""The research loop: propose → gate → run → evaluate → decide → ledger → publish, until told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from ..protocols.diffs import normal_digest
from ..protocols.errors import NetworkError, SwarmNodeError
from ..protocols.names import nickname
from ..protocols.records import Body, Lead, Record, Result, Verification, dump
from ..swarm.frontier import Frontier
from ..swarm.ledger import Ledger
from ..trainer import decide
from ..trainer.corpus import Corpus
from .bench import paying
from .egress import Egress
from .experiment import Experiment, Plan, Stage, one_line
from .fetcher import Fetcher
from .format import change, clean, duration, experiment_line, promoted_line, rerun_line, screened_line
from .laboratory import Laboratory
from .planner import Planner
from .programs import Programs
from .proposers.base import Hypothesis, Proposer, Refused
from .queue import RESEARCH, Job, Queue
from .screen import Screen
from .supervision import Supervision
from .verifier import Verifier

if TYPE_CHECKING:
    from ..swarm.net import Network

log = structlog.get_logger()
_SYNC_SECONDS = 5.0
_HELLO_SECONDS = 30.0
_HELLOS_HEARD = 40  # nodes that say hello as often as that; of more, each says it less often: hearing one costs CPU
_HEARD_SECONDS = 4 * 3600.0  # who was heard since counts among them
_LOOK_AGAIN_SECONDS = 20.0  # an idle lane looks whether a claim has become due


@dataclass
class Limits:
    """When to stop by itself."""

    experiments: int | None = None
    seconds: float | None = None


class Researcher:
    """Conducts experiments on every lane of the bench, and takes in what peers found meanwhile."""

    def __init__(
        self,
        lab: Laboratory,
        corpus: Corpus,
        ledger: Ledger,
        seed: bytes,
        frontier: Frontier,
        programs: Programs,
        proposer: Proposer,
        screen: Screen,
        supervision: Supervision,
        machine: str,
        lanes: int,
        limits: Limits,
        clock_ms: Callable[[], int],
        egress: Egress,
        verify: Queue,
    ) -> None:
        self.frontier = frontier
        self.network: Network | None = None
        self.finished = 0
        self._lab, self._corpus, self._ledger, self._seed, self._programs = lab, corpus, ledger, seed, programs
        self._proposer, self._screen, self._supervision, self._lanes = proposer, screen, supervision, lanes
        self._limits, self._clock_ms, self._egress = limits, clock_ms, egress
        self.fetcher = Fetcher(programs, frontier, lab.task.spec.id, lambda: self.network, self._tell_lanes)
        self.planner = Planner(
            lab, corpus, ledger, proposer, screen, machine, egress, lambda: self.network, self._announce,
            self.fetcher.wanted,
        )  # fmt: skip
        self._verify, self._verifier = verify, Verifier(lab, programs)
        self.verified = 0
        self._noisy = set[bytes]()  # programs whose noise was told
        self._recording_baseline, self._choosing = asyncio.Lock(), asyncio.Lock()
        self._news = asyncio.Event()
        self._asked_peers = False
        self._started = time.monotonic()
        self._begun = 0
        self._numbers = frontier.own_experiments
        self._clock_name, self._saved = f"clock-{lab.task.spec.id.hex()[:16]}", dict[str, str]()

    async def run(self) -> None:
        """Until the limits are reached; cancelling it drops what runs, which the journal resumes next time."""
        deadline = self._limits.seconds
        with_timeout = asyncio.timeout(deadline) if deadline else asyncio.timeout(None)
        try:
            async with with_timeout:
                self._saved = await asyncio.to_thread(self._ledger.journal, self._clock_name)
                self._verify.clock = {name: float(seconds) for name, seconds in self._saved.items()}
                with paying(partial(self._verify.took, RESEARCH)):
                    await self._measure_baseline()
                    resumed = list(await asyncio.to_thread(self._ledger.open_experiments))
                    async with asyncio.TaskGroup() as lanes:
                        for _ in range(self._lanes):
                            lanes.create_task(self._supervision.keep("research", lambda: self._lane(resumed)))
        except TimeoutError:
            if not with_timeout.expired():
                raise

    # ---- what peers say

    def heard(self, record: Record) -> None:
        """A record of a peer, validated and already in the ledger."""
        self.frontier.add(record)
        self._tell_lanes()
        body = record.body
        if isinstance(body, Result):
            self.planner.taken.leads.pop(body.normal, None)  # the peer is done with it
            self._verify.heard(record.id, self._clock_ms() / 1000)
        direction = self._lab.task.spec.direction
        if isinstance(body, Result) and body.outcome == "kept":
            self.fetcher.heard(record)
            name = nickname(record.author)
            where = "" if body.task == self._lab.task.spec.id else " on another task"
            self._screen.say(
                f"  peer       {name} {change(body.gain, direction)}{where}  {clean(body.title, 56)}   claimed"
            )
        elif isinstance(body, Verification):
            where = "" if body.setting == "same" else f" ({body.setting})"
            self._screen.say(f"  peer       {nickname(record.author)} {body.outcome}{where} {body.result.hex()[:8]}")

    def lead(self, body: Lead, author: bytes) -> None:
        """A peer is about to try this program."""
        if body.task == self._lab.task.spec.id and self.frontier.heeds(author, body.normal):
            self.planner.taken.lead(body.normal, author)

    # ---- own work

    async def _measure_baseline(self) -> None:
        """Two seeds are enough to screen against; the record waits for the five that promotion needs, and they for the
        first verdict where that is clear without them."""
        spec, lab = self._lab.task.spec, self._lab
        noise = await lab.measure_noise(lab.baseline, decide.SCREEN_AFTER)
        best = self.frontier.best_score
        now = f"; own best so far {best:.4f}" if best is not None and self.frontier.best_result is not None else ""
        self._screen.item("baseline", f"{_spread(noise)} {spec.metric} ({noise.n} seeds){now}   {self._elapsed()}")
        await self._record_baseline()

    async def _record_baseline(self) -> None:
        spec, noise = self._lab.task.spec, self._lab.noise.noise(self._lab.task.spec.baseline)
        if noise is None or noise.n < decide.PROMOTE_AFTER:
            return
        async with self._recording_baseline:
            if self.frontier.own_baseline is not None:
                return
            await self._publish([self._lab.baseline_result("the plain baseline")])
        self._screen.item("baseline", f"{_spread(noise)} {spec.metric} ({noise.n} seeds, recorded)   {self._elapsed()}")

    async def _lane(self, resumed: list[str]) -> None:
        while self._limits.experiments is None or self._begun < self._limits.experiments:
            self._begun += 1
            try:
                await self._next(resumed)
            except Exception:  # a plan stays open, to be resumed
                self._begun -= 1
                raise

    async def _next(self, resumed: list[str]) -> None:
        self.frontier.ban(frozenset(await asyncio.to_thread(self._ledger.equivocators, -1)))
        await self._save_clock()
        news = self._news  # taken before proposing, so that nothing said meanwhile is missed
        if not resumed and (job := await self._next_claim()) is not None:
            self._begun -= 1  # it is no experiment
            await self._rerun(job)
            return
        plan = await self.planner.next(resumed, lambda: self._numbers + 1)
        if isinstance(plan, Refused):
            await self._finish(None, self._refused(plan))
            if not plan.answered:
                self._begun -= 1  # the next proposal is the built-in proposer's, so this does not go on for ever
        elif plan is None:
            self._screen.say("  nothing is left to try on this program; waiting for news (Ctrl-C to stop)")
            self._begun -= 1
            try:
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS if self.network is not None else None):
                    await news.wait()
            except TimeoutError:
                pass
        else:
            try:
                await self._conduct(plan)
            except Exception as error:
                self.planner.again(plan, resumed, error)
                raise

    async def _save_clock(self) -> None:
        """Journal what lanes spent by the clock: a restart must not forgive it. It begins anew where the ledger is
        lost, while the records with their CPU time come back from peers."""
        clock = {name: f"{seconds:.3f}" for name, seconds in self._verify.clock.items()}
        for name, seconds in clock.items() - self._saved.items():
            await asyncio.to_thread(self._ledger.journal_put, self._clock_name, name, seconds)
            self._saved[name] = seconds

    # ---- re-runs of claims

    async def _next_claim(self) -> Job | None:
        if self.network is None:
            return None
        here = self.network.present(4 * hello_seconds(self.network))
        task = self._lab.task.spec.id
        present = [(who, hello.hardware) for who, hello in here if hello.task == task and hello.role == "research"]
        now = self._clock_ms() / 1000
        taken = self.planner.taken
        async with self._choosing:  # beside the event loop: a thousand claims take a while
            job = await asyncio.to_thread(self._verify.next, present, taken.names, now)
            if job is None or job.name in taken.names:  # a plan to adopt it was made meanwhile
                return None
            taken.jobs[job.name] = job.win.result.normal if job.setting == "same" else None
            self._verify.begin(job)
            return job

    async def _rerun(self, job: Job) -> None:
        try:
            with paying(partial(self._verify.took, job.name)):
                found = await self._verifier.conduct(job, self.network)
            if found is None:
                self._verify.postpone(job, self._clock_ms() / 1000)
                return
            await self._publish([found])
            await self._lab.count(job.name)
        except Exception as error:  # told by supervision; one claim must not stop the lane again and again
            self._verify.postpone(job, self._clock_ms() / 1000, not isinstance(error, (SwarmNodeError, OSError)))
            raise
        finally:
            self._verify.end(job)
            self.planner.taken.jobs.pop(job.name, None)
            self._tell_lanes()  # now it may be adopted
        self.verified += 1
        elapsed = time.monotonic() - self._started
        self._screen.say("  " + rerun_line(found, job.win.record, self._lab.task.spec.direction, elapsed))

    def _tell_lanes(self) -> None:
        """Something changed that may give an idle lane an idea, or the sign to end."""
        self._news.set()
        self._news = asyncio.Event()

    async def _conduct(self, plan: Plan) -> None:
        def tell(stage: Stage, score: float, parent: decide.Noise) -> None:
            spec, title, elapsed = self._lab.task.spec, plan.hypothesis.title, time.monotonic() - self._started
            if stage == "promoted":
                gain = spec.better_by(score, parent.mean)
                self._screen.say("  " + promoted_line(title, gain, parent.sd, spec.direction, elapsed))
            else:
                self._screen.say("  " + screened_line(title, score, _spread(parent), elapsed))

        telling = asyncio.create_task(self.planner.keep_telling(plan))
        telling.add_done_callback(_told)
        experiment, hypothesis = Experiment(self._lab, plan, tell), plan.hypothesis
        try:
            said, seconds = await self._verifier.look(hypothesis, await self._claims(hypothesis), self.network)
            if said:
                result = experiment.abandoned(f"it would build on a claim that is {said[0].outcome}: {said[0].cause}")
            else:
                result = await experiment.conduct()
        finally:
            telling.cancel()
        cost = result.cost.model_copy(update={"seconds": result.cost.seconds + seconds})
        result = result.model_copy(update={"cost": cost})
        await asyncio.to_thread(self._programs.store, plan.hypothesis.source)
        await self._record_baseline()
        self._tell_of_noise(plan.parent_program)
        await self._finish(plan, result, said)
        if self.frontier.own_baseline is None:  # the first verdict needed fewer seeds than the record does
            await self._lab.measure_noise(self._lab.baseline, decide.PROMOTE_AFTER)
            await self._record_baseline()

    def _tell_of_noise(self, program: bytes) -> None:
        """Say once of a parent that its seeds differ much: then small gains on it cannot be told from luck."""
        baseline, noise = (self._lab.noise.noise(one) for one in (self._lab.task.spec.baseline, program))
        if baseline is None or noise is None or program in self._noisy or not decide.is_noisy(noise, baseline):
            return
        self._noisy.add(program)
        self._screen.warn(
            f"  noise      the parent is ± {noise.sd:.4f} over seeds, the baseline ± {baseline.sd:.4f}: "
            f"gains below {noise.sd:.4f} will hardly be seen"
        )

    async def _claims(self, hypothesis: Hypothesis) -> list[Record]:
        found = await asyncio.to_thread(lambda: [self._ledger.get(claim) for claim in hypothesis.inspired_by])
        return [claim for claim in found if claim is not None]

    async def _finish(self, plan: Plan | None, result: Result, said: Sequence[Verification] = ()) -> None:
        """`said`: of the claims that it would have built upon."""
        claims = await self._claims(plan.hypothesis) if plan is not None else []
        word = await self._verifier.word(claims, result)
        words = [*said] if word is None else [*said, word]
        await self._publish([result, *words], plan.id if plan is not None else None)
        if plan is not None:
            self.planner.end(plan)
        self._numbers += 1
        self.finished += 1
        elapsed, direction = time.monotonic() - self._started, self._lab.task.spec.direction
        for its in said:
            if (claim := self._ledger.get(its.result)) is not None:
                self._screen.say("  " + rerun_line(its, claim, direction, elapsed))
        self._screen.say("  " + experiment_line(self._numbers, result, direction, elapsed))

    async def _publish(self, bodies: Sequence[Body], done: str | None = None) -> None:
        """Ledger first, always, all or none; then the swarm. `done`: the experiment that is over with it."""
        if self.network is not None and not self._asked_peers:
            # A restored backup may have lost its tail: peers know the own head better, if any is there.
            await self._to_swarm(lambda network: network.synced(_SYNC_SECONDS))
            self._asked_peers = True
        bodies = [body if not self._egress.holds_key(str(dump(body))) else self._withheld() for body in bodies]
        now_ms = self._clock_ms()
        for record in await asyncio.to_thread(self._ledger.append_all, self._seed, bodies, now_ms=now_ms, done=done):
            self.frontier.add(record)
            await self._to_swarm(lambda network, record=record: network.publish(record))
        self._tell_lanes()

    def _withheld(self) -> Result:
        """What takes the place of a record that would give the key away: a crash without words."""
        log.error("a record that holds the API key is not published")
        return self._refused(Refused("withheld", "the API key was in the record", self._proposer.name))

    async def _announce(self, lead: Lead) -> None:
        await self._to_swarm(lambda network: network.announce(lead))

    async def _to_swarm(self, call: Callable[[Network], Awaitable[object]]) -> None:
        """What the swarm misses is harmless: experiments go on, sync repeats records, leads are a courtesy."""
        if self.network is not None:
            try:
                await call(self.network)
            except NetworkError as error:
                log.warning("the network did not take it", error=str(error))

    def _refused(self, refused: Refused) -> Result:
        """A proposal that could not run is recorded like any failure, as its parent unchanged."""
        program = self.frontier.best_program
        return Result(
            task=self._lab.task.spec.id,
            outcome="crashed",
            program=program,
            parent=program,
            normal=normal_digest(self._programs.get(program) or ""),
            title=one_line(refused.title, 120) or "a proposal that cannot run",
            cause=one_line(refused.cause),
            proposer=refused.proposer,
            environment=self._lab.environment,
            cost=refused.cost,
        )

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._started)


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:  # the experiment goes on without it
        log.warning("peers could not be told what is tried", error=repr(error))


def hello_seconds(network: Network) -> float:
    """Between two hellos: the more nodes were heard lately, the longer, so that what arrives stays the same."""
    return _HELLO_SECONDS * max(1.0, len(network.present(_HEARD_SECONDS)) / _HELLOS_HEARD)


def _spread(noise: decide.Noise) -> str:
    return f"{noise.mean:.4f} ± {noise.sd:.4f}"
