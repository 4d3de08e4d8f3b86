"""Peer exchange: nodes of one swarm learn where others listen, whatever task those work on. trio side.

Hellos travel by gossip within a task, now and then. Here a node tells a peer that has just connected its own hello, and
gets some that the peer knows: so not everybody has to hear it by gossip whenever somebody comes. Each is signed by whom
it is about: a peer can make up nodes, and where they are said to be, but says nothing in the name of others. Who
answers at an address proves who it is before a word is believed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.peer.id import ID

from ..protocols import canonical
from ..protocols.errors import InvalidData, Untimely
from ..protocols.records import MAX_NOTICE, Hello, Notice, parse_notice
from .gossip import Gossip, libp2p_id
from .host import Host
from .streams import open_stream, read_frame, write_frame
from .types import NetworkConfig

log = structlog.get_logger()

PROTOCOL = "/swarm-node/peers/1"
_HELLOS = 16  # in one answer
_KEPT = 512  # hellos of other tasks
_FRESH_MS = 900_000
_FRAME = (_HELLOS + 1) * MAX_NOTICE
_ANSWERS_AT_ONCE = 32  # to different peers

Met = Callable[[Notice], None]


class Exchange:
    """Asks every peer that connects, and now and then another one."""

    def __init__(
        self, config: NetworkConfig, host: Host, gossip: Gossip, heard: Callable[[], Iterable[Notice]], met: Met
    ) -> None:
        """`heard`: the hellos of this node's own task. `met`: told of each hello that comes this way."""
        self.own: Notice | None = None  # this node's last hello
        self._config, self._host, self._gossip, self._heard, self._met = config, host, gossip, heard, met
        self._told: dict[bytes, Notice] = {}  # by the peers that they are about
        self._new: set[ID] = set()
        self._wake = trio.Event()
        self._answering: set[ID] = set()

    def say(self, hello: Notice) -> None:
        """This node's hello, from now on; who came before there was one is asked now."""
        self.own = hello
        if self._new:
            self._wake.set()

    def connected(self, peer: ID) -> None:
        """A peer is here."""
        self._new.add(peer)
        self._wake.set()

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            pause = self._config.timing.exchange * random.uniform(0.5, 1.0)
            with trio.move_on_after(pause):
                await self._wake.wait()
            self._wake = trio.Event()
            if self.own is None:
                continue
            connected = self._host.connected()
            asked = self._new & connected or set(random.sample(list(connected), min(1, len(connected))))
            self._new.clear()
            async with trio.open_nursery() as nursery:
                for peer in asked:
                    nursery.start_soon(self._ask, peer)

    async def _ask(self, peer: ID) -> None:
        deadline = self._config.timing.stream
        assert self.own is not None
        try:
            async with open_stream(self._host.libp2p, peer, PROTOCOL, deadline) as stream:
                await write_frame(stream, canonical.encode({"hellos": [self.own.to_bytes()]}), deadline)
                answer = self._parse(await read_frame(stream, _FRAME, deadline))
        except InvalidData as error:
            self._gossip.offence(peer, error.what)
            return
        except Exception as error:  # of an older version, or gone
            log.debug("peer exchange", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")
            return
        for notice in answer:
            self._met(notice)

    async def answer(self, stream: INetStream) -> None:
        """Stream handler: hear one hello, the asker's own, and say some."""
        peer = stream.muxed_conn.peer_id
        if peer in self._answering or len(self._answering) >= _ANSWERS_AT_ONCE or self._gossip.is_banned(peer):
            await stream.reset()
            return
        self._answering.add(peer)
        try:
            deadline = self._config.timing.stream
            try:
                told = self._parse(await read_frame(stream, _FRAME, deadline))
                if len(told) > 1 or any(libp2p_id(notice.author) != peer.to_bytes() for notice in told):
                    raise InvalidData("a hello of another than the asker")
            except InvalidData as error:
                self._gossip.offence(peer, error.what)
                await stream.reset()
                return
            known = {
                notice.author: notice for notice in (*self._heard(), *self._told.values()) if self._is_fresh(notice)
            }
            others = [notice for author, notice in known.items() if libp2p_id(author) != peer.to_bytes()]
            chosen = random.sample(others, min(_HELLOS - 1, len(others))) + ([self.own] if self.own else [])
            for notice in told:
                self._met(notice)
                self._told.pop(notice.author, None)
                if notice.body.task != self._config.task:  # else it is among those heard now
                    self._told[notice.author] = notice
            while len(self._told) > _KEPT:
                del self._told[next(iter(self._told))]
            await write_frame(stream, canonical.encode({"hellos": [one.to_bytes() for one in chosen]}), deadline)
            await stream.close()
        finally:
            self._answering.discard(peer)

    def _parse(self, data: bytes) -> list[Notice]:
        """The fresh hellos in a frame; InvalidData when one is no hello."""
        value = canonical.decode(data, _FRAME)
        listed = value.get("hellos") if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(listed, list) or len(listed) > _HELLOS:
            raise InvalidData("not a list of hellos")
        found: list[Notice] = []
        for item in listed:
            if not isinstance(item, bytes):
                raise InvalidData("not a list of hellos")
            try:
                notice = parse_notice(item, now_ms=self._config.clock_ms(), window_ms=_FRESH_MS)
            except Untimely:  # one of two clocks is wrong: nobody's fault that can be proven
                continue
            if not isinstance(notice.body, Hello):
                raise InvalidData("not a list of hellos")
            found.append(notice)
        return found

    def _is_fresh(self, notice: Notice) -> bool:
        return abs(notice.time - self._config.clock_ms()) < _FRESH_MS // 2
