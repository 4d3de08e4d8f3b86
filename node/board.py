"""`board`: the best kept results of each track, read from the ledger alone. Nothing is compared across tracks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from ..protocols.errors import UsageError
from ..protocols.names import nickname
from ..protocols.records import Record, Result, dump
from ..protocols.task import TaskSpec
from ..swarm.index import Index
from ..swarm.ledger import Ledger
from .feed import json_line
from .format import change, clean, counted, interval, track_name
from .views import Views

_BASELINES = 100  # of so many the median is taken: it moves no more
_LEFT_OUT = {"task", "reason", "cause", "diff", "runs", "environment", "cost"}  # of a result: `show` has them


class Track(NamedTuple):
    """What numbers may be compared within: a task on a class of hardware."""

    task: bytes
    hardware: str  # empty: of a task on which nothing was recorded yet


def track_title(track: Track, spec: TaskSpec | None) -> str:
    """`gpt-cpu/short on cpu`; the start of the task's id where nobody told what it is called."""
    known = {track.task: spec} if spec is not None else {}
    where = f" on {clean(track.hardware, 32)}" if track.hardware else ""
    return track_name(track.task, known) + where


@dataclass(frozen=True)
class Results:
    """The results of one track by authors who are not quarantined."""

    track: Track
    spec: TaskSpec | None  # None: nobody told what the task is called
    total: int
    authors: int
    index: Index
    gone: frozenset[bytes]

    def records(self, outcome: str | None = None) -> Iterator[Record]:
        """The results, if given those with one outcome, in the order in which this node learned of them."""
        found = self.index.results(self.track.task, self.track.hardware, outcome)
        return (record for record in found if record.author not in self.gone)

    @property
    def name(self) -> str:
        """`gpt-cpu/short on cpu`."""
        return track_title(self.track, self.spec)

    @property
    def direction(self) -> str:
        """Where better is."""
        return self.spec.direction if self.spec is not None else "lower"

    def heading(self) -> str:
        """What the track is, how much is known of it, and where it began."""
        text = f"{self.name}   task {self.track.task.hex()[:9]}"
        if self.spec is not None:
            text += f"   {clean(self.spec.metric, 16)}, {self.spec.direction} is better"
        text += f"   {counted(self.total, 'result')} of {counted(self.authors, 'node')}"
        bodies = self._baselines()
        if bodies:
            text += f"   baseline {_median_score(bodies):.4f}"
        noises = [body.noise for body in bodies if body.noise is not None]
        return text + (f" ± {statistics.median(noises):.4f}" if noises else "")

    def baseline(self) -> float | None:
        """Where it began: the median over those who measured it."""
        bodies = self._baselines()
        return _median_score(bodies) if bodies else None

    def _baselines(self) -> list[Result]:
        records = islice(self.records("baseline"), _BASELINES) if self.total else ()
        bodies = [record.body for record in records]
        return [body for body in bodies if isinstance(body, Result) and body.score is not None]


def _median_score(bodies: Sequence[Result]) -> float:
    return statistics.median(body.score for body in bodies if body.score is not None)


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
    """What the ledger holds, by track."""

    def __init__(self, ledger: Ledger, known: dict[bytes, TaskSpec]) -> None:
        self.views, self.index = Views(ledger), ledger.index
        gone = self.views.quarantined
        self._kept: dict[Track, list[tuple[int, bytes, bytes, float]]] = {}
        self.hidden = self.index.count_by(gone)  # results of quarantined authors
        found = [
            Results(Track(task, hardware), known.get(task), total, authors, self.index, gone)
            for task, hardware, total, authors in self.index.tracks(gone)
        ]
        worked = bytes.fromhex(ledger.journal("node").get("task", ""))
        if worked and worked not in {its.track.task for its in found}:
            found.append(Results(Track(worked, ""), known.get(worked), 0, 0, self.index, gone))
        self.tracks = sorted(found, key=lambda its: (its.track.task != worked, -its.total))

    def rows(self, its: Results, top: int | None = None) -> list[Row]:
        """The best `top` kept programs of a track (all when None), the best score first, refuted ones last."""
        sign = 1 if its.direction == "lower" else -1
        programs: dict[bytes, list[int]] = {}  # the row numbers of its results, first heard first
        scores: dict[bytes, float] = {}  # the best of them
        for row, author, program, score in self._kept_of(its):
            if author not in its.gone:
                programs.setdefault(program, []).append(row)
                scores[program] = min(scores.get(program, math.inf), sign * score)
        order = sorted(programs, key=lambda program: scores[program])
        rows: list[Row] = []
        # A program stands with the score of the result that speaks for it, which may be behind its best by some noise:
        # as many more are looked at as are shown.
        while order and (top is None or sum(row.verdict != "refuted" for row in rows) < 2 * top):
            look = 2 * top if top is not None else len(order)
            rows += [self._row(self.index.at(programs[program])) for program in order[:look]]
            order = order[look:]
        rows.sort(key=lambda row: (row.verdict == "refuted", sign * (row.body.score or 0.0)))
        # Who built on whom is looked up for what is shown only: that takes longest.
        return [
            replace(row, rank=rank, flagged=self.views.is_flagged(row.record), adopters=self._adopters(row.record, its))
            for rank, row in enumerate(rows[:top], 1)
        ]

    def programs(self, its: Results) -> int:
        """How many different programs were kept on a track."""
        return len({program for _, author, program, _ in self._kept_of(its) if author not in its.gone})

    def _kept_of(self, its: Results) -> list[tuple[int, bytes, bytes, float]]:
        if its.track not in self._kept:
            self._kept[its.track] = self.index.kept(*its.track)
        return self._kept[its.track]

    def best(self, its: Results, author: bytes | None = None) -> Row | None:
        """The best program of a track that is neither refuted nor built on what is; `author`: of those whose result is
        theirs."""
        if author is None:
            rows: Iterator[Row] = (row for top in (5, None) for row in self.rows(its, top))
        else:
            sign = 1 if its.direction == "lower" else -1
            own = [(sign * score, row) for row, who, _, score in self._kept_of(its) if who == author]
            rows = (self._row(self.index.at([row])) for _, row in sorted(own))
        return next((row for row in rows if row.verdict != "refuted" and not self.views.is_flagged(row.record)), None)

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

    def _row(self, same: list[Record]) -> Row:
        """Of equal programs the one with the best verdict speaks, of those the first heard: a copy moves nobody up."""
        standing = {"confirmed": 0, "claimed": 1, "refuted": 2}
        best = min(same, key=lambda one: standing[self.views.opinion(one).state])
        others = [one.id for one in same if one is not best]
        return Row(0, best, self.views.state(best), self.views.opinion(best).state, False, (), others)

    def _adopters(self, record: Record, its: Results) -> list[tuple[bytes, int]]:
        return [one for one in self.views.lineage.adopters(record) if one[0] not in its.gone]


def board_text(board: Board, top: int) -> Iterator[str]:
    """The board for a reader, at most `top` programs a track."""
    for number, its in enumerate(board.tracks):
        if number:
            yield ""
        yield its.heading()
        rows, total = board.rows(its, top), board.programs(its)
        if not rows:
            yield "  nothing was kept yet"
        for row in rows:
            yield _line(row, its.direction)
        if total > top:
            yield f"  and {total - top} more   (--top {total})"


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
        for row in board.rows(its, top):
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
