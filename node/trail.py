"""The runs that one piece of work makes, journaled one by one under its name, and kept as records carry them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..protocols.records import Audit, Run
from ..trainer import decide
from ..trainer.types import AuditQuery, RunResult, RunSpec
from .bench import together
from .laboratory import Laboratory, Measured, run_record

_AUDITED = 512  # positions; a cheat at 1 % of them is seen with a chance of 99.4 %
Arm = Literal["candidate", "parent"]
Judge = Callable[[Measured, Sequence[float]], decide.Verdict | None]  # of the gains of pairs so far


@dataclass
class Pairs:
    """What pairs of fresh runs found."""

    candidate: Measured  # with the budget that its runs had
    gains: list[float] = field(default_factory=list)
    mine: list[RunResult] = field(default_factory=list)
    theirs: list[RunResult] = field(default_factory=list)
    verdict: decide.Verdict | None = None  # None: a run failed
    failed: Arm = "candidate"
    reason: str = ""


class Trail:
    """Runs under one name. The same name, seeds included, gives the same runs: what is journaled is not run again."""

    def __init__(self, lab: Laboratory, name: str, label: str) -> None:
        """`label`: for the progress bar."""
        self.name = name
        self.runs: list[Run] = []
        self.seconds = 0.0  # CPU time of all runs that no record counts yet, the audit's and the evaluations included
        self._lab, self._label = lab, label
        self._counted = lab.counted(name)

    async def run(self, step: str, spec: RunSpec) -> RunResult:
        """One run, which no record mentions yet."""
        run = await self._lab.run(self.name, step, spec, self._label)
        if step not in self._counted:
            self._counted.add(step)
            self.seconds += run.cpu_s + run.eval_cpu_s
        return run

    async def _exactly(self, step: str, spec: RunSpec) -> RunResult:
        """One run with just these steps. The journal may have it with others, from before the first pairs showed what
        it costs."""
        run = await self.run(step, spec)
        is_other = run.status == "ok" and run.steps_done != spec.steps
        return await self.run(f"{step}-{spec.steps}", spec) if is_other else run

    async def pairs(self, candidate: Measured, parent: Measured, judge: Judge) -> Pairs:
        """Pairs of fresh runs until there is a verdict, or a run fails. After the first few the candidate may get other
        steps, once, by what these cost, and its runs are made anew: that looks at CPU time alone, so that no luck is
        chosen."""
        decided = self._lab.decided(self.name, candidate)
        found, told = Pairs(decided or candidate), len(self.runs)
        while found.verdict is None:
            mine, theirs = await self.pair(found.candidate, parent, len(found.gains))
            for arm, run in (("candidate", mine), ("parent", theirs)):
                if run.status != "ok":
                    return replace(found, failed=arm, reason=run.reason)
            found.mine.append(mine)
            found.theirs.append(theirs)
            found.gains.append(self._lab.task.spec.better_by(mine.scores["confirm"], theirs.scores["confirm"]))
            if decided is None and len(found.gains) == decide.FIRST_LOOK:
                decided = await self._lab.fair(self.name, found.candidate, found.mine, parent, found.theirs)
                if decided.budget != found.candidate.budget:
                    found = Pairs(decided)
                    del self.runs[told:]
                    continue
            found.verdict = judge(found.candidate, found.gains)
        return found

    async def pair(self, candidate: Measured, parent: Measured, index: int) -> tuple[RunResult, RunResult]:
        """Fresh runs of both arms, side by side."""
        mine, theirs = await together(
            self._pair_run("candidate", candidate, index), self._pair_run("parent", parent, index)
        )
        return mine, theirs

    def pair_spec(self, arm: Arm, what: Measured, index: int) -> RunSpec:
        """Both arms of a pair are scored on one text; pairs on different ones, so that its luck is noise too."""
        drawn = self._lab.task.drawn(self.seed(f"text-{index}"))
        spec = self._lab.spec(
            what.source, self.seed(f"{arm}-{index}"), what.budget.steps, (self._lab.task.screen, drawn)
        )
        query = AuditQuery(self.seed(f"audit-{index}"), _AUDITED) if arm == "candidate" else None
        return replace(spec, audit=query)

    async def audit(self, candidate: Measured, runs: Sequence[RunResult]) -> tuple[Audit | None, str]:
        """Train the candidate again as in one of its pairs, whose `runs` are given, in a fresh sandbox, and ask that
        instance for single bytes without the text behind them: what was found, and what speaks against the program."""
        index = self.seed("audited pair") % len(runs)
        spec = self.pair_spec("candidate", candidate, index)
        assert spec.audit is not None
        again = await self._exactly(f"audit-{index}", replace(spec, audit=replace(spec.audit, truncated=True)))
        if again.status != "ok":
            return None, f"audit: {again.reason}"
        if again.logits_digest != runs[index].logits_digest:
            return None, "audit: the same seed and steps gave another model, so that nobody can check it"
        audit = decide.audit(runs[index].audit, again.audit)
        found = Audit(positions=audit.positions, worst=audit.worst, mean=audit.mean, error=audit.error)
        return found, audit.cause

    def seed(self, label: str) -> int:
        """A fresh seed for this purpose."""
        return self._lab.seed(self.name, label)

    async def _pair_run(self, arm: Arm, what: Measured, index: int) -> RunResult:
        spec = self.pair_spec(arm, what, index)
        run = await self._exactly(f"{arm}-{index}", spec)
        self.runs.append(run_record(arm, "confirm", spec.slices[1], spec.seed, spec.steps, run))
        if arm == "candidate" and run.status == "ok":  # what the score of a result is the mean of
            on_screen = run_record(arm, "confirm", spec.slices[0], spec.seed, spec.steps, run)
            self.runs.append(on_screen.model_copy(update={"losses": ()}))
        await asyncio.to_thread(self._lab.noise.put, what.program, spec.seed, run)
        if run.status == "ok":
            self._lab.took(run)
        return run
