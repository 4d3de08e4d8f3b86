"""A small corpus and a tiny program: real training, real sandbox, a quarter of a second per run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from swarm_node.trainer.corpus import Corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import Progress, RunResult, RunSpec, Slice

SIZES = {"probe": 4 << 10, "screen": 8 << 10, "confirm": 64 << 10, "audit": 4 << 10}
CORES = sorted(os.sched_getaffinity(0))[:2]


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sentences of made-up words, other ones in each slice."""
    home = tmp_path_factory.mktemp("corpus")
    (home / "held").mkdir(mode=0o700)
    rng = random.Random(7)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 7))) for _ in range(400)]

    def write(path: Path, size: int) -> Path:
        text = ""
        while len(text) < size:
            text += " ".join(rng.choices(words, k=12)) + ".\n"
        path.write_bytes(text.encode()[:size])
        return path

    held = {name: write(home / "held" / f"{name}.bin", size) for name, size in SIZES.items()}
    return Corpus("00" * 32, write(home / "train.bin", 256 << 10), held, (), 256 << 10, "made for tests")


@pytest.fixture(scope="session")
def tiny() -> str:
    """The source of the tiny program."""
    return (Path(__file__).parent / "tiny_train.py").read_text()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs have their directories."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cores' lock files are."""
    return tmp_path_factory.mktemp("locks")


@pytest.fixture(scope="module")
def executor(small_corpus: Corpus, scratch: Path, locks: Path) -> Iterator[Executor]:
    """One warm executor for a whole module, on at most two cores."""
    with Executor(small_corpus, scratch, 1 << 30, CORES, locks) as executor:
        yield executor


@pytest.fixture
def run(executor: Executor) -> Callable[..., RunResult]:
    """Run a source for some steps and score it on the screen slice."""

    def run(source: str, **changes: object) -> RunResult:
        spec = {"seed": 1, "steps": 40, "slices": (Slice("screen"),), "wall_s": 60.0, "probe": False}
        on_progress: Callable[[Progress], None] = changes.pop("on_progress", lambda _: None)  # type: ignore[assignment]
        return executor.run(RunSpec(source=source, **spec | changes), on_progress)  # type: ignore[arg-type]

    return run
