"""Turns at the machine's cores, over all of its nodes: a lock file per core, with a line of those who wait for it.

Who has a core holds an flock on its file. Who waits for it holds a lock on one byte of the same file, at the time of
its arrival: so the kernel can tell whether anybody waits, and whether anybody has waited longer, by a question
(F_OFD_GETLK) that takes no lock and keeps nobody out. It drops both locks when a process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

POLL_S = 0.2
LEASE_S = 40.0  # a turn begins with a cold start, 3 to 5 s of CPU time; twice as long would double everybody's wait
OVERTAKE_S = 1.0  # five polls: whoever is first and leaves a core free for so long is stopped, and must stop no other


class Turn:
    """One worker's turn at a core, from its place in the line to the end of its lease.

    Not fair to a process that was stopped in the line, nor between users: each has lock files of their own.
    """

    def __init__(self, cores: Sequence[int] | None, lock_dir: Path | None, lease_s: float = LEASE_S) -> None:
        """`cores` are those that will do, all when None. Without `lock_dir` nothing is locked: the first, at once."""
        self._cores = sorted(cores if cores is not None else os.sched_getaffinity(0))
        self._unlocked = self._cores[0] if cores is not None else None
        self._lock_dir = lock_dir
        self._lease_s = lease_s
        self._files: dict[int, int] = {}  # core: descriptor; while waiting all that will do, then the one that it has
        self._free_since: dict[int, float] = {}  # cores that others, who have waited longer, did not take yet
        self._arrived = 0
        self._began = 0.0
        self.core: int | None = None
        self.held = False

    def take(self) -> bool:
        """Try once to get a core; the first try puts it in the line, where `leave` ends the wait."""
        if self.held:
            for file in self._files.values():
                os.utime(file)  # a lease may last for weeks, and what is old in /tmp is removed
            return True
        if self._lock_dir is None:
            self.core, self.held = self._unlocked, True
            return True
        if not self._files:
            self._stand_in_line(self._lock_dir)
        now = time.monotonic()
        for core, file in self._files.items():
            is_first = not _is_locked(file, self._arrived)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._free_since.pop(core, None)
                continue
            if is_first or now - self._free_since.setdefault(core, now) >= OVERTAKE_S:
                self._begin(core)
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
        return False

    def is_wanted(self) -> bool:
        """Whether anybody waits for the core that it has."""
        return any(_is_locked(file) for file in self._files.values())

    def is_over(self) -> bool:
        """Whether the lease has run out: it never does while nobody waits."""
        return time.monotonic() - self._began >= self._lease_s and self.is_wanted()

    def leave(self) -> None:
        """Free the core, or the place in the line."""
        for file in self._files.values():
            os.close(file)
        self._files, self._free_since, self.held = {}, {}, False

    def _stand_in_line(self, lock_dir: Path) -> None:
        lock_dir.mkdir(parents=True, exist_ok=True)
        self._arrived = time.monotonic_ns()  # one clock for every process of the machine
        for core in self._cores:
            self._files[core] = os.open(lock_dir / f"core-{core}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _byte_lock(self._files[core], fcntl.F_OFD_SETLK, fcntl.F_RDLCK, self._arrived, 1)

    def _begin(self, core: int) -> None:
        file = self._files.pop(core)
        self.leave()
        _byte_lock(file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, self._arrived, 1)
        self._files, self._began = {core: file}, time.monotonic()
        self.core, self.held = core, True


def _is_locked(file: int, before: int = 0) -> bool:
    """Whether another process has a place in the line of this file, `before` that time if given."""
    return _byte_lock(file, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, 0, before) != fcntl.F_UNLCK


def _byte_lock(file: int, command: int, kind: int, start: int, length: int) -> int:
    """Ask for a lock of some bytes (of all from `start` on when `length` is 0); the kind of lock that is there."""
    flock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)  # Linux, 64 bits
    return struct.unpack_from("h", fcntl.fcntl(file, command, flock))[0]
