"""Two tasks in one swarm: a node on another task hears of wins, knows their tasks by name, and offers them as hints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from .conftest import TINY, NodeProcess
from .test_swarm import LOCAL, kept

Start = Callable[..., NodeProcess]
OTHER = "30"


def wait_for_output(node: NodeProcess, command: tuple[str, ...], text: str, seconds: float = 30) -> str:
    """The output of a command on the node's home, once `text` is in it."""
    deadline = time.monotonic() + seconds
    while text not in (output := node.command(*command)):
        assert time.monotonic() < deadline, output
    return output


@pytest.mark.long
def test_a_node_on_another_task_joins_the_swarm_and_takes_wins_as_hints(start: Start) -> None:
    """It says so first, hears a win on the swarm-wide topic, and shows it under its task's name in feed, prompt and
    board, on a track of its own."""
    finder = start("finder", "join", *LOCAL, "--size", TINY, "--proposer-seed", "37")
    invite = finder.wait_for(r"swarm-node join (swarm1\S+)")[1]
    other = start("other", "join", invite, *LOCAL, "--size", OTHER, "--proposer-seed", "2")
    other.wait_for(rf"invited to gpt-cpu/{TINY}; as asked, this node works on gpt-cpu/{OTHER}")
    other.wait_for(r"peers .* connected")
    finder.wait_for(r"#\d+ +KEEP", 480)
    win = kept(finder.records())[0]
    other.wait_for(r"peer .* on another task", 120)

    name = f"gpt-cpu/{TINY}"
    feed = wait_for_output(other, ("feed", "--no-follow", "--wins"), name)
    assert any(name in line and win["id"][:8] in line for line in feed.splitlines()), feed

    prompt = other.command("prompt")
    assert f"# Task\ngpt-cpu/{OTHER}:" in prompt
    assert f"another task ({name})" in prompt and win["body"]["title"] not in prompt

    board = other.command("board")
    headings = [line for line in board.splitlines() if line and not line.startswith(" ")]
    assert [heading.split()[0] for heading in headings] == [f"gpt-cpu/{OTHER}", name], board
    rows = [json.loads(line) for line in other.command("board", "--json").splitlines()]
    assert win["id"] in [row["id"] for row in rows if row["size"] == TINY]
    assert all(row["task"] == win["body"]["task"] for row in rows if row["size"] == TINY)
    assert other.stop() == 130 and finder.stop() == 130
