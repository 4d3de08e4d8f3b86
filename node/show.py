"""`show`: one record with its evidence, its diff and its lineage, read from the ledger alone."""

from __future__ import annotations

import json
import time

from ..protocols.diffs import make_diff
from ..protocols.errors import SwarmNodeError
from ..protocols.names import nickname
from ..protocols.records import Evidence, Record, Result, Run, Verification
from ..protocols.task import TaskSpec
from ..protocols.text import printable
from ..swarm.ledger import Ledger
from .format import change, clean, interval, track_name
from .programs import source_in
from .views import Views

_LISTED = 8  # of ancestors, re-runs and adopters each
_WIDER = "at twice the width"


def show(record: Record, ledger: Ledger, known: dict[bytes, TaskSpec]) -> str:
    """One experiment for a reader: what was tried, what became of it, the evidence run by run, and the diff."""
    body = record.body
    lines = [f"{body.outcome}  {record.id.hex()}"]
    fields = [
        ("by", f"{nickname(record.author)}  epoch {record.epoch} seq {record.seq}"),
        ("when", _moment(record.time, "%Y-%m-%d %H:%M:%S")),
        ("task", f"{track_name(body.task, known)}  {body.task.hex()}"),
    ]
    spec = known.get(body.task)
    direction = spec.direction if spec else "lower"
    if isinstance(body, Result):
        fields += _result_fields(body, direction)
        fields += _lineage_fields(record, Views(ledger), direction)
    else:
        fields += [
            ("about", body.result.hex()),
            ("setting", f"both programs {_WIDER}" if body.setting == "wider" else ""),
            ("cause", body.cause),
            ("evidence", _evidence(body.evidence)),
            ("change", f"{change(body.gain, direction)} {interval(body.evidence, direction)}"),
        ]
    device = body.environment
    fields.append(("machine", f"{device.device}, {device.system}, python {device.python}, {device.library}"))
    cost = body.cost
    tokens = f", {cost.tokens_in} + {cost.tokens_out} tokens, ${cost.dollars:.4f}" if cost.tokens_in else ""
    fields.append(("cost", f"{cost.seconds:.0f} CPU s{tokens}"))
    lines += [f"  {label:<11} {clean(text, 400)}" for label, text in fields if text.strip()]
    lines += ["", *_runs(body.runs)] if body.runs else []
    if isinstance(body, Result):
        lines += ["", *map(_printable, diff_text(body, ledger).split("\n"))]
    for step, text in ledger.journal_of(record.id).items():
        if step not in ("plan", "done") and (tail := json.loads(text).get("log_tail") if text[:1] == "{" else ""):
            lines += [f"output of {step}:", *(f"  {_printable(line)}" for line in tail.split("\n")), ""]
    return "\n".join(lines).rstrip("\n")


def diff_text(body: Result, ledger: Ledger) -> str:
    """The diff as it travelled, or made here when both programs are: what was discarded travels without."""
    if body.diff or body.parent is None or body.parent == body.program:
        return body.diff or ""
    blobs = [ledger.get_blob(name) for name in (body.parent, body.program)]
    sources = [source for data in blobs if data is not None and (source := source_in(data)) is not None]
    if len(sources) < 2:
        return "(the diff of what was not kept stays with its author)"
    try:
        return make_diff(*sources)
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
        ("inspired by", ", ".join(item.hex()[:8] for item in body.inspired_by)),
    ]


def _lineage_fields(record: Record, views: Views, direction: str) -> list[tuple[str, str]]:
    """Where a result stands between those before and after it: what it was built on, who re-ran it, who adopted it."""
    body = record.body
    assert isinstance(body, Result)
    fields = [("state", views.state(record) or body.outcome)]
    before = views.lineage.ancestors(record)
    fields += _labelled("built on", [_named(one, views) for one in before[:_LISTED]], len(before))
    reruns = views.reruns(record.id)
    fields += _labelled("re-run by", [_rerun(one, direction) for one in reruns[-_LISTED:]], len(reruns))
    adopters = views.lineage.adopters(record) if body.outcome == "kept" else []
    told = [f"{nickname(author)}   {_moment(at)}" for author, at in adopters[:_LISTED]]
    return fields + _labelled("adopted by", told, len(adopters))


def _labelled(label: str, texts: list[str], total: int) -> list[tuple[str, str]]:
    more = [f"and {total - len(texts)} more"] if total > len(texts) else []
    return [("" if number else label, text) for number, text in enumerate([*texts, *more])]


def _named(record: Record, views: Views) -> str:
    assert isinstance(record.body, Result)
    return f"{record.id.hex()[:8]} {nickname(record.author)}   {clean(record.body.title, 56)}   {views.state(record)}"


def _rerun(record: Record, direction: str) -> str:
    body = record.body
    assert isinstance(body, Verification)
    where = _WIDER if body.setting == "wider" else f"on {body.environment.hardware}"
    found = body.evidence
    bet = "" if found is None else f"e-value {found.e_value:.3g} for, {found.against:.3g} against   "
    said = " ".join(filter(None, (nickname(record.author), body.outcome, change(body.gain, direction), where)))
    return f"{said}   {bet}{_moment(record.time)}"


def _moment(milliseconds: int, layout: str = "%Y-%m-%d %H:%M") -> str:
    """An author's clock, which may say anything."""
    try:
        return time.strftime(layout, time.localtime(milliseconds / 1000))
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"


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
