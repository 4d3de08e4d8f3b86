"""Blobs: programs by digest, verified, from whoever has them."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.errors import NetworkError
from swarm_node.swarm.blobs import MAX_BLOB


def test_program_is_fetched_from_whoever_has_it(world) -> None:
    """A program of the largest size comes from the one peer that has it, and from the own ledger without any."""

    async def story() -> None:
        without = await world.node(1)
        having = await world.node(2, without)
        asking = await world.node(3, without, having)
        await asking.meets(without, having)
        for size in (0, 1, 70_000, MAX_BLOB):
            data = os.urandom(size)
            having.ledger.put_blob(data)
            assert await asking.network.fetch(digest(data)) == data
        asking.ledger.put_blob(b"mine")
        assert await asking.network.fetch(digest(b"mine")) == b"mine"

    world.run(story())


@pytest.mark.parametrize("capped", ["who gives", "who asks"])
def test_bandwidth_has_a_cap(world, capped: str) -> None:
    """Programs and history take the time that they must; what is small is let through meanwhile."""
    cap = 500_000

    async def story() -> None:
        caps = {"who gives": (cap, None), "who asks": (None, cap)}[capped]
        giver = await world.node(1, bytes_per_second=caps[0])
        asker = await world.node(2, giver, bytes_per_second=caps[1])
        await asker.meets(giver)
        programs = [os.urandom(MAX_BLOB) for _ in range(4)]
        for data in programs:
            giver.ledger.put_blob(data)
        began = time.monotonic()
        fetching = asyncio.gather(*(asker.network.fetch(digest(data)) for data in programs))
        record = await giver.write()
        await asker.holds(record)
        assert not fetching.done()
        assert await fetching == programs
        assert time.monotonic() - began >= 4 * MAX_BLOB / cap - 0.5
        here, there = asker.network.statistics(), giver.network.statistics()
        assert here.bytes_in > 4 * MAX_BLOB and there.bytes_out > 4 * MAX_BLOB and here.bytes_out < 200_000

    world.run(story())


def test_program_that_nobody_has_is_an_error(world) -> None:
    """Nobody having it, and nobody being there, are said apart; what is over the limit is not served."""

    async def story() -> None:
        alone = await world.node(1)
        with pytest.raises(NetworkError, match="no connected peer has") as refused:
            await alone.network.fetch(b"d" * 32)
        assert refused.value.why == "no peer is connected"
        other = await world.node(2, alone)
        await alone.meets(other)
        with pytest.raises(NetworkError) as refused:
            await alone.network.fetch(b"d" * 32)
        assert refused.value.why == "1 were asked"
        with pytest.raises(NetworkError):
            await alone.network.fetch(other.ledger.put_blob(bytes(MAX_BLOB + 1)))

    world.run(story())
