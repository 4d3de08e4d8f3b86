"""One run child as the worker sees it: a process that is not trusted, at the other end of three pipes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import frames
from .sandbox.confine import FAILED
from .sandbox.policy import run_policy
from .sandbox.watchdog import Limits, exceeded, read_usage
from .types import DiskFull, SandboxUnavailable, Status

if TYPE_CHECKING:
    from .supervisor import Supervisor

LOG_BYTES, LOG_LINES = 64 << 10, 50
CURVE_POINTS = 500  # what we keep of what a child may claim
PIPE_BYTES = 1 << 20
CLOSING_S = 1.0  # between the end of a process's files and its own
MIN_FREE = 256 << 20  # bytes of disk: a run may write a quarter of it, and the ledger needs room too
HINTS = {
    "SIGSYS": ", for a forbidden system call,",
    "SIGKILL": ", perhaps by the kernel for lack of memory or too much CPU time,",
}


class Stop(Exception):
    """A run has to end: its status and the reason in one sentence."""

    def __init__(self, status: Status, reason: str, child: RunChild | None = None) -> None:
        """`child` is the one at fault when several run."""
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason
        self.child = child


class RunChild:
    """A forked, confined process that runs one candidate. Create it, `start` it, talk to it, and always `end` it."""

    def __init__(self, supervisor: Supervisor, core: int | None, memory: int, wall_s: float) -> None:
        self._supervisor = supervisor
        self.scratch = _make_scratch(supervisor.scratch_root)
        self.limits = Limits(rss=memory)
        self.pid = 0
        self.step = self.steps = self.answered = 0
        self.curve: list[tuple[int, float]] = []
        self.eval_s = self.eval_cpu_s = 0.0
        self.peak_rss = 0
        self.log_open = True
        self.started = self.ended = time.monotonic()
        self._log_bytes = bytearray()
        self._buffer = np.empty(0, np.float32)
        self._status: int | None = None
        self._total_cpu = 0.0
        theirs_in, self.requests = os.pipe2(os.O_CLOEXEC)
        self.replies, theirs_out = os.pipe2(os.O_CLOEXEC)
        self.log, theirs_log = os.pipe2(os.O_CLOEXEC)
        for fd in (self.requests, self.replies, self.log):
            os.set_blocking(fd, False)
        with contextlib.suppress(PermissionError):  # the user's share of pipe memory is used up: only slower
            fcntl.fcntl(self.replies, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        server = supervisor.server
        # CPU seconds above the wall time mean threads; the kernel then ends it even if this process sleeps.
        policy = run_policy(server.policy, self.scratch, math.ceil(wall_s) * 2 + 10)
        supervisor.children.append(self)
        try:
            server.submit(policy, core, (theirs_in, theirs_out, theirs_log))
        except SandboxUnavailable:
            self.end()
            raise
        finally:
            for fd in (theirs_in, theirs_out, theirs_log):
                os.close(fd)

    # ---- talking --------------------------------------------------------------------------------------------------

    def start(self, source: str, seed: int, steps: int, train: Path, *, probe: bool, gated: bool = False) -> None:
        """Wait until the child is confined, then give it the candidate."""
        self.steps = steps
        self.pid = frames.PID.unpack(self.expect(frames.HELLO))[0]
        job = {"source": source, "seed": seed, "steps": steps, "train": str(train), "probe": probe, "gated": gated}
        self.send(frames.START, json.dumps(job).encode())

    def send(self, kind: int, body: bytes) -> None:
        """Send one frame, waiting while the child is slow."""
        data = memoryview(frames.HEAD.pack(kind, len(body)) + body)
        while data:
            self._supervisor.wait(self.requests, select.POLLOUT)
            try:
                data = data[os.write(self.requests, data) :]
            except BlockingIOError:
                # A pipe is writable when a page is free, which may be less than what remains to be sent.
                continue
            except BrokenPipeError:
                self._hear_last_words()

    def expect(self, wanted: int) -> bytes:
        """The body of the next frame of this kind; losses are noted on the way. Stop when it failed, lied or ended."""
        while True:
            kind, size = self._head()
            if size != frames.SIZES.get(kind) or kind not in (wanted, frames.TICK, frames.BEAT):
                raise self._stop("it sent a malformed message")
            body = self._exactly(size)
            if kind == wanted:
                return body
            step, loss = frames.LOSS.unpack(body)
            self.step = min(step, self.steps)
            self._supervisor.at(self.step, loss)
            if kind == frames.TICK and len(self.curve) < CURVE_POINTS:
                self.curve.append((self.step, loss))

    def ask(self, tokens: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The logits [B, T, 256] for token ids [B, T], in memory that the next call overwrites."""
        rows, length = tokens.shape
        self.send(frames.BATCH, frames.SHAPE.pack(rows, length) + tokens.tobytes())
        count = rows * length * frames.VOCABULARY
        kind, size = self._head()
        if kind != frames.LOGITS or size != count * 4:
            raise self._stop(f"its answer has {size} bytes where {count * 4} were due")
        if len(self._buffer) < count:
            self._buffer = np.empty(count, np.float32)
        logits = self._buffer[:count]
        self._fill(logits.data.cast("B"))
        self.answered += rows * length
        self._supervisor.at(self.answered)
        return logits.reshape(rows, length, frames.VOCABULARY)

    def _hear_last_words(self) -> None:
        """Raise the reason that it gave before it hung up, behind whatever else it had sent."""
        while True:
            _, size = self._head()
            while size:
                size -= len(self._exactly(min(size, PIPE_BYTES)))

    def _head(self) -> tuple[int, int]:
        """Kind and size of the next frame; raises what a FAILED frame says."""
        kind, size = frames.HEAD.unpack(self._exactly(frames.HEAD.size))
        if kind == frames.FAILED and size <= frames.MAX_REASON:
            raise self._stop(" ".join(clean(self._exactly(size)).split()) or "it failed")
        return kind, size

    def _stop(self, reason: str) -> Stop:
        return Stop("crashed", reason, self)

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview) -> None:
        while view:
            self._supervisor.wait(self.replies, select.POLLIN)
            try:
                got = os.readv(self.replies, [view])
            except BlockingIOError:
                continue
            if not got:
                raise self._gone()
            view = view[got:]

    # ---- watching -------------------------------------------------------------------------------------------------

    def cpu(self) -> float:
        """CPU seconds of the child so far, all threads, from the kernel."""
        if not self.pid or self._status is not None:
            return self._total_cpu
        return time.clock_gettime((~self.pid << 3) | 2)  # CPUCLOCK_SCHED of another process, see clock_getcpuclockid(3)

    def waited(self) -> float:
        """Seconds that it was ready to run while others had the core; of its first thread, which is all that it needs.
        0 where the kernel does not count them."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    def over_limits(self) -> str:
        """Which limit it is over right now, in words; empty when none."""
        return exceeded(read_usage(self.pid, self.scratch, self.limits.inodes + 1), self.limits)

    def drain(self) -> bool:
        """Take some of what the candidate printed and keep the end of it; False when there is nothing now."""
        try:
            data = os.read(self.log, 1 << 16)
        except BlockingIOError:
            return False
        self._log_bytes += data
        del self._log_bytes[:-LOG_BYTES]
        self.log_open = bool(data)  # it may close its outputs; an ended stream would wake every wait
        return self.log_open

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count the time inside as evaluation."""
        wall, cpu = time.monotonic(), self.cpu()
        try:
            yield
        finally:
            self.eval_s += time.monotonic() - wall
            self.eval_cpu_s += self.cpu() - cpu

    # ---- ending ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Kill and reap it, take the rest of its log, remove its scratch directory. Safe to call twice."""
        self._supervisor.reap(self)
        if self in self._supervisor.children:
            self._supervisor.children.remove(self)
            self.ended = time.monotonic()
            while self.drain():
                pass
            for fd in (self.requests, self.replies, self.log):
                os.close(fd)
            remove_scratch(self.scratch)

    def reaped(self, status: int, cpu_s: float, peak_rss: int) -> None:
        """The kernel's last word: wait status, CPU seconds, most memory."""
        self._status, self._total_cpu, self.peak_rss = status, cpu_s, peak_rss

    def log_tail(self) -> str:
        """The last lines that the candidate printed, safe to show."""
        return "\n".join(clean(bytes(self._log_bytes)).rstrip().split("\n")[-LOG_LINES:])

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the whole process, evaluation excluded; final after `end`."""
        return max(0.0, self.cpu() - self.eval_cpu_s)

    def _gone(self) -> Exception:
        """The child's end of a pipe is closed: it ended by itself, or will have to."""
        patience = time.monotonic() + CLOSING_S
        while self.pid and not _is_over(self.pid):
            if time.monotonic() > patience:
                return self._stop(f"it closed its pipes at step {self.step}")
            self._supervisor.sleep(0.005)
        self._supervisor.reap(self)
        if not self.pid:
            return self._unconfined()
        status = self._status or 0
        if status >= 0:
            return self._stop(f"its process exited with status {status} at step {self.step}")
        name = signal.Signals(-status).name
        hint = HINTS.get(name, "")
        return self._stop(f"its process was ended by {name}{hint} at step {self.step}")

    def _unconfined(self) -> SandboxUnavailable:
        """The child ended before it said hello, so nothing of the candidate has run."""
        while self.drain():
            pass
        why = clean(bytes(self._log_bytes)).strip() or f"exit status {self._status}"
        what = "a layer of the sandbox could not be applied" if self._status == FAILED else "a run could not start"
        return SandboxUnavailable(what, why=why, fix="see worker.log in the scratch folder of the node's home")


def _is_over(pid: int) -> bool:
    """Whether a child has ended; it stays to be reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def clean(data: bytes) -> str:
    """Text from an untrusted process without control, format or unassigned characters; \\r becomes a line end."""
    text = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")


def remove_scratch(path: Path) -> None:
    """Remove a run's directory, as far as that is possible."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        # Earlier versions let a run make directories: nested too deep for rmtree, or closed even to their owner.
        for tool in (("chmod", "-R", "u+rwx"), ("rm", "-rf")):
            subprocess.run([*tool, "--", str(path)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _make_scratch(root: Path) -> Path:
    try:
        free = shutil.disk_usage(root).free
        if free < MIN_FREE:
            raise OSError(errno.ENOSPC, f"{free >> 20} MiB are free, a run needs {MIN_FREE >> 20}")
        return Path(tempfile.mkdtemp(prefix="run-", dir=root))
    except OSError as error:
        raise DiskFull(
            f"no room for a run in {root}", why=error.strerror or str(error), fix="free some space there"
        ) from error
