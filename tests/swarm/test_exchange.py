"""Nodes that share no task find each other through a peer that they share; lies about who is where lead nowhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
from swarm_node.protocols import canonical
from swarm_node.protocols.names import peer_id
from swarm_node.protocols.records import Hello, Lead, sign_notice
from swarm_node.protocols.signing import public_key
from swarm_node.swarm import exchange
from swarm_node.swarm.net import Limits
from swarm_node.swarm.streams import read_frame, write_frame

from .attacker import SEED, attack, invalid


def test_nodes_of_different_tasks_meet_through_a_common_peer(world) -> None:
    """Each knows only the bootstrap; then they hold together without it, and wins cross."""

    async def story() -> None:
        hub = await world.node(1, timing=world.quick, hub=True)
        await hub.network.announce(hub.hello())
        one = await world.node(2, hub, timing=world.quick, task=b"1" * 32)
        two = await world.node(3, hub, timing=world.quick, task=b"2" * 32)
        for node in (one, two):
            await node.network.announce(node.hello())
        await one.meets(hub, two)
        await two.meets(hub, one)
        world.nodes.remove(hub)
        await hub.stop()
        win = await one.write(world.result(outcome="kept", task=b"1" * 32))
        await two.holds(win)

    world.run(story())


@pytest.mark.long
def test_strangers_do_not_fill_the_connections(world) -> None:
    """At most half of those that a node wants go to other tasks, so that its own task's are found."""

    async def story() -> None:
        limits = Limits(connections_wanted=4)
        hub = await world.node(1, timing=world.quick, hub=True)
        others = [
            await world.node(number, hub, timing=world.quick, task=bytes([number]) * 32) for number in range(2, 8)
        ]
        for node in (hub, *others):
            await node.network.announce(node.hello())
        one = await world.node(20, hub, timing=world.quick, limits=limits)
        await one.network.announce(one.hello())
        await one.until(lambda: len(one.peers) >= 2, "some are dialled")
        for _ in range(4):  # of one's own accord, not of theirs
            await one.network.announce(one.hello())
            await hub.holds(await one.write())
        assert one.network.statistics().dials <= 3
        two = await world.node(21, hub, timing=world.quick, limits=limits)
        await two.network.announce(two.hello())
        await one.meets(two)

    world.run(story())


def test_who_hears_of_many_at_once_dials_a_few(world) -> None:
    """Else every node of a swarm is connected to every other one, and that is what its machines are busy with."""

    async def story() -> None:
        limits = Limits(connections_wanted=3)
        hub = await world.node(1, timing=world.quick, hub=True)
        others = [await world.node(number, hub, timing=world.quick, limits=limits) for number in range(2, 12)]
        for node in (hub, *others):
            await node.network.announce(node.hello())
        one = await world.node(20, hub, timing=world.quick, limits=limits)
        await one.network.announce(one.hello())
        await one.until(lambda: len(one.network.present(60)) == 11, "everybody was heard of")
        for node in others:
            await one.holds(await node.write())
        assert one.network.statistics().dials <= 5  # the hub, three, and one whose hello came after it

    world.run(story())


def test_who_comes_is_told_without_a_word_to_everybody(world) -> None:
    """A hello that enough peers heard is not gossiped again for one more: that one gets it from whom it meets."""

    async def story() -> None:
        hub = await world.node(1, timing=world.quick, hub=True)
        others = [await world.node(number, hub, timing=world.quick) for number in range(2, 6)]
        await hub.meets(*others)
        for node in (hub, *others):
            await node.network.announce(node.hello())  # of the hub four hear it: enough
        said = hub.network.statistics().published
        one = await world.node(20, hub, timing=world.quick)
        await one.network.announce(one.hello())
        everybody = {node.author for node in (hub, *others)}
        await one.until(lambda: everybody <= dict(one.network.present(60)).keys(), "everybody was heard of")
        await hub.until(lambda: one.author in dict(hub.network.present(60)), "the newcomer was heard of")
        await asyncio.sleep(5 * world.quick.heartbeat)  # a hello for the newcomer would have been said by now
        assert hub.network.statistics().published == said

    world.run(story())


def hello(**fields: Any) -> Hello:
    base: dict[str, Any] = {"agent": "x", "task": b"t" * 32, "hardware": "cpu", "device": "d", "role": "research"}
    return Hello(**base | fields)


def told(seed: bytes, world: Any, body: Any = None) -> bytes:
    return sign_notice(seed, time=world.now_ms(), body=body or hello()).to_bytes()


@pytest.mark.parametrize("lie", ["another's hello", "no list", "a lead", "garbage", "two hellos"])
def test_a_false_question_is_an_offence(world, lie: str) -> None:
    """And nothing of it is passed on."""

    async def story() -> None:
        victim = await world.node(1, timing=world.quick)
        lead = Lead(task=b"t" * 32, parent=b"p" * 32, normal=b"n" * 32)
        said = {
            "another's hello": canonical.encode({"hellos": [told(b"other..." * 4, world)]}),
            "no list": canonical.encode({"hellos": 7}),
            "a lead": canonical.encode({"hellos": [told(SEED, world, lead)]}),
            "garbage": b"\xc1" * 40,
            "two hellos": canonical.encode({"hellos": [told(SEED, world), told(b"other..." * 4, world)]}),
        }[lie]

        async def ask(host: Any, peer: Any) -> None:
            stream = await host.new_stream(peer, [exchange.PROTOCOL])
            await write_frame(stream, said, 5)
            with pytest.raises(Exception):  # noqa: B017  # reset, however libp2p puts it
                await read_frame(stream, 1 << 20, 5)

        await asyncio.to_thread(attack, victim.address, ask)
        await victim.until(lambda: bool(invalid(victim)), "an offence is counted")

    world.run(story())


def test_a_false_answer_is_an_offence(world) -> None:
    """A hello that nobody signed, in an answer; the address in it is not dialled."""

    async def story() -> None:
        victim = await world.node(1, timing=world.quick)
        await victim.network.announce(victim.hello())
        dials = victim.network.statistics().dials
        forged = bytearray(
            told(
                b"other..." * 4,
                world,
                hello(addresses=(f"/ip4/127.0.0.1/tcp/9/p2p/{peer_id(public_key(b'other...' * 4))}",)),
            )
        )
        forged[-1] ^= 1

        async def lie(stream: Any) -> None:
            await read_frame(stream, 1 << 20, 5)
            await write_frame(stream, canonical.encode({"hellos": [bytes(forged)]}), 5)
            await stream.close()

        async def wait(host: Any, peer: Any) -> None:
            await trio.sleep(3)

        await asyncio.to_thread(attack, victim.address, wait, handlers={exchange.PROTOCOL: lie})
        assert invalid(victim) and victim.network.statistics().dials == dials

    world.run(story())
