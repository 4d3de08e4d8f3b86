"""What one machine measures of programs: budgets, noise, runs. Every finished run is journaled at once, so a killed
node resumes half-done experiments without repeating or losing one."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

from ..protocols.canonical import digest
from ..protocols.diffs import added_text, make_diff, normal_digest
from ..protocols.errors import MachineError
from ..protocols.records import Cost, Environment, Result, Run
from ..swarm.frontier import Frontier
from ..swarm.ledger import Ledger
from ..trainer import decide, evidence
from ..trainer.cost import CHILD_SPREAD
from ..trainer.task import Task
from ..trainer.types import RunResult, RunSpec, Slice
from .bench import Bench, together
from .noise import NoiseBook, run_from_json, run_to_json
from .programs import Programs

_LATEST, _FEWEST = 10, 5  # runs that tell what a run takes on this machine by now


@dataclass(frozen=True)
class Budget:
    """The steps of a program at compute parity with the baseline, on this machine."""

    steps: int
    ratio: float  # cost of a step over the baseline's
    error: float  # relative standard error of `ratio`

    def to_json(self) -> str:
        """Journal text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Budget:
        """The budget that `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Measured:
    """A program and its budget: one side of a comparison."""

    program: bytes
    source: str
    budget: Budget


class Laboratory:
    """Measures programs of one task on this machine."""

    def __init__(
        self,
        task: Task,
        bench: Bench,
        ledger: Ledger,
        frontier: Frontier,
        programs: Programs,
        environment: Environment,
        wall_s: float,
        pool_bytes: int,
    ) -> None:
        """`wall_s`: cap of a run. `pool_bytes`: of held-out text from which confirmation draws."""
        self.task, self.frontier, self.programs, self.environment = task, frontier, programs, environment
        self.pool_bytes = pool_bytes
        self.noise = NoiseBook(ledger, task.spec.id)
        self.wall_s = wall_s
        self._bench, self._ledger = bench, ledger
        self._took: deque[float] = deque(maxlen=_LATEST)  # CPU seconds of runs
        self._topping_up, self._promoting = asyncio.Lock(), asyncio.Lock()

    # ---- noise

    async def measure_noise(self, what: Measured, seeds: int) -> decide.Noise:
        """Run a program on fresh seeds until `seeds` have finished; MachineError when it does not run here."""
        async with self._topping_up:
            wanted = [self.seed(self.noise.key(what.program), str(index)) for index in range(2 * seeds)]
            while True:
                results = self.noise.results(what.program)
                finished = sum(run.status == "ok" for run in results.values())
                missing = [seed for seed in wanted if seed not in results][: seeds - finished]
                if finished >= seeds or not missing:
                    break
                await together(*(self._noise_run(what, seed) for seed in missing))
            noise = self.noise.noise(what.program)
            if noise is None:
                reason = next((run.reason for run in results.values() if run.reason), "no run finished")
                tail = next((run.log_tail for run in results.values() if run.log_tail), "")
                fix = f"its last output:\n{tail}" if tail else "swarm-node feed shows what it was; try another --size"
                name = what.program.hex()[:8]
                raise MachineError(f"program {name} does not run on this machine", why=reason, fix=fix)
            return noise

    async def more_noise(self, what: Measured, noise: decide.Noise) -> decide.Noise:
        """The noise over as many seeds more as can run at once, `PROMOTE_AFTER` at most."""
        return await self.measure_noise(what, min(decide.PROMOTE_AFTER, noise.n + self._bench.lanes))

    async def promotion_noise(self, experiment: str, parent: Measured) -> decide.Noise:
        """The noise by which an experiment is promoted or not, fixed when first asked: the pairs that follow bring the
        parent more seeds, and a restart among them must not judge anew."""
        saved = self._ledger.journal(experiment).get("noise")
        if saved is not None:
            return decide.Noise(**json.loads(saved))
        noise = await self.measure_noise(parent, decide.PROMOTE_AFTER)
        await asyncio.to_thread(self._ledger.journal_put, experiment, "noise", json.dumps(asdict(noise)))
        return noise

    async def _noise_run(self, what: Measured, seed: int) -> None:
        label = "the baseline" if what.program == self.task.spec.baseline else "the own best"
        spec = self.spec(what.source, seed, what.budget.steps, (self.task.screen,))
        await self._bench.run(spec, f"{label} on a fresh seed", keep=partial(self.noise.put, what.program, seed))

    @property
    def baseline(self) -> Measured:
        """The baseline, whose budget is the task's."""
        spec = self.task.spec
        return Measured(spec.baseline, self.task.baseline, Budget(spec.steps, 1.0, 0.0))

    def baseline_result(self, title: str) -> Result:
        """The record of the baseline over its seeds."""
        spec = self.task.spec
        runs, noise = self.noise.results(spec.baseline), self.noise.noise(spec.baseline)
        assert noise is not None
        return Result(
            task=spec.id,
            outcome="baseline",
            program=spec.baseline,
            parent=None,
            normal=normal_digest(self.task.baseline),
            title=title,
            score=noise.mean,
            noise=noise.sd,
            steps=spec.steps,
            cost_ratio=1.0,
            runs=tuple(
                run_record("candidate", "noise", self.task.screen, seed, spec.steps, result)
                for seed, result in runs.items()
            ),
            proposer="task",
            environment=self.environment,
            cost=Cost(seconds=sum(run.cpu_s + run.eval_cpu_s for run in runs.values())),
        )

    # ---- budgets

    async def measured(self, program: bytes, source: str, label: str, rough: bool = False) -> Measured | RunResult:
        """A program with its budget, measured once on this machine; the failed run when it does not even start.

        Programs that differ in words alone have one budget: an adoption goes on with the runs of a re-run, and a run
        is repeated with its own steps or not at all. rough: as a screening needs it, which most programs do not
        survive. What decides is measured anew, without the luck by which a rough budget helped a program through.
        """
        if program == self.task.spec.baseline:
            return self.baseline
        key = await asyncio.to_thread(_cost_key, source)
        journal = self._ledger.journal(key)
        # A restart goes on with the budget that its runs had.
        names = ("screened", "rough", "kept", "cost") if rough else ("kept", "cost")
        saved = next((journal[name] for name in names if name in journal), None)
        if saved is not None:
            return Measured(program, source, Budget.from_json(saved))
        base = self.task.spec.steps
        cost = await self._bench.cost_ratio(self.task.baseline, source, base, label, rough)
        if isinstance(cost, RunResult):
            return cost
        what = Measured(program, source, self._budget(cost.ratio, cost.rel_err))
        return await self._remember(what, "rough" if rough else "cost")

    async def screened(self, what: Measured, run: RunResult, parent: Measured) -> Measured:
        """The program with a budget for its screening by what a whole run cost beside the latest others."""
        saved = self._ledger.journal(await asyncio.to_thread(_cost_key, what.source)).get("screened")
        if saved is not None:
            return replace(what, budget=Budget.from_json(saved))
        excess = decide.excess([run.cpu_s], [statistics.median(self._lately(parent))])
        budget = self._costing(what, excess, self.baseline, what.budget.error)
        return await self._remember(replace(what, budget=budget), "screened")

    async def fair(
        self, experiment: str, what: Measured, runs: Sequence[RunResult], against: Measured, beside: Sequence[RunResult]
    ) -> Measured:
        """The program with a budget by what its first pairs cost, where they cost otherwise than they should; decided
        once for an experiment, so that a restart, or an adoption that goes on with a re-run, does not judge anew.

        What the steps of two programs cost beside each other depends on what else this machine does; that of whole runs
        side by side is what decides. A program with less than its budget is corrected too: others will be compared with
        it. What was kept here has the budget that its runs have.
        """
        allowed = _allowed(what, runs, against, beside)
        logs = [math.log(run.cpu_s / seconds) for run, seconds in zip(runs, allowed, strict=True)]
        mean, budget = statistics.fmean(logs), what.budget
        if abs(mean) > decide.tolerance(self._baseline_seconds()) and not await self._is_kept(what):
            error = max(statistics.stdev(logs), math.sqrt(2.0) * CHILD_SPREAD) / math.sqrt(len(logs))
            budget = self._costing(what, math.expm1(mean), against, error)
        await asyncio.to_thread(self._ledger.journal_put, experiment, "fair", budget.to_json())
        return replace(what, budget=budget)

    def decided(self, experiment: str, what: Measured) -> Measured | None:
        """The program with the budget that its first pairs gave it, if they did."""
        saved = self._ledger.journal(experiment).get("fair")
        return None if saved is None else replace(what, budget=Budget.from_json(saved))

    async def keep(self, what: Measured) -> None:
        """The program was kept: it has this budget from now on."""
        await self._remember(what, "kept")

    async def _is_kept(self, what: Measured) -> bool:
        key = await asyncio.to_thread(_cost_key, what.source)
        return what.program == self.task.spec.baseline or "kept" in self._ledger.journal(key)

    def _costing(self, what: Measured, excess: float, than: Measured, error: float) -> Budget:
        """A budget by how much more its runs took than those of another program."""
        return self._budget(than.budget.ratio * (1.0 + excess) * than.budget.steps / what.budget.steps, error)

    def _budget(self, ratio: float, error: float) -> Budget:
        return Budget(decide.steps_for(self.task.spec.steps, ratio), ratio, error)

    async def _remember(self, what: Measured, how: str) -> Measured:
        key = await asyncio.to_thread(_cost_key, what.source)
        await asyncio.to_thread(self._ledger.journal_put, key, how, what.budget.to_json())
        return what

    def over_budget(
        self, what: Measured, runs: Sequence[RunResult], against: Measured, beside: Sequence[RunResult]
    ) -> str:
        """Why the runs of pairs took more CPU time than they had, or nothing. `beside`: those of the other arm."""
        excess = decide.excess([run.cpu_s for run in runs], _allowed(what, runs, against, beside))
        return _over(excess, decide.tolerance(self._baseline_seconds()))

    async def too_slow(self, experiment: str, step: str, run: RunResult, parent: Measured) -> str:
        """The same of a run alone, beside the latest others; decided once: what these take changes."""
        saved = self._ledger.journal(experiment).get(f"slow-{step}")
        if saved is None:
            excess = decide.excess([run.cpu_s], [statistics.median(self._lately(parent))])
            saved = _over(excess, decide.tolerance(self._baseline_seconds(), apart=True))
            self.took(run)
            await asyncio.to_thread(self._ledger.journal_put, experiment, f"slow-{step}", saved)
        return saved

    def took(self, run: RunResult) -> None:
        """A run with a whole budget has finished."""
        self._took.append(run.cpu_s)

    def slope(self, run: RunResult) -> float:
        """Gain per ln(steps) over the run's second half, which is more than at its end: the curve flattens. 0 where it
        was not scored."""
        half, end = run.probe, run.scores.get("probe")
        return self.task.spec.better_by(end, half) / math.log(2) if half is not None and end is not None else 0.0

    def doubt(self, candidate: Measured, against: Measured, slope: float, parent: str) -> float:
        """What could make a gain of `candidate` over `against` without being one: steps too many, and held-out text
        remembered in the edit of `parent`. slope: gain per ln(steps)."""
        base = self.task.spec.steps
        ours, theirs = (
            decide.surplus(base, what.budget.steps, what.budget.ratio) for what in (candidate, against)
        )  # fmt: skip
        error = math.hypot(candidate.budget.error, against.budget.error)
        added = added_text(make_diff(parent, candidate.source))
        memory = decide.memory_of(len(zlib.compress(added.encode(), 9)), self.pool_bytes)
        return decide.doubt(slope, ours - theirs, error, memory)

    def _lately(self, parent: Measured) -> list[float]:
        """What whole runs took, of whatever program, since all have the same budget: a machine that gets hot, or busy
        with something else, is slower by then for all of them. The parent's, while this process made too few."""
        return list(self._took) if len(self._took) >= _FEWEST else self._seconds(parent) or self._baseline_seconds()

    def _baseline_seconds(self) -> list[float]:
        """CPU seconds of the baseline's first seeds, one after the other: how much runs differ, and not how much the
        machine does from hour to hour."""
        return self._seconds(self.baseline)[: decide.PROMOTE_AFTER]

    def _seconds(self, what: Measured) -> list[float]:
        """CPU seconds of a program's runs with its budget."""
        runs = self.noise.results(what.program).values()
        return [run.cpu_s for run in runs if run.status == "ok" and run.steps_done == what.budget.steps]

    # ---- error control

    async def level(self, experiment: str) -> float:
        """The α of a promoted hypothesis, fixed when it is promoted: no two of one node share a place in the series."""
        async with self._promoting:
            key = f"promoted-{self.task.spec.id.hex()[:16]}"
            taken = await asyncio.to_thread(self._ledger.journal, key)
            if experiment not in taken:
                lost = int(taken.pop("lost", "0"))  # promoted before this journal, which begins anew when it is lost
                tested = max(lost + len(taken), self.frontier.own_promoted)  # the records come back from peers
                lost = str(tested - len(taken))
                await asyncio.to_thread(self._ledger.journal_put, key, "lost", lost)
                taken[experiment] = repr(evidence.level(decide.ALPHA, tested, self.frontier.own_kept))
                await asyncio.to_thread(self._ledger.journal_put, key, experiment, taken[experiment])
            return float(taken[experiment])

    # ---- runs

    async def run(self, experiment: str, step: str, spec: RunSpec, label: str) -> RunResult:
        """One run of an experiment, or what the journal has of it."""
        saved = self._ledger.journal(experiment).get(step)
        if saved is not None:
            return run_from_json(saved)
        return await self._bench.run(spec, label, step, partial(self._note, experiment, step))

    def counted(self, experiment: str) -> set[str]:
        """Steps whose cost is in a record already: an adoption goes on with the pairs of a re-run."""
        return set(self._ledger.journal(experiment).get("counted", "").split())

    async def count(self, experiment: str) -> None:
        """The cost of all steps so far is in a record."""
        steps = " ".join(step for step in self._ledger.journal(experiment) if " " not in step)
        await asyncio.to_thread(self._ledger.journal_put, experiment, "counted", steps)

    async def note(self, experiment: str, step: str, result: RunResult) -> None:
        """Journal a finished run."""
        await asyncio.to_thread(self._note, experiment, step, result)

    def _note(self, experiment: str, step: str, result: RunResult) -> None:
        self._ledger.journal_put(experiment, step, run_to_json(result))

    def spec(self, source: str, seed: int, steps: int, slices: tuple[Slice, ...]) -> RunSpec:
        """A run with this machine's limits."""
        return RunSpec(source, seed, steps, slices, wall_s=self.wall_s)

    def seed(self, experiment: str, label: str) -> int:
        """A fresh seed for this purpose: reproducible after a restart, different on every node."""
        return int.from_bytes(digest(self.frontier.own + f"{experiment}/{label}".encode())[:4], "big") >> 1


def run_record(
    arm: Literal["parent", "candidate"],
    role: Literal["noise", "screen", "confirm", "replay"],
    part: Slice,
    seed: int,
    steps: int,
    result: RunResult,
) -> Run:
    """A run as records carry it."""
    return Run(
        arm=arm,
        role=role,
        slice=part.name,
        draw=part.draw,
        seed=seed,
        steps=steps,
        score=result.scores.get(part.name),
        seconds=result.cpu_s,
        digest=bytes.fromhex(result.logits_digest),
        losses=result.first_losses,
    )


def _allowed(what: Measured, runs: Sequence[RunResult], against: Measured, beside: Sequence[RunResult]) -> list[float]:
    """CPU seconds of training that each of the runs has."""
    cost = what.budget.ratio / against.budget.ratio
    both = zip(runs, beside, strict=True)
    return [decide.allowed(other.cpu_s, mine.eval_cpu_s, other.eval_cpu_s, cost) for mine, other in both]


def _over(excess: float, noise: float) -> str:
    if excess <= noise:
        return ""
    return f"took {excess:.1%} more CPU time than its budget, where {noise:.1%} may be this machine's noise"


def _cost_key(source: str) -> str:
    return f"cost-{normal_digest(source).hex()}"
