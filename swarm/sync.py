"""Sync: what makes late joiners, restarts and partitions lose nothing. trio side.

One pull: the asker sends how far it knows every author's log, the answerer streams the records that come after, in
order, each as one frame, then `done` or `more`; first of all the proofs against authors who signed two records for
one place, of whom the asker does not know it. Two nodes level each other by pulling in both directions: whoever is
asked and sees that the asker knows more pulls in turn. Everything received is validated as if a stranger had said it.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator, Sequence

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.peer.id import ID

from ..protocols import canonical
from ..protocols.errors import InvalidData, SwarmNodeError
from ..protocols.records import MAX_RECORD
from . import traffic
from .counts import Counts
from .gossip import Gossip
from .host import Host
from .intake import REFUSED, Intake
from .ledger import Head, Ledger
from .streams import open_stream, read_frame, write_frame
from .types import NetworkConfig

log = structlog.get_logger()

PROTOCOL = "/swarm-node/sync/1"
_ROW = struct.Struct("!32sQQ32s")  # author, epoch, seq, id
_ROWS = 4000  # authors and epochs in one question: 320 KB
_KEY = 32
_OUT = 1000  # authors named in a question whose proofs are not needed
_PROOFS = 50  # in one answer
_NO_MORE = 2**64 - 1  # a head beyond every record: send nothing of this log
_MAX_QUESTION = _ROWS * _ROW.size + _OUT * _KEY + 1024
_MAX_RECORDS = 2000  # in one answer; 2000 are validated and stored in about 1.5 s
_MAX_BYTES = 16 << 20
_BATCH = 64
_DONE, _MORE = b"\x00", b"\x01"  # no record is one byte long
_ANSWERS_AT_ONCE = 4
_PULLS_AT_ONCE = 4
_PULL_SECONDS = 120.0
_PATIENCE_SECONDS = 5.0

Heads = dict[tuple[bytes, int], tuple[int, bytes]]  # (author, epoch) -> (seq, id)


class Sync:
    """Pulls from every peer on connect, at an interval, and soon when `poke`d."""

    def __init__(
        self, host: Host, ledger: Ledger, intake: Intake, gossip: Gossip, config: NetworkConfig, counts: Counts
    ) -> None:
        self._host, self._ledger, self._intake, self._gossip = host, ledger, intake, gossip
        self._timing, self._limits, self._counts = config.timing, config.limits, counts
        self._due: dict[ID, float] = {}
        self._last: dict[ID, float] = {}
        self._failures: dict[ID, int] = {}  # in a row
        self._claims: dict[ID, frozenset[tuple[bytes, int, int]]] = {}  # what each last said to know beyond this node
        self._liars: set[ID] = set()
        self._pulling: set[ID] = set()
        self._answering: dict[ID, tuple[float, trio.CancelScope]] = {}  # since when
        self._wake = trio.Event()
        self.first = trio.Event()  # one whole sync is done

    # ---- asking

    def poke(self, peer: ID) -> None:
        """Pull from `peer` as soon as the least interval allows."""
        soon = max(trio.current_time(), self._last.get(peer, -1e9) + self._timing.sync_gap)
        self._due[peer] = min(soon, self._due.get(peer, soon))
        self._wake.set()

    def connected(self, peer: ID) -> None:
        """A peer is here: pull now."""
        self.poke(peer)

    def lost(self, peer: ID) -> None:
        """A peer is gone; when it comes back, everything starts anew."""
        for memory in (self._due, self._last, self._failures, self._claims):
            memory.pop(peer, None)
        self._liars.discard(peer)

    def gap(self) -> None:
        """A record came whose predecessor is not here: somebody connected has it."""
        peers = list(self._host.connected())
        for peer in random.sample(peers, min(2, len(peers))):
            self.poke(peer)

    async def run(self) -> None:
        """Pull from whoever is due, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                connected = self._host.connected()
                self._due = {peer: at for peer, at in self._due.items() if peer in connected}
                for peer, at in sorted(self._due.items(), key=lambda item: item[1]):
                    if at <= now and peer not in self._pulling and len(self._pulling) < _PULLS_AT_ONCE:
                        self._due[peer] = now + self._timing.sync * random.uniform(0.8, 1.2)
                        self._pulling.add(peer)
                        nursery.start_soon(self._pull_safely, peer)
                waiting = [at for peer, at in self._due.items() if peer not in self._pulling]
                full = len(self._pulling) >= _PULLS_AT_ONCE
                self._wake = trio.Event()
                with trio.move_on_at(min(waiting, default=float("inf")) if not full else float("inf")):
                    await self._wake.wait()

    async def _pull_safely(self, peer: ID) -> None:
        self._last[peer] = trio.current_time()
        try:
            with trio.fail_after(_PULL_SECONDS):
                await self._pull(peer)
            self._counts.syncs += 1
            self._failures.pop(peer, None)
            self.first.set()
        except InvalidData as error:
            self._counts.sync_failures += 1
            self._gossip.offence(peer, error.what)
        except SwarmNodeError:
            raise  # the ledger: nothing can go on without it
        except Exception as error:  # whatever ends a stream: the next round goes on from what was stored
            self._counts.sync_failures += 1
            self._retry(peer)
            log.debug("sync failed", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")
        finally:
            self._pulling.discard(peer)
            if peer not in self._host.connected():
                self.lost(peer)
            self._wake.set()

    def _retry(self, peer: ID) -> None:
        """Streams to a peer that has just connected, or is about to be noticed gone, do fail: not to wait a minute."""
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        pause = min(self._timing.sync, self._timing.redial[0] * 2.0 ** min(failures, 20))
        self._due[peer] = trio.current_time() + pause * random.uniform(0.5, 1.0)

    async def _pull(self, peer: ID) -> None:
        """Pull from `peer` until it has no more."""
        more, patience = True, REFUSED
        while more:
            more, new, refused = False, 0, 0
            heads = _flat(await trio.to_thread.run_sync(self._ledger.heads))
            unwanted = await trio.to_thread.run_sync(self._intake.unwanted)
            heads |= dict.fromkeys(unwanted, (_NO_MORE, bytes(32)))
            out = await trio.to_thread.run_sync(self._ledger.equivocators, _OUT)
            # Where more logs are refused than are remembered, each answer is full of them: what is behind them comes
            # when a question happens to begin there.
            first = random.randint(1, _ROWS) if len(unwanted) >= REFUSED else _ROWS
            for low, high, rows in _pages(heads, first):
                page_more, page_new, page_refused = await self._pull_page(peer, _question(low, high, rows, out))
                more, new, refused = more or page_more, new + page_new, refused + page_refused
            patience -= refused
            # "More" of what was known already is no progress, nor of what will be forgotten before it is told.
            more = more and (new > 0 or (refused > 0 and patience > 0))
            if new:
                self._liars.discard(peer)
            elif self._claims.get(peer):
                self._liars.add(peer)

    async def _pull_page(self, peer: ID, question: bytes) -> tuple[bool, int, int]:
        """Whether there is more, how many records were new, and how many logs were refused that had not been before."""
        new = refused = records = size = 0
        deadline = self._timing.stream
        async with open_stream(self._host.libp2p, peer, PROTOCOL, deadline) as stream:
            await write_frame(stream, question, deadline)
            batch: list[bytes] = []
            while True:
                frame = await read_frame(stream, MAX_RECORD, deadline)
                await traffic.current().got(len(frame))
                last = frame in (_DONE, _MORE)
                if not last:
                    batch.append(frame)
                    records, size = records + 1, size + len(frame)
                    if records > _MAX_RECORDS + 2 * _PROOFS or size > _MAX_BYTES + (2 * _PROOFS + 1) * MAX_RECORD:
                        raise InvalidData("a sync answer larger than allowed")
                if batch and (last or len(batch) >= _BATCH):
                    outcome = await self._intake.take(batch)
                    batch = []
                    new, refused = new + len(outcome.new), refused + outcome.refused
                    self._counts.synced += len(outcome.new)
                    if outcome.new:
                        self._gossip.useful.add(peer)
                    if outcome.invalid:
                        raise InvalidData(outcome.invalid)
                if last:
                    return frame == _MORE, new, refused

    # ---- answering

    async def answer(self, stream: INetStream) -> None:
        """Stream handler: send the asker what it lacks."""
        peer = stream.muxed_conn.peer_id
        if self._gossip.is_banned(peer) or peer in self._answering or not self._make_room():
            await stream.reset()
            return
        with trio.move_on_after(_PULL_SECONDS) as scope:  # the asker waits no longer either
            self._answering[peer] = (trio.current_time(), scope)
            try:
                await self._answer(peer, stream)
            except InvalidData as error:
                self._gossip.offence(peer, error.what)
                raise
            finally:
                del self._answering[peer]
        if scope.cancelled_caught:
            await stream.reset()

    def _make_room(self) -> bool:
        """Whether one more may be answered; whoever has been reading for long gives way, and goes on at its next
        question from what it got."""
        if len(self._answering) < _ANSWERS_AT_ONCE:
            return True
        since, scope = min(self._answering.values(), key=lambda answer: answer[0])
        if trio.current_time() - since < _PATIENCE_SECONDS:
            return False
        scope.cancel()
        return True

    async def _answer(self, peer: ID, stream: INetStream) -> None:
        low, high, theirs, out = _parse_question(await read_frame(stream, _MAX_QUESTION, self._timing.stream))
        ours = await trio.to_thread.run_sync(self._ledger.heads)
        self._hear_claim(peer, _flat(ours), theirs)
        if not low:  # once for all pages
            for proof in await trio.to_thread.run_sync(self._ledger.proofs, out, _PROOFS):
                for wire in proof:
                    await write_frame(stream, wire, self._timing.stream)
        newest = slice(-self._limits.author_epochs, None)  # of what came before there was such a quota, or a higher one
        asked = {author: epochs[newest] for author, epochs in ours.items() if _within(author, low, high)}
        await self._send(stream, _flat(asked), theirs)
        await stream.close()

    def _hear_claim(self, peer: ID, ours: Heads, theirs: Heads) -> None:
        """Pull from an asker that knows more; once per claim, since it may be a lie or about a quarantined author."""
        ahead = frozenset((*place, seq) for place, (seq, _) in theirs.items() if seq > ours.get(place, (0, b""))[0])
        if ahead and self._claims.get(peer) != ahead:
            self._claims[peer] = ahead
            if peer not in self._liars:  # what it claimed before it did not have: the regular interval will do
                self.poke(peer)

    async def _send(self, stream: INetStream, ours: Heads, theirs: Heads) -> None:
        records = size = 0
        for (author, epoch), (seq, id_) in sorted(ours.items()):
            known, known_id = theirs.get((author, epoch), (0, b""))
            if known > seq or (known == seq and known_id == id_):
                continue
            at = known - 1 if known and not await self._same(author, epoch, known, known_id) else known
            while at < seq:
                wires = await trio.to_thread.run_sync(self._ledger.after, author, epoch, at, min(_BATCH, seq - at))
                if not wires:
                    break
                for wire in wires:
                    if records >= _MAX_RECORDS or size + len(wire) > _MAX_BYTES:
                        await write_frame(stream, _MORE, self._timing.stream)
                        return
                    await write_frame(stream, wire, self._timing.stream)
                    records, size = records + 1, size + len(wire)
                at += len(wires)
        await write_frame(stream, _DONE, self._timing.stream)

    async def _same(self, author: bytes, epoch: int, seq: int, id_: bytes) -> bool:
        """Whether our record at this place is the asker's; when not, ours is the proof that the author wrote two."""
        wires = await trio.to_thread.run_sync(self._ledger.after, author, epoch, seq - 1, 1)
        if not wires:
            return True
        unsigned = canonical.decode(wires[0], MAX_RECORD)
        del unsigned["sig"]
        return canonical.digest(canonical.encode(unsigned)) == id_


def _flat(heads: dict[bytes, tuple[Head, ...]]) -> Heads:
    return {(author, head.epoch): (head.seq, head.id) for author, epochs in heads.items() for head in epochs}


def _within(author: bytes, low: bytes, high: bytes) -> bool:
    return low <= author and (not high or author < high)


def _pages(heads: Heads, first: int) -> Iterator[tuple[bytes, bytes, Heads]]:
    """The heads in questions of bounded size, the first of at most about `first` rows; together their author ranges
    [low, high) cover every author once.

    But for those with so many epochs that they would fill half a question, who are not asked about: no honest log is
    like that, and of what one question cannot say that it is known, the answers would be the same for ever.
    """
    low, rows, room = b"", Heads(), first
    for author, keys in itertools.groupby(sorted(heads), key=lambda key: key[0]):
        its = {key: heads[key] for key in keys}
        if len(its) > _ROWS // 2:
            yield low, author, rows
            low, rows, room = author + b"\x00", {}, _ROWS
        elif rows and len(rows) + len(its) > room:
            yield low, author, rows
            low, rows, room = author, its, _ROWS
        else:
            rows |= its
    yield low, b"", rows


def _question(low: bytes, high: bytes, heads: Heads, out: Sequence[bytes] = ()) -> bytes:
    rows = b"".join(_ROW.pack(author, epoch, seq, id_) for (author, epoch), (seq, id_) in heads.items())
    return canonical.encode({"low": low, "high": high, "heads": rows, "out": b"".join(out)})


def _parse_question(data: bytes) -> tuple[bytes, bytes, Heads, set[bytes]]:
    value = canonical.decode(data, _MAX_QUESTION)
    if not isinstance(value, dict) or set(value) != {"low", "high", "heads", "out"}:
        raise InvalidData("not a sync question")
    if not all(isinstance(item, bytes) for item in value.values()):
        raise InvalidData("not a sync question")
    if len(value["heads"]) % _ROW.size or len(value["out"]) % _KEY:
        raise InvalidData("not a sync question")
    rows = _ROW.iter_unpack(value["heads"])
    heads = {(author, epoch): (seq, id_) for author, epoch, seq, id_ in rows}
    return (
        value["low"],
        value["high"],
        heads,
        {value["out"][at : at + _KEY] for at in range(0, len(value["out"]), _KEY)},
    )
