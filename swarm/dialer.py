"""Dialler: keeps invited and remembered peers connected, and finds peers of peers when there are few. trio side."""

from __future__ import annotations

import collections
import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio
from libp2p.peer.id import ID

from ..protocols.errors import SwarmNodeError
from ..protocols.names import peer_id
from .addresses import author_in, through_relay
from .counts import Counts
from .gossip import Gossip, libp2p_id
from .host import Host
from .ledger import Ledger
from .types import NetworkConfig

log = structlog.get_logger()

_AT_ONCE = 8
_FOR_SUGGESTED = 4  # of them at most, so that what strangers suggest holds up nobody whom this node knows
_ADDRESSES = 8  # of one peer
_MAX_TARGETS = 256
_SUGGESTED_TRIES = 3


@dataclass
class _Target:
    """A peer to be connected to."""

    addresses: list[str]
    lasting: bool  # dialled for ever; suggested ones only a few times
    due: float
    failures: int = 0
    dialling: bool = False
    below: int | None = None  # dialled only while there are fewer connections
    worked: str | None = None  # the address that was dialled last with success, and not through a relay


class Dialer:
    """Dials with jittered backoff; a peer that was lost is dialled again at once."""

    def __init__(
        self, config: NetworkConfig, host: Host, ledger: Ledger, gossip: Gossip, own: bytes, counts: Counts
    ) -> None:
        self._config, self._host, self._ledger, self._gossip, self._counts = config, host, ledger, gossip, counts
        self._own = own
        self._targets: dict[bytes, _Target] = {}
        self._notes: collections.deque[str] = collections.deque(maxlen=_MAX_TARGETS)
        self._wake = trio.Event()
        self.reached: Callable[[], None] = lambda: None  # called when somebody was dialled with success
        self.through: Callable[[str, float], Awaitable[bool]] | None = None  # dials an address behind a relay
        for address in config.dial:
            self._add(address, lasting=True, due=trio.current_time())

    def suggest(self, author: bytes, addresses: tuple[str, ...], below: int | None = None) -> None:
        """Where a peer is said to listen: it is dialled a few times, and only while there are fewer connections than
        `below`."""
        # Both sides hear of each other at about the same time: the greater key waits, so that one connection is made.
        pause = self._config.timing.redial[0] * random.uniform(1, 2) if self._own > author else 0.0
        direct = [address for address in addresses if through_relay(address) is None]
        relayed = [address for address in addresses if through_relay(address) is not None]
        for address in (*direct[:3], *relayed[:2]):
            if author_in(address) == author:  # nobody may send us to somebody else's address under another name
                self._add(address, lasting=False, due=trio.current_time() + pause, below=below)

    def lost(self, peer: ID) -> None:
        """A connection ended: dial again soon, if the peer is one of ours."""
        for author, target in self._targets.items():
            if peer.to_base58() == peer_id(author):
                target.failures, target.below = 0, None  # wanted back, however many others there are
                target.due = trio.current_time() + random.uniform(0.1, 0.5) * self._config.timing.redial[0]
                self._wake.set()

    async def dial(self, address: str, *, lasting: bool = True) -> bool:
        """Dial once, and for ever when it succeeds and is to be `lasting`; whether it is connected now."""
        author = author_in(address)
        if author in (None, self._own) or self._gossip.is_banned(ID(libp2p_id(author))):
            return False
        if not await self._connect(address, self._config.timing.dial):
            return False
        self._add(address, lasting=lasting, due=trio.current_time())
        if author in self._targets:
            self._worked(self._targets[author], address)
        return True

    def _worked(self, target: _Target, address: str) -> None:
        if through_relay(address) is None:
            target.worked = address
            self.reached()

    def dialled(self, author: bytes) -> str | None:
        """The address at which this node reached a peer, without a relay; None when it did not."""
        target = self._targets.get(author)
        return target.worked if target is not None else None

    def note(self, address: str) -> None:
        """Remember where a connected peer listens."""
        self._notes.append(address)
        self._wake.set()

    async def run(self) -> None:
        """Dial whoever is due, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._notes:
                    await self._remember(self._notes.popleft(), reached=False)
                now = trio.current_time()
                connected = {peer.to_base58() for peer in self._host.connected()}
                missing = [
                    (author, target)
                    for author, target in self._targets.items()
                    if not target.dialling
                    and peer_id(author) not in connected
                    and not self._gossip.is_banned(ID(libp2p_id(author)))
                ]
                for author, target in missing:
                    dialling = sum(other.dialling and not other.lasting for other in self._targets.values())
                    if target.below is not None and len(connected) + dialling >= target.below:
                        del self._targets[author]  # it will be suggested again
                        continue
                    busy = sum(other.dialling for other in self._targets.values())
                    if target.due <= now and busy < (_AT_ONCE if target.lasting else _FOR_SUGGESTED):
                        target.dialling = True
                        nursery.start_soon(self._try, author, target)
                self._wake = trio.Event()
                waiting = [target.due for author, target in missing if not target.dialling and author in self._targets]
                with trio.move_on_at(max(min(waiting, default=float("inf")), now + 0.05)):
                    await self._wake.wait()

    async def _try(self, author: bytes, target: _Target) -> None:
        try:
            # A circuit through a relay last: it costs both ends and the relay the work of two connections. Whoever sits
            # behind NAT tells addresses that lead nowhere from here: together they take no longer than one.
            direct = [address for address in target.addresses if through_relay(address) is None]
            relayed = [address for address in target.addresses if through_relay(address) is not None]
            whole = self._config.timing.dial
            each = whole / len(direct) if direct and relayed else whole
            for address in (*direct, *relayed):
                if await self._connect(address, each if address in direct else whole):
                    target.failures = 0
                    self._worked(target, address)
                    # What worked is tried first next time; newer ones may have pushed it out meanwhile.
                    target.addresses = [address, *(one for one in target.addresses if one != address)][:_ADDRESSES]
                    return
            target.failures += 1
            if not target.lasting and target.failures >= _SUGGESTED_TRIES:
                self._targets.pop(author, None)
        finally:
            first, longest = self._config.timing.redial
            pause = min(longest, first * 2.0 ** min(target.failures, 20))
            target.due = trio.current_time() + pause * random.uniform(0.5, 1.0)
            target.dialling = False
            self._wake.set()

    async def _connect(self, address: str, seconds: float) -> bool:
        self._counts.dials += 1
        try:
            if through_relay(address) is None:
                connected = await self._host.dial(address, seconds)
            else:
                connected = self.through is not None and await self.through(address, seconds)
        except Exception as error:
            log.debug("dial", address=address, error=f"{type(error).__name__}: {str(error)[:200]}")
            connected = False
        if not connected:
            self._counts.dial_failures += 1
            return False
        if through_relay(address) is None:  # which relay a peer is behind changes; the relay itself is remembered
            await self._remember(address, reached=True)
        return True

    async def _remember(self, address: str, *, reached: bool) -> None:
        """Keep an address at which a peer listens for the next start."""
        try:
            remember = functools.partial(self._ledger.remember_peer, reached=reached)
            await trio.to_thread.run_sync(remember, address, self._config.clock_ms())
        except SwarmNodeError as error:  # a full disk stops the research loop with a clear word; not the network
            log.warning("a peer could not be remembered", error=str(error))

    def _add(self, address: str, *, lasting: bool, due: float, below: int | None = None) -> None:
        author = author_in(address)
        if author is None or author == self._own:
            if author is None:
                log.warning("not an address that can be dialled", address=address[:200])
            return
        target = self._targets.get(author)
        if target is None:
            if len(self._targets) >= _MAX_TARGETS and not self._make_room():
                return
            target = self._targets[author] = _Target([], lasting, due, below=below)
        target.lasting = target.lasting or lasting
        if target.below is not None:
            target.below = max(below, target.below) if below is not None else None
        if address not in target.addresses:
            known = [one for one in target.addresses if one != target.worked]
            first = [target.worked] if target.worked is not None else []
            target.addresses = [*first, address, *known][:_ADDRESSES]  # the newest before older ones: networks change
        self._wake.set()

    def _make_room(self) -> bool:
        """Forget somebody who was only suggested."""
        connected = {peer.to_base58() for peer in self._host.connected()}
        idle = [
            author
            for author, target in self._targets.items()
            if not target.lasting and not target.dialling and peer_id(author) not in connected
        ]
        if idle:
            del self._targets[random.choice(idle)]
        return bool(idle)
