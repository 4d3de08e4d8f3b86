"""The tasks that this home worked on or heard of, and the folders of its user's own ones, remembered in the journal for
commands that read the ledger only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ..protocols.errors import ConfigError, SwarmNodeError, UsageError
from ..protocols.task import TaskSpec, parse_task, recall_task, task_bytes
from ..swarm.ledger import Ledger
from ..trainer import task as tasks
from .format import track_name

_WORKED, _HEARD, _FOLDERS = "tasks", "heard tasks", "task folders"
MAX_HEARD = 1000  # tasks cost strangers nothing to invent


def remember(ledger: Ledger, spec: TaskSpec, folder: Path | None = None) -> None:
    """This node works on `spec` from now on, and tells whoever asks for it by its id. folder: of an own task."""
    data = task_bytes(spec)
    if folder is not None:
        ledger.journal_put(_FOLDERS, spec.name, str(folder))
    ledger.put_blob(data)
    ledger.journal_put(_WORKED, spec.id.hex(), data.hex())
    ledger.journal_put("node", "task", spec.id.hex())


def remember_heard(ledger: Ledger, task: bytes, data: bytes) -> TaskSpec:
    """Keep what a peer sent as the task with this id, to show its name and to pass it on; InvalidData when it is not
    that task."""
    spec = parse_task(data, task)
    ledger.put_blob(data)
    ledger.journal_put(_HEARD, task.hex(), data.hex())
    return spec


def own_folders(ledger: Ledger) -> dict[str, Path]:
    """The folders that the names of this user's own tasks stand for here."""
    return {name: Path(text) for name, text in ledger.journal(_FOLDERS).items()}


def worked_tasks(ledger: Ledger) -> dict[bytes, TaskSpec]:
    """The tasks that this home worked on, by id."""
    return _saved(ledger, _WORKED)


def heard_tasks(ledger: Ledger) -> dict[bytes, TaskSpec]:
    """The tasks that peers work on, as far as their specifications came here, by id."""
    return _saved(ledger, _HEARD)


def known_tasks(ledger: Ledger) -> dict[bytes, TaskSpec]:
    """Every task whose name is known here, by id."""
    return heard_tasks(ledger) | worked_tasks(ledger)


def last_task(ledger: Ledger) -> TaskSpec | None:
    """The task that this home worked on last."""
    current = ledger.journal("node").get("task")
    return worked_tasks(ledger).get(bytes.fromhex(current)) if current else None


def is_other_text(ledger: Ledger, spec: TaskSpec) -> bool:
    """Whether this home worked on the same task and size before, over other text: then its scores so far do not count
    for `spec`, though nothing but the text was changed."""
    last = last_task(ledger)
    return last is not None and (last.name, last.size) == (spec.name, spec.size) and last.data != spec.data


def quotable_names(ledger: Ledger) -> Callable[[bytes], str]:
    """Names of tasks for a prompt: only those that this version has itself, or this user, since others are a stranger's
    words."""

    @cache  # read once, when the first name is asked for: proposers call this for every idea
    def ours() -> dict[bytes, TaskSpec]:
        folders = own_folders(ledger)
        return {task: spec for task, spec in known_tasks(ledger).items() if _is_ours(spec, folders)}

    return lambda task: track_name(task, ours())


def _is_ours(spec: TaskSpec, folders: Mapping[str, Path]) -> bool:
    try:
        return spec.size.isdecimal() or spec.size in tasks.sizes(spec.name, folders.get(spec.name))
    except SwarmNodeError:  # of nobody here, or its folder is gone
        return False


def _saved(ledger: Ledger, key: str) -> dict[bytes, TaskSpec]:
    saved = ((bytes.fromhex(task), bytes.fromhex(text)) for task, text in ledger.journal(key).items())
    return {task: recall_task(data, task) for task, data in saved}


def load_known(
    known: dict[bytes, TaskSpec], task: bytes, data: bytes, folders: Mapping[str, Path] = MappingProxyType({})
) -> tasks.Task:
    """The task with this id over the corpus with digest `data`; ConfigError when this version, or the folder of a task
    of one's own, does not rebuild it."""
    spec = known.get(task)
    if spec is None:
        why = "peers tell the name and size of a task when a win of it is heard"
        raise ConfigError(f"task {task.hex()[:9]} is not known here", why=why, fix="swarm-node join, and try again")
    what = f"task {spec.name}/{spec.size} of this record cannot be rebuilt"
    try:
        rebuilt = tasks.load(spec.name, spec.size, data, folder=folders.get(spec.name))
    except UsageError as error:  # heard of, but somebody's own, or of another version
        fix = "join once with a copy of its folder: --task FOLDER; or install the version that made the record"
        raise ConfigError(what, why=error.what, fix=fix) from error
    if rebuilt.spec.id != task:
        folder = folders.get(spec.name)
        other = "text" if data != spec.data else f"files in {folder}" if folder else "version of swarm-node"
        restore = f"put back what {folder} held then" if folder else "install the version that made the record"
        raise ConfigError(what, why=f"other {other}", fix="add --corpus PATH" if data != spec.data else restore)
    return rebuilt


def current_task(ledger: Ledger, program: Path | None = None) -> tasks.Task:
    """The task that this home works on; ConfigError when it has worked on none."""
    spec = last_task(ledger)
    if spec is None:
        raise ConfigError("this home has not worked on a task yet", fix="start it: swarm-node join")
    folder = own_folders(ledger).get(spec.name)
    found = tasks.load(spec.name, spec.size, spec.data, program, folder)
    if folder is not None:
        check_unchanged(spec, found.spec, folder)
    return found


def check_unchanged(before: TaskSpec, now: TaskSpec, folder: Path) -> None:
    """ConfigError when the folder of a task of one's own makes another task than the one that was worked on."""
    if now.id == before.id:
        return
    changed = (
        "train.py" if now.baseline != before.baseline
        else "its text" if now.data != before.data
        else "the steps of its sizes, or this version's rules of scoring,"
    )  # fmt: skip
    raise ConfigError(
        f"task {before.name}/{before.size} is not the one that this home worked on: {changed} changed",
        why=f"its id was {before.id.hex()[:8]} and would be {now.id.hex()[:8]}; their scores do not compare",
        fix=f"put back what {folder} held, or begin anew with what it holds now: swarm-node join --task {folder}",
    )


def corpus_of(name: str, folders: Mapping[str, Path]) -> Path | None:
    """The text that a task of one's own brings; None: the built-in text."""
    return tasks.define(name, folders[name]).corpus if name in folders else None
