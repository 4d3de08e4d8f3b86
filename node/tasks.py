"""The tasks that this home has worked on, remembered in the journal for commands that read the ledger only."""

from __future__ import annotations

from pathlib import Path

from ..protocols import canonical
from ..protocols.errors import ConfigError
from ..protocols.task import TaskSpec
from ..swarm.ledger import Ledger
from ..trainer import task as tasks

_KEY = "tasks"
_MAX = 4096


def remember(ledger: Ledger, spec: TaskSpec) -> None:
    """This node works on `spec` from now on."""
    ledger.journal_put(_KEY, spec.id.hex(), canonical.encode(spec.model_dump()).hex())
    ledger.journal_put("node", "task", spec.id.hex())
    ledger.journal_put("node", "size", spec.size)


def known_tasks(ledger: Ledger) -> dict[bytes, TaskSpec]:
    """Every remembered task by id."""
    saved = ledger.journal(_KEY)
    specs = (TaskSpec.model_validate(canonical.decode(bytes.fromhex(text), _MAX)) for text in saved.values())
    return {spec.id: spec for spec in specs}


def load_known(known: dict[bytes, TaskSpec], task: bytes, data: bytes) -> tasks.Task:
    """The task with this id over the corpus with digest `data`; ConfigError when this version does not rebuild it."""
    spec = known.get(task)
    if spec is None:
        why = "the name and size of a task are known to nodes that work on it"
        raise ConfigError(f"this home has not worked on task {task.hex()[:9]}", why=why, fix="join its swarm first")
    rebuilt = tasks.load(spec.name, spec.size, data)
    if rebuilt.spec.id != task:
        other = "text" if data != spec.data else "version of swarm-node"
        fix = "add --corpus PATH" if data != spec.data else "install the version that made the record"
        raise ConfigError(
            f"task {spec.name}/{spec.size} of this record cannot be rebuilt", why=f"other {other}", fix=fix
        )
    return rebuilt


def current_task(ledger: Ledger, program: Path | None = None) -> tasks.Task:
    """The task that this home works on; ConfigError when it has worked on none."""
    current = ledger.journal("node").get("task")
    spec = known_tasks(ledger).get(bytes.fromhex(current)) if current else None
    if spec is None:
        raise ConfigError("this home has not worked on a task yet", fix="start it: swarm-node join")
    return tasks.load(spec.name, spec.size, spec.data, program)
