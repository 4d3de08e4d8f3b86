"""The tasks that this home worked on or heard of, remembered in the journal for commands that read the ledger only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..protocols.errors import ConfigError, UsageError
from ..protocols.task import TaskSpec, parse_task, task_bytes
from ..swarm.ledger import Ledger
from ..trainer import task as tasks
from .format import track_name

_WORKED, _HEARD = "tasks", "heard tasks"
MAX_HEARD = 1000  # tasks cost strangers nothing to invent


def remember(ledger: Ledger, spec: TaskSpec) -> None:
    """This node works on `spec` from now on, and tells whoever asks for it by its id."""
    data = task_bytes(spec)
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
    """Names of tasks for a prompt: only those that this version has itself, since others are a stranger's words."""

    @cache  # read once, when the first name is asked for: proposers call this for every idea
    def ours() -> dict[bytes, TaskSpec]:
        return {task: spec for task, spec in known_tasks(ledger).items() if _is_ours(spec)}

    return lambda task: track_name(task, ours())


def _is_ours(spec: TaskSpec) -> bool:
    return spec.name in tasks.TASKS and (spec.size in tasks.sizes(spec.name) or spec.size.isdecimal())


def _saved(ledger: Ledger, key: str) -> dict[bytes, TaskSpec]:
    saved = ((bytes.fromhex(task), bytes.fromhex(text)) for task, text in ledger.journal(key).items())
    return {task: parse_task(data, task) for task, data in saved}


def load_known(known: dict[bytes, TaskSpec], task: bytes, data: bytes) -> tasks.Task:
    """The task with this id over the corpus with digest `data`; ConfigError when this version does not rebuild it."""
    spec = known.get(task)
    if spec is None:
        why = "peers tell the name and size of a task when a win of it is heard"
        raise ConfigError(f"task {task.hex()[:9]} is not known here", why=why, fix="swarm-node join, and try again")
    what = f"task {spec.name}/{spec.size} of this record cannot be rebuilt"
    try:
        rebuilt = tasks.load(spec.name, spec.size, data)
    except UsageError as error:  # heard of, but of another version
        raise ConfigError(what, why=error.what, fix="install the version that made the record") from error
    if rebuilt.spec.id != task:
        other = "text" if data != spec.data else "version of swarm-node"
        fix = "add --corpus PATH" if data != spec.data else "install the version that made the record"
        raise ConfigError(what, why=f"other {other}", fix=fix)
    return rebuilt


def current_task(ledger: Ledger, program: Path | None = None) -> tasks.Task:
    """The task that this home works on; ConfigError when it has worked on none."""
    spec = last_task(ledger)
    if spec is None:
        raise ConfigError("this home has not worked on a task yet", fix="start it: swarm-node join")
    return tasks.load(spec.name, spec.size, spec.data, program)
