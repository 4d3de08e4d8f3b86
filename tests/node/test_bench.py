"""What the pool of workers knows of its runs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from swarm_node.node import bench as bench_module
from swarm_node.node.bench import Bench, busy, paying, together
from swarm_node.protocols.errors import MachineError
from swarm_node.trainer.types import Progress, WorkerDied


def test_what_a_run_takes_is_told_of_the_latest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that others begin to use is known as slow, however long it was idle before."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(bench_module, "time", clock)

    class Timed:
        """Runs take as long as they are told to; what they do plays no part here."""

        def run(self, seconds: Any, _: Any) -> Any:
            clock.now += seconds
            return SimpleNamespace(cancelled=False)

    async def main() -> list[float]:
        bench = Bench([Timed()], lambda *_: None, lambda _: None)  # type: ignore[list-item]
        told = [bench.run_seconds]
        for seconds in [10.0] * 1000 + [80.0] * 40:
            await bench.run(seconds, "x")  # type: ignore[arg-type]
            told.append(bench.run_seconds)
        return told

    told = asyncio.run(main())
    assert told[0] == 0.0 and told[1] == told[1000] == pytest.approx(10.0)
    assert told[1010] > 30.0 and 65.0 < told[1040] < 80.0


def test_who_keeps_a_lane_busy_pays_for_it_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """From when it has a core: for runs and measurements of costs, whatever comes of them, and for what is done
    besides; each of several at once for its own."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(bench_module, "time", clock)

    class Timed:
        """Waits for its core, then works; both take as long as they are told to."""

        def run(self, spec: Any, on_progress: Any, *_: Any) -> Any:
            waits, works = spec
            for seconds, stage in ((waits, "wait"), (works, "train")):
                clock.now += seconds
                on_progress(Progress(stage, 0, 0))  # type: ignore[arg-type]
            if works > 100:
                raise WorkerDied("it died")
            return SimpleNamespace(cancelled=False)

        def cost_ratio(self, parent: Any, source: Any, steps: Any, on_progress: Any, rough: bool) -> Any:
            return self.run(source, on_progress)

    async def job(bench: Bench, paid: list[float], *specs: Any) -> None:
        with paying(paid.append):
            await together(*(bench.run(spec, "x") for spec in specs))
            await bench.cost_ratio("", (50.0, 2.0), 1, "x")  # type: ignore[arg-type]
            with busy():
                clock.now += 7.0

    async def main() -> tuple[list[float], ...]:
        bench = Bench([Timed()], lambda *_: None, lambda _: None)  # type: ignore[list-item]
        first, second, failed = list[float](), list[float](), list[float]()
        await job(bench, first, (0.0, 5.0), (30.0, 6.0))
        await job(bench, second, (9.0, 8.0))
        with pytest.raises(MachineError), paying(failed.append):
            await bench.run((3.0, 101.0), "x")  # type: ignore[arg-type]
        await bench.run((1.0, 1.0), "nobody pays")  # type: ignore[arg-type]
        return first, second, failed

    assert asyncio.run(main()) == ([5.0, 6.0, 2.0, 7.0], [8.0, 2.0, 7.0], [101.0])
