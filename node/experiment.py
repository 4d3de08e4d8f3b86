"""The life of one experiment: budget, screen, noise, pairs of fresh runs, verdict, audit."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..protocols.diffs import EDITABLE, make_diff, normal_digest, normalise
from ..protocols.errors import MachineError
from ..protocols.records import Cost, Evidence, Result
from ..protocols.task import program_digest
from ..protocols.text import printable
from ..trainer import decide
from ..trainer.types import RunResult, Slice
from .group import may_wait
from .laboratory import Laboratory, Measured, run_record
from .proposers.base import Hypothesis
from .trail import Trail

_PROBE = Slice("probe")


@dataclass(frozen=True)
class Plan:
    """An experiment as it was decided on: what is tried from which parent. Journaled before the first run."""

    id: str
    task: bytes  # task id
    parent: str  # source text
    parent_program: bytes
    hypothesis: Hypothesis

    @property
    def program(self) -> bytes:
        """Digest of the candidate."""
        return program_digest({EDITABLE: self.hypothesis.source})

    def to_json(self) -> str:
        """Journal text."""
        hypothesis = asdict(self.hypothesis)
        hypothesis["inspired_by"] = [item.hex() for item in self.hypothesis.inspired_by]
        hypothesis["cost"] = self.hypothesis.cost.model_dump()
        return json.dumps({"task": self.task.hex(), "parent": self.parent, "hypothesis": hypothesis})

    @classmethod
    def from_json(cls, experiment: str, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        value: dict[str, Any] = json.loads(text)
        fields = value["hypothesis"]
        fields["inspired_by"] = tuple(bytes.fromhex(item) for item in fields["inspired_by"])
        fields["tags"] = tuple(fields["tags"])
        fields["cost"] = Cost(**fields["cost"])
        task, parent = bytes.fromhex(value["task"]), value["parent"]
        return cls(experiment, task, parent, program_digest({EDITABLE: parent}), Hypothesis(**fields))


Stage = Literal["screened", "promoted"]


class _DoesNotRun(Exception):
    """A program that others build on, or that ran here before, does not run on this machine now."""


class Experiment:
    """One plan on its way to a result."""

    def __init__(
        self, lab: Laboratory, plan: Plan, tell: Callable[[Stage, float, decide.Noise], None] = lambda *of: None
    ) -> None:
        """`tell`: called with the screening score, and with the parent's so far, on the way to the verdict: `screened`,
        more seeds of the parent are needed; `promoted`, pairs of fresh runs decide."""
        self._lab, self._plan, self._tell = lab, plan, tell
        self._title, self._source = plan.hypothesis.title, plan.hypothesis.source
        self._trail = Trail(lab, plan.id, plan.hypothesis.title)
        self._fields: dict[str, Any] = {}  # of the result, as they become known

    async def conduct(self) -> Result:
        """The whole experiment; its result whatever comes out. Only this machine's failures raise."""
        lab, plan, spec = self._lab, self._plan, self._lab.task.spec
        candidate = await self._measured(rough=True)
        if isinstance(candidate, Result):
            return candidate
        try:
            parent = await self._reference(plan.parent_program, plan.parent)
            noise = await lab.measure_noise(parent, decide.SCREEN_AFTER)
        except (MachineError, _DoesNotRun) as error:
            if plan.parent_program == lab.frontier.best_program:
                raise
            return self._result("crashed", f"the program that it starts from does not run here: {error}")
        self._fields |= {"parent_score": noise.mean, "noise": noise.sd}
        kill_above = lab.noise.kill_above(plan.parent_program)
        candidate, screen, cause = await self._screen(candidate, parent, kill_above)
        self._fields |= {"steps": candidate.budget.steps, "cost_ratio": candidate.budget.ratio}
        if screen.status != "ok":
            return self._result("discarded" if screen.status == "killed" else "crashed", screen.reason)
        if cause:
            return self._result("discarded", cause)
        worthwhile, score = lab.task.worthwhile, screen.scores["screen"]
        shorter = is_simpler(self._source, plan.parent)  # then a loss within the noise of five seeds may do
        told = False
        while noise.n < decide.PROMOTE_AFTER:
            gain = spec.better_by(score, noise.mean)
            if not shorter and decide.is_lost(gain, noise, worthwhile):
                self._fields |= {"parent_score": noise.mean, "noise": noise.sd, "score": score, "gain": gain}
                return self._result("discarded", "")
            if not told:
                self._tell("screened", score, noise)
            told, seeds = True, noise.n
            noise = await lab.more_noise(parent, noise)
            if noise.n == seeds:  # the rest failed
                break
        noise = await lab.promotion_noise(plan.id, parent)
        gain = spec.better_by(score, noise.mean)
        self._fields |= {"parent_score": noise.mean, "noise": noise.sd, "score": score, "gain": gain}
        margin = decide.margin(worthwhile, noise)
        is_promoted, may_simplify = decide.promotes(gain, noise), shorter and gain >= -margin
        if is_promoted and not shorter and may_wait(plan.hypothesis) and decide.waits(gain, noise):
            return self._result("inconclusive", f"{gain / noise.sd:.1f} σ in one run: to be confirmed with others")
        if is_promoted or may_simplify:
            self._tell("promoted", score, noise)
        if is_promoted:
            return await self._confirm(parent, worthwhile, noise, screen)
        if may_simplify:
            program, source = await self._anchor()
            anchor = await self._reference(program, source)
            self._fields |= {"aim": "simpler", "anchor": program if program != plan.parent_program else None}
            return await self._confirm(anchor, -margin, noise, screen)
        return self._result("discarded", "")

    async def _measured(self, rough: bool = False) -> Measured | Result:
        """The candidate with its budget, which a re-run may have corrected; the result of one that does not even
        start."""
        measured = await self._lab.measured(self._plan.program, self._source, self._title, rough)
        if isinstance(measured, RunResult):
            await self._lab.note(self._plan.id, "calibration", measured)
            return self._result("crashed", measured.reason)
        return self._lab.decided(self._plan.id, measured) or measured

    async def _reference(self, program: bytes, source: str) -> Measured:
        measured = await self._lab.measured(program, source, "the own best")
        if isinstance(measured, RunResult):
            raise _DoesNotRun(f"program {program.hex()[:8]} does not run: {measured.reason}")
        return measured

    async def _anchor(self) -> tuple[bytes, str]:
        """What a simplification is tested against, with its source."""
        parent = self._plan.parent_program
        program = self._lab.frontier.anchor_of(parent, self._lab.frontier.own) or parent
        source = await asyncio.to_thread(self._lab.programs.get, program)
        return (program, source) if source is not None else (parent, self._plan.parent)

    async def _screen(
        self, candidate: Measured, parent: Measured, kill_above: float | None
    ) -> tuple[Measured, RunResult, str]:
        """One run; once more, with the steps that its whole cost allows, when it took more than its budget; and why the
        last one took too much, or nothing."""
        cause = ""
        for step in ("screen", "screen-again"):
            run = await self._screen_run(step, candidate, kill_above)
            cause = await self._lab.too_slow(self._plan.id, step, run, parent) if run.status == "ok" else ""
            if not cause:
                break
            if step == "screen":
                candidate = await self._lab.screened(candidate, run, parent)
        return candidate, run, cause

    async def _screen_run(self, step: str, candidate: Measured, kill_above: float | None) -> RunResult:
        seed = self._trail.seed(step)
        spec = self._lab.spec(self._source, seed, candidate.budget.steps, (self._lab.task.screen, _PROBE))
        run = await self._trail.run(step, replace(spec, kill_above=kill_above))
        steps = run.steps_done if run.status == "ok" else candidate.budget.steps
        self._trail.runs.append(run_record("candidate", "screen", self._lab.task.screen, seed, steps, run))
        return run

    async def _confirm(self, against: Measured, aim: float, noise: decide.Noise, screen: RunResult) -> Result:
        """Pairs of fresh runs, each pair on text drawn for it alone, until there is a verdict. `aim`: the least gain
        that counts; negative for a simplification."""
        lab = self._lab
        candidate = await self._measured()
        if isinstance(candidate, Result):
            return candidate
        level = await lab.level(self._plan.id)
        slope = lab.slope(screen)

        @functools.cache
        def required(what: Measured) -> float:
            return aim + lab.doubt(what, against, slope, self._plan.parent)

        def judge(what: Measured, gains: Sequence[float]) -> decide.Verdict | None:
            return decide.look(gains, required(what), level, noise)

        found = await self._trail.pairs(candidate, against, judge)
        candidate, verdict = found.candidate, found.verdict
        self._fields |= {"steps": candidate.budget.steps, "cost_ratio": candidate.budget.ratio}
        if verdict is None:
            return self._result("crashed", f"confirmation run of the {found.failed}: {found.reason}")
        self._take(verdict, found.gains, required(candidate), aim, level)
        # The gain is judged on drawn text; the score that is shown is on the fixed slice, like every other.
        self._fields["score"] = statistics.fmean(run.scores["screen"] for run in found.mine)
        if verdict.outcome != "won":
            return self._result(verdict.outcome, verdict.cause)
        cause = lab.over_budget(candidate, found.mine, against, found.theirs) or await self._audit(
            candidate, found.mine
        )
        if cause:
            return self._result("discarded", cause)
        await lab.keep(candidate)
        return self._result("kept", "")

    async def _audit(self, candidate: Measured, runs: list[RunResult]) -> str:
        """Why it cannot be kept, or nothing."""
        audit, cause = await self._trail.audit(candidate, runs)
        if audit is not None:
            self._fields["evidence"] = self._fields["evidence"].model_copy(update={"audit": audit})
        return cause

    def _take(self, verdict: decide.Verdict, gains: Sequence[float], required: float, aim: float, level: float) -> None:
        found = evidence_of(verdict, gains, required, aim, level)
        self._fields |= {"gain": verdict.gain, "gain_error": verdict.error, "evidence": found}

    def abandoned(self, cause: str) -> Result:
        """It is not run."""
        return self._result("discarded", cause)

    def _result(self, outcome: Literal["kept", "discarded", "inconclusive", "crashed"], cause: str) -> Result:
        """The body of the record. A diff travels only with what was kept, and with what others may help to decide."""
        plan, hypothesis = self._plan, self._plan.hypothesis
        travels = outcome == "kept" or (outcome == "inconclusive" and self._fields.get("aim", "gain") == "gain")
        return Result(
            task=self._lab.task.spec.id,
            outcome=outcome,
            program=plan.program,
            parent=plan.parent_program,
            normal=normal_digest(self._source),
            diff=make_diff(plan.parent, self._source) if travels else None,
            title=hypothesis.title,
            reason=hypothesis.reason,
            cause=one_line(cause),
            tags=hypothesis.tags,
            runs=tuple(self._trail.runs),
            proposer=f"{hypothesis.proposer}:{hypothesis.edit}" if hypothesis.edit else hypothesis.proposer,
            inspired_by=hypothesis.inspired_by,
            environment=self._lab.environment,
            cost=hypothesis.cost.model_copy(update={"seconds": self._trail.seconds}),
            **self._fields,
        )


def evidence_of(verdict: decide.Verdict, gains: Sequence[float], required: float, bar: float, level: float) -> Evidence:
    """What decided, as records carry it. `bar`: the gain that the evidence against is about."""
    low, high = (None if math.isinf(bound) else bound for bound in (verdict.low, verdict.high))
    return Evidence(
        pairs=len(gains), required=required, low=low, high=high, e_value=verdict.e_value, level=level,
        against=decide.against(gains, bar),
    )  # fmt: skip


def is_simpler(source: str, parent: str) -> bool:
    """Whether a program has clearly fewer tokens, comments and docstrings aside."""
    return len(normalise(source).split(" ")) <= decide.SIMPLER * len(normalise(parent).split(" "))


def one_line(text: str, limit: int = 400) -> str:
    """`text` as a record's note: printable characters on one line."""
    return printable(text)[:limit].strip()
