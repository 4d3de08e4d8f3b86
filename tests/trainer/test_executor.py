"""Real runs of a tiny program in the real sandbox: what comes back, whatever the candidate does."""

from __future__ import annotations

import os
import pickle
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from swarm_node.trainer import hardware, runchild
from swarm_node.trainer.corpus import Corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.locks import POLL_S, Turn
from swarm_node.trainer.sandbox.selftest import SandboxReport
from swarm_node.trainer.sandbox.watchdog import Limits
from swarm_node.trainer.types import CostRatio, DiskFull, Progress, RunResult, RunSpec, Slice, WorkerDied

CORES = sorted(os.sched_getaffinity(0))[:2]
Run = Callable[..., RunResult]


def test_a_run_trains_and_is_scored(run: Run, tiny: str) -> None:
    """Loss and bits per byte fall far below the 8 bits of knowing nothing, and the books are kept."""
    result = run(tiny, steps=120, probe=True, slices=(Slice("screen"), Slice("confirm", draw=3, bytes=8192)))
    assert (result.status, result.reason) == ("ok", "")
    assert set(result.scores) == {"screen", "confirm"}
    assert all(2 < score < 5 for score in result.scores.values())
    assert result.probe is not None and result.probe > result.scores["screen"]
    assert result.steps_done == 120 and result.loss_curve[-1][0] == 120
    assert len(result.first_losses) == 10 and result.loss_curve[-1][1] < result.first_losses[0]
    assert 0 < result.cpu_s < result.wall_s and result.eval_cpu_s > 0
    assert 100 << 20 < result.peak_rss < 1 << 30
    assert len(bytes.fromhex(result.logits_digest)) == 32


def test_a_program_need_not_tell_its_losses(run: Run, tiny: str) -> None:
    """Then there are none to compare, and none that is no number."""
    quiet = run(tiny.replace("ctx.step(model, loss)", "ctx.step(model)"), steps=20)
    assert quiet.status == "ok" and quiet.first_losses == () and len(quiet.scores) == 1
    many = "[ctx._report(float(loss)) for _ in range(9)]; ctx.step(model, loss)"
    chatty = run(tiny.replace("ctx.step(model, loss)", many))
    assert len(chatty.first_losses) <= 10


def take(turn: Turn) -> None:
    """Wait for a core, as another node's worker does."""
    while not turn.take():
        time.sleep(POLL_S)


def test_same_seed_same_bits_on_either_core(executor: Executor, run: Run, tiny: str, locks: Path) -> None:
    """Seed, source and steps decide every loss, score and logit; the core that does the work does not."""
    where = "import os\nprint(sorted(os.sched_getaffinity(0)))\n"
    results = [run(where + tiny, seed=7, probe=True), run(where + tiny, seed=7, probe=True)]
    other = Turn(CORES[:1], locks)
    take(other)
    if len(CORES) > 1:
        results.append(run(where + tiny, seed=7, probe=True))
    other.leave()
    assert [result.log_tail for result in results] == [f"[{CORES[0]}]"] * 2 + [f"[{core}]" for core in CORES[1:]]
    assert len({(r.loss_curve, r.logits_digest, r.probe, r.scores["screen"]) for r in results}) == 1
    assert run(tiny, seed=8).logits_digest != results[0].logits_digest


@pytest.mark.long
def test_the_users_kernels_reach_the_run(small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATEN_CPU_CAPABILITY picks the kernels of a candidate, and the machine is reported as having these."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    source = "import torch\ndef train(ctx): print(torch.backends.cpu.get_cpu_capability())\n"
    with Executor(small_corpus, tmp_path, 1 << 30, CORES) as executor:
        result = executor.run(RunSpec(source, 1, 1, (), 60.0, probe=False), lambda _: None)
    assert result.log_tail.splitlines()[0] == "DEFAULT"
    assert hardware.detect().instruction_set.startswith("DEFAULT on ")


def test_the_half_time_probe_leaves_training_untouched(run: Run, tiny: str) -> None:
    """Dropout draws, train mode and losses continue as if nobody had asked."""
    assert run(tiny, probe=True).loss_curve == run(tiny, probe=False).loss_curve


NUMPY = """
import numpy as np
print(np.random.rand())
def noisy(model):
    def forward(x):
        return model(x) + float(np.random.rand())
    return forward
"""


def test_numpys_random_numbers_follow_the_seed(run: Run, tiny: str) -> None:
    """A candidate that draws from numpy's global generator is repeatable, and the half-time probe takes no draw."""
    source = NUMPY + tiny.replace("ctx.step(model, loss)", "ctx.step(noisy(model), loss + float(np.random.rand()))")
    plain, probed = run(source, seed=2**32 + 7), run(source, seed=2**32 + 7, probe=True)
    assert plain.status == probed.status == "ok"
    assert float(plain.log_tail) == np.random.RandomState(7).rand()
    assert plain.loss_curve == probed.loss_curve


CRASHES = {
    "syntax error": ("def train(ctx:\n", r"SyntaxError: .*\(train.py, line 1\)"),
    "deep chain": ("x = " + "not \\\n" * 9000 + "1\n", r"RecursionError|MemoryError|SIGSEGV|TypeError"),
    "deep blocks": ("if 0: pass\n" + "elif 0: pass\n" * 9000, r"RecursionError|MemoryError|SIGSEGV|too many"),
    "exception": (
        "def train(ctx):\n    x = 1\n    raise ValueError('boom')\n",
        r"ValueError: boom \(train.py, line 3\)",
    ),
    "no train function": ("x = 1\n", r"TypeError: train.py defines no function"),
    "exit": ("import os\ndef train(ctx): os._exit(3)\n", r"exited with status 3"),
    "sys.exit": ("import sys\ndef train(ctx): sys.exit()\n", r"SystemExit"),
    "segfault": ("import ctypes\ndef train(ctx): ctypes.string_at(0)\n", r"SIGSEGV"),
    "returns nothing": ("TINY|    return model|    return None", r"returned NoneType"),
    "returns early": ("TINY|range(ctx.steps)|range(7)", r"returned after 7 of 40 steps"),
    "extra tick": ("TINY|range(ctx.steps)|range(ctx.steps + 1)", r"more than 40 times"),
    "NaN loss": ("TINY|ctx.step(model, loss)|ctx.step(model, loss * float('nan'))", r"the loss is nan at step 1"),
    "NaN logits": ("TINY|    return model|    return lambda x: model(x) * float('nan')", r"logits are not finite"),
    "wrong shape": ("TINY|    return model|    return lambda x: model(x)[:, :-1]", r"returned \(4, 31, 256\) where"),
    "wrong type": ("TINY|    return model|    return lambda x: [1]", r"returned list where"),
    "fails late": (
        "TINY|    return model|    calls = iter(range(2))\n    return lambda x: (next(calls), model(x))[1]",
        r"StopIteration \(train.py, line \d+\)",
    ),
    "absurd context": ("TINY|    return model|    ctx.eval_context = 5000", r"eval_context is 5000"),
    "memory hog": (
        "import torch\ndef train(ctx):\n    kept = [torch.ones(1 << 24) for _ in range(100)]\n",
        r"memory|allocate",
    ),
    "disk hog": (
        "def train(ctx):\n    for i in range(99999):\n        open(str(i), 'wb').write(bytes(1 << 24))\n",
        r"wrote \d+ MiB to disk",
    ),
    "fork": ("import os\ndef train(ctx): os.fork()\n", r"PermissionError"),
    "a program": ("import subprocess\ndef train(ctx): subprocess.run(['true'])\n", r"PermissionError"),
    "held-out text": ("def train(ctx): open(HELD).read()\n", r"PermissionError|FileNotFoundError"),
    "a forged answer": (
        "import os, struct\ndef train(ctx):\n    os.write(5, struct.pack('<BI', 6, 1 << 30))\n",
        r"malformed message",
    ),
    "closed pipes": (
        "import os\ndef train(ctx):\n    os.closerange(0, 99)\n    while True: pass\n",
        r"closed its pipes",
    ),
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_failing_candidate_is_a_result(name: str, run: Run, tiny: str, small_corpus: Corpus, scratch: Path) -> None:
    """Whatever a candidate does wrong comes back as a crash with a reason, leaves nothing, and has no score."""
    source, reason = CRASHES[name]
    if source.startswith("TINY|"):
        _, old, new = source.split("|")
        assert old in tiny
        source = tiny.replace(old, new)
    result = run(source.replace("HELD", repr(str(small_corpus.held["screen"]))))
    assert result.status == "crashed"
    assert re.search(reason, result.reason), result
    assert result.scores == {} and result.logits_digest == ""
    assert [path.name for path in scratch.iterdir()] == ["worker.log"]


ENDLESS = "def train(ctx):\n    ctx.batch(2, 16)\n    while True: pass\n"


def test_the_wall_cap_ends_a_run(run: Run) -> None:
    """An endless loop is a timeout, soon after its cap."""
    result = run(ENDLESS, wall_s=0.6)
    assert result.status == "timeout" and 0.6 <= result.wall_s < 3


def test_cancel_ends_a_run(executor: Executor, run: Run) -> None:
    """Another thread's cancel kills the run in progress, and nothing after it."""
    result = run(ENDLESS, on_progress=lambda _: executor.cancel())
    assert (result.status, result.reason) == ("killed", "cancelled")
    executor.cancel()
    assert run("x = 1\n").status == "crashed"


@pytest.mark.long
def test_a_cancel_while_the_worker_starts_is_not_lost(small_corpus: Corpus, tmp_path: Path) -> None:
    """A call that still waits for its worker ends as cancelled, and the worker lives on for the next one."""
    executor = Executor(small_corpus, tmp_path, 1 << 30, CORES)
    spec = RunSpec(ENDLESS, 1, 40, (), wall_s=5.0)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(executor.run, spec, lambda _: None)
        while executor._worker is None:
            time.sleep(0.01)
        time.sleep(0.2)  # the worker takes seconds to start
        executor.cancel()
        result = call.result(120)
    worker = worker_of(executor)
    assert (result.status, result.reason) == ("killed", "cancelled")
    assert executor.run(spec, lambda _: executor.cancel()).reason == "cancelled" and worker.is_running()
    executor.close()
    assert (tmp_path / "worker.log").read_text() == ""


def test_a_cancel_just_before_the_request_is_not_lost(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a call's beginning and its request there is no moment at which a cancel names an earlier call."""
    ensure = executor._ensure

    def cancelled() -> SandboxReport:
        executor.cancel()
        return ensure()

    executor.start()
    monkeypatch.setattr(executor, "_ensure", cancelled)
    result = executor.run(RunSpec(ENDLESS, 1, 40, (), wall_s=5.0), lambda _: None)
    assert (result.status, result.reason) == ("killed", "cancelled")


def test_a_losing_run_is_killed_at_half_time(run: Run, tiny: str) -> None:
    """A probe above the bar stops training at half of the steps; one below it does not."""
    result = run(tiny, probe=True, kill_above=2.0)
    assert result.status == "killed" and result.steps_done == 20 and result.scores == {}
    assert result.reason.startswith("killed at half time: ")
    assert result.probe is not None and f"{result.probe:.4f} bits per byte, above" in result.reason
    assert run(tiny, probe=True, kill_above=8.5).status == "ok"


def test_output_is_kept_bounded_and_clean(run: Run) -> None:
    """A flood never blocks the run; the last 50 lines stay, without escapes, and the traceback shows the source."""
    flood = "import sys\ndef train(ctx):\n    for i in range(100_000): print('line', i, '\\x1b[31m\\x07\\u202e')\n"
    result = run(flood + "    raise KeyError('end')  # here\n")
    lines = result.log_tail.split("\n")
    assert result.status == "crashed" and len(lines) == 50 and "raise KeyError('end')  # here" in result.log_tail
    assert "line 99999 [31m" in lines and "\x1b" not in result.log_tail and "harness" not in result.log_tail
    assert len(run("def train(ctx): print('x' * 10_000_000)\n").log_tail) <= 64 << 10


def test_progress_arrives_twice_a_second(run: Run, tiny: str) -> None:
    """A slow step is not silence, and every stage shows."""
    seen: list[tuple[float, Progress]] = []
    slow = tiny.replace(
        "        ctx.step(model", "        if step == 5: import time; time.sleep(1.5)\n        ctx.step(model"
    )
    run(slow, on_progress=lambda progress: seen.append((time.monotonic(), progress)))
    times = [moment for moment, _ in seen]
    assert len(seen) >= 3 and max(b - a for a, b in pairwise(times)) < 0.9
    trained = [progress for _, progress in seen if progress.stage == "train"]
    assert trained[-1].step >= 5 and trained[-1].steps == 40 and trained[-1].loss is not None


def test_nodes_of_one_machine_take_turns(run: Run, tiny: str, locks: Path) -> None:
    """While every core is taken the run waits and says so; it starts when one is free."""
    others = [Turn([core], locks) for core in CORES]
    for turn in others:
        take(turn)
    waited: list[str] = []

    def on_progress(progress: Progress) -> None:
        waited.append(progress.stage)
        for turn in others:
            turn.leave()

    assert run(tiny, on_progress=on_progress).status == "ok"
    assert waited[0] == "wait"


def test_cost_is_cpu_time_not_wall_time(executor: Executor, tiny: str) -> None:
    """Much more work costs much more, by the same factor when other processes leave us a quarter of the core."""
    heavy = tiny.replace("loss.backward()", "loss.backward()\n        for _ in range(60): model(x)")
    calm = executor.cost_ratio(tiny, heavy, 40, lambda _: None)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        for hog in hogs:
            os.sched_setaffinity(hog.pid, {CORES[0]})
        busy = executor.cost_ratio(tiny, heavy, 40, lambda _: None)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert isinstance(calm, CostRatio) and isinstance(busy, CostRatio)
    assert calm.ratio > 2 and busy.ratio == pytest.approx(calm.ratio, rel=0.4)
    assert busy.base_s_per_step < 2.5 * calm.base_s_per_step  # 4 times the wall time; cold caches cost some CPU time
    assert calm.rel_err < 0.1 and 0 < calm.seconds < 4


def test_cost_of_a_crashing_candidate_is_its_result(executor: Executor, tiny: str) -> None:
    """The one that fails is named, be it the candidate or its parent."""
    broken = "def train(ctx): raise ValueError('boom')\n"
    for parent, candidate, start in ((tiny, broken, "ValueError"), (broken, tiny, "the parent: ValueError")):
        result = executor.cost_ratio(parent, candidate, 40, lambda _: None)
        assert isinstance(result, RunResult) and result.status == "crashed" and result.reason.startswith(start)


def worker_of(executor: Executor) -> psutil.Process:
    """The executor's own worker: other tests may have left children of this process to the reaper."""
    assert executor._worker is not None
    return psutil.Process(executor._worker.pid)


@pytest.mark.long
def test_a_dead_worker_is_replaced_by_an_equal_one(executor: Executor, run: Run, tiny: str, scratch: Path) -> None:
    """Killing the worker fails the current call only, leaves no process, and the next one gives the same bits."""
    before = run(tiny)
    processes: list[psutil.Process] = []

    def kill(_: Progress) -> None:
        worker = worker_of(executor)
        processes[:] = [worker, *worker.children(recursive=True)]
        worker.kill()

    with pytest.raises(WorkerDied):
        run(ENDLESS, on_progress=kill)
    assert len(processes) in (3, 4) and psutil.wait_procs(processes, timeout=10)[1] == []
    assert run(tiny).logits_digest == before.logits_digest


@pytest.mark.long
def test_a_dead_fork_server_is_replaced(executor: Executor, run: Run, tiny: str) -> None:
    """The warm process may die at any time: the next run starts another one, which gives the same bits."""
    before = run(tiny)
    server = worker_of(executor).children()[0]
    ended = os.pidfd_open(server.pid)
    server.kill()
    assert select.select([ended], [], [], 10)[0]
    os.close(ended)
    assert run(tiny).logits_digest == before.logits_digest


@pytest.mark.long
def test_progress_that_raises_ends_the_run(executor: Executor, run: Run, tiny: str) -> None:
    """An error in the caller's own callback, Ctrl-C included, never leaves a run behind."""

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    run(tiny)
    worker = worker_of(executor)
    with pytest.raises(KeyboardInterrupt):
        run(ENDLESS, on_progress=interrupt)
    assert not worker.is_running()
    assert run(tiny).status == "ok"


def test_no_room_for_a_run_is_the_machines_fault(run: Run, tiny: str, scratch: Path) -> None:
    """A scratch directory that cannot be made is an error with a reason, not a crashed candidate."""
    parked = scratch.rename(scratch.with_name("parked"))
    try:
        with pytest.raises(DiskFull, match="no room for a run"):
            run(tiny)
    finally:
        parked.rename(scratch)
    assert run(tiny).status == "ok"


@pytest.mark.long
@pytest.mark.long
def test_a_deep_tree_of_an_earlier_version_is_removed_at_start(small_corpus: Corpus, tmp_path: Path) -> None:
    """What a run left behind when it could still make directories does not keep a worker from starting."""
    home, old = os.getcwd(), tmp_path / "run-old"
    old.mkdir()
    os.chdir(old)
    for _ in range(2000):  # rmtree recurses at most about 1000 deep, and a path of these is longer than PATH_MAX
        os.mkdir("nested")
        os.chdir("nested")
    os.chdir(home)
    (tmp_path / "run-closed" / "inner").mkdir(parents=True)
    (tmp_path / "run-closed" / "inner").chmod(0o300)
    try:
        with Executor(small_corpus, tmp_path, 1 << 30, CORES):
            assert [path.name for path in tmp_path.iterdir()] == ["worker.log"]
    finally:
        subprocess.run(["rm", "-rf", old], check=True)  # pytest could not


def test_a_run_needs_more_room_than_it_may_fill() -> None:
    """A run that passes the check for free space does not fill the disk within its limit."""
    assert Limits(rss=0).disk < runchild.MIN_FREE


FAIL_CLOSED = """
import os, pickle, sys
from dataclasses import replace
from pathlib import Path
from swarm_node.trainer.runchild import RunChild
from swarm_node.trainer.sandbox.policy import fork_server_policy
from swarm_node.trainer.supervisor import Supervisor
from swarm_node.trainer.types import SandboxUnavailable
corpus, scratch, source = pickle.load(sys.stdin.buffer)
supervisor = Supervisor(os.pipe()[0], sys.stdout.buffer)
supervisor.scratch_root = scratch
supervisor.warm(fork_server_policy(scratch, corpus.train, [], 1 << 30))
supervisor.until_warm()
supervisor.server.policy = replace(supervisor.server.policy, force_abi=0)  # as on a kernel without Landlock
child = RunChild(supervisor, None, 1 << 30, 10)
try:
    child.start(source, 1, 40, corpus.train, probe=False)
except SandboxUnavailable as error:
    print(error.what, "|", error.why)
child.end()
supervisor.close()
"""


def test_a_run_that_cannot_be_confined_does_not_run(small_corpus: Corpus, tmp_path: Path) -> None:
    """When a layer fails in the forked child, the candidate is never read."""
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    job = pickle.dumps((small_corpus, tmp_path, source))
    done = subprocess.run([sys.executable, "-c", FAIL_CLOSED], input=job, capture_output=True, check=True, timeout=60)
    assert b"a layer of the sandbox could not be applied | " in done.stdout and b"Landlock" in done.stdout
    assert list(tmp_path.iterdir()) == []


STALLS = """
import os, pickle, select, sys
from swarm_node.trainer import supervisor as module
from swarm_node.trainer.runchild import RunChild, Stop
from swarm_node.trainer.sandbox.policy import fork_server_policy
corpus, scratch, sources, core = pickle.load(sys.stdin.buffer)
module.STALL_RATIO, module.STALL_S = 1.0, 1.0
supervisor = module.Supervisor(os.pipe()[0], sys.stdout.buffer)
supervisor.scratch_root = scratch
supervisor.warm(fork_server_policy(scratch, corpus.train, [], 1 << 30))
supervisor.until_warm()
for source, *beside in sources:
    supervisor.limit(60.0)
    others = [RunChild(supervisor, core, 1 << 30, 60) for _ in beside]
    for other, its in zip(others, beside):
        other.start(its, 1, 40, corpus.train, probe=False)
    supervisor.children.clear()  # what else this machine does
    supervisor.limit(4.0)
    child = RunChild(supervisor, core, 1 << 30, 60)
    try:
        child.start(source, 1, 40, corpus.train, probe=False)
        supervisor.wait(child.replies, select.POLLPRI)
    except Stop as stop:
        print(stop.status, "|", stop.reason, flush=True)
    supervisor.children.extend(others)
    for one in (child, *others):
        one.end()
supervisor.close()
"""


def test_a_run_that_sleeps_is_stopped_and_one_that_is_kept_from_working_is_not(
    small_corpus: Corpus, tmp_path: Path
) -> None:
    """It would hold a core up to its wall time, and cost none of the CPU time by which work is shared out."""
    sleeps = "import time\ndef train(ctx): time.sleep(3600)\n"
    job = pickle.dumps((small_corpus, tmp_path, [(sleeps,), (ENDLESS,), (ENDLESS, ENDLESS)], CORES[0]))
    done = subprocess.run([sys.executable, "-c", STALLS], input=job, capture_output=True, check=True, timeout=120)
    slept, *worked = done.stdout.decode().splitlines()
    assert re.fullmatch(r"crashed \| it does not work: of \d+ s it used 0\.\d s of CPU time", slept)
    assert worked == ["timeout | it was not finished within its wall time"] * 2


DAEMON = """
import pickle, sys
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import RunSpec
corpus, scratch, source = pickle.load(sys.stdin.buffer)
executor = Executor(corpus, scratch)
executor.start()
executor.run(RunSpec(source, 1, 40, (), 60.0), lambda progress: print(progress, flush=True))
"""


def test_a_killed_daemon_leaves_no_process(small_corpus: Corpus, tmp_path: Path) -> None:
    """kill -9 of the daemon in the middle of a run ends the worker, the fork server and the candidate."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert daemon.stdin and daemon.stdout
    with daemon.stdin, daemon.stdout:
        daemon.stdin.write(pickle.dumps((small_corpus, tmp_path, ENDLESS)))
        daemon.stdin.close()
        assert b"train" in daemon.stdout.readline()
        below = psutil.Process(daemon.pid).children(recursive=True)
        assert len(below) in (3, 4)  # with bubblewrap: worker, it, fork server, run child
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    assert psutil.wait_procs(below, timeout=10)[1] == []


def test_the_daemon_imports_neither_torch_nor_numpy() -> None:
    """Importing the executor and its types costs milliseconds, not seconds."""
    check = "import sys, swarm_node.trainer.executor; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
