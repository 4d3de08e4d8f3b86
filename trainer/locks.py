"""One run per core at a time, over every node of the machine: a lock file per core."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.2


@contextmanager
def core(cores: Sequence[int] | None, lock_dir: Path | None, wait: Callable[[float], None]) -> Iterator[int | None]:
    """Hold one core's lock and give its number; `wait(seconds)` is called between tries while all are taken.

    Without `lock_dir` nothing is locked and the first named core is used. The kernel drops the lock when this
    process ends, however it ends.
    """
    candidates = sorted(cores if cores is not None else os.sched_getaffinity(0))
    if lock_dir is None:
        yield candidates[0] if cores is not None else None
        return
    lock_dir.mkdir(parents=True, exist_ok=True)
    while True:
        for number in candidates:
            fd = os.open(lock_dir / f"core-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            try:
                yield number
            finally:
                os.close(fd)
            return
        wait(POLL_S)
