"""Builds what a proposer is told, from records alone, so that `swarm-node prompt` shows exactly the next call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..protocols.diffs import added_text, apply_diff, normal_digest
from ..protocols.errors import DiffRejected
from ..protocols.quoting import without_words
from ..protocols.records import Result
from ..swarm.frontier import Frontier, Win
from ..trainer.decide import Noise
from ..trainer.task import Task
from .format import track_name
from .proposers.base import Idea, Situation, Trial

MAX_IDEAS = 64
MAX_ATTEMPTS = 2  # a win that came to nothing on two own programs is not offered on the third


def build(
    task: Task,
    machine: str,
    frontier: Frontier,
    parent: str,
    noise: Noise | None,
    program: Callable[[bytes], str | None],
    *,
    taken_here: Callable[[bytes], bool] = lambda normal: False,
    taken: Callable[[bytes], bool] = lambda normal: False,
    track: Callable[[bytes], str] = lambda task: track_name(task, {}),
) -> Situation:
    """The situation at this frontier.

    `program`: source text by digest, as far as it is known here. Of a normal digest, `taken_here` says whether it is
    being run by this node, `taken` whether anybody is known to run it. `track`: a task's name, safe to be quoted.
    """

    def tried(source: str) -> bool:
        normal = normal_digest(source)
        return normal in frontier.tried or taken(normal)

    return Situation(
        task=task.spec,
        brief=task.brief,
        machine=machine,
        parent=parent,
        parent_score=noise.mean if noise else frontier.best_score,
        noise=noise.sd if noise else None,
        trials=trials(frontier),
        ideas=ideas(frontier, parent, program, taken_here, track),
        tried=tried,
        words=own_words(task, frontier),
    )


def own_words(task: Task, frontier: Frontier) -> str:
    """The task's program and what this node's own ideas added to it, without the wins of peers that it re-ran."""
    own = (record.body for record in frontier.trials if record.author == frontier.own)
    ideas = (body for body in own if isinstance(body, Result) and body.diff and body.proposer != "offline")
    return "\n".join([task.baseline, *(added_text(body.diff or "") for body in ideas)])


def trials(frontier: Frontier) -> tuple[Trial, ...]:
    """Every finished experiment of this task in the order it became known; peers' without their words."""
    return tuple(
        _trial(record.body, record.author == frontier.own)
        for record in frontier.trials
        if isinstance(record.body, Result) and record.body.outcome != "baseline"
    )


def _trial(result: Result, own: bool) -> Trial:
    proposer, _, edit = result.proposer.partition(":")
    return Trial(
        title=result.title if own else "",
        tags=result.tags,
        outcome=result.outcome,  # type: ignore[arg-type]  # baselines were filtered out
        gain=result.gain,
        own=own,
        edit=edit if proposer == "offline" else "",
        diff=result.diff or "",
        cause=result.cause if own else "",
    )


def ideas(
    frontier: Frontier,
    parent: str,
    program: Callable[[bytes], str | None],
    taken_here: Callable[[bytes], bool],
    track: Callable[[bytes], str],
) -> tuple[Idea, ...]:
    """Wins that the own best does not contain and that were not tried on it: own ones, then peers', newest last.

    A win that was tried for its own sake is not offered again once it was adopted, or failed twice on other programs.
    A win is tried as its diff on the own parent; when that does not apply, as the peer's whole program in its place.
    """
    out: list[Idea] = []
    failures, adopted = _own_attempts(frontier)
    for win in (*frontier.own_wins_aside[-MAX_IDEAS:], *frontier.peer_wins[-MAX_IDEAS:]):
        if win.id in adopted or failures[win.id] >= MAX_ATTEMPTS:
            continue
        source = _applied(win, parent)
        if source is None and win.state != "refuted":
            source = program(win.result.program)
        own = win.record.author == frontier.own
        if source is not None and not own:
            source = without_words(source, parent)
        normal = normal_digest(source) if source is not None else b""
        if normal not in frontier.own_tried and not taken_here(normal):
            out.append(_idea(win, source, "", own))
    for win in frontier.other_task_wins[-MAX_IDEAS:]:
        source = _applied(win, parent)
        source = without_words(source, parent) if source is not None else None
        out.append(_idea(win, source, track(win.result.task), own=False))
    return tuple(out)


def _own_attempts(frontier: Frontier) -> tuple[Counter[bytes], set[bytes]]:
    """How often own experiments that re-ran one win alone came to nothing, and which of them were kept."""
    failures: Counter[bytes] = Counter()
    adopted: set[bytes] = set()
    for record in frontier.trials:
        if record.author == frontier.own and isinstance(record.body, Result) and len(record.body.inspired_by) == 1:
            (win,) = record.body.inspired_by
            if record.body.outcome == "kept":
                adopted.add(win)
            else:
                failures[win] += 1
    return failures, adopted


def _idea(win: Win, source: str | None, other_task: str, own: bool) -> Idea:
    result = win.result
    return Idea(win.id, win.state, result.diff or "", result.gain or 0.0, result.tags, source, other_task, own)


def _applied(win: Win, parent: str) -> str | None:
    if win.state == "refuted" or not win.result.diff:
        return None
    try:
        return apply_diff(parent, win.result.diff, fuzzy=True)
    except DiffRejected:
        return None
