"""What this home thinks of results by now: one fold over the ledger, for every command that shows a state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..protocols.names import nickname
from ..protocols.records import Record, Result, Verification
from ..swarm.ledger import Ledger
from ..swarm.lineage import Lineage
from ..swarm.trust import Trust
from ..swarm.verdicts import Opinion, Verdicts

FLAGGED = "built on refuted work"


class Views:
    """Opinions on results, as this home's node has them: of all re-runs, so that past wins show the state that they
    have by now."""

    def __init__(self, ledger: Ledger, records: Iterable[Record] | None = None) -> None:
        """`records`: all that the ledger holds, when they were read already."""
        own = ledger.journal("node").get("author")
        self.own = bytes.fromhex(own) if own else b""
        self.kept: dict[bytes, Record] = {}
        self.lineage = Lineage()
        self._ledger = ledger
        self._verdicts, self._trust = Verdicts(), Trust(self.own)
        self._reruns: dict[bytes, dict[bytes, Record]] = defaultdict(dict)
        self._opinions: dict[bytes, Opinion] = {}  # until the next record
        self._equivocators = frozenset(ledger.equivocators(-1))  # -1: all of them
        for record in ledger.recalled() if records is None else records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take a record into account; the same record twice changes nothing."""
        body = record.body
        self._opinions.clear()
        if isinstance(body, Verification):
            self._reruns[body.result][record.id] = record
            self._verdicts.add(record)
            self._trust.changed()
            if record.author == self.own or body.outcome == "fabricated":
                author = self._ledger.author(body.result)
                if author is not None:
                    self._trust.claimed(body.result, author)
        elif body.outcome == "kept" and record.id not in self.kept:
            self.kept[record.id] = record
            self.lineage.add(record)

    def reruns(self, result: bytes) -> list[Record]:
        """The verifications of a result, in the order in which this node learned of them."""
        return list(self._reruns.get(result, {}).values())

    @property
    def quarantined(self) -> frozenset[bytes]:
        """Authors who made results up, or signed two records for one place."""
        return self._trust.quarantined(self._verdicts) | self._equivocators

    @property
    def established(self) -> frozenset[bytes]:
        """Authors of whose words this home's node found more true than not."""
        return self._trust.established(self._verdicts)

    def opinion(self, record: Record) -> Opinion:
        """What re-runs say of a result."""
        if record.id not in self._opinions:  # lineages ask for the same ones again and again
            established, gone = self.established, self._trust.quarantined(self._verdicts)
            self._opinions[record.id] = self._verdicts.of(record, self.own, established, gone)
        return self._opinions[record.id]

    def is_flagged(self, record: Record) -> bool:
        """Whether a result was built on something that was refuted or made up, and is not confirmed by itself."""
        return self.opinion(record).state != "confirmed" and self.lineage.is_tainted(record, self._is_bad)

    def _is_bad(self, record: Record) -> bool:
        if record.author == self.own:  # what this node found holds here, until it finds otherwise
            word = self._verdicts.word(self.own, record.id)
            return word is not None and word.outcome in ("refuted", "fabricated")
        return record.author in self.quarantined or self.opinion(record).state == "refuted"

    def state(self, record: Record) -> str:
        """`claimed`, `confirmed by 2`, `refuted by NAME`, `holds on cuda-sm90`; nothing of what was not kept."""
        if not isinstance(record.body, Result) or record.body.outcome != "kept":
            return ""
        words = [opinion_text(self.opinion(record))]
        words += [FLAGGED] if self.is_flagged(record) else []
        words += ["author quarantined"] if record.author in self.quarantined else []
        return ", ".join(words)


def opinion_text(opinion: Opinion) -> str:
    """The state of a claim in words."""
    words = [opinion.state]
    if opinion.state == "refuted":
        names = ", ".join(map(nickname, opinion.refuted))
        says = f"fabricated, says {names}" if opinion.fabricated else f"refuted by {names}"
        words = [says if names else "not believed"]
    elif opinion.state == "confirmed":
        words = [f"confirmed by {len(opinion.confirmed)}" if opinion.confirmed else "confirmed here"]
    elif opinion.confirmed and opinion.refuted:
        words = [f"disputed, {len(opinion.confirmed)} : {len(opinion.refuted)}"]
    for where in sorted({one.where for one in opinion.transfers}):
        said = [one.outcome for one in opinion.transfers if one.where == where]
        holds = said.count("confirmed") > said.count("refuted")
        place = "at twice the width" if where == "wider" else f"on {where}"
        words.append(f"holds {place}" if holds else f"does not hold {place}")
    return ", ".join(words)
