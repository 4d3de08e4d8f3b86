"""Many connections, many identities and slow peers: honest ones are still served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import multiaddr
import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from swarm_node.protocols import names, topics
from swarm_node.protocols.records import Hello, sign_notice
from swarm_node.protocols.signing import public_key
from swarm_node.swarm import intake, sync
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Limits

from .attacker import SEED, TASK, attack, invalid, message, record, saying


async def visits(address: str, count: int, stay: float, host_of_each: Any = None) -> None:
    """Connect `count` strangers, one identity each, who then stay for `stay` seconds and say nothing."""
    info = info_from_p2p_addr(multiaddr.Multiaddr(address))

    async def visit() -> None:
        keys = create_new_key_pair(os.urandom(32))
        noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
        host = new_host(key_pair=keys, sec_opt={NOISE: noise})
        with contextlib.suppress(Exception):
            async with host.run(listen_addrs=[]):
                with contextlib.suppress(Exception), trio.fail_after(20):
                    await host.connect(info)
                await trio.sleep(stay)
                with trio.CancelScope(shield=True):
                    await host.close()

    gate = trio.CapacityLimiter(20)
    async with trio.open_nursery() as nursery:
        for _ in range(count):

            async def one() -> None:
                async with gate:
                    await visit()

            nursery.start_soon(one)


@pytest.mark.long
def test_node_lets_others_in_after_hundreds_of_visits(world) -> None:
    """Connections that came and went take no place; py-libp2p is deaf after 250 of them."""

    async def story() -> None:
        victim = await world.node(1)
        await asyncio.to_thread(trio.run, visits, victim.address, 260, 0.0)
        friend = await world.node(2, victim)
        await victim.meets(friend)

    world.run(story())


def test_hundreds_of_silent_connections_keep_nobody_out(world) -> None:
    """300 sockets that never shake hands make room for a friend at once, not after their ten seconds."""

    async def story() -> None:
        victim = await world.node(1)
        old = await world.node(2, victim)
        await victim.meets(old)
        port = int(victim.address.split("/")[4])
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            friend = await world.node(3, victim)
            await victim.meets(friend, seconds=8)
            await victim.holds(await friend.write(), await old.write())

    world.run(story())


def test_idle_strangers_are_crowded_out_and_friends_are_not(world) -> None:
    """Over its limit a node closes connections that have brought nothing; those that gossip stay."""

    async def story() -> None:
        victim = await world.node(1, limits=Limits(connections=10))
        friend = await world.node(2, victim)
        await victim.holds(await friend.write())
        await asyncio.to_thread(trio.run, visits, victim.address, 20, 1.0)
        assert victim.network.statistics().crowded_out > 0
        await victim.until(lambda: len(victim.peers) <= 10, "few are left")
        assert friend.author in victim.peers
        await victim.holds(await friend.write())

    world.run(story())


@pytest.mark.long
def test_slow_readers_of_history_give_way(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers who ask for everything and read nothing fill all places for answers; a friend is answered still."""
    monkeypatch.setattr(sync, "_PATIENCE_SECONDS", 0.5)

    async def ask(host: Any, peer: Any) -> None:
        stream = await host.new_stream(peer, [TProtocol(sync.PROTOCOL)])
        question = sync._question(b"", b"", {})
        await stream.write(len(question).to_bytes(4, "big") + question)
        await trio.sleep(6)

    async def story() -> None:
        victim = await world.node(1, timing=world.timing(stream=30.0))
        for _ in range(40):
            victim.note(world.result(outcome="kept", diff="x" * 20_000))
        asking = [asyncio.to_thread(attack, victim.address, ask, seed=bytes([n]) * 32) for n in range(4)]
        attacks = asyncio.gather(*asking, return_exceptions=True)
        await victim.until(lambda: len(victim.peers) == 4, "they are here")
        friend = await world.node(2, victim, timing=world.quick)
        await friend.until(lambda: friend.ledger.count() == 40, "it got the history", seconds=5)
        await attacks

    world.run(story())


@pytest.mark.long
def test_flood_of_identities_is_bounded_and_honest_records_arrive(world) -> None:
    """20 identities who say as much as they can: what is over the rates is not looked at, and friends are heard."""

    async def story() -> None:
        victim = await world.node(1, limits=Limits(author_burst=20, author_per_second=1.0))
        friend = await world.node(2, victim, timing=world.quick)
        await victim.meets(friend)

        def flood(number: int) -> None:
            seed = bytes([100 + number]) * 32
            keys = create_new_key_pair(seed)
            log = [record(seed, world.result(), seq=n + 1, prev=b"p" * 32 if n else None) for n in range(100)]
            attack(victim.address, saying(*(message(one.to_bytes(), keys=keys) for one in log)), seed=seed)

        floods = [asyncio.to_thread(flood, number) for number in range(20)]
        flooded = asyncio.gather(*floods, return_exceptions=True)
        await victim.holds(*[await friend.write() for _ in range(20)])
        await flooded
        statistics = victim.network.statistics()
        assert statistics.new <= 20 * 30 + 20
        assert statistics.dropped > 0
        assert friend.author in victim.peers

    world.run(story())


def test_forwarder_of_endless_new_identities_is_slowed(world) -> None:
    """A new identity for each message does not get around the rate: there is one for each peer that passes them on."""

    async def story() -> None:
        victim = await world.node(1, limits=Limits(peer_burst=50, peer_per_second=1.0))
        friend = await world.node(2, victim)
        await victim.meets(friend)

        def flood() -> None:
            said: list[Any] = []
            for number in range(300):
                seed = number.to_bytes(32, "little")
                said.append(message(record(seed, world.result()).to_bytes(), keys=create_new_key_pair(seed)))
            attack(victim.address, saying(*said))

        await asyncio.to_thread(flood)
        await victim.holds(await friend.write())
        assert 40 <= victim.network.statistics().received <= 60
        assert victim.network.statistics().dropped >= 240

    world.run(story())


@pytest.mark.parametrize(
    "limits",
    [
        lambda size: Limits(author_records=5),
        lambda size: Limits(author_bytes=int(5.5 * size)),
        lambda size: Limits(stored_bytes=int(5.5 * size), new_share=1.0),
        lambda size: Limits(stored_bytes=int(22 * size), new_share=0.25),
    ],
    ids=["records", "bytes", "all", "newcomers"],
)
def test_quota_of_an_author_is_kept(world, limits: Callable[[int], Limits]) -> None:
    """What is over a quota is not stored, nor asked for again, and own records are always."""

    async def story() -> None:
        friend = await world.node(2, timing=world.quick)
        size = max(len(friend.note(world.result(f"edit {number:02}")).to_bytes()) for number in range(12))
        victim = await world.node(1, friend, timing=world.quick, limits=limits(size))
        await victim.until(lambda: victim.network.statistics().syncs >= 1, "synced")
        assert victim.ledger.count() == 5
        refused = victim.network.statistics().refused
        await victim.until(lambda: victim.network.statistics().syncs >= 4, "synced again")
        assert (victim.ledger.count(), victim.network.statistics().refused) == (5, refused)
        await friend.holds(await victim.write())

    world.run(story())


def test_log_is_asked_for_again_when_its_quota_is_free(world) -> None:
    """A newcomer of whom no more was stored than newcomers get is heard on when it is none any more, without a gap."""

    async def story() -> None:
        later_ms = 0
        friend = await world.node(2, timing=world.quick)
        log = [friend.note(world.result(f"edit {number:02}")) for number in range(12)]
        limits = Limits(stored_bytes=22 * max(len(one.to_bytes()) for one in log), new_share=0.25)
        clock_ms = lambda: world.now_ms() + later_ms  # noqa: E731
        victim = await world.node(1, friend, timing=world.quick, limits=limits, clock_ms=clock_ms)
        await victim.until(lambda: victim.network.statistics().refused == 7, "the rest is refused")
        await victim.until(lambda: victim.network.statistics().syncs >= 3, "synced again")
        assert (victim.ledger.count(), victim.network.statistics().refused) == (5, 7)
        later_ms = 86_400_000
        await victim.holds(*log, await friend.write())

    world.run(story())


@pytest.mark.parametrize("remembered", [4096, 12])
def test_refused_logs_keep_no_honest_one_away(world, monkeypatch: pytest.MonkeyPatch, remembered: int) -> None:
    """Logs that sort behind thousands of refused ones come: in the first sync, when all of those can be remembered."""
    monkeypatch.setattr(sync, "_MAX_RECORDS", 5)
    monkeypatch.setattr(sync, "_ROWS", 10)
    for module in (intake, sync):
        monkeypatch.setattr(module, "REFUSED", remembered)

    async def story() -> None:
        friend = await world.node(2)
        keys = sorted((bytes([number]) * 32 for number in range(90)), key=public_key)
        honest = [record(key, world.result()) for key in keys[8::9]]
        fat = world.result(outcome="kept", diff="x" * 20_000)
        for one in honest + [record(key, fat) for key in keys if key not in keys[8::9]]:
            friend.ledger.add(one, received_ms=0)
        limits = Limits(stored_bytes=sum(len(one.to_bytes()) for one in honest), new_share=1.0)
        assert limits.stored_bytes < 20_000
        timing = world.slow if remembered == 4096 else world.timing(sync=0.1)
        victim = await world.node(1, friend, timing=timing, limits=limits)
        await victim.holds(*honest)
        if remembered == 4096:
            await victim.until(lambda: victim.network.statistics().syncs == 1, "synced once")
            assert victim.network.statistics().refused == 80

    world.run(story())


def test_author_of_endless_epochs_is_kept_in_bounds(world) -> None:
    """Logs of one author are counted too, over restarts; who goes on in one that is known is heard, and who passed
    the others on broke no rule."""

    async def story() -> None:
        victim = await world.node(1, limits=Limits(author_epochs=3))
        many = [record(SEED, world.result(), epoch=epoch) for epoch in range(5)]
        await asyncio.to_thread(attack, victim.address, saying(*(message(one.to_bytes()) for one in many)))
        await victim.until(lambda: victim.network.statistics().refused == 2, "the last are refused")
        assert (victim.ledger.count(), invalid(victim)) == (3, {})
        again = await world.restart(victim)
        said = [record(SEED, world.result(), epoch=9), record(SEED, world.result(), epoch=1, seq=2, prev=many[1].id)]
        await asyncio.to_thread(attack, again.address, saying(*(message(one.to_bytes()) for one in said)))
        await again.holds(said[1])
        assert again.ledger.get(said[0].id) is None

    world.run(story())


def test_proof_against_an_author_reaches_who_saw_one_side_only(world) -> None:
    """Two records for one place are passed on as proof: everybody puts their author out."""

    async def story() -> None:
        seed, body = b"e" * 32, world.result()
        one, other = (record(seed, body, time=time) for time in (1, 2))
        first = await world.node(1)
        first.ledger.add(one, received_ms=0)
        first.ledger.add(other, received_ms=0)
        second = await world.node(2, first, timing=world.quick)
        await second.until(lambda: second.ledger.quarantined(one.author), "the second knows")
        with Ledger.open(world.folder / "3.ledger") as ledger:
            ledger.add(one, received_ms=0)
        third = await world.node(3, second, timing=world.quick)
        await third.until(lambda: third.ledger.quarantined(one.author), "the third knows")
        syncs = third.network.statistics().syncs
        await third.until(lambda: third.network.statistics().syncs >= syncs + 2, "synced again")
        assert third.network.statistics().equivocations == 1  # not told again
        assert {second.author} <= third.peers

    world.run(story())


def test_every_proof_reaches_who_knows_more_than_it_may_name(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asker that can name only some of the authors of whom it has proof gets the others in time, not the same ones
    again for ever."""
    monkeypatch.setattr(sync, "_OUT", 2)
    monkeypatch.setattr(sync, "_PROOFS", 2)

    async def story() -> None:
        first = await world.node(1)
        for number in range(8):
            for time in (1, 2):
                first.ledger.add(record(bytes([number]) * 32, world.result(), time=time), received_ms=number)
        last = await world.node(2, first, timing=world.timing(sync=0.1))
        await last.until(lambda: len(last.ledger.equivocators(-1)) == 8, "has all")

    world.run(story())


def test_claims_that_were_false_are_not_followed_again(world) -> None:
    """A peer that says, each time anew, that it knows more is asked at the regular interval only."""

    async def story() -> None:
        victim = await world.node(1, timing=world.timing(sync=3600, sync_gap=0.05))
        asked: list[int] = []

        async def nothing(stream: Any) -> None:
            asked.append(1)
            await stream.read(65536)
            await stream.write(b"\x00\x00\x00\x01\x00")
            await stream.close()

        async def claim(host: Any, peer: Any) -> None:
            for number in range(20):
                question = sync._question(b"", b"", {(os.urandom(32), 0): (number + 1, bytes(32))})
                stream = await host.new_stream(peer, [TProtocol(sync.PROTOCOL)])
                await stream.write(len(question).to_bytes(4, "big") + question)
                await stream.read(64)
                await stream.close()
                await trio.sleep(0.1)

        await asyncio.to_thread(attack, victim.address, claim, handlers={sync.PROTOCOL: nothing})
        assert 1 <= len(asked) <= 3
        friend = await world.node(2, victim)
        await victim.holds(await friend.write())

    world.run(story())


def test_hostile_bootstrap_sends_nobody_anywhere(world) -> None:
    """A hello full of other people's addresses, from a bootstrap that knows only lies, makes no connection to them."""

    async def story() -> None:
        target = socket.create_server(("127.0.0.1", 0))
        target.setblocking(False)
        port = target.getsockname()[1]
        victim = await world.node(1)
        own, stranger = (names.peer_id(public_key(seed)) for seed in (SEED, b"s" * 32))
        lies = (
            f"/ip4/127.0.0.1/tcp/{port}/p2p/{stranger}",
            f"/ip4/127.0.0.1/tcp/{port}",
            f"/dns4/localhost/tcp/{port}/p2p/{own}",
        )
        hello = Hello(agent="x", task=TASK, hardware="cpu", device="d", role="bootstrap", addresses=lies)
        notice = sign_notice(SEED, time=world.now_ms(), body=hello)
        said = message(notice.to_bytes(), topic=topics.notices(TASK).name)
        await asyncio.to_thread(attack, victim.address, saying(said))
        await victim.until(lambda: any(heard.body == hello for heard in victim.notices), "heard")
        friend = await world.node(2, victim)
        await victim.holds(await friend.write())
        with pytest.raises(BlockingIOError):
            target.accept()
        target.close()

    world.run(story())


def test_replay_after_a_restart_changes_nothing(world) -> None:
    """What was heard before, and is forgotten by the cache of libp2p, is known to the ledger."""

    async def story() -> None:
        one = message(record(SEED, world.result()).to_bytes(), seqno=bytes(8))
        victim = await world.node(1)
        await asyncio.to_thread(attack, victim.address, saying(one))
        await victim.until(lambda: victim.ledger.count() == 1, "stored")
        again = await world.restart(victim)
        await asyncio.to_thread(attack, again.address, saying(one))
        await again.until(lambda: again.network.statistics().duplicates == 1, "known")
        assert (again.records, invalid(again), again.ledger.count()) == ([], {}, 1)

    world.run(story())
