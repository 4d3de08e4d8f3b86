"""The life of one experiment: cost, screen, noise, confirm, decide. Every finished run is journaled at once, so a
killed node resumes half-done experiments without repeating or losing a run."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from ..protocols.canonical import digest
from ..protocols.diffs import EDITABLE, make_diff, normal_digest
from ..protocols.errors import MachineError
from ..protocols.records import Cost, Environment, Result, Run
from ..protocols.task import program_digest
from ..swarm.ledger import Ledger
from ..trainer import decide
from ..trainer.task import Task
from ..trainer.types import CostRatio, RunResult, RunSpec, Slice
from .bench import Bench
from .noise import NoiseBook, run_from_json, run_to_json
from .proposers.base import Hypothesis

_SCREEN = Slice("screen")


@dataclass(frozen=True)
class Plan:
    """An experiment as it was decided on: what is tried from which parent. Journaled before the first run."""

    id: str
    task: bytes  # task id
    parent: str  # source text
    parent_program: bytes
    hypothesis: Hypothesis

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


class Laboratory:
    """Runs experiments of one task on this machine."""

    def __init__(
        self, task: Task, bench: Bench, ledger: Ledger, author: bytes, env: Environment, wall_s: float
    ) -> None:
        self.task = task
        self.noise = NoiseBook(ledger, task.spec.id)
        self._bench = bench
        self._ledger = ledger
        self._author = author
        self.environment = env
        self._wall_s = wall_s
        self._baseline = task.spec.baseline
        self._topping_up = asyncio.Lock()

    async def measure_noise(self, program: bytes, source: str, steps: int, seeds: int) -> decide.Noise:
        """Run `program` on fresh seeds until `seeds` have finished; MachineError when it does not run here."""
        async with self._topping_up:
            wanted = [self._seed(self.noise.key(program), str(index)) for index in range(2 * seeds)]
            while True:
                results = self.noise.results(program)
                finished = sum(run.status == "ok" for run in results.values())
                missing = [seed for seed in wanted if seed not in results][: seeds - finished]
                if finished >= seeds or not missing:
                    break
                await asyncio.gather(*(self._noise_run(program, source, steps, seed) for seed in missing))
            noise = self.noise.noise(program)
            if noise is None:
                reason = next((run.reason for run in results.values() if run.reason), "no run finished")
                tail = next((run.log_tail for run in results.values() if run.log_tail), "")
                fix = f"its last output:\n{tail}" if tail else "swarm-node feed shows what it was; try another --size"
                raise MachineError(f"program {program.hex()[:8]} does not run on this machine", why=reason, fix=fix)
            return noise

    async def _noise_run(self, program: bytes, source: str, steps: int, seed: int) -> None:
        label = "the baseline" if program == self._baseline else "the own best"
        result = await self._bench.run(self._spec(source, seed, steps, (_SCREEN,)), f"{label} on a fresh seed")
        await asyncio.to_thread(self.noise.put, program, seed, result)

    def baseline_result(self, title: str) -> Result:
        """The record of the baseline over its seeds."""
        runs = self.noise.results(self._baseline)
        noise = self.noise.noise(self._baseline)
        assert noise is not None
        return Result(
            task=self.task.spec.id,
            outcome="baseline",
            program=self._baseline,
            parent=None,
            normal=normal_digest(self.task.baseline),
            title=title,
            score=noise.mean,
            noise=noise.sd,
            steps=self.task.spec.steps,
            cost_ratio=1.0,
            runs=tuple(
                self._run("candidate", "noise", "screen", seed, self.task.spec.steps, r) for seed, r in runs.items()
            ),
            proposer="task",
            environment=self.environment,
            cost=Cost(seconds=sum(run.cpu_s for run in runs.values())),
        )

    async def conduct(self, plan: Plan) -> Result:
        """The whole experiment; its result whatever comes out. Only this machine's failures raise."""
        started = time.monotonic()
        source = plan.hypothesis.source
        steps, ratio, failure = await self._steps(plan)
        trace = _Trace(self, plan, steps, ratio, started)
        if failure is not None:
            return trace.result("crashed", failure.reason)
        parent_steps = await self._parent_steps(plan)
        noise = await self.measure_noise(plan.parent_program, plan.parent, parent_steps, decide.SCREEN_AFTER)
        kill_above = self.noise.kill_above(plan.parent_program)
        seed = self._seed(plan.id, "screen")
        screen = await self._journaled(plan, "screen", self._spec(source, seed, steps, (_SCREEN,), kill_above))
        trace.add("candidate", "screen", "screen", seed, steps, screen)
        trace.noise = noise
        if screen.status == "killed":
            return trace.result("discarded", screen.reason)
        if screen.status != "ok":
            return trace.result("crashed", screen.reason)
        noise = await self.measure_noise(plan.parent_program, plan.parent, parent_steps, decide.PROMOTE_AFTER)
        trace.noise = noise
        trace.score = screen.scores["screen"]
        trace.gain = self.task.spec.better_by(trace.score, noise.mean)
        if not decide.promotes(trace.gain, noise):
            return trace.result("discarded", "")
        return await self._confirm(plan, trace, noise, steps, parent_steps)

    async def _confirm(self, plan: Plan, trace: _Trace, noise: decide.Noise, steps: int, parent_steps: int) -> Result:
        """Fresh seeds of both arms, interleaved, on text drawn for this experiment alone."""
        draw = int.from_bytes(digest(self._author + plan.id.encode())[:6], "big")
        slices = (_SCREEN, Slice("confirm", draw, self.task.confirm_bytes))
        jobs = []
        for index in range(decide.CONFIRM_RUNS):
            for arm, text, budget in (
                ("candidate", plan.hypothesis.source, steps),
                ("parent", plan.parent, parent_steps),
            ):
                seed = self._seed(plan.id, f"confirm-{arm}-{index}")
                spec = self._spec(text, seed, budget, slices)
                jobs.append((arm, seed, budget, self._journaled(plan, f"{arm}-{index}", spec)))
        runs = await asyncio.gather(*(job for *_, job in jobs))
        program = program_digest({EDITABLE: plan.hypothesis.source})
        scores: dict[str, list[float]] = {"candidate": [], "parent": []}
        for (arm, seed, budget, _), run in zip(jobs, runs, strict=True):
            trace.add(arm, "confirm", "confirm", seed, budget, run)
            if run.status != "ok":
                return trace.result("crashed", f"confirmation run of the {arm}: {run.reason}")
            scores[arm].append(self.task.spec.better_by(run.scores["confirm"], 0.0))
            owner = program if arm == "candidate" else plan.parent_program
            await asyncio.to_thread(self.noise.put, owner, seed, run)
        verdict = decide.decide(scores["candidate"], scores["parent"], noise)
        trace.gain, trace.gain_error = verdict.gain, verdict.error
        # The gain is judged on text drawn for this experiment; the score shown is on the fixed slice, like every other.
        trace.score = statistics.fmean(
            run.scores["screen"] for (arm, *_), run in zip(jobs, runs, strict=True) if arm == "candidate"
        )
        return trace.result(verdict.outcome, verdict.cause)

    async def _steps(self, plan: Plan) -> tuple[int, float, RunResult | None]:
        """The candidate's steps by compute parity, its cost ratio, and the failure when it does not even start."""
        source, base = plan.hypothesis.source, self.task.spec.steps
        saved = self._ledger.journal(plan.id).get("cost")
        if saved is not None:
            return decide.steps_for(base, float(saved)), float(saved), None
        measured = await self._bench.cost_ratio(self.task.baseline, source, base, plan.hypothesis.title)
        if isinstance(measured, CostRatio):
            program = program_digest({EDITABLE: source})
            await asyncio.to_thread(self._ledger.journal_put, plan.id, "cost", repr(measured.ratio))
            await asyncio.to_thread(self._ledger.journal_put, _cost_key(program), "cost", repr(measured.ratio))
            return decide.steps_for(base, measured.ratio), measured.ratio, None
        await asyncio.to_thread(self._ledger.journal_put, plan.id, "calibration", run_to_json(measured))
        return 0, 0.0, measured

    async def _parent_steps(self, plan: Plan) -> int:
        """N of the parent on this machine: measured once per program, when it was itself the candidate."""
        if plan.parent_program == self._baseline:
            return self.task.spec.steps
        saved = self._ledger.journal(_cost_key(plan.parent_program)).get("cost")
        if saved is None:
            measured = await self._bench.cost_ratio(
                self.task.baseline, plan.parent, self.task.spec.steps, "the own best"
            )
            if not isinstance(measured, CostRatio):
                raise RuntimeError(f"the parent program does not run any more: {measured.reason}")
            saved = repr(measured.ratio)
            await asyncio.to_thread(self._ledger.journal_put, _cost_key(plan.parent_program), "cost", saved)
        return decide.steps_for(self.task.spec.steps, float(saved))

    async def _journaled(self, plan: Plan, step: str, spec: RunSpec) -> RunResult:
        saved = self._ledger.journal(plan.id).get(step)
        if saved is not None:
            return run_from_json(saved)
        result = await self._bench.run(spec, f"{plan.hypothesis.title} ({step})")
        await asyncio.to_thread(self._ledger.journal_put, plan.id, step, run_to_json(result))
        return result

    def _spec(
        self, source: str, seed: int, steps: int, slices: tuple[Slice, ...], kill_above: float | None = None
    ) -> RunSpec:
        return RunSpec(source, seed, steps, slices, wall_s=self._wall_s, probe=True, kill_above=kill_above)

    def _seed(self, experiment: str, label: str) -> int:
        """A fresh seed for this purpose: reproducible after a restart, different on every node."""
        return int.from_bytes(digest(self._author + f"{experiment}/{label}".encode())[:4], "big") >> 1

    def _run(self, arm: Any, role: Any, slice_name: str, seed: int, steps: int, result: RunResult) -> Run:
        return Run(
            arm=arm,
            role=role,
            slice=slice_name,
            seed=seed,
            steps=steps,
            score=result.scores.get(slice_name),
            seconds=result.cpu_s,
            digest=bytes.fromhex(result.logits_digest),
        )


def _cost_key(program: bytes) -> str:
    return f"cost-{program.hex()}"


class _Trace:
    """Gathers an experiment's evidence until it becomes a result."""

    def __init__(self, lab: Laboratory, plan: Plan, steps: int, ratio: float, started: float) -> None:
        self._lab, self._plan, self._steps, self._ratio, self._started = lab, plan, steps, ratio, started
        self._runs: list[Run] = []
        self.noise: decide.Noise | None = None
        self.score: float | None = None
        self.gain: float | None = None
        self.gain_error: float | None = None

    def add(self, arm: str, role: str, slice_name: str, seed: int, steps: int, result: RunResult) -> None:
        """One more run of this experiment."""
        self._runs.append(self._lab._run(arm, role, slice_name, seed, steps, result))

    def result(self, outcome: Any, cause: str) -> Result:
        """The body of the record. A diff travels only with what was kept."""
        plan, hypothesis = self._plan, self._plan.hypothesis
        diff = make_diff(plan.parent, hypothesis.source)
        cost = hypothesis.cost.model_copy(update={"seconds": float(sum(run.seconds for run in self._runs))})
        return Result(
            task=self._lab.task.spec.id,
            outcome=outcome,
            program=program_digest({EDITABLE: hypothesis.source}),
            parent=plan.parent_program,
            normal=normal_digest(hypothesis.source),
            diff=diff if outcome == "kept" else None,
            title=hypothesis.title,
            reason=hypothesis.reason,
            cause=one_line(cause),
            tags=hypothesis.tags,
            score=self.score,
            parent_score=self.noise.mean if self.noise else None,
            gain=self.gain,
            gain_error=self.gain_error,
            noise=self.noise.sd if self.noise else None,
            steps=self._steps,
            cost_ratio=self._ratio or None,
            runs=tuple(self._runs),
            proposer=f"{hypothesis.proposer}:{hypothesis.edit}" if hypothesis.edit else hypothesis.proposer,
            inspired_by=hypothesis.inspired_by,
            environment=self._lab.environment,
            cost=cost,
        )


def one_line(text: str, limit: int = 400) -> str:
    """`text` as a record's note: printable characters on one line."""
    return "".join(char if char.isprintable() else " " for char in text)[:limit].strip()
