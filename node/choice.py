"""Which task a node works on: as asked on the command line, else the invite's, else as before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..protocols.errors import UsageError
from ..protocols.invites import Invite
from ..protocols.task import TaskSpec
from ..trainer import task as tasks

DEFAULT = "gpt-cpu"
BEFORE = "as before"
Folders = Mapping[str, Path]


@dataclass(frozen=True)
class Choice:
    """A task, its size as far as it is decided, and why."""

    task: str
    size: str | None  # None: to be found by calibration
    reason: str = ""
    invited: str = ""  # what the invite is for, when this node is to work on another task in that swarm
    folder: Path | None = None  # of a task of one's own

    @property
    def start(self) -> str:
        """The size to begin with: the one decided, else the smallest."""
        return self.size or next(iter(tasks.sizes(self.task, self.folder)))


def place(asked: str, own: Folders) -> tuple[str, Path | None]:
    """Name and folder of what a person calls a task: a built-in, a task of one's own that this home knows, a folder.

    A word that is both is the folder: the user may have moved it here. UsageError or ConfigError when it is nothing."""
    folder = Path(asked).expanduser()
    if asked not in tasks.TASKS and ("/" in asked or folder.is_dir()):
        folder = folder.resolve()
        name = folder.name
    else:
        name, folder = asked, own.get(asked)
    tasks.define(name, folder)
    return name, folder


def choose_task(
    task: str | None, size: str | None, invite: Invite | None, last: TaskSpec | None,
    own: Folders = MappingProxyType({}),
) -> Choice:  # fmt: skip
    """The task to work on. `task` and `size`: what was asked for; `last`: what this home worked on before; `own`: the
    folders of the user's own tasks.

    Who asks for another task than the invite's takes part in the same swarm, on that task.
    """
    asked = place(task, own) if task is not None else None
    if invite is None:
        name, folder = asked or _known(last.name if last else DEFAULT, own)
        if size is None and last is not None and last.name == name:
            return Choice(name, last.size, BEFORE, folder=folder)
        return Choice(name, size, "as asked" if size else "", folder=folder)
    invited, _, invited_size = invite.task.partition("/")
    name, folder = asked or (invited, own.get(invited))
    if name != invited or size not in (None, invited_size):
        return Choice(name, size, "as asked", invite.task, folder)
    if name not in tasks.TASKS and folder is None:
        raise UsageError(
            f"the invite is for task {name}, which this version does not have",
            why="it is somebody's own, a folder with train.py, program.md and task.toml, or of a later version",
            fix=f"get a copy of that folder and add --task FOLDER; or take part on another task: add --task {DEFAULT}",
        )
    return Choice(name, invited_size, "from the invite", folder=folder)


def _known(name: str, own: Folders) -> tuple[str, Path | None]:
    tasks.define(name, own.get(name))  # UsageError or ConfigError when there is no such task any more
    return name, own.get(name)
