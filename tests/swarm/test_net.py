"""The network as the node sees it: records, notices, peers, starting and stopping."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from swarm_node.protocols.errors import NetworkError
from swarm_node.protocols.records import Lead, Verification
from swarm_node.swarm import net
from swarm_node.swarm.addresses import author_in, dialable
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Limits, Network, NetworkConfig, Timing

OTHER_TASK = b"o" * 32


def test_importing_the_border_does_not_import_libp2p() -> None:
    """The command line's first line does not wait for libp2p, which takes 0.85 s to import."""
    code = "import sys, swarm_node.swarm.net; print([m for m in ('libp2p', 'trio', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_record_reaches_peers_and_their_ledgers(world) -> None:
    """A published record is in a peer's ledger, and only then reported, over one and over two hops."""

    async def story() -> None:
        first = await world.node(1)
        middle = await world.node(2, first)
        last = await world.node(3, middle)
        await middle.meets(first, last)
        record = await first.write()
        await asyncio.gather(middle.holds(record), last.holds(record))
        await last.until(lambda: bool(last.records), "was told")
        assert last.records == [record]
        assert first.peers == {middle.author}

    world.run(story())


def test_burst_is_delivered_whole(world) -> None:
    """200 records published at once all arrive, also through a peer that forwards them.

    Stock py-libp2p delivers 32 (outbound queue), 32 (subscription channel) or 14 (10 a second per forwarder).
    """

    async def story() -> None:
        first = await world.node(1)
        middle = await world.node(2, first)
        last = await world.node(3, middle)
        await middle.meets(first, last)
        probe = await first.write()
        await last.holds(probe)
        await last.until(lambda: last.network.statistics().syncs > 0, "the first sync is over")
        synced = last.network.statistics().synced
        records = [first.note() for _ in range(200)]
        await asyncio.gather(*(first.network.publish(record) for record in records))
        await middle.holds(*records)
        await last.holds(*records)
        assert last.network.statistics().synced == synced

    world.run(story())


def test_large_records_in_a_burst_arrive(world) -> None:
    """Records near the size limit arrive, 60 at once."""

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first)
        await last.holds(await first.write())
        padding = "+" + "x" * 30_000 + "\n"
        records = [first.note(world.result(outcome="kept", diff=padding)) for _ in range(60)]
        await asyncio.gather(*(first.network.publish(record) for record in records))
        await last.holds(*records)

    world.run(story())


def test_restarted_node_is_heard_at_once(world) -> None:
    """A node that restarts with its key is heard. With seqnos from the clock's seconds, 95 of 100 were lost."""

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first)
        await last.holds(*[await first.write() for _ in range(60)])
        first = await world.restart(first)
        await last.meets(first)
        await last.holds(*[await first.write() for _ in range(60)])

    world.run(story())


def test_star_delivers_to_every_leaf(world) -> None:
    """Leaves that know only the hub hear each other. With stock limits half of them hear nothing, for good."""

    async def story() -> None:
        hub = await world.node(1, hub=True)
        leaves = [await world.node(number, hub) for number in range(2, 17)]
        await hub.meets(*leaves)
        await asyncio.sleep(4 * world.slow.heartbeat)  # a mesh that prunes does it on heartbeats
        records = [await leaf.write() for leaf in leaves]
        await asyncio.gather(*(leaf.holds(*records) for leaf in leaves))

    world.run(story())


@pytest.mark.long
def test_crowded_star_without_a_hub_is_told_the_rest(world) -> None:
    """Where the middle keeps few mesh links, the others hear by gossip about messages."""

    async def story() -> None:
        middle = await world.node(1)
        leaves = [await world.node(number, middle) for number in range(2, 17)]
        await middle.meets(*leaves)
        await asyncio.sleep(4 * world.slow.heartbeat)
        records = [await leaf.write() for leaf in leaves]

        def delivered() -> float:
            have = sum(leaf.ledger.get(record.id) is not None for leaf in leaves for record in records)
            return have / len(leaves) / len(records)

        await middle.until(lambda: delivered() > 0.8, "delivered")  # measured: 0.96 to 1.0, stock 0.23 to 0.27

    world.run(story())


def test_wins_cross_tasks_and_nothing_else_does(world) -> None:
    """A kept result is heard by nodes on other tasks; discarded results and verifications are not."""

    async def story() -> None:
        first = await world.node(1)
        same = await world.node(2, first)
        other = await world.node(3, first, task=OTHER_TASK)
        await first.meets(same, other)
        discarded = await first.write()
        environment = discarded.body.environment
        verification = await first.write(
            Verification(task=discarded.body.task, result=discarded.id, outcome="inconclusive", environment=environment)
        )
        kept = await first.write(world.result(outcome="kept"))
        await same.holds(discarded, verification, kept)
        # Sync, which carries everything, may be faster than gossip: only gossip is looked at here.
        await other.until(lambda: other.network.statistics().received > 0, "heard the win")
        await other.until(lambda: kept.id in [record.id for record in other.records], "took the win in")
        assert other.network.statistics().received == 1

    world.run(story())


def test_notices_are_heard_and_never_logged(world) -> None:
    """Hellos and leads reach peers; a hello is known with its peer, also to peers that connect after it was said."""

    async def story() -> None:
        first = await world.node(1)
        await first.network.announce(first.hello())
        last = await world.node(2, first)
        await last.until(lambda: any(peer.hello == first.hello() for peer in last.network.peers()), "hello")
        lead = Lead(task=first.config.task, normal=b"n" * 32, parent=b"p" * 32)
        await first.network.announce(lead)
        await last.until(lambda: any(notice.body == lead for notice in last.notices), "lead")
        assert all(notice.author == first.author for notice in last.notices)
        assert last.ledger.count() == first.ledger.count() == 0

    world.run(story())


def test_joiners_of_one_bootstrap_find_each_other(world) -> None:
    """Two nodes that know only the bootstrap connect to each other, and stay connected when it goes."""

    async def story() -> None:
        bootstrap = await world.node(1, hub=True)
        left, right = await world.node(2, bootstrap), await world.node(3, bootstrap)
        await asyncio.gather(*(node.network.announce(node.hello()) for node in (left, right)))
        await asyncio.gather(left.meets(right), right.meets(left))
        await bootstrap.stop()
        await left.until(lambda: left.peers == {right.author}, "the bootstrap is gone")
        await right.holds(await left.write())

    world.run(story())


def test_listening_addresses_are_remembered(world) -> None:
    """What is remembered of a peer is where it listens, never the port that it happened to dial from."""

    async def story() -> None:
        bootstrap = await world.node(1)
        joiner = await world.node(2, bootstrap)
        await joiner.network.announce(joiner.hello())
        await bootstrap.until(lambda: bool(bootstrap.ledger.remembered_peers(9)), "remembered")
        await joiner.until(lambda: bool(joiner.ledger.remembered_peers(9)), "remembered")
        assert bootstrap.ledger.remembered_peers(9) == [joiner.address]
        assert joiner.ledger.remembered_peers(9) == [bootstrap.address]
        assert bootstrap.network.peers()[0].address not in (joiner.address, "")

    world.run(story())


def test_a_peer_that_tells_many_addresses_takes_no_other_ones_place(world) -> None:
    """Two hellos with eight ports each were all that a node knew after a restart without its invite."""

    async def story() -> None:
        bootstrap = await world.node(1)
        node = await world.node(2, bootstrap)
        await node.until(lambda: bool(node.ledger.remembered_peers(1)), "the first dial is over")
        liar = await world.node(3, node)
        await node.meets(liar)
        host, name = liar.address.split("/tcp/")[0], liar.address.rsplit("/", 1)[1]
        for first in (1000, 2000):
            ports = tuple(f"{host}/tcp/{first + number}/p2p/{name}" for number in range(8))
            await liar.network.announce(liar.hello().model_copy(update={"addresses": ports}))
            await node.until(lambda ports=ports: bool({*ports} & {*node.ledger.remembered_peers(16)}), "told of them")
        await node.until(lambda: not node.network._overlay._dialer._notes, "all of them")
        assert node.ledger.remembered_peers(16)[0] == bootstrap.address
        assert len(node.ledger.remembered_peers(16)) <= 3

    world.run(story())


def test_lost_peer_is_dialled_again(world) -> None:
    """A peer that restarts is back within seconds; py-libp2p's own cache of failures keeps it out for 60 s."""

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first)
        await last.until(lambda: bool(last.ledger.remembered_peers(1)), "the first dial is over")
        port = int(first.address.split("/")[4])
        await first.stop()
        await last.until(lambda: not last.peers, "noticed")
        failures = last.network.statistics().dial_failures
        await last.until(lambda: last.network.statistics().dial_failures > failures, "a dial that fails")
        world.nodes.remove(first)
        again = await world.node(1, port=port)
        await last.meets(again, seconds=10)
        await last.holds(await again.write())

    world.run(story())


def test_frozen_and_killed_processes_are_noticed_and_found_again(world) -> None:
    """A process that freezes is dropped and found again when it thaws; one that is killed, when it is restarted."""
    process, address = world.process()
    port = int(address.split("/")[4])
    timing = Timing(sync=3600, redial=(0.1, 0.5), health=0.3, ping=0.5, dial=2.0)

    async def story() -> None:
        nonlocal process
        node = await world.node(1, address, timing=timing)
        await node.until(lambda: bool(node.peers), "connected")
        process.send_signal(signal.SIGSTOP)
        await node.until(lambda: not node.peers, "the frozen peer is dropped")
        process.send_signal(signal.SIGCONT)
        await node.until(lambda: bool(node.peers), "the thawed peer is back")
        process.kill()
        await node.until(lambda: not node.peers, "the killed peer is dropped")
        process, _ = await asyncio.to_thread(world.process, port)
        await node.until(lambda: bool(node.peers), "the restarted peer is back")

    world.run(story())


def test_port_in_use_is_an_error_with_the_fix(world) -> None:
    """A port that another program or another node has is refused. Stock libp2p shares it with the other node."""

    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(NetworkError, match=f"port {port} is in use") as refused:
                await world.node(1, port=port)
            assert refused.value.fix.endswith("swarm-node join --port 0")
        first = await world.node(2)
        with pytest.raises(NetworkError, match="in use"):
            await world.node(3, port=int(first.address.split("/")[4]))

    world.run(story())


def test_unreachable_and_senseless_addresses_do_no_harm(world) -> None:
    """Addresses where nobody answers, or that are none, are refused or tried again without end; the node works."""

    async def story() -> None:
        first = await world.node(1)
        gone = first.address.replace(first.address.split("/")[4], "9")
        last = await world.node(2, gone.replace("127.0.0.1", "127.0.0.2"), "/ip4/1.2.3.4/udp/1/quic", "nonsense")
        assert not await last.network.connect("nonsense")
        assert not await last.network.connect(last.address)
        assert not await last.network.connect(gone)
        stranger = first.address.rsplit("/", 1)[0] + "/" + last.address.rsplit("/", 1)[1]
        assert not await first.network.connect(stranger)
        assert await last.network.connect(first.address)
        await first.holds(await last.write())

    world.run(story())


def test_stop_is_quick_complete_and_repeatable(world) -> None:
    """Stopping takes less than 3 s and leaves no thread, no open port and no warning; later calls say so."""

    async def story() -> None:
        before = set(threading.enumerate())
        first = await world.node(1)
        others = [await world.node(number, first) for number in range(2, 6)]
        await first.meets(*others)
        assert await first.network.synced(60)  # a sync was done on connect
        port = int(first.address.split("/")[4])
        started = time.monotonic()
        await first.network.stop()
        assert time.monotonic() - started < 3
        await first.network.stop()
        with pytest.raises(NetworkError, match="not running"):
            await first.network.announce(first.hello())
        with socket.create_server(("127.0.0.1", port)):
            pass
        await asyncio.gather(*(node.network.stop() for node in others))
        left = [thread for thread in threading.enumerate() if thread not in before]
        assert [thread for thread in left if not thread.name.startswith("Trio thread")] == []

    world.run(story())


def test_call_in_flight_when_the_network_stops_is_answered(world) -> None:
    """A caller that waits for the network while it stops gets an error, not silence."""

    async def story() -> None:
        node = await world.node(1)
        waiting = asyncio.ensure_future(node.network.synced(60))
        await asyncio.sleep(0)
        await node.network.stop()
        with pytest.raises(NetworkError, match="stopped"):
            await waiting

    world.run(story())


def test_crash_is_told_and_can_be_restarted(world) -> None:
    """When the libp2p thread dies, `crashed` says why, and a new network starts on the same port and key."""

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first)
        await last.meets(first)
        port = int(first.address.split("/")[4])
        first.ledger.close()  # every write fails from here on
        await last.write()
        reason = await asyncio.wait_for(first.network.crashed, 10)
        assert reason is not None
        with pytest.raises(NetworkError):
            await first.network.announce(first.hello())
        await first.stop()
        again = await world.node(1, port=port)
        await last.meets(again)
        await again.holds(await last.write())

    world.run(story())


def test_death_of_the_thread_is_told_before_it_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that takes its time over a crash delays nobody, and gets the traceback as text, without locals."""
    told, logged = threading.Event(), list[tuple[bool, bool]]()

    class SlowLog:
        def debug(self, event: str, **fields: object) -> None:
            logged.append((told.wait(2), all(isinstance(value, str) for value in fields.values())))

    async def die() -> None:
        raise ZeroDivisionError("an error that nothing catches")

    async def story() -> None:
        config = NetworkConfig(seed=b"s" * 32, listen=(), dial=(), task=bytes(32))
        with Ledger.open(tmp_path / "ledger") as ledger:
            network = Network(config, ledger, on_record=lambda _: None, on_notice=lambda _: None, on_peers=lambda: None)
            monkeypatch.setattr(network, "_main", die)
            with pytest.raises(NetworkError, match="did not start"):
                await network.start()
            told.set()
            await network.stop()

    monkeypatch.setattr(net, "log", SlowLog())
    asyncio.run(story())
    assert logged == [(True, True)]


def test_author_over_its_rate_is_dropped_and_heals_by_sync(world) -> None:
    """What an author says over its rate is dropped and counted; sync brings it later."""

    async def story() -> None:
        first = await world.node(1)
        timing = Timing(heartbeat=0.3, sync=0.5, sync_gap=0.05, redial=(0.1, 1.0))
        last = await world.node(
            2, first, timing=timing, limits=Limits(author_burst=5, author_per_second=0.1, offences=999)
        )
        await last.meets(first)
        records = [await first.write() for _ in range(30)]
        await last.holds(*records)
        assert last.network.statistics().dropped > 0
        await last.until(lambda: last.network.statistics().synced > 0, "they were counted, after they were handed over")

    world.run(story())


def test_heartbeat_stays_and_memory_is_given_back(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """libp2p's lists of past deliveries, which only its adaptive gossip would trim, do not grow for ever."""
    monkeypatch.setattr("swarm_node.swarm.gossip._HOUSEKEEPING_SECONDS", 0.05)

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first)
        await last.holds(*[await first.write() for _ in range(5)])
        gossip = last.network._overlay._host.gossip
        await last.until(lambda: not gossip.recent_message_deliveries, "given back")
        assert not gossip.equivocation_detection
        assert gossip.heartbeat_interval == last.config.timing.heartbeat

    world.run(story())


def test_dialable_addresses_never_hold_the_wildcard() -> None:
    """Bound to every interface, a node gives the addresses of real ones; bound to loopback, loopback."""
    author = b"a" * 32
    everywhere = dialable([("0.0.0.0", 4001)], author)
    assert all("/0.0.0.0/" not in address and "/127." not in address for address in everywhere)
    assert all(author_in(address) is not None for address in everywhere)
    (loopback,) = dialable([("127.0.0.1", 4001)], author)
    assert loopback.startswith("/ip4/127.0.0.1/tcp/4001/p2p/12D3Koo")
    assert author_in(loopback) == author


def test_only_addresses_that_name_a_peer_are_dialled() -> None:
    """An address without a peer id, with another transport or with a senseless host is none."""
    (good,) = dialable([("127.0.0.1", 4001)], b"a" * 32)
    name = good.rsplit("/", 1)[1]
    assert author_in(f"/dns4/bootstrap.example.org/tcp/4001/p2p/{name}") == b"a" * 32
    for bad in (
        "", "/", good.rsplit("/p2p", 1)[0], good + "x", good.replace("tcp", "udp"), f"/ip4/::1/tcp/1/p2p/{name}",
        f"/ip4/1.2.3/tcp/1/p2p/{name}", f"/ip4/1.2.3.4/tcp/0/p2p/{name}", f"/ip4/1.2.3.4/tcp/70000/p2p/{name}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{name[:-1]}", f"/unix/x/tcp/1/p2p/{name}",
    ):  # fmt: skip
        assert author_in(bad) is None, bad
