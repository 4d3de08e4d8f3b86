"""`swarm-node apply`: the program of a result on disk, or as a patch. Nothing of it is run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..protocols.diffs import EDITABLE, git_patch
from ..protocols.errors import ConfigError, MachineError, UsageError, unwritable
from ..protocols.names import nickname
from ..protocols.records import Record, Result
from ..swarm.ledger import Ledger
from .format import clean
from .programs import Programs
from .tasks import known_tasks, load_known, own_folders
from .views import Views

Against = Literal["baseline", "parent"]


@dataclass(frozen=True)
class Find:
    """A result, its program and what is thought of it here."""

    record: Record
    source: str
    baseline: str | None  # None: not to be had
    parent: str | None
    state: str  # in words: confirmed by 2, claimed, discarded
    confirmed: bool
    own: bool

    @property
    def body(self) -> Result:
        """The result."""
        assert isinstance(self.record.body, Result)
        return self.record.body


def find(ledger: Ledger, prefix: str) -> Find:
    """The result whose id starts with `prefix`; ConfigError when its program cannot be had here."""
    record = ledger.find(prefix)
    body = record.body
    if not isinstance(body, Result):
        raise UsageError("a verification has no program", fix=f"swarm-node apply {body.result.hex()[:8]}")
    baseline, problem = _baseline(ledger, body.task)
    programs = Programs(ledger, baseline or "", read_only=True)
    try:
        source = programs.made_anew(record)
    except ConfigError as error:
        raise problem or error from error
    views = Views(ledger)
    return Find(
        record, source, baseline,
        programs.get(body.parent) if body.parent is not None else None,
        views.state(record) or body.outcome,
        body.outcome == "kept" and views.is_sure(record),
        record.author == views.own,
    )  # fmt: skip


def _baseline(ledger: Ledger, task: bytes) -> tuple[str | None, ConfigError | None]:
    """The text that the task starts from, or why it cannot be had."""
    known = known_tasks(ledger)
    spec = known.get(task)
    try:
        return load_known(known, task, spec.data if spec is not None else b"", own_folders(ledger)).baseline, None
    except ConfigError as error:
        stored = Programs(ledger, "", read_only=True).get(spec.baseline) if spec is not None else None
        return stored, error if stored is None else None


def caution(found: Find) -> list[str]:
    """What to know before this code is on the disk."""
    record = found.record
    who = nickname(record.author)
    lines = [f"{record.id.hex()[:8]} {who}   {clean(found.body.title, 60)}   {found.state}"]
    if not found.own and not found.confirmed:
        lines += [
            f"warning: this is the code of a stranger ({who}), and nobody whom this home found right confirmed it.",
            "         It is written, not run. Outside of swarm-node it would run without the sandbox: read it first.",
        ]
    elif not found.own:
        lines.append(f"note: the code is {who}'s. It is written, not run; elsewhere it runs without the sandbox.")
    return lines


def patch(found: Find, against: Against) -> str:
    """The change from the task's baseline, or from the result's parent, for `git apply`."""
    base = found.baseline if against == "baseline" else found.parent
    if base is None and found.body.parent is None:
        base = found.source  # the baseline itself
    if base is None:
        other = "parent" if against == "baseline" else "baseline"
        fix = f"--against {other}, or the whole program: swarm-node apply {found.record.id.hex()[:8]}"
        raise ConfigError(f"the {against} of {found.record.id.hex()[:8]} is not here", fix=fix)
    text = git_patch(base, found.source)
    if not text:
        raise UsageError(f"there is nothing to patch: the program is the {against} itself")
    # git skips what stands before the diff; a title has no line breaks.
    about = f"# swarm-node {found.record.id.hex()}\n# {nickname(found.record.author)}: {clean(found.body.title)}\n"
    return f"{about}# {found.state}; against the {against}\n{text}"


def write(found: Find, folder: Path, force: bool) -> tuple[Path, bool]:
    """Write the program to train.py in `folder`, and whether anything had to be written. What is there and differs is
    only replaced by `force`."""
    path = folder / EDITABLE
    data = found.source.encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.is_file() and path.read_bytes() == data:
                return path, False
            if not force or not path.is_file():
                fix = "add --force to replace it, or choose another folder: --to DIR"
                raise MachineError(f"{path} is there already and differs", why="it would be lost", fix=fix)
        fresh = path.with_name(f".{EDITABLE}.{os.getpid()}")
        try:
            with fresh.open("xb") as file:
                file.write(data)
            fresh.replace(path)  # never half of it
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error, fix="choose another folder: --to DIR") from error
    return path, True
