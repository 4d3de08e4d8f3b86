"""`feed` and `show`: read the ledger only, so they work while the node runs and after it stopped, and never slow it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from ..protocols.diffs import EDITABLE, make_diff
from ..protocols.errors import SwarmNodeError
from ..protocols.names import nickname
from ..protocols.records import Evidence, Record, Result, Run, Verification, dump
from ..protocols.task import TaskSpec, parse_program
from ..protocols.text import printable
from ..swarm.ledger import Entry, Ledger
from ..swarm.trust import Trust
from ..swarm.verdicts import Opinion, Verdicts
from .format import change, clean, feed_line, interval, track_name

_POLL = 0.5  # seconds; SQLite has no cross-process event, and one PRAGMA costs microseconds
_PAGE = 1000


def follow(ledger: Ledger, since_ms: int, forever: bool) -> Iterator[Entry]:
    """Entries in the order this node learned of them, then new ones as they arrive."""
    row = 0
    while True:
        version = ledger.data_version()  # before reading: what is written meanwhile makes it differ
        page = ledger.entries(after_row=row, limit=_PAGE)
        for entry in page:
            row = entry.row
            if entry.received_ms >= since_ms:
                yield entry
        if len(page) == _PAGE:
            continue
        if not forever:
            return
        while ledger.data_version() == version:
            time.sleep(_POLL)


class Feed:
    """Turns entries into lines, remembering what verifications said so far."""

    def __init__(self, ledger: Ledger, known: dict[bytes, TaskSpec]) -> None:
        self._ledger = ledger
        self._known = known
        self._views = Views(ledger)

    def line(self, record: Record) -> str:
        """The record as one line, with the state it has by now."""
        subject = None
        if isinstance(record.body, Verification):
            self._views.add(record)
            subject = self._ledger.get(record.body.result)
        return feed_line(record, self._views.state(record), subject, self._known)


class Views:
    """What re-runs say of results, as this home's node sees it: all of them, so that past wins show the state that they
    have by now."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        own = ledger.journal("node").get("author")
        self._own = bytes.fromhex(own) if own else b""
        self._verdicts, self._trust = Verdicts(), Trust(self._own)
        for record in ledger.all_records("verification"):
            self.add(record)

    def add(self, record: Record) -> None:
        """Take a verification into account."""
        body = record.body
        assert isinstance(body, Verification)
        self._verdicts.add(record)
        self._trust.changed()
        if (record.author == self._own or body.outcome == "fabricated") and (subject := self._ledger.get(body.result)):
            self._trust.claimed(subject.id, subject.author)

    def state(self, record: Record) -> str:
        """`claimed`, `confirmed by 2`, `refuted by NAME`, `holds on wider`; nothing of what was not kept."""
        if not isinstance(record.body, Result) or record.body.outcome != "kept":
            return ""
        established, gone = self._trust.established(self._verdicts), self._trust.quarantined(self._verdicts)
        return opinion_text(self._verdicts.of(record, self._own, established, gone))


def opinion_text(opinion: Opinion) -> str:
    """The state of a claim in words."""
    words = [opinion.state]
    if opinion.state == "refuted":
        names = ", ".join(map(nickname, opinion.refuted)) or "this node"
        words = [f"fabricated, says {names}" if opinion.fabricated else f"refuted by {names}"]
    elif opinion.state == "confirmed":
        words = [f"confirmed by {len(opinion.confirmed)}" if opinion.confirmed else "confirmed here"]
    elif opinion.confirmed and opinion.refuted:
        words = [f"disputed, {len(opinion.confirmed)} : {len(opinion.refuted)}"]
    for where in sorted({one.where for one in opinion.transfers}):
        said = [one.outcome for one in opinion.transfers if one.where == where]
        holds = said.count("confirmed") > said.count("refuted")
        words.append(f"holds on {where}" if holds else f"does not transfer to {where}")
    return ", ".join(words)


def as_json(record: Record) -> str:
    """The record as one line of JSON; field names are the models', digests and keys are hex."""
    value = {"id": record.id.hex(), "name": nickname(record.author), **_hex(dump(record))}
    return json.dumps(value, ensure_ascii=False)


def _hex(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _hex(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hex(item) for item in value]
    return value


def show(record: Record, ledger: Ledger, known: dict[bytes, TaskSpec]) -> str:
    """One experiment for a reader: what was tried, the evidence run by run, and the diff."""
    body = record.body
    lines = [f"{body.outcome}  {record.id.hex()}"]
    fields = [
        ("by", f"{nickname(record.author)}  epoch {record.epoch} seq {record.seq}"),
        ("when", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time / 1000))),
        ("task", f"{track_name(body.task, known)}  {body.task.hex()}"),
    ]
    spec = known.get(body.task)
    direction = spec.direction if spec else "lower"
    if isinstance(body, Result):
        fields += _result_fields(body, direction)
        fields.append(("state", Views(ledger).state(record) if body.outcome == "kept" else body.outcome))
    else:
        fields += [
            ("about", body.result.hex()),
            ("setting", "both programs at twice the width" if body.setting == "wider" else ""),
            ("cause", body.cause),
            ("evidence", _evidence(body.evidence)),
            ("change", f"{change(body.gain, direction)} {interval(body.evidence, direction)}"),
        ]
    device = body.environment
    fields.append(("machine", f"{device.device}, {device.system}, python {device.python}, {device.library}"))
    cost = body.cost
    tokens = f", {cost.tokens_in} + {cost.tokens_out} tokens, ${cost.dollars:.4f}" if cost.tokens_in else ""
    fields.append(("cost", f"{cost.seconds:.0f} CPU s{tokens}"))
    lines += [f"  {label:<9} {clean(text, 400)}" for label, text in fields if text.strip()]
    lines += ["", *_runs(body.runs)] if body.runs else []
    if isinstance(body, Result):
        lines += ["", *map(_printable, _diff(body, ledger).split("\n"))]
    for step, text in ledger.journal_of(record.id).items():
        if step not in ("plan", "done") and (tail := json.loads(text).get("log_tail") if text[:1] == "{" else ""):
            lines += [f"output of {step}:", *(f"  {_printable(line)}" for line in tail.split("\n")), ""]
    return "\n".join(lines).rstrip("\n")


def _diff(body: Result, ledger: Ledger) -> str:
    """The diff as it travelled, or made here when both programs are: only wins travel with theirs."""
    if body.diff or body.parent is None or body.parent == body.program:
        return body.diff or ""
    sources = [ledger.get_blob(name) for name in (body.parent, body.program)]
    if None in sources:
        return "(the diff of what was not kept stays with its author)"
    try:
        return make_diff(*(parse_program(data)[EDITABLE] for data in sources if data is not None))
    except SwarmNodeError as error:
        return f"({error.what})"


def _printable(line: str) -> str:
    return "\t".join(printable(part, "?") for part in line.split("\t"))


def _result_fields(body: Result, direction: str) -> list[tuple[str, str]]:
    score = "" if body.score is None else f"{body.score:.4f}"
    parent = "" if body.parent_score is None else f"parent {body.parent_score:.4f}"
    noise = "" if body.noise is None else f"noise σ {body.noise:.4f} over seeds"
    return [
        ("title", body.title),
        ("reason", body.reason),
        ("cause", body.cause),
        ("tags", ", ".join(body.tags)),
        ("score", "   ".join(part for part in (score, parent, noise) if part)),
        ("change", f"{change(body.gain, direction)} {interval(body.evidence, direction)}"),
        ("evidence", _evidence(body.evidence)),
        (
            "steps",
            f"{body.steps}" + (f"   one step costs {body.cost_ratio:.3f} of the baseline's" if body.cost_ratio else ""),
        ),
        ("program", body.program.hex()),
        ("parent", body.parent.hex() if body.parent else ""),
        ("proposer", body.proposer),
        ("from", ", ".join(item.hex()[:8] for item in body.inspired_by)),
    ]


def _evidence(evidence: Evidence | None) -> str:
    if evidence is None:
        return ""
    audit = evidence.audit
    text = (
        f"e-value {evidence.e_value:.3g} of {1 / evidence.level:.3g} needed, that the gain is above "
        f"{evidence.required:+.4f}, from {evidence.pairs} pairs"
    )
    return text + (f"; audit: worst gap {audit.worst:+.1e} bits at {audit.positions} positions" if audit else "")


def _runs(runs: tuple[Run, ...]) -> list[str]:
    head = f"  {'arm':<10} {'role':<8} {'slice':<8} {'seed':>11} {'steps':>7} {'score':>9} {'CPU s':>7}  logits"
    rows = [
        f"  {run.arm:<10} {run.role:<8} {clean(run.slice, 8):<8} {run.seed:>11} {run.steps:>7} "
        f"{'-' if run.score is None else f'{run.score:.4f}':>9} {run.seconds:>7.1f}  {run.digest.hex()[:16]}"
        for run in runs
    ]
    return [head, *rows]
