"""`swarm-node replay`: run a recorded experiment again and say whether this machine agrees.

First the record's own run: same program, seed, steps and text. An equal environment must give the same logits bit for
bit; another one the same first losses, within what arithmetic in another order does to them. Then, where the machine
differs and something was kept, the fresh pairs of runs by which peers verify it, under the same rules.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..protocols.errors import ReplayDisagreed, UsageError
from ..protocols.records import Environment, Record, Result, Run
from ..protocols.task import TaskSpec
from ..swarm.frontier import Frontier
from ..swarm.ledger import Ledger
from ..trainer import decide
from ..trainer.corpus import Corpus, prepare
from ..trainer.hardware import detect
from ..trainer.task import Task
from ..trainer.types import RunResult
from .app import environment
from .bench import Bench, opened
from .format import change, clean
from .home import Home
from .laboratory import Laboratory
from .noise import NoiseBook
from .programs import Programs
from .queue import Job
from .screen import Screen
from .tasks import corpus_of, known_tasks, load_known, own_folders
from .trace import compare, repeated, reported, unsupported
from .verifier import PROBE, Rerun

WALL_S = 3600.0


@dataclass(frozen=True)
class Subject:
    """What is replayed."""

    body: Result
    run: Run
    source: str
    beaten: str | None  # the program that it claims to beat; None: not here
    before: str | None  # its parent; another one where it claims to be simpler


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
    verdict: str = ""  # of fresh pairs: confirmed, inconclusive, refuted or fabricated
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
        before = NoiseBook(ledger, task.spec.id).results(task.spec.baseline)
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
                spec = repeated(task, subject.source, subject.run, WALL_S, PROBE)
                again = await bench.run(spec, "the recorded run")
                _compare(subject, again, here, task.spec, screen, found)
                if not same and subject.body.outcome == "kept":
                    with Ledger.open(Path(scratch) / "ledger.sqlite3") as past:
                        lab = _laboratory(task, text, bench, past, here)
                        for seed, run in before.items():
                            lab.noise.put(task.spec.baseline, seed, run)
                        await _fresh_pairs(lab, record, subject, again, screen, found)
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
    beaten, before = (
        programs.get(one) if one is not None else None for one in (body.anchor or body.parent, body.parent)
    )
    return Subject(body, run, source, beaten, before)


def _laboratory(task: Task, text: Corpus, bench: Bench, ledger: Ledger, here: Environment) -> Laboratory:
    """This machine without a past: budgets, seeds and text are new."""
    frontier = Frontier(secrets.token_bytes(32), task.spec.id, task.spec.baseline)
    held = text.held["confirm"].stat().st_size
    return Laboratory(task, bench, ledger, frontier, Programs(ledger, task.baseline), here, WALL_S, held)


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


async def _fresh_pairs(
    lab: Laboratory, record: Record, subject: Subject, again: RunResult, screen: Screen, found: Found
) -> None:
    """The re-run that a peer's node would make: fresh pairs until there is a verdict."""
    spec = lab.task.spec
    if subject.beaten is None or subject.before is None:
        screen.say("  pairs      not run: what it claims to beat is not here")
        return
    await lab.measure_noise(lab.baseline, decide.PROMOTE_AFTER)

    def tell(gains: Sequence[float]) -> None:
        anew = "   again, with other steps: its runs cost otherwise" if len(gains) <= len(found.gains) else ""
        found.gains = list(gains)
        screen.say(f"  pair {len(gains):<5} {change(gains[-1], spec.direction)}{anew}")

    job = Job(lab.frontier.win(record, subject.body), "same")
    work = Rerun(lab, job, subject.source, subject.beaten, tell)
    work.slope = lab.slope(again)
    if subject.body.aim == "simpler":
        work.simpler_than(subject.before)
    said = await work.pairs()
    found.verdict, told = said.outcome, said.cause
    if said.evidence is not None and said.gain is not None:
        found.e_value = said.evidence.e_value
        measured = f"{change(said.gain, spec.direction)} over {said.evidence.pairs} pairs"
        values = f"e-value {found.e_value:.3g} for it, {said.evidence.against:.3g} against"
        told = "; ".join(filter(None, (measured, values, said.cause)))
    if said.outcome == "refuted":
        gain = "less than half of the gain is there" if subject.body.aim == "gain" else "it loses too much"
        raise ReplayDisagreed(gain, why=told)
    if said.outcome == "fabricated":
        raise ReplayDisagreed("it is not what it says", why=told)
    screen.say(f"  verdict    {said.outcome} here: {told}")


def _log(run: RunResult) -> str:
    return f"its last output:\n{run.log_tail}" if run.log_tail else ""
