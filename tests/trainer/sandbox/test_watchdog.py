"""The watchdog sees what a sandboxed process uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox.spawn import spawn
from swarm_node.trainer.sandbox.watchdog import Limits, Usage, disk_usage, exceeded, read_usage

HOARD = """
import threading
held = bytearray(b"x") * (96 << 20)
event = threading.Event()
for _ in range(5): threading.Thread(target=event.wait, daemon=True).start()
for number in range(3):
    with open(f"file{number}", "wb") as file: file.write(bytes(1 << 20))
print(flush=True)
input()
"""


def test_readings_match_what_a_process_holds(own_policy, place):
    """Memory, threads, disk blocks and files of a confined process are read from outside."""
    with spawn(own_policy, [sys.executable, "-I", "-S", "-c", HOARD], stdin=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        usage = read_usage(process.pid, place.own)
        process.kill()
    assert 96 << 20 < usage.rss < 160 << 20
    assert (usage.threads, usage.inodes) == (6, 3)
    assert 3 << 20 <= usage.disk < 4 << 20


def test_descendants_count(place):
    """A process that forks is read together with its children."""
    source = "import os, time\nfor _ in range(3):\n    if not os.fork(): time.sleep(60)\nprint(flush=True); input()"
    argv = [sys.executable, "-I", "-S", "-c", source]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        threads = read_usage(process.pid, place.own).threads
        os.killpg(process.pid, signal.SIGKILL)
    assert threads == 4


def test_ended_process_uses_nothing(place):
    """A process or directory that is gone reads as zero instead of failing."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as process:
        process.wait()
    assert read_usage(process.pid, place.own / "gone") == Usage(0, 0, 0, 0)


def test_files_cannot_leave_the_count(own_policy, place, run):
    """What a run wrote stays visible to the watchdog: it can neither delete, move nor hide its files."""
    source = """
import os, tempfile
def denied(attempt, *arguments):
    try: attempt(*arguments)
    except OSError: return True
open("file", "wb").write(bytes(1 << 20))
print(denied(os.unlink, "file"), denied(os.rename, "file", "other"), denied(os.link, "file", "link"),
      denied(os.open, ".", os.O_TMPFILE | os.O_RDWR), denied(os.mkdir, "directory"))
"""
    done = run(own_policy, source)
    assert done.stdout.split() == ["True"] * 5
    usage = read_usage(0x7FFFFFF, place.own)
    assert usage.inodes == 1 and usage.disk >= 1 << 20


def test_what_cannot_be_counted_is_too_much(tmp_path):
    """A folder that cannot be listed does not hide what lies in it."""
    deep = tmp_path
    os.makedirs(deep / "d")
    for _ in range(20):  # beyond PATH_MAX, for which a path by name is refused, also to root
        os.chdir(deep)
        deep = Path("n" * 250)
        deep.mkdir()
    try:
        assert disk_usage(tmp_path, 77)[1] == 77
    finally:
        os.chdir("/")
        subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.mark.parametrize(
    ("usage", "word"),
    [
        (Usage(101 << 20, 1, 0, 0), "memory"),
        (Usage(0, 65, 0, 0), "threads"),
        (Usage(0, 1, 65 << 20, 0), "disk"),
        (Usage(0, 1, 0, 1001), "files"),
    ],
)
def test_excess_has_a_reason(usage, word):
    """Each limit that is exceeded is named; a reading at the limits is none."""
    limits = Limits(rss=100 << 20)
    assert word in exceeded(usage, limits)
    assert exceeded(Usage(100 << 20, 64, 64 << 20, 1000), limits) == ""


def test_counting_files_is_bounded(place):
    """A directory with very many entries does not hold up the watchdog."""
    for number in range(50):
        (place.own / str(number)).touch()
    assert read_usage(0x7FFFFFF, place.own, max_inodes=10).inodes == 10
