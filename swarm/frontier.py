"""The frontier: a pure fold over records. What is best here, what was tried, and what peers claim.

A node's own best changes only through its own kept results: claims are hints, local reproductions are facts.
It follows the order of the own log; nothing but the order of lists depends on the order of arrival.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..protocols.records import Record, Result, Verification

State = Literal["claimed", "confirmed", "refuted"]
_Place = tuple[int, int]  # epoch and number in an author's log


@dataclass(frozen=True)
class Win:
    """A kept result by somebody else, with what others' re-runs say of it."""

    record: Record
    result: Result
    state: State
    confirmations: int
    refutations: int

    @property
    def id(self) -> bytes:
        """The record's id."""
        return self.record.id


class Verdicts:
    """What re-runs say of results: each author's last word, which nobody has on a result of their own."""

    def __init__(self) -> None:
        self._said: dict[bytes, dict[bytes, tuple[_Place, str]]] = {}  # result -> author

    def add(self, record: Record) -> None:
        """Take a verification into account; one that came to no verdict takes no word back."""
        body = record.body
        if isinstance(body, Verification) and body.outcome != "inconclusive":
            said = self._said.setdefault(body.result, {})
            word = (_place(record), body.outcome)
            said[record.author] = max(word, said.get(record.author, word))

    def of(self, record: Record) -> tuple[State, list[bytes], list[bytes]]:
        """The state of a result, and who confirmed and who refuted it."""
        said = self._said.get(record.id, {})
        by: dict[str, list[bytes]] = {"confirmed": [], "refuted": []}
        for author, (_, outcome) in list(said.items()):  # copied at once: another thread may be adding
            if author != record.author:
                by[outcome].append(author)
        confirmed, refuted = by["confirmed"], by["refuted"]
        more, less = len(confirmed) > len(refuted), len(refuted) > len(confirmed)
        return ("confirmed" if more else "refuted" if less else "claimed"), confirmed, refuted


class Frontier:
    """Add records one by one; read the view at any time, from other threads too."""

    def __init__(self, own: bytes, task: bytes, baseline: bytes) -> None:
        """`own`: this node's author key; `task`: task id; `baseline`: program digest of the starting point."""
        self.own = own
        self.trials: list[Record] = []  # results of this task, as they became known
        self.tried: set[bytes] = set()  # normal digests tried here, or tried and not kept by a peer
        self.own_tried: set[bytes] = set()
        self.own_experiments = 0  # own results, the baseline not counted
        self.own_promoted = self.own_kept = 0  # of them: confirmed in pairs, and won
        self._task = task
        self._baseline = baseline
        self._seen: set[bytes] = set()
        self._wins: dict[bytes, tuple[Record, Result]] = {}
        self._own: list[Record] = []  # own results on this task, in the order of the own log
        self._verdicts = Verdicts()
        self._restart()

    def _restart(self) -> None:
        self.best_program = self.anchor = self._baseline  # anchor: the last own best that was kept for a gain
        self.best_result: Record | None = None  # None: the own best is the baseline
        self.best_score: float | None = None
        self.own_baseline: Record | None = None
        self.lineage: list[bytes] = []  # ids of the own kept results that led to the own best

    def add(self, record: Record) -> None:
        """Take one record into account; the same record twice changes nothing."""
        identity = record.id
        if identity in self._seen:
            return
        self._seen.add(identity)
        body = record.body
        if isinstance(body, Verification):
            self._verdicts.add(record)
            return
        if record.author != self.own and body.outcome == "kept":
            self._wins[identity] = (record, body)
        if body.task == self._task:
            self._add_trial(record, body)

    def _add_trial(self, record: Record, body: Result) -> None:
        self.trials.append(record)
        if record.author != self.own:
            if body.outcome not in ("kept", "baseline"):
                self.tried.add(body.normal)
            return
        self.own_tried.add(body.normal)
        self.tried.add(body.normal)
        self.own_experiments += body.outcome != "baseline"
        self.own_promoted += body.evidence is not None
        self.own_kept += body.outcome == "kept"
        if not self._own or _place(self._own[-1]) < _place(record):
            self._own.append(record)
            self._follow(record, body)
        else:  # a tail that was lost here comes back from peers
            bisect.insort(self._own, record, key=_place)
            self._restart()
            for own in self._own:
                assert isinstance(own.body, Result)
                self._follow(own, own.body)

    def _follow(self, record: Record, body: Result) -> None:
        """The next own result: one that was kept, and whose parent is the own best, is the new own best."""
        if body.outcome == "baseline":
            self.own_baseline = record
            if self.best_result is None:
                self.best_score = body.score
        elif body.outcome == "kept" and body.parent == self.best_program:
            self.best_program, self.best_score, self.best_result = body.program, body.score, record
            if body.aim == "gain":
                self.anchor = body.program
            self.lineage.append(record.id)

    @property
    def peer_wins(self) -> tuple[Win, ...]:
        """Others' kept results on this task that were not tried here, in order of arrival."""
        return tuple(
            self._win(record, body)
            for record, body in list(self._wins.values())
            if body.task == self._task and body.normal not in self.own_tried
        )

    @property
    def own_wins_aside(self) -> tuple[Win, ...]:
        """Own kept results that the own best does not contain: found beside each other, from one parent."""
        return tuple(
            Win(record, record.body, "confirmed", 0, 0)
            for record in self._own
            if isinstance(record.body, Result) and record.body.outcome == "kept" and record.id not in self.lineage
        )

    @property
    def other_task_wins(self) -> tuple[Win, ...]:
        """Others' kept results on other tasks, in order of arrival."""
        return tuple(self._win(record, body) for record, body in list(self._wins.values()) if body.task != self._task)

    def _win(self, record: Record, body: Result) -> Win:
        state, confirmed, refuted = self._verdicts.of(record)
        return Win(record, body, state, len(confirmed), len(refuted))


def _place(record: Record) -> _Place:
    return record.epoch, record.seq


def fold(records: Iterable[Record], own: bytes, task: bytes, baseline: bytes) -> Frontier:
    """The frontier after all of `records`."""
    frontier = Frontier(own, task, baseline)
    for record in records:
        frontier.add(record)
    return frontier
