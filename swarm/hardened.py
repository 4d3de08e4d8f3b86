"""py-libp2p 0.8.1 with its silent losses and remote kills taken out. trio side.

Every change carries what was measured without it. Importing this module applies the changes that only
module-level code can reach.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import libp2p.pubsub.gossipsub as gossipsub_module
import libp2p.pubsub.pubsub as pubsub_module
import libp2p.transport.tcp.tcp as tcp_module
import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.connection_types import ConnectionType
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.peer.peerstore import env_to_send_in_RPC
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.utils import safe_bytes_from_hex
from libp2p.security.pnet.psk_conn import PskConn
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from . import traffic

log = structlog.get_logger()

_SMALL_READ = 4096
_WINDOW_CREDIT = 32768
_FRAME_SECONDS = 10.0  # of 64 KiB at most

# The outbound queue holds 32 RPCs per peer and drops the rest without a word: bursts of 60 and of 200
# messages both delivered 32. With 512, 200 messages of 64 KB all arrive.
_QUEUED_RPCS = 512
_QUEUED_BYTES = 16 << 20
_STALLED_SECONDS = 10.0

_CONTROLS = 256  # of one kind in one RPC: one a topic is usual, and up to 64 that had to wait come with it
_NAMED = 5000  # messages that one of them names
_BACK_OFF_SECONDS = 600
_NAME = 64  # bytes that tell a message from all others: a peer id of 38 and a number of 8


class BoundedQueue(RpcQueue):
    """An outbound queue that bytes fill as well: 512 of the largest messages are 32 MB, for each peer that does not
    read. `stalled`: nothing was taken from it for a while, and it is full."""

    def __init__(self) -> None:
        super().__init__(max_size=_QUEUED_RPCS)
        self._bytes = 0
        self._taken = trio.current_time()
        self.stalled = False

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return _QUEUED_BYTES - self._bytes

    def push(self, rpc: rpc_pb2.RPC, priority: bool = False) -> bool:
        """Whether there was room."""
        size = rpc.ByteSize()
        ok = self._bytes + size <= _QUEUED_BYTES and super().push(rpc, priority)
        if ok:
            self._bytes += size
        elif not ok and trio.current_time() - self._taken > _STALLED_SECONDS:
            self.stalled = True
        return ok

    async def pop(self) -> rpc_pb2.RPC | None:
        """The next one; None at the end."""
        rpc = await super().pop()
        self._taken = trio.current_time()
        if rpc is not None:
            self._bytes -= rpc.ByteSize()
        return rpc


pubsub_module.RpcQueue = BoundedQueue  # type: ignore[assignment, misc]

# Every RPC carries the sender's signed addresses, and every receiver checks that signature twice: 14 % of CPU and bytes
# with ten nodes. Where nodes listen is in their hellos; what would come into the peerstore so is never dialled. To look
# at all addresses anew for each RPC was another 10 % of CPU: `send_rpc` takes them out, and what does not pass through
# it carries the ones of the start.
_signed: weakref.WeakKeyDictionary[IHost, bytes] = weakref.WeakKeyDictionary()


def _signed_once(host: IHost) -> tuple[bytes, bool]:
    if host not in _signed:
        _signed[host] = env_to_send_in_RPC(host)[0]
    return _signed[host], False


for _module in (pubsub_module, gossipsub_module):
    _module.maybe_consume_signed_record = lambda *_: True  # type: ignore[assignment]
    _module.env_to_send_in_RPC = _signed_once  # type: ignore[assignment]

_send_window_update = YamuxStream._auto_tune_and_send_window_update


async def _send_window_update_rarely(self: YamuxStream, *, bytes_read: int = 0) -> None:
    """Every read of one byte sends a WINDOW_UPDATE frame (5148 of them beside 1764 data frames), which halves
    throughput and costs three quarters of the CPU per message; small reads are added up instead."""
    credit = getattr(self, "_unsent_credit", 0) + bytes_read
    if 0 < bytes_read < _SMALL_READ and credit < _WINDOW_CREDIT:
        self._unsent_credit = credit  # type: ignore[attr-defined]
        return
    self._unsent_credit = 0  # type: ignore[attr-defined]
    await _send_window_update(self, bytes_read=credit)


YamuxStream._auto_tune_and_send_window_update = _send_window_update_rarely  # type: ignore[method-assign]


async def _write_whole_frame(self: Yamux, data: bytes) -> None:
    """A write that is cancelled after Noise counted it, and before all of it was sent, leaves two ends that cannot
    read each other: the connection ends, with everybody's streams (4 of 32 times when one circuit of a relay's
    ended). So a frame that was begun is sent, or the connection is over."""
    if self.get_connection_type() is ConnectionType.DIRECT:  # what goes through a relay is a frame of that connection
        await traffic.current().may_send(len(data))
    async with self._write_lock:
        with trio.move_on_after(_FRAME_SECONDS) as scope:
            scope.shield = True
            await self.secured_conn.write(data)
        if scope.cancelled_caught:
            with trio.move_on_after(1) as closing:
                closing.shield = True
                await self.secured_conn.close()
            raise RawConnError("the other end does not read")
    await trio.lowlevel.checkpoint()


Yamux._write_frame = _write_whole_frame  # type: ignore[method-assign]


def _reuse_address_only(sock: trio.socket.SocketType) -> None:
    """Listeners are opened with SO_REUSEPORT, so a second node on a taken port "succeeds" and the kernel gives each
    of the two a random half of the connections. Nothing here dials from its listening port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


tcp_module._set_reuse_flags = _reuse_address_only


# A connection of a private swarm forgets what it wraps: where it leads, and whether through a relay.
PskConn.get_transport_addresses = lambda self: self._conn.get_transport_addresses()  # type: ignore[method-assign]
PskConn.get_connection_type = lambda self: self._conn.get_connection_type()  # type: ignore[method-assign]


class _ToStructlog(logging.Handler):
    """What libp2p logs is mostly about peers that misbehave: a detail, whatever level it gives it."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("libp2p", logger=record.name, level=record.levelname, message=record.getMessage()[:500])


def route_logging() -> None:
    """Send libp2p's log to ours. It goes to stderr by two ways: its own logger has no handler, and it calls
    logging.debug(), which makes one on a root logger that has none."""
    for logger in (logging.root, logging.getLogger("libp2p")):
        if not logger.handlers:
            logger.addHandler(_ToStructlog(logging.WARNING))


def guard(handler: Callable[[INetStream], Awaitable[None]]) -> Callable[[INetStream], Awaitable[None]]:
    """`handler`, whose exceptions end its stream; unguarded they end the whole host."""

    @functools.wraps(handler)
    async def guarded(stream: INetStream) -> None:
        try:
            await handler(stream)
        except Exception as error:
            log.debug("a stream handler failed", error=f"{type(error).__name__}: {str(error)[:200]}")
            with contextlib.suppress(Exception):
                await stream.reset()

    return guarded


def contain(manager: Any) -> None:
    """From now on, what a task of this service raises is that task's end, not the host's. Its daemon tasks stay
    as they are: without one of them nothing works, and the whole network is to be started again."""
    spawn = manager.run_task

    def run_task(work: Callable[..., Awaitable[None]], *args: Any, daemon: bool = False, **options: Any) -> None:
        @functools.wraps(work)
        async def contained(*args: Any) -> None:
            try:
                await work(*args)
            except Exception as error:
                log.debug("a task of libp2p failed", error=f"{type(error).__name__}: {str(error)[:200]}")

        spawn(work if daemon else contained, *args, daemon=daemon, **options)

    manager.run_task = run_task


class SafePubsub(Pubsub):
    """Pubsub that one bad frame cannot kill. `offence(peer, reason)` hears of each; `allow(peer)` says whether one
    more message of that peer is looked at."""

    offence: Callable[[ID, str], None]
    allow: Callable[[ID], bool]

    async def run(self) -> None:
        """As always, contained."""
        contain(self.manager)
        await super().run()

    async def _teardown_if_connected(self, peer_id: ID) -> None:
        """Of a peer that is banned. The original raises KeyError, which ended the host, when the stream breaks at the
        same moment, as that of a sender of garbage does."""
        if stream := self.peers.get(peer_id):
            with contextlib.suppress(Exception):
                await stream.reset()
        self._handle_dead_peer(peer_id)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Nothing: the topic validators hand over what they accept. A subscription's channel holds 32 messages and
        drops the rest silently (100 sent to a reader that paused: 32 kept)."""

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """As always, but one topic a message, and what a peer's message raises is that peer's problem."""
        own = msg_forwarder == self.my_id
        if not own and not self.allow(msg_forwarder):  # before its signature is checked, which costs most
            return
        if len(msg.topicIDs) != 1:  # each topic has its own rules
            self.offence(msg_forwarder, "not exactly one topic")
            return
        if len(msg.from_id) + len(msg.seqno) > _NAME:  # kept for ten minutes, of up to a megabyte each
            return  # no offence: others pass such on
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # an unparsable key in a message, or a raising validator, killed the process
            if own:
                raise
            log.debug("a message could not be handled", error=f"{type(error).__name__}: {str(error)[:200]}")
            self.offence(msg_forwarder, "unhandled")

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Read until the stream ends; a DecodeError from one garbage frame killed the process."""
        try:
            await super().continuously_read_stream(stream)
        except Exception as error:
            peer = stream.muxed_conn.peer_id
            log.debug("a gossip stream broke", error=f"{type(error).__name__}: {str(error)[:200]}")
            self.offence(peer, "frame")
            with contextlib.suppress(Exception):
                await stream.reset()
            self._handle_dead_peer(peer)


class SafeGossip(GossipSub):
    """GossipSub that tells peers outside its mesh what it has, also those in prune back-off.

    Withheld for 60 s after a prune, that left the leaves of a star with one hub at 40-50 % delivery for good;
    told, they get 96-99 %, with a hub that keeps more links 100 %.
    """

    brief: frozenset[str] = frozenset()  # topics whose messages are repeated soon: nobody outside the mesh is told
    _telling = False

    async def run(self) -> None:
        """As always, contained."""
        contain(self.manager)
        await super().run()

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """As always, but of the topics that this node is in: a PRUNE of 9 bytes for an invented one left 312 here, for
        good. And whom a PRUNE names is not dialled: the dialler has rules for that."""
        control = rpc.control
        for said in (control.ihave, control.iwant, control.graft, control.prune, control.idontwant):
            del said[_CONTROLS:]
        for said in (control.ihave, control.graft, control.prune):
            for at in reversed(range(len(said))):
                if said[at].topicID not in self.mesh:
                    del said[at]
        for prune in control.prune:
            prune.ClearField("peers")
            prune.backoff = min(prune.backoff, _BACK_OFF_SECONDS)
        for one in (*control.ihave, *control.iwant):
            del one.messageIDs[_NAMED:]
        await super().handle_rpc(rpc, sender_peer_id)

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """As always, but each message once, and no more than can be sent: a megabyte that names one message of 64 KB
        again and again was an answer of 1.5 GB, put together before it was found too large."""
        assert self.pubsub is not None
        queue = self.pubsub.peer_queues.get(sender_peer_id)
        room = queue.room if isinstance(queue, BoundedQueue) else 0
        wanted: dict[bytes, bytes] = {}  # as it is spelt: there are several ways
        for spelt in iwant_msg.messageIDs:
            name = safe_bytes_from_hex(spelt)
            message = self.mcache.get(name) if name is not None and name not in wanted else None
            if name is None or message is None:
                continue
            room -= message.ByteSize()
            if room < 0:
                break
            wanted[name] = spelt
        await super().handle_iwant(rpc_pb2.ControlIWant(messageIDs=wanted.values()), sender_peer_id)

    async def flush_pending_messages(self, peer_id: ID) -> None:
        """What was said before the peer told its topics, through its queue: written past it, each subscription of a
        peer that does not read was three tasks that waited for as long as it was connected."""
        self._prune_pending_messages(peer_id)
        if self.pubsub is None or peer_id not in self.pubsub.peers:
            return
        topics = {topic for topic, peers in self.pubsub.peer_topics.items() if peer_id in peers}
        for _, rpc in self._pending_messages.pop(peer_id, []):
            if any(topic in topics for message in rpc.publish for topic in message.topicIDs):
                self.send_rpc(peer_id, rpc)

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        """What was said just before the peer came, through its queue."""
        for name in self.mcache.window(topic):
            message = self.mcache.get(name)
            if message is not None:
                self.send_rpc(peer_id, rpc_pb2.RPC(publish=[message]))

    def forget(self, connected: set[ID]) -> None:
        """Forget back-offs that are over, and who has left: whoever let itself be written to by nobody, or said
        something after the end, stayed in the mesh for good, in the place of a peer that is there."""
        assert self.pubsub is not None and self.scorer is not None
        now = time.time()
        for topic, peers in self.back_off.items():
            self.back_off[topic] = {peer: until for peer, until in peers.items() if until > now}
        known = {*self.dont_send_message_ids, *self.scorer.behavior_penalty, *self.scorer.time_in_mesh}
        for peer in known.union(*self.mesh.values(), *self.pubsub.peer_topics.values()) - connected:
            self.pubsub._handle_dead_peer(peer)
            self.remove_peer(peer)

    def send_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, priority: bool = False) -> None:
        """As always, without the sender's signed addresses."""
        rpc.ClearField("senderRecord")
        super().send_rpc(peer_id, rpc, priority)

    def _handle_topic_heartbeat(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        if topic in self.brief:
            kwargs.pop("peers_to_gossip", None)
        self._telling = kwargs.get("peers_to_gossip") is not None
        try:
            return super()._handle_topic_heartbeat(topic, *args, **kwargs)
        finally:
            self._telling = False

    def _get_in_topic_gossipsub_peers_from_minus(
        self, topic: str, num_to_select: int, minus: Any, backoff_check: bool = False
    ) -> Any:
        return super()._get_in_topic_gossipsub_peers_from_minus(
            topic, num_to_select, minus, backoff_check and not self._telling
        )
