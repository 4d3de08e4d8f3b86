"""Attacks on the kernel's surface: calls that training never needs and that have had holes."""

from __future__ import annotations

from .attack import Attack, said


def _reaches(code: str, bare: str = "user") -> Attack:
    """The call is let through, whatever the kernel then thinks of its arguments."""
    return Attack(
        f"try:\n    {code}\nexcept OSError as error:\n"
        "    if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.ENOTTY): raise\n"
        "say('REACHED')",
        said("REACHED"), bare=bare,
    )  # fmt: skip


ATTACKS = {
    "make a user namespace": _reaches("call('unshare', 0x10000000)", bare="root"),
    "make a mount namespace": _reaches("call('unshare', 0x00020000)", bare="root"),
    "mount": _reaches("call('mount', b'none', b'/tmp', b'tmpfs', 1 << 5, 0)", bare="root"),
    "io_uring": _reaches("syscall(425, 425, 4, ctypes.create_string_buffer(256))", bare=""),  # may be switched off
    "perf events": _reaches("syscall(298, 241, 0, 0, -1, -1, 0)", bare=""),
    "bpf": _reaches("syscall(321, 280, 0, 0, 0)", bare="root"),
    "userfaultfd": _reaches("syscall(323, 282, 1)"),
    "key ring": _reaches("syscall(250, 219, 0, -3, 1)"),
    "add a key": _reaches("syscall(248, 217, b'user', b'name', b'value', 5, -2)"),
    "personality": _reaches("call('personality', 0x0040000)"),
    "message queue": _reaches("call('msgget', 0, 0o1600)"),
    "shared memory": _reaches("call('shmget', 0, 4096, 0o1600)"),
    "semaphores": _reaches("call('semget', 0, 1, 0o1600)"),
    "named message queue": _reaches(
        "syscall(240, 180, marker.encode(), 0o100, 0o600, 0); syscall(241, 181, marker.encode())"
    ),
    "fanotify": _reaches("syscall(300, 262, 0, 0)", bare="root"),
    "inotify": _reaches("syscall(294, 26, 0)"),
    "secret memory": _reaches("syscall(447, 447, 0)", bare=""),
    "compare kernel objects": _reaches("syscall(312, 272, os.getpid(), os.getpid(), 0, 0, 1)", bare=""),
    "advise another's memory": _reaches("syscall(440, 440, 3, 0, 0, 0, 0)"),
    "huge pages": _reaches("mmap.mmap(-1, 2 << 20, flags=0x40022)"),
    "memory protection keys": _reaches("syscall(330, 289, 0, 0)"),
    "rearrange file pages": _reaches("syscall(216, 234, 0, 0, 0, 0, 0)"),
    "move pages": _reaches("syscall(279, 239, 0, 0, 0, 0, 0, 0)"),
    "stack another Landlock layer": _reaches("syscall(444, 444, 0, 0, 1)"),
    "load another filter": _reaches("syscall(317, 277, 2, 0, ctypes.byref(ctypes.c_uint(0x7FFF0000)))"),
    "type into the terminal": _reaches("fcntl.ioctl(0, 0x5412, b'x')", bare="root"),
    "change the terminal": Attack(
        "state = bytearray(60); fcntl.ioctl(0, 0x5401, state); fcntl.ioctl(0, 0x5402, bytes(state)); say('CHANGED')",
        said("CHANGED"),
    ),
    "raise a limit": Attack(
        "hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)); say('CORE', hard)",
        said("CORE (-1|[1-9])"),
    ),
    "see the system log": _reaches("call('klogctl', 10, 0, 0)", bare="root"),
    "time another clock": _reaches("call('clock_settime', 0, ctypes.byref(ctypes.create_string_buffer(16)))", bare=""),
}
