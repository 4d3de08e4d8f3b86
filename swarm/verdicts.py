"""What re-runs say of results: a pure fold, seen by one node.

E-values of independent re-runs multiply, so several that came to no verdict alone may come to one together, and nobody
votes. What one author can say is bounded either way, since invented evidence costs nothing. All authors of whose claims
none held here (`Trust`) have one such voice together, and only half of one as soon as there is anybody better to listen
to; it tells nothing where those with a voice of their own settled a result. What this node found by re-running decides
for it, whatever others say. What is not settled is for showing (`Frontier.opinion`): else three invented identities
among a hundred nodes would have every honest claim refuted before anybody looked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..protocols.records import DECISIVE, Record, Result, Verification

State = Literal["claimed", "confirmed", "refuted"]
Place = tuple[int, int]  # epoch and number in an author's log
_VOICE = math.log(DECISIVE)
_DECIDED = _VOICE - 1e-9


@dataclass(frozen=True)
class Transfer:
    """What a re-run under other conditions says: it neither confirms nor refutes the claim itself."""

    author: bytes
    setting: Literal["same", "wider"]
    hardware: str
    outcome: Literal["confirmed", "refuted"]
    voice: bool = True  # whether its author has one of its own: a stranger's word keeps nobody from looking again

    @property
    def where(self) -> str:
        """`wider`, or the hardware class."""
        return self.setting if self.setting != "same" else self.hardware


@dataclass(frozen=True)
class Opinion:
    """The state of a result, and who said so.

    settled: whether it rests on authors with a voice of their own; a verdict of strangers alone ends no re-run.
    weight: log evidence for the gain minus log evidence against it.
    tells_of_equals: settled by what its program does, which is the same of every equal find; that a run was made up
    says nothing of who really ran that program.
    """

    state: State
    confirmed: tuple[bytes, ...] = ()
    refuted: tuple[bytes, ...] = ()
    fabricated: tuple[bytes, ...] = ()  # also among the refuted
    transfers: tuple[Transfer, ...] = ()
    settled: bool = False
    weight: float = 0.0
    tells_of_equals: bool = False


class Verdicts:
    """Each author's last word on each result and under each condition; nobody has one on a result of their own."""

    def __init__(self) -> None:
        self._said: dict[bytes, dict[tuple[bytes, str], tuple[tuple[bool, Place], Verification]]] = {}
        self._reran: dict[bytes, dict[bytes, None]] = {}  # results under their own conditions, by author

    def add(self, record: Record) -> None:
        """Take a verification into account; one that came to no verdict takes no word back."""
        body = record.body
        if isinstance(body, Verification):
            said = self._said.setdefault(body.result, {})
            word, key = ((body.outcome != "inconclusive", place(record)), body), (record.author, body.setting)
            if key not in said or said[key][0] < word[0]:
                said[key] = word
                if body.setting == "same":
                    self._reran.setdefault(record.author, {})[body.result] = None

    def word(self, author: bytes, result: bytes, setting: str = "same") -> Verification | None:
        """What `author` found last."""
        found = self._said.get(result, {}).get((author, setting))
        return found[1] if found is not None else None

    def words_of(self, author: bytes) -> Iterable[tuple[bytes, Verification]]:
        """Every result that `author` re-ran under its own conditions, with what came out."""
        for result in list(self._reran.get(author, ())):
            yield result, self._said[result][author, "same"][1]

    def words_on(self, result: bytes) -> list[tuple[bytes, Verification]]:
        """Who re-ran a result under its own conditions, with what came out."""
        # Copied at once: another thread may be adding.
        said = list(self._said.get(result, {}).items())
        return [(author, body) for (author, setting), (_, body) in said if setting == "same"]

    def of(
        self,
        record: Record,
        viewer: bytes | None = None,
        established: frozenset[bytes] = frozenset(),
        quarantined: frozenset[bytes] = frozenset(),
        *,
        members: bool = False,
    ) -> Opinion:
        """The state of a result. `viewer`: whose own re-run decides; `established`: who has a voice of their own;
        `quarantined`: who has none. `members`: the others are no strangers, and count beside those with a voice."""
        assert isinstance(record.body, Result)
        here = record.body.environment.hardware
        confirmed, refuted, fabricated = list[bytes](), list[bytes](), list[bytes]()
        transfers: list[Transfer] = []
        own: Verification | None = None
        voices, crowd = [0.0, 0.0], [0.0, 0.0]  # log e-values: for, against
        by_runs = 0.0  # of the voices' against, what pairs of runs say
        for (author, setting), (_, body) in list(self._said.get(record.id, {}).items()):
            if author in quarantined or (author == record.author and author != viewer):
                continue
            if body.task != record.body.task:  # whoever re-runs it as another task says nothing of it
                continue
            there, voice = body.environment.hardware, author in established or author == viewer
            if setting != "same" or there != here:
                if body.outcome in ("confirmed", "refuted"):
                    transfers.append(Transfer(author, setting, there, body.outcome, voice))  # type: ignore[arg-type]
                continue
            own = body if author == viewer else own
            if author == record.author:
                continue
            if body.outcome != "inconclusive":
                (confirmed if body.outcome == "confirmed" else refuted).append(author)
            if body.outcome == "fabricated":
                fabricated.append(author)
            total = voices if voice else crowd
            for side, log in enumerate(_logs(body)):
                total[side] += log
            by_runs += _logs(body)[1] if voice and body.outcome != "fabricated" else 0.0
        settled = max(voices) >= _DECIDED
        weight = 1.0 if members or not established else 0.0 if settled else 0.5
        up, down = (voices[side] + weight * _bounded(crowd[side]) for side in (0, 1))
        settled = settled and max(up, down) >= _DECIDED
        state: State = "claimed"
        if max(up, down) >= _DECIDED:  # a gain that is less than half of what is claimed does not make the claim true
            state = "refuted" if down >= _DECIDED else "confirmed"
        equals = settled and (state == "confirmed" or by_runs >= _DECIDED)
        if own is not None and own.outcome != "inconclusive":
            state, settled = "confirmed" if own.outcome == "confirmed" else "refuted", True
            equals = own.outcome != "fabricated"
        elif record.author in quarantined:
            state, settled, equals = "refuted", True, equals and state == "refuted"
        return Opinion(
            state, tuple(confirmed), tuple(refuted), tuple(fabricated), tuple(transfers), settled, up - down, equals
        )  # fmt: skip


def doubts(body: Verification) -> bool:
    """Whether a re-run says anything against the claim. Without one that does, no claim is refuted."""
    return body.outcome in ("refuted", "fabricated") or _logs(body)[1] > 0


def _logs(body: Verification) -> tuple[float, float]:
    """Log evidence for and against the gain in one author's word, bounded."""
    if body.outcome == "fabricated":
        return -_VOICE, _VOICE
    if body.evidence is None:
        return 0.0, 0.0
    return _bounded(_log(body.evidence.e_value)), _bounded(_log(body.evidence.against))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _bounded(log: float) -> float:
    return min(_VOICE, max(-_VOICE, log))


def place(record: Record) -> Place:
    """Where a record stands in its author's log."""
    return record.epoch, record.seq
