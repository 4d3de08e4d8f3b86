"""The feed: the newest records at first, then only what is new."""

from __future__ import annotations

from typing import Any

from ...protocols.names import nickname
from ...protocols.records import Verification
from ...swarm.ledger import Entry
from ..format import change, clean, track_name
from .picture import Picture

FEED = 200  # records that a page starts with, and gets at most at a time


def news(picture: Picture, after: int | None, before: int | None) -> dict[str, Any]:
    """The records after a row, or the last ones before one; without either the newest.

    It does not wait until the whole ledger was read; until then nothing is said of states.
    """
    last = picture.row if picture.ready else picture.ledger.last_row()
    end = last if before is None else min(last, before - 1)
    start = max(0, end - FEED, -1 if after is None or before is not None else after)
    page = picture.ledger.recalled(start, FEED) if end > start else []
    with picture.lock:
        return {
            "row": last,
            "ready": picture.ready,
            "read": picture.row,
            "total": max(picture.total, last),
            "skipped": after is not None and before is None and start > after,
            "first": start + 1,
            "records": [_told(entry, picture) for entry in page if entry.row <= end],
        }


def _told(entry: Entry, picture: Picture) -> dict[str, Any]:
    """One record as the feed shows it."""
    record, body = entry.record, entry.record.body
    told: dict[str, Any] = {
        "row": entry.row,
        "id": record.id.hex(),
        "when": min(record.time, entry.received_ms),
        "name": nickname(record.author),
        "own": record.author == picture.views.own,
        "track": track_name(body.task, picture.known),
        "hardware": clean(body.environment.hardware, 32),
        "outcome": body.outcome,
        "change": change(body.gain, picture.direction(body.task)),
        "cause": clean(body.cause),
    }
    if isinstance(body, Verification):
        about = picture.kept.get(body.result)
        subject = {"id": body.result.hex(), "name": "", "title": "", "state": "", "verdict": ""}
        if about is not None and not isinstance(about.body, Verification):
            subject |= {"name": nickname(about.author), "title": clean(about.body.title)}
            subject |= {"state": picture.state(about), "verdict": picture.verdict(about)}
        return told | {"kind": "verification", "wider": body.setting == "wider", "about": subject}
    return told | {
        "kind": "result", "title": clean(body.title), "score": body.score, "aim": body.aim,
        "state": picture.state(record), "verdict": picture.verdict(record),
    }  # fmt: skip
