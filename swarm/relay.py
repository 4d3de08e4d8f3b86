"""Circuits through a node that both ends can dial (libp2p's circuit relay v2), for nodes behind NAT. trio side.

A hub relays; every node asks the hubs that it dialled for a place, says so among its addresses, and takes what comes
through. Nothing is trusted to the relay: both ends shake hands with each other through it.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

import multiaddr
import structlog
import trio
from libp2p.abc import INetStream
from libp2p.connection_types import ConnectionType
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status
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
LIMITS = RelayLimits(duration=3600, data=64 << 20, max_circuit_conns=16, max_reservations=128)


class Relay:
    """The places that this node has at relays, and its ends of circuits."""

    def __init__(self, config: NetworkConfig, host: Host, dialer: Dialer, on_place: Callable[[], None]) -> None:
        """`on_place`: called when `addresses` may have changed."""
        self._on_place = on_place
        self._config, self._host, self._dialer = config, host, dialer
        self._protocol = _Protocol(host.libp2p, LIMITS, allow_hop=config.hub)
        self._until: dict[ID, float] = {}  # when a place ends, by relay
        self._refused: set[ID] = set()  # connected peers that relay nothing
        self.changed = trio.Event()  # somebody came or left
        dialer.through, dialer.reached = self.dial, lambda: self.changed.set()

    def start(self) -> None:
        """Take circuits, and relay them when this node is a hub."""
        if self._config.hub:
            self._host.libp2p.set_stream_handler(HOP, guard(self._protocol.hop))
        self._host.libp2p.set_stream_handler(STOP, guard(self._protocol.stop))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled through relays."""
        own = self._host.id.to_base58()
        now, connected = time.time(), self._host.connected()
        relays = [peer for peer, until in self._until.items() if until > now and peer in connected]
        where = [self._dialled(peer) for peer in relays]
        return tuple(f"{address}/{CIRCUIT}/p2p/{own}" for address in where if address is not None)

    async def run(self) -> None:
        """Keep places at relays, until cancelled."""
        while True:
            connected = self._host.connected()
            self._refused &= connected.keys()
            self._until = {peer: until for peer, until in self._until.items() if peer in connected}
            due = time.time() + LIMITS.reservation_ttl * _AGAIN
            for peer in connected:
                known = self._until.get(peer)
                wanted = known is None and len(self._until) < _RELAYS and peer not in self._refused
                if (wanted or (known is not None and known < due)) and self._dialled(peer) is not None:
                    await self._reserve(peer)
            self._on_place()
            with trio.move_on_after(_LOOK_SECONDS * random.uniform(0.5, 1.0)):
                await self.changed.wait()
            self.changed = trio.Event()

    def _dialled(self, peer: ID) -> str | None:
        author = author_from(peer)
        return self._dialer.dialled(author) if author is not None else None

    async def _reserve(self, peer: ID) -> None:
        try:
            async with open_stream(self._host.libp2p, peer, HOP, self._config.timing.stream) as stream:
                answer = await self._ask(stream, HopMessage(type=HopMessage.RESERVE))
        except Exception as error:  # most peers relay nothing
            log.debug("no relay", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")
            self._refused.add(peer)
            return
        if answer.status == Status.OK and answer.reservation.expire > time.time():
            self._until[peer] = min(answer.reservation.expire, time.time() + LIMITS.reservation_ttl)
        else:
            self._until.pop(peer, None)
            self._refused.add(peer)

    async def _ask(self, stream: INetStream, question: HopMessage) -> HopMessage:
        with trio.fail_after(self._config.timing.stream):
            await write_delimited_msg(stream, question)
            return await read_delimited_msg(stream, HopMessage)

    async def dial(self, address: str, deadline: float) -> bool:
        """Connect to a node through the relay that its address names; whether there is a connection now."""
        path = through_relay(address)
        assert path is not None
        relay, target_id = path[0], ID.from_string(path[1])
        relay_id = ID.from_string(relay.rsplit("/", 1)[1])
        if target_id in self._host.connected():
            return True
        if relay_id == self._host.id:
            return False
        with trio.move_on_after(deadline), contextlib.suppress(Exception):
            if relay_id in self._host.connected() or await self._host.dial(relay, deadline):
                await self._connect(relay_id, target_id)
        return target_id in self._host.connected()

    async def _connect(self, relay: ID, target: ID) -> None:
        stream = await self._host.libp2p.new_stream(relay, [HOP])
        try:
            answer = await self._ask(
                stream, HopMessage(type=HopMessage.CONNECT, peer=CircuitPeer(id=target.to_bytes()))
            )
            if answer.status != Status.OK:
                raise ConnectionError(f"the relay says {answer.status}")
            raw = _raw(stream, True, _path(relay, target))
            key = self._config.key
            # py-libp2p protects what it accepts with the private swarm's key, and what it dials only over TCP.
            await self._host.libp2p.upgrade_outbound_connection(
                raw if key is None else new_protected_conn(raw, key.hex()), target
            )
        except BaseException:
            with trio.move_on_after(1) as scope, contextlib.suppress(Exception):
                scope.shield = True
                await stream.reset()
            raise


class _Protocol(CircuitV2Protocol):
    """The library's relay, in which nobody takes a place in another's name."""

    async def hop(self, stream: INetStream) -> None:
        """Stream handler of a relay."""
        await self._handle_hop_stream(stream)

    async def stop(self, stream: INetStream) -> None:
        """Stream handler of a circuit's end."""
        await self._handle_stop_stream(stream)

    async def handle_incoming_connection(self, stream: INetStream, remote_peer_id: bytes) -> None:
        """As the library, which names this node itself as the relay between."""
        path = _path(stream.muxed_conn.peer_id, ID(remote_peer_id))
        try:
            await self.host.upgrade_inbound_connection(_raw(stream, False, path), path)
        except Exception:
            await stream.close()
            raise

    async def _handle_reserve(self, stream: INetStream, msg: HopMessage) -> None:
        msg.ClearField("peer")  # else it counts for whoever is named there
        await super()._handle_reserve(stream, msg)


def _path(relay: ID, peer: ID) -> multiaddr.Multiaddr:
    return multiaddr.Multiaddr(f"/p2p/{relay.to_base58()}/{CIRCUIT}/p2p/{peer.to_base58()}")


def _raw(stream: INetStream, is_initiator: bool, path: multiaddr.Multiaddr) -> RawConnection:
    return RawConnection(stream, is_initiator, connection_type=ConnectionType.RELAYED, addresses=[path])
