"""A part that fails begins again, and the others go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from swarm_node.node.app import Node, Settings
from swarm_node.node.home import Home
from swarm_node.node.screen import Screen
from swarm_node.node.supervision import Supervision
from swarm_node.protocols.errors import ConfigError, MachineError
from swarm_node.trainer import task as tasks


def test_crashed_part_begins_again_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Known errors and bugs alike; each is told in one line, with its pause."""
    failures = [MachineError("the disk is full", fix="free some"), ZeroDivisionError("x")]
    supervision = Supervision(Screen(), pauses=(0.0, 0.01))

    async def part() -> None:
        if failures:
            raise failures.pop(0)

    with capture_logs() as logs:
        asyncio.run(supervision.keep("worker", part))
    assert supervision.crashes == {"worker": 2}
    assert "exc_info" not in logs[1] and "ZeroDivisionError: x" in logs[1]["exception"]  # no locals, which take seconds
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "the disk is full" in told[0] and "a bug: ZeroDivisionError" in told[1]


def test_what_a_person_must_solve_is_raised() -> None:
    """A damaged ledger is not opened again and again."""
    supervision = Supervision(Screen(quiet=True), pauses=(0.0,))

    async def part() -> None:
        raise ConfigError("the ledger is damaged")

    with pytest.raises(ConfigError):
        asyncio.run(supervision.keep("worker", part))
    assert not supervision.crashes


def test_failing_part_leaves_others_alone() -> None:
    """One part crashes again and again while another does its work."""
    supervision = Supervision(Screen(quiet=True), pauses=(0.0,))

    async def story() -> None:
        often = asyncio.Event()

        async def broken() -> None:
            if supervision.crashes["broken"] == 20:
                often.set()
            raise RuntimeError("broken")

        async def sound() -> None:
            await often.wait()

        keeping = asyncio.create_task(supervision.keep("broken", broken))
        await asyncio.wait_for(supervision.keep("sound", sound), 10)
        assert not keeping.done() and not supervision.crashes["sound"]
        keeping.cancel()

    asyncio.run(story())


def test_crash_of_libp2p_is_mended_on_the_same_port(tmp_path: Path) -> None:
    """The network thread dies of an error; the node counts it, starts another one, and its ledger goes on."""
    home = Home.locate(tmp_path)
    home.create()

    async def story() -> None:
        node = Node(Settings(home=tmp_path, host="127.0.0.1", port=0), home, Screen(quiet=True), "bootstrap")
        node.supervision = Supervision(node.screen, pauses=(0.0,))
        task = tasks.load("gpt-cpu", "short", bytes(32))
        await node.presence.start(task.spec, {})
        first = node.presence.network
        assert first is not None and first._token is not None
        duties = asyncio.create_task(node.duties())
        first._token.run_sync_soon(lambda: 1 / 0)  # an error that nothing in libp2p catches
        await asyncio.wait_for(asyncio.shield(first.crashed), 10)
        async with asyncio.timeout(10):
            while (now := node.presence.network) in (None, first) or now is None or not now.addresses():
                assert not duties.done()
                await asyncio.sleep(0.01)
        assert node.supervision.crashes == {"network": 1}
        node.ledger.put_blob(b"still here")
        duties.cancel()
        await node.close()

    asyncio.run(story())
