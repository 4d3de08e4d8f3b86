"""Shows on this machine, before anything foreign runs, that the sandbox stops what it must and lets training work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import bubblewrap
from .policy import Policy, fork_server_policy, run_policy
from .spawn import spawn

ATTACKS = str(Path(__file__).resolve().parent / "attacks.py")
_TIMEOUT_S = 20.0
_LAYERS = ("seccomp", "resource limits", "no new privileges", "no capabilities", "constructed environment")


@dataclass(frozen=True)
class SandboxReport:
    """Which layers hold here, and each attack of the self-test with whether it was stopped."""

    ok: bool
    abi: int  # Landlock version, 0 without
    layers: tuple[str, ...]
    tests: tuple[tuple[str, bool], ...]
    reason: str  # empty when ok


def self_test(policy: Policy | None = None, hidden: Sequence[Path] = ()) -> SandboxReport:
    """Attack from inside a run child of a fork server, as a candidate could; about 0.2 s.

    It shows the base alone, without bubblewrap, which would hide a hole in it.
    `policy` is the fork server's own, and `hidden` what it must not let read; without one, a policy is made for a
    temporary directory. Never raises for a sandbox that does not hold: the report says why. Not covered: bugs of the
    kernel, side channels, and attacks that nobody has thought of.
    """
    if not sys.platform.startswith("linux"):
        return _unavailable("isolation needs Linux (Landlock and seccomp)")
    try:
        with ExitStack() as stack:
            if policy is None:
                root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-node-")))
                policy = fork_server_policy(root, root / "train.bin", hidden, 1 << 30)
            scene = stack.enter_context(_scene(replace(policy, bubblewrap=False), hidden))
            return _judge(*scene, outer=bool(bubblewrap.command(policy)))
    except OSError as error:
        return _unavailable(f"the self-test could not be set up: {error}")


def _judge(server: Policy, run: Policy, targets: dict[str, Any], descriptor: int, *, outer: bool) -> SandboxReport:
    program = [sys.executable, "-I", "-S", "-B", ATTACKS]
    process = spawn(server, program, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    job = json.dumps({"targets": targets, "run": run.to_json()}).encode()
    try:
        out, err = process.communicate(job, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return _unavailable(f"the self-test did not end within {_TIMEOUT_S:.0f} s")
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        return _unavailable("".join(last) or f"the self-test ended with status {process.returncode}")
    answer = json.loads(out)
    tests = tuple(answer["stopped"].items())
    escaped = [name for name, stopped in tests if not stopped]
    layers = (f"Landlock ABI {answer['abi']}", *_LAYERS, *(["bubblewrap"] if outer else []))
    reason = f"not stopped: {', '.join(escaped)}" if escaped else ""
    return SandboxReport(not escaped, answer["abi"], layers, tests, reason)


def _unavailable(reason: str) -> SandboxReport:
    return SandboxReport(False, 0, (), (), reason)


@contextmanager
def _scene(policy: Policy, hidden: Sequence[Path]) -> Iterator[tuple[Policy, Policy, dict[str, Any], int]]:
    """Things to attack: listening sockets, a key file, another run's scratch directory, a descriptor left open."""
    with ExitStack() as stack:
        outside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-node-")))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=policy.cwd)))
        (scratch / "own").mkdir()
        (scratch / "other").mkdir()
        places = {"key": outside / "key", "readable": outside / "text", "other_run": scratch / "other" / "model"}
        for path in places.values():
            path.write_bytes(b"x")
            path.chmod(0o600)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{outside}")
        abstract.listen()
        targets = {name: str(path) for name, path in places.items()} | {
            "tcp_port": tcp.getsockname()[1],
            "udp_port": udp.getsockname()[1],
            "abstract": str(outside),
            "hidden": next((str(path) for path in hidden if path.is_file()), ""),
            "victim": os.getpid(),
            "env": list(policy.env),
            "memory": policy.rlimits["DATA"] + (1 << 20)
            if "DATA" in policy.rlimits
            else 0,  # a GPU's driver needs more
            "descriptor": (descriptor := os.open(places["key"], os.O_RDONLY)),
        }
        stack.callback(os.close, descriptor)
        text = targets["readable"]
        server = replace(policy, ro=(*policy.ro, text), trees=(*policy.trees, text))
        yield server, run_policy(server, scratch / "own", 10), targets, descriptor
