"""What commands write where, what they refuse before they make anything, and what the command line says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import structlog
import zxingcpp
from cyclopts import App
from swarm_node.node import cli, replay
from swarm_node.node.home import Home
from swarm_node.swarm.ledger import Ledger

from .conftest import Command


def filled(home: Home) -> None:
    """A ledger with nothing in it that a command would show."""
    home.create()
    with Ledger.open(home.ledger) as ledger:
        ledger.put_blob(b"a ledger that is not empty")


def test_replay_logs_into_the_homes_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output has the data that was asked for and no log lines."""

    async def logging_replay(*_: object) -> int:
        structlog.get_logger().info("isolation")
        return 0

    home = Home.locate(tmp_path)
    filled(home)
    monkeypatch.setattr(replay, "replay", logging_replay)
    try:
        assert cli.replay("ab", home=tmp_path) == 0
    finally:
        structlog.reset_defaults()
    assert capsys.readouterr().out == "" and '"isolation"' in home.log.read_text()


def test_without_arguments_the_three_to_learn_are_shown(command: Command) -> None:
    """And how to see the others."""
    code, out, err = command()
    named = [line.split()[0] for line in out.splitlines() if line[:2] == "  " and line[2] != " "]
    assert (code, err, named) == (0, "", ["join", "bootstrap", "feed"]) and "--help" in out


def test_every_command_is_in_the_help(command: Command) -> None:
    """With a sentence that says what it is good for."""
    _, out, _ = command("--help")
    names = [name for name in cli.app if not name.startswith("-")]
    assert len(names) >= 17
    for name in names:
        (line,) = [line for line in out.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("joim",), 'Did you mean "join"?'),
        (("stats",), 'Did you mean "status"?'),
        (("config", "shew"), 'Did you mean "show"?'),
        (("export", "--formt", "tsv"), "Did you mean --format?"),
        (("export", "--format", "jsn"), 'Did you mean "jsonl"?'),
        (("config", "show", "--sise", "long"), "Did you mean --size?"),
    ],
)
def test_what_was_meant_is_guessed(command: Command, words: tuple[str, ...], hint: str) -> None:
    """In one error with the way on, as every other."""
    code, out, err = command(*words)
    assert (code, out) == (2, "") and err.startswith("error: ") and hint in err
    assert f"swarm-node {words[0]} --help" in err or "swarm-node --help" in err or "swarm-node join --help" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(command: Command, shell: str) -> None:
    """Printed without a network and without starting anything; how to install it is no part of it."""
    code, out, err = command("completion", shell)
    assert code == 0 and all(name in out for name in ("bootstrap", "export", "metrics")) and "install it" in err
    assert "install it" not in out


def test_completion_works_in_bash(command: Command, tmp_path: Path) -> None:
    """Commands by their start, values by their flag."""
    (tmp_path / "it").write_text(command("completion", "bash")[1])
    script = """. ./it; COMP_WORDS=(swarm-node boo); COMP_CWORD=1; _swarm_node; echo ${COMPREPLY[@]}
    COMP_WORDS=(swarm-node export --format ""); COMP_CWORD=3; _swarm_node; echo ${COMPREPLY[@]}"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["bootstrap", "tsv jsonl png"]


def test_all_that_read_the_ledger_say_when_there_is_none(command: Command, tmp_path: Path) -> None:
    """And make none."""
    reading = ("board", "status", "peers", "prompt", "invite", "export", "metrics", "show abcd", "apply abcd")
    for words in reading:
        code, out, err = command(*words.split(), "--home", str(tmp_path / "none"))
        assert (code, out) == (3, "") and "fix: start one: swarm-node join" in err, words
    assert not (tmp_path / "none").exists()


def test_no_node_has_no_invite(command: Command, tmp_path: Path) -> None:
    """What a killed one left in the ledger is none."""
    home = Home.locate(tmp_path)
    filled(home)
    with Ledger.open(home.ledger) as ledger:
        ledger.set_status(json.dumps({"pid": 1, "task": "gpt-cpu/short", "invite": "swarm1x"}))
    assert command("invite", "--home", str(tmp_path))[0] == 3
    with home.locked():
        assert command("invite", "--home", str(tmp_path))[1] == "swarm1x\n"
        assert seen_by_a_camera(command("invite", "--qr", "--home", str(tmp_path))[1]).lower() == "swarm1x"
        said = json.loads(command("invite", "--json", "--home", str(tmp_path))[1])
    assert said == {"invite": "swarm1x", "task": "gpt-cpu/short"}


def seen_by_a_camera(text: str) -> str:
    """What a QR code in a terminal says: each character is two modules, the upper one and the lower one."""
    halves = {
        " ": (0, 0),
        "\N{UPPER HALF BLOCK}": (255, 0),
        "\N{LOWER HALF BLOCK}": (0, 255),
        "\N{FULL BLOCK}": (255, 255),
    }
    rows = [[[halves[character][half] for character in line] for half in (0, 1)] for line in text.splitlines()]
    image = np.array([row for pair in rows for row in pair], dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    (code,) = zxingcpp.read_barcodes(image)
    return code.text


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    """`swarm-node metrics | true` says nothing and leaves no crash report."""
    filled(Home.locate(tmp_path))
    line = f"{sys.executable} -m swarm_node.node.cli metrics --home {tmp_path} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "") and not list(tmp_path.glob("crash*"))


def test_a_full_disk_behind_stdout_is_one_error(tmp_path: Path) -> None:
    """With the exit code of the machine, and no complaint of the interpreter."""
    filled(Home.locate(tmp_path))
    line = [sys.executable, "-m", "swarm_node.node.cli", "metrics", "--home", str(tmp_path)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == 4 and done.stderr.startswith("error: ") and "Exception" not in done.stderr


def test_commands_are_an_app() -> None:
    """The entry point's module holds what tests and documentation use."""
    assert isinstance(cli.app, App) and callable(cli.main)
