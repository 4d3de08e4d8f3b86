"""What a hostile peer sends is refused and counted; the node stays up and keeps hearing honest peers.

The attacker is a stock py-libp2p host that speaks the real protocols.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from swarm_node.protocols import canonical, topics
from swarm_node.protocols.errors import NetworkError
from swarm_node.protocols.records import MAX_RECORD
from swarm_node.swarm import blobs, sync
from swarm_node.swarm.gossip import Gossip, Rates
from swarm_node.swarm.net import Limits

from .attacker import RESULTS, SEED, TASK, Attack, attack, invalid, message, record, saying, writing


async def survives(victim: Any, friend: Any) -> None:
    """The node runs, and hears what an honest peer says."""
    assert not victim.network.crashed.done()
    await victim.holds(await friend.write())
    assert not victim.network.crashed.done()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (writing(b"\xff" * 40), "frame"),
        (writing(b"\x0a\x80"), "frame"),
        (writing(*[os.urandom(300) for _ in range(5)]), "frame"),
        (saying(message(b"x", key=b"\xff\xff", from_id=b"\x12\x20" + bytes(32))), "unhandled"),
        (saying(message(b"x" * (MAX_RECORD + 1))), "oversized"),
        (saying(message(b"\xc1", topic=topics.notices(TASK).name)), "not decodable as canonical msgpack"),
        (saying(message(canonical.encode({"kind": "result"}))), "does not fit the schema"),
    ],
    ids=["garbage", "truncated", "random", "bad-key", "oversized", "notice", "schema"],
)  # fmt: skip
def test_broken_gossip_is_survived_and_counted(world, what: Attack, reason: str) -> None:
    """Garbage frames, unparsable keys, oversized and malformed messages; the first two kill a stock node's process."""

    async def story() -> None:
        victim = await world.node(1)
        friend = await world.node(2, victim)
        await victim.meets(friend)
        await asyncio.to_thread(attack, victim.address, what)
        await victim.until(lambda: reason in invalid(victim), f"counted {reason}")
        await survives(victim, friend)

    world.run(story())


def test_forged_and_republished_records_are_refused(world) -> None:
    """A record with another's signature, one signed by another key, and one gossiped by another than its author."""

    async def story() -> None:
        victim = await world.node(1)
        friend = await world.node(2, victim)
        await victim.meets(friend)
        body = world.result()
        honest = record(b"h" * 32, body)
        forged = record(SEED, body).model_copy(update={"author": friend.author})
        changed = record(SEED, body).model_copy(update={"time": 2})
        unsigned = message(record(SEED, body).to_bytes(), signature=b"", key=b"")
        impostor = message(record(b"h" * 32, body).to_bytes(), keys=create_new_key_pair(b"h" * 32), signature=bytes(64))
        messages = [message(one.to_bytes()) for one in (forged, changed, honest)] + [unsigned, impostor]
        await asyncio.to_thread(attack, victim.address, saying(*messages))
        await victim.until(lambda: sum(invalid(victim).values()) == 3, "three refused after the signature check")
        assert invalid(victim) == {
            "signature does not match the author": 2, "record sent by another than its author": 1,
        }  # fmt: skip
        await survives(victim, friend)
        await victim.until(lambda: bool(victim.records), "was told")  # a moment after it is in the ledger
        assert {one.author for one in victim.records} == {friend.author}

    world.run(story())


def test_message_on_two_topics_is_refused(world) -> None:
    """A message belongs to one topic: with two it would pass by the rules of the looser one."""

    async def story() -> None:
        victim = await world.node(1)
        both = message(record(SEED, world.result()).to_bytes())
        both.topicIDs.append(topics.WINS.name)
        await asyncio.to_thread(attack, victim.address, saying(both))
        await victim.until(lambda: invalid(victim) == {"not exactly one topic": 1}, "refused")

    world.run(story())


def test_costly_gossip_version_is_not_spoken(world) -> None:
    """/meshsub/1.2.0, whose IDONTWANT doubles the CPU per message in py-libp2p, is not offered."""

    async def story() -> None:
        victim = await world.node(1)
        with pytest.raises(BaseExceptionGroup) as refused:
            await asyncio.to_thread(attack, victim.address, writing(b"", protocol="/meshsub/1.2.0"))
        assert refused.group_contains(Exception, match="failed to open a stream")
        await asyncio.to_thread(attack, victim.address, writing(b"", protocol="/meshsub/1.1.0"))

    world.run(story())


def test_record_on_the_wrong_topic_is_refused(world) -> None:
    """Only kept results are wins, and a task's topic carries that task's results only."""

    async def story() -> None:
        victim = await world.node(1)
        discarded = record(SEED, world.result())
        foreign = record(SEED, world.result(task=b"o" * 32), seq=2, prev=discarded.id)
        what = saying(
            message(discarded.to_bytes(), topic=topics.WINS.name),
            message(foreign.to_bytes()),
            message(discarded.to_bytes(), topic=topics.verifications(TASK).name),
        )
        await asyncio.to_thread(attack, victim.address, what)
        await victim.until(lambda: invalid(victim) == {"record on the wrong topic": 3}, "refused")
        assert victim.ledger.count() == 0

    world.run(story())


def test_repeated_and_late_messages_are_nobodys_fault(world) -> None:
    """A record said again, and a notice from another hour, are ignored without an offence."""

    async def story() -> None:
        from swarm_node.protocols.records import Lead, sign_notice

        victim = await world.node(1)
        one = record(SEED, world.result())
        late = sign_notice(SEED, time=1, body=Lead(task=TASK, normal=b"n" * 32, parent=b"p" * 32))
        said = [message(one.to_bytes()) for _ in range(3)]
        await asyncio.to_thread(
            attack, victim.address, saying(*said, message(late.to_bytes(), topic=topics.notices(TASK).name))
        )
        await victim.until(lambda: victim.network.statistics().duplicates == 2, "stored once")
        await victim.until(lambda: bool(victim.records), "was told")
        assert invalid(victim) == {}
        assert victim.notices == []
        assert victim.records == [one]

    world.run(story())


def test_records_from_the_future_ban_nobody_who_believes_them(world) -> None:
    """Dated between what a node and a peer with another clock still take, each was an offence of the peer that passed
    it on in good faith."""
    day = 86_400_000

    async def story() -> None:
        victim = await world.node(1, limits=Limits(offences=3))
        friend = await world.node(2, victim, clock_ms=lambda: world.now_ms() + day)
        await victim.meets(friend)
        near, far = (node.network._overlay._host for node in (friend, victim))
        await friend.until(lambda: far.id in near.gossip.mesh[RESULTS], "in the mesh")
        dated: list[Any] = []
        for seq in range(1, 6):
            prev = dated[-1].id if dated else None
            dated.append(record(SEED, world.result(), seq=seq, prev=prev, time=world.now_ms() + 2 * day - 60_000))
        await asyncio.to_thread(attack, friend.address, saying(*(message(one.to_bytes()) for one in dated)))
        await friend.holds(*dated)
        await victim.holds(await friend.write())  # after those, over the same stream
        assert invalid(victim) == {}
        assert victim.peers == {friend.author}
        assert all(victim.ledger.get(one.id) is None for one in dated)

    world.run(story())


def test_peer_whose_streams_break_while_it_is_banned_is_survived(world) -> None:
    """Garbage on one stream after the other, past the ban; libp2p's own clean-up then ended the process."""

    async def many(host: Any, peer: Any) -> None:
        with contextlib.suppress(Exception):
            for _ in range(60):
                await writing(os.urandom(300), linger=0.01)(host, peer)

    async def story() -> None:
        victim = await world.node(1, limits=Limits(offences=3, ban_seconds=0.3))
        friend = await world.node(2, victim)
        await victim.meets(friend)
        for _ in range(3):
            with contextlib.suppress(BaseExceptionGroup):
                await asyncio.to_thread(attack, victim.address, many)
        await victim.until(lambda: victim.network.statistics().banned >= 1, "banned")
        await survives(victim, friend)

    world.run(story())


@pytest.mark.long  # on a loaded machine the attacker may be thrown out before its last message is counted
def test_flooding_peer_is_banned_and_pardoned_later(world) -> None:
    """A peer that keeps sending invalid data is disconnected and kept out for a while; honest peers are not."""

    async def story() -> None:
        victim = await world.node(1, limits=Limits(offences=5, ban_seconds=2.0))
        friend = await world.node(2, victim)
        await victim.meets(friend)
        flood = saying(*(message(b"junk %d" % number) for number in range(50)))
        try:
            await asyncio.to_thread(attack, victim.address, flood)
        except BaseExceptionGroup:
            pass  # thrown out while it was still sending
        await victim.until(lambda: victim.network.statistics().banned == 1, "banned")
        assert sum(invalid(victim).values()) < 50
        await survives(victim, friend)
        assert victim.peers == {friend.author}
        one = record(SEED, world.result())
        for _ in range(20):  # the attacker's next, honest life
            try:
                await asyncio.to_thread(attack, victim.address, saying(message(one.to_bytes())))
            except BaseExceptionGroup:
                pass
            if victim.ledger.get(one.id) is not None:
                break
            await asyncio.sleep(0.2)
        await victim.holds(one)

    world.run(story())


def test_raising_validator_is_survived(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in the validator costs one message, not the process."""

    def broken(self: Gossip, *args: object) -> None:
        raise ZeroDivisionError

    async def story() -> None:
        victim = await world.node(1)
        friend = await world.node(2, victim)
        await victim.meets(friend)
        with monkeypatch.context() as patch:
            patch.setattr(Gossip, "_record", broken)
            await friend.write()
            await victim.until(lambda: "unhandled" in invalid(victim), "counted")
        await survives(victim, friend)

    world.run(story())


@pytest.mark.parametrize("protocol", [sync.PROTOCOL, blobs.PROTOCOL, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"])
def test_garbage_on_every_protocol_is_survived(world, protocol: str) -> None:
    """Garbage, a 4 GiB length and silence on each protocol's stream; a raising handler ends a stock host."""

    async def what(host: Any, peer: Any) -> None:
        for data in (b"\xff" * 64, b"\x00\x00\x00\x05hello", os.urandom(500), b""):
            stream = await host.new_stream(peer, [TProtocol(protocol)])
            if data:
                await stream.write(data)
            await stream.close()
        await trio.sleep(0.2)

    async def story() -> None:
        victim = await world.node(1, timing=world.quick, limits=Limits(offences=1000))
        friend = await world.node(2, victim, timing=world.quick)
        await victim.meets(friend)
        await asyncio.to_thread(attack, victim.address, what)
        await survives(victim, friend)
        friend.ledger.put_blob(b"still served")
        assert await victim.network.fetch(canonical.digest(b"still served")) == b"still served"

    world.run(story())


def test_garbage_on_the_port_is_survived(world) -> None:
    """Raw bytes on the TCP port, and connections that say nothing."""

    async def story() -> None:
        victim = await world.node(1)
        friend = await world.node(2, victim)
        await victim.meets(friend)
        port = int(victim.address.split("/")[4])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n", b"\xff" * 4096, os.urandom(4096)):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(data)
        await survives(victim, friend)
        for connection in silent:
            connection.close()

    world.run(story())


def test_plaintext_dialler_is_refused(world) -> None:
    """A peer that offers no encryption does not get in; py-libp2p's defaults let it."""

    async def story() -> None:
        victim = await world.node(1)

        async def nothing(host: Any, peer: Any) -> None:
            raise AssertionError("connected without encryption")

        with pytest.raises(BaseExceptionGroup) as refused:
            await asyncio.to_thread(attack, victim.address, nothing, plaintext=True)
        assert refused.group_contains(Exception, match="unable to connect")
        assert victim.peers == set()

    world.run(story())


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda one, forged: _frame(forged.to_bytes()), "signature does not match the author"),
        (lambda one, forged: _frame(one.to_bytes()) + _frame(b"garbage"), "not decodable as canonical msgpack"),
        (lambda one, forged: _frame(one.to_bytes()) + b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (lambda one, forged: _frame(one.to_bytes()) * 200, "a sync answer larger than allowed"),
    ],
    ids=["forged", "garbage", "huge-frame", "endless"],
)
def test_lies_in_a_sync_answer_are_refused(
    world, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., bytes], reason: str
) -> None:
    """What a peer streams in sync is checked like a stranger's word; what was valid before the lie is kept."""
    monkeypatch.setattr(sync, "_MAX_RECORDS", 50)

    async def story() -> None:
        victim = await world.node(1)
        one = record(b"h" * 32, world.result())
        forged = record(SEED, world.result()).model_copy(update={"author": one.author})

        async def lie(stream: Any) -> None:
            await stream.read(65536)
            await stream.write(answer(one, forged) + _frame(b"\x00"))
            await stream.close()

        async def wait(host: Any, peer: Any) -> None:
            await trio.sleep(1.0)

        await asyncio.to_thread(attack, victim.address, wait, handlers={sync.PROTOCOL: lie})
        await victim.until(lambda: any(name.startswith(reason) for name in invalid(victim)), reason)
        assert victim.ledger.get(forged.id) is None
        friend = await world.node(2, victim)
        await survives(victim, friend)

    world.run(story())


def test_broken_off_sync_goes_on_soon(world) -> None:
    """A peer whose sync stream breaks in the middle is asked again at once, not a minute later."""

    async def story() -> None:
        victim = await world.node(1)  # its regular sync comes once an hour
        one = record(b"h" * 32, world.result())
        other = record(b"h" * 32, world.result(), seq=2, prev=one.id)
        asked: list[int] = []

        async def break_off(stream: Any) -> None:
            await stream.read(65536)
            asked.append(1)
            await stream.write(_frame(one.to_bytes()))
            if len(asked) == 1:
                await stream.reset()
            else:
                await stream.write(_frame(other.to_bytes()) + _frame(b"\x00"))
                await stream.close()

        async def wait(host: Any, peer: Any) -> None:
            await trio.sleep(2)

        await asyncio.to_thread(attack, victim.address, wait, handlers={sync.PROTOCOL: break_off})
        await victim.holds(one, other, seconds=1)
        assert len(asked) == 2

    world.run(story())


def test_nothing_is_printed(world) -> None:
    """What libp2p has to say of bad peers does not reach the terminal."""
    process, address = world.process()
    port = int(address.split("/")[4])
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, b""):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
    attack(address, writing(b"\xff" * 40))  # speaks no sync either: libp2p logs an error
    process.kill()
    _, printed = process.communicate()
    assert printed == ""


def test_peer_that_never_answers_holds_nobody_up(world) -> None:
    """A peer that takes sync and blob questions and says nothing costs one deadline; others are asked meanwhile."""

    async def story() -> None:
        victim = await world.node(1, timing=world.timing(stream=1.0, sync=3600, sync_gap=0.05))
        asked: list[Any] = []

        async def silence(stream: Any) -> None:
            await trio.sleep_forever()

        async def silent_giver(stream: Any) -> None:
            asked.append(stream)
            await trio.sleep_forever()

        async def wait(host: Any, peer: Any) -> None:
            await trio.sleep(4)

        handlers = {sync.PROTOCOL: silence, blobs.PROTOCOL: silent_giver}
        attacking = asyncio.ensure_future(asyncio.to_thread(attack, victim.address, wait, handlers=handlers))
        await victim.until(lambda: bool(victim.peers), "connected")
        friend = await world.node(2)
        history = [friend.note() for _ in range(10)]
        names = [friend.ledger.put_blob(b"program %d" % number) for number in range(12)]
        assert await victim.network.connect(friend.address)
        await victim.holds(*history)
        for number, name in enumerate(names):
            assert await victim.network.fetch(name) == b"program %d" % number
        assert len(asked) <= 1, "a silent peer is asked last from then on"
        await attacking
        await victim.until(lambda: victim.network.statistics().sync_failures >= 1, "counted")

    world.run(story())


def test_lying_blob_server_is_passed_over(world) -> None:
    """A peer that serves other bytes, or breaks off halfway, does not keep the true ones from arriving."""
    data = bytes(range(256)) * 500

    async def story() -> None:
        victim = await world.node(1)
        turn = 0

        async def lie(stream: Any) -> None:
            nonlocal turn
            turn += 1
            await stream.read(1024)
            head = _frame(canonical.encode({"size": len(data)}))
            if turn % 2:
                await stream.write(head + bytes(len(data)))
            else:
                await stream.write(head + data[: len(data) // 2])
            await stream.close()

        async def wait(host: Any, peer: Any) -> None:
            await trio.sleep(3)

        attacking = asyncio.ensure_future(
            asyncio.to_thread(attack, victim.address, wait, handlers={blobs.PROTOCOL: lie})
        )
        await victim.until(lambda: bool(victim.peers), "connected")
        with pytest.raises(NetworkError):
            await victim.network.fetch(canonical.digest(data))
        assert "blob does not match its digest" in invalid(victim)
        friend = await world.node(2)
        friend.ledger.put_blob(data)
        assert await victim.network.connect(friend.address)
        for _ in range(6):  # the order in which peers are asked is random, but for those that failed
            victim.network._overlay._blobs._failed.clear()
            assert await victim.network.fetch(canonical.digest(data)) == data
        await attacking

    world.run(story())


def test_rates_refill_and_forget() -> None:
    """A bucket lets its burst through, then its rate; one key's flood does not touch another's."""
    rates = Rates(burst=3, per_second=2)
    assert [rates.allow(b"a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert rates.allow(b"b", 0.0)
    assert [rates.allow(b"a", 1.0) for _ in range(3)] == [True, True, False]
    for number in range(10_000):
        rates.allow(number.to_bytes(4, "big"), 1.0)
    assert len(rates._buckets) <= 4096
