"""A node alone: no key, no GPU, no network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from .conftest import TINY, NodeProcess, run_command

Start = Callable[..., NodeProcess]
SOLO = ("join", "--solo", "--size", TINY)
SLOW = ("join", "--solo", "--size", "450")  # so that a run takes longer than it takes until a line says what runs


def test_nothing_slow_is_imported_before_the_first_line() -> None:
    """It comes within half a second then. (Seconds on a shared machine would say less.)"""
    slow = "uvloop pydantic sqlite3 structlog numpy scipy torch trio libp2p openai starlette zeroconf".split()
    watch = """
import sys
from swarm_node.node import cli, screen

def say(self, text):
    print(text, *(set(sys.modules) & set(sys.argv[1:])))
    sys.exit()

screen.Screen.say = say
cli.join()
"""
    done = subprocess.run([sys.executable, "-c", watch, *slow], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"swarm-node [\d.]+", done.stdout.strip()), done.stdout


@pytest.mark.long
def test_experiments_limit_counts_finished_and_exits_0(start: Start) -> None:
    """`--experiments 2` ends by itself after two recorded experiments, which `feed` lists and `show` explains."""
    node = start("solo", *SOLO, "--experiments", "2", "--proposer-seed", "91")
    assert node.process.wait(400) == 0
    outcomes = [record["body"]["outcome"] for record in node.records()]
    assert len([outcome for outcome in outcomes if outcome != "baseline"]) == 2
    shown = [line for line in node.lines if line.lstrip().startswith("#")]
    assert len(shown) == 2
    for text in ("machine", "task", "ideas", "isolation", "baseline"):
        assert any(line.strip().startswith(text) for line in node.lines), text
    record = next(r for r in node.records() if r["body"]["outcome"] != "baseline")
    text = node.command("show", record["id"][:8])
    assert record["body"]["title"] in text and "logits" in text
    assert json.loads(node.command("show", record["id"][:8], "--json")) == record
    unknown = run_command(["show", "ffffffff", "--home", str(node.home)])
    assert unknown.returncode == 2 and "no record starts with" in unknown.stderr
    assert record["id"][:8] in node.command("feed", "--no-follow")


@pytest.mark.long
def test_kill_at_any_moment_loses_no_finished_run(start: Start) -> None:
    """SIGKILL in calibration, baseline, screening and confirmation: every restart resumes, ids and numbers stay."""
    seen: dict[str, int] = {}
    args = (*SLOW, "--proposer-seed", "91")
    for moment in ("isolation", r"baseline on a fresh seed|baseline +\d", r"\(screen\)", r"\(candidate-1\)", r"#\d+ "):
        node = start("solo", *args)
        node.wait_for(moment, 400)  # a dozen ideas may come before one that is promoted
        node.kill()
        now = {record["id"]: record["seq"] for record in node.records()}
        assert seen.items() <= now.items()
        seen = now
    node = start("solo", *args, "--experiments", "1")
    assert node.process.wait(400) == 0
    records = node.records()
    assert seen.items() <= {record["id"]: record["seq"] for record in records}.items()
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))


@pytest.mark.long
def test_ctrl_c_exits_130_and_the_experiment_is_resumed(start: Start) -> None:
    """The first Ctrl-C stops politely; the next start takes up the dropped experiment by name."""
    node = start("solo", *SLOW, "--proposer-seed", "91")
    title = node.wait_for(r"running (.*) \(screen\)", 120)[1]
    assert node.stop() == 130
    again = start("solo", *SLOW, "--proposer-seed", "91")
    again.wait_for(f"resuming +{title}", 60)
    assert again.stop() == 130
