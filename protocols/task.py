"""What is being improved. Two numbers are comparable only under the same task id."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from . import canonical
from .errors import InvalidData
from .records import Count, Digest, Frozen, Line, recall
from .text import forbidden_character

MAX_TASK = 1024
MAX_PROGRAM = 256 * 1024
MAX_SOURCE = MAX_PROGRAM - 256  # of one file: leaves room for its name and the encoding
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\.[a-z0-9]{1,8}")


class TaskSpec(Frozen):
    """A task down to every digest that a score depends on."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    size: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,15}$")
    ]  # short, standard, long, or a number of steps
    steps: Annotated[int, Field(ge=1, le=10_000_000)]  # the baseline's budget
    metric: Annotated[Line, StringConstraints(min_length=1, max_length=16)]
    unit: Annotated[Line, StringConstraints(min_length=1, max_length=32)]
    direction: Literal["lower", "higher"]
    baseline: Digest  # program digest of the plain starting point
    data: Digest
    evaluator: Count  # version of the scoring rules

    @cached_property
    def id(self) -> bytes:
        """32-byte digest of all of the above."""
        return canonical.digest(task_bytes(self))

    def better_by(self, score: float, than: float) -> float:
        """How much better `score` is `than` another, in the task's unit; negative when worse."""
        return than - score if self.direction == "lower" else score - than


def task_bytes(spec: TaskSpec) -> bytes:
    """Canonical bytes of a specification; their digest is the task id."""
    return canonical.encode(spec.model_dump())


def parse_task(data: bytes, task: bytes) -> TaskSpec:
    """The specification with the id `task` that `data` encodes; InvalidData when it is not that."""
    try:
        spec = TaskSpec.model_validate(canonical.decode(data, MAX_TASK))
    except ValidationError as error:
        raise InvalidData("not a task", why=str(error.errors()[0]["msg"])) from error
    if spec.id != task:  # a field left out, or an answer to another question
        raise InvalidData("not the task with this id")
    return spec


def recall_task(data: bytes, task: bytes) -> TaskSpec:
    """The specification that `data` held when it was parsed under this id and stored; nothing is checked again."""
    return recall(TaskSpec, canonical.recall(data) | {"id": task})  # in `__dict__`, where `cached_property` looks


def program_bytes(files: dict[str, str]) -> bytes:
    """Canonical bytes of a program: a map from file name to text."""
    return canonical.encode({"files": files})


def program_digest(files: dict[str, str]) -> bytes:
    """The content address of a program: 32 bytes."""
    return canonical.digest(program_bytes(files))


def parse_program(data: bytes) -> dict[str, str]:
    """The files of an encoded program; InvalidData when it is not one."""
    value = canonical.decode(data, MAX_PROGRAM)
    files = value.get("files") if isinstance(value, dict) and set(value) == {"files"} else None
    if not isinstance(files, dict) or not files or not all(isinstance(text, str) for text in files.values()):
        raise InvalidData("not a program")
    for name, text in files.items():
        if not _FILE_NAME.fullmatch(name):
            raise InvalidData("not a program", why="a file name that could lead elsewhere")
        if char := forbidden_character(text, "\n\t"):
            raise InvalidData("not a program", why=f"{name} contains the character {char}")
    return files
