"""`board --techniques`: which kinds of ideas work on which track, by everybody's results, failures included."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..protocols.records import Record, Result
from .board import Board, Results, head
from .feed import json_line
from .views import Views

NONE = "(none named)"


@dataclass
class Technique:
    """What became of the experiments with one tag on one track."""

    tag: str
    tried: int = 0
    kept: int = 0
    confirmed: int = 0  # of those kept, by re-runs
    refuted: int = 0
    gains: list[float] = field(default_factory=list)  # in units of the noise over seeds

    @property
    def median_gain(self) -> float | None:
        """Of all that finished; -inf when most were stopped as hopeless, None when none finished."""
        return statistics.median_low(self.gains) if self.gains else None

    def add(self, record: Record, views: Views) -> None:
        """One more experiment."""
        body = record.body
        assert isinstance(body, Result)
        self.tried += 1
        if body.outcome == "kept":
            state = views.opinion(record).state
            self.kept += 1
            self.confirmed += state == "confirmed"
            self.refuted += state == "refuted"
        if body.gain is not None and body.noise:
            self.gains.append(body.gain / body.noise)
        elif body.outcome == "discarded":
            # Stopped early or over its budget: without this, the median would be that of the promising ones.
            self.gains.append(-math.inf)


def techniques(its: Results, views: Views) -> list[Technique]:
    """The techniques that were tried on a track, those with the most evidence for them first."""
    found: dict[str, Technique] = defaultdict(lambda: Technique(""))
    for record in its.records():
        if isinstance(record.body, Result) and record.body.outcome != "baseline":
            for tag in record.body.tags or (NONE,):
                found[tag].tag = tag
                found[tag].add(record, views)
    return sorted(found.values(), key=lambda one: (one.refuted - one.confirmed, -one.kept, -one.tried, one.tag))


def techniques_text(board: Board) -> Iterator[str]:
    """What works where, for a reader."""
    for number, its in enumerate(board.tracks):
        if number:
            yield ""
        yield its.heading()
        yield f"  {'technique':<16} {'tried':>6} {'kept':>6} {'confirmed':>10} {'refuted':>8} {'median gain':>14}"
        for one in techniques(its, board.views):
            yield (
                f"  {one.tag:<16} {one.tried:>6} {one.kept:>6} {one.confirmed:>10} {one.refuted:>8} "
                f"{_gain(one.median_gain):>14}"
            )


def _gain(value: float | None) -> str:
    if value is None:
        return "-"
    return "hopeless" if value == -math.inf else f"{value:+.1f} σ".replace("-", "−")


def techniques_json(board: Board) -> Iterator[str]:
    """One object per technique of a track. `median_gain` is in units of the noise over seeds; null: none finished, or
    most were stopped as hopeless."""
    for its in board.tracks:
        for one in techniques(its, board.views):
            median = one.median_gain
            fields: dict[str, Any] = {
                "tag": one.tag, "tried": one.tried, "kept": one.kept, "confirmed": one.confirmed,
                "refuted": one.refuted, "median_gain": median if median is not None and math.isfinite(median) else None,
                "finished": sum(map(math.isfinite, one.gains)),
            }  # fmt: skip
            yield json_line({**head(its), **fields})
