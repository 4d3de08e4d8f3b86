"""Quotas: how much of everybody else's records is stored. In memory, counted from the ledger at the start.

Own records are never refused, and nothing that is stored is dropped: others may have built on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .ledger import Ledger
from .types import Limits

_DAY_MS = 86_400_000


@dataclass
class _Stored:
    since_ms: int
    records: int
    size: int
    epochs: set[int] = field(default_factory=set)


class Quotas:
    """Says whether a record may be stored. Used by one thread at a time."""

    def __init__(self, ledger: Ledger, limits: Limits, own: bytes) -> None:
        self._limits = limits
        stored = ledger.stored_by_author()
        epochs = ledger.epochs_by_author()
        self._of = {author: _Stored(*counts, epochs[author]) for author, counts in stored.items() if author != own}
        self._size = sum(stored.size for stored in self._of.values())
        self._counted_ms = -1
        self._new_size = self._new_authors = 0

    def refuses(self, author: bytes, epoch: int, size: int, now_ms: int) -> bool:
        """Whether one more record of this many bytes in this epoch is one too many."""
        limits, its = self._limits, self._of.get(author)
        if its is not None and (its.records >= limits.author_records or its.size + size > limits.author_bytes):
            return True
        if its is not None and epoch not in its.epochs and len(its.epochs) >= limits.author_epochs:
            return True
        if self._size + size > limits.stored_bytes or (its is None and len(self._of) >= limits.stored_authors):
            return True
        if its is not None and now_ms - its.since_ms >= _DAY_MS:
            return False
        # Identities cost nothing: what all new ones together may fill in a day is bounded.
        self._count_new(now_ms)
        return self._new_size + size > limits.new_share * limits.stored_bytes or (
            its is None and self._new_authors >= limits.new_share * limits.stored_authors
        )

    def stored(self, author: bytes, epoch: int, size: int, now_ms: int) -> None:
        """One record was stored."""
        its = self._of.get(author)
        if its is None:
            its = self._of[author] = _Stored(now_ms, 0, 0)
            self._new_authors += 1
        its.records += 1
        its.epochs.add(epoch)
        its.size += size
        self._size += size
        if now_ms - its.since_ms < _DAY_MS:
            self._new_size += size

    def _count_new(self, now_ms: int) -> None:
        """Once an hour: who is new still."""
        if 0 <= now_ms - self._counted_ms < _DAY_MS // 24 and self._counted_ms >= 0:
            return
        self._counted_ms = now_ms
        new = [stored for stored in self._of.values() if now_ms - stored.since_ms < _DAY_MS]
        self._new_size, self._new_authors = sum(stored.size for stored in new), len(new)
