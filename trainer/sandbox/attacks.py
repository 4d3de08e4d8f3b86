"""The attacks of the self-test: each returns when it succeeded and raises when it was stopped.

Also a program: `python -I -S -B attacks.py` reads one JSON object from stdin, tries every attack and prints what came
of it. With a policy in it, it acts as a fork server does: a forked child narrows itself first and then attacks.
Every attack is harmless where it succeeds. Stdlib only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import json
import mmap
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

STOPPED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOMEM, errno.EBADF)

Targets = dict[str, Any]
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: int) -> None:
    if getattr(_libc, name)(*map(ctypes.c_long, args)) < 0:
        raise OSError(ctypes.get_errno(), name)


def _connect_tcp(targets: Targets) -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", targets["tcp_port"]))


def _send_udp(targets: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", targets["udp_port"]))


def _connect_unix(targets: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + targets["abstract"])


def _read_key(targets: Targets) -> None:
    Path(targets["key"]).read_bytes()


def _read_hidden(targets: Targets) -> None:
    Path(targets["hidden"]).read_bytes()


def _read_other_run(targets: Targets) -> None:
    Path(targets["other_run"]).read_bytes()


def _write_outside(targets: Targets) -> None:
    Path(targets["key"]).with_name("planted").write_bytes(b"x")


def _truncate(targets: Targets) -> None:
    os.close(os.open(targets["readable"], os.O_RDONLY | os.O_TRUNC))


def _signal_parent(targets: Targets) -> None:
    os.kill(targets["victim"], 0)


def _signal_by_fcntl(targets: Targets) -> None:
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, targets["victim"])
    finally:
        os.close(reader)
        os.close(writer)


def _trace_parent(targets: Targets) -> None:
    seize = 0x4206  # does not stop the process, ends with the tracer
    _call("ptrace", seize, targets["victim"], 0, 0)


def _read_parent_environment(targets: Targets) -> None:
    Path(f"/proc/{targets['victim']}/environ").read_bytes()


def _see_environment(targets: Targets) -> None:
    added_by_python = {"LC_CTYPE"}
    if not set(os.environ) - set(targets["env"]) - added_by_python:
        raise PermissionError(errno.EPERM, "only constructed variables")


def _use_inherited_descriptor(targets: Targets) -> None:
    os.pread(targets["descriptor"], 1, 0)


def _fork(_: Targets) -> None:
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


def _exec(_: Targets) -> None:
    try:
        os.execv("/nonexistent", ["x"])
    except FileNotFoundError:
        return  # the kernel looked for it


def _map_over_the_cap(targets: Targets) -> None:
    mmap.mmap(-1, targets["memory"], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _map_uncounted_stack(targets: Targets) -> None:
    grows_down = 0x100
    mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | grows_down).close()


def _map_shared(_: Targets) -> None:
    mmap.mmap(-1, 1 << 16).close()


def _make_memfd(_: Targets) -> None:
    os.close(os.memfd_create("x"))


def _change_owner_mode(targets: Targets) -> None:
    os.chmod(targets["key"], 0o600)


ATTACKS: dict[str, Callable[[Targets], None]] = {
    "connect to a TCP port": _connect_tcp,
    "send a UDP packet": _send_udp,
    "connect to an abstract unix socket": _connect_unix,
    "read a private key": _read_key,
    "read held-out text": _read_hidden,
    "read another run's files": _read_other_run,
    "write outside its directory": _write_outside,
    "truncate a readable file": _truncate,
    "change a file's mode": _change_owner_mode,
    "signal another process": _signal_parent,
    "signal it by F_SETOWN": _signal_by_fcntl,
    "trace another process": _trace_parent,
    "read its environment in /proc": _read_parent_environment,
    "see the node's environment": _see_environment,
    "use an inherited descriptor": _use_inherited_descriptor,
    "start a process": _fork,
    "start a program": _exec,
    "map more than the memory cap": _map_over_the_cap,
    "hide memory in a stack mapping": _map_uncounted_stack,
    "hide memory in shared pages": _map_shared,
    "hide memory in a memfd": _make_memfd,
}


NEEDS = {"read held-out text": "hidden", "map more than the memory cap": "memory"}


def attempt(targets: Targets) -> dict[str, bool]:
    """Try every attack; True where it was stopped. Attacks without a target on this machine are left out."""
    outcomes = {}
    for name, attack in ATTACKS.items():
        if name in NEEDS and not targets[NEEDS[name]]:
            continue
        try:
            attack(targets)
            outcomes[name] = False
        except OSError as error:
            outcomes[name] = error.errno in STOPPED
    return outcomes


def work(targets: Targets) -> None:
    """Do what every honest run needs; raises when the sandbox is too tight."""
    Path("made").write_bytes(b"x")
    assert Path("made").read_bytes() == b"x" and Path(targets["readable"]).read_bytes()
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def _become_run(policy: str) -> int:
    """Fork as a fork server does: the child, confined, returns the Landlock ABI; the parent waits for it and ends."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    confine = importlib.import_module("sandbox.confine")
    server = os.getpid()
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) and confine.FAILED)
    try:
        confine.set_parent_death(server)
        confine.close_fds((0, 1, 2))
        run = confine.Policy.from_json(policy)
        os.chdir(run.cwd)
        return confine.confine(run, "run")
    except BaseException as error:
        confine.fail_closed(error)
        raise


def main() -> None:
    """Read {"targets", "run": a policy as JSON text or null}, print {"abi", "stopped": {attack: bool}}."""
    job = json.load(sys.stdin)
    abi = _become_run(job["run"]) if job["run"] else 0
    work(job["targets"])
    print(json.dumps({"abi": abi, "stopped": attempt(job["targets"])}))


if __name__ == "__main__":
    main()
