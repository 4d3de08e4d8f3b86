"""What commands write where, and what they refuse before they make anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from swarm_node.node import cli, replay
from swarm_node.node.home import Home
from swarm_node.swarm.ledger import Ledger


def test_replay_logs_into_the_homes_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output has the data that was asked for and no log lines."""

    async def logging_replay(*_: object) -> int:
        structlog.get_logger().info("isolation")
        return 0

    home = Home.locate(tmp_path)
    Ledger.open(home.ledger).close()
    with Ledger.open(home.ledger) as ledger:
        ledger.put_blob(b"a ledger that is not empty")
    monkeypatch.setattr(replay, "replay", logging_replay)
    try:
        assert cli.replay("ab", home=tmp_path) == 0
    finally:
        structlog.reset_defaults()
    assert capsys.readouterr().out == "" and '"isolation"' in home.log.read_text()
