"""Situations for proposers, a laboratory in which a run takes half a second, and the command line."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from swarm_node.node import cli
from swarm_node.node.bench import Bench
from swarm_node.node.experiment import Experiment, Plan, Stage
from swarm_node.node.laboratory import Budget, Laboratory
from swarm_node.node.programs import Programs
from swarm_node.node.proposers.base import Hypothesis, Situation
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.records import Environment, Evidence, Record, Result, Run
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.frontier import fold
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import decide, evidence
from swarm_node.trainer import task as tasks
from swarm_node.trainer.corpus import Corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.task import Task
from swarm_node.trainer.types import CostRatio, OnProgress, RunResult, RunSpec

sys.path.insert(0, str(Path(__file__).parent.parent))  # fake_openai.py

KEY, PEER = b"k" * 32, b"p" * 32
STEPS = (
    "10"  # of the real baseline, which then scores 6.3 ± 0.2 bits per byte; three times its learning rate scores 4.2
)
SIZES = {"probe": 2200, "screen": 2200, "confirm": 64 << 10, "audit": 2200}
DRAWN = 4 << 10  # bytes of a pair's text, in 32 windows
# CPU time of the baseline's runs over their mean: 3, 24 and 142 % are tolerated in others' then.
CALM, WINDY, STORMY = (1.0,) * 5, (0.9, 0.95, 1.0, 1.05, 1.1), (0.4, 0.7, 1.0, 1.3, 1.6)
ENVIRONMENT = Environment(hardware="cpu", device="d", system="s", python="3", library="t")


@pytest.fixture
def situation() -> Callable[..., Situation]:
    """Builds a situation on the real baseline; any field can be given."""
    task = tasks.load("gpt-cpu", "short", bytes(32))

    def make(**fields: Any) -> Situation:
        base: dict[str, Any] = {
            "task": task.spec, "brief": task.brief, "machine": "8 cores", "parent": task.baseline, "parent_score": 3.2,
            "noise": 0.01, "trials": (), "ideas": (), "tried": lambda source: False, "words": task.baseline,
        }  # fmt: skip
        return Situation(**(base | fields))

    return make


def promoted(task: Task, outcome: str, program: bytes, parent: bytes, **fields: Any) -> Result:
    """What a log says of an earlier experiment that was confirmed in pairs."""
    run = Run(arm="candidate", role="confirm", slice="confirm", seed=1, steps=1, score=4.0, seconds=1.0, digest=b"")
    kept = {"diff": "--- a/train.py\n", "score": 4.0, "gain": 1.0, "runs": (run,)} if outcome == "kept" else {}
    base: dict[str, Any] = {
        "task": task.spec.id, "outcome": outcome, "program": program, "parent": parent, "normal": program, "title": "t",
        "evidence": Evidence(pairs=4, required=0.0, low=None, high=None, e_value=99.0, level=0.01),
        "proposer": "offline", "environment": ENVIRONMENT,
    }  # fmt: skip
    return Result.model_validate(base | kept | fields)


class Counted(Executor):
    """The real executor, which also notes what it did."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.corpus: Corpus = args[0]
        self.runs: list[RunSpec] = []
        self.measured: list[tuple[str, bool]] = []  # what of, and whether only roughly
        self.before: Callable[[int], bool] = lambda number: False  # of each run, as it starts; True: it is cut short

    def forget(self) -> None:
        """Count from zero."""
        self.runs, self.measured, self.before = [], [], lambda number: False

    def run(self, spec: RunSpec, on_progress: OnProgress) -> RunResult:
        is_cut = self.before(len(self.runs) + 1)
        done = super().run(spec, on_progress)
        if is_cut:  # also one so short that it was over before
            return replace(done, status="killed", reason="cancelled")
        self.runs.append(spec)  # not before: a run whose worker died is asked for again
        return done

    def cost_ratio(
        self, parent_source: str, source: str, steps: int, on_progress: OnProgress, rough: bool = False
    ) -> CostRatio | RunResult:
        self.measured.append((source, rough))
        return super().cost_ratio(parent_source, source, steps, on_progress, rough)


class Site:
    """A node's ledger, and laboratories over it: each `opened` one is what a restarted node has."""

    def __init__(self, executor: Counted, path: Path, task: Task) -> None:
        self.executor, self.path, self.task = executor, path, task
        self.told: list[tuple[Stage, float, decide.Noise]] = []  # on the way to a verdict: screening, parent by then

    @contextmanager
    def opened(self) -> Iterator[Laboratory]:
        """A laboratory as the composition root builds it."""
        with Ledger.open(self.path) as ledger:
            spec = self.task.spec
            frontier = fold(ledger.all_records(), public_key(KEY), spec.id, spec.baseline)
            yield Laboratory(
                self.task, Bench([self.executor], lambda *_: None, lambda _: None), ledger, frontier,
                Programs(ledger, self.task.baseline), ENVIRONMENT, wall_s=60.0, pool_bytes=SIZES["confirm"],
            )  # fmt: skip

    def copy(self, path: Path) -> Site:
        """Another node with the same key and past."""
        shutil.copy(self.path, path)
        return Site(self.executor, path, self.task)

    def plan(self, name: str, source: str, parent: str | None = None) -> Plan:
        """An experiment from the baseline or another parent; its name decides its seeds."""
        parent = self.task.baseline if parent is None else parent
        hypothesis = Hypothesis(source, name, "", (), "offline")
        return Plan(f"x-{name}", self.task.spec.id, parent, program_digest({EDITABLE: parent}), hypothesis)

    def conduct(self, plan: Plan) -> Result:
        """The whole experiment, by a node that was just started."""
        with self.opened() as lab:
            tell = lambda *said: self.told.append(said)  # noqa: E731
            return asyncio.run(Experiment(lab, plan, tell).conduct())

    def interrupt(self, plan: Plan, at: int) -> None:
        """The experiment by a node that is stopped while it is busy with its run number `at`."""

        async def main(lab: Laboratory) -> None:
            loop = asyncio.get_running_loop()
            work = asyncio.ensure_future(Experiment(lab, plan).conduct())

            def stop(number: int) -> bool:
                if number == at:
                    loop.call_soon_threadsafe(work.cancel)
                return number == at

            self.executor.before = stop
            with pytest.raises(asyncio.CancelledError):
                await work

        with self.opened() as lab:
            asyncio.run(main(lab))
        self.executor.forget()

    def know_cost(self, *sources: str, ratio: float = 1.0, how: str = "cost") -> None:
        """This machine measured these programs before."""
        budget = Budget(decide.steps_for(self.task.spec.steps, ratio), ratio, 0.01)
        with Ledger.open(self.path) as ledger:
            for source in sources:
                ledger.journal_put(f"cost-{normal_digest(source).hex()}", how, budget.to_json())

    def weather(self, spread: Sequence[float]) -> None:
        """The baseline's runs took so much CPU time, relative to each other: what decides which excess is noise."""
        with self.opened() as lab:
            runs = lab.noise.results(self.task.spec.baseline)
            mean = statistics.fmean(run.cpu_s for run in runs.values())
            for (seed, run), factor in zip(runs.items(), spread, strict=True):
                lab.noise.put(self.task.spec.baseline, seed, replace(run, cpu_s=factor * mean))

    def record(self, *results: Result, key: bytes = KEY) -> None:
        """The log of this node, or another one's, goes on with these."""
        with Ledger.open(self.path) as ledger:
            ledger.append_all(key, results, now_ms=1)

    def journal(self, name: str) -> dict[str, str]:
        """What is noted of an experiment."""
        with Ledger.open(self.path) as ledger:
            return ledger.journal(f"x-{name}")

    def seed(self, name: str, label: str) -> int:
        """The seed that an experiment will use for a purpose."""
        with self.opened() as lab:
            return lab.seed(f"x-{name}", label)


def faster(source: str) -> str:
    """Three times the learning rate: much better within ten steps."""
    return source.replace("LR = 1e-3", "LR = 3e-3")


def same(source: str) -> str:
    """Nothing that matters, though it is another program."""
    return source.replace("WEIGHT_DECAY = 0.01 ", "WEIGHT_DECAY = 0.0100001 ")


def claim(
    site: Site, source: str, gain: float, key: bytes = PEER, fields: dict[str, Any] | None = None, **changes: Any
) -> Record:
    """A peer's kept result, stored here: its run is real unless `changes` say otherwise, and its numbers follow from
    its runs unless `fields` of the result do."""
    task, drawn = site.task, site.task.drawn(77)
    steps = task.spec.steps
    done = site.executor.run(RunSpec(source, 5, steps, (task.screen, drawn), wall_s=60.0), lambda _: None)
    run = Run(
        arm="candidate", role="confirm", slice="confirm", draw=77, seed=5, steps=steps, score=done.scores["confirm"],
        seconds=done.cpu_s, digest=bytes.fromhex(done.logits_digest), losses=done.first_losses,
    ).model_copy(update=changes)  # fmt: skip
    parent = run.model_copy(update={"arm": "parent", "seed": 6, "score": (run.score or 0.0) + gain})
    screen = run.model_copy(update={"slice": "screen", "draw": None, "score": done.scores["screen"], "losses": ()})
    runs = (run, parent, *(() if {"slice", "draw"} & changes.keys() else (screen,)))
    found = Evidence(
        pairs=1, required=0.01, low=gain / 2, high=2 * gain, e_value=evidence.e_value([gain - 0.01]), level=0.01
    )
    body = Result(
        task=task.spec.id, outcome="kept", program=program_digest({EDITABLE: source}), parent=task.spec.baseline,
        normal=normal_digest(source), diff=make_diff(task.baseline, source), title="a claim",
        score=done.scores["screen"], gain=gain, evidence=found, runs=runs, proposer="offline", environment=ENVIRONMENT,
    ).model_copy(update=fields or {})  # fmt: skip
    with Ledger.open(site.path) as ledger:
        return ledger.append(key, body, now_ms=1)


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """The real task for a few steps, with little text drawn for a pair."""
    return replace(tasks.load("gpt-cpu", STEPS, bytes(32)), scored=DRAWN)


@pytest.fixture(scope="session")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """One warm executor on one core, over sentences of made-up words."""
    home = tmp_path_factory.mktemp("site")
    rng = random.Random(7)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 7))) for _ in range(400)]

    def write(name: str, size: int) -> Path:
        sentences = (" ".join(rng.choices(words, k=12)) + ".\n" for _ in range(size // 24))
        (home / name).write_text("".join(sentences)[:size])
        return home / name

    held = {name: write(name, size) for name, size in SIZES.items()}
    corpus = Corpus("00" * 32, write("train", 256 << 10), held, (), 256 << 10, "made for tests")
    core = sorted(os.sched_getaffinity(0))[:1]
    with Counted(corpus, home / "scratch", 1 << 30, core, home / "locks") as executor:
        yield executor


@pytest.fixture(scope="session")
def measured(executor: Counted, tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A node that has measured the baseline's noise on five seeds; to be copied, not used.

    Its books say that this machine's runs differ a lot in CPU time, so that a busy one fails no test.
    """
    site = Site(executor, tmp_path_factory.mktemp("measured") / "ledger", tiny_task)
    with site.opened() as lab:
        asyncio.run(lab.measure_noise(lab.baseline, decide.PROMOTE_AFTER))
    site.weather(STORMY)
    return site


@pytest.fixture
def new_site(executor: Counted, tiny_task: Task, tmp_path: Path) -> Site:
    """A node that has measured nothing yet."""
    executor.forget()
    return Site(executor, tmp_path / "ledger", tiny_task)


@pytest.fixture
def site(measured: Site, tmp_path: Path) -> Site:
    """A node that knows the baseline's noise."""
    measured.executor.forget()
    return measured.copy(tmp_path / "ledger")


class Command(Protocol):
    """Runs the command line as a shell would: exit code, stdout, stderr."""

    def __call__(self, *words: str) -> tuple[int, str, str]: ...


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """In this process, which takes a tenth of the time, without this shell's settings."""
    for name in [name for name in os.environ if name.startswith(("SWARM_NODE_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SWARM_NODE_HOME", str(tmp_path / "default"))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["swarm-node", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    usual = cli.app.config
    yield run
    cli.app.config = usual
