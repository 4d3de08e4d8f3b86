"""Turns at a core: nobody shares one, everybody gets one, nobody who waits or has died keeps one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from swarm_node.trainer.locks import Turn

CONTENDER = """
import os, sys, time
from pathlib import Path
from swarm_node.trainer.locks import POLL_S, Turn
folder, rounds, log = Path(sys.argv[1]), int(sys.argv[2]), os.open(sys.argv[1] + "/log", os.O_WRONLY | os.O_APPEND)
turn = Turn([0], folder)
for number in range(rounds):
    while not turn.take():
        if not number:
            print("waits", flush=True)
        time.sleep(POLL_S)
    os.write(log, f"begins {os.getpid()}\\n".encode())
    time.sleep(0.02)
    os.write(log, f"ends {os.getpid()}\\n".encode())
    turn.leave()
"""
Contend = Callable[[int], subprocess.Popen[bytes]]


@pytest.fixture
def contend(tmp_path: Path) -> Iterator[Contend]:
    """Start another process that takes some turns at core 0; it stands in line when this returns."""
    (tmp_path / "log").touch()
    with started(tmp_path) as start:
        yield start


@contextmanager
def started(folder: Path) -> Iterator[Contend]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(rounds: int) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", CONTENDER, str(folder), str(rounds)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout and process.stdout.readline() == b"waits\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def holder(folder: Path, lease_s: float = 20.0) -> Turn:
    turn = Turn([0], folder, lease_s)
    assert turn.take() and turn.core == 0
    return turn


def until(true: Callable[[], bool]) -> None:
    """For what other processes do to locks, of which the kernel tells nobody."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_everybody_gets_a_turn(tmp_path: Path, contend: Contend) -> None:
    """Five processes that never have enough share a core evenly, and never have it two at once."""
    turn = holder(tmp_path)
    processes = [contend(4) for _ in range(5)]
    turn.leave()
    assert [process.wait(60) for process in processes] == [0] * 5
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [what for what, _ in lines] == ["begins", "ends"] * 20
    assert all(first[1] == second[1] for first, second in zip(lines[::2], lines[1::2], strict=True))
    turns: Counter[str] = Counter({str(process.pid): 0 for process in processes})
    for _, pid in lines[::2]:
        turns[pid] += 1
        assert max(turns.values()) - min(turns.values()) <= 2  # 1 but for a process that was not scheduled for a second


def test_a_killed_holder_frees_its_core(tmp_path: Path, contend: Contend) -> None:
    """The kernel drops the lock of a process that ends by kill -9, and the first in line has it."""
    code = "import sys, time; from pathlib import Path; from swarm_node.trainer.locks import Turn\n"
    code += "turn = Turn([0], Path(sys.argv[1])); print(turn.take(), flush=True); time.sleep(999)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
        assert victim.stdout and victim.stdout.readline() == b"True\n"
        process = contend(1)
        victim.kill()
        assert process.wait(20) == 0


def test_a_killed_waiter_is_not_waited_for(tmp_path: Path, contend: Contend) -> None:
    """A place in the line ends with its process."""
    turn = holder(tmp_path)
    assert not turn.is_wanted()
    process = contend(1)
    assert turn.is_wanted()
    process.kill()
    process.wait()
    assert not turn.is_wanted()
    turn.leave()


def test_a_stopped_waiter_stops_nobody(tmp_path: Path, contend: Contend) -> None:
    """Who is first in line but does not take what is free is overtaken, and has its turn when it goes on."""
    turn = holder(tmp_path)
    first, second = contend(1), contend(1)
    first.send_signal(signal.SIGSTOP)
    turn.leave()
    assert second.wait(20) == 0 and first.poll() is None
    first.send_signal(signal.SIGCONT)
    assert first.wait(20) == 0


def test_a_lease_ends_only_for_others(tmp_path: Path) -> None:
    """It lasts its time when others wait, and for ever when nobody does."""
    turn, other = holder(tmp_path, 1.0), Turn([0], tmp_path)
    assert not other.take() and turn.is_wanted() and not turn.is_over()
    until(turn.is_over)
    other.leave()
    assert not turn.is_over() and turn.take()
    turn.leave()
    assert other.take()
    other.leave()


def test_only_those_who_can_use_a_core_wait_for_it(tmp_path: Path) -> None:
    """Whoever may not use core 0 neither drives its holder away nor stands before those who may."""
    turn, one = holder(tmp_path), Turn([1], tmp_path)
    assert one.take()
    elsewhere, both = Turn([1], tmp_path), Turn([0, 1], tmp_path)
    assert not elsewhere.take()
    assert one.is_wanted() and not turn.is_wanted()
    assert not both.take() and turn.is_wanted()
    turn.leave()
    assert both.take() and both.core == 0
    for each in (one, elsewhere, both):
        each.leave()


def test_without_a_folder_nothing_is_locked() -> None:
    """The first named core, or none in particular, is there at once for everybody."""
    for cores, core in (([3, 1], 1), (None, None)):
        first, second = Turn(cores, None), Turn(cores, None)
        assert first.take() and second.take() and first.core == second.core == core
        assert not first.is_wanted() and not first.is_over()
