"""The network's counters while it runs."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field, fields

from .types import NetworkStatistics


@dataclass
class Counts:
    """Mutable NetworkStatistics."""

    published: int = 0
    received: int = 0
    new: int = 0
    duplicates: int = 0
    dropped: int = 0
    refused: int = 0
    crowded_out: int = 0
    equivocations: int = 0
    banned: int = 0
    syncs: int = 0
    sync_failures: int = 0
    synced: int = 0
    dials: int = 0
    dial_failures: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    reached: int = 0
    invalid: collections.Counter[str] = field(default_factory=collections.Counter)

    def frozen(self) -> NetworkStatistics:
        """A snapshot; may be taken from any thread."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "invalid"}
        return NetworkStatistics(**numbers, invalid=tuple(sorted(dict(self.invalid).items())))
