"""Where records come in: validated, stored in the ledger in a worker thread, then reported. trio side."""

from __future__ import annotations

import itertools
import threading
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
REFUSED = 4096  # logs of which it is remembered that no more is wanted; the oldest are forgotten


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
    refused: int = 0  # logs of which it was not known that no more is wanted


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
        # Logs, by author and epoch, of which no more is wanted, with the size of the record that was over a quota.
        self._refused: dict[tuple[bytes, int], int | None] = {}
        self._lock = threading.Lock()  # quotas and refused logs: several peers are pulled from at once
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

    def unwanted(self) -> list[tuple[bytes, int]]:
        """Logs, by author and epoch, of which no more is wanted now: their authors signed two records for one place,
        or a quota that they are over is not free again."""
        now = self._clock_ms()
        with self._lock:
            for (author, epoch), size in list(self._refused.items()):
                if size is not None and not self._quotas.refuses(author, epoch, size, now):
                    del self._refused[author, epoch]
            return list(self._refused)

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
        with self._lock:
            for came in batch:
                self._store_one(came, outcome)
        self._counts.new += len(outcome.new)
        return outcome

    def _store_one(self, came: Came, outcome: Outcome) -> None:
        record, added = came.record, self._add(came)
        if added is Added.NEW:
            outcome.new.append(record)
            outcome.gap = outcome.gap or self._gap_before(came)
        elif added is Added.KNOWN:
            self._counts.duplicates += 1
        elif added is Added.QUARANTINED:
            outcome.refused += self._refuse(record, None)
        elif added is Added.EQUIVOCATION:
            outcome.refused += self._refuse(record, None)
            self._counts.equivocations += 1
            log.warning("an author signed two records for one place", author=record.author.hex()[:16])
        elif added is None:
            outcome.refused += self._refuse(record, len(came.wire))

    def _add(self, came: Came) -> Added | None:
        """Own records are taken back (a restored backup gets its tail), unless this node has since written another
        record in their place: then the tail is lost, and the log goes on in a new epoch. None: over a quota."""
        record, wire = came
        if record.author == self._own:
            mine = self._ledger.after(record.author, record.epoch, record.seq - 1, 1)
            if mine and mine[0] != wire and parse_record(mine[0], now_ms=self._clock_ms()).seq == record.seq:
                self._leave_epoch(record.epoch)
                return Added.DISCONTINUOUS
        now, size = self._clock_ms(), len(wire)
        foreign = record.author != self._own
        if foreign and self._quotas.refuses(record.author, record.epoch, size, now):
            return Added.KNOWN if self._ledger.get(record.id) else None
        added = self._ledger.add(record, received_ms=now, wire=wire)
        if foreign and added in (Added.NEW, Added.EQUIVOCATION):
            self._quotas.stored(record.author, record.epoch, size, now)
        if not foreign and added is Added.DISCONTINUOUS:
            self._leave_epoch(record.epoch)
        return added

    def _refuse(self, record: Record, size: int | None) -> bool:
        """Want no more of a log; whether that is news."""
        self._counts.refused += 1
        place = record.author, record.epoch
        if place in self._refused:
            return False
        self._refused[place] = size
        if len(self._refused) > REFUSED:
            del self._refused[next(iter(self._refused))]
        return True

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
