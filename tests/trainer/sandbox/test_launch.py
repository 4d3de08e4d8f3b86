"""The launcher confines completely or runs nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox import spawn as spawning
from swarm_node.trainer.sandbox.confine import FAILED
from swarm_node.trainer.sandbox.policy import Policy, exec_policy, fork_server_policy
from swarm_node.trainer.sandbox.spawn import spawn

ROOT = os.geteuid() == 0
WRITE = "import sys; open(sys.argv[1], 'w').close(); print('ran')"


def test_confined_program_runs_and_writes_its_own_directory(own_policy, place, run):
    """A program that needs no more than its policy gives runs to the end."""
    done = run(own_policy, WRITE, str(place.own / "made"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert (place.own / "made").exists()


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"force_abi": 0}, id="no Landlock"),
        pytest.param({"mode": "sideways"}, id="no such filter"),
        pytest.param({"rw": ("/nonexistent",)}, id="no scratch directory"),
        pytest.param({"rlimits": {"NOSUCH": 1}}, id="no such limit"),
        pytest.param({"cwd": "/nonexistent"}, id="no working directory"),
    ],
)
def test_missing_layer_runs_nothing(own_policy, place, run, broken):
    """When any layer cannot be applied, the launcher ends with 126 and the program did not start."""
    done = run(replace(own_policy, **broken), WRITE, str(place.own / "made"))
    assert done.returncode == FAILED
    assert done.stdout == ""
    assert "sandbox: cannot confine" in done.stderr
    assert not (place.own / "made").exists()


def test_failing_seccomp_runs_nothing(own_policy, place, tmp_path, monkeypatch, run):
    """On a machine whose system call numbers are unknown nothing runs."""
    copy = tmp_path / "trainer" / "sandbox"
    copy.mkdir(parents=True)
    for path in Path(spawning.__file__).parent.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    (copy / "nr.json").write_text("{}")
    monkeypatch.setattr(spawning, "_LAUNCHER", str(copy / "launch.py"))
    done = run(own_policy, WRITE, str(place.own / "made"))
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert not (place.own / "made").exists()


def test_orphan_runs_nothing(own_policy, place, monkeypatch, run):
    """A launcher whose parent is not the one that the policy names does not start the program."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    done = run(own_policy, WRITE, str(place.own / "made"))
    assert done.returncode == FAILED and "parent 1 is gone" in done.stderr


def test_environment_is_constructed(own_policy, monkeypatch, run):
    """None of the node's environment variables reaches the program."""
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    done = run(own_policy, "import os; print(sorted(os.environ))")
    assert set(eval(done.stdout)) - {"LC_CTYPE"} == set(own_policy.env)


@pytest.mark.parametrize(("chosen", "reaches"), [("default", True), ("avx2", True), ("AVX2", False), ("a\nb", False)])
def test_torchs_kernels_are_the_users_choice(place, monkeypatch, chosen, reaches):
    """The one variable that passes does so with a word that torch knows, and with no other text."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", chosen)
    env = fork_server_policy(place.root, place.text, [], 1 << 30).env
    assert env.get("ATEN_CPU_CAPABILITY") == (chosen if reaches else None)


def test_open_descriptors_do_not_reach_the_program(own_policy, place, monkeypatch):
    """The launcher closes what leaked into it, and keeps what the policy names."""
    start = subprocess.Popen
    with open(place.hidden) as leaked, open(place.hidden) as kept:

        def leak(command, *, pass_fds, **options):
            return start(command, pass_fds=(*pass_fds, leaked.fileno()), **options)

        monkeypatch.setattr(subprocess, "Popen", leak)
        source = "import os\nfor fd in range(3, 1024):\n    try: os.fstat(fd); print(fd)\n    except OSError: pass"
        process = spawn(own_policy, [sys.executable, "-I", "-S", "-c", source], pass_fds=(kept.fileno(),))
        out, err = process.communicate(timeout=30)
        assert (out.decode().split(), err) == ([str(kept.fileno())], b"")


@pytest.mark.skipif(not ROOT, reason="only root has capabilities to lose")
def test_root_has_no_capabilities_left(own_policy):
    """Started as root, the program has empty capability sets, an empty bounding set, and cannot gain any."""
    argv = [sys.executable, "-I", "-S", "-c", "print(flush=True); input()"]
    with spawn(own_policy, argv, stdin=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    sets = {name: int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert set(sets.values()) == {0}, sets
    assert (fields["NoNewPrivs"], fields["Seccomp"], fields["Seccomp_filters"]) == ("1", "2", "1")


def test_program_dies_with_its_parent(own_policy: Policy, tmp_path):
    """Killing the process that started a sandboxed program kills the program."""
    starter = (
        "import sys, time\nfrom pathlib import Path\nfrom swarm_node.trainer.sandbox.policy import Policy\n"
        "from swarm_node.trainer.sandbox.spawn import spawn\n"
        "policy = Policy.from_json(Path(sys.argv[1]).read_text())\n"
        "program = 'print(flush=True); import time; time.sleep(60)'\n"
        "process = spawn(policy, [sys.executable, '-I', '-S', '-c', program])\n"
        "process.stdout.readline()\nprint(process.pid, flush=True)\ntime.sleep(60)"
    )
    (tmp_path / "policy.json").write_text(own_policy.to_json())
    command = [sys.executable, "-c", starter, str(tmp_path / "policy.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        watch = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([watch], [], [], 10)
    os.close(watch)
    assert ended


def test_limits_hold(own_policy, place, run):
    """Memory, file size and open files are capped, hard."""
    limited = replace(own_policy, rlimits=own_policy.rlimits | {"FSIZE": 1 << 16})
    source = """
import mmap, os, resource, sys
def blocked(attempt):
    try: attempt()
    except (OSError, MemoryError, ValueError) as error: return type(error).__name__
print(blocked(lambda: bytearray(2 << 30)))
with open(sys.argv[1], "wb", buffering=0) as file:
    print(blocked(lambda: [file.write(bytes(1 << 15)) for _ in range(4)]))
print(blocked(lambda: [os.dup(1) for _ in range(300)]))
print(blocked(lambda: resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))))
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    done = run(limited, source, str(place.own / "big"))
    assert done.stdout.split("\n")[:5] == ["MemoryError", "OSError", "OSError", "ValueError", "(0, 0)"], done.stderr


def test_cpu_limit_ends_the_program(server_policy, place, run):
    """A program that uses more CPU time than its limit is killed."""
    done = run(exec_policy(server_policy, place.own, 1), "while True: pass")
    assert done.returncode == -signal.SIGKILL
