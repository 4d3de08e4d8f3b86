"""The filters, run by a small interpreter of classic BPF, so that both machines are covered on either."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox import kernel, seccomp

NUMBERS = json.loads((Path(kernel.__file__).parent / "nr.json").read_text())
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PID = 4242
ALLOW, KILL = "allow", "kill"
CLONE_THREAD = 0x3D0F00  # what glibc passes for a thread
O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE = 0o1, 0o2, 0o100, 0o1000, 0o20200000
PRIVATE, SHARED, ANONYMOUS, STACK, GROWSDOWN, HUGETLB = 0x2, 0x1, 0x20, 0x20000, 0x100, 0x40000


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request, monkeypatch) -> str:
    monkeypatch.setattr(seccomp, "MACHINE", request.param)
    monkeypatch.setattr(seccomp, "NR", NUMBERS[request.param])
    return request.param


def verdict(machine: str, mode: str, call: str | int, *arguments: int, arch: int | None = None) -> str:
    """What the filter answers to one system call: "allow", "kill" or the name of an errno."""
    number = call if isinstance(call, int) else NUMBERS[machine][call]
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *padded)
    code = seccomp.assemble(mode, PID)  # type: ignore[arg-type]
    program = [struct.unpack_from("HBBI", code, at) for at in range(0, len(code), 8)]
    at = accumulator = 0
    while True:
        op, true, false, k = program[at]
        at += 1
        if op == 0x20:
            accumulator = struct.unpack_from("I", data, k)[0]
        elif op == 0x54:
            accumulator &= k
        elif op == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(k) or errno.errorcode[k & 0xFFFF]
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[op]
            at += true if holds else false


@pytest.mark.parametrize("mode", ["fork_server", "exec", "run"])
def test_unknown_is_denied(machine, mode):
    """Foreign architectures are killed, numbers newer than the table do not exist, everything unlisted is denied."""
    assert verdict(machine, mode, "read", arch=0x40000003) == KILL
    assert verdict(machine, mode, NUMBERS[machine]["_max"] + 1) == "ENOSYS"
    if machine == "x86_64":
        assert verdict(machine, mode, 0x40000000) == KILL
    listed = set(NUMBERS[machine].values())
    unlisted = [number for number in range(NUMBERS[machine]["_max"]) if number not in listed]
    assert len(unlisted) > 200
    assert {verdict(machine, mode, number) for number in unlisted} == {"EPERM"}


@pytest.mark.parametrize("mode", ["fork_server", "exec", "run"])
def test_what_training_needs_is_allowed(machine, mode):
    """Files, memory, threads, clocks and signals to oneself work in every mode."""
    for call in "read write close newfstatat statx lseek mprotect munmap mremap madvise brk futex exit_group".split():
        assert verdict(machine, mode, call) == ALLOW, call
    assert verdict(machine, mode, "openat", 0, 0, O_WRONLY | O_CREAT | O_TRUNC) == ALLOW
    assert verdict(machine, mode, "mmap", 0, 4096, 3, PRIVATE | ANONYMOUS | STACK) == ALLOW
    assert verdict(machine, mode, "mmap", 0, 4096, 1, SHARED) == ALLOW  # the training text
    assert verdict(machine, mode, "clone", CLONE_THREAD) == ALLOW
    assert verdict(machine, mode, "clone3") == "ENOSYS"
    assert verdict(machine, mode, "tgkill", PID, PID + 1, 6) == ALLOW
    assert verdict(machine, mode, "prlimit64", 0) == ALLOW


@pytest.mark.parametrize("mode", ["fork_server", "exec", "run"])
def test_arguments_are_judged(machine, mode):
    """Truncating what is only readable, memory that no limit counts, and signals by way of the kernel are denied."""
    for flags in (O_TRUNC, 0o3, 0o3 | O_TRUNC, O_TMPFILE | O_RDWR):
        assert verdict(machine, mode, "openat", 0, 0, flags) == "EPERM", oct(flags)
    for flags in (SHARED | ANONYMOUS, 0x3 | ANONYMOUS, PRIVATE | ANONYMOUS | GROWSDOWN, PRIVATE | ANONYMOUS | HUGETLB):
        assert verdict(machine, mode, "mmap", 0, 4096, 3, flags) == "EPERM", hex(flags)
    # Locks, owners, leases, notification, pipe size, seals.
    for command in (5, 6, 8, 10, 15, 16, 1024, 1026, 1031, 1033):
        assert verdict(machine, mode, "fcntl", 3, command) == "EPERM", command
    assert verdict(machine, mode, "ioctl", 0, 0x5412) == "ENOTTY"  # TIOCSTI
    assert verdict(machine, mode, "clone", 0x10000000) == "EPERM"  # a user namespace
    assert verdict(machine, mode, "prlimit64", PID + 1) == "EPERM"


def test_run_child_is_alone(machine):
    """A run child can neither fork, execute, signal another process, talk on sockets, nor loosen what holds it."""
    for call in "execve wait4 sendmsg recvmsg close_range sched_setaffinity seccomp landlock_restrict_self".split():
        assert verdict(machine, "run", call) == "EPERM", call
    fork, vfork_thread, own_files = 17, CLONE_THREAD & ~0x10000, CLONE_THREAD & ~0x400
    for flags in (fork, vfork_thread, own_files, CLONE_THREAD | 0x10000000):
        assert verdict(machine, "run", "clone", flags) == "EPERM", hex(flags)
    for victim in (0, 1, PID + 1, 0xFFFFFFFF, 2**32 - PID):
        assert verdict(machine, "run", "kill", victim, 9) == "EPERM"
        assert verdict(machine, "run", "tgkill", victim, victim, 9) == "EPERM"
    for option in (1, 4, 8, 22, 24, 36, 38, 47):
        assert verdict(machine, "run", "prctl", option) == "EPERM", option
    assert verdict(machine, "exec", "execve") == ALLOW


def test_fork_server_can_prepare_its_children(machine):
    """The laxer filter lets a child pass descriptors, narrow itself and abort, whatever its pid."""
    for call in "sendmsg recvmsg wait4 close_range seccomp landlock_create_ruleset landlock_add_rule".split():
        assert verdict(machine, "fork_server", call) == ALLOW, call
    assert verdict(machine, "fork_server", "clone", 17) == ALLOW
    assert verdict(machine, "fork_server", "tgkill", PID + 1, PID + 1, 6) == ALLOW
    assert [verdict(machine, "fork_server", "prctl", option) for option in (1, 38)] == [ALLOW, ALLOW]
    assert verdict(machine, "fork_server", "sched_setaffinity", 0) == ALLOW
    assert verdict(machine, "fork_server", "sched_setaffinity", 1) == "EPERM"


def test_every_listed_call_has_a_number():
    """No name in the lists is misspelt: each exists on x86_64, and what aarch64 lacks is only its older forms."""
    listed = {*seccomp._RUN, *seccomp._EXEC, *seccomp._FORK_SERVER, *seccomp._rules("run", 1, False)}
    assert listed <= set(NUMBERS["x86_64"])
    old = "access alarm arch_prctl dup2 epoll_create epoll_wait fork getdents getpgrp lstat open pause pipe poll"
    assert listed - set(NUMBERS["aarch64"]) == {*old.split(), "readlink", "select", "stat", "time", "vfork"}
