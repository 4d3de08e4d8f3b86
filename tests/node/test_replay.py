"""What a replay tells programs: the same words as people get, in both cases, beside the exit code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from swarm_node.node import replay
from swarm_node.node.home import Home
from swarm_node.node.tasks import remember
from swarm_node.protocols.records import Record
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer.evidence import e_value
from swarm_node.trainer.types import RunResult

from .conftest import Command
from .history import BASE, ENVIRONMENT, EVIDENCE, PEER, RUN, TASK, History, changed

REPORTED = RUN.model_copy(update={"draw": 5, "digest": b"d" * 32})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.locate(tmp_path / "home")
    home.create()
    yield home
    structlog.reset_defaults()


def claimed(home: Home, monkeypatch: pytest.MonkeyPatch, digest: bytes) -> Record:
    """A win in the ledger, on a machine like its author's whose runs end with this digest."""
    beaten = REPORTED.model_copy(update={"arm": "parent", "seed": 2, "score": 3.1})
    found = EVIDENCE.model_copy(update={"pairs": 1, "e_value": e_value([beaten.score - 3.0])})
    source = changed(BASE, ("HEADS = 2 ", "HEADS = 4 "))
    win = History().won(PEER, BASE, source, runs=(REPORTED, beaten), evidence=found, gain=beaten.score - 3.0)
    with Ledger.open(home.ledger) as ledger:
        remember(ledger, TASK.spec)
        ledger.add(win, received_ms=1)

    async def run(*_: object) -> RunResult:
        return RunResult("ok", "", {"confirm": 3.0}, None, 9, 1.0, 1.0, 0.0, 1, (), (), digest.hex(), "")

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(run=run)

    monkeypatch.setattr(replay, "opened", opened)
    monkeypatch.setattr(replay, "prepare", lambda *_: SimpleNamespace(digest=TASK.spec.data.hex()))
    monkeypatch.setattr(replay, "environment", lambda _: ENVIRONMENT)
    return win


def test_agreement(home: Home, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """Says what was compared; stdout has one line and that is JSON."""
    win = claimed(home, monkeypatch, REPORTED.digest)
    code, out, _ = command("replay", win.id.hex()[:8], "--json", "--home", str(home.data))
    said = json.loads(out)
    assert (code, said["id"], said["agrees"], said["same_machine"]) == (0, win.id.hex(), True, True)
    assert (said["recorded"], said["here"], said["trace"]) == (3.0, 3.0, "the same, bit for bit")
    text = command("replay", win.id.hex()[:8], "--home", str(home.data))[1]
    assert "the same, bit for bit" in text and not text.startswith("{")


def test_disagreement(home: Home, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """Is told too, before the error that ends the command."""
    win = claimed(home, monkeypatch, b"e" * 32)
    code, out, err = command("replay", win.id.hex()[:8], "--json", "--home", str(home.data))
    said = json.loads(out)
    assert (code, said["agrees"]) == (8, False) and "gets another model" in said["problem"] and "error:" in err


def test_a_record_that_contradicts_itself(home: Home, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """Its run is repeated bit for bit, and its gain is another than that of its runs."""
    monkeypatch.setattr("tests.node.test_replay.e_value", lambda gains: 999.0)
    win = claimed(home, monkeypatch, REPORTED.digest)
    code, _, err = command("replay", win.id.hex()[:8], "--home", str(home.data))
    assert code == 8 and "the record contradicts itself" in err and "its e-value is not that of the runs" in err
