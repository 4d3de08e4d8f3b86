"""A policy for a temporary place, and a way to run a program under it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox.policy import Policy, exec_policy, fork_server_policy
from swarm_node.trainer.sandbox.spawn import spawn


@dataclass(frozen=True)
class Place:
    """A scratch root with one run's directory in it, a readable text, and a package with a hidden module."""

    root: Path
    own: Path
    text: Path
    package: Path
    hidden: Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    own = tmp_path / "scratch" / "own"
    package = tmp_path / "package"
    own.mkdir(parents=True)
    package.mkdir()
    (tmp_path / "train.bin").write_bytes(b"training text")
    (package / "open.py").write_text("OPEN = 1\n")
    (package / "held.py").write_text("SECRET = 1\n")
    return Place(tmp_path / "scratch", own, tmp_path / "train.bin", package, package / "held.py")


@pytest.fixture
def server_policy(place: Place) -> Policy:
    return fork_server_policy(place.root, place.text, [place.hidden], 1 << 30)


@pytest.fixture
def own_policy(server_policy: Policy, place: Place) -> Policy:
    return exec_policy(server_policy, place.own, 20)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """Run Python source under a policy, without site packages, and return its output."""

    def run(policy: Policy, source: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-S", "-B", "-c", source, *arguments]
        with spawn(policy, argv, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(stdin.encode(), timeout=60)
        return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())

    return run
