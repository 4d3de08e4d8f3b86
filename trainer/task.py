"""Loads a research task: its editable baseline, the human's brief, and the specification that fixes its id.

A task is a folder with `task.toml`, `train.py` and `program.md`; some are built in, anybody can make one. How a task
is scored is none of its business (`tasks/rules.toml`).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..protocols.diffs import EDITABLE
from ..protocols.errors import ConfigError, MachineError, UsageError
from ..protocols.task import MAX_SOURCE, TaskSpec, program_digest
from ..protocols.text import forbidden_character
from .types import Slice

MAX_BRIEF = 16 * 1024
MAX_STEPS = 10_000_000
TASKS = {"gpt-cpu": "gpt_cpu"}  # name on screen -> folder
CONFIG, BRIEF = "task.toml", "program.md"
NAME = r"[a-z0-9][a-z0-9-]{0,31}"
_SIZE = r"[a-z][a-z0-9-]{0,15}"  # not a number, which means itself
_MAX_CONFIG = 64 * 1024


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


@dataclass(frozen=True)
class Definition:
    """What the folder of a task says, before a size and a text are chosen."""

    name: str
    folder: Path | None  # None: built in
    title: str
    sizes: dict[str, int]  # baseline steps by name, smallest first
    corpus: Path | None  # None: the built-in text

    def read(self, file: str, most: int) -> str:
        """The text of one of its files; ConfigError when it has none that can be used."""
        return read_text(self.folder / file if self.folder else _built_in(self.name).joinpath(file), most)


def define(name: str, folder: Path | None = None) -> Definition:
    """The task in `folder`, or the built-in one called `name`. UsageError names what exists; ConfigError says what is
    wrong with the folder."""
    if folder is None:
        said = tomllib.loads(_built_in(name).joinpath(CONFIG).read_text(encoding="utf-8"))
        return Definition(name, None, said["title"], _in_order(said["sizes"]), None)
    if not folder.is_dir():
        fix = f"put it back, or say where it is now: --task FOLDER (or work on another: --task {next(iter(TASKS))})"
        raise ConfigError(
            f"the folder of task {name} is not there: {folder}", why="a task of one's own is its folder", fix=fix
        )
    path = folder / CONFIG
    try:
        said = tomllib.loads(read_text(path, _MAX_CONFIG))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML", why=str(error), fix="correct it at that place") from error
    check_name(name)
    return Definition(name, folder, *_checked(path, said))


def check_name(name: str) -> None:
    """ConfigError unless a folder of this name can be a task."""
    if name in TASKS:
        why, fix = "it is the name of a built-in task", "give the folder another name"
        raise ConfigError(f"a task of one's own cannot be called {name}", why=why, fix=fix)
    if not re.fullmatch(NAME, name):
        why = "a task is called like its folder: at most 32 of a-z, 0-9 and -, and not - first"
        raise ConfigError(f"a task cannot be called {name!r}", why=why, fix="rename the folder")


def sizes(name: str, folder: Path | None = None) -> dict[str, int]:
    """The named sizes of a task with their baseline steps, smallest first."""
    return define(name, folder).sizes


def load(name: str, size: str, data: bytes, program: Path | None = None, folder: Path | None = None) -> Task:
    """The task `name` at `size` (a name from task.toml, or a number of steps) over the corpus with digest `data`.

    program: a file that replaces the task's own brief. folder: where the files of a task of one's own are. UsageError
    names what exists; ConfigError when a file of the task cannot be used, MachineError when the other brief cannot.
    """
    found = define(name, folder)
    steps = found.sizes.get(size) or (int(size) if size.isdecimal() and 1 <= int(size) <= MAX_STEPS else None)
    if steps is None:
        known = list(found.sizes)
        raise UsageError(
            f"task {name} has no size {size}",
            why=f"its sizes are {', '.join(known)}, or a number of steps from 1 to {MAX_STEPS}",
            fix=f"--size {known[0]}, or leave it out",
        )
    baseline = found.read(EDITABLE, MAX_SOURCE)
    if char := forbidden_character(baseline, "\n\t"):
        why = "such characters hide text, and are in no program that peers take"
        raise ConfigError(f"{EDITABLE} of task {name} contains the character {char}", why=why, fix="delete it")
    brief = _read_brief(program) if program else found.read(BRIEF, MAX_BRIEF)
    rules = _rules()
    metric, slices = rules["metric"], rules["slices"]
    spec = TaskSpec(
        name=name,
        size=size,
        steps=steps,
        metric=metric["name"],
        unit=metric["unit"],
        direction=metric["direction"],
        baseline=program_digest({EDITABLE: baseline}),
        data=data,
        evaluator=rules["evaluator"],
    )
    scored = min(max(slices["least"], slices["a_step"] * steps), slices["most"])
    return Task(spec, baseline, brief, scored, metric["worthwhile"])


def _built_in(name: str) -> Any:
    if name not in TASKS:
        known = list(TASKS)
        raise UsageError(
            f"there is no task {name} in this version",
            why=f"it has {', '.join(known)}; any other is a folder",
            fix=f"--task {known[0]}, or --task FOLDER (make one: swarm-node task new FOLDER)",
        )
    return resources.files(f"{__package__}.tasks.{TASKS[name]}")


@cache
def _rules() -> dict[str, Any]:
    return tomllib.loads(resources.files(f"{__package__}.tasks").joinpath("rules.toml").read_text(encoding="utf-8"))


def _checked(path: Path, said: dict[str, Any]) -> tuple[str, dict[str, int], Path | None]:
    """Title, sizes and corpus of a task.toml; ConfigError for what is not as it must be."""
    for key in said:
        if key not in ("title", "corpus", "sizes"):
            why = "known are title, corpus and [sizes]; how a task is scored is the same for all"
            raise ConfigError(f"{path} has an unknown key {key!r}", why=why, fix="delete it")
    title, corpus, steps = said.get("title"), said.get("corpus"), said.get("sizes")
    if not isinstance(title, str) or not 0 < len(title) <= 100 or forbidden_character(title):
        raise ConfigError(f"{path} has no title", why="it is one line of text", fix='add: title = "what is studied"')
    if not isinstance(corpus, str | None):
        raise ConfigError(f"the corpus in {path} is no path", fix='corpus = "PATH", or leave it out')
    if not isinstance(steps, dict) or not steps:
        raise ConfigError(f"{path} has no sizes", fix="add steps of the baseline: [sizes], then: short = 1000")
    for name, number in steps.items():
        if not re.fullmatch(_SIZE, name) or type(number) is not int or not 1 <= number <= MAX_STEPS:
            why = f"a size is a short lower-case name and a number of steps from 1 to {MAX_STEPS}"
            raise ConfigError(f"{path}: {name} = {number!r} is no size", why=why, fix=f"correct it: {name} = 1000")
    return title, _in_order(steps), path.parent / Path(corpus).expanduser() if corpus else None


def _in_order(steps: dict[str, int]) -> dict[str, int]:
    return dict(sorted(steps.items(), key=lambda item: item[1]))


def read_text(path: Any, most: int) -> str:
    """The text of a file; ConfigError when it is none, is empty or has more than `most` bytes."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")  # a pipe or a device may have no end
        with path.open("rb") as file:
            data = file.read(most + 1)
        text = data.decode().replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        fix = "a task is a folder with these: task.toml, train.py, program.md (swarm-node task new FOLDER makes one)"
        raise ConfigError(f"cannot read {path}", why=getattr(error, "strerror", None) or str(error), fix=fix) from error
    if not text.strip() or len(data) > most:
        raise ConfigError(f"{path} is empty or larger than {most:,} bytes", fix="correct it")
    return text


def _read_brief(path: Path) -> str:
    try:
        return read_text(path, MAX_BRIEF)
    except ConfigError as error:
        what = (
            f"cannot read the brief {path}"
            if error.why
            else f"the brief {path} is empty or larger than {MAX_BRIEF} bytes"
        )
        raise MachineError(what, why=error.why, fix="give a readable UTF-8 text file to --program") from error
