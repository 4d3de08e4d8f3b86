"""seccomp: which system calls this process may make. Default deny, hand-assembled classic BPF, no library.

Filters stack and the strictest answer wins, so a run child loads "run" on top of its fork server's laxer filter.
Argument rules exist where Landlock (or an old version of it) does not look; each says what it closes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Literal

from .kernel import MACHINE, NR, syscall

Mode = Literal["fork_server", "exec", "run"]  # "exec": as "run", for a program started by execve instead of fork

_RUN = """
read write readv writev pread64 pwrite64 close dup dup2 dup3 pipe pipe2 lseek poll ppoll select pselect6
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getdents getdents64
getcwd chdir umask fsync fdatasync ftruncate fallocate fadvise64 sendfile copy_file_range
mprotect munmap mremap madvise brk msync
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait sigaltstack restart_syscall pause
futex futex_wait futex_wake futex_requeue futex_waitv set_robust_list set_tid_address rseq membarrier sched_yield
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getitimer setitimer alarm
getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp uname sysinfo getrusage
getrlimit setrlimit getrandom arch_prctl sched_getaffinity sched_getparam sched_getscheduler
sched_get_priority_max sched_get_priority_min getcpu get_mempolicy exit exit_group
""".split()
_EXEC = ["execve"]
_FORK_SERVER = """
execve fork vfork wait4 waitid kill tgkill landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp
close_range sendmsg recvmsg sendto recvfrom getsockname getpeername getsockopt setsockopt shutdown
""".split()

_IOCTLS = (0x5451, 0x5450, 0x5421, 0x541B, 0x5401)  # FIO(N)CLEX, FIONBIO, FIONREAD, TCGETS; not FIOSETOWN: see fcntl

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_MAX_INSTRUCTIONS = 4096

Instruction = tuple[int, int, int, int]  # code, k, jump if true, jump if false


def _deny(code: int) -> Instruction:
    return (_RET, 0x00050000 | code, 0, 0)


_PASS: Instruction = (_RET, _ALLOW, 0, 0)
_EPERM, _ENOSYS, _ENOTTY = _deny(errno.EPERM), _deny(errno.ENOSYS), _deny(errno.ENOTTY)


def _arg(index: int) -> Instruction:
    """Load the low half of an argument (both machines are little endian; all arguments filtered here are 32 bit)."""
    return (_LOAD, 16 + 8 * index, 0, 0)


def _one_of(index: int, values: tuple[int, ...], otherwise: Instruction) -> list[Instruction]:
    """Allow only these values of one argument."""
    last = len(values) - 1
    jumps: list[Instruction] = [(_JEQ, v, last - i, 0 if i < last else 1) for i, v in enumerate(values)]
    return [_arg(index), *jumps, _PASS, otherwise]


def _none_of_bits(bits: int) -> list[Instruction]:
    """Deny when any of these bits is set in the accumulator."""
    return [(_JSET, bits, 0, 1), _EPERM]


def _masked(index: int, mask: int, value: int, when: Instruction) -> list[Instruction]:
    """Return `when` if (argument & mask) == value, else fall through."""
    return [_arg(index), (_AND, mask, 0, 0), (_JEQ, value, 0, 1), when]


def _open_flags(index: int) -> list[Instruction]:
    """Open files only in ways that Landlock judges.

    Kernels before 6.2 do not mediate truncation: O_RDONLY|O_TRUNC would empty any readable file, and access mode 3,
    neither reading nor writing for Landlock, any file at all. O_TMPFILE makes files that no directory walk finds.
    """
    o_trunc, o_tmpfile = 0o1000, 0o20000000
    return [
        *_masked(index, 0b11, 0b11, _EPERM),
        *_masked(index, o_trunc | 0b11, o_trunc, _EPERM),
        *_masked(index, o_tmpfile, o_tmpfile, _EPERM),
        _PASS,
    ]


def _gpu_ioctl() -> list[Instruction]:
    """All but the kernel's own families besides those few: the NVIDIA driver's numbers follow no scheme.

    By type: terminals and descriptors, sockets, file systems (three), raw disks, tun.
    """
    few: list[Instruction] = [i for value in _IOCTLS for i in (_arg(1), (_JEQ, value, 0, 1), _PASS)]
    families = (0x54, 0x89, 0x66, 0x58, 0x94, 0x12, 0x02)
    return [*few, *(i for family in families for i in _masked(1, 0xFF00, family << 8, _ENOTTY)), _PASS]


def _rules(mode: Mode, pid: int, gpu: bool) -> dict[str, list[Instruction]]:
    """System calls allowed for some arguments only."""
    namespaces = 0x7E020000
    thread = 0x00010F00  # VM | FS | FILES | SIGHAND | THREAD, as every C library does
    map_shared_anonymous, growsdown_or_huge = 0x21, 0x40100
    prctl_names = (15, 16, 0x53564D41)  # SET_NAME, GET_NAME, SET_VMA (glibc names its arenas)
    rules: dict[str, list[Instruction]] = {
        "clone3": [_ENOSYS],  # its flags are behind a pointer; glibc falls back to clone
        "openat2": [_ENOSYS],
        "openat": _open_flags(2),
        "open": _open_flags(1),
        # Memory that RLIMIT_DATA does not count: shared anonymous pages (MADV_DONTNEED even hides them from RSS),
        # stacks, huge pages.
        "mmap": [
            *_masked(3, map_shared_anonymous, map_shared_anonymous, _EPERM),
            _arg(3),
            *_none_of_bits(growsdown_or_huge),
            _PASS,
        ],
        "ioctl": _gpu_ioctl() if gpu else _one_of(1, _IOCTLS, _ENOTTY),
        # DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC. F_SETOWN would make the kernel send our signals to another
        # process; leases and locks stall the owner of a shared read-only file.
        "fcntl": _one_of(1, (0, 1, 2, 3, 4, 1030), _EPERM),
        "prlimit64": _one_of(0, (0,) if mode == "fork_server" else (0, pid), _EPERM),  # not another process's limits
    }
    if mode == "fork_server":
        # PDEATHSIG, NO_NEW_PRIVS: its children still have to set them. Their pids differ, so kill cannot be limited
        # here; nothing of a candidate runs under this filter alone.
        rules["prctl"] = _one_of(0, (*prctl_names, 1, 2, 38, 39), _EPERM)
        rules["clone"] = [_arg(0), *_none_of_bits(namespaces), _PASS]
        rules["sched_setaffinity"] = _one_of(0, (0,), _EPERM)
    else:
        rules["prctl"] = _one_of(0, prctl_names, _EPERM)
        rules["clone"] = [_arg(0), *_none_of_bits(namespaces), *_masked(0, thread, thread, _PASS), _EPERM]
        rules["kill"] = rules["tgkill"] = _one_of(0, (pid,), _EPERM)
    return rules


def assemble(mode: Mode, pid: int, *, gpu: bool = False) -> bytes:
    """The filter for one mode, to be loaded into the process `pid`; raises OSError on an unknown machine."""
    if MACHINE not in _AUDIT_ARCH or not NR:
        raise OSError(errno.ENOSYS, f"no system call table for {MACHINE}")
    kill: Instruction = (_RET, _KILL, 0, 0)
    program: list[Instruction] = [(_LOAD, 4, 0, 0), (_JEQ, _AUDIT_ARCH[MACHINE], 1, 0), kill, (_LOAD, 0, 0, 0)]
    if MACHINE == "x86_64":
        program += [(_JGE, 0x40000000, 0, 1), kill]  # the x32 numbers alias the same calls
    program += [(_JGE, NR["_max"] + 1, 0, 1), _ENOSYS]  # newer than this table
    rules = _rules(mode, pid, gpu)
    allowed = _RUN + {"fork_server": _FORK_SERVER, "exec": _EXEC, "run": []}[mode]
    for name in allowed:
        rules.setdefault(name, [_PASS])
    for name, body in rules.items():
        if name in NR:  # older calls do not exist on aarch64
            program += [(_JEQ, NR[name], 0, len(body)), *body]
    program.append(_EPERM)
    assert len(program) <= _MAX_INSTRUCTIONS
    return b"".join(struct.pack("HBBI", code, true, false, k) for code, k, true, false in program)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def apply_seccomp(mode: Mode, *, gpu: bool = False) -> None:
    """Load the filter into every thread of this process, for good; raises OSError when the kernel refuses."""
    code = assemble(mode, os.getpid(), gpu=gpu)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    set_mode_filter, tsync = 1, 1
    if syscall(NR["seccomp"], set_mode_filter, tsync, ctypes.byref(program)) != 0:
        raise OSError(errno.EBUSY, "a thread of this process could not take the seccomp filter")
