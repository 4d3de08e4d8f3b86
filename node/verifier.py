"""Re-runs of what peers claim, and what this node says of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import re
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import structlog

from ..protocols.diffs import EDITABLE, make_diff
from ..protocols.errors import DiffRejected
from ..protocols.records import DECISIVE, Cost, Evidence, Record, Result, Verification
from ..protocols.task import program_digest
from ..trainer import decide
from ..trainer.types import RunResult, Slice
from .bench import busy
from .experiment import evidence_of, is_simpler, one_line
from .laboratory import Laboratory, Measured, run_record
from .programs import Programs
from .proposers.base import Hypothesis
from .proposers.offline import OfflineProposer
from .queue import Job
from .trace import Trace, compare, missing_steps, pair_gains, repeated, reported, screens, unsupported
from .trail import Trail

if TYPE_CHECKING:
    from ..swarm.net import Network

log = structlog.get_logger()
Tell = Callable[[Sequence[float]], None]
PROBE = Slice("probe")
FETCH_SECONDS = 20.0  # for the programs of a claim: each silent peer takes ten, and a lane waits
_WIDTH = re.compile(r"^(WIDTH[ \t]*=[ \t]*)(\d{1,4})\b", re.MULTILINE)
_MAX_WIDTH = 512
_ROUNDED = 1.02  # steps stand on a grid of 2 %
ABSURD = 1e6  # a claimed gain beyond it is taken as this, so that its square is a number


def widened(source: str) -> str | None:
    """The program at twice its width, or None when it does not say how wide it is in one constant."""
    if len(found := _WIDTH.findall(source)) != 1 or not 0 < int(found[0][1]) <= _MAX_WIDTH // 2:
        return None
    return _WIDTH.sub(lambda match: f"{match[1]}{2 * int(match[2])}", source)


class Verifier:
    """Does the re-runs."""

    def __init__(self, lab: Laboratory, programs: Programs) -> None:
        self._lab, self._programs = lab, programs

    async def conduct(self, job: Job, network: Network | None) -> Verification | None:
        """What this machine says of a claim; None when its programs are not to be had now."""
        body, own = job.win.result, job.win.record.author == self._lab.frontier.own
        against, source, parent, before = await self._obtain(body, network, own=own)
        if source is None or parent is None or before is None:
            return None
        work = Rerun(self._lab, job, source, parent)
        try:
            await asyncio.to_thread(make_diff, parent, source)
        except DiffRejected as error:  # an anchor or a blob can be anything
            return work.says("inconclusive", cause=f"it is no edit of what it claims to beat: {error.what}")
        if body.aim == "simpler":
            work.simpler_than(before)
            if not work.but and against != self._lab.frontier.anchor_of(body.parent or b"", job.win.record.author):
                work.but = "it was not compared with the last gain that is known to have led to it"
        if job.setting == "same" and (found := await work.trace()) is not None:
            return found
        return await work.pairs()

    async def look(
        self, hypothesis: Hypothesis, claims: Sequence[Record], network: Network | None
    ) -> tuple[list[Verification], float]:
        """Before anything is built upon peers' claims one run that each reports is repeated here, once: what there is
        to say of those whose run does not come out, and the CPU seconds of all, a part of what the experiment costs.

        Who claims what is true may lie the next time, and what is true can be copied. Not looked at are claims that
        this node re-ran, those of members of a private swarm, and what others only gave the idea of.
        """
        said, seconds = list[Verification](), 0.0
        frontier, task = self._lab.frontier, self._lab.task.spec.id
        if frontier.private or hypothesis.edit or hypothesis.proposer != OfflineProposer.name:
            return said, seconds
        for claim in claims:
            body, name = claim.body, _look_name(claim.id)
            if not isinstance(body, Result) or body.outcome != "kept" or body.task != task:
                continue
            if claim.author == frontier.own or frontier.word(claim.id) or self._lab.counted(name):
                continue
            _, source, parent, _ = await self._obtain(body, network)
            if source is None or parent is None:  # it is merged from what is here, and judged by runs of its own
                continue
            work = Rerun(self._lab, Job(frontier.win(claim, body), "same"), source, parent, name=name)
            found = await work.trace()
            seconds += work.seconds
            if found is None:
                await self._lab.count(name)
            else:
                said.append(found.model_copy(update={"cost": Cost()}))  # the result carries it
        return said, seconds

    async def _obtain(
        self, body: Result, network: Network | None, own: bool = False
    ) -> tuple[bytes, str | None, str | None, str | None]:
        """Which program a claim says it beats, and the texts of its own, of that one and of its parent; None for what
        is not to be had now."""
        against = body.anchor or body.parent
        assert against is not None  # only a baseline has none, and nobody keeps a baseline
        programs, source, parent, before = self._programs, None, None, None
        with busy(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FETCH_SECONDS):
                source, parent = await programs.obtain(body, network, own=own), await programs.fetch(against, network)
                before = parent if body.aim == "gain" else await programs.fetch(body.parent or b"", network)
        return against, source, parent, before

    async def word(self, claims: Sequence[Record], result: Result) -> Verification | None:
        """What a finished experiment says of a peer's claim, when it re-ran exactly that one: same parent, same
        program. `claims`: the records that it was inspired by."""
        found = result.evidence
        if found is None or result.aim != "gain" or (found.e_value >= DECISIVE and result.outcome != "kept"):
            return None  # the last: it has the evidence, and was not audited, or failed that
        here = result.task, result.aim, result.parent, result.program
        for claim in claims:
            said = claim.body
            if not isinstance(said, Result) or claim.author == self._lab.frontier.own:
                continue
            if (said.task, said.aim, said.parent, said.program) != here:
                continue
            bar = decide.refuted_below(self._lab.task.worthwhile, min(said.gain or 0.0, ABSURD))
            against = decide.against(pair_gains(result, self._lab.task.spec), bar)
            found = found.model_copy(update={"against": against})
            word = Verification(
                task=result.task,
                result=claim.id,
                outcome=_judgement(found),
                gain=result.gain,
                gain_error=result.gain_error,
                evidence=found,
                runs=result.runs,
                environment=result.environment,
                cost=Cost(),  # the result carries it
            )
            steps = {run.arm: run.steps for run in result.runs}
            dearer = missing_steps(said, steps["candidate"], steps["parent"], self._lab.environment)
            missing = dearer if word.outcome == "refuted" else 0.0
            return await self._traced(claim, said, word, missing) if missing or word.outcome == "confirmed" else word
        return None

    async def _traced(self, claim: Record, said: Result, word: Verification, missing: float) -> Verification | None:
        """That a claim holds, or does not though it costs more here, is said once a run that it reports was repeated,
        as in a re-run; nothing when that fails: the own result must not wait for it. missing: see `excused`."""
        if self._lab.frontier.word(claim.id) is not None:
            return word
        if not missing and screens(said) and self._lab.counted(_look_name(claim.id)):  # one was, before it was tried
            return word
        try:
            source = await self._programs.obtain(said, None)
            parent = await self._programs.fetch(said.parent or b"", None)
            if source is None or parent is None:
                return word
            work = Rerun(self._lab, Job(self._lab.frontier.win(claim, said), "same"), source, parent)
            against = await work.trace()
        except Exception as error:
            log.warning("a claim's run could not be repeated", error=repr(error))
            return None
        if work.but and against is None:
            return None
        if against is None and (cause := work.excused(missing)):
            return work.says("inconclusive", cause=cause)
        return against or word.model_copy(update={"cost": Cost(seconds=work.seconds)})


def _look_name(claim: bytes) -> str:
    """The journal entry of the run that was repeated before a claim was tried."""
    return f"l-{claim.hex()}"


class Rerun:
    """One job on its way to a verdict."""

    def __init__(
        self, lab: Laboratory, job: Job, source: str, parent: str, tell: Tell = lambda gains: None, name: str = ""
    ) -> None:
        """`parent`: what the claim says it beats. `tell`: gets the gains of pairs after each pair. `name`: of a journal
        of its own."""
        self._lab, self._job, self._body, self._tell = lab, job, job.win.result, tell
        self._source, self._parent = source, parent
        label = "a peer's claim again" if job.setting == "same" else "a peer's win at twice the width"
        self._trail = Trail(lab, name or job.name, label)
        self.slope = 0.0  # gain per ln(steps) at the end of a run of the claim
        self.but = ""  # why it is not confirmed though it wins

    @property
    def seconds(self) -> float:
        """CPU time of its runs, which no record counts yet."""
        return self._trail.seconds

    def simpler_than(self, before: str) -> None:
        """It claims to be simpler than its parent `before`."""
        if not is_simpler(self._source, before):
            self.but = "it is no simpler than its parent"

    async def trace(self) -> Verification | None:
        """Repeat a run that the record reports; a verdict already when it did not come from this program."""
        lab = self._lab
        run = reported(self._body, secrets.randbits(31))
        if run is None or run.steps > decide.MAX_RATIO * _ROUNDED * lab.task.spec.steps:
            return self.says("inconclusive", cause="it reports no run that could be repeated")
        source = self._source if run.arm == "candidate" else self._parent
        also = [one for one in screens(self._body) if (one.arm, one.seed, one.steps) == (run.arm, run.seed, run.steps)]
        shared = [] if run.draw is None else [lab.task.screen]
        spec = repeated(lab.task, source, run, lab.wall_s, PROBE, *shared)
        again = await self._trail.run(f"trace-{run.seed}-{run.steps}-{run.draw}", spec)
        if again.status != "ok":
            return self.says("inconclusive", cause=f"its run does not finish here: {again.reason}")
        part = spec.slices[-1]
        self._trail.runs.append(run_record(run.arm, "replay", part, run.seed, run.steps, again))
        self.slope = lab.slope(again)
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
        if self._may_be_adopted(theirs.program):
            await lab.level(self._job.name)
        noise = lab.noise.noise(theirs.program) or lab.noise.noise(lab.task.spec.baseline)
        assert noise is not None  # of the baseline, which is measured before anything else
        aim = lab.task.worthwhile
        if body.aim == "simpler":
            aim = -decide.margin(aim, noise)
        bar = decide.refuted_below(aim, min(body.gain or 0.0, ABSURD))

        @functools.cache
        def required(what: Measured) -> float:
            return aim + lab.doubt(what, theirs, self.slope, parent)

        def judge(what: Measured, gains: Sequence[float]) -> decide.Verdict | None:
            self._tell(gains)
            return decide.verify(gains, required(what), bar, noise)

        runs = await self._trail.pairs(ours, theirs, judge)
        verdict = runs.verdict
        if verdict is None:
            return self.says("inconclusive", cause=f"a run fails here: {runs.reason}")
        found = evidence_of(verdict, runs.gains, required(runs.candidate), bar, decide.ALPHA)
        if verdict.outcome == "won" and self._job.setting == "same":
            # As before anything is kept: a program that peeks ahead wins every pair.
            if cause := lab.over_budget(runs.candidate, runs.mine, theirs, runs.theirs):
                return self.says("inconclusive", cause=cause)
            audit, cause = await self._trail.audit(runs.candidate, runs.mine)
            if cause:
                return self.says("inconclusive" if audit is None else "fabricated", cause=cause)
            found = found.model_copy(update={"audit": audit})
        if verdict.outcome == "won" and self.but:
            return self.says("inconclusive", cause=self.but, verdict=verdict, evidence=found)
        steps = runs.candidate.budget.steps, theirs.budget.steps
        cause = self.excused(missing_steps(body, *steps, lab.environment)) if verdict.outcome == "discarded" else ""
        if cause:
            return self.says("inconclusive", cause=cause, verdict=verdict)
        words: dict[str, Literal["confirmed", "refuted", "inconclusive"]] = {
            "won": "confirmed", "discarded": "refuted", "inconclusive": "inconclusive"
        }  # fmt: skip
        return self.says(words[verdict.outcome], verdict=verdict, evidence=found)

    def excused(self, missing: float) -> str:
        """Why it does not speak against a claim that it does not hold here, or nothing. The program costs more here,
        and with the steps that it had where it was made it could have half of the gain, without which a claim is
        refuted. missing: ln of how many times as many steps it had there, beside its parent."""
        if missing == 0 or self.slope * missing < (self._body.gain or 0.0) / 2:
            return ""
        there = self._body.environment
        return f"it costs more here: it got {math.exp(missing):.2f} times the steps on {there.device}, {there.library}"

    def _may_be_adopted(self, beaten: bytes) -> bool:
        """With these very pairs, and then because of what they show: its place among this node's hypotheses is taken
        before they are run."""
        frontier, body = self._lab.frontier, self._body
        is_new = body.aim == "gain" and body.normal not in frontier.own_tried
        return self._job.setting == "same" and is_new and beaten == frontier.best_program

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


def _judgement(found: Evidence) -> Literal["confirmed", "refuted", "inconclusive"]:
    """`refuted` needs evidence that at least half of what is claimed is not there. Not having seen it is no verdict."""
    if found.against >= DECISIVE:
        return "refuted"
    return "confirmed" if found.e_value >= DECISIVE else "inconclusive"
