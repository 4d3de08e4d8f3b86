"""Landlock: which files this process and its descendants may touch, enforced by the kernel without privileges.

Rulesets stack and intersect: a child can only narrow what it inherited. Rules name whole trees and cannot subtract.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from .kernel import syscall

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .policy import Policy

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_REG = 1 << 8
REFER, TRUNCATE, IOCTL_DEV, RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 15, 1 << 16
_ABI_1 = (1 << 13) - 1  # every file right that the first version knows
_FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX

LIST = READ_DIR
READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
DEVICE = READ_FILE | WRITE_FILE
# No REMOVE_*: a file that is unlinked but held open or mapped uses disk that no directory walk can see, so in a
# scratch directory files can be made and rewritten, never deleted or renamed; the worker removes the whole directory.
# No MAKE_DIR: what lies too deep, or in a directory that its maker may not list, cannot be counted or removed.
SCRATCH = READ | WRITE_FILE | TRUNCATE | MAKE_REG


def abi() -> int:
    """The Landlock version of the running kernel, 0 where there is none."""
    try:
        return syscall(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def apply_landlock(policy: Policy) -> int:
    """Confine the calling thread to the policy's paths and return the ABI used; raises OSError when that fails."""
    version = abi() if policy.force_abi is None else min(abi(), policy.force_abi)
    if version < 1:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock (Linux 5.13 or newer, lsm=landlock)")
    rights, ruleset = _create_ruleset(version)
    try:
        device = DEVICE | IOCTL_DEV if policy.gpu else DEVICE
        for paths, access in ((policy.ro, READ), (policy.rx, RUN), (policy.ls, LIST), (policy.dev, device)):
            _allow(ruleset, paths, access & rights)
        if policy.gpu:  # the driver names its threads by /proc, or refuses to start
            own = "/proc" if policy.mode == "fork_server" else f"/proc/{os.getpid()}/task"  # its runs narrow it
            _allow(ruleset, [own], (READ | WRITE_FILE) & rights)
        _allow(ruleset, policy.rw, SCRATCH & rights, required=True)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _create_ruleset(version: int) -> tuple[int, int]:
    """Handle everything this version can: whatever is handled and not allowed is denied."""
    rights = _ABI_1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV), (9, RESOLVE_UNIX)):
        rights |= right if version >= since else 0
    tcp = 0b11 if version >= 4 else 0  # bind, connect
    scopes = 0b11 if version >= 6 else 0  # abstract unix sockets, signals
    attr = struct.pack("QQQ", rights, tcp, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    return rights, syscall(_CREATE_RULESET, ctypes.c_char_p(attr), len(attr), 0)


def _allow(ruleset: int, paths: Iterable[str], access: int, *, required: bool = False) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            if required:
                raise
            continue  # fewer rules mean less access
        try:
            is_dir = stat.S_ISDIR(os.fstat(fd).st_mode)
            rule = struct.pack("=Qi", access if is_dir else access & _FILE_ONLY, fd)
            syscall(_ADD_RULE, ruleset, 1, ctypes.c_char_p(rule), 0)
        finally:
            os.close(fd)
