"""One record in full, for its page: what was tried, what came out, and where it stands among others."""

from __future__ import annotations

import json
import re
from typing import Any

from ...protocols.names import nickname
from ...protocols.records import Evidence, Record, Result, Run, Verification
from ...protocols.text import printable
from ..format import change, clean, interval, track_name
from ..show import diff_text
from .picture import Picture, Track, track_key

_LISTED = 20  # of ancestors, re-runs and adopters each
_CURVES, _CURVE_POINTS = 26, 160
_HUNK = re.compile(r"@@ -(\d{1,7})(?:,\d{1,7})? \+(\d{1,7})(?:,\d{1,7})? @@")


def page(record: Record, picture: Picture) -> dict[str, Any]:
    """The record as its page shows it; text from others without what hides or reorders."""
    body = record.body
    direction = picture.direction(body.task)
    told: dict[str, Any] = {
        "id": record.id.hex(),
        "name": nickname(record.author),
        "author": record.author.hex(),
        "own": record.author == picture.views.own,
        "place": f"epoch {record.epoch}, number {record.seq}",
        "when": record.time,
        "task": f"{track_name(body.task, picture.known)} on {clean(body.environment.hardware, 32)}",
        "track": track_key(Track(body.task, body.environment.hardware)),
        "outcome": body.outcome,
        "cause": clean(body.cause, 400),
        "change": change(body.gain, direction),
        "interval": interval(body.evidence, direction),
        "evidence": _evidence(body.evidence, direction),
        "runs": [_run(run) for run in body.runs],
        "machine": _machine(record),
        "cost": _cost(record),
    }
    return told | (_result(record, picture) if isinstance(body, Result) else _verification(record, picture))


def _result(record: Record, picture: Picture) -> dict[str, Any]:
    body = record.body
    assert isinstance(body, Result)
    views = picture.views
    journal = picture.ledger.journal_of(record.id)
    diff = diff_text(body, picture.ledger)
    ancestors, reruns = views.lineage.ancestors(record), views.reruns(record.id)
    found = (picture.kept.get(name) or picture.ledger.recall(name) for name in body.inspired_by)
    inspired = [one for one in found if one is not None and isinstance(one.body, Result)]  # of a group, what promised
    adopters = views.lineage.adopters(record) if body.outcome == "kept" else []
    return {
        "kind": "result",
        "title": clean(body.title),
        "reason": clean(body.reason, 400),
        "aim": body.aim,
        "state": picture.state(record),
        "verdict": picture.verdict(record),
        "score": body.score,
        "parent_score": body.parent_score,
        "noise": body.noise,
        "steps": body.steps,
        "cost_ratio": body.cost_ratio,
        "tags": list(body.tags),
        "proposer": clean(body.proposer, 64),
        "program": body.program.hex(),
        "parent": body.parent.hex() if body.parent is not None else "",
        "diff": side_by_side(diff),
        "built_on": [_named(one, picture) for one in ancestors[:_LISTED]],
        "built_on_total": len(ancestors),
        "inspired_by": [_named(one, picture) for one in inspired],
        "adopted_by": [{"name": nickname(author), "when": when} for author, when in adopters[:_LISTED]],
        "adopted_by_total": len(adopters),
        "reruns": [_rerun(one, picture) for one in reruns[-_LISTED:]],
        "reruns_total": len(reruns),
        "curves": _curves(journal),
        "output": _output(journal),
    }


def _verification(record: Record, picture: Picture) -> dict[str, Any]:
    body = record.body
    assert isinstance(body, Verification)
    subject = picture.kept.get(body.result)
    return {
        "kind": "verification",
        "wider": body.setting == "wider",
        "about": _named(subject, picture) if subject is not None else None,
        "about_id": body.result.hex(),
    }


def _named(record: Record, picture: Picture) -> dict[str, Any]:
    body = record.body
    assert isinstance(body, Result)
    return {
        "id": record.id.hex(), "name": nickname(record.author), "title": clean(body.title),
        "change": change(body.gain, picture.direction(body.task)), "state": picture.state(record),
    }  # fmt: skip


def _rerun(record: Record, picture: Picture) -> dict[str, Any]:
    body = record.body
    assert isinstance(body, Verification)
    found, direction = body.evidence, picture.direction(body.task)
    where = "at twice the width" if body.setting == "wider" else f"on {clean(body.environment.hardware, 32)}"
    return {
        "id": record.id.hex(),
        "name": nickname(record.author),
        "outcome": body.outcome,
        "where": where,
        "change": change(body.gain, direction),
        "interval": interval(found, direction),
        "bets": f"{found.e_value:.3g} for, {found.against:.3g} against" if found is not None else "",
        "pairs": found.pairs if found is not None else None,
        "when": record.time,
    }


def _evidence(found: Evidence | None, direction: str) -> list[str]:
    """What decided, in sentences."""
    if found is None:
        return []
    pairs = "1 pair" if found.pairs == 1 else f"{found.pairs} pairs"
    told = [f"Program and parent were trained side by side in {pairs} of fresh runs, each pair on text of its own."]
    if span := interval(found, direction):
        told.append(f"The change lies in {span} with 95 % confidence, however often one looked.")
    told.append(
        f"The evidence (an e-value) that the gain is more than {found.required:.4f} came to {found.e_value:.3g}; "
        f"{1 / found.level:.3g} was needed. The evidence against its being worthwhile came to {found.against:.3g}."
    )
    if (audit := found.audit) is not None:
        told.append(
            f"Audit: trained again in a fresh sandbox and asked for {audit.positions} single bytes without the text "
            f"behind them, it answered within {abs(audit.worst):.1e} bits of what it had said."
        )
    return told


def _run(run: Run) -> list[Any]:
    return [
        run.arm, run.role, clean(run.slice, 16), run.seed, run.steps, run.score, round(run.seconds, 1),
        run.digest.hex()[:16],
    ]  # fmt: skip


def _machine(record: Record) -> str:
    where = record.body.environment
    return clean(f"{where.device}, {where.system}, python {where.python}, {where.library}", 400)


def _cost(record: Record) -> str:
    cost = record.body.cost
    tokens = f", {cost.tokens_in} + {cost.tokens_out} tokens, ${cost.dollars:.4f}" if cost.tokens_in else ""
    return f"{cost.seconds:.0f} CPU s{tokens}"


def side_by_side(diff: str) -> list[list[Any]]:
    """The rows of a unified diff: [kind, left number, left text, right number, right text]; kind is ` `, `~` (changed),
    `-`, `+` or `@` (a gap, or a line that is no diff)."""
    rows: list[list[Any]] = []
    left = right = 0
    olds, news = list[tuple[int, str]](), list[tuple[int, str]]()

    def pair() -> None:
        for index in range(max(len(olds), len(news))):
            old = olds[index] if index < len(olds) else (None, "")
            new = news[index] if index < len(news) else (None, "")
            kind = "~" if old[0] is not None and new[0] is not None else "-" if new[0] is None else "+"
            rows.append([kind, *old, *new])
        olds.clear()
        news.clear()

    inside = False
    for line in diff.split("\n"):
        text = "\t".join(printable(part, "?") for part in line[1:].split("\t"))
        if (hunk := _HUNK.match(line)) is not None:
            pair()
            left, right, inside = int(hunk[1]), int(hunk[2]), True
            rows.append(["@", None, f"line {left}", None, ""])
        elif not inside and line.startswith(("--- ", "+++ ")):
            continue
        elif line.startswith("-"):
            olds.append((left, text))
            left += 1
        elif line.startswith("+"):
            news.append((right, text))
            right += 1
        elif line.startswith(" ") or (inside and not line):
            pair()
            if line:
                rows.append([" ", left, text, right, text])
                left, right = left + 1, right + 1
        elif line:
            pair()
            rows.append(["@", None, clean(line, 400), None, ""])
    pair()
    return rows


def _journaled(journal: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The runs among the finished steps of an experiment."""
    found: dict[str, dict[str, Any]] = {}
    for step, text in journal.items():
        if step not in ("plan", "done") and text.startswith("{"):
            value = json.loads(text)
            if "loss_curve" in value:
                found[step] = value
    return found


def _curves(journal: dict[str, str]) -> list[dict[str, Any]]:
    """The losses that own runs reported while they trained, as the program said them."""
    curves: list[dict[str, Any]] = []
    for step, run in list(_journaled(journal).items())[:_CURVES]:
        points = [[int(at), float(loss)] for at, loss in run["loss_curve"] if loss == loss and abs(loss) < 1e6]
        every = -(-len(points) // _CURVE_POINTS) or 1
        if len(points) > 1:
            curves.append({"name": clean(step, 32), "points": points[::every]})
    return curves


def _output(journal: dict[str, str]) -> list[dict[str, str]]:
    """The last lines that own runs printed, of those that failed."""
    tails = [(step, run) for step, run in _journaled(journal).items() if run.get("log_tail") and run["status"] != "ok"]
    return [
        {"name": clean(step, 32), "text": "\n".join(printable(line, "?") for line in run["log_tail"].split("\n"))}
        for step, run in tails[:4]
    ]
