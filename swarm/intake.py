"""Where records come in: validated, stored in the ledger in a worker thread, then reported. trio side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog
import trio

from ..protocols.errors import InvalidData, Untimely
from ..protocols.records import Record, parse_record
from .counts import Counts
from .ledger import Added, Ledger
from .quotas import Quotas
from .types import NetworkConfig

log = structlog.get_logger()

_INBOX = 4096
_BATCH = 256
_REFUSED = 4096


class Came(NamedTuple):
    """A valid record, and the bytes that it came as."""

    record: Record
    wire: bytes


@dataclass
class Outcome:
    """What became of a batch."""

    new: list[Record]
    invalid: str = ""  # the reason why the batch was not read to its end
    gap: bool = False


class Intake:
    """Stores validated records once and tells of each new one."""

    def __init__(
        self, config: NetworkConfig, ledger: Ledger, own: bytes, counts: Counts, on_new: Callable[[Record], None]
    ) -> None:
        self._ledger, self._own, self._clock_ms, self._counts, self._on_new = (
            ledger,
            own,
            config.clock_ms,
            counts,
            on_new,
        )
        self._quotas = Quotas(ledger, config.limits, own)
        self.refused: dict[tuple[bytes, int], None] = {}  # logs, by author and epoch, of which no more is wanted
        self._send, self._receive = trio.open_memory_channel[Came](_INBOX)
        self.on_gap: Callable[[], None] = lambda: None

    def offer(self, came: Came) -> None:
        """Take a valid record from gossip; dropped when the inbox is full, sync brings it then."""
        try:
            self._send.send_nowait(came)
        except trio.WouldBlock:
            self._counts.dropped += 1

    async def run(self) -> None:
        """Store what was offered, until cancelled."""
        while True:
            batch = [await self._receive.receive()]
            try:
                while len(batch) < _BATCH:
                    batch.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                pass
            outcome = await self._in_thread(self._store, batch)
            if outcome.gap:
                self.on_gap()

    async def take(self, wires: list[bytes]) -> Outcome:
        """Validate and store what a peer sent over a sync stream, in order, up to the first invalid record; without
        those that are too early by this clock, which come again with a later answer."""
        return await self._in_thread(self._parse_and_store, wires)

    async def _in_thread(self, work: Callable[[list], Outcome], items: list) -> Outcome:
        # Not abandoned on cancellation: the ledger may be closed right after the network has stopped.
        outcome: Outcome = await trio.to_thread.run_sync(work, items)
        for record in outcome.new:
            self._on_new(record)
        return outcome

    # ---- in a worker thread

    def _parse_and_store(self, wires: list[bytes]) -> Outcome:
        batch: list[Came] = []
        invalid = ""
        for wire in wires:
            try:
                batch.append(Came(parse_record(wire, now_ms=self._clock_ms()), wire))
            except Untimely:
                continue
            except InvalidData as error:
                invalid = error.what
                break
        outcome = self._store(batch)
        outcome.invalid = invalid
        return outcome

    def _store(self, batch: list[Came]) -> Outcome:
        outcome = Outcome([])
        for came in batch:
            record, added = came.record, self._add(came)
            if added is Added.NEW:
                outcome.new.append(record)
                outcome.gap = outcome.gap or self._gap_before(came)
            elif added is Added.KNOWN:
                self._counts.duplicates += 1
            elif added is Added.QUARANTINED:
                self._refuse(record)
            elif added is Added.EQUIVOCATION:
                self._refuse(record)
                self._counts.equivocations += 1
                log.warning("an author signed two records for one place", author=record.author.hex()[:16])
        self._counts.new += len(outcome.new)
        return outcome

    def _add(self, came: Came) -> Added:
        """Own records are taken back (a restored backup gets its tail), unless this node has since written another
        record in their place: then the tail is lost, and the log goes on in a new epoch."""
        record, wire = came
        if record.author == self._own:
            mine = self._ledger.after(record.author, record.epoch, record.seq - 1, 1)
            if mine and mine[0] != wire and parse_record(mine[0], now_ms=self._clock_ms()).seq == record.seq:
                self._leave_epoch(record.epoch)
                return Added.DISCONTINUOUS
        now, size = self._clock_ms(), len(wire)
        foreign = record.author != self._own
        if foreign and self._quotas.refuses(record.author, size, now):
            return Added.KNOWN if self._ledger.get(record.id) else Added.QUARANTINED
        added = self._ledger.add(record, received_ms=now, wire=wire)
        if foreign and added in (Added.NEW, Added.EQUIVOCATION):
            self._quotas.stored(record.author, size, now)
        if not foreign and added is Added.DISCONTINUOUS:
            self._leave_epoch(record.epoch)
        return added

    def _refuse(self, record: Record) -> None:
        self._counts.refused += 1
        self.refused[record.author, record.epoch] = None
        if len(self.refused) > _REFUSED:
            del self.refused[next(iter(self.refused))]

    def _leave_epoch(self, epoch: int) -> None:
        heads = self._ledger.heads().get(self._own, ())
        opened = int(self._ledger.journal("node").get("epoch", "0"))
        if epoch >= max((head.epoch for head in heads), default=0) and epoch >= opened:
            new = self._ledger.new_epoch(self._own)
            log.warning("the tail of the own log is known elsewhere and differs here: new epoch", epoch=new)

    def _gap_before(self, came: Came) -> bool:
        record, wire = came
        if record.seq == 1:
            return False
        first = itertools.chain(self._ledger.after(record.author, record.epoch, record.seq - 2, 1), [b""])
        return next(first) == wire  # the predecessor would have come first
