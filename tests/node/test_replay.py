"""What a replay tells programs: the same words as people get, in both cases, beside the exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from swarm_node.node import replay
from swarm_node.node.bench import Bench
from swarm_node.node.home import Home
from swarm_node.node.tasks import remember
from swarm_node.protocols.diffs import EDITABLE, make_diff
from swarm_node.protocols.records import Record
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer.evidence import e_value
from swarm_node.trainer.types import RunResult

from .conftest import Command, Site, claim, faster, same
from .history import BASE, ENVIRONMENT, EVIDENCE, PEER, RUN, TASK, History, changed

ELSEWHERE = ENVIRONMENT.model_copy(update={"device": "another"})
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


def replayed(home: Home, site: Site, monkeypatch: pytest.MonkeyPatch, command: Command, win: Record) -> tuple[Any, str]:
    """What a real replay of a claim tells, on another machine than its author's; the exit code is in it."""
    shutil.copy(site.path, home.ledger)
    with Ledger.open(home.ledger) as ledger:
        remember(ledger, site.task.spec)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Bench]:
        yield Bench([site.executor], lambda *_: None, lambda _: None)

    monkeypatch.setattr(replay, "opened", opened)
    monkeypatch.setattr(replay, "prepare", lambda *_: site.executor.corpus)
    monkeypatch.setattr(replay, "load_known", lambda *_: site.task)
    monkeypatch.setattr(replay, "environment", lambda _: ELSEWHERE)
    monkeypatch.setattr(replay.secrets, "token_bytes", bytes)  # the same seeds and text every time
    site.executor.forget()
    code, out, err = command("replay", win.id.hex()[:8], "--json", "--home", str(home.data))
    assert out, err
    return {**json.loads(out), "code": code}, err


def test_on_another_machine_the_rules_of_a_rerun_decide(
    home: Home, site: Site, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """Real runs: what is not there is refuted, and nothing is measured again that this home knows of the baseline."""
    win = claim(site, same(site.task.baseline), gain=2.0)
    found, err = replayed(home, site, monkeypatch, command, win)
    assert (found["code"], found["agrees"], found["verdict"], found["same_machine"]) == (8, False, "refuted", False)
    assert "less than half of the gain is there" in err and len(found["gains"]) >= 2
    assert len(site.executor.runs) in (
        1 + 2 * len(found["gains"]),
        1 + 2 * len(found["gains"]) + 2,
    )  # budgets corrected


def test_a_simplification_need_not_gain_anything(
    home: Home, site: Site, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """It has to be simpler, and to lose little. That it gains nothing was called a disagreement."""
    baseline = site.task.baseline
    before, after = faster(baseline) + "x = 1\n" * 60, same(baseline)
    with site.opened() as lab:
        lab.programs.store(before)
    shorter = {"aim": "simpler", "parent": program_digest({EDITABLE: before}), "anchor": site.task.spec.baseline}
    shorter["diff"] = make_diff(before, after)
    found, err = replayed(home, site, monkeypatch, command, claim(site, after, gain=0.02, fields=shorter))
    assert (found["code"], found["agrees"]) == (0, True), err
    assert found["verdict"] in ("inconclusive", "confirmed") and len(found["gains"]) >= 2
