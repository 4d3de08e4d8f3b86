"""Loads a research task: its editable baseline, the human's brief, and the specification that fixes its id."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..protocols.diffs import EDITABLE
from ..protocols.errors import MachineError, UsageError
from ..protocols.task import TaskSpec, program_digest
from .types import Slice

MAX_BRIEF = 16 * 1024
MAX_STEPS = 10_000_000
TASKS = {"gpt-cpu": "gpt_cpu"}  # name on screen -> folder


@dataclass(frozen=True)
class Task:
    """A task ready to run: what is on the wire about it, and the texts behind the digests."""

    spec: TaskSpec
    baseline: str  # source text of train.py
    brief: str  # program.md
    scored: int  # bytes of held-out text that decide: of the fixed screening text, and drawn afresh for each pair
    worthwhile: float  # the least gain that counts, in the task's unit

    @property
    def screen(self) -> Slice:
        """The text on which every run is scored."""
        return Slice("screen", bytes=self.scored)

    def drawn(self, draw: int) -> Slice:
        """Text drawn from the pool for one pair of confirmation runs."""
        return Slice("confirm", draw, self.scored)


def sizes(name: str) -> dict[str, int]:
    """The named sizes of a task with their baseline steps, smallest first."""
    return dict(sorted(_config(name)["sizes"].items(), key=lambda item: item[1]))


def load(name: str, size: str, data: bytes, program: Path | None = None) -> Task:
    """The task `name` at `size` (a name from task.toml, or a number of steps) over the corpus with digest `data`.

    program: a file that replaces the task's own brief. UsageError names what exists; MachineError when the
    brief cannot be read.
    """
    config = _config(name)
    steps = config["sizes"].get(size) or (int(size) if size.isdecimal() and 1 <= int(size) <= MAX_STEPS else None)
    if steps is None:
        known = list(sizes(name))
        raise UsageError(
            f"task {name} has no size {size}",
            why=f"its sizes are {', '.join(known)}, or a number of steps from 1 to {MAX_STEPS}",
            fix=f"--size {known[0]}, or leave it out",
        )
    folder = _folder(name)
    baseline = folder.joinpath(EDITABLE).read_text(encoding="utf-8")
    brief = _read_brief(program) if program else folder.joinpath("program.md").read_text(encoding="utf-8")
    spec = TaskSpec(
        name=name,
        size=size,
        steps=steps,
        metric=config["metric"]["name"],
        unit=config["metric"]["unit"],
        direction=config["metric"]["direction"],
        baseline=program_digest({EDITABLE: baseline}),
        data=data,
        evaluator=config["evaluator"],
    )
    slices = config["slices"]
    scored = min(max(slices["least"], slices["a_step"] * steps), slices["most"])
    return Task(spec, baseline, brief, scored, config["metric"]["worthwhile"])


def _folder(name: str) -> Any:
    if name not in TASKS:
        known = list(TASKS)
        raise UsageError(
            f"there is no task {name} in this version", why=f"it has {', '.join(known)}", fix=f"--task {known[0]}"
        )
    return resources.files(f"{__package__}.tasks.{TASKS[name]}")


def _config(name: str) -> dict[str, Any]:
    return tomllib.loads(_folder(name).joinpath("task.toml").read_text(encoding="utf-8"))


def _read_brief(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")  # a pipe or a device may have no end
        with path.open("rb") as file:
            data = file.read(MAX_BRIEF + 1)
        text = data.decode() if len(data) <= MAX_BRIEF else ""
    except (OSError, UnicodeDecodeError) as error:
        fix = "give a readable UTF-8 text file to --program"
        raise MachineError(f"cannot read the brief {path}", why=str(error), fix=fix) from error
    if not text.strip():
        raise MachineError(f"the brief {path} is empty or larger than {MAX_BRIEF} bytes", fix="shorten it")
    return text
