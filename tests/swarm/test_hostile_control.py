"""What a hostile peer says beside messages, to libp2p's gossip itself, leaves nothing here and reaches nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import multiaddr
import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed, read_varint_prefixed_bytes
from swarm_node.swarm import hardened

from .attacker import GOSSIP, KEYS, RESULTS, SEED, attack, controlling, invalid, message, record, writing

EVIL = ID.from_pubkey(KEYS.public_key)


def gossip_of(node: Any) -> hardened.SafeGossip:
    return node.network._overlay._host.gossip


def spoken(one: Any, **fields: Any) -> bytes:
    """The frame that says this record."""
    return rpc_pb2.RPC(publish=[message(one.to_bytes(), **fields)]).SerializeToString()


def last_word(world: Any) -> Any:
    """A record of the attacker: when it is there, what was said before it has been heard."""
    return record(SEED, world.result())


@contextlib.asynccontextmanager
async def connected(node: Any, *frames: bytes, **how: Any) -> AsyncIterator[None]:
    """An attacker has sent these frames, and stays until the end."""
    over = threading.Event()

    async def stay(host: Any, peer: Any) -> None:
        await writing(*frames, linger=0.0)(host, peer)
        await trio.to_thread.run_sync(over.wait)

    attacking = asyncio.ensure_future(asyncio.to_thread(attack, node.address, stay, **how))
    try:
        yield
    finally:
        over.set()
        await attacking


def test_control_messages_for_invented_topics_leave_nothing(world) -> None:
    """9 bytes of PRUNE were 312 bytes here, for good; GRAFTs and IHAVEs were remembered, too."""
    names = [os.urandom(3).hex() for _ in range(2000)]
    frames = controlling(
        *(rpc_pb2.ControlMessage(prune=[rpc_pb2.ControlPrune(topicID=name) for name in names[at : at + 100]])
          for at in range(0, 2000, 100)),
        rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=name) for name in names[:100]]),
        rpc_pb2.ControlMessage(ihave=[rpc_pb2.ControlIHave(topicID=name, messageIDs=[b"x"]) for name in names[:100]]),
    )  # fmt: skip

    async def story() -> None:
        victim = await world.node(1, timing=world.timing(heartbeat=3600))  # whose heartbeat would forget some of it
        said = last_word(world)
        async with connected(victim, *frames, spoken(said)):
            await victim.holds(said)
            gossip = gossip_of(victim)
            ours = set(gossip.mesh)
            assert set(gossip.back_off) <= ours
            for memory in (gossip.graft_flood_tracking, gossip.ihave_message_limits, gossip.scorer.time_in_mesh):
                assert set(memory.get(EVIL, ())) <= ours

    world.run(story())


def test_a_prune_makes_nobody_dial(world) -> None:
    """A peer that names others with a PRUNE had them dialled at once, whatever the dialler thinks of it."""
    keys = create_new_key_pair(b"z" * 32)
    with socket.create_server(("127.0.0.1", 0)) as third:
        third.setblocking(False)
        where = multiaddr.Multiaddr(f"/ip4/127.0.0.1/tcp/{third.getsockname()[1]}")
        name = ID.from_pubkey(keys.public_key)
        signed = seal_record(PeerRecord(name, [where]), keys.private_key).marshal_envelope()
        peers = [rpc_pb2.PeerInfo(peerID=name.to_bytes(), signedPeerRecord=signed)]
        prune = rpc_pb2.ControlMessage(prune=[rpc_pb2.ControlPrune(topicID=RESULTS, peers=peers)])

        async def story() -> None:
            victim = await world.node(1)
            said = last_word(world)
            async with connected(victim, *controlling(prune), spoken(said)):
                await victim.holds(said)
                assert EVIL in gossip_of(victim).back_off[RESULTS]
                with pytest.raises(BlockingIOError):
                    third.accept()

        world.run(story())


def test_a_back_off_is_over_some_time(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a peer asks for; libp2p keeps each one until that peer asks again."""
    monkeypatch.setattr(hardened, "_BACK_OFF_SECONDS", 1)
    monkeypatch.setattr("swarm_node.swarm.gossip._HOUSEKEEPING_SECONDS", 0.05)
    prune = rpc_pb2.ControlMessage(prune=[rpc_pb2.ControlPrune(topicID=RESULTS, backoff=2**63)])

    async def story() -> None:
        victim = await world.node(1)
        async with connected(victim, *controlling(prune)):
            await victim.until(lambda: EVIL in gossip_of(victim).back_off.get(RESULTS, {}), "pruned")
        await victim.until(lambda: EVIL not in gossip_of(victim).back_off[RESULTS], "forgotten")

    world.run(story())


def test_who_let_nobody_write_to_it_leaves_the_mesh_when_it_goes(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """libp2p forgot only those to whom it had a stream: six such filled a mesh for good."""
    monkeypatch.setattr("swarm_node.swarm.gossip._HOUSEKEEPING_SECONDS", 0.05)
    graft = rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=RESULTS)])

    async def story() -> None:
        victim = await world.node(1)
        async with connected(victim, *controlling(graft), deaf=True):
            await victim.until(lambda: EVIL in gossip_of(victim).mesh[RESULTS], "in the mesh")
        await victim.until(lambda: EVIL not in gossip_of(victim).mesh[RESULTS], "out of it")
        assert EVIL not in gossip_of(victim).scorer.time_in_mesh

    world.run(story())


def test_a_message_is_sent_once_however_often_one_question_names_it(world) -> None:
    """A megabyte of names was an answer of 1.5 GB."""
    first, other = b"1" * 8, b"2" * 8
    heard: dict[bytes, int] = {}
    all_heard = threading.Event()

    async def listen(stream: Any) -> None:
        while True:
            rpc = rpc_pb2.RPC.FromString(await read_varint_prefixed_bytes(stream))
            for one in rpc.publish:
                heard[one.seqno] = heard.get(one.seqno, 0) + 1
            if other in heard:
                all_heard.set()

    async def story() -> None:
        victim = await world.node(1)
        one = record(SEED, world.result())
        two = record(SEED, world.result(), seq=2, prev=one.id)
        names = [EVIL.to_bytes() + seqno for seqno in (first, other)]
        spellings = [names[0], names[0].hex().encode(), names[0].hex().upper().encode()] * 20
        asked = controlling(
            rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant(messageIDs=spellings)]),
            rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant(messageIDs=names[1:])]),
        )

        async def ask(host: Any, peer: Any) -> None:
            stream = await host.new_stream(peer, [GOSSIP])
            for frame in (spoken(one, seqno=first), spoken(two, seqno=other)):
                await stream.write(encode_varint_prefixed(frame))
            await trio.to_thread.run_sync(stored.wait)
            for frame in asked:
                await stream.write(encode_varint_prefixed(frame))
            await trio.to_thread.run_sync(all_heard.wait)

        stored = threading.Event()
        attacking = asyncio.ensure_future(asyncio.to_thread(attack, victim.address, ask, handlers={GOSSIP: listen}))
        await victim.holds(one, two)
        stored.set()
        await attacking
        assert heard == {first: 1, other: 1}

    world.run(story())


def test_a_message_with_a_long_number_is_not_kept(world) -> None:
    """What tells messages apart is remembered for ten minutes; it may be as long as the largest RPC."""

    async def story() -> None:
        victim = await world.node(1)
        said = last_word(world)
        long = record(SEED, world.result(), seq=2, prev=said.id)
        async with connected(victim, spoken(long, seqno=bytes(500_000)), spoken(said)):
            await victim.holds(said)
        pubsub = victim.network._overlay._host.pubsub
        assert all(len(name) < 100 for name in (*pubsub.seen_messages.cache, *pubsub.validation_cache.cache))
        assert victim.ledger.get(long.id) is None and invalid(victim) == {}

    world.run(story())


def test_subscribing_again_and_again_without_reading_keeps_nothing_waiting(world) -> None:
    """Each subscription was answered by a task that waited for the reader."""
    flap = [rpc_pb2.RPC.SubOpts(subscribe=on, topicid=RESULTS) for on in (True, False)]
    frames = [rpc_pb2.RPC(subscriptions=flap).SerializeToString()] * 400

    async def story() -> None:
        victim = await world.node(1, timing=world.timing(heartbeat=3600))  # until which it has something to answer
        large = record(SEED, world.result(outcome="kept", diff="-" * 30_000))
        after = record(SEED, world.result(), seq=2, prev=large.id)
        async with connected(victim, spoken(large), *frames, spoken(after)):
            await victim.holds(large, after)
            token = victim.network._token
            living = await asyncio.to_thread(
                trio.from_thread.run_sync, trio.lowlevel.current_statistics, trio_token=token
            )
            assert living.tasks_living < 100

    world.run(story())
