"""Circuits through a node that both ends can dial (libp2p's circuit relay v2), for nodes behind NAT. trio side.

A hub relays; every node asks the hubs that it dialled for a place, says so among its addresses, and takes what comes
through. Nothing is trusted to the relay: both ends shake hands with each other through it.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import multiaddr
import structlog
import trio
from libp2p.abc import INetStream
from libp2p.connection_types import ConnectionType
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, Status, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as CircuitPeer
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.relay.circuit_v2.protocol import STOP_PROTOCOL_ID as STOP
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg
from libp2p.security.pnet.protector import new_protected_conn

from .addresses import CIRCUIT, through_relay
from .dialer import Dialer
from .hardened import guard
from .host import Host, author_from
from .streams import open_stream
from .types import NetworkConfig

log = structlog.get_logger()

_RELAYS = 2  # at which a node has a place
_LOOK_SECONDS = 30.0
_AGAIN = 0.5  # of the time that a place is promised for
_REFUSED_SECONDS = 300.0
_MAX_ADDRESS = 200  # as hellos carry them
_TAKING = 8  # handshakes through relays at once
_FROM_ONE = 16  # circuits that one node has opened through this relay
_CHUNK = 65536
_ANSWER_SECONDS = 15.0
_CLOSING_SECONDS = 2.0
LIMITS = RelayLimits(duration=3600, data=64 << 20, max_circuit_conns=32, max_reservations=256)


class Relay:
    """The places that this node has at relays, and its ends of circuits."""

    def __init__(self, config: NetworkConfig, host: Host, dialer: Dialer, on_place: Callable[[], None]) -> None:
        """`on_place`: called when `addresses` may have changed."""
        self._on_place = on_place
        self._config, self._host, self._dialer = config, host, dialer
        self._hub = _Hub(host.libp2p, LIMITS, allow_hop=config.hub)
        self._until: dict[ID, float] = {}  # when a place ends, by relay
        self._refused: dict[ID, float] = {}  # until when not to ask, by connected peer: most relay nothing
        self._asking: set[ID] = set()
        self._taking = 0
        self._dialling: set[ID] = set()  # through relays, now
        self.changed = trio.Event()  # somebody came or left
        dialer.through, dialer.reached = self.dial, lambda: self.changed.set()

    def start(self) -> None:
        """Take circuits, and relay them when this node is a hub."""
        if self._config.hub:
            self._host.libp2p.set_stream_handler(HOP, guard(self._hub.hop))
        self._host.libp2p.set_stream_handler(STOP, guard(self._stop))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled through relays."""
        own = self._host.id.to_base58()
        now, connected = time.time(), self._host.connected()
        relays = [peer for peer, until in self._until.items() if until > now and peer in connected]
        where = [f"{address}/{CIRCUIT}/p2p/{own}" for peer in relays if (address := self._dialled(peer)) is not None]
        return tuple(address for address in where if len(address) <= _MAX_ADDRESS)

    def lost(self, peer: ID) -> None:
        """A peer is gone; when it comes again, it may be another process, which has no place for this node."""
        self._until.pop(peer, None)
        self._refused.pop(peer, None)
        self._on_place()

    # ---- having a place

    async def run(self) -> None:
        """Keep places at relays, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                now = time.time()
                for peer in self._host.connected():
                    until = self._until.get(peer)
                    if until is None:
                        due = len(self._until) < _RELAYS and self._refused.get(peer, 0.0) <= now
                    else:
                        due = until < now + LIMITS.reservation_ttl * _AGAIN
                    if due and peer not in self._asking and self._dialled(peer) is not None:
                        self._asking.add(peer)
                        nursery.start_soon(self._reserve, peer)
                self.changed = trio.Event()
                with trio.move_on_after(_LOOK_SECONDS * random.uniform(0.5, 1.0)):
                    await self.changed.wait()

    def _dialled(self, peer: ID) -> str | None:
        author = author_from(peer)
        return self._dialer.dialled(author) if author is not None else None

    async def _reserve(self, peer: ID) -> None:
        until = 0.0
        try:
            async with open_stream(self._host.libp2p, peer, HOP, self._config.timing.stream) as stream:
                answer = await self._ask(stream, HopMessage(type=HopMessage.RESERVE))
            if answer.status == Status.OK:
                until = min(answer.reservation.expire, time.time() + LIMITS.reservation_ttl)
        except Exception as error:
            log.debug("no relay", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")
        finally:
            self._asking.discard(peer)
        if peer in self._host.connected():
            if until > time.time():
                self._until[peer] = until
            else:
                self._until.pop(peer, None)
                self._refused[peer] = time.time() + _REFUSED_SECONDS
            self._on_place()

    async def _ask(self, stream: INetStream, question: HopMessage) -> HopMessage:
        with trio.fail_after(self._config.timing.stream):
            await write_delimited_msg(stream, question)
            return await read_delimited_msg(stream, HopMessage)

    # ---- the ends of a circuit

    async def dial(self, address: str, deadline: float) -> bool:
        """Connect to a node through the relay that its address names; whether there is a connection now."""
        path = through_relay(address)
        assert path is not None
        relay, target = ID.from_string(path[0].rsplit("/", 1)[1]), ID.from_string(path[1])
        if relay != self._host.id and target not in self._host.connected() and target not in self._dialling:
            self._dialling.add(target)
            try:
                with trio.move_on_after(deadline), contextlib.suppress(Exception):
                    if relay in self._host.connected() or await self._dialer.dial(path[0], lasting=False):
                        await self._connect(relay, target)
            finally:
                self._dialling.discard(target)
        return target in self._host.connected()

    async def _connect(self, relay: ID, target: ID) -> None:
        stream = await self._host.libp2p.new_stream(relay, [HOP])
        try:
            question = HopMessage(type=HopMessage.CONNECT, peer=CircuitPeer(id=target.to_bytes()))
            answer = await self._ask(stream, question)
            if answer.status != Status.OK:
                raise ConnectionError(f"the relay says {answer.status}")
            raw, key = _raw(stream, True, _path(relay, target)), self._config.key
            # py-libp2p protects what it accepts with the private swarm's key, and what it dials only over TCP.
            await self._host.libp2p.upgrade_outbound_connection(
                raw if key is None else new_protected_conn(raw, key.hex()), target
            )
        except BaseException:
            await _end(stream)
            raise

    async def _stop(self, stream: INetStream) -> None:
        """Stream handler: a circuit to this node, only from where it has a place: handshakes cost, and this door has
        no limits per address."""
        relay = stream.muxed_conn.peer_id
        if relay not in self._until or self._taking >= _TAKING:
            await _end(stream)
            return
        self._taking += 1
        try:
            with trio.fail_after(_ANSWER_SECONDS):
                said = await read_delimited_msg(stream, StopMessage)
                if said.type != StopMessage.CONNECT:
                    raise ConnectionError("not a circuit")
                peer = ID(said.peer.id)
                # Two who dial each other at once would end with two circuits, of which each closes another one.
                mine = peer in self._dialling and self._host.id.to_bytes() < peer.to_bytes()
                if mine or peer in self._host.connected():
                    await write_delimited_msg(
                        stream, StopMessage(type=StopMessage.STATUS, status=Status.CONNECTION_FAILED)
                    )
                    raise ConnectionError("connected already, or about to be")
                await write_delimited_msg(stream, StopMessage(type=StopMessage.STATUS, status=Status.OK))
                path = _path(relay, peer)
                await self._host.libp2p.upgrade_inbound_connection(_raw(stream, False, path), path)
        except BaseException:
            await _end(stream)
            raise
        finally:
            self._taking -= 1


class _Hub(CircuitV2Protocol):
    """The library's relay with circuits of our own: its own end each other, and its limits hold for one side only."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._opened: Counter[ID] = Counter()  # circuits, those included that are not through yet
        self._taken: Counter[ID] = Counter()

    async def hop(self, stream: INetStream) -> None:
        """Stream handler: one question, and the circuit that comes of it."""
        try:
            with trio.fail_after(_ANSWER_SECONDS):
                asked = await read_delimited_msg(stream, HopMessage)
            if any(CIRCUIT in str(address) for address in stream.muxed_conn.get_transport_addresses()):
                await _say(stream, Status.PERMISSION_DENIED)  # nothing nests
            elif asked.type == HopMessage.RESERVE:
                await self._handle_reserve(stream, asked)
            elif asked.type == HopMessage.CONNECT:
                await self._handle_connect(stream, asked)
            else:
                await _say(stream, Status.MALFORMED_MESSAGE)
        finally:
            await _end(stream)

    async def _handle_reserve(self, stream: INetStream, msg: HopMessage) -> None:
        msg.ClearField("peer")  # else it counts for whoever is named there
        manager = self.resource_manager
        for peer in list(manager._reservations):
            if not manager._is_peer_connected(peer):
                del manager._reservations[peer]  # the library keeps the place for an hour
        await super()._handle_reserve(stream, msg)

    async def _handle_connect(self, stream: INetStream, msg: HopMessage) -> None:
        source, target = stream.muxed_conn.peer_id, ID(msg.peer.id)
        if self.resource_manager.get_reservation(target) is None:
            await _say(stream, Status.NO_RESERVATION)
        elif self._opened[source] >= _FROM_ONE or self._taken[target] >= self.limits.max_circuit_conns:
            await _say(stream, Status.RESOURCE_LIMIT_EXCEEDED)
        else:
            with _counted(self._opened, source), _counted(self._taken, target):
                await self._circuit(stream, source, target)

    async def _circuit(self, stream: INetStream, source: ID, target: ID) -> None:
        limit = Limit(duration=self.limits.duration, data=self.limits.data)
        far: INetStream | None = None
        try:
            try:
                with trio.fail_after(_ANSWER_SECONDS):
                    far = await self.host.new_stream(target, [STOP])
                    peer = CircuitPeer(id=source.to_bytes())
                    await write_delimited_msg(far, StopMessage(type=StopMessage.CONNECT, peer=peer, limit=limit))
                    answer = await read_delimited_msg(far, StopMessage)
            except Exception:
                await _say(stream, Status.CONNECTION_FAILED)
                return
            if answer.status != Status.OK:
                await _say(stream, Status.CONNECTION_FAILED)
                return
            await _say(stream, Status.OK, limit)
            left = [self.limits.data]
            with trio.move_on_after(self.limits.duration):
                async with trio.open_nursery() as nursery:
                    for one, other in ((stream, far), (far, stream)):
                        nursery.start_soon(_pump, one, other, left, nursery.cancel_scope)
        finally:
            if far is not None:
                await _end(far)


async def _pump(source: INetStream, target: INetStream, left: list[int], circuit: trio.CancelScope) -> None:
    """Carry bytes one way until an end closes or the circuit's `left` bytes are used up, then end the circuit."""
    with contextlib.suppress(Exception):
        while data := await source.read(_CHUNK):
            left[0] -= len(data)
            if left[0] < 0:
                break
            with trio.fail_after(_ANSWER_SECONDS):
                await target.write(data)
    circuit.cancel()


async def _say(stream: INetStream, status: Status.ValueType, limit: Limit | None = None) -> None:
    with trio.move_on_after(_ANSWER_SECONDS), contextlib.suppress(Exception):
        await write_delimited_msg(stream, HopMessage(type=HopMessage.STATUS, status=status, limit=limit))


async def _end(stream: INetStream) -> None:
    """Close a stream, so that what was said last arrives, and reset one that the other end keeps open."""
    with trio.move_on_after(_CLOSING_SECONDS) as scope, contextlib.suppress(Exception):
        scope.shield = True
        await stream.close()
        while await stream.read(_CHUNK):
            pass
    if scope.cancelled_caught:
        with trio.move_on_after(1) as scope, contextlib.suppress(Exception):
            scope.shield = True
            await stream.reset()


@contextlib.contextmanager
def _counted(counter: Counter[ID], peer: ID) -> Iterator[None]:
    counter[peer] += 1
    try:
        yield
    finally:
        counter[peer] -= 1
        if not counter[peer]:
            del counter[peer]


def _path(relay: ID, peer: ID) -> multiaddr.Multiaddr:
    return multiaddr.Multiaddr(f"/p2p/{relay.to_base58()}/{CIRCUIT}/p2p/{peer.to_base58()}")


def _raw(stream: INetStream, is_initiator: bool, path: multiaddr.Multiaddr) -> RawConnection:
    return RawConnection(stream, is_initiator, connection_type=ConnectionType.RELAYED, addresses=[path])
