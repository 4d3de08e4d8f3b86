"""The frontier: a pure fold over records. What is best here, what was tried, and what peers claim.

A node's own best changes only through its own results: claims are hints, local reproductions are facts. A win of its
own that others' re-runs refute is re-run here, and leaves the own best when it does not hold.
It follows the order of the own log; nothing but the order of lists depends on that of arrival.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..protocols.canonical import digest
from ..protocols.records import Record, Result, Verification
from .lineage import Lineage, Taints
from .trust import Standing, Trust
from .verdicts import Opinion, State, Verdicts, place

Find = tuple[object, ...]
_LITTLE_MORE = 1.5  # times a confirmed gain: no more than chance makes of one find


@dataclass(frozen=True)
class Win:
    """A kept result with what others' re-runs say of it."""

    record: Record
    result: Result
    opinion: Opinion
    flagged: bool = False  # built on something that was refuted or made up, and not confirmed by itself

    @property
    def id(self) -> bytes:
        """The record's id."""
        return self.record.id

    @property
    def state(self) -> State:
        """claimed, confirmed or refuted."""
        return self.opinion.state

    @property
    def find(self) -> Find:
        """What it has in common with equal finds."""
        return find_of(self.result)


Judged = tuple[Result, Opinion]


@dataclass(frozen=True)
class _Views:
    """What was found out of results, until the next record that could change it."""

    alone: dict[bytes, Opinion] = field(default_factory=dict)  # of each result by what was said of it
    opinions: dict[bytes, Opinion] = field(default_factory=dict)  # and of equal ones
    tainted: Taints = field(default_factory=Taints)
    refuted: dict[Find, Judged | None] = field(default_factory=dict)  # by find


class Frontier:
    """Add records one by one; read the view at any time, from other threads too."""

    def __init__(self, own: bytes, task: bytes, baseline: bytes, private: bool = False) -> None:
        """`own`: this node's author key; `task`: task id; `baseline`: program digest of the starting point.
        `private`: everybody here was invited, so that nobody's word about what to try next is a stranger's."""
        self.own = own
        self.private = private
        self.trials: list[Record] = []  # results of this task, as they became known
        self.own_tried: set[bytes] = set()  # normal digests
        self._failed: dict[bytes, set[bytes]] = {}  # normal digests that peers tried and did not keep, and who
        self.own_experiments = 0  # own results, the baseline not counted
        self.own_promoted = self.own_kept = 0  # of them: confirmed in pairs, and won
        self._task = task
        self._baseline = baseline
        self._seen: set[bytes] = set()
        self._wins: dict[bytes, tuple[Record, Result]] = {}
        self._own: list[Record] = []  # own results on this task, in the order of the own log
        self._verdicts = Verdicts()
        self._trust = Trust(own)
        self.kept = Lineage()  # kept results of all tasks and authors
        self._dropped: dict[bytes, Verification] = {}  # own results that the last own re-run of them refuted
        self._equal: dict[Find, list[Record]] = {}  # kept results
        self._views = _Views()
        self.own_seconds = {"research": 0.0, "verify": 0.0}  # of CPU time on this task, by what it was spent on
        self._reran: dict[bytes, float] = {}  # of it, on the claims of others under their own conditions
        self._restart()

    def _restart(self) -> None:
        self.best_program = self._baseline
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
            self._add_verification(record, body)
            return
        if body.outcome == "kept":
            self.kept.add(record)
            self._equal.setdefault(find_of(body), []).append(record)
            self._trust.claimed(identity, record.author)
            self._views = _Views()
            if record.author != self.own:
                self._wins[identity] = (record, body)
        if body.task == self._task:
            self._add_trial(record, body)

    def _add_verification(self, record: Record, body: Verification) -> None:
        self._verdicts.add(record)
        self._trust.changed()  # after it is there: another thread may be counting
        self._views = _Views()
        if record.author != self.own:
            return
        if body.task == self._task:
            self.own_seconds["verify"] += body.cost.seconds
            if body.setting == "same":
                self._reran[body.result] = self._reran.get(body.result, 0.0) + body.cost.seconds
        word = self._verdicts.word(self.own, body.result)
        before = body.result in self._dropped
        if word is not None and word.outcome in ("refuted", "fabricated"):
            self._dropped[body.result] = word
        else:
            self._dropped.pop(body.result, None)
        self._views = _Views()
        if before != (body.result in self._dropped):
            self._follow_all()

    def _add_trial(self, record: Record, body: Result) -> None:
        self.trials.append(record)
        if record.author != self.own:
            if body.outcome not in ("kept", "baseline"):
                self._failed.setdefault(body.normal, set()).add(record.author)
            return
        self.own_tried.add(body.normal)
        self.own_experiments += body.outcome != "baseline"
        self.own_promoted += body.evidence is not None
        self.own_kept += body.outcome == "kept"
        self.own_seconds["research"] += body.cost.seconds
        if not self._own or place(self._own[-1]) < place(record):
            self._own.append(record)
            self._follow(record, body)
        else:  # a tail that was lost here comes back from peers
            bisect.insort(self._own, record, key=place)
            self._follow_all()

    def _follow_all(self) -> None:
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
        elif body.outcome == "kept" and body.parent == self.best_program and record.id not in self._dropped:
            self.best_program, self.best_score, self.best_result = body.program, body.score, record
            self.lineage.append(record.id)

    def is_tried(self, normal: bytes) -> bool:
        """Whether a program was tried here, or is a dead end by a peer's word.

        Nobody re-runs a failure, so a stranger's word is taken for half of all programs, another half on each node:
        what is said to be hopeless is still tried somewhere. Members of a private swarm are no strangers.
        """
        if normal in self.own_tried:
            return True
        return any(self.heeds(author, normal) for author in list(self._failed.get(normal, ())))

    def heeds(self, author: bytes, normal: bytes) -> bool:
        """Whether an author's word that a program was tried, or is being tried, is taken here."""
        return author not in self.quarantined and (self.is_known(author) or digest(self.own + normal)[0] < 128)

    @property
    def _established(self) -> frozenset[bytes]:
        return self._trust.established(self._verdicts)

    def ban(self, equivocators: frozenset[bytes]) -> None:
        """Who signed two records for one place is not listened to; the ledger knows them."""
        if self._trust.ban(equivocators):
            self._views = _Views()

    def is_known(self, author: bytes) -> bool:
        """Whether its word is more than a stranger's: its claims held here, or all were invited."""
        return self.private or author in self._established

    @property
    def newcomer_seconds(self) -> float:
        """CPU time that the own re-runs of claims took whose authors are strangers by now."""
        return self.on_newcomers(list(self._reran.items()))

    def on_newcomers(self, spent: Iterable[tuple[bytes, float]]) -> float:
        """Of what was spent on results, the part on claims whose authors are strangers by now."""
        claims = ((self._wins.get(result), seconds) for result, seconds in spent)
        return sum(seconds for win, seconds in claims if win is not None and win[0].author not in self._established)

    @property
    def peer_wins(self) -> tuple[Win, ...]:
        """Others' kept results on this task that were not tried here, in order of arrival; none of the quarantined."""
        return self._seen_wins(lambda body: body.task == self._task and body.normal not in self.own_tried)

    def same_find(self, parent: bytes, normal: bytes) -> bytes | None:
        """The first of others' kept results that made this program from that parent, and does not come from somebody
        in quarantine."""
        gone = self.quarantined
        return next(
            (
                identity
                for identity, (record, body) in list(self._wins.items())
                if (body.anchor or body.parent, body.normal, body.task) == (parent, normal, self._task)
                and record.author not in gone
            ),
            None,
        )

    def peer_win(self, result: bytes) -> tuple[bytes, Result] | None:
        """A kept result of somebody else, with its author."""
        found = self._wins.get(result)
        return (found[0].author, found[1]) if found is not None else None

    @property
    def other_task_wins(self) -> tuple[Win, ...]:
        """Others' kept results on other tasks, in order of arrival."""
        return self._seen_wins(lambda body: body.task != self._task)

    @property
    def programs_of_ideas(self) -> set[bytes]:
        """Others' programs that ideas on this task are made of: of wins that are confirmed, or that somebody claims who
        is known here, and their parents."""
        stand = [win for win in self.peer_wins if win.state != "refuted"]
        wins = [win.result for win in stand if win.state == "confirmed" or self.is_known(win.record.author)]
        return {program for body in wins for program in (body.program, body.parent) if program is not None}

    def wins_naming(self, programs: Collection[bytes]) -> list[Record]:
        """For each of these programs one of others' kept results, of any task, that made it, or was made from it; of
        nobody in quarantine."""
        gone, found = self.quarantined, dict[bytes, Record]()
        for record, body in list(self._wins.values()):
            if record.author in gone:
                continue
            if body.program in programs:
                found[body.program] = record
            elif body.parent is not None and body.parent in programs:
                found.setdefault(body.parent, record)
        return list({record.id: record for record in found.values()}.values())

    @property
    def claims(self) -> tuple[Win, ...]:
        """Others' kept results on this task that nobody with a voice settled, in order of arrival; of equal finds from
        one parent, which one re-run is about as well, none when one is settled."""
        return unanswered(self._seen_wins(lambda body: body.task == self._task))

    @property
    def denied(self) -> tuple[Win, ...]:
        """Others' kept results on this task that are refuted by the word of authors with a voice alone, in order of
        arrival: some of them had better be looked at, else a liar who once was right is never found out."""
        return hearsay(self._seen_wins(lambda body: body.task == self._task), lambda win: self.word(win.id) is not None)

    @property
    def confirmed(self) -> tuple[Win, ...]:
        """Kept results on this task, own ones included, that re-runs confirmed."""
        own = (win for win in self._own_wins() if win.state == "confirmed")
        return (*(win for win in self._seen_wins(lambda b: b.task == self._task) if win.state == "confirmed"), *own)

    @property
    def own_wins_aside(self) -> tuple[Win, ...]:
        """Own kept results that the own best does not contain: found beside each other, from one parent."""
        out = set(self.lineage) | self._dropped.keys()
        aside = (win for win in self._own_wins() if win.id not in out and win.state != "refuted")
        return tuple(
            replace(win, opinion=replace(win.opinion, state="confirmed"), flagged=False) for win in aside
        )  # what was found here is a fact here

    @property
    def doubted(self) -> tuple[Win, ...]:
        """Own results in the own best that authors of a voice refute and that were not re-run here since."""
        wins = (win for win in self._own_wins() if win.id in self.lineage and not self.word(win.id))
        return tuple(win for win in wins if win.state == "refuted" and win.opinion.settled)

    def _own_wins(self) -> Iterable[Win]:
        for record in list(self._own):
            if isinstance(record.body, Result) and record.body.outcome == "kept":
                yield self.win(record, record.body)

    def _seen_wins(self, wanted: Callable[[Result], bool]) -> tuple[Win, ...]:
        gone = self.quarantined
        found = [(record, body) for record, body in list(self._wins.values()) if record.author not in gone]
        return tuple(self.win(record, body) for record, body in found if wanted(body))

    def win(self, record: Record, body: Result) -> Win:
        """A kept result as this node sees it."""
        opinion = self.opinion(record)
        flagged = opinion.state != "confirmed" and self.kept.is_tainted(record, self._is_bad, self._views.tainted)
        return Win(record, body, opinion, flagged)

    def opinion(self, record: Record) -> Opinion:
        """What re-runs say of a result, as far as this node goes by it; what refutes one of equal finds refutes all
        that claim as much. What strangers alone say decides nothing: they may be one liar, who praises lies and calls
        true wins refuted. Members of a private swarm are no strangers."""
        views = self._views  # another thread may begin new ones meanwhile
        if record.id not in views.opinions:
            assert isinstance(record.body, Result)
            found = self._opinion(views, record)
            found = beside_equals(found, record.body, self._refuted(views, record.body))
            if found.state != "claimed" and not (found.settled or self.private):
                found = replace(found, state="claimed")
            views.opinions[record.id] = found
        return views.opinions[record.id]

    def _opinion(self, views: _Views, record: Record) -> Opinion:
        if record.id not in views.alone:
            known, gone = self._established, self.quarantined
            views.alone[record.id] = self._verdicts.of(record, self.own, known, gone, members=self.private)
        return views.alone[record.id]

    def _refuted(self, views: _Views, body: Result) -> Judged | None:
        find = find_of(body)
        if find not in views.refuted:
            equal = list(self._equal.get(find, ()))
            views.refuted[find] = least_refuted([(one, self._opinion(views, one)) for one in equal])
        return views.refuted[find]

    def _is_bad(self, record: Record) -> bool:
        if record.author == self.own:
            return record.id in self._dropped
        return record.author in self.quarantined or self.opinion(record).state == "refuted"

    def anchor_of(self, parent: bytes, author: bytes) -> bytes | None:
        """What a simplification of `parent` has to be compared with, so that losses cannot creep: the last program on
        the author's way to it that was kept for a gain, the baseline where none was; None when the way is not known."""
        for one in self.kept.walk(parent, self._task, author):
            assert isinstance(one.body, Result)
            if one.body.aim == "gain":
                return one.body.program
            parent = one.body.parent or b""
        return parent if parent == self._baseline else None

    def word(self, result: bytes, setting: str = "same") -> Verification | None:
        """What this node found when it re-ran a result."""
        return self._verdicts.word(self.own, result, setting)

    @property
    def standings(self) -> dict[bytes, Standing]:
        """How far each author's word was found true here."""
        return self._trust.standings(self._verdicts)

    @property
    def quarantined(self) -> frozenset[bytes]:
        """Authors of fabricated claims, and who signed two records for one place."""
        return self._trust.quarantined(self._verdicts)


def find_of(result: Result) -> Find:
    """What equal finds have in common: task, aim, the program that was beaten, the new one, and the hardware class."""
    where = result.environment.hardware
    return result.task, result.aim, result.anchor or result.parent, result.program, where


def least_refuted(equal: Sequence[tuple[Record, Opinion]]) -> Judged | None:
    """Of equal finds that one which runs refute though it claims least."""
    judged = ((one.body, its) for one, its in equal if its.tells_of_equals and its.state == "refuted")
    bad = [(body, its) for body, its in judged if isinstance(body, Result)]
    return min(bad, key=lambda one: one[0].gain or 0.0, default=None)


def beside_equals(found: Opinion, body: Result, bad: Judged | None) -> Opinion:
    """What is said of a find, with what is said of equal ones: what refutes one refutes all that claim as much. `bad`:
    the least of them that is refuted."""
    if found.settled or bad is None or not speaks_for("refuted", bad[0], body):
        return found
    return replace(found, state="refuted", refuted=bad[1].refuted, settled=True)


def unanswered(wins: Sequence[Win]) -> tuple[Win, ...]:
    """Those that are not settled, nor equal to a confirmed one that claims about as much."""
    held: dict[Find, Result] = {}  # of each find the confirmed one that claims most
    for win in wins:
        if win.opinion.tells_of_equals and win.state == "confirmed":
            held[win.find] = max(held.get(win.find, win.result), win.result, key=lambda one: one.gain or 0.0)
    is_held = lambda win: win.find in held and speaks_for("confirmed", held[win.find], win.result)  # noqa: E731
    return tuple(win for win in wins if not win.opinion.settled and not is_held(win))


def hearsay(wins: Sequence[Win], looked_at: Callable[[Win], bool]) -> tuple[Win, ...]:
    """Those that are settled as refuted though this node looked at none of equal ones."""
    seen = {win.find for win in wins if looked_at(win)}
    return tuple(win for win in wins if win.state == "refuted" and win.opinion.settled and win.find not in seen)


def speaks_for(state: State, one: Result, other: Result) -> bool:
    """Whether what re-runs found of one find is an answer to an equal one: that it does not hold, to what claims as
    much; that it does, to what claims little more. Of simplifications none claims more than another."""
    gain, its = one.gain or 0.0, other.gain or 0.0
    return one.aim == "simpler" or (its >= gain if state == "refuted" else its <= _LITTLE_MORE * gain)


def fold(records: Iterable[Record], own: bytes, task: bytes, baseline: bytes) -> Frontier:
    """The frontier after all of `records`."""
    frontier = Frontier(own, task, baseline)
    for record in records:
        frontier.add(record)
    return frontier
