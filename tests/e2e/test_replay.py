"""`swarm-node replay`: anybody can repeat a number, and a made-up one is found out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from swarm_node.node.home import Home
from swarm_node.protocols.records import Record, Result
from swarm_node.swarm.identity import load
from swarm_node.swarm.ledger import Ledger

from .conftest import TINY, NodeProcess, run_command

Start = Callable[..., NodeProcess]


@pytest.mark.long
def test_a_record_is_repeated_and_a_forged_one_is_refuted(start: Start) -> None:
    """The baseline's run comes out bit for bit; the same record with a better score, or from elsewhere with other
    losses, ends with exit code 8."""
    node = start("solo", "join", "--solo", "--size", TINY, "--experiments", "1", "--proposer-seed", "91")
    assert node.process.wait(400) == 0
    home = Home.locate(node.home)
    with Ledger.open(home.ledger) as ledger:
        (baseline,) = [r for r in ledger.all_records() if isinstance(r.body, Result) and r.body.outcome == "baseline"]
        assert isinstance(baseline.body, Result)
        run = baseline.body.runs[0]

        def forged(environment: str = "", **changes: object) -> Record:
            body = baseline.body.model_copy(update={"runs": (run.model_copy(update=changes),)})
            if environment:
                body = body.model_copy(
                    update={"environment": body.environment.model_copy(update={"device": environment})}
                )
            return ledger.append(load(home.key), body, now_ms=baseline.time + 1)

        better = forged(score=1.0)
        other = forged(digest=bytes(32))
        foreign = forged("another processor", digest=bytes(32))
        invented = forged("another processor", digest=bytes(32), losses=tuple(loss / 2 for loss in run.losses))
    cases = (
        (baseline, 0, "bit for bit"), (better, 8, "made up"), (other, 8, "another model"),
        (foreign, 0, "as on another machine"), (invented, 8, "not made by this program"),
    )  # fmt: skip
    for record, code, words in cases:
        done = run_command(["replay", record.id.hex()[:12], "--home", str(node.home)], timeout=120)
        assert (done.returncode, words in done.stdout + done.stderr) == (code, True), (words, done.stdout, done.stderr)
    assert run_command(["replay", "ffffffff", "--home", str(node.home)]).returncode == 2
    assert not list(home.data.glob("replay-*"))
