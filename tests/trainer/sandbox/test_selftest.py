"""The self-test attacks for real, and the sandbox stops it on old kernels and for ordinary users too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox import attacks, selftest
from swarm_node.trainer.sandbox.landlock import abi
from swarm_node.trainer.sandbox.selftest import self_test


def test_every_attack_is_stopped(server_policy, place):
    """The self-test runs every attack, reading hidden files included, and none succeeds."""
    report = self_test(server_policy, [place.hidden])
    assert (report.ok, report.reason, report.abi) == (True, "", abi())
    assert dict(report.tests) == dict.fromkeys(attacks.ATTACKS, True)
    assert len(report.tests) >= 12 and len(report.layers) >= 5


def test_every_attack_is_stopped_on_the_oldest_landlock(server_policy, place):
    """What Landlock's first version lacks, the other layers stop."""
    report = self_test(replace(server_policy, force_abi=1), [place.hidden])
    assert (report.ok, report.abi, report.reason) == (True, 1, "")


def test_attacks_succeed_without_the_sandbox(server_policy, place):
    """Each attack of the self-test is real: in a plain process with leaked descriptors it succeeds."""
    with selftest._scene(server_policy, [place.hidden]) as (_, _, targets, descriptor):
        out = subprocess.run(
            [sys.executable, "-I", "-S", "-B", attacks.__file__],
            input=json.dumps({"targets": targets, "run": None}),
            capture_output=True,
            text=True,
            check=True,
            cwd=place.own,
            pass_fds=[descriptor],
        ).stdout
    stopped = {name for name, stopped in json.loads(out)["stopped"].items() if stopped}
    # The kernel itself may forbid tracing a process that is not one's child (Yama).
    assert stopped <= {"trace another process", "read its environment in /proc"}


def test_hole_is_reported(server_policy, place):
    """A sandbox that lets one thing through fails the self-test, which names it."""
    leaky = replace(server_policy, ro=(*server_policy.ro, "/"), trees=(*server_policy.trees, "/"))
    report = self_test(leaky, [place.hidden])
    escaped = {name for name, stopped in report.tests if not stopped}
    assert not report.ok
    assert {"read a private key", "read held-out text", "read another run's files"} <= escaped
    assert all(name in report.reason for name in escaped)


def test_missing_landlock_is_reported(server_policy):
    """Without Landlock the report says so and lists no attack as stopped."""
    report = self_test(replace(server_policy, force_abi=0))
    assert (report.ok, report.abi, report.tests) == (False, 0, ())
    assert "no Landlock" in report.reason


def test_too_tight_a_sandbox_is_reported(server_policy):
    """A sandbox in which honest work fails is not a working sandbox."""
    report = self_test(replace(server_policy, rlimits=server_policy.rlimits | {"FSIZE": 0}))
    assert not report.ok and report.reason


def test_other_systems_are_refused(monkeypatch):
    """Where there is neither Landlock nor seccomp, isolation is unavailable."""
    monkeypatch.setattr(sys, "platform", "darwin")
    report = self_test()
    assert not report.ok and "Linux" in report.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests already run as an ordinary user")
@pytest.mark.parametrize("force_abi", [None, 1])
def test_ordinary_user_is_protected(force_abi):
    """The sandbox needs no privileges: every attack is stopped when an unprivileged user runs it."""
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK) or _version(python) < (3, 11):
        pytest.skip("no Python that other users can run")
    with tempfile.TemporaryDirectory(prefix="swarm-node-test-") as directory:
        package = Path(directory) / "trainer" / "sandbox"
        shutil.copytree(Path(selftest.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        scratch = Path(directory) / "scratch"
        scratch.mkdir()
        os.chown(scratch, 12345, 12345)
        for path in (Path(directory), package.parent, package, *package.iterdir()):
            path.chmod(0o755)
        source = (
            f"import sys; sys.path.append({str(package.parent)!r})\nfrom pathlib import Path\nimport json\n"
            "from sandbox.policy import fork_server_policy\nfrom sandbox.selftest import self_test\n"
            f"root = Path({str(scratch)!r})\n"
            f"policy = fork_server_policy(root, root / 'text', [], 1 << 30, force_abi={force_abi})\n"
            "report = self_test(policy)\nprint(json.dumps([report.ok, report.reason, len(report.tests)]))"
        )
        done = subprocess.run(
            [python, "-B", "-c", source],
            capture_output=True,
            text=True,
            cwd="/",
            user=12345,
            group=12345,
            extra_groups=[],
        )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [True, "", len(attacks.ATTACKS) - 1]  # no held-out text in this policy


def _version(python: str) -> tuple[int, ...]:
    source = "import sys; print(*sys.version_info[:2])"
    return tuple(map(int, subprocess.run([python, "-c", source], capture_output=True, text=True).stdout.split()))
