"""Claims are re-run by other nodes on their own: true ones are confirmed, made-up ones are found out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.tasks import current_task
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.invites import decode_invite
from swarm_node.protocols.records import Environment, Evidence, Record, Result, Run
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_bytes, program_digest
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Network, NetworkConfig
from swarm_node.trainer import task as tasks

from .conftest import TINY, NodeProcess

Start = Callable[..., NodeProcess]
LIAR = b"l" * 32


def lie(task: tasks.Task, environment: Environment) -> tuple[Result, str]:
    """A well-formed win that nobody ever ran, and its program."""
    source = task.baseline.replace("LR = 1e-3", "LR = 2e-3")
    run = Run(
        arm="candidate", role="confirm", slice="confirm", draw=1, seed=1, steps=task.spec.steps, score=1.0, seconds=1.0,
        digest=b"d" * 32, losses=(5.0, 4.0, 3.0),
    )  # fmt: skip
    result = Result(
        task=task.spec.id, outcome="kept", program=program_digest({EDITABLE: source}), parent=task.spec.baseline,
        normal=normal_digest(source), diff=make_diff(task.baseline, source), title="a miracle", score=1.0,
        parent_score=5.0, gain=4.0, gain_error=0.01, noise=0.01, steps=task.spec.steps, runs=(run,), tags=("lr",),
        evidence=Evidence(pairs=4, required=0.0, low=3.9, high=4.1, e_value=1e6, level=0.01), proposer="offline",
        environment=environment,
    )  # fmt: skip
    return result, source


@pytest.mark.long
def test_a_made_up_win_is_found_out_by_the_first_node_that_re_runs_it(start: Start, tmp_path: Path) -> None:
    """A liar's signed claim spreads; the node re-runs it unasked, says that it is made up, and never offers it."""
    node = start("node", "join", "--host", "127.0.0.1", "--port", "0", "--size", TINY, "--proposer-seed", "4")
    invite = decode_invite(node.wait_for(r"swarm-node join (swarm1\S+)")[1], now=time.time())
    history = node.wait_for_records(lambda seen: any(record["body"].get("outcome") == "baseline" for record in seen))
    baseline = next(record for record in history if record["body"].get("outcome") == "baseline")
    with Ledger.open(node.home / "ledger.sqlite3", read_only=True) as ledger:
        found = ledger.find(baseline["id"])
        assert isinstance(found.body, Result)
        environment = found.body.environment  # the node's own, so that its run must come out bit for bit
        task = current_task(ledger)
    assert task.spec.id == invite.task_id

    def is_about(record: dict[str, Any], win: Record) -> bool:
        return record["kind"] == "verification" and record["body"]["result"] == win.id.hex()

    async def story() -> tuple[Record, dict[str, Any]]:
        with Ledger.open(tmp_path / "liar.sqlite3") as ledger:
            body, source = lie(task, environment)
            ledger.put_blob(program_bytes({EDITABLE: source}))
            config = NetworkConfig(
                seed=LIAR, listen=("/ip4/127.0.0.1/tcp/0",), dial=invite.addresses, task=task.spec.id
            )
            network = Network(config, ledger, on_record=lambda _: None, on_notice=lambda _: None, on_peers=lambda: None)
            await network.start()
            try:
                record = ledger.append(LIAR, body, now_ms=int(time.time() * 1000))
                await network.publish(record)
                enough = lambda seen: any(is_about(one, record) for one in seen)  # noqa: E731
                seen = await asyncio.to_thread(node.wait_for_records, enough, 300)
                return record, next(one for one in seen if is_about(one, record))
            finally:
                await network.stop()

    win, verdict = asyncio.run(story())
    assert win.author == public_key(LIAR)
    assert verdict["body"]["outcome"] == "fabricated" and verdict["body"]["cause"]
    assert [run["role"] for run in verdict["body"]["runs"]] == ["replay"]
    assert "LR = 2e-3" not in node.command("prompt")
    assert "fabricated" in next(
        line for line in node.command("feed", "--no-follow").splitlines() if "a miracle" in line
    )
    assert node.stop() == 130
