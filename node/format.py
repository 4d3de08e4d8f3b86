"""How records look on one line. Words carry the meaning; text from peers is stripped of control characters."""

from __future__ import annotations

import time
from datetime import timedelta

from ..protocols.names import nickname
from ..protocols.records import Evidence, Record, Result, Verification
from ..protocols.task import TaskSpec
from ..protocols.text import printable

_OUTCOMES = {
    "kept": "KEEP",
    "discarded": "discard",
    "inconclusive": "unclear",
    "crashed": "crash",
    "baseline": "baseline",
}


def clean(text: str, limit: int = 120) -> str:
    """`text` without anything a terminal could obey, cut to `limit` characters."""
    return printable(text, "?")[:limit]


def change(gain: float | None, direction: str) -> str:
    """The change of the metric itself: a gain of 0.58 on a lower-is-better metric shows as −0.5800."""
    if gain is None:
        return ""
    delta = -gain if direction == "lower" else gain
    return f"{delta:+.4f}".replace("-", "−")


def interval(evidence: Evidence | None, direction: str) -> str:
    """`[low, high]`: where the change of the metric lies at 95 %; nothing when too few pairs say so."""
    if evidence is None or evidence.low is None or evidence.high is None:
        return ""
    ends = (-evidence.high, -evidence.low) if direction == "lower" else (evidence.low, evidence.high)
    return "[" + ", ".join(f"{end:+.3f}".replace("-", "−") for end in ends) + "]"


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`02:41`, or `1:02:41` from an hour on."""
    text = str(timedelta(seconds=int(max(0, seconds))))
    return text if seconds >= 3600 else text[2:]


def experiment_line(number: int, result: Result, direction: str, elapsed: float) -> str:
    """One finished experiment as its own node shows it."""
    score = f"{result.score:.4f}" if result.score is not None else "-"
    if result.outcome == "kept" and result.gain_error is not None:
        score += f" ± {result.gain_error:.4f}"
    tail = change(result.gain, direction) if result.outcome == "kept" else ""
    bracket = interval(result.evidence, direction) if result.outcome == "kept" else ""
    because = why(result)
    left = f"#{number:<3} {verdict(result):<8} {score:<17} {clean(result.title, 48):<48}"
    return f"{left} {tail} {bracket}{because}".rstrip() + f"   {duration(elapsed)}"


def screened_line(title: str, score: float, parent: str, elapsed: float) -> str:
    """What one run of an experiment gave, when it takes more seeds of its parent to decide."""
    return f"screened   {score:.4f}  {clean(title, 48)}   parent {parent}, more runs decide   {duration(elapsed)}"


def promoted_line(title: str, gain: float, sd: float, direction: str, elapsed: float) -> str:
    """That one run promised enough. `sd`: of the parent over seeds."""
    promise = f"{change(gain, direction)} ({gain / sd:.1f} σ)" if gain > 0 and sd > 0 else change(gain, direction)
    return f"promoted   {promise}  {clean(title, 48)}   pairs of fresh runs decide   {duration(elapsed)}"


def rerun_line(found: Verification, claim: Record, direction: str, elapsed: float) -> str:
    """One re-run of a claim as its own node shows it."""
    assert isinstance(claim.body, Result)
    wider = " at twice the width" if found.setting == "wider" else ""
    gain = f"{change(found.gain, direction)} {odds(found) or interval(found.evidence, direction)}".strip()
    what = f"{nickname(claim.author)}'s {claim.id.hex()[:8]} {clean(claim.body.title, 40)}{wider}"
    because = f"  ({clean(found.cause, 80)})" if found.cause else ""
    return f"re-run     {found.outcome:<12} {what}   {gain}{because}".rstrip() + f"   {duration(elapsed)}"


def odds(found: Verification) -> str:
    """By what a re-run decides. The two-sided interval is wider than what is asked of it, and may hold zero."""
    if found.evidence is None or found.outcome not in ("confirmed", "refuted"):
        return ""
    value = found.evidence.e_value if found.outcome == "confirmed" else found.evidence.against
    return f"e-value {value:.3g} {'for' if found.outcome == 'confirmed' else 'against'} it"


def why(result: Result) -> str:
    """Why it crashed, or has no score; what was measured speaks for itself."""
    unsaid = result.outcome == "crashed" or result.score is None or result.is_waiting
    return f"({clean(result.cause, 60)})" if unsaid and result.cause else ""


def verdict(result: Result) -> str:
    """What became of an experiment, in a word."""
    if result.is_waiting:
        return "waits"
    return "SIMPLER" if result.outcome == "kept" and result.aim == "simpler" else _OUTCOMES[result.outcome]


def track_name(task: bytes, known: dict[bytes, TaskSpec]) -> str:
    """The task's name where we know it, else the start of its id."""
    spec = known.get(task)
    return f"{spec.name}/{spec.size}" if spec else task.hex()[:8]


def feed_line(record: Record, state: str, subject: Record | None, track: str, direction: str) -> str:
    """One record as the feed shows it.

    `state`: claimed, confirmed by 2, refuted by NAME. `subject`: the record that a verification is about. `track`: the
    task's name.
    """
    clock = time.strftime("%H:%M", time.localtime(record.time / 1000))
    who = nickname(record.author)
    body = record.body
    start = f"{clock} {record.id.hex()[:8]} {who:<14} {track:<15}"
    if isinstance(body, Verification):
        about = ""
        if subject is not None and isinstance(subject.body, Result):
            about = f"{nickname(subject.author)}'s {subject.id.hex()[:8]} {clean(subject.body.title, 48)}"
        return f"{start} {change(body.gain, direction):>8} {body.outcome} {about}".rstrip()
    score = f"{body.score:.4f}" if body.score is not None else "-"
    if body.outcome == "baseline" and body.noise is not None:
        score += f" ±{body.noise:.4f}"
    gain = change(body.gain, direction)
    if body.outcome == "kept" and body.gain_error is not None:
        gain += f" ±{body.gain_error:.4f}"
    end = state if body.outcome == "kept" else f"{body.outcome} {why(body)}"
    return f"{start} {gain:>16} {score:<15} {clean(body.title, 56):<56} {end}".rstrip()
