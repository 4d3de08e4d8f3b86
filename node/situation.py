"""Builds what a proposer is told, from records alone, so that `swarm-node prompt` shows exactly the next call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from ..protocols.diffs import added_text, normal_digest
from ..protocols.records import Record, Result
from ..swarm.frontier import Frontier
from ..trainer.decide import Noise
from ..trainer.task import Task
from .format import track_name
from .ideas import Place, ideas
from .noise import run_from_json
from .proposers.base import Situation, Trial
from .proposers.constants import Moves, decode, moves
from .proposers.sweep import Sweep
from .stagnation import Course

MAX_CURVES = 20  # own newest experiments whose curves are told
MAX_OF_STRANGER = 100  # newest experiments of one author of whom nothing was found true here
MAX_MOVES = 200  # newest experiments that are looked at for constants that they set


def build(
    task: Task,
    machine: str,
    frontier: Frontier,
    parent: str,
    noise: Noise | None,
    program: Callable[[bytes], str | None],
    *,
    hardware: str = "cpu",
    course: Course | None = None,
    journal: Callable[[bytes], dict[str, str]] = lambda record: {},
    taken_here: Callable[[bytes], bool] = lambda normal: False,
    taken: Callable[[bytes], bool] = lambda normal: False,
    track: Callable[[bytes], str] = lambda task: track_name(task, {}),
    avoided: Callable[[bytes], None] = lambda normal: None,
) -> Situation:
    """The situation at this frontier, for edits of `parent`: the own best, or the branch of the course.

    `program`: source text by digest, as far as it is known here. `journal`: the finished steps of the own experiment
    that became a record. Of a normal digest, `taken_here` says whether it is being run by this node, `taken` whether
    anybody is known to run it. `track`: a task's name, safe to be quoted. `avoided` is told the normal digest of each
    edit that is passed over because a peer tried it or is trying it.
    """
    course = course or Course()
    score = noise.mean if noise else course.branch.score if course.branch else frontier.best_score
    place = Place(parent, score, noise.sd if noise else None, course.mode)

    def tried(source: str) -> bool:
        normal = normal_digest(source)
        if normal in frontier.own_tried or taken_here(normal):
            return True
        if frontier.is_tried(normal) or taken(normal):
            avoided(normal)
            return True
        return False

    return Situation(
        task=task.spec,
        brief=task.brief,
        machine=machine,
        parent=parent,
        parent_score=score,
        noise=place.sigma,
        trials=trials(frontier, program, journal),
        ideas=ideas(task.spec, frontier, place, program, taken_here, track),
        tried=tried,
        words=own_words(task, frontier),
        hardware=hardware,
        mode=course.mode,
        stalled=course.stalled,
    )


def own_words(task: Task, frontier: Frontier) -> str:
    """The task's program and what this node's own model added to it. What the built-in proposer added may be a peer's,
    re-run, or a line of a peer's with another number in it."""
    own = (record.body for record in frontier.trials if record.author == frontier.own)
    ideas = (body for body in own if isinstance(body, Result) and body.diff and body.proposer == "llm")
    return "\n".join([task.baseline, *(added_text(body.diff or "") for body in ideas)])


def trials(
    frontier: Frontier, program: Callable[[bytes], str | None], journal: Callable[[bytes], dict[str, str]]
) -> tuple[Trial, ...]:
    """Every finished experiment of this task in the order it became known; peers' without their words."""
    finished = _heeded(frontier)
    told = {record.id for record, _ in [one for one in finished if one[0].author == frontier.own][-MAX_CURVES:]}
    first = len(finished) - MAX_MOVES
    return tuple(
        replace(
            _trial(result, record.author == frontier.own),
            curve=_curve(journal(record.id)) if record.id in told else None,
            moved=_moved(result, program) if number >= first else (),
        )
        for number, (record, result) in enumerate(finished)
    )


def _heeded(frontier: Frontier) -> list[tuple[Record, Result]]:
    """The finished experiments, of a stranger the newest only, so that no identity outweighs everybody else's work;
    none of those in quarantine."""
    gone, seen = frontier.quarantined, Counter[bytes]()
    out: list[tuple[Record, Result]] = []
    for record in reversed(list(frontier.trials)):
        if not isinstance(record.body, Result) or record.body.outcome == "baseline" or record.author in gone:
            continue
        strange = record.author != frontier.own and not frontier.is_known(record.author)
        seen[record.author] += strange
        if seen[record.author] <= MAX_OF_STRANGER:
            out.append((record, record.body))
    return out[::-1]


def _trial(result: Result, own: bool) -> Trial:
    proposer, _, edit = result.proposer.partition(":")
    return Trial(
        title=result.title if own else "",
        tags=result.tags,
        outcome=result.outcome,  # type: ignore[arg-type]  # baselines were filtered out
        gain=result.gain,
        own=own,
        edit=edit if proposer == "offline" else "",
        cause=result.cause if own else "",
        again=bool(result.inspired_by) and proposer != "llm",  # a model's experiment names all that it was shown
    )


def _moved(result: Result, program: Callable[[bytes], str | None]) -> Moves:
    """The constants that an experiment set, if that is all it did: as its proposer names them, else by its texts."""
    proposer, _, edit = result.proposer.partition(":")
    if proposer == Sweep.name:
        return decode(edit)
    after = program(result.program)
    before = program(result.parent) if after is not None and result.parent is not None else None
    return moves(before, after) if before is not None and after is not None else ()


def _curve(steps: dict[str, str]) -> tuple[float, float] | None:
    """The probe score of the screening run when it was half done, and its score at the end."""
    text = steps.get("screen-again", steps.get("screen"))
    run = run_from_json(text) if text is not None else None
    if run is None or run.probe is None:
        return None
    end = run.scores.get("probe", run.scores.get("screen"))
    return (run.probe, end) if end is not None else None
