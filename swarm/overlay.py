"""The trio side of the network, put together: host, gossip, sync, blobs, dialler, and who is connected."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ..protocols.names import nickname
from ..protocols.records import Hello, Lead, Notice, Record, sign_notice
from ..protocols.signing import public_key
from . import addresses, blobs, corpora, exchange, sync, traffic
from .blobs import Blobs
from .corpora import Corpora
from .counts import Counts
from .dialer import Dialer
from .exchange import Exchange
from .gossip import Gossip, libp2p_id
from .hardened import guard, route_logging
from .host import author_from, open_host
from .intake import Intake
from .ledger import Ledger
from .relay import Relay
from .sync import Sync
from .traffic import Traffic
from .types import NetworkConfig, Peer

_HELLOS = 8192  # authors whose last hello is kept, some 8 MB: whoever is left out is in nobody's order of verifiers
_REACH = 4  # peers that pass a hello on: by then it comes to everybody


@dataclass(frozen=True)
class Listeners:
    """What the other side of the border wants to hear; called on the trio thread, must not block."""

    on_record: Callable[[Record], None]
    on_notice: Callable[[Notice], None]
    on_peers: Callable[[], None]


class Overlay:
    """One running node of the network. `peers`, `addresses` and `counts` may be read from any thread."""

    def __init__(self, config: NetworkConfig, ledger: Ledger, listeners: Listeners) -> None:
        self._config, self._ledger, self._listeners = config, ledger, listeners
        self._own = public_key(config.seed)
        self.counts = Counts()
        self.peers: tuple[Peer, ...] = ()
        self.addresses: tuple[str, ...] = ()
        self._hellos: dict[bytes, Notice] = {}
        self._heard_at: dict[bytes, float] = {}  # this machine's monotonic time of each hello
        self._since: dict[ID, int] = {}
        self._hello: Hello | None = None
        self._reach = 0  # peers when the hello was last gossiped
        self._changed = trio.Event()
        self._stop = trio.Event()

    async def run(self, on_listening: Callable[[], None]) -> None:
        """Run until `stop`; `on_listening` once others can connect. NetworkError when a port is taken."""
        route_logging()
        config = self._config
        traffic.use(Traffic(self.counts, config.bytes_per_second))
        async with open_host(config) as host:
            self._host = host
            self._intake = Intake(config, self._ledger, self._own, self.counts, self._listeners.on_record)
            self._gossip = Gossip(config, host, self._intake, self.counts, self._heard)
            self._sync = Sync(host, self._ledger, self._intake, self._gossip, config, self.counts)
            self._blobs = Blobs(host, self._ledger, self._gossip, config.timing)
            self._corpora = Corpora(host, self._gossip, config.timing, config.shared)
            self._dialer = Dialer(config, host, self._ledger, self._gossip, self._own, self.counts)
            self._relay = Relay(config, host, self._dialer, self._see_addresses)
            self._exchange = Exchange(config, host, self._gossip, lambda: list(self._hellos.values()), self._introduced)
            self._intake.on_gap = self._sync.gap
            host.libp2p.set_stream_handler(TProtocol(sync.PROTOCOL), guard(self._sync.answer))
            host.libp2p.set_stream_handler(TProtocol(blobs.PROTOCOL), guard(self._blobs.answer))
            host.libp2p.set_stream_handler(TProtocol(corpora.PROTOCOL), guard(self._corpora.answer))
            host.libp2p.set_stream_handler(TProtocol(exchange.PROTOCOL), guard(self._exchange.answer))
            host.swarm.register_notifee(_Connections(self.counts, self._connection))
            self._relay.start()
            await self._gossip.start()
            await host.listen(config.listen)
            self._see_addresses()
            async with trio.open_nursery() as nursery:
                for part in (self._intake, self._gossip, self._sync, self._dialer, self._exchange, self._relay):
                    nursery.start_soon(part.run)
                nursery.start_soon(self._watch_peers)
                nursery.start_soon(self._watch_addresses)
                on_listening()
                await self._stop.wait()
                nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Leave politely. Cancelling `run` instead takes libp2p's services down together with the connections, whose
        sockets then stay open."""
        self._stop.set()

    # ---- asked from the other side

    async def publish(self, record: Record) -> None:
        """Gossip a record of this node."""
        await self._gossip.publish(record)

    async def announce(self, body: Hello | Lead) -> None:
        """Sign and gossip a notice; a hello that few peers could pass on is repeated when more have come."""
        notice = sign_notice(self._config.seed, time=self._config.clock_ms(), body=body)
        if isinstance(body, Hello):
            self._hello, self._reach = body, len(self._host.connected())
            self._exchange.say(notice)
        await self._gossip.announce(notice)

    async def fetch(self, digest: bytes) -> bytes:
        """A blob by digest."""
        return await self._blobs.fetch(digest)

    async def fetch_corpus(
        self, digest: bytes, folder: Path, on_progress: Callable[[int, int], None]
    ) -> dict[str, Path]:
        """The slices of a text by its digest."""
        return await self._corpora.fetch(digest, folder, on_progress)

    async def connect(self, address: str) -> bool:
        """Dial an address, and keep dialling it once it worked."""
        return await self._dialer.dial(address)

    async def suggest(self, author: bytes, addresses: tuple[str, ...]) -> None:
        """Dial a few times who may be there, unless there are peers enough."""
        if len(self._host.connected()) < self._config.limits.connections_wanted:
            self._dialer.suggest(author, addresses)

    async def synced(self, seconds: float) -> bool:
        """Wait for the first whole sync with any peer; whether there was one in time."""
        with trio.move_on_after(seconds):
            await self._sync.first.wait()
        return self._sync.first.is_set()

    # ---- who is here

    def present(self, seconds: float) -> tuple[tuple[bytes, Hello], ...]:
        """Authors who said hello within the last `seconds`, connected to this node or not. From any thread."""
        since = time.monotonic() - seconds
        heard = [author for author, at in list(self._heard_at.items()) if at >= since]
        notices = [notice for author in heard if (notice := self._hellos.get(author)) is not None]
        return tuple((one.author, one.body) for one in notices if isinstance(one.body, Hello))

    def _connection(self, peer: ID, opened: bool) -> None:
        self._changed.set()
        self._relay.changed.set()
        if opened:
            self._gossip.connected(peer)
            if not self._gossip.is_banned(peer):
                self._sync.connected(peer)
                self._exchange.connected(peer)
        elif peer not in self._host.connected():
            self._dialer.lost(peer)
            self._relay.lost(peer)
            self._sync.lost(peer)

    async def _watch_peers(self) -> None:
        again = math.inf
        while True:
            with trio.move_on_at(again):
                await self._changed.wait()
            if trio.current_time() >= again:
                again = math.inf
                assert self._hello is not None
                await self.announce(self._hello)
            if not self._changed.is_set():
                continue
            self._changed = trio.Event()
            connected = self._host.connected()
            now = self._config.clock_ms()
            came = connected - self._since.keys()
            self._since = {peer: self._since.get(peer, now) for peer in connected}
            if self._publish_peers():
                self._listeners.on_peers()
            if came and self._hello is not None and self._reach < _REACH:
                again = min(again, trio.current_time() + 2 * self._config.timing.heartbeat)  # they are in the mesh then

    async def _watch_addresses(self) -> None:
        """A laptop wakes up in another network."""
        while True:
            await trio.sleep(self._config.timing.addresses)
            self._see_addresses()

    def _see_addresses(self) -> None:
        direct = addresses.dialable(self._host.listening(), self._own)
        self.addresses = (*direct, *self._relay.addresses)

    def _publish_peers(self) -> bool:
        """Refresh `peers`; whether somebody came or left."""
        found: list[Peer] = []
        for peer, since in self._since.items():
            author = author_from(peer)
            if author is not None:
                notice = self._hellos.get(author)
                hello = notice.body if notice is not None and isinstance(notice.body, Hello) else None
                found.append(Peer(author, nickname(author), self._host.seen_at(peer), since, hello))
        before = {peer.author for peer in self.peers}
        self.peers = tuple(sorted(found, key=lambda peer: peer.since_ms))
        return before != {peer.author for peer in found}

    def _introduced(self, notice: Notice) -> None:
        """A hello that a peer passed on, said some minutes ago perhaps."""
        assert isinstance(notice.body, Hello)
        if notice.body.task == self._config.task:
            self._heard(notice, max(0.0, (self._config.clock_ms() - notice.time) / 1000))
        elif notice.author != self._own:
            self._suggested(notice.author, notice.body)

    def _heard(self, notice: Notice, ago: float = 0.0) -> None:
        """A valid notice; one that is older than what was heard before is a replay. ago: seconds since it was said."""
        if notice.author == self._own:
            return
        if isinstance(notice.body, Hello):
            before = self._hellos.pop(notice.author, None)
            if before is not None and before.time >= notice.time:
                self._hellos[notice.author] = before
                return
            self._hellos[notice.author] = notice
            self._heard_at[notice.author] = time.monotonic() - ago
            if len(self._hellos) > _HELLOS:
                oldest = next(iter(self._hellos))
                del self._hellos[oldest], self._heard_at[oldest]
            self._meet(notice.author, notice.body)
        self._listeners.on_notice(notice)

    def _suggested(self, author: bytes, hello: Hello) -> None:
        """Somebody whom a peer knows or who said hello: dialled while there are few on this node's task, and few at all
        when it works on another one."""
        if self._host.swarm.get_connections(ID(libp2p_id(author))):
            return
        wanted = self._config.limits.connections_wanted
        near = hello.task == self._config.task
        if not near:
            self._dialer.suggest(author, hello.addresses, wanted // 2)
        else:
            others = sum(peer.hello is None or peer.hello.task != self._config.task for peer in self.peers)
            self._dialer.suggest(author, hello.addresses, others + wanted)

    def _meet(self, author: bytes, hello: Hello) -> None:
        met = next((peer for peer in self.peers if peer.author == author), None)
        if met is None:
            self._suggested(author, hello)
            return
        self.peers = tuple(replace(peer, hello=hello) if peer is met else peer for peer in self.peers)
        for address in hello.addresses:
            # The port it dialled from means nothing; the address it listens on, at the host it is seen at, does.
            near = addresses.host_of(address) == addresses.host_of(met.address)
            if near and addresses.author_in(address) == author and addresses.through_relay(address) is None:
                self._dialer.note(address)


class _Connections(INotifee):
    """Tells of connections that opened and closed."""

    def __init__(self, counts: Counts, told: Callable[[ID, bool], None]) -> None:
        self._counts, self._told = counts, told

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        muxed = conn.muxed_conn
        if not muxed.is_initiator and muxed.get_connection_type() is not ConnectionType.RELAYED:
            self._counts.reached += 1
        self._told(muxed.peer_id, True)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._told(conn.muxed_conn.peer_id, False)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
