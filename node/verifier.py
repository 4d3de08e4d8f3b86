"""Re-runs of what peers claim: which one this node does next, how, and what it says of it.

Rendezvous hashing names the verifiers of a claim among the nodes that are here, so that the work per node stays
constant while the swarm grows. A bounded share of the node's time goes there, and all claims by authors of whom nothing
was found true here yet share a slice of it, so that inventing identities wastes a bounded budget.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..protocols.diffs import EDITABLE, make_diff
from ..protocols.errors import DiffRejected
from ..protocols.records import Cost, Evidence, Verification
from ..protocols.task import program_digest
from ..swarm.frontier import Frontier, Win
from ..swarm.verifiers import VERIFIERS, is_chosen
from ..trainer import decide
from ..trainer.types import RunResult, Slice
from .experiment import evidence_of, is_simpler, one_line
from .laboratory import Laboratory, Measured, run_record
from .programs import Programs
from .trace import Trace, compare, repeated, reported, screens, unsupported
from .trail import Trail

if TYPE_CHECKING:
    from ..swarm.net import Network

SHARE = 0.2  # of this node's time for re-running others' claims
NEWCOMERS = 0.5  # of that share, for claims by authors of whom nothing was found true here yet
PATIENCE_RUNS = 40.0  # a claim without a verdict gets one more verifier each time that so many runs could be done
TRANSFER_VERIFIERS = 1
_PROBE = Slice("probe")
_WIDTH = re.compile(r"^(WIDTH[ \t]*=[ \t]*)(\d{1,4})\b", re.MULTILINE)
_MAX_WIDTH = 512
_ROUNDED = 1.02  # steps stand on a grid of 2 %
ABSURD = 1e6  # a claimed gain beyond it is taken as this, so that its square is a number
Setting = Literal["same", "wider"]


@dataclass(frozen=True)
class Job:
    """A re-run that this node is to do."""

    win: Win
    setting: Setting

    @property
    def name(self) -> str:
        """Of its journal. An adoption of the same program from the same parent goes on with the same pairs."""
        return rerun_name(self.win.id) if self.setting == "same" else f"w-{self.win.id.hex()}"


def rerun_name(result: bytes) -> str:
    """The journal entry of this node's own re-run of a result."""
    return f"v-{result.hex()}"


def widened(source: str) -> str | None:
    """The program at twice its width, or None when it does not say how wide it is in one constant."""
    if len(found := _WIDTH.findall(source)) != 1 or not 0 < int(found[0][1]) <= _MAX_WIDTH // 2:
        return None
    return _WIDTH.sub(lambda match: f"{match[1]}{2 * int(match[2])}", source)


class Queue:
    """Which claim this node re-runs next, as a function of the records, of who is here, and of its own time so far."""

    def __init__(self, frontier: Frontier, hardware: str, share: float, run_seconds: Callable[[], float]) -> None:
        """`hardware`: class of this machine's runs. `run_seconds`: what one run takes here by now, waiting included:
        who shares its cores with many must not think that others are late."""
        self._frontier, self._hardware, self._share = frontier, hardware, share
        self._run_seconds = run_seconds
        self._heard: dict[bytes, float] = {}  # when a claim came, by a clock that nobody else sets
        self._postponed: dict[bytes, float] = {}  # claims whose programs nobody had, until when

    def heard(self, result: bytes, at: float) -> None:
        """A claim came."""
        self._heard.setdefault(result, at)

    def postpone(self, job: Job, now: float, for_good: bool = False) -> None:
        """It cannot be done now: its programs are not to be had, or it failed here. `for_good`: not until a restart."""
        self._postponed[job.win.id] = math.inf if for_good else now + self._patience()

    def _patience(self) -> float:
        return PATIENCE_RUNS * self._run_seconds()

    def next(self, present: Collection[tuple[bytes, str]], taken: Collection[str], now: float) -> Job | None:
        """The next re-run, or None when there is none to do or no time left for it.

        present: authors who do research on this task now, with the hardware class of their runs. taken: names of jobs
        that run already.
        """
        seconds = self._frontier.own_seconds
        if seconds["verify"] > self._share * (seconds["verify"] + seconds["research"]) or not self._share:
            return None
        jobs = [job for job in self._due(present, now) if job.name not in taken]
        return min(jobs, key=self._order) if jobs else None

    def _due(self, present: Collection[tuple[bytes, str]], now: float) -> list[Job]:
        frontier = self._frontier
        jobs = [Job(win, "same") for win in frontier.doubted]  # own results that others refute: above all
        allowed = NEWCOMERS * self._share * (frontier.own_seconds["verify"] + frontier.own_seconds["research"])
        newcomers = frontier.newcomer_seconds <= allowed
        first: dict[tuple[object, ...], Win] = {}
        for win in frontier.claims:  # a re-run of one is about all equal ones
            may = (newcomers or not self._is_new(win)) and self._postponed.get(win.id, 0.0) <= now
            if may and frontier.word(win.id) is None:
                first.setdefault(win.find, win)
        jobs += [Job(win, "same") for win in first.values() if self._is_chosen(win, present, now)]
        for win in frontier.confirmed:
            if win.record.author != frontier.own and self._may_widen(win, now) and self._is_widener(win, present, now):
                jobs.append(Job(win, "wider"))
        return jobs

    def _is_chosen(self, win: Win, present: Collection[tuple[bytes, str]], now: float) -> bool:
        """Verifiers are of the author's hardware class; one of each other class says whether it transfers there."""
        here = win.result.environment.hardware == self._hardware
        said = () if here else tuple(one.voice for one in win.opinion.transfers if one.where == self._hardware)
        return not any(said) and self._ranks(win, present, now, VERIFIERS if here else TRANSFER_VERIFIERS, bool(said))

    def _may_widen(self, win: Win, now: float) -> bool:
        mine = self._frontier.word(win.id, "wider") is not None
        return not mine and win.result.aim == "gain" and self._postponed.get(win.id, 0.0) <= now

    def _is_widener(self, win: Win, present: Collection[tuple[bytes, str]], now: float) -> bool:
        here = win.result.environment.hardware == self._hardware
        said = tuple(one.voice for one in win.opinion.transfers if one.where == "wider")
        return here and not any(said) and self._ranks(win, present, now, TRANSFER_VERIFIERS, bool(said), b"wider")

    def _ranks(
        self,
        win: Win,
        present: Collection[tuple[bytes, str]],
        now: float,
        verifiers: int,
        said: bool = False,
        purpose: bytes = b"",
    ) -> bool:
        """`said`: strangers have said something. Then who comes first looks itself, and nobody else has to."""
        others = [author for author, hardware in present if hardware == self._hardware and author != win.record.author]
        age = 0.0 if said else max(0.0, now - self._heard.setdefault(win.id, now))
        return is_chosen(
            self._frontier.own, win.id, others, age=age, patience=self._patience(), verifiers=verifiers, purpose=purpose
        )

    def _is_new(self, win: Win) -> bool:
        standing = self._frontier.standings.get(win.record.author)
        return standing is None or not standing.established

    def _order(self, job: Job) -> tuple[float, ...]:
        """Own doubted results first, then claims: those by established authors, of these and of the others those of
        which nobody said anything, and among equals by how well their authors stand; then whether things transfer."""
        win, standings = job.win, self._frontier.standings
        if win.record.author == self._frontier.own:
            return (0.0,)
        standing = standings.get(win.record.author)
        score = (standing.confirmed + standing.agreed - standing.refuted - standing.disagreed) if standing else 0
        said = len(win.opinion.confirmed) + len(win.opinion.refuted)
        return 1.0 + (job.setting != "same"), self._is_new(win), said, -score, self._heard.get(win.id, 0.0)


class Verifier:
    """Does the re-runs."""

    def __init__(self, lab: Laboratory, programs: Programs) -> None:
        self._lab, self._programs = lab, programs

    async def conduct(self, job: Job, network: Network | None) -> Verification | None:
        """What this machine says of a claim; None when its programs are not to be had now."""
        body = job.win.result
        against = body.anchor or body.parent
        assert against is not None  # only a baseline has none, and nobody keeps a baseline
        source, parent = await self._programs.obtain(body, network), await self._programs.fetch(against, network)
        before = parent if body.aim == "gain" else await self._programs.fetch(body.parent or b"", network)
        if source is None or parent is None or before is None:
            return None
        work = _Rerun(self._lab, job, source, parent)
        try:
            await asyncio.to_thread(make_diff, parent, source)
        except DiffRejected as error:  # an anchor or a blob can be anything
            return work.says("inconclusive", cause=f"it is no edit of what it claims to beat: {error.what}")
        if body.aim == "simpler":
            if not is_simpler(source, before):
                work.but = "it is no simpler than its parent"
            elif against != self._lab.frontier.anchor_of(body.parent or b"", job.win.record.author):
                work.but = "it was not compared with the last gain that is known to have led to it"
        if job.setting == "same" and (found := await work.trace()) is not None:
            return found
        return await work.pairs()

    async def trace(self, win: Win) -> tuple[Verification | None, float]:
        """Repeat a run of a claim whose programs are here, as before anything is called confirmed: what speaks against
        its author, and the CPU time that it took."""
        body = win.result
        source, parent = await self._programs.obtain(body, None), await self._programs.fetch(body.parent or b"", None)
        if source is None or parent is None:
            return None, 0.0
        work = _Rerun(self._lab, Job(win, "same"), source, parent)
        return await work.trace(), work.seconds


class _Rerun:
    """One job on its way to a verdict."""

    def __init__(self, lab: Laboratory, job: Job, source: str, parent: str) -> None:
        self._lab, self._job, self._body = lab, job, job.win.result
        self._source, self._parent = source, parent
        label = "a peer's claim again" if job.setting == "same" else "a peer's win at twice the width"
        self._trail = Trail(lab, job.name, label)
        self._slope = 0.0
        self.but = ""  # why it is not confirmed though it wins

    @property
    def seconds(self) -> float:
        """CPU time of its runs, which no record counts yet."""
        return self._trail.seconds

    async def trace(self) -> Verification | None:
        """Repeat a run that the record reports; a verdict already when it did not come from this program."""
        lab = self._lab
        run = reported(self._body, secrets.randbits(31))
        if run is None or run.steps > decide.MAX_RATIO * _ROUNDED * lab.task.spec.steps:
            return self.says("inconclusive", cause="it reports no run that could be repeated")
        source = self._source if run.arm == "candidate" else self._parent
        also = [one for one in screens(self._body) if (one.arm, one.seed, one.steps) == (run.arm, run.seed, run.steps)]
        shared = [] if run.draw is None else [lab.task.screen]
        spec = repeated(lab.task, source, run, lab.wall_s, _PROBE, *shared)
        again = await self._trail.run(f"trace-{run.seed}-{run.steps}-{run.draw}", spec)
        if again.status != "ok":
            return self.says("inconclusive", cause=f"its run does not finish here: {again.reason}")
        part = spec.slices[-1]
        self._trail.runs.append(run_record(run.arm, "replay", part, run.seed, run.steps, again))
        self._slope = lab.slope(again)
        trace: Trace = compare(run, again, self._body.environment, lab.environment, *also)
        if trace.kind == "differs":
            return self.says("fabricated", cause=f"{trace.what}: {trace.why}" if trace.why else trace.what)
        if cause := unsupported(self._body, lab.task.spec):
            return self.says("fabricated", cause=cause)
        if not screens(self._body):
            self.but = "it reports no runs with its score"
        return None

    async def pairs(self) -> Verification:
        """Pairs of fresh runs, this machine's seeds, text and steps, until there is a verdict."""
        lab, body = self._lab, self._body
        source, parent = (self._sized(text) for text in (self._source, self._parent))
        if source is None or parent is None:
            return self.says("inconclusive", cause="it does not say how wide it is")
        ours, theirs = await self._measured(source), await self._measured(parent)
        for side in (ours, theirs):
            if isinstance(side, RunResult):
                return self.says("inconclusive", cause=f"it does not run here: {side.reason}")
        assert isinstance(ours, Measured) and isinstance(theirs, Measured)
        noise = lab.noise.noise(theirs.program) or lab.noise.noise(lab.task.spec.baseline)
        assert noise is not None  # of the baseline, which is measured before anything else
        aim = lab.task.worthwhile
        if body.aim == "simpler":
            aim = -decide.margin(aim, noise)
        required = aim + lab.doubt(ours, theirs, self._slope, parent)
        bar = decide.refuted_below(aim, min(body.gain or 0.0, ABSURD))
        gains: list[float] = []
        runs, beside = list[RunResult](), list[RunResult]()
        verdict: decide.Verdict | None = None
        while verdict is None:
            mine, other = await self._trail.pair(ours, theirs, len(gains))
            for run in (mine, other):
                if run.status != "ok":
                    return self.says("inconclusive", cause=f"a run fails here: {run.reason}")
            runs.append(mine)
            beside.append(other)
            gains.append(lab.task.spec.better_by(mine.scores["confirm"], other.scores["confirm"]))
            verdict = decide.verify(gains, required, bar, noise)
        found = evidence_of(verdict, gains, required, bar, decide.ALPHA)
        if verdict.outcome == "won" and self._job.setting == "same":
            # As before anything is kept: a program that peeks ahead wins every pair.
            if cause := lab.over_budget([run.cpu_s for run in runs], [run.cpu_s for run in beside]):
                return self.says("inconclusive", cause=cause)
            audit, cause = await self._trail.audit(ours, runs)
            if cause:
                return self.says("inconclusive" if audit is None else "fabricated", cause=cause)
            found = found.model_copy(update={"audit": audit})
        if verdict.outcome == "won" and self.but:
            return self.says("inconclusive", cause=self.but, verdict=verdict, evidence=found)
        words: dict[str, Literal["confirmed", "refuted", "inconclusive"]] = {
            "won": "confirmed", "discarded": "refuted", "inconclusive": "inconclusive"
        }  # fmt: skip
        return self.says(words[verdict.outcome], verdict=verdict, evidence=found)

    def _sized(self, text: str) -> str | None:
        return text if self._job.setting == "same" else widened(text)

    async def _measured(self, source: str) -> Measured | RunResult:
        return await self._lab.measured(program_digest({EDITABLE: source}), source, "a peer's claim")

    def says(
        self,
        outcome: Literal["confirmed", "refuted", "inconclusive", "fabricated"],
        *,
        cause: str = "",
        verdict: decide.Verdict | None = None,
        evidence: Evidence | None = None,
    ) -> Verification:
        """The record's body, with all runs so far."""
        return Verification(
            task=self._body.task,
            result=self._job.win.id,
            outcome=outcome,
            setting=self._job.setting,
            cause=one_line(cause),
            gain=verdict.gain if verdict else None,
            gain_error=verdict.error if verdict and math.isfinite(verdict.error) else None,
            evidence=evidence,
            runs=tuple(self._trail.runs),
            environment=self._lab.environment,
            cost=Cost(seconds=self._trail.seconds),
        )
