"""`board`: the best kept results of each track, read from the ledger alone. Nothing is compared across tracks."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..protocols.errors import UsageError
from ..protocols.names import nickname
from ..protocols.records import Record, Result, dump
from ..protocols.task import TaskSpec
from ..swarm.ledger import Ledger
from ..swarm.lineage import adoptions
from .feed import json_line
from .format import change, clean, interval, track_name
from .views import Views

_LEFT_OUT = {"task", "reason", "cause", "diff", "runs", "environment", "cost"}  # of a result: `show` has them


class Track(NamedTuple):
    """What numbers may be compared within: a task on a class of hardware."""

    task: bytes
    hardware: str  # empty: of a task on which nothing was recorded yet


@dataclass
class Results:
    """The results of one track by authors who are not quarantined, in the order in which this node learned of them."""

    track: Track
    spec: TaskSpec | None  # None: nobody told what the task is called
    records: list[Record] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`gpt-cpu/short on cpu`."""
        known = {self.track.task: self.spec} if self.spec is not None else {}
        where = f" on {clean(self.track.hardware, 32)}" if self.track.hardware else ""
        return track_name(self.track.task, known) + where

    @property
    def direction(self) -> str:
        """Where better is."""
        return self.spec.direction if self.spec is not None else "lower"

    def bodies(self, outcome: str) -> Iterator[Result]:
        """The results with one outcome."""
        for record in self.records:
            if isinstance(record.body, Result) and record.body.outcome == outcome:
                yield record.body

    def baseline(self) -> float | None:
        """Where it began: the median over those who measured it."""
        plain = [body.score for body in self.bodies("baseline") if body.score is not None]
        return statistics.median(plain) if plain else None

    def heading(self) -> str:
        """What the track is, how much is known of it, and where it began."""
        text = f"{self.name}   task {self.track.task.hex()[:9]}"
        if self.spec is not None:
            text += f"   {clean(self.spec.metric, 16)}, {self.spec.direction} is better"
        authors = len({record.author for record in self.records})
        text += f"   {len(self.records)} results of {authors} node{'' if authors == 1 else 's'}"
        plain = self.baseline()
        if plain is not None:
            text += f"   baseline {plain:.4f}"
        noises = [body.noise for body in self.bodies("baseline") if body.noise is not None and body.score is not None]
        return text + (f" ± {statistics.median(noises):.4f}" if noises else "")


@dataclass(frozen=True)
class Row:
    """One program on the board, by the result that speaks best for it."""

    rank: int
    record: Record
    state: str  # in words
    verdict: str  # claimed, confirmed or refuted
    flagged: bool
    adopters: Sequence[tuple[bytes, int]]  # who else built on it, and when first by their clock (Unix ms)
    same_program: Sequence[bytes]  # other results that are this very program

    @property
    def body(self) -> Result:
        """The result."""
        assert isinstance(self.record.body, Result)
        return self.record.body


class Board:
    """Everything the ledger holds, by track."""

    def __init__(self, ledger: Ledger, known: dict[bytes, TaskSpec]) -> None:
        self.records = records = list(ledger.recalled())  # in the order in which this node learned of them
        self.views = Views(ledger, records)
        gone = self.views.quarantined
        found: dict[Track, Results] = {}
        self.hidden = 0  # results of quarantined authors
        for record in records:
            if not isinstance(record.body, Result):
                continue
            if record.author in gone:
                self.hidden += 1
                continue
            track = Track(record.body.task, record.body.environment.hardware)
            found.setdefault(track, Results(track, known.get(track.task))).records.append(record)
        worked = bytes.fromhex(ledger.journal("node").get("task", ""))
        if worked and worked not in {track.task for track in found}:
            found[Track(worked, "")] = Results(Track(worked, ""), known.get(worked))
        self.tracks = sorted(found.values(), key=lambda its: (its.track.task != worked, -len(its.records)))
        self._adoptions = adoptions(record for record in self.views.kept.values() if record.author not in gone)

    def rows(self, its: Results) -> list[Row]:
        """The kept programs of a track, the best score first, refuted ones last."""
        programs: dict[bytes, list[Record]] = defaultdict(list)
        for record in its.records:
            if isinstance(record.body, Result) and record.body.outcome == "kept":
                programs[record.body.program].append(record)
        verdicts = {record.id: self.views.opinion(record).state for same in programs.values() for record in same}
        standing = {"confirmed": 0, "claimed": 1, "refuted": 2}
        # Of equal programs the one with the best verdict speaks, of those the first heard: a copy moves nobody up.
        best = [min(same, key=lambda one: standing[verdicts[one.id]]) for same in programs.values()]
        sign = 1 if its.direction == "lower" else -1

        def order(record: Record) -> tuple[bool, float]:
            assert isinstance(record.body, Result)
            return verdicts[record.id] == "refuted", sign * (record.body.score or 0.0)

        rows: list[Row] = []
        for rank, record in enumerate(sorted(best, key=order), 1):
            assert isinstance(record.body, Result)
            same = [one.id for one in programs[record.body.program] if one is not record]
            flagged, adopters = self.views.is_flagged(record), self._adoptions.get(record.id, ())
            rows.append(Row(rank, record, self.views.state(record), verdicts[record.id], flagged, adopters, same))
        return rows

    def best(self, its: Results, author: bytes | None = None) -> Row | None:
        """The best program of a track that is neither refuted nor built on what is; `author`: of those whose result is
        theirs."""
        good = (row for row in self.rows(its) if row.verdict != "refuted" and not row.flagged)
        return next((row for row in good if author in (None, row.record.author)), None)

    def track(self, words: str | None) -> Results:
        """The track that `words` name, as on the board, or begin to, or whose task id begins with them; without words
        this home's. UsageError when that is none, or more than one."""
        if not self.tracks:
            raise UsageError("there are no results yet", why="this home's ledger holds none", fix="swarm-node join")
        if words is None:
            return self.tracks[0]
        found = [its for its in self.tracks if words == its.name]
        found = found or [
            its for its in self.tracks if its.name.startswith(words) or its.track.task.hex().startswith(words.lower())
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(repr(its.name) for its in self.tracks)
        what = f"several tracks are called {words}" if found else f"there is no track {words}"
        raise UsageError(what, why=f"there are {names}", fix=f"--track {self.tracks[0].name!r}")


def board_text(board: Board, top: int) -> Iterator[str]:
    """The board for a reader, at most `top` programs a track."""
    for number, its in enumerate(board.tracks):
        if number:
            yield ""
        yield its.heading()
        rows = board.rows(its)
        if not rows:
            yield "  nothing was kept yet"
        for row in rows[:top]:
            yield _line(row, its.direction)
        if len(rows) > top:
            yield f"  and {len(rows) - top} more   (--top {len(rows)})"


def _line(row: Row, direction: str) -> str:
    body, record = row.body, row.record
    error = f" ±{body.gain_error:.4f}" if body.gain_error is not None else ""
    adopted = f"adopted by {len(row.adopters)}" if row.adopters else ""
    return (
        f"  {row.rank:>2}  {body.score:.4f}  {change(body.gain, direction)}{error:<9} "
        f"{interval(body.evidence, direction):<16}  {record.id.hex()[:8]} {nickname(record.author):<14} "
        f"{clean(body.title, 56):<56}  {row.state:<14}  {adopted}"
    ).rstrip()


def board_json(board: Board, top: int) -> Iterator[str]:
    """One object per program of a track; a result's fields have the names that they have in records."""
    for its in board.tracks:
        for row in board.rows(its)[:top]:
            yield json_line({**head(its), **_row_fields(board, row)})


def head(its: Results) -> dict[str, Any]:
    """Which track it is, for a line of JSON."""
    name, size = (its.spec.name, its.spec.size) if its.spec is not None else (None, None)
    return {"task": its.track.task, "task_name": name, "size": size, "hardware": its.track.hardware}


def _row_fields(board: Board, row: Row) -> dict[str, Any]:
    record, opinion = row.record, board.views.opinion(row.record)
    return {
        "rank": row.rank,
        "id": record.id,
        "author": record.author,
        "name": nickname(record.author),
        "time": record.time,
        "state": row.verdict,
        "state_text": row.state,
        "flagged": row.flagged,
        "confirmed": opinion.confirmed,
        "refuted": opinion.refuted,
        "transfers": [{"author": one.author, "where": one.where, "outcome": one.outcome} for one in opinion.transfers],
        "adopters": [{"author": who, "name": nickname(who), "time": at} for who, at in row.adopters],
        "same_program": row.same_program,
        **{name: value for name, value in dump(row.body).items() if name not in _LEFT_OUT},
    }
