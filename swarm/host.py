"""The libp2p host: TCP, Noise and Yamux only, gossip on top, started and closed in the order that works. trio side."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service

from ..protocols.errors import NetworkError
from ..protocols.names import author_of
from ..protocols.topics import notices, of_task
from .admission import Door
from .hardened import SafeGossip, SafePubsub, guard
from .types import NetworkConfig, Timing

# No /meshsub/1.2.0: py-libp2p sends its IDONTWANT for every message of any size, which doubles the CPU per message.
_GOSSIP_PROTOCOLS = [TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0")]
_MAX_RPC = 1 << 20  # the sender's own limit; our largest message has 64 KiB
_CLOSE_SECONDS = 1.0
_NEVER = 1e12


@dataclass(frozen=True)
class Host:
    """A running host."""

    libp2p: BasicHost
    swarm: Swarm
    pubsub: SafePubsub
    gossip: SafeGossip
    door: Door

    @property
    def id(self) -> ID:
        """This node's peer id."""
        return self.libp2p.get_id()

    def connected(self) -> set[ID]:
        """Connected peers."""
        connections = self.swarm.get_connections_map()
        return {peer for peer, some in connections.items() if any(not one.is_closed for one in some)}

    def seen_at(self, peer: ID) -> str:
        """The address at which a connected peer is seen; empty when it has just left."""
        connections = (one for one in self.swarm.get_connections(peer) if not one.is_closed)
        return next((str(address) for one in connections for address in one.get_transport_addresses()), "")

    def listening(self) -> list[tuple[str, int]]:
        """Bound (ip, port) pairs."""
        out: list[tuple[str, int]] = []
        for listener in self.swarm.listeners.values():
            for address in listener.get_addrs():
                parts = str(address).split("/")
                out.append((parts[2], int(parts[4])))
        return out

    async def listen(self, addresses: tuple[str, ...]) -> None:
        """Listen on every address; NetworkError names the port that is taken.

        host.run(listen_addrs=...) raises nothing when a port is taken, so this is done here and looked at.
        """
        for text in addresses:
            if not await self.swarm.listen(multiaddr.Multiaddr(text)):
                port = text.split("/")[4]
                raise NetworkError(
                    f"port {port} is in use",
                    why=f"nothing can listen on {text} now; another node or program has it",
                    fix="take any free port: swarm-node join --port 0",
                )

    async def dial(self, address: str, deadline: float) -> bool:
        """Connect to a multiaddr with /p2p/<peer id>; whether there is a connection now."""
        info = info_from_p2p_addr(multiaddr.Multiaddr(address))
        self.swarm.unblock_peer(info.peer_id)  # 60 s negative dial cache: a reconnect took 58 s, without it 0.5 s
        with contextlib.suppress(Exception):
            # Only the first TCP address in the peerstore is ever dialled, and identify put the peer's own list there.
            self.libp2p.get_peerstore().clear_addrs(info.peer_id)
        with trio.move_on_after(deadline), contextlib.suppress(Exception):
            await self.libp2p.connect(info)
        return bool(self.swarm.get_connections(info.peer_id))

    async def drop(self, peer: ID) -> None:
        """Close every connection to `peer`."""
        with trio.move_on_after(_CLOSE_SECONDS), contextlib.suppress(Exception):
            await self.libp2p.disconnect(peer)


@contextlib.asynccontextmanager
async def open_host(config: NetworkConfig) -> AsyncIterator[Host]:
    """A host with gossip running that does not listen yet, closed at the end within about 2 s."""
    host = _build(config)
    async with (
        host.libp2p.run(listen_addrs=[]),
        background_trio_service(host.pubsub),
        background_trio_service(host.gossip),
    ):
        # Listen only after this: a peer that connects before Pubsub's service runs crashes the host.
        await host.pubsub.wait_until_ready()
        try:
            yield host
        finally:
            with trio.move_on_after(_CLOSE_SECONDS) as scope:
                scope.shield = True
                await _close(host)


async def _close(host: Host) -> None:
    """Leaving host.run() does not close the sockets; host.close() does, one connection after the other at 0.2 s
    each, so the connections are closed side by side first."""
    with contextlib.suppress(Exception):
        async with trio.open_nursery() as nursery:
            for peer in host.connected():
                nursery.start_soon(host.drop, peer)
        await host.libp2p.close()
    host.pubsub.seen_messages.stop()  # a thread that sweeps the cache and is never ended otherwise


def _build(config: NetworkConfig) -> Host:
    keys = create_new_key_pair(config.seed)
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    libp2p = new_host(
        key_pair=keys,
        listen_addrs=[multiaddr.Multiaddr(address) for address in config.listen],
        sec_opt={NOISE: noise},  # the default also offers secio and plaintext, and a plaintext dialer got in
        muxer_opt={TProtocol(YAMUX): Yamux},
        connection_config=_connections(config.timing),
        psk=config.key.hex() if config.key is not None else None,
    )
    assert isinstance(libp2p, BasicHost)
    swarm = libp2p.get_network()
    assert isinstance(swarm, Swarm)
    # It dials whatever identify left in the peerstore, every 30 s and after each disconnect, up to 200 connections, and
    # still takes 66 s to bring a peer back. dialer.py does it instead.
    swarm.auto_connector.maybe_connect = _dial_nobody  # type: ignore[method-assign]
    # One exception in any stream handler, ours or libp2p's, ends the whole host.
    swarm.set_stream_handler(guard(swarm.common_stream_handler))
    gossip = SafeGossip(
        protocols=_GOSSIP_PROTOCOLS,
        degree=4,  # a copy costs 1 to 2 ms of CPU at each end, and sync brings what a thin mesh loses
        degree_low=3,
        degree_high=128 if config.hub else 6,  # a hub that prunes cuts leaves off that know nobody else: 40-50 %
        heartbeat_interval=config.timing.heartbeat,  # type: ignore[arg-type]  # seconds; only ever slept
        heartbeat_initial_delay=0.1,
        gossip_window=3,
        gossip_history=60,
        adaptive_gossip_enabled=False,  # it raises the heartbeat to 30-60 s in small swarms
        spam_protection_enabled=False,  # 10 messages/s per FORWARDER, own included: 60 sent in 1 s, 14 delivered
    )
    # Hellos of 35 nodes come each second, and with each heartbeat six more peers were told of them.
    gossip.brief = frozenset({notices(config.task).name})
    gossip.max_ihave_messages_per_second = gossip.max_iwant_requests_per_second = 100.0  # 10/s slows repair
    pubsub = SafePubsub(
        libp2p,
        gossip,
        strict_signing=True,
        max_inbound_rpc_size=_MAX_RPC,
        allowed_topics={topic.name for topic in of_task(config.task)},
        seen_ttl=600,
    )
    # Sequence numbers start at the Unix time in seconds: after a restart they repeat inside the peers' seen-cache,
    # and 5 of 100 messages were delivered. From nanoseconds they never repeat.
    pubsub.counter = time.time_ns()
    return Host(libp2p, swarm, pubsub, gossip, Door(swarm, config.limits.connections))


async def _dial_nobody() -> None: ...


def _connections(timing: Timing) -> ConnectionConfig:
    return ConnectionConfig(
        # A peer that froze or vanished without a FIN is otherwise kept for ever.
        enable_health_monitoring=True,
        health_initial_delay=min(5.0, timing.health),
        health_warmup_window=min(5.0, timing.health),
        health_check_interval=timing.health,
        ping_timeout=timing.ping,
        abort_connection_on_ping_failure=True,
        # Else it replaces what is slow: where a machine is short of time every connection is, and dialling takes the
        # rest (20 nodes on two cores never came to an end with it).
        max_ping_latency=_NEVER,
        min_ping_success_rate=0.0,
        min_health_threshold=0.0,
        max_failed_streams=int(_NEVER),
    )


@functools.lru_cache(maxsize=4096)
def author_from(peer: ID) -> bytes | None:
    """The public key in a peer id; None for a peer whose key is not Ed25519."""
    try:
        return author_of(peer.to_base58())
    except ValueError:
        return None
