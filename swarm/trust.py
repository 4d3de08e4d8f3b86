"""Trust: a pure fold over records, by what this node found out itself.

A voice is earned by claims that held here, and by nothing else: others' verdicts can be echoed, and most claims hold,
so that who calls each of them confirmed is mostly right and has computed nothing. It is lost by claims and by verdicts
that did not hold.
It orders the queue of re-runs and bounds what strangers' claims may cost; it never replaces a re-run before adoption.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..protocols.records import Verification
from .verdicts import Verdicts

T = TypeVar("T")
_WITNESSES = 2  # established authors whose word makes a fabrication believed without a re-run here


@dataclass
class Standing:
    """What this node's own re-runs say of an author's claims, and of its re-runs of others' claims."""

    confirmed: int = 0  # claims that held here
    refuted: int = 0  # claims that did not: bad luck is no offence
    fabricated: int = 0  # claims whose own run is not what its program does
    disagreed: int = 0  # its verdicts that are not those of the re-runs here

    @property
    def established(self) -> bool:
        """Whether it has a voice: more of its claims held than it was found wrong."""
        return not self.fabricated and self.confirmed > self.refuted + self.disagreed


class Trust:
    """How far each author's word was found true by `viewer`. Read from other threads while records are added."""

    def __init__(self, viewer: bytes) -> None:
        self._viewer = viewer
        self._authors: dict[bytes, bytes] = {}  # of kept results, by record id
        self._banned = frozenset[bytes]()
        self._said = 0  # what was counted after fewer words is out of date
        self._counted: dict[str, tuple[int, Any]] = {}

    def claimed(self, result: bytes, author: bytes) -> None:
        """`author` kept a result."""
        self._authors[result] = author
        self.changed()

    def ban(self, equivocators: frozenset[bytes]) -> bool:
        """Who signed two records for one place has no voice and is in quarantine; whether that is news. Not the viewer:
        a home that was copied may have run twice."""
        banned = equivocators - {self._viewer}
        if banned == self._banned:
            return False
        self._banned = banned
        self.changed()
        return True

    def changed(self) -> None:
        """Something was said since."""
        self._said += 1

    def standings(self, verdicts: Verdicts) -> dict[bytes, Standing]:
        """The standing of everybody of whom this node found out anything."""
        return self._once("standings", lambda: self._standings(verdicts))

    def established(self, verdicts: Verdicts) -> frozenset[bytes]:
        """Authors with a voice of their own."""
        standings = self.standings(verdicts)
        return self._once(
            "established", lambda: frozenset(who for who, its in standings.items() if its.established) - self._banned
        )

    def quarantined(self, verdicts: Verdicts) -> frozenset[bytes]:
        """Who is banned, and authors of fabricated claims: found so here, or by two established authors, whose word
        does not count against what this node found itself: of that claim, or of its author.

        What they claim is no idea and not re-run any more, what they say of others does not count.
        """
        return self._once("quarantined", lambda: self._quarantined(verdicts))

    def _once(self, name: str, count: Callable[[], T]) -> T:
        """What `count` gives, or gave when as much had been said as now."""
        said = self._said
        kept = self._counted.get(name)
        if kept is None or kept[0] != said:
            kept = self._counted[name] = (said, count())
        return kept[1]

    def _standings(self, verdicts: Verdicts) -> dict[bytes, Standing]:
        found: dict[bytes, Standing] = defaultdict(Standing)
        for result, mine in verdicts.words_of(self._viewer):
            if mine.outcome != "inconclusive":
                self._count(found, result, mine, verdicts)
        return dict(found)

    def _count(self, found: dict[bytes, Standing], result: bytes, mine: Verification, verdicts: Verdicts) -> None:
        author = self._authors.get(result)
        if author is not None and author != self._viewer:
            name = mine.outcome
            setattr(found[author], name, getattr(found[author], name) + 1)
        hardware = mine.environment.hardware
        for other, word in verdicts.words_on(result):
            comparable = word.outcome != "inconclusive" and word.environment.hardware == hardware
            differs = (word.outcome == "confirmed") != (mine.outcome == "confirmed")
            if comparable and differs and other not in (author, self._viewer):
                found[other].disagreed += 1

    def _quarantined(self, verdicts: Verdicts) -> frozenset[bytes]:
        established = self.established(verdicts)
        out = {author for author, its in self.standings(verdicts).items() if its.fabricated}
        accused = {result for one in established for result, word in verdicts.words_of(one) if _made_up(word)}
        for result in accused:
            author, mine = self._authors.get(result), verdicts.word(self._viewer, result)
            held = mine is not None and mine.outcome in ("confirmed", "refuted")
            if author is None or author in established or held:
                continue
            words = verdicts.words_on(result)
            witnesses = {other for other, word in words if _made_up(word) and other in established}
            if len(witnesses - {author}) >= _WITNESSES:
                out.add(author)
        return frozenset(out - {self._viewer}) | self._banned


def _made_up(word: Verification) -> bool:
    return word.outcome == "fabricated"
