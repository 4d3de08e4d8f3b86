"""The feed in a terminal: it fits, it is harmless, and what arrives is there without a key pressed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from swarm_node.node.home import Home
from swarm_node.node.live import LiveFeed
from swarm_node.swarm.ledger import Ledger

from .swarms import OTHERS, Swarm

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STATUS = {"task": "gpt-cpu/short", "peers": ["calm-deer"], "running": [
    {"lane": 0, "text": "running rotary positions instead of learned ones (candidate-3)", "fraction": 0.4, "left": 19},
    {"lane": 1, "text": "thinking about #4", "fraction": None, "left": None},
]}  # fmt: skip


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield Swarm(ledger)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """One in which a node runs."""
    home = Home.locate(tmp_path)
    with home.locked():
        yield home


def shown(swarm: Swarm, home: Home, width: int, encoding: str = "utf-8", colour: bool = True) -> str:
    """Every record and the footer, as the terminal gets them."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None)
    feed = LiveFeed(home, swarm.ledger, console)
    for record in swarm.ledger.all_records():
        console.print(feed.line(record))
    console.print(feed.footer())
    stream.flush()
    return raw.getvalue().decode(encoding)


def happens(swarm: Swarm) -> str:
    """Of everything something; the start of the win's id."""
    swarm.say(swarm.me, "baseline", 0, None, score=3.2, noise=0.02)
    win = swarm.say(swarm.ann, "kept", 1, score=2.6, gain=0.6, title="embeddings start at std 0.02 " * 4)
    swarm.rerun(swarm.me, win, "confirmed", gain=0.5)
    swarm.say(swarm.bob, "discarded", 2, title="[red]語 " * 16, gain=-0.1)
    swarm.say(swarm.bob, "crashed", 3, cause="error: " + "x" * 90)
    swarm.say(swarm.cid, "kept", 4, score=2.0, gain=0.1, task=OTHERS.id)
    swarm.ledger.set_status(json.dumps(STATUS))
    return win.id.hex()[:8]


@pytest.mark.parametrize("width", [30, 50, 80, 100, 140])
def test_every_line_fits(swarm: Swarm, home: Home, width: int) -> None:
    """However narrow; with what a win's line is for: its change, and its state by now."""
    win = happens(swarm)
    text = ESCAPES.sub("", shown(swarm, home, width))
    lines = text.splitlines()
    assert all(cell_len(line) <= width for line in lines), [line for line in lines if cell_len(line) > width]
    assert width < 60 or "[red]語" in text  # a record with escape sequences is none; markup is shown as it is
    assert "KEEP" in text and "−0.6000" in text
    assert ("confirmed by 1" in text) or width < 50
    assert bool(re.search(rf"\d\d:\d\d {win} ", text)) == (width >= 112)
    assert "40%" in text and "thinking about #4" in text


def test_a_long_reason_leaves_the_title_its_room(swarm: Swarm, home: Home) -> None:
    title, cause = "sweep: BATCH 8 → 4, LR 0.01 → 8.11e-3", "killed at half time: 4.1721 bits per byte, above 4.1569"
    swarm.say(swarm.ann, "discarded", 1, title=title, cause=cause)
    line = shown(swarm, home, 120, colour=False).splitlines()[0]
    assert title in line and "(killed at half time" in line


def test_what_was_kept_is_not_dim(swarm: Swarm, home: Home) -> None:
    """The clock before it is."""
    win = swarm.say(swarm.ann, "kept", 1, title="embeddings start at std 0.02")
    line = LiveFeed(home, swarm.ledger, Console(width=140)).line(win)
    at = line.plain.index("embeddings")
    assert not line.style and any(span.style == "dim" and span.start == 0 for span in line.spans)
    assert not [span for span in line.spans if span.start <= at < span.end and "dim" in str(span.style)]


def test_words_say_what_colours_say(swarm: Swarm, home: Home) -> None:
    """Without colour nothing is missing."""
    happens(swarm)
    plain, coloured = shown(swarm, home, 120, colour=False), shown(swarm, home, 120)
    assert "\x1b[" not in plain and "\x1b[" in coloured
    assert ESCAPES.sub("", coloured) == plain
    assert "gpt-cpu/long" in plain  # which is another task than this home's


def test_a_terminal_that_knows_ascii_alone_gets_ascii(swarm: Swarm, home: Home) -> None:
    """As wide as ever."""
    happens(swarm)
    text = shown(swarm, home, 100, encoding="ascii")
    assert "-0.6000" in text and "######....." in text and "embeddings start" in text


def test_what_a_killed_node_said_last_is_not_shown(swarm: Swarm, tmp_path: Path) -> None:
    """Its status stays behind; nothing runs."""
    happens(swarm)
    text = shown(swarm, Home.locate(tmp_path), 100)
    assert "no node runs in this home now" in text and "thinking about #4" not in text


def test_what_arrives_is_shown_while_it_is_watched(swarm: Swarm, home: Home) -> None:
    """In a real terminal: past and footer first, then a win that another process wrote, until Ctrl-C."""
    happens(swarm)
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "swarm_node.node.cli", "feed", "--home", str(home.data)]
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "90", "LINES": "30"}
    with (
        subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env) as feed,
        contextlib.ExitStack() as stack,
    ):
        os.close(terminal)
        stack.callback(feed.kill)
        until(screen, f"{swarm.ledger.count()} records")
        swarm.say(swarm.ann, "kept", 7, parent=1, score=2.1, gain=0.5, title="rotary positions")
        seen = until(screen, f"{swarm.ledger.count()} records")
        assert "rotary positions" in seen and "best 2.1000" in seen
        feed.send_signal(2)
        assert feed.wait(20) == 130
    os.close(screen)


def until(screen: int, words: str, seconds: float = 60) -> str:
    """What the terminal shows until it has shown `words`."""
    seen, deadline = "", time.monotonic() + seconds
    while words not in (text := ESCAPES.sub("", seen)):
        assert time.monotonic() < deadline and select.select([screen], [], [], seconds)[0], text
        seen += os.read(screen, 65536).decode(errors="replace")
    return text
