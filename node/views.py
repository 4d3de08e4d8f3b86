"""What this home thinks of results by now, for every command that shows a state. Of the ledger only that is read which
an answer needs: a history may hold a hundred thousand records, and a screen shows twenty."""

from __future__ import annotations

from dataclasses import replace

from ..protocols.names import nickname
from ..protocols.records import Record, Result, Verification
from ..swarm.frontier import Find, Judged, beside_equals, find_of, least_refuted
from ..swarm.index import StoredLineage
from ..swarm.ledger import Ledger
from ..swarm.lineage import Taints
from ..swarm.trust import Trust
from ..swarm.verdicts import Opinion, Verdicts, doubts

FLAGGED = "built on refuted work"


class Views:
    """Opinions on results, as this home's node has them: of all re-runs, so that past wins show the state that they
    have by now."""

    def __init__(self, ledger: Ledger) -> None:
        node = ledger.journal("node")
        own, self._private = node.get("author"), bool(node.get("swarm"))
        self.own = bytes.fromhex(own) if own else b""
        self.lineage = StoredLineage(ledger.index)
        self._ledger = ledger
        self._verdicts, self._trust = Verdicts(), Trust(self.own)
        self._reruns: dict[bytes, dict[bytes, Record]] = {}  # of the results that were asked about
        self._alone: dict[bytes, Opinion] = {}  # by what was said of each; until the next record
        self._opinions: dict[bytes, Opinion] = {}  # and of equal ones; as long
        self._equal: dict[tuple[bytes, bytes], dict[Find, list[Record]]] = {}  # doubted, by program and task; as long
        self._refuted: dict[Find, Judged | None] = {}  # as long
        self._flags: dict[bytes, bool] = {}  # as long
        self._tainted = Taints()  # as long
        self._telling: set[bytes] = set()  # results whose re-runs say something of authors
        self._doubted = ledger.index.doubted()
        self._trust.ban(frozenset(ledger.equivocators(-1)))  # -1: all of them
        for result in ledger.index.judged_by(self.own):
            self._judged(result)

    def ban(self, equivocators: frozenset[bytes]) -> bool:
        """Who signed two records for one place, by now; whether that is news."""
        if news := self._trust.ban(equivocators):
            self._forget()
        return news

    def add(self, record: Record) -> None:
        """Take a record into account that came since; the same record twice changes nothing."""
        body = record.body
        if isinstance(body, Verification):
            self._forget()
            self.reruns(body.result)
            self._take(body.result, record)
            if doubts(body):
                self._doubted.add(body.result)
            if record.author == self.own or body.outcome == "fabricated" or body.result in self._telling:
                self._judged(body.result)
        elif body.outcome == "kept":
            self._forget()
            self.lineage.add(record)

    def _forget(self) -> None:
        for found in (self._alone, self._opinions, self._equal, self._refuted, self._flags):
            found.clear()
        self._tainted = Taints()

    def reruns(self, result: bytes) -> list[Record]:
        """The verifications of a result, in the order in which this node learned of them."""
        if result not in self._reruns:
            self._reruns[result] = {}
            for record in self._ledger.index.reruns_of(result):
                self._take(result, record)
        return list(self._reruns[result].values())

    def _take(self, result: bytes, record: Record) -> None:
        self._reruns[result][record.id] = record
        self._verdicts.add(record)

    def _judged(self, result: bytes) -> None:
        """What this node found out itself, and what anybody calls made up, tells whom to believe."""
        self._telling.add(result)
        self.reruns(result)
        self._trust.changed()
        if (author := self._ledger.author(result)) is not None:
            self._trust.claimed(result, author)

    @property
    def quarantined(self) -> frozenset[bytes]:
        """Authors who made results up, or signed two records for one place."""
        return self._trust.quarantined(self._verdicts)

    @property
    def established(self) -> frozenset[bytes]:
        """Authors with a voice: more of their claims held on this home's node than it found them wrong."""
        return self._trust.established(self._verdicts)

    def opinion(self, record: Record) -> Opinion:
        """What re-runs say of a result; what refutes one of equal finds refutes all. What only strangers refute is a
        claim: their slander hides no win. What only they confirm is shown as that, so that a home which runs nothing
        has something to show; what is done with it asks `is_sure`."""
        found = self._said(record)
        if found.state == "refuted" and not (found.settled or self._private):
            return replace(found, state="claimed")
        return found

    def _said(self, record: Record) -> Opinion:
        if record.id not in self._opinions:  # lineages ask for the same ones again and again
            found = self._opinion(record)
            if isinstance(body := record.body, Result) and body.outcome == "kept":
                found = beside_equals(found, body, self._least_refuted(body))
            self._opinions[record.id] = found
        return self._opinions[record.id]

    def _opinion(self, record: Record) -> Opinion:
        if record.id not in self._alone:
            self.reruns(record.id)
            known, gone = self.established, self.quarantined
            self._alone[record.id] = self._verdicts.of(record, self.own, known, gone, members=self._private)
        return self._alone[record.id]

    def _least_refuted(self, body: Result) -> Judged | None:
        find = find_of(body)
        if find not in self._refuted:
            self._refuted[find] = least_refuted([(one, self._opinion(one)) for one in self._doubted_equals(body)])
        return self._refuted[find]

    def _doubted_equals(self, body: Result) -> list[Record]:
        """The finds equal to a kept one, itself among them, that anybody doubts."""
        key = body.program, body.task
        if key not in self._equal:
            equal: dict[Find, list[Record]] = {}
            for one in self.lineage.makers(*key):
                if one.id in self._doubted and isinstance(one.body, Result):
                    equal.setdefault(find_of(one.body), []).append(one)
            self._equal[key] = equal
        return self._equal[key].get(find_of(body), [])

    def is_flagged(self, record: Record) -> bool:
        """Whether a result was built on something that was refuted or made up, and is not confirmed by itself."""
        if record.id not in self._flags:
            sure = self.opinion(record).state == "confirmed"
            self._flags[record.id] = not sure and self.lineage.is_tainted(record, self._is_bad, self._tainted)
        return self._flags[record.id]

    def is_sure(self, record: Record) -> bool:
        """Whether a result is confirmed, and not by strangers alone."""
        found = self.opinion(record)
        return found.state == "confirmed" and (found.settled or self._private)

    def _is_bad(self, record: Record) -> bool:
        if record.author != self.own and record.author in self.quarantined:
            return True
        assert isinstance(record.body, Result)
        if record.id not in self._doubted and not self._doubted_equals(record.body):
            return False  # a way has hundreds of such stations
        self.reruns(record.id)
        if record.author == self.own:  # what this node found holds here, until it finds otherwise
            word = self._verdicts.word(self.own, record.id)
            return word is not None and word.outcome in ("refuted", "fabricated")
        return self.opinion(record).state == "refuted"

    def state(self, record: Record) -> str:
        """`claimed`, `confirmed by 2`, `refuted by NAME`, `holds on cuda-sm90`; nothing of what was not kept."""
        if not isinstance(record.body, Result) or record.body.outcome != "kept":
            return ""
        words = [opinion_text(self._said(record), self._private)]
        words += [FLAGGED] if self.is_flagged(record) else []
        words += ["author quarantined"] if record.author in self.quarantined else []
        return ", ".join(words)


def opinion_text(opinion: Opinion, private: bool) -> str:
    """The state of a claim in words. `private`: whoever says something was invited."""
    words = [opinion.state]
    if opinion.state != "claimed" and not (opinion.settled or private):
        count = len(opinion.refuted if opinion.state == "refuted" else opinion.confirmed)
        who = "strangers" if count != 1 else "stranger"
        words = [f"{opinion.state} by {count} {who}" if count else f"{opinion.state}, strangers say"]
    elif opinion.state == "refuted":
        names = ", ".join(map(nickname, opinion.refuted))
        says = f"fabricated, says {names}" if opinion.fabricated else f"refuted by {names}"
        words = [says if names else "not believed"]
    elif opinion.state == "confirmed":
        words = [f"confirmed by {len(opinion.confirmed)}" if opinion.confirmed else "confirmed here"]
    elif opinion.confirmed and opinion.refuted:
        words = [f"disputed, {len(opinion.confirmed)} : {len(opinion.refuted)}"]
    for where in sorted({one.where for one in opinion.transfers}):
        said = [one for one in opinion.transfers if one.where == where]
        known = [one.outcome for one in said if one.voice]
        outcomes = known or [one.outcome for one in said]
        holds = outcomes.count("confirmed") > outcomes.count("refuted")
        place = ("at twice the width" if where == "wider" else f"on {where}") + ("" if known else ", strangers say")
        words.append(f"holds {place}" if holds else f"does not hold {place}")
    return ", ".join(words)
