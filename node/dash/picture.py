"""What the pages show: one fold over the ledger, made page by page and advanced by what is new.

Everything here blocks, for milliseconds to a second: it is called in worker threads. Nothing is kept of most records
but a few numbers; what is asked for often is made again only as fast as a fifth of one core allows.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from ...protocols.canonical import digest
from ...protocols.errors import UsageError
from ...protocols.names import nickname
from ...protocols.records import Evidence, Record, Result, Verification
from ...protocols.task import TaskSpec
from ...swarm.index import Glance
from ...swarm.ledger import Ledger
from ..board import Board, Row, Track, track_title
from ..format import change, clean, interval
from ..tasks import known_tasks
from ..views import Views

T = TypeVar("T")
_PAGE = 500  # records read at a time: the lock is free in between
_OTHERS = 2000  # results of a track that were not kept and are drawn all the same
_TITLED = 1000  # kept results of a track up to which all carry their titles
_TRACKS, _ROWS, _NODES, _LANES, _DOTS = 50, 100, 200, 30, 1000
_SHARE = 4  # a view that took a second is good for at least so many
_KEY = 16  # hex digits of an id or of a track's name in addresses
_STANDING = ("confirmed", "claimed", "refuted")
OUTCOMES = ("baseline", "kept", "discarded", "inconclusive", "crashed")


@dataclass
class Seen:
    """What the ledger holds of one node."""

    author: bytes
    hardware: str = ""
    when: int = 0
    results: int = 0
    reruns: int = 0
    kept: list[Record] = field(default_factory=list)


class Point(NamedTuple):
    """One result, as a place in a drawing."""

    number: int  # experiments of its track until then
    when: int  # Unix ms
    score: float | None
    outcome: str
    id: bytes
    by: Seen


class Rerun(NamedTuple):
    """A verification, as a place in a drawing."""

    number: int
    when: int
    gain: float | None
    outcome: str
    result: bytes
    author: bytes


@dataclass
class History:
    """The results of a track in the order in which this node learned of them; as records only those that were kept."""

    track: Track
    spec: TaskSpec | None = None
    records: list[Record] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    reruns: list[Rerun] = field(default_factory=list)
    places: dict[bytes, Point] = field(default_factory=dict)  # of what was kept, by id
    counts: Counter[bytes] = field(default_factory=Counter)  # of results, by author
    baselines: list[Record] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What the track is called in addresses: hardware is a stranger's word."""
        return track_key(self.track)

    @property
    def direction(self) -> str:
        """Where better is."""
        return self.spec.direction if self.spec is not None else "lower"


class Picture:
    """The fold and what is made of it. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.row = 0
        self.ready = False  # whether the whole ledger was read once
        self.total = ledger.last_row()
        self.known: dict[bytes, TaskSpec] = {}
        self.views = Views(ledger)
        self.kept: dict[bytes, Record] = {}
        self.histories: dict[Track, History] = {}
        self._nodes: dict[bytes, Seen] = {}
        self._where: dict[bytes, History] = {}  # of kept results
        self._early: dict[bytes, list[tuple[Record, int]]] = {}  # re-runs of what is not here yet
        self._made: dict[str, tuple[int, float, float, Any]] = {}
        self._lock = threading.RLock()

    # ---- reading

    def advance(self) -> bool:
        """Take the next records into account; whether there were any."""
        page = self.ledger.index.glances(self.row, _PAGE)
        with self._lock:
            for glance in page:
                self._take(glance)
            self.total = max(self.total, self.row)
        return bool(page)

    def settle(self) -> None:
        """Everything was read: names and proofs are looked up, which any write may have brought."""
        known, equivocators = known_tasks(self.ledger), frozenset(self.ledger.equivocators(-1))
        with self._lock:
            if self.views.ban(equivocators) or known != self.known:
                self.known = known
                self._made.clear()
            for history in self.histories.values():
                history.spec = known.get(history.track.task)
            self.ready = True

    def _take(self, glance: Glance) -> None:
        record = glance.record
        self.row = glance.row
        if record is not None:
            self.views.add(record)
        if (node := self._nodes.get(glance.author)) is None:
            node = self._nodes[glance.author] = Seen(glance.author)
        node.when, node.hardware = max(node.when, glance.when), glance.hardware
        if record is not None and isinstance(record.body, Verification):
            node.reruns += 1
            self._take_rerun(record, glance.when)
            return
        node.results += 1
        track = Track(glance.task, glance.hardware)
        if (history := self.histories.get(track)) is None:
            history = self.histories[track] = History(track)
        point = Point(len(history.points) + 1, glance.when, glance.score, glance.outcome, glance.id, node)
        history.points.append(point)
        history.counts[node.author] += 1
        if record is None:
            return
        if glance.outcome == "baseline":
            history.baselines.append(record)
            return
        node.kept.append(record)
        self.kept[record.id] = record
        history.records.append(record)
        history.places[record.id] = point
        self._where[record.id] = history
        for rerun, when in self._early.pop(record.id, ()):
            self._take_rerun(rerun, when)

    def _take_rerun(self, record: Record, when: int) -> None:
        """Note what may be drawn beside the result: under other conditions, other numbers come out."""
        body = record.body
        assert isinstance(body, Verification)
        history = self._where.get(body.result)
        if history is None:  # logs come one by one, so that an answer may come first
            self._early.setdefault(body.result, []).append((record, when))
            return
        here = Track(body.task, body.environment.hardware)
        if history.track == here and body.setting == "same":
            number = history.points[-1].number
            history.reruns.append(Rerun(number, when, body.gain, body.outcome, body.result, record.author))

    # ---- what all views need

    @property
    def lock(self) -> threading.RLock:
        """What keeps the fold as it is meanwhile."""
        return self._lock

    def gone(self) -> frozenset[bytes]:
        """Authors whose results are not shown among the others."""
        return self.views.quarantined

    def verdict(self, record: Record) -> str:
        """`claimed`, `confirmed` or `refuted`; nothing of what was not kept, or before everything was read."""
        is_kept = isinstance(record.body, Result) and record.body.outcome == "kept"
        return self.views.opinion(record).state if is_kept and self.ready else ""

    def state(self, record: Record) -> str:
        """The same in words, with who says so."""
        return self.views.state(record) if self.ready else ""

    def direction(self, task: bytes) -> str:
        """Where better is."""
        spec = self.known.get(task)
        return spec.direction if spec is not None else "lower"

    def _fresh(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives: made again when there is something new, and not much more often than it takes."""
        made = self._made.get(name)
        if made is not None and (made[0] == self.row or time.monotonic() < made[1] + _SHARE * made[2]):
            return made[3]
        row, start = self.row, time.monotonic()
        value = make()
        end = time.monotonic()
        if self.ready:
            self._made[name] = (row, end, end - start, value)
        return value

    def _history(self, key: str) -> History:
        for history in self.histories.values():
            if history.key == key:
                return history
        raise UsageError("there is no such track", why="nothing was recorded on it")

    # ---- views

    def tracks(self) -> list[dict[str, Any]]:
        """Every track with what is known of it, this home's task first."""
        with self._lock:
            return self._fresh("tracks", self._tracks)

    def _tracks(self) -> list[dict[str, Any]]:
        worked = bytes.fromhex(self.ledger.journal("node").get("task", ""))
        order = sorted(self.histories.values(), key=lambda one: (one.track.task != worked, -len(one.points)))
        return [self._heading(history, self._climb(history)) for history in order[:_TRACKS]]

    def _heading(self, history: History, climb: list[tuple[Record, bool]]) -> dict[str, Any]:
        its, spec = history, history.spec
        steps = [record for record, is_step in climb if is_step]
        best = steps[-1].body if steps else None
        gone = self.gone()
        plain = [one.body for one in history.baselines if one.author not in gone and isinstance(one.body, Result)]
        scores = [body.score for body in plain if body.score is not None]
        noises = [body.noise for body in plain if body.noise is not None]
        base = statistics.median(scores) if scores else None
        counts = {author: count for author, count in history.counts.items() if author not in gone}
        gain = None
        if base is not None and isinstance(best, Result) and best.score is not None:
            gain = base - best.score if its.direction == "lower" else best.score - base
        return {
            "key": history.key,
            "name": track_title(its.track, spec),
            "task": its.track.task.hex(),
            "hardware": clean(its.track.hardware, 32),
            "metric": clean(spec.metric, 16) if spec is not None else "score",
            "direction": its.direction,
            "results": sum(counts.values()),
            "nodes": len(counts),
            "kept_total": len(climb),
            "reruns_total": len(history.reruns),
            "baseline": base,
            "noise": statistics.median(noises) if noises else None,
            "best": best.score if isinstance(best, Result) else None,
            "best_id": steps[-1].id.hex() if steps else None,
            "best_state": self.state(steps[-1]) if steps else "",
            "change": change(gain, its.direction),
        }

    def _climb(self, history: History) -> list[tuple[Record, bool]]:
        """The kept results, and whether each was the best so far. What does not stand is no step, nor is a copy of a
        program for which another result speaks, as on the board."""
        gone, sign = self.gone(), 1 if history.direction == "lower" else -1
        shown = [record for record in history.records if record.author not in gone]
        states = {record.id: self.views.opinion(record).state for record in shown}
        speaks: dict[bytes, Record] = {}
        for record in shown:
            other = speaks.setdefault(_program(record), record)
            if _STANDING.index(states[record.id]) < _STANDING.index(states[other.id]):
                speaks[_program(record)] = record
        best, found = float("inf"), list[tuple[Record, bool]]()
        for record in shown:
            assert isinstance(record.body, Result) and record.body.score is not None
            score = sign * record.body.score
            stands = speaks[_program(record)] is record and states[record.id] != "refuted"
            is_step = stands and score < best and not self.views.is_flagged(record)
            best = score if is_step else best
            found.append((record, is_step))
        return found

    def progress(self, key: str) -> dict[str, Any]:
        """The staircase of a track: everything that was kept, a sample of the rest, and re-runs."""
        with self._lock:
            history = self._history(key)
            return self._fresh(f"progress {key}", lambda: self._progress(history))

    def _progress(self, history: History) -> dict[str, Any]:
        gone = self.gone()
        rest = [
            point
            for point in history.points
            if point.outcome != "kept" and point.score is not None and point.by.author not in gone
        ]
        every = -(-len(rest) // _OTHERS) or 1
        sign, climb = 1 if history.direction == "lower" else -1, self._climb(history)
        return {
            **self._heading(history, climb),
            "kept": [self._step(history, record, is_step) for record, is_step in climb],
            "others": [
                [point.number, point.when, point.score, OUTCOMES.index(point.outcome), point.id.hex()[:_KEY]]
                for point in rest[::every]
            ],
            "others_total": len(rest),
            "outcomes": OUTCOMES,
            "reruns": [
                [one.number, one.when, self._found(one, sign), one.outcome, one.result.hex()[:_KEY],
                 nickname(one.author)]
                for one in history.reruns[-_OTHERS:]
                if self._found(one, sign) is not None and one.author not in gone
            ],
            "last": history.points[-1].number,
        }  # fmt: skip

    def _found(self, rerun: Rerun, sign: int) -> float | None:
        """The score that a re-run puts the result at: that of its parent, changed by what was found."""
        body = self.kept[rerun.result].body
        assert isinstance(body, Result) and body.score is not None
        if rerun.gain is None or body.gain is None:
            return None
        found = body.score + sign * (body.gain - rerun.gain)
        return found if math.isfinite(found) else None

    def _step(self, history: History, record: Record, is_step: bool) -> list[Any]:
        point, body = history.places[record.id], record.body
        assert isinstance(body, Result)
        is_told = is_step or len(history.records) <= _TITLED
        low, high = _bounds(body, history.direction) if is_told else (None, None)
        told = [clean(body.title, 80), change(body.gain, history.direction)] if is_told else []
        return [
            point.number, point.when, body.score, low, high, self.views.opinion(record).state, int(is_step),
            record.id.hex()[:_KEY], nickname(record.author), *told,
        ]  # fmt: skip

    def board(self, key: str) -> dict[str, Any]:
        """The best programs of a track."""
        with self._lock:
            history = self._history(key)
            return self._fresh(f"board {key}", lambda: self._board(history))

    def _board(self, history: History) -> dict[str, Any]:
        board = Board(self.ledger, self.known)
        its = next((its for its in board.tracks if its.track == history.track), None)
        rows = board.rows(its, _ROWS) if its is not None else []
        gone = self.gone()
        return {
            "rows": [self._ranked(row, history.direction) for row in rows],
            "total": board.programs(its) if its is not None else 0,
            "hidden": sum(record.author in gone for record in history.records),
        }

    def _ranked(self, row: Row, direction: str) -> dict[str, Any]:
        body, found = row.body, row.body.evidence
        return {
            "rank": row.rank,
            "id": row.record.id.hex(),
            "name": nickname(row.record.author),
            "title": clean(body.title),
            "tags": list(body.tags),
            "score": body.score,
            "change": change(body.gain, direction),
            "error": body.gain_error,
            "interval": interval(found, direction),
            "verdict": row.verdict,
            "state": self.state(row.record),
            "flagged": row.flagged,
            "adopters": [nickname(author) for author, _ in row.adopters[:20]],
            "adopted": len(row.adopters),
        }

    def lanes(self, key: str) -> dict[str, Any]:
        """Who kept what when, and what of others' it was built on."""
        with self._lock:
            history = self._history(key)
            return self._fresh(f"lanes {key}", lambda: self._lanes(history))

    def _lanes(self, history: History) -> dict[str, Any]:
        gone = self.gone()
        records = [record for record in history.records if record.author not in gone]
        busiest = Counter(record.author for record in records).most_common(_LANES)
        chosen = {author for author, _ in busiest} | {self.views.own}
        shown = [record for record in records if record.author in chosen][-_DOTS:]
        lanes = list(dict.fromkeys(record.author for record in shown))
        numbers = {author: number for number, author in enumerate(lanes)}
        dots = [
            [
                numbers[record.author], history.places[record.id].number, history.places[record.id].when,
                self.views.opinion(record).state, record.id.hex()[:_KEY], clean(record.body.title, 80),
                change(record.body.gain, history.direction),
            ]
            for record in shown
            if isinstance(record.body, Result)
        ]  # fmt: skip
        at = {record.id: number for number, record in enumerate(shown)}
        links = [[at[source], at[record.id]] for record in shown for source in self._sources(record) if source in at]
        names = [nickname(author) for author in lanes]
        own = lanes.index(self.views.own) if self.views.own in lanes else None
        return {"lanes": names, "dots": dots, "links": links, "total": len(records), "own": own}

    def _sources(self, record: Record) -> list[bytes]:
        """The others' results that a kept result was made from directly."""
        body = record.body
        assert isinstance(body, Result)
        parents = islice(self.views.lineage.walk(body.parent, body.task, record.author), 1)
        found = [one.id for one in parents if one.author != record.author]
        if not body.proposer.startswith("llm"):  # what a language model was merely shown does not count
            named = (self.kept.get(name) for name in body.inspired_by)
            found += [one.id for one in named if one is not None and one.author != record.author]
        return list(dict.fromkeys(found))

    def nodes(self) -> dict[str, Any]:
        """Every node that the ledger knows, by what it did."""
        with self._lock:
            return self._fresh("nodes", self._nodes_seen)

    def _nodes_seen(self) -> dict[str, Any]:
        gone = self.gone()
        order = sorted(self._nodes.items(), key=lambda one: (one[0] != self.views.own, -one[1].results))
        found: list[dict[str, Any]] = []
        for author, seen in order[:_NODES]:
            states = [self.views.opinion(record).state for record in seen.kept]
            found.append(
                {
                    "name": nickname(author),
                    "author": author.hex(),
                    "own": author == self.views.own,
                    "hardware": clean(seen.hardware, 32),
                    "results": seen.results,
                    "kept": len(seen.kept),
                    "confirmed": states.count("confirmed"),
                    "refuted": states.count("refuted"),
                    "reruns": seen.reruns,
                    "quarantined": author in gone,
                    "when": seen.when,
                }
            )
        return {"nodes": found, "total": len(self._nodes), "quarantined": len(gone & set(self._nodes))}


def _program(record: Record) -> bytes:
    assert isinstance(record.body, Result)
    return record.body.program


def track_key(track: Track) -> str:
    """A track's name in addresses."""
    return digest(track.task + track.hardware.encode())[: _KEY // 2].hex()


def _bounds(body: Result, direction: str) -> tuple[float | None, float | None]:
    """Where the score lies by the 95 % interval of the gain, or by two standard errors where that has no end."""
    found: Evidence | None = body.evidence
    if body.score is None or body.gain is None:
        return None, None
    if found is not None and found.low is not None and found.high is not None:
        low, high = found.low, found.high
    elif body.gain_error is not None:
        low, high = body.gain - 2 * body.gain_error, body.gain + 2 * body.gain_error
    else:
        return None, None
    sign = 1 if direction == "lower" else -1
    one, other = (body.score + sign * (body.gain - end) for end in (low, high))
    if not (math.isfinite(one) and math.isfinite(other)):  # huge numbers of a stranger's: no place in a drawing
        return None, None
    return min(one, other), max(one, other)
