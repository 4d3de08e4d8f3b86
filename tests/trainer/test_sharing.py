"""Nodes that share a machine: real workers at one core, of which only the one that has it holds torch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from swarm_node.trainer.corpus import Corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.supervisor import IDLE_S
from swarm_node.trainer.types import Progress, RunResult, RunSpec, WorkerDied

CORE = sorted(os.sched_getaffinity(0))[:1]
NODES = 3


@pytest.fixture(scope="module")
def nodes(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Executor]]:
    """The executors of three nodes with one core between them; others are let in after every run."""
    locks = tmp_path_factory.mktemp("locks")
    with ExitStack() as stack:
        scratch = [tmp_path_factory.mktemp(f"node-{number}") for number in range(NODES)]
        yield [stack.enter_context(Executor(small_corpus, path, 1 << 30, CORE, locks, lease_s=0.0)) for path in scratch]


@pytest.fixture(scope="module")
def timed() -> str:
    """The tiny program, saying when it runs and where."""
    tiny = (Path(__file__).parent / "tiny_train.py").read_text()
    last = "    return model\n"
    assert tiny.endswith(last)
    first = "import os, time\nprint(time.monotonic(), *os.sched_getaffinity(0))\n"
    return first + tiny.removesuffix(last) + "    print(time.monotonic())\n" + last


def train(node: Executor, source: str, on_progress: Callable[[Progress], None] = lambda _: None) -> RunResult:
    return node.run(RunSpec(source, 1, 40, (), 60.0, probe=False), on_progress)


def worker(node: Executor) -> psutil.Process:
    assert node._worker is not None
    return psutil.Process(node._worker.pid)


def below(node: Executor) -> set[int]:
    """The processes below a node's worker: none while it waits, else a fork server and what that has forked."""
    return {process.pid for process in worker(node).children(recursive=True)}


def warm_together(nodes: list[Executor]) -> int:
    """How many workers had processes at one moment: between two looks at all of them."""
    looks = [[below(node) for node in nodes] for _ in range(2)]
    return sum(bool(first & second) for first, second in zip(*looks, strict=True))


ENDLESS = "def train(ctx):\n    ctx.batch(2, 16)\n    while True: pass\n"


class Endless:
    """A run that has begun on a node and goes on until it is cancelled or killed."""

    def __init__(self, node: Executor, thread: ThreadPoolExecutor) -> None:
        runs = threading.Event()
        self.result = thread.submit(train, node, ENDLESS, lambda progress: progress.stage == "train" and runs.set())
        assert runs.wait(60)


@pytest.mark.long
def test_nodes_share_a_core_one_at_a_time(nodes: list[Executor], timed: str) -> None:
    """No two programs run at once, no two workers are warm at once, and who had a turn is behind those who wait."""
    waiting = [threading.Event() for _ in nodes]
    warm: list[int] = []

    def work(number: int) -> tuple[float, float, int]:
        """A run of a node: when it began and ended."""

        def on_progress(_: Progress) -> None:
            waiting[number].set()
            warm.append(warm_together(nodes))

        result = train(nodes[number], timed, on_progress)
        assert result.status == "ok", result
        began, core, ended = result.log_tail.split()
        assert int(core) == CORE[0]
        return float(began), float(ended), number

    with ThreadPoolExecutor(NODES) as threads:
        first = Endless(nodes[0], threads)
        others = [threads.submit(work, number) for number in (1, 2)]
        assert waiting[1].wait(60) and waiting[2].wait(60)
        assert below(nodes[0]) and not below(nodes[1]) and not below(nodes[2])
        nodes[0].cancel()
        assert first.result.result(60).reason == "cancelled"
        spans = sorted([work(0), *(other.result(60) for other in others)])
    assert all(earlier[1] < later[0] for earlier, later in pairwise(spans))
    assert spans[-1][2] == 0
    assert set(warm) <= {0, 1} and 1 in warm


def test_a_killed_worker_frees_the_core(nodes: list[Executor], timed: str) -> None:
    """kill -9 of the worker that has the core ends its run, and one that waits begins."""
    holder, waiter = nodes[:2]
    waits = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        run = Endless(holder, threads)
        wait = threads.submit(train, waiter, timed, lambda _: waits.set())
        assert waits.wait(60) and not below(waiter)
        worker(holder).kill()
        with pytest.raises(WorkerDied):
            run.result.result(60)
        assert wait.result(60).status == "ok"


@pytest.mark.long
def test_an_idle_worker_lets_others_in(nodes: list[Executor], timed: str) -> None:
    """A worker without a request gives its core to one that has one, and ends its fork server."""
    assert train(nodes[1], timed).status == "ok" and below(nodes[1])
    assert train(nodes[2], timed).status == "ok" and below(nodes[2])
    assert not below(nodes[1])


@pytest.mark.long
def test_a_lone_worker_stays_warm(nodes: list[Executor], timed: str) -> None:
    """While nobody waits the fork server is the same for every run, however long it had nothing to do."""
    assert train(nodes[2], timed).status == "ok"
    warm = below(nodes[2])
    time.sleep(2 * IDLE_S)  # what does not happen cannot be waited for
    assert train(nodes[2], timed).status == "ok"
    assert below(nodes[2]) == warm != set()


@pytest.mark.long
def test_a_cancelled_wait_leaves_the_line(nodes: list[Executor], timed: str) -> None:
    """Who is cancelled while it waits does not drive the holder from its core."""
    waiter, holder = nodes[1:]
    assert train(holder, timed).status == "ok"
    warm = below(holder)
    with ThreadPoolExecutor(1) as thread:
        run = Endless(holder, thread)
        assert train(waiter, timed, lambda _: waiter.cancel()).reason == "cancelled"
        holder.cancel()
        assert run.result.result(60).reason == "cancelled"
    assert train(holder, timed).status == "ok" and below(holder) == warm


STOPPED_DAEMON = """
import os
from swarm_node.trainer import frames
from swarm_node.trainer.supervisor import Supervisor
(requests, daemon), (_, answers) = os.pipe(), os.pipe()
supervisor = Supervisor(requests, os.fdopen(answers, "wb"))
daemon = os.fdopen(daemon, "wb")
frames.write(daemon, {"op": "run", "job": 1})
supervisor.next_request(lambda: None)
os.set_blocking(answers, False)
try:
    while True:
        os.write(answers, bytes(4096))
except BlockingIOError:
    os.set_blocking(answers, True)
supervisor.sleep(0.1)  # the first wait tells of progress
os._exit(7)
"""


def test_a_stopped_daemon_does_not_keep_its_core() -> None:
    """When nobody reads what the worker says of its progress, the run goes on to its end."""
    assert subprocess.run([sys.executable, "-c", STOPPED_DAEMON], timeout=30, check=False).returncode == 7
