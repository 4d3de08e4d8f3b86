"""What the pool of workers knows of its runs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from swarm_node.node import bench as bench_module
from swarm_node.node.bench import Bench


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
