"""Real networks on loopback: each node has its own libp2p thread, key, port and SQLite ledger."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from swarm_node.protocols.records import Body, Environment, Hello, Notice, Record, Result
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Limits, Network, NetworkConfig, Timing

TASK = b"t" * 32
SLOW = Timing(heartbeat=0.3, sync=3600, sync_gap=3600, redial=(0.1, 1.0))  # one sync on connect, then gossip alone
QUICK = Timing(heartbeat=0.3, sync=0.5, sync_gap=0.05, redial=(0.1, 1.0), stream=3.0, exchange=0.5)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def result(title: str = "an edit", *, task: bytes = TASK, outcome: str = "discarded", **fields: Any) -> Result:
    """A valid result, different each time."""
    environment = Environment(hardware="cpu", device="d", system="s", python="3", library="torch")
    kept: dict[str, Any] = {}
    if outcome == "kept":
        run = {"arm": "candidate", "role": "confirm", "slice": "confirm", "seed": 1, "steps": 10}
        kept = {
            "diff": "--- a\n",
            "score": 2.0,
            "gain": 0.1,
            "evidence": {"pairs": 4, "required": 0.0, "low": 0.1, "high": 0.2, "e_value": 99.0, "level": 0.05},
            "runs": ({**run, "score": 2.0, "seconds": 1.0, "digest": b""},),
        }
    values: dict[str, Any] = {
        "task": task, "outcome": outcome, "program": os.urandom(32), "parent": b"p" * 32, "normal": os.urandom(32),
        "title": title, "proposer": "offline", "environment": environment,
        **kept, **fields,
    }  # fmt: skip
    return Result.model_validate(values)


_PROCESS = """
import asyncio, sys
from pathlib import Path
import structlog
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Network, NetworkConfig

async def main():
    ledger = Ledger.open(Path(sys.argv[1]))
    config = NetworkConfig(seed=b"c" * 32, listen=(f"/ip4/127.0.0.1/tcp/{sys.argv[2]}",), dial=(), task=b"t" * 32)
    network = Network(config, ledger, on_record=print, on_notice=print, on_peers=lambda: None)
    await network.start()
    print(network.addresses()[0], flush=True)
    await network.crashed

structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stdout))
asyncio.run(main())
"""


class Node:
    """A node and all that it was told."""

    def __init__(self, seed: bytes, path: Path, config: NetworkConfig) -> None:
        self.seed, self.author, self.path, self.config = seed, public_key(seed), path, config
        self.records: list[Record] = []
        self.notices: list[Notice] = []
        self.unstored: list[Record] = []  # reported before they were in the ledger: must stay empty
        self._changed = asyncio.Event()
        self.ledger = Ledger.open(path)
        self.network = Network(
            config, self.ledger, on_record=self._record, on_notice=self._notice, on_peers=self._changed.set
        )

    def _record(self, record: Record) -> None:
        if self.ledger.get(record.id) is None:
            self.unstored.append(record)
        self.records.append(record)
        self._changed.set()

    def _notice(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._changed.set()

    @property
    def address(self) -> str:
        return self.network.addresses()[0]

    @property
    def peers(self) -> set[bytes]:
        return {peer.author for peer in self.network.peers()}

    async def write(self, body: Body | None = None) -> Record:
        """Append to the own log and publish."""
        record = self.ledger.append(self.seed, body or result(), now_ms=now_ms())
        await self.network.publish(record)
        return record

    def note(self, body: Body | None = None) -> Record:
        """Append to the own log only."""
        return self.ledger.append(self.seed, body or result(), now_ms=now_ms())

    def hello(self) -> Hello:
        return Hello(
            agent="test", task=self.config.task, hardware="cpu", device="d", role="research",
            addresses=self.network.addresses(),
        )  # fmt: skip

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Wait until `condition` holds; looked at on every event, and every 50 ms for what raises none."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {seconds} s: {what}; {self.network.peers()}; {self.network.statistics()}"
                )
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0.05)
            except TimeoutError:
                pass

    async def holds(self, *records: Record, seconds: float = 20) -> None:
        """Wait until these records are in the ledger."""
        missing = list(records)

        def all_here() -> bool:
            missing[:] = [record for record in missing if self.ledger.get(record.id) is None]
            return not missing

        await self.until(all_here, f"holds {len(records)} records", seconds)

    async def meets(self, *others: Node, seconds: float = 20) -> None:
        """Wait until these nodes are connected."""
        await self.until(lambda: {other.author for other in others} <= self.peers, "connected", seconds)

    async def stop(self) -> None:
        await self.network.stop()
        self.ledger.close()


class World:
    """Makes nodes and leaves nothing behind."""

    slow, quick = SLOW, QUICK
    result = staticmethod(result)
    now_ms = staticmethod(now_ms)

    @staticmethod
    def timing(**changes: float) -> Timing:
        """Quick timing but for `changes`."""
        return dataclasses.replace(QUICK, **changes)  # type: ignore[arg-type]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[Node] = []
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, story: Coroutine[Any, Any, None], seconds: float = 60) -> None:
        """Run a test's story, then stop every node."""

        async def main() -> None:
            try:
                await asyncio.wait_for(story, seconds)
            finally:
                await asyncio.gather(*(node.stop() for node in self.nodes))
            assert not any(node.unstored for node in self.nodes)

        asyncio.run(main())

    async def node(
        self, number: int, *dial: Node | str, timing: Timing = SLOW, limits: Limits | None = None, home: str = "",
        port: int = 0, task: bytes = TASK, hub: bool = False, hidden: bool = False, **fields: Any,
    ) -> Node:  # fmt: skip
        """Start node `number` (its key and home follow from that), which dials the others. A `hidden` one cannot be
        dialled."""
        config = NetworkConfig(
            seed=number.to_bytes(32, "big"),
            listen=() if hidden else (f"/ip4/127.0.0.1/tcp/{port}",),
            dial=tuple(other if isinstance(other, str) else other.address for other in dial),
            task=task,
            hub=hub,
            timing=timing,
            limits=limits or Limits(),
            **fields,
        )
        node = Node(config.seed, self.folder / f"{home or number}.ledger", config)
        self.nodes.append(node)
        await node.network.start()
        return node

    def process(self, port: int = 0) -> tuple[subprocess.Popen[str], str]:
        """A node in a process of its own, and its address."""
        path = self.folder / "process.ledger"
        process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(path), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    async def restart(self, node: Node, **changes: Any) -> Node:
        """Stop a node and start it again with the same key, ledger and port."""
        port = int(node.address.split("/")[4])
        await node.stop()
        self.nodes.remove(node)
        config = dataclasses.replace(node.config, listen=(f"/ip4/127.0.0.1/tcp/{port}",), **changes)
        again = Node(node.seed, node.path, config)
        self.nodes.append(again)
        await again.network.start()
        return again


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()
