"""A machine that cannot isolate: the node takes part without running anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import TINY, NodeProcess, clean_env, run_command

Start = Callable[..., NodeProcess]

# Loads a seccomp filter that answers landlock_create_ruleset with "no such call", as old kernels and strict containers
# do, and becomes the program.
WITHOUT_LANDLOCK = """
import ctypes, os, struct, sys
LOAD, EQUAL, RETURN, ALLOW, ENOSYS = 0x20, 0x15, 0x06, 0x7FFF0000, 0x50000 | 38
program = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, 444), (RETURN, 0, 0, ENOSYS), (RETURN, 0, 0, ALLOW)]
code = b"".join(struct.pack("HBBI", op, true, false, value) for op, true, false, value in program)
buffer = ctypes.create_string_buffer(code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program), ctypes.addressof(buffer)))) == 0, ctypes.get_errno()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    path = tmp_path / "wrapper.py"
    path.write_text(WITHOUT_LANDLOCK)
    return path


def test_doctor_names_each_attack_and_what_is_missing(wrapper: Path, tmp_path: Path) -> None:
    """Every attack of the self-test by name, stopped; without Landlock the reason, the fix and exit code 6."""
    sound = run_command(["doctor", "--json", "--home", str(tmp_path)])
    checks = [json.loads(line) for line in sound.stdout.splitlines()]
    assert sound.returncode == 0 and "failed" not in {check["state"] for check in checks}
    attacks = [check["found"] for check in checks if check["name"].strip() == "attack"]
    assert "stopped: read a private key" in attacks and len(attacks) > 20
    argv = [sys.executable, str(wrapper), "-m", "swarm_node.node.cli", "doctor", "--home", str(tmp_path)]
    lacking = subprocess.run(argv, capture_output=True, text=True, env=clean_env(), timeout=60, check=False)
    assert lacking.returncode == 6
    assert re.search(r"NO  isolation .*no Landlock.*\n +fix: use a Linux kernel with Landlock", lacking.stdout)


@pytest.mark.long
def test_without_isolation_the_node_observes(start: Start, wrapper: Path) -> None:
    """It says why, runs nothing, hears and keeps what a peer finds; alone it stops with exit code 6."""
    peer = start("peer", "join", "--size", TINY, "--host", "127.0.0.1", "--port", "0", "--experiments", "1")
    invite = peer.wait_for(r"swarm-node join (\S+)")[1]
    node = start("observer", "join", invite, "--host", "127.0.0.1", "--port", "0", launcher=(str(wrapper),))
    assert "Landlock" in node.wait_for(r"isolation .*").group()
    node.wait_for("observing ")
    (first,) = node.wait_for_records(lambda records: True)
    assert first in peer.records()
    assert not (node.home / "scratch").exists() or not list((node.home / "scratch").rglob("*.bin"))
    assert node.stop() == 130

    alone = start("alone", "join", "--solo", "--size", TINY, launcher=(str(wrapper),))
    assert alone.process.wait(60) == 6
    alone.wait_for("error: ")
