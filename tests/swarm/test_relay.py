"""Nodes that nobody can dial meet through a relay, which learns nothing and is not to be used up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status, StopMessage
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.relay.circuit_v2.protocol import STOP_PROTOCOL_ID as STOP
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg
from swarm_node.protocols.names import peer_id
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.addresses import author_in, through_relay
from swarm_node.swarm.sync import PROTOCOL as SYNC

from .attacker import attack


async def has_place(node: Any) -> None:
    """It can be dialled through a relay, and has told everybody."""
    await node.until(lambda: any("p2p-circuit" in one for one in node.network.addresses()), "has a place")
    await node.network.announce(node.hello())


def path(node: Any, other: Any) -> str:
    """The address at which a node sees another one."""
    return next(peer.address for peer in node.network.peers() if peer.author == other.author)


@pytest.mark.parametrize("key", [None, b"k" * 32], ids=["open", "private"])
def test_hidden_nodes_meet_through_a_hub(world, key: bytes | None) -> None:
    """Neither listens anywhere. Each says where it can be found, the other goes there; blobs pass, too."""

    async def story() -> None:
        hub = await world.node(1, timing=world.quick, hub=True, key=key)
        one = await world.node(2, hub, timing=world.quick, hidden=True, key=key)
        two = await world.node(3, hub, timing=world.quick, hidden=True, key=key)
        await has_place(one)
        await has_place(two)
        await one.meets(hub, two)
        await two.meets(one)
        relay = peer_id(hub.author)
        assert f"{relay}/p2p-circuit" in path(one, two) and f"{relay}/p2p-circuit" in path(two, one)
        assert hub.network.statistics().reached == 2 and one.network.statistics().reached == 0
        program = one.ledger.put_blob(b"x" * 200_000)
        assert await two.network.fetch(program) == b"x" * 200_000
        await one.holds(await two.write())

    world.run(story())


def test_who_can_be_dialled_is_not_met_through_a_relay(world) -> None:
    """It has a place all the same, since it cannot know; who hears of both ways takes the direct one."""

    async def story() -> None:
        hub = await world.node(1, timing=world.quick, hub=True)
        one = await world.node(2, hub, timing=world.quick)
        await one.until(lambda: any("p2p-circuit" in text for text in one.network.addresses()), "has a place")
        assert any("p2p-circuit" not in text for text in one.network.addresses())
        await one.network.announce(one.hello())
        two = await world.node(3, hub, timing=world.quick)
        await two.meets(one)
        assert "p2p-circuit" not in path(two, one)

    world.run(story())


def test_the_end_of_one_circuit_leaves_the_others(world) -> None:
    """Of three nodes behind a hub that all know each other, one goes."""

    async def story() -> None:
        hub = await world.node(1, timing=world.quick, hub=True)
        nodes = [await world.node(number, hub, timing=world.quick, hidden=True) for number in (2, 3, 4)]
        for node in nodes:
            await has_place(node)
        one, two, three = nodes
        for node in nodes:
            await node.meets(*(other for other in nodes if other is not node))
        since: dict[bytes, int] = {}

        def greeted() -> bool:
            since.update({peer.author: peer.since_ms for peer in one.network.peers() if peer.since_ms})
            return two.author in since

        await one.until(greeted, "knows since when")
        world.nodes.remove(three)
        await three.stop()
        await one.until(lambda: three.author not in one.peers, "it is gone")
        await one.holds(await two.write())
        now = {peer.author: peer.since_ms for peer in one.network.peers()}
        assert now[two.author] == since[two.author] and two.author in one.peers

    world.run(story())


def test_a_write_that_is_cancelled_at_any_moment_leaves_the_connection(world) -> None:
    """Others' streams go over it, and Noise counts what it wrote. So it was when a circuit ended."""

    async def story() -> None:
        node = await world.node(1)

        async def write_and_cancel(host: Any, peer: Any) -> None:
            connections = host.get_network().get_connections(peer)
            for moment in range(40):
                stream = await host.new_stream(peer, [SYNC])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.write, b"x")
                    for _ in range(moment):
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    nursery.cancel_scope.cancel()
                await stream.reset()
            assert len(connections) == 1 and host.get_network().get_connections(peer) == connections

        await asyncio.to_thread(attack, node.address, write_and_cancel)

    world.run(story())


def test_a_circuit_comes_only_from_where_a_place_was_asked(world) -> None:
    """Else anybody could shake hands any number of times, under new names, over one connection."""

    async def story() -> None:
        victim = await world.node(1, timing=world.quick)

        async def knock(host: Any, peer: Any) -> None:
            with pytest.raises(Exception, match=r".*"):  # reset, at whatever point libp2p sees it
                stream = await host.new_stream(peer, [STOP])
                await write_delimited_msg(stream, StopMessage(type=StopMessage.CONNECT, peer=PeerId(id=b"x" * 38)))
                await read_delimited_msg(stream, StopMessage)

        await asyncio.to_thread(attack, victim.address, knock)

    world.run(story())


def test_a_node_that_relays_nothing_gives_no_place(world) -> None:
    """Only hubs relay; a node among equals has its own addresses and no others."""

    async def story() -> None:
        plain = await world.node(1, timing=world.quick)
        one = await world.node(2, plain, timing=world.quick)
        await one.meets(plain)
        await one.holds(await plain.write())
        assert not any("p2p-circuit" in address for address in one.network.addresses())
        assert not await one.network.connect(f"{plain.address}/p2p-circuit/p2p/{peer_id(public_key(b'n' * 32))}")

    world.run(story())


def test_nobody_takes_a_place_for_another(world) -> None:
    """A reservation counts for who asks, whatever name is in it; who has none cannot be reached."""

    async def story() -> None:
        hub = await world.node(1, timing=world.quick, hub=True)
        victim = await world.node(2, hub, timing=world.quick)
        await victim.meets(hub)
        await victim.until(lambda: any("p2p-circuit" in one for one in victim.network.addresses()), "has a place")
        other = ID.from_string(peer_id(public_key(b"other..." * 4)))
        answers: list[int] = []

        async def ask(host: Any, peer: Any) -> None:
            for kind in (HopMessage.RESERVE, HopMessage.CONNECT):
                stream = await host.new_stream(peer, [HOP])
                await write_delimited_msg(stream, HopMessage(type=kind, peer=PeerId(id=other.to_bytes())))
                answers.append((await read_delimited_msg(stream, HopMessage)).status)
                await stream.reset()

        await asyncio.to_thread(attack, hub.address, ask)
        assert answers == [Status.OK, Status.NO_RESERVATION]

    world.run(story())


def test_addresses_behind_relays_are_understood() -> None:
    """Who is at the end is the author; nobody is behind itself, and there is one relay at most."""
    first, second = (peer_id(public_key(bytes([number]) * 32)) for number in (1, 2))
    relay = f"/ip4/192.0.2.7/tcp/4001/p2p/{first}"
    whole = f"{relay}/p2p-circuit/p2p/{second}"
    assert author_in(whole) == public_key(b"\2" * 32) and through_relay(whole) == (relay, second)
    assert author_in(relay) == public_key(b"\1" * 32) and through_relay(relay) is None
    assert author_in(f"{relay}/p2p-circuit/p2p/{first}") is None
    assert author_in(f"{whole}/p2p-circuit/p2p/{first}") is None
