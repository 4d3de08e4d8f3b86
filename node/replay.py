"""`swarm-node replay`: run a recorded experiment again and say whether this machine agrees.

First the record's own run: same program, seed, steps and text. An equal environment must give the same logits bit for
bit; another one the same first losses, within what arithmetic in another order does to them. Then, where the machine
differs and a gain is claimed, fresh pairs of runs with this machine's own number of steps.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..protocols.errors import ReplayDisagreed, UsageError
from ..protocols.records import Environment, Record, Result, Run
from ..protocols.task import TaskSpec
from ..swarm.ledger import Ledger
from ..trainer import decide
from ..trainer.corpus import prepare
from ..trainer.hardware import detect
from ..trainer.task import Task
from ..trainer.types import CostRatio, RunResult, RunSpec
from .app import environment
from .bench import Bench, opened
from .format import change, clean
from .home import Home
from .programs import Programs
from .screen import Screen
from .tasks import corpus_of, known_tasks, load_known, own_folders
from .trace import compare, repeated, reported, unsupported

LEVEL = decide.ALPHA  # one hypothesis, chosen by a person
WALL_S = 3600.0


@dataclass(frozen=True)
class Subject:
    """What is replayed."""

    body: Result
    run: Run
    source: str
    parent: str | None


@dataclass
class Found:
    """What came out, for programs."""

    id: bytes
    same_machine: bool
    agrees: bool = True
    recorded: float | None = None  # scores of the recorded run, there and here
    here: float | None = None
    trace: str = ""  # what was compared: logits or losses
    gains: list[float] = field(default_factory=list)  # of fresh pairs
    e_value: float | None = None
    verdict: str = ""  # of fresh pairs: confirmed, inconclusive or refuted
    problem: str = ""


async def replay(
    home: Home, prefix: str, corpus: Path | None, screen: Screen, tell: Callable[[dict[str, Any]], None] | None = None
) -> int:
    """Print how the record starting with `prefix` fares here; ReplayDisagreed when this machine contradicts it.

    `tell`: gets what came out, in either case."""
    with Ledger.open(home.ledger, read_only=True) as ledger:
        record = ledger.find(prefix)
        if not isinstance(record.body, Result):
            raise UsageError("a verification is not replayed", fix=f"swarm-node replay {record.body.result.hex()[:8]}")
        known, own = known_tasks(ledger), own_folders(ledger)
        if corpus is None and (spec := known.get(record.body.task)) is not None:
            corpus = corpus_of(spec.name, own)
        text = await asyncio.to_thread(prepare, home.corpora, corpus)
        task = load_known(known, record.body.task, bytes.fromhex(text.digest), own)
        subject = _subject(record, ledger, task)
    here = environment(detect())
    found = Found(record.id, here == subject.body.environment)
    screen.item("record", f"{record.id.hex()[:8]}  {subject.body.outcome}  {clean(subject.body.title, 60)}")
    there = subject.body.environment
    same = here == there
    like = "   (as this machine)" if same else ""
    screen.item("made on", f"{there.device}, {there.system}, python {there.python}, {there.library}{like}")
    try:
        with tempfile.TemporaryDirectory(prefix="replay-", dir=home.data) as scratch:
            async with screen.ticking(), opened(text, Path(scratch) / "runs", 1, screen) as bench:
                again = await bench.run(repeated(task, subject.source, subject.run, WALL_S), "the recorded run")
                _compare(subject, again, here, task.spec, screen, found)
                if not same and subject.body.outcome == "kept" and subject.parent is not None:
                    await _fresh_pairs(task, subject, subject.parent, bench, screen, found)
    except ReplayDisagreed as error:
        found.agrees, found.problem = False, " ".join(filter(None, (error.what, error.why)))
        raise
    finally:
        if tell is not None and (found.trace or found.problem):
            tell(asdict(found))
    return 0


def _subject(record: Record, ledger: Ledger, task: Task) -> Subject:
    body = record.body
    assert isinstance(body, Result)
    run = reported(body)
    if run is None:
        raise UsageError("there is nothing to replay", why=f"no run of it finished: it {body.outcome}")
    programs = Programs(ledger, task.baseline, read_only=True)
    source = programs.made_anew(record)
    parent = programs.get(body.parent) if body.parent is not None else None
    return Subject(body, run, source, parent)


def _compare(
    subject: Subject, again: RunResult, here: Environment, spec: TaskSpec, screen: Screen, found: Found
) -> None:
    """Say what became of the recorded run; ReplayDisagreed when it cannot have been this program."""
    there = subject.run
    if again.status != "ok":
        raise ReplayDisagreed("the recorded run does not finish here", why=again.reason, fix=_log(again))
    score = again.scores[there.slice]
    found.recorded, found.here = there.score, score
    screen.say(f"  run        recorded {there.score:.6f}, here {score:.6f}   ({there.steps} steps, seed {there.seed})")
    trace = compare(there, again, subject.body.environment, here)
    if trace.kind == "differs":
        same = subject.body.environment == here
        fix = "replay again; if it stays so, the record is not what it says" if same else ""
        raise ReplayDisagreed(trace.what, why=trace.why, fix=fix)
    found.trace = trace.what
    screen.say(f"  {'logits' if trace.kind == 'same' else 'losses':<10} {trace.what}")
    if subject.body.outcome == "kept" and (cause := unsupported(subject.body, spec)):
        raise ReplayDisagreed("the record contradicts itself", why=cause)


async def _fresh_pairs(task: Task, subject: Subject, parent: str, bench: Bench, screen: Screen, found: Found) -> None:
    """Paired runs on fresh seeds and text with this machine's own N, until there is a verdict."""
    budgets: list[CostRatio] = []
    for source, label in ((subject.source, "the candidate"), (parent, "its parent")):
        cost = await bench.cost_ratio(task.baseline, source, task.spec.steps, label)
        if isinstance(cost, RunResult):
            raise ReplayDisagreed(f"{label} does not run here", why=cost.reason, fix=_log(cost))
        budgets.append(cost)
    noise = decide.Noise(subject.body.parent_score or 0.0, subject.body.noise or 0.0, decide.PROMOTE_AFTER)
    gains = found.gains
    verdict: decide.Verdict | None = None
    while verdict is None:
        part = task.drawn(secrets.randbits(48))
        scores: list[float] = []
        for source, cost in zip((subject.source, parent), budgets, strict=True):
            steps = decide.steps_for(task.spec.steps, cost.ratio)
            run = await bench.run(
                RunSpec(source, secrets.randbits(31), steps, (part,), wall_s=WALL_S), f"fresh pair {len(gains) + 1}"
            )
            if run.status != "ok":
                raise ReplayDisagreed("a fresh run fails here", why=run.reason, fix=_log(run))
            scores.append(run.scores["confirm"])
        gains.append(task.spec.better_by(scores[0], scores[1]))
        screen.say(f"  pair {len(gains):<5} {change(gains[-1], task.spec.direction)}")
        verdict = decide.look(gains, task.worthwhile, LEVEL, noise)
    found.e_value = verdict.e_value
    told = f"{change(verdict.gain, task.spec.direction)} over {len(gains)} pairs, e-value {verdict.e_value:.3g}"
    if verdict.outcome == "won":
        found.verdict = "confirmed"
        screen.say(f"  verdict    confirmed here: {told}")
    elif verdict.high < task.worthwhile:
        found.verdict = "refuted"
        raise ReplayDisagreed("there is no gain here", why=told)
    else:
        found.verdict = "inconclusive"
        screen.say(f"  verdict    inconclusive here: {told}")


def _log(run: RunResult) -> str:
    return f"its last output:\n{run.log_tail}" if run.log_tail else ""
