"""Discovery on the local network, over the loopback interface."""

from __future__ import annotations

import asyncio

import pytest
from swarm_node.protocols.names import peer_id
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.lan import SERVICE, discover, near
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

pytestmark = pytest.mark.xdist_group("e2e")  # whoever is on this machine's network is found: one test at a time

ANN, BEN, EVE = (public_key(bytes([number]) * 32) for number in (1, 2, 3))


def at(author: bytes, port: int) -> tuple[str, ...]:
    return (f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id(author)}",)


class Finder:
    """A node that looks around, and whom it found."""

    def __init__(self, author: bytes, port: int, key: bytes | None = None) -> None:
        self.found: dict[bytes, tuple[str, ...]] = {}
        self._new = asyncio.Condition()
        self.task = asyncio.create_task(discover(at(author, port), self._tell, key))

    async def _tell(self, author: bytes, addresses: tuple[str, ...]) -> None:
        async with self._new:
            self.found[author] = addresses
            self._new.notify_all()

    async def meets(self, *authors: bytes) -> None:
        async with asyncio.timeout(20), self._new:
            await self._new.wait_for(lambda: self.found.keys() >= set(authors))


async def stopped(*finders: Finder) -> None:
    for finder in finders:
        finder.task.cancel()
    await asyncio.wait([finder.task for finder in finders])


def test_two_nodes_find_each_other() -> None:
    """And neither themselves nor one of a private swarm."""

    async def main() -> None:
        eve = Finder(EVE, 4103, b"k" * 32)
        ann, ben = Finder(ANN, 4101), Finder(BEN, 4102)
        await ann.meets(BEN)
        await ben.meets(ANN)
        assert ann.found == {BEN: at(BEN, 4102)} and ben.found == {ANN: at(ANN, 4101)} and not eve.found
        await stopped(ann, ben, eve)

    asyncio.run(main())


def test_what_a_stranger_announces_is_only_a_hint() -> None:
    """Names that are no identity and addresses of the internet lead nowhere; a crowd of them hides nobody."""

    def service(name: str, *hosts: str) -> AsyncServiceInfo:
        kind, server = f"{name}.{SERVICE}", f"{name[-4:].strip()}.local."
        return AsyncServiceInfo(SERVICE, kind, port=4103, server=server, parsed_addresses=[*hosts])

    async def main() -> None:
        async with AsyncZeroconf(interfaces=["127.0.0.1"]) as stranger:
            crowd = [service(f"nobody {number}", "127.0.0.1") for number in range(80)]
            false = [service("../../etc/passwd", "127.0.0.1"), service(peer_id(EVE), "8.8.8.8", "192.0.2.1")]
            every = (*crowd, *false)
            told = await asyncio.gather(*(stranger.async_register_service(one) for one in every))
            await asyncio.gather(*told)
            ann, ben = Finder(ANN, 4101), Finder(BEN, 4102)
            await ann.meets(BEN)
            await ben.meets(ANN)
            assert EVE not in ann.found and EVE not in ben.found
            await stopped(ann, ben)

    asyncio.run(main())


def test_only_addresses_of_this_network_are_dialled() -> None:
    """Not the internet's, not this machine's; those alone for a node that is for this machine alone."""
    home, world, self = (at(BEN, 1)[0].replace("127.0.0.1", host) for host in ("192.168.1.7", "8.8.8.8", "127.0.0.1"))
    assert near((world, home, self), alone=False) == (home,)
    assert near((world, home, self), alone=True) == (self,)
