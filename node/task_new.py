"""`swarm-node task new`: the folder of a task of one's own, from nothing or from an autoresearch directory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..protocols.diffs import EDITABLE
from ..protocols.errors import ConfigError, UsageError, unwritable
from ..trainer import task as tasks
from .convert import Value, constants_of, convert, notes

_MODEL = "gpt-cpu"  # what a new task is like
_TEXT = (".txt", ".md", ".rst", ".py", ".jsonl", ".csv")
_CONFIG = """\
# A task of your own. Its name is the folder's; train.py is what is edited, program.md what the researcher is asked. How
# it is scored is the same for all tasks. Another train.py, text or number of steps makes another task.
title = {title}
{corpus}

# Steps of the baseline. How long they take here: swarm-node task check {name}
[sizes]
{sizes}
"""
_ADDED = """
## In a swarm

This section is swarm-node's. What is said above of preparing data, of running, committing and logging is done by the
node: asked is one edit of `train.py` at a time. The metric is bits per byte, of raw bytes, on held-out text.

{contract}
"""


@dataclass(frozen=True)
class Made:
    """A new folder."""

    folder: Path
    remarks: tuple[str, ...] = ()
    todo: tuple[tuple[int, str], ...] = ()  # lines of train.py that a person has to look at


def make(folder: Path, source: Path | None) -> Made:
    """Write task.toml, train.py and program.md into a folder that is new or empty; ConfigError or UsageError when its
    name or `source` will not do. `source`: an autoresearch directory, of which nothing is run."""
    folder = folder.expanduser().resolve()
    tasks.check_name(folder.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already", why="what is in it would be lost", fix="choose a new folder")
    model = tasks.define(_MODEL)
    brief, train = model.read(tasks.BRIEF, tasks.MAX_BRIEF), model.read(EDITABLE, tasks.MAX_SOURCE)
    title, steps, corpus, remarks = folder.name, model.sizes, None, []
    if source is None:
        brief = re.sub(r"\A# .*", f"# {folder.name}", brief)
    else:
        title, steps = f"{folder.name}, from autoresearch", {"short": 100, "standard": 400, "long": 2000}
        known = _constants(source)
        train = _converted(source, known)
        brief = _brief(source, brief)
        corpus, remarks = _corpus(source, known)
        if "TIME_BUDGET" in known:
            remarks.append(f"a run had {known['TIME_BUDGET']} s; here it has steps: task check says how many are 30 s")
    text = (
        f"corpus = {json.dumps(str(corpus))}" if corpus else '# corpus = "PATH"   # your text; else the built-in text'
    )
    sizes = "\n".join(f"{name} = {number:_}" for name, number in steps.items())
    config = _CONFIG.format(title=json.dumps(title), corpus=text, name=folder.name, sizes=sizes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((tasks.CONFIG, config), (EDITABLE, train), (tasks.BRIEF, brief)):
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error, fix="choose another folder") from error
    return Made(folder, tuple(remarks), tuple(notes(train)) if source else ())


def _constants(source: Path) -> dict[str, Value]:
    path = source / "prepare.py"
    if not path.is_file():
        return {}
    try:
        return constants_of(tasks.read_text(path, tasks.MAX_SOURCE))
    except SyntaxError as error:
        raise ConfigError(f"{path} is not Python", why=str(error), fix="correct it, or delete it") from error


def _converted(source: Path, known: Mapping[str, Value]) -> str:
    path = source / EDITABLE
    if not path.is_file():
        fix = "give --from the directory with autoresearch's train.py, or leave it out"
        raise UsageError(f"there is no {path}", fix=fix)
    try:
        return convert(tasks.read_text(path, tasks.MAX_SOURCE), known)
    except SyntaxError as error:
        raise ConfigError(f"{path} is not Python", why=str(error), fix="correct it there first") from error


def _brief(source: Path, model: str) -> str:
    """Their brief with the contract from ours, which is so written in one place."""
    path = source / tasks.BRIEF
    contract = model[model.index("The contract with the harness") :].split("\n## ")[0]
    theirs = tasks.read_text(path, tasks.MAX_BRIEF) if path.is_file() else f"# {source.resolve().name}\n"
    brief = f"{theirs.rstrip()}\n{_ADDED.format(contract=contract.strip())}"
    if len(brief.encode()) > tasks.MAX_BRIEF:
        what = f"{path} is too long"
        raise ConfigError(what, why=f"with the contract it is more than {tasks.MAX_BRIEF:,} bytes", fix="shorten it")
    return brief


def _corpus(source: Path, known: Mapping[str, Value]) -> tuple[Path | None, list[str]]:
    """Where prepare.py has its text, if that is plain text that is there."""
    paths = [
        source / Path(str(value)).expanduser() for name, value in known.items()
        if isinstance(value, str) and re.search(r"DATA|TEXT|CORPUS|INPUT", name) and "://" not in value
    ]  # fmt: skip
    for path in paths:
        files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
        if any(file.suffix in _TEXT for file in files):
            return path.resolve(), [f"the text is {path.resolve()}, as prepare.py says"]
    where = f" at {paths[0]}" if paths else ""
    return None, [f"the built-in text is used: prepare.py names no plain text that is there{where}; see {tasks.CONFIG}"]
