"""The machine's workers: runs go to whichever executor is free, one run per research core at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import structlog

from ..protocols.errors import MachineError
from ..trainer.corpus import Corpus
from ..trainer.executor import Executor
from ..trainer.types import CostRatio, Progress, RunResult, RunSpec, SandboxUnavailable, WorkerDied
from .format import clean
from .screen import Screen

log = structlog.get_logger()

T = TypeVar("T")
OnProgress = Callable[[int, str, str, Progress], None]  # lane, what runs there, which of its runs, how far it is
OnIdle = Callable[[int], None]
Keep = Callable[[RunResult], None]
Pay = Callable[[float], None]  # for seconds by the clock
MEMORY_GIB = 2  # a run's memory cap
_STAGES = {
    "wait": ": waiting for a free core",
    "calibrate": ": measuring its cost",
    "train": "",
    "evaluate": ": scoring",
}
_LATEST = 20  # runs that an average is about: others may begin to use this machine
_payer: ContextVar[Pay] = ContextVar("payer", default=lambda seconds: None)  # of a lane's work
_TRIES = 3  # a worker that dies under a run is restarted; three deaths in a row are the machine's problem


@contextlib.contextmanager
def paying(pay: Pay) -> Iterator[None]:
    """`pay` is told how long lanes are busy with what is done inside, tasks that it starts included; a run or a
    measurement of costs is from when it has its core, however it ends."""
    token = _payer.set(pay)
    try:
        yield
    finally:
        _payer.reset(token)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A lane is busy with what is done inside, though not on the bench."""
    began = time.monotonic()
    try:
        yield
    finally:
        _payer.get()(time.monotonic() - began)


class Bench:
    """A pool of executors for asyncio callers. Lane numbers tell progress bars apart."""

    def __init__(self, executors: Sequence[Executor], on_progress: OnProgress, on_idle: OnIdle) -> None:
        self._executors = executors
        self._on_progress = on_progress
        self._on_idle = on_idle
        # Runs hold a thread for minutes: asyncio's own pool is left to the ledger's short calls.
        self._threads = ThreadPoolExecutor(len(executors), "run")
        self._seconds, self._runs = 0.0, 0
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for lane in range(len(executors)):
            self._free.put_nowait(lane)

    @property
    def lanes(self) -> int:
        """How many runs can go on at once."""
        return len(self._executors)

    async def run(self, spec: RunSpec, label: str, step: str = "", keep: Keep = lambda result: None) -> RunResult:
        """One sandboxed run; a crash of the candidate is a result, a dead worker is retried.

        `keep` writes the result down, in the run's own thread, before the lane begins anything else: what has finished
        is kept even when the caller is cancelled in that moment. A run that was cut short is no result.
        """

        def work(executor: Executor, report: Callable[[Progress], None]) -> RunResult:
            result = executor.run(spec, report)
            if not result.cancelled:
                keep(result)
            return result

        started = time.monotonic()
        result = await self._with_lane(label, step, work)
        self._runs += 1
        self._seconds += (time.monotonic() - started - self._seconds) / min(self._runs, _LATEST)
        return result

    @property
    def run_seconds(self) -> float:
        """What a run took lately on average, from when it was asked for: the wait for a core that others use included.
        0 before the first."""
        return self._seconds

    async def cost_ratio(
        self, parent: str, source: str, steps: int, label: str, rough: bool = False
    ) -> CostRatio | RunResult:
        """CPU cost per step of `source` over that of `parent`, `rough` or not; a RunResult when the candidate fails
        already here."""
        return await self._with_lane(
            label, "", lambda executor, report: executor.cost_ratio(parent, source, steps, report, rough)
        )

    async def close(self) -> None:
        """Stop every worker and what runs in it."""
        await asyncio.gather(*(asyncio.to_thread(executor.close) for executor in self._executors))
        self._threads.shutdown(wait=False)

    async def _with_lane(self, label: str, step: str, work: Callable[[Executor, Callable[[Progress], None]], T]) -> T:
        lane = await self._free.get()
        executor = self._executors[lane]
        loop = asyncio.get_running_loop()
        began = time.monotonic()

        def report(progress: Progress) -> None:
            nonlocal began
            if progress.stage == "wait":  # others have the core
                began = time.monotonic()
            loop.call_soon_threadsafe(self._on_progress, lane, label, step, progress)

        try:
            for attempt in range(_TRIES):
                task = asyncio.ensure_future(loop.run_in_executor(self._threads, work, executor, report))
                try:
                    return await asyncio.shield(task)
                except asyncio.CancelledError:
                    while not task.done():  # until the thread is at the call that is to be cancelled
                        executor.cancel()
                        await asyncio.wait([task], timeout=0.2)
                    raise
                except (WorkerDied, SandboxUnavailable) as death:  # the self-test passed before: restart it
                    if attempt == _TRIES - 1:
                        if isinstance(death, SandboxUnavailable):
                            raise
                        raise MachineError(
                            "the worker process keeps dying",
                            why=str(death),
                            fix="run: swarm-node join -v, and look at memory",
                        ) from death
            raise AssertionError("unreachable")
        finally:
            _payer.get()(time.monotonic() - began)
            self._on_idle(lane)
            self._free.put_nowait(lane)


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """The results, in order. When one fails, or the caller is cancelled, the others are cancelled and have come to
    their end before this ends."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


@contextlib.asynccontextmanager
async def opened(corpus: Corpus, scratch: Path, lanes: int, screen: Screen) -> AsyncIterator[Bench]:
    """One executor per lane, self-tested, over the folder `scratch`, which is emptied."""
    shutil.rmtree(scratch, ignore_errors=True)  # leftovers of a killed node; nothing of value lives here
    executors = [
        Executor(corpus, scratch / f"lane-{lane}", MEMORY_GIB << 30, lock_dir=lock_dir()) for lane in range(lanes)
    ]

    def on_progress(lane: int, label: str, step: str, progress: Progress) -> None:
        fraction = progress.step / progress.steps if progress.steps else None
        after = (f" ({step})" if step else "") + _STAGES[progress.stage]
        screen.busy(lane, f"running {clean(label, 60)}", fraction, progress.seconds_left, after)

    bench = Bench(executors, on_progress, screen.idle)
    try:
        screen.busy(-1, "starting the sandbox and warming up torch")
        reports = await asyncio.gather(*(asyncio.to_thread(executor.start) for executor in executors))
        screen.idle(-1)
        report = reports[0]
        stopped = sum(passed for _, passed in report.tests)
        layers = f"{', '.join(report.layers[:2])}: no network, no home, {MEMORY_GIB} GiB a run"
        log.info("isolation", layers=report.layers, attacks=dict(report.tests))
        screen.item("isolation", f"{layers}   ({stopped} of {len(report.tests)} attacks stopped: swarm-node doctor)")
        yield bench
    finally:
        screen.idle(-1)
        await bench.close()


def lock_dir() -> Path:
    """One folder per user for the core locks that all nodes of this machine share."""
    path = Path(tempfile.gettempdir()) / f"swarm-node-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
