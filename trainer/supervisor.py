"""Every wait of the worker, and the end of every process below it.

While the worker waits for anything it also hears the daemon, drains logs, watches memory, threads, disk and wall
time, and reports progress. Whatever has to end a run is raised from the wait: Stop for a run, DaemonGone for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from . import frames
from .forkclient import ForkServer
from .runchild import RunChild, Stop
from .sandbox.policy import Policy
from .types import CANCELLED, Progress, SandboxUnavailable, Stage

WATCH_S = 0.1
PROGRESS_S = 0.4  # the promise is half a second
IDLE_S = 1.0  # between requests of a busy daemon pass milliseconds
STALL_RATIO, STALL_S = 4.0, 30.0  # of its CPU time, and more: a run that takes longer sleeps, and holds a core for it
WARM_S = 120.0  # importing torch takes 2 s, a minute on a cold and busy disk
PR_SET_CHILD_SUBREAPER = 36


class DaemonGone(Exception):
    """The daemon closed the pipe or died: everything below it has to go."""


class Supervisor:
    """Waits on behalf of whatever the worker is doing."""

    server: ForkServer
    scratch_root: Path

    def __init__(self, requests: int, answers: IO[bytes]) -> None:
        """`requests` is the descriptor that the daemon writes to, `answers` what it reads from."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot become a subreaper")
        os.set_blocking(requests, False)
        self.children: list[RunChild] = []
        self._requests, self._answers = requests, answers
        self._inbox = bytearray()
        self._queue: list[dict[str, Any]] = []
        self._job = self._cancelled = 0
        self._deadline = math.inf
        self._began = self._began_cpu = 0.0  # of the limit
        self._watched = self._told = 0.0
        self.enter("wait", 0)

    # ---- the daemon -----------------------------------------------------------------------------------------------

    def next_request(self, on_idle: Callable[[], None]) -> dict[str, Any]:
        """The daemon's next request, however long it takes; `on_idle` is called for every second of it."""
        self._job, self._deadline = 0, math.inf
        while not self._queue:
            if select.select([self._requests], [], [], IDLE_S)[0]:
                self._hear()
            else:
                on_idle()
        request = self._queue.pop(0)
        self._job = request["job"]
        return request

    def answer(self, body: dict[str, Any]) -> None:
        """Send one message to the daemon."""
        try:
            frames.write(self._answers, body)
        except BrokenPipeError:
            raise DaemonGone from None

    def _hear(self) -> None:
        """Take in what the daemon has sent; a cancellation of the current job takes effect at once."""
        try:
            data = os.read(self._requests, 1 << 20)
        except BlockingIOError:
            return
        if not data:
            raise DaemonGone
        self._inbox += data
        while len(self._inbox) >= 4 and len(self._inbox) >= 4 + int.from_bytes(self._inbox[:4], "big"):
            size = 4 + int.from_bytes(self._inbox[:4], "big")
            request = frames.read(io.BytesIO(self._inbox[:size]))
            del self._inbox[:size]
            if request and request["op"] == "cancel":
                self._cancelled = request["job"]
            elif request:
                self._queue.append(request)

    # ---- waiting --------------------------------------------------------------------------------------------------

    def enter(self, stage: Stage, steps: int, step: int = 0) -> None:
        """Progress is now about this stage, which has come to `step` already."""
        self._stage: Stage = stage
        self._first = self._step = step
        self._steps, self._loss = steps, math.nan
        self._stage_started = time.monotonic()

    def at(self, step: int, loss: float = math.nan) -> None:
        """Progress within the stage."""
        self._step, self._loss = step, loss

    def limit(self, seconds: float) -> None:
        """From now on, waiting longer than this stops the run; so does a run that hardly works."""
        self._began, self._began_cpu = time.monotonic(), time.process_time()
        self._deadline = self._began + seconds

    def wait(self, fd: int, event: int) -> None:
        """Return when `fd` is ready for the poll event (or broken)."""
        while not self._service(fd, event, WATCH_S):
            pass

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._service(-1, 0, seconds)

    def _service(self, fd: int, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        for child in self.children:
            if child.log_open:
                poll.register(child.log, select.POLLIN)
        if fd >= 0:
            poll.register(fd, event)
        ready = {number for number, _ in poll.poll(seconds * 1000)}
        if self._requests in ready:
            self._hear()
        if self._job and self._cancelled == self._job:
            raise Stop(*CANCELLED)
        for child in self.children:
            if child.log in ready:
                child.drain()
        now = time.monotonic()
        if now - self._watched >= WATCH_S:
            self._watched = now
            self._watch(now)
        if now - self._told >= PROGRESS_S:
            self._told = now
            self._tell(now)
        return fd in ready

    def _watch(self, now: float) -> None:
        for child in self.children:
            if child.pid and (why := child.over_limits()):
                raise Stop("crashed", f"it {why}", child)
        if now > self._deadline:
            raise Stop("timeout", "it was not finished within its wall time")
        if self.children:
            self._watch_for_stalls(now)

    def _watch_for_stalls(self, now: float) -> None:
        """Time in which others had the core, or this process worked on an answer, is no stall."""
        used = sum(child.cpu() for child in self.children)
        taken = now - self._began - sum(child.waited() for child in self.children)
        if taken > STALL_RATIO * (used + time.process_time() - self._began_cpu) + STALL_S:
            raise Stop("crashed", f"it does not work: of {now - self._began:.0f} s it used {used:.1f} s of CPU time")

    def _tell(self, now: float) -> None:
        # A stopped daemon (Ctrl-Z) reads nothing: waiting until it does would keep the core from everybody else.
        if not self._job or not select.select([], [self._answers], [], 0)[1]:
            return
        step, steps = self._step, self._steps
        taken = step - self._first
        left = (now - self._stage_started) * (steps - step) / taken if taken else None
        loss = self._loss if math.isfinite(self._loss) else None
        self.answer({"progress": asdict(Progress(self._stage, step, steps, loss, left))})

    # ---- processes ------------------------------------------------------------------------------------------------

    def warm(self, policy: Policy) -> None:
        """Start a fork server unless there is one; `until_warm` waits for it."""
        if hasattr(self, "server"):
            if not self.server.has_ended():
                return
            self.server.close()
        self.server = ForkServer(policy)

    def until_warm(self) -> None:
        """Wait until the fork server can fork."""
        if self.server.is_warm:
            return
        self.limit(WARM_S)
        try:
            self.wait(self.server.control.fileno(), select.POLLIN)
        except Stop as stop:
            if stop.status != "timeout":
                raise
            raise SandboxUnavailable("the training sandbox does not start", why=f"not warm in {WARM_S:.0f} s") from None
        self.server.read_ready()
        self._deadline = math.inf

    def reap(self, child: RunChild) -> None:
        """Kill a run child and take the kernel's accounting of it, and end every process that has no business here."""
        keep = {other.pid for other in self.children if other is not child} | {self.server.pid}
        for pid in _children() - keep:
            try:
                os.kill(pid, signal.SIGKILL)
                _, status, usage = os.wait4(pid, 0)
            except (ChildProcessError, ProcessLookupError):
                continue
            if pid == child.pid or not child.pid:
                cpu_s = usage.ru_utime + usage.ru_stime
                child.reaped(os.waitstatus_to_exitcode(status), cpu_s, usage.ru_maxrss << 10)

    def cool(self) -> None:
        """End the fork server and whatever it leaves behind; `warm` starts another one."""
        if hasattr(self, "server"):
            self.server.close()
        for pid in _children():  # what was inside bubblewrap
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def close(self) -> None:
        """End everything below this process."""
        for child in list(self.children):
            child.end()
        self.cool()


def _children() -> set[int]:
    """Every child of this process, also those that the kernel gave it because their parents ended."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set(map(int, (task / "children").read_text().split()))
    return found
