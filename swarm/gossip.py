"""Gossip: what may be said on which topic, how much of it, and what happens to peers that break the rules. trio side.

signature of the message -> size -> rate -> decode, canonical, schema, signature of the record, clock -> author and
topic fit. Provably invalid data is refused (so it is not passed on) and counted against its sender; late, repeated
or superfluous data is accepted and ignored, because honest forwarders cannot know better. A record from the future is
refused and not counted: the clock that is wrong may be this one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import base58
import structlog
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from ..protocols import topics
from ..protocols.errors import InvalidData, Untimely
from ..protocols.names import peer_id
from ..protocols.records import Notice, Record, Result, parse_notice, parse_record
from ..protocols.topics import Topic
from .counts import Counts
from .hardened import BoundedQueue
from .host import Host
from .intake import Came, Intake
from .types import NetworkConfig

log = structlog.get_logger()

_TRACKED = 4096  # authors with a rate, peers with offences; the oldest are forgotten
_OFFENCES_SECONDS = 3600.0
_HOUSEKEEPING_SECONDS = 30.0


@functools.lru_cache(maxsize=_TRACKED)
def libp2p_id(author: bytes) -> bytes:
    """The peer id bytes of a 32-byte public key."""
    return base58.b58decode(peer_id(author))


@dataclass
class _Bucket:
    level: float
    at: float


class Rates:
    """A token bucket per key."""

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._buckets: dict[bytes, _Bucket] = {}

    def allow(self, key: bytes, now: float) -> bool:
        """Whether one more is within `key`'s rate at `now` (seconds)."""
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[key] = bucket
        if len(self._buckets) > _TRACKED:
            del self._buckets[next(iter(self._buckets))]
        if bucket.level < 1:
            return False
        bucket.level -= 1
        return True


class Gossip:
    """Publishes and validates; hands records to the intake and notices to `on_notice`."""

    def __init__(
        self, config: NetworkConfig, host: Host, intake: Intake, counts: Counts, on_notice: Callable[[Notice], None]
    ) -> None:
        self._config, self._host, self._intake, self._counts = config, host, intake, counts
        self._on_notice = on_notice
        self._rates = Rates(config.limits.author_burst, config.limits.author_per_second)
        self._forwarders = Rates(config.limits.peer_burst, config.limits.peer_per_second)
        self.useful: set[ID] = set()  # connected peers that brought something valid
        self._offences: dict[ID, _Bucket] = {}
        self._banned: dict[ID, float] = {}
        self._unwanted: set[ID] = set()  # to be disconnected soon, but welcome again
        self._ban_wanted = trio.Event()
        self._saying = trio.Lock()
        host.pubsub.offence = self.offence
        host.pubsub.allow = self._allow

    async def start(self) -> None:
        """Join every topic of the task."""
        for topic in topics.of_task(self._config.task):
            # A synchronous validator: asynchronous ones run 10 at a time with a time limit and lose bursts (50 of
            # 100), and deliver twice when a message comes over two paths.
            self._host.pubsub.set_topic_validator(topic.name, functools.partial(self._validate, topic), False)
            await self._host.pubsub.subscribe(topic.name)

    async def publish(self, record: Record) -> None:
        """Say a record of this node on every topic it belongs to."""
        body = record.body
        if isinstance(body, Result):
            where = [topics.results(body.task)] if body.task == self._config.task else []
            where += [topics.WINS] if body.outcome == "kept" else []
        else:
            where = [topics.verifications(body.task)] if body.task == self._config.task else []
        data = record.to_bytes()
        for topic in where:
            await self._say(topic, data)

    async def announce(self, notice: Notice) -> None:
        """Say a notice of this node."""
        await self._say(topics.notices(self._config.task), notice.to_bytes())

    async def _say(self, topic: Topic, data: bytes) -> None:
        if len(data) > topic.max_bytes:  # an RPC over 1 MiB is dropped without a word, so sizes are checked here
            raise InvalidData(f"{len(data)} bytes where {topic.name} carries at most {topic.max_bytes}")
        async with self._saying:
            await self._host.pubsub.publish(topic.name, data)
            # publish() never yields: without a pause, a burst fills the outbound queues before anything is sent.
            await trio.lowlevel.checkpoint()
        self._counts.published += 1

    # ---- validation: synchronous, about 0.5 ms

    def _allow(self, forwarder: ID) -> bool:
        allowed = self._forwarders.allow(forwarder.to_bytes(), trio.current_time())
        self._counts.dropped += not allowed
        return allowed

    def _validate(self, topic: Topic, forwarder: ID, message: rpc_pb2.Message) -> bool:
        if forwarder == self._host.id:
            return True
        if len(message.data) > topic.max_bytes:
            self.offence(forwarder, "oversized")
            return False
        if not self._rates.allow(message.from_id, trio.current_time()):
            self._counts.dropped += 1
            if forwarder.to_bytes() == message.from_id:
                self.offence(forwarder, "flood")
            return False
        try:
            if topic.carries == "record":
                self._record(topic, message)
            else:
                self._notice(message)
        except Untimely:
            return False
        except InvalidData as error:
            self.offence(forwarder, error.what)
            return False
        self.useful.add(forwarder)
        return True

    def _record(self, topic: Topic, message: rpc_pb2.Message) -> None:
        record = parse_record(message.data, now_ms=self._config.clock_ms())
        # Only its author may gossip a record; sync is there to carry other people's.
        if libp2p_id(record.author) != message.from_id:
            raise InvalidData("record sent by another than its author")
        body = record.body
        if topic is topics.WINS:
            fits = isinstance(body, Result) and body.outcome == "kept"
        else:
            expected = topics.results if isinstance(body, Result) else topics.verifications
            fits = expected(body.task) == topic
        if not fits:
            raise InvalidData("record on the wrong topic")
        self._counts.received += 1
        self._intake.offer(Came(record, message.data))

    def _notice(self, message: rpc_pb2.Message) -> None:
        try:
            notice = parse_notice(message.data, now_ms=self._config.clock_ms())
        except Untimely:  # late, or one of two clocks is wrong: nobody's fault that can be proven
            return
        if libp2p_id(notice.author) != message.from_id:
            raise InvalidData("notice sent by another than its author")
        if notice.body.task != self._config.task:
            raise InvalidData("notice on the wrong topic")
        self._on_notice(notice)

    # ---- offences

    def offence(self, peer: ID, reason: str) -> None:
        """Count one broken rule against `peer`; too many within an hour get it banned for a while."""
        self._counts.invalid[reason[:60]] += 1
        now = trio.current_time()
        bucket = self._offences.pop(peer, None) or _Bucket(0, now)
        if now - bucket.at > _OFFENCES_SECONDS:
            bucket = _Bucket(0, now)
        bucket.level += 1
        self._offences[peer] = bucket
        if len(self._offences) > _TRACKED:
            del self._offences[next(iter(self._offences))]
        if bucket.level >= self._config.limits.offences and peer not in self._banned:
            self._banned[peer] = now + self._config.limits.ban_seconds
            self._counts.banned += 1
            log.info("a peer is banned for a while", peer=peer.to_base58(), reason=reason)
            # Refusing alone leaves the cost of checking: a flood of 200/s took 36 % of a core, blacklisted 3 %.
            self._host.pubsub.add_to_blacklist(peer)
            self._ban_wanted.set()

    def connected(self, peer: ID) -> None:
        """A peer is here: if they are too many now, one goes."""
        connected = self._host.connected()
        self.useful &= connected
        if victim := self._host.door.one_too_many(connected, self.useful):
            self._counts.crowded_out += 1
            self._unwanted.add(victim)
        if self.is_banned(peer) or victim:
            self._ban_wanted.set()

    def is_banned(self, peer: ID) -> bool:
        """Whether nothing is wanted from `peer` now."""
        return peer in self._banned

    async def run(self) -> None:
        """Disconnect the banned, pardon them later, and clean up what libp2p does not, until cancelled."""
        while True:
            with trio.move_on_after(min(_HOUSEKEEPING_SECONDS, self._config.limits.ban_seconds)):
                await self._ban_wanted.wait()
            self._ban_wanted = trio.Event()
            now = trio.current_time()
            for peer, until in list(self._banned.items()):
                if now >= until:
                    del self._banned[peer]
                    self._offences.pop(peer, None)
                    self._host.pubsub.remove_from_blacklist(peer)
                elif self._host.swarm.get_connections(peer):
                    await self._host.drop(peer)
            queues = self._host.pubsub.peer_queues.items()
            self._unwanted |= {peer for peer, queue in queues if isinstance(queue, BoundedQueue) and queue.stalled}
            while self._unwanted:
                await self._host.drop(self._unwanted.pop())
            # Grows for ever while adaptive gossip is off.
            self._host.gossip.recent_message_deliveries.clear()
            # Up to 1000 whole messages, 64 MB; the ledger is what finds equivocation, by author and seq.
            self._host.gossip.equivocation_detection.clear()
            self._host.gossip.forget(self._host.connected())
