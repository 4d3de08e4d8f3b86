"""What is wrong with a command line is said before a node makes or starts anything."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CoercionError
from swarm_node.node import cli
from swarm_node.node.app import Settings
from swarm_node.node.arguments import check, check_address
from swarm_node.node.home import Home
from swarm_node.protocols.errors import MachineError, NetworkError, SwarmNodeError, UsageError
from swarm_node.protocols.invites import Invite, encode_invite
from swarm_node.protocols.names import peer_id

ADDRESS = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes(range(32)))}"
INVITE = encode_invite(Invite(addresses=(ADDRESS,), task="gpt-cpu/60", task_id=bytes(32)))


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        ({"task": "gpt-moon"}, UsageError, "there is no task gpt-moon"),
        ({"task": "gpt-moon", "invite": INVITE}, UsageError, "there is no task gpt-moon"),
        ({"size": "huge"}, UsageError, "no size huge"),
        ({"size": "0"}, UsageError, "no size 0"),
        ({"size": "0", "invite": INVITE}, UsageError, "no size 0"),
        ({"corpus": Path("/dev/zero")}, MachineError, "/dev/zero cannot be a corpus"),
        ({"corpus": Path("/nonexistent")}, MachineError, "cannot read the corpus"),
        ({"program": Path("/dev/zero")}, MachineError, "cannot read the brief"),
        ({"host": "not.an.address"}, UsageError, "--host not.an.address makes no sense"),
        ({"host": "192.0.2.7"}, NetworkError, "no address 192.0.2.7"),
    ],
)
def test_each_is_found_before_a_key_is_made(
    tmp_path: Path, flags: dict[str, Any], kind: type[SwarmNodeError], words: str
) -> None:
    """With what is wrong and what would be right."""
    with pytest.raises(kind, match=words) as caught:
        check(Settings(**flags), Home.locate(tmp_path))
    assert caught.value.fix and not list(tmp_path.iterdir())


def test_a_good_command_line_passes(tmp_path: Path) -> None:
    """Any size in steps; where it listens does not matter to a node that works alone."""
    check(Settings(size="25", corpus=tmp_path, invite=INVITE, host="127.0.0.1", port=0), Home.locate(tmp_path))
    check(Settings(solo=True, host="192.0.2.7"), Home.locate(tmp_path))


def test_taken_port_is_named() -> None:
    """By the same rule by which a node looks for a free one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NetworkError, match=f"port {port} is in use"):
            check_address("127.0.0.1", port)


def test_a_pipe_is_no_brief(tmp_path: Path) -> None:
    """Nobody may ever write into it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MachineError, match="cannot read the brief"):
        check(Settings(program=tmp_path / "pipe"), Home.locate(tmp_path))


@pytest.mark.parametrize(
    "flags",
    [{"price_in": -3.0}, {"price_out": float("nan")}, {"llm_pause": -1.0}, {"llm_share": 1.5}, {"verify": -0.1}],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, flags: dict[str, Any]) -> None:
    """None of them is bent into its range silently."""
    with pytest.raises(UsageError, match=f"--{next(iter(flags)).replace('_', '-')} .* makes no sense") as caught:
        cli.join(home=tmp_path, **flags)
    assert caught.value.fix and not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--experiments", "--port", "--cpus", "--token-limit", "--proposer-seed"])
def test_half_an_experiment_is_refused(tmp_path: Path, flag: str) -> None:
    """A number of things is a whole number, which is not made by rounding."""
    with pytest.raises(CoercionError, match=r"1\.5 is not a whole number"):
        cli.app(["join", flag, "1.5", "--home", str(tmp_path)], exit_on_error=False, print_error=False)
    assert not list(tmp_path.iterdir())
