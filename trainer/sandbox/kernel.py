"""Raw system calls through libc, for what the standard library does not wrap. Linux only; stdlib only."""

from __future__ import annotations

import ctypes
import json
import os
import platform
from pathlib import Path
from typing import Any

MACHINE = platform.machine()
# Generated from the kernel's own tables; "_max" is the highest number known when it was made.
NR: dict[str, int] = json.loads((Path(__file__).parent / "nr.json").read_text()).get(MACHINE, {})

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def syscall(number: int, *args: Any) -> int:
    """Make one system call; ints are passed as longs, ctypes objects as they are. Raises OSError."""
    passed = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed))


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """Call prctl(2) with unused arguments zero. Raises OSError."""
    longs = [ctypes.c_ulong(value) for value in (arg2, arg3, 0, 0)]
    return _checked(_libc.prctl(ctypes.c_int(option), *longs))


def system_tasks() -> int:
    """The number of tasks (threads) on the whole machine now: an upper bound of one user's, without reading /proc."""
    info = ctypes.create_string_buffer(256)
    _checked(_libc.sysinfo(info))
    return ctypes.c_ushort.from_buffer(info, 10 * ctypes.sizeof(ctypes.c_long)).value  # struct sysinfo.procs
