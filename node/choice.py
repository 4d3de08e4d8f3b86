"""Which task a node works on: as asked on the command line, else the invite's, else as before."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocols.errors import UsageError
from ..protocols.invites import Invite
from ..protocols.task import TaskSpec
from ..trainer import task as tasks

DEFAULT = "gpt-cpu"


@dataclass(frozen=True)
class Choice:
    """A task, its size as far as it is decided, and why."""

    task: str
    size: str | None  # None: to be found by calibration
    reason: str = ""
    invited: str = ""  # what the invite is for, when this node is to work on another task in that swarm

    @property
    def start(self) -> str:
        """The size to begin with: the one decided, else the smallest."""
        return self.size or next(iter(tasks.sizes(self.task)))


def choose_task(task: str | None, size: str | None, invite: Invite | None, last: TaskSpec | None) -> Choice:
    """The task to work on. `task` and `size`: what was asked for; `last`: what this home worked on before.

    Who asks for another task than the invite's takes part in the same swarm, on that task.
    """
    if invite is None:
        name = task or (last.name if last else DEFAULT)
        tasks.sizes(name)  # UsageError when there is no such task
        if size is None and last is not None and last.name == name:
            return Choice(name, last.size, "as before")
        return Choice(name, size, "as asked" if size else "")
    name, _, invited_size = invite.task.partition("/")
    if task not in (None, name) or size not in (None, invited_size):
        if task is not None:
            tasks.sizes(task)
        return Choice(task or name, size, "as asked", invite.task)
    if name not in tasks.TASKS:
        fix = f"install the inviter's version, or work on another task of that swarm: add --task {DEFAULT}"
        raise UsageError(f"the invite is for task {name}, which this version does not have", fix=fix)
    return Choice(name, invited_size, "from the invite")
