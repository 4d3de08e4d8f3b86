"""A peer on js-libp2p, written from SPEC.md: the wire is plain libp2p, and the specification is enough."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from swarm_node.protocols import vectors
from swarm_node.protocols.signing import public_key

from .conftest import TASK

FOLDER = Path(__file__).resolve().parent.parent / "interop"
SEED = b"j" * 32


@pytest.fixture(scope="module")
def node_js() -> str:
    """Node.js, with the packages of package-lock.json beside the peer."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js and npm")
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            pytest.skip(f"the packages cannot be had: {done.stderr[-300:]}")
    return node


class Peer:
    """A running peer: what it says, and what it is told to publish."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self, word: str) -> dict[str, Any]:
        """Its next line that has this word."""
        assert self._process.stdout is not None
        while line := await asyncio.wait_for(self._process.stdout.readline(), 30):
            said = json.loads(line)
            if word in said:
                return said
        raise AssertionError(f"ended before it said {word}")

    def publish(self, title: str) -> None:
        """A result of its own."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{title}\n".encode())


@asynccontextmanager
async def peer(node_js: str, address: str) -> AsyncIterator[Peer]:
    """A peer that dials `address`."""
    process = await asyncio.create_subprocess_exec(
        node_js, FOLDER / "peer.mjs", SEED.hex(), TASK.hex(), address,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Peer(process)
    finally:
        process.kill()
        await process.wait()


def test_it_reproduces_the_vectors(node_js: str) -> None:
    """Encoding, refusals, ids and signatures, byte for byte."""
    done = subprocess.run([node_js, FOLDER / "vectors.mjs"], capture_output=True, text=True, check=True, timeout=60)
    folder = Path(vectors.__file__).parent
    encodings, records = (json.loads((folder / f"{name}.json").read_text()) for name in ("canonical", "records"))
    assert json.loads(done.stdout) == {
        "accepted": len(encodings["accept"]),
        "refused": len(encodings["reject"]),
        "records": len(records["records"]),
        "wrong": [],
    }


def test_it_joins_verifies_and_publishes(world, node_js: str) -> None:
    """Over two hops: what a node finds reaches the peer, which checks it; what the peer finds is in both ledgers."""

    async def story() -> None:
        near = await world.node(1, timing=world.quick)
        far = await world.node(2, near, timing=world.quick)
        await far.meets(near)
        async with peer(node_js, near.address) as js:
            who = await js.says("peer")
            assert who["author"] == public_key(SEED).hex()
            await near.until(lambda: public_key(SEED) in near.peers, "the peer is connected")
            await js.says("meshed")
            record = await far.write(world.result("found by Python"))
            heard = await js.says("heard")
            assert heard == {
                "heard": record.id.hex(), "author": far.author.hex(), "kind": "result", "title": "found by Python"
            }  # fmt: skip

            js.publish("found by JavaScript")
            js.publish("and another")
            ids = [bytes.fromhex((await js.says("published"))["published"]) for _ in range(2)]
            for node in (near, far):
                await node.until(lambda node=node: all(node.ledger.get(one) for one in ids), "holds the peer's records")
            first, second = (far.ledger.get(one) for one in ids)
            assert first is not None and second is not None and second.prev == first.id
            assert (first.author, first.seq, first.body.title) == (public_key(SEED), 1, "found by JavaScript")
            assert near.network.statistics().invalid == far.network.statistics().invalid == ()

    world.run(story(), 90)
