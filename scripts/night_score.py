"""Fresh-seed runs of chosen programs on text that never decided anything, for `bench_night.py`."""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from swarm_node.protocols.diffs import EDITABLE
from swarm_node.protocols.task import program_digest
from swarm_node.trainer import corpus, decide
from swarm_node.trainer import task as tasks
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import RunResult, RunSpec, Slice


@dataclass(frozen=True)
class Program:
    """A program as a record names it: with the steps that were its share there."""

    source: str
    steps: int

    @property
    def digest(self) -> bytes:
        return program_digest({EDITABLE: self.source})


class Lab:
    """Runs programs on seeds that no node draws, and keeps every score in a file: nothing is run twice."""

    def __init__(self, executor: Executor, work: tasks.Task, file: Path) -> None:
        self.executor, self.work, self._file = executor, work, file
        self._lock = threading.Lock()  # one run at a time, whoever asks
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        self._saved = {(line["program"], line["steps"], line["seed"]): line["scores"] for line in lines}

    @property
    def baseline(self) -> Program:
        return Program(self.work.baseline, self.work.spec.steps)

    def scores(self, what: Program, seeds: Sequence[int]) -> list[dict[str, float]]:
        """Scores on `screen` and `audit` of one run for each seed. No node draws seeds as small as these."""
        with self._lock:
            return [self._score(what, seed) for seed in seeds]

    def _score(self, what: Program, seed: int) -> dict[str, float]:
        key = (what.digest.hex(), what.steps, seed)
        if key not in self._saved:
            result = self._run(what.source, seed, what.steps, (self.work.screen, Slice("audit")))
            if result.status != "ok":
                raise RuntimeError(f"program {key[0][:8]} with seed {seed}: {result.reason}")
            self._saved[key] = result.scores
            line = dict(zip(("program", "steps", "seed"), key, strict=True)) | {"scores": result.scores}
            with self._file.open("a") as out:
                out.write(json.dumps(line | {"cpu_s": result.cpu_s, "eval_cpu_s": result.eval_cpu_s}) + "\n")
        return self._saved[key]

    def measured(self, source: str) -> tuple[int, float] | None:
        """The steps of a program at compute parity and its cost ratio, measured here; None when it does not run."""
        cost = self.executor.cost_ratio(self.work.baseline, source, self.work.spec.steps, lambda _: None)
        if isinstance(cost, RunResult):
            return None
        return decide.steps_for(self.work.spec.steps, cost.ratio), cost.ratio

    def screen(self, source: str, seed: int, steps: int) -> RunResult:
        """One screening run, as a node would make it."""
        return self._run(source, seed, steps, (self.work.screen,))

    def _run(self, source: str, seed: int, steps: int, slices: tuple[Slice, ...]) -> RunResult:
        spec = RunSpec(source, seed, steps, slices, wall_s=600 + steps, probe=False)
        return self.executor.run(spec, lambda _: None)


def audits(scores: Sequence[dict[str, float]]) -> list[float]:
    """The scores on `audit`."""
    return [one["audit"] for one in scores]


def mean_audit(scores: Sequence[dict[str, float]]) -> float:
    """Their mean."""
    return statistics.fmean(audits(scores))


def load_task(folder: Path, size: str, start: Path | None = None) -> tuple[corpus.Corpus, tasks.Task]:
    """The text and the task that nodes of this size work on. `start`: the folder of a task with another program."""
    text = corpus.prepare(folder / "corpora")
    name = start.name if start else "gpt-cpu"
    return text, tasks.load(name, size, bytes.fromhex(text.digest), folder=start)


def started_from(folder: Path, program: str) -> Path:
    """The folder of a task like gpt-cpu that starts from this program."""
    task = folder / "started"
    task.mkdir(parents=True, exist_ok=True)
    (task / EDITABLE).write_text(program)
    known = resources.files("swarm_node.trainer.tasks.gpt_cpu")
    for name in ("task.toml", "program.md"):
        (task / name).write_text(known.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    return task


@contextmanager
def opened(folder: Path, size: str, start: Path | None = None) -> Iterator[Lab]:
    """A laboratory whose scores are kept in the output folder."""
    text, work = load_task(folder, size, start)
    with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch)) as executor:
        yield Lab(executor, work, folder / "scores.jsonl")
