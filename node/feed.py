"""`feed`: reads the ledger only, so it works while the node runs and after it stopped, and never slows it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..protocols.names import nickname
from ..protocols.records import Record, Result, Verification, dump
from ..swarm.ledger import Entry, Ledger
from .format import feed_line, track_name
from .tasks import known_tasks
from .views import Views

POLL = 0.5  # seconds; SQLite has no cross-process event, and one PRAGMA costs microseconds
_PAGE = 1000


def entries(
    ledger: Ledger,
    *,
    since_ms: int = 0,
    last: int | None = None,
    wins: bool = False,
    forever: bool = False,
    whole: bool = False,
) -> Iterator[Entry | None]:
    """Entries in the order this node learned of them, then new ones as they arrive, and None when there is none yet.

    `since_ms`: only what arrived from then on (Unix ms). `last`: of the past at most so many. `wins`: only kept results
    and verifications. `whole`: with their runs and costs, which a line does not show.
    """
    read = ledger.entries if whole else ledger.recalled
    row = max(ledger.index.row_at(since_ms), 0 if last is None else ledger.index.row_before_last(last, wins))
    while True:
        version = ledger.data_version()  # before reading: what is written meanwhile makes it differ
        page = read(row, _PAGE)
        for entry in page:
            row = entry.row
            body = entry.record.body
            if entry.received_ms >= since_ms and not (wins and isinstance(body, Result) and body.outcome != "kept"):
                yield entry
        if len(page) == _PAGE:
            continue
        if not forever:
            return
        while ledger.data_version() == version:
            yield None


@dataclass(frozen=True)
class Where:
    """What a record is about: a task's name, whether this home works on it, and where better is."""

    name: str
    here: bool
    direction: str


class Feed:
    """What to say of entries: the states that they have by now."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.known, self._known_at = known_tasks(ledger), ledger.data_version()
        self._here = bytes.fromhex(ledger.journal("node").get("task", ""))

    @cached_property  # which nobody needs who only wants JSON
    def _views(self) -> Views:
        return Views(self._ledger)

    def look(self, record: Record) -> tuple[str, Record | None, Where]:
        """The state of a result, the record that a verification is about, and the task."""
        self._views.add(record)
        task = record.body.task
        if task not in self.known and self._known_at != (version := self._ledger.data_version()):
            self.known, self._known_at = known_tasks(self._ledger), version  # names come after the wins
        subject = self._ledger.recall(record.body.result) if isinstance(record.body, Verification) else None
        direction = self.known[task].direction if task in self.known else "lower"
        where = Where(track_name(task, self.known), task == self._here, direction)
        return self._views.state(record), subject, where

    def line(self, record: Record) -> str:
        """The record as one line, with the state it has by now."""
        state, subject, where = self.look(record)
        return feed_line(record, state, subject, where.name, where.direction)


def as_json(record: Record) -> str:
    """The record as one line of JSON; field names are the models', digests and keys are hex."""
    return json_line({"id": record.id, "name": nickname(record.author), **dump(record)})


def json_line(value: Any, separators: tuple[str, str] | None = None) -> str:
    """One line of JSON, with bytes as hex. What is no finite number is null: a peer's numbers are finite, but the sum
    of two of them need not be, and nobody's parser knows the word that Python would write."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=separators)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
