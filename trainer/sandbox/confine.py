"""The layers, in the order that works: each function confines the calling process for good, or raises OSError.

Used by the launcher before execve and by a run child after fork; stdlib only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Collection
from typing import NoReturn

from .kernel import NR, prctl, syscall, system_tasks
from .landlock import apply_landlock
from .policy import Policy
from .seccomp import Mode, apply_seccomp

FAILED = 126  # exit status: a layer could not be applied, nothing was run

_PDEATHSIG, _CAPBSET_READ, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 1, 23, 24, 38, 47
_CLEAR_ALL = 4
_CAPABILITY_V3 = 0x20080522


def confine(policy: Policy, mode: Mode) -> int:
    """Apply rlimits, no_new_privs, Landlock and seccomp, in this order; return the Landlock ABI."""
    apply_rlimits(policy)
    prctl(_NO_NEW_PRIVS, 1)
    abi = apply_landlock(policy)
    apply_seccomp(mode, gpu=policy.gpu)
    return abi


def fail_closed(error: BaseException) -> NoReturn:
    """End this process without running anything more."""
    os.write(2, f"sandbox: cannot confine: {type(error).__name__}: {error}\n".encode(errors="replace"))
    os._exit(FAILED)


def set_parent_death(expected_ppid: int) -> None:
    """Ask to be killed with the parent; raises ProcessLookupError when that parent is already gone.

    The signal follows the thread that started this process, so that thread must live as long as its parent does.
    """
    prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected_ppid:
        raise ProcessLookupError(f"parent {expected_ppid} is gone")


def close_fds(keep: Collection[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    low, last = 0, 0xFFFFFFFF
    for fd in sorted(set(keep)):
        if fd > low:
            syscall(NR["close_range"], low, fd - 1, 0)
        low = fd + 1
    syscall(NR["close_range"], low, last, 0)


def drop_capabilities() -> None:
    """Give up every capability, and for root the bounding set, or execve would give them all back to uid 0."""
    if 0 in (os.getuid(), os.geteuid()):
        for capability in range(64):
            try:
                held = prctl(_CAPBSET_READ, capability)
            except OSError:
                break  # past the last one that this kernel knows
            if held:
                prctl(_CAPBSET_DROP, capability)
    prctl(_CAP_AMBIENT, _CLEAR_ALL)
    header = struct.pack("Ii", _CAPABILITY_V3, 0)
    syscall(NR["capset"], ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))


def apply_rlimits(policy: Policy) -> None:
    """Set soft and hard limits alike, never above the hard limit that is already there."""
    for name, value in policy.rlimits.items():
        if name == "NPROC":
            value += system_tasks()  # counted per user, over all of the user's processes; the watchdog is exact
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
