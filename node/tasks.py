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


def current_task(ledger: Ledger, program: Path | None = None) -> tasks.Task:
    """The task that this home works on; ConfigError when it has worked on none."""
    current = ledger.journal("node").get("task")
    spec = known_tasks(ledger).get(bytes.fromhex(current)) if current else None
    if spec is None:
        raise ConfigError("this home has not worked on a task yet", fix="start it: swarm-node join")
    return tasks.load(spec.name, spec.size, spec.data, program)
