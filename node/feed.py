"""`feed`: reads the ledger only, so it works while the node runs and after it stopped, and never slows it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from ..protocols.names import nickname
from ..protocols.records import Record, Verification, dump
from ..swarm.ledger import Entry, Ledger
from .format import feed_line
from .tasks import known_tasks
from .views import Views

_POLL = 0.5  # seconds; SQLite has no cross-process event, and one PRAGMA costs microseconds
_PAGE = 1000


def follow(ledger: Ledger, since_ms: int, forever: bool) -> Iterator[Entry]:
    """Entries in the order this node learned of them, then new ones as they arrive."""
    row = 0
    while True:
        version = ledger.data_version()  # before reading: what is written meanwhile makes it differ
        page = ledger.entries(after_row=row, limit=_PAGE)
        for entry in page:
            row = entry.row
            if entry.received_ms >= since_ms:
                yield entry
        if len(page) == _PAGE:
            continue
        if not forever:
            return
        while ledger.data_version() == version:
            time.sleep(_POLL)


class Feed:
    """Turns entries into lines, remembering what verifications said so far."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known, self._known_at = known_tasks(ledger), ledger.data_version()

    @cached_property  # a whole fold, which nobody needs who only wants JSON
    def _views(self) -> Views:
        return Views(self._ledger)

    def line(self, record: Record) -> str:
        """The record as one line, with the state it has by now."""
        self._views.add(record)
        if record.body.task not in self._known and self._known_at != (version := self._ledger.data_version()):
            self._known, self._known_at = known_tasks(self._ledger), version  # names come after the wins
        subject = self._ledger.get(record.body.result) if isinstance(record.body, Verification) else None
        return feed_line(record, self._views.state(record), subject, self._known)


def as_json(record: Record) -> str:
    """The record as one line of JSON; field names are the models', digests and keys are hex."""
    return json_line({"id": record.id, "name": nickname(record.author), **dump(record)})


def json_line(value: dict[str, Any]) -> str:
    """One line of JSON, with bytes as hex."""
    return json.dumps(_hex(value), ensure_ascii=False)


def _hex(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _hex(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hex(item) for item in value]
    return value
