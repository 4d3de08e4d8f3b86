"""Brings a change that was made on one program onto another: a three-way merge by `git merge-file`.

The texts are anybody's. They pass the policy for programs before and after, git sees them as three files in an empty
folder, outside of any repository and without anybody's settings, and no shell is involved.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from ..protocols.canonical import digest
from ..protocols.diffs import apply_diff, check_program
from ..protocols.errors import DiffRejected

TIMEOUT = 2.0  # seconds; a merge of two usual programs takes 3 ms
_REMEMBERED = 256  # merges; the same ones are asked for on every proposal
_CONSTANT = re.compile(r"(?m)^([A-Z][A-Z0-9_]*) = (?:[-+0-9._e ]+|\([-+0-9._e, ]+\))[ \t]*(?:#.*)?\n", re.ASCII)
_MARK = re.compile(r"(?m)^\x1f.*\n")  # no program holds such a character
_CONFLICTS = 127  # git's exit status is their number, at most this; anything above is an error

_done: OrderedDict[bytes, str | None] = OrderedDict()
_lock = threading.Lock()


class MergeUnavailable(Exception):
    """Nothing is said of the texts: git is missing, or it did not come to an end."""


def rebase(ours: str, base: str | None, theirs: str | None, diff: str) -> str | None:
    """`ours` with what led from `base` to `theirs` done to it; None when that conflicts or breaks the policy.

    Where git or one of the texts is missing, the diff is applied where its old lines stand exactly once.
    """
    if base is not None and theirs is not None:
        try:
            return merge(ours, base, theirs)
        except MergeUnavailable:
            pass
    try:
        return apply_diff(ours, diff, fuzzy=True) if diff else None
    except DiffRejected:
        return None


def merge(ours: str, base: str, theirs: str) -> str | None:
    """The three-way merge, or None when both sides changed the same place. Remembered by the digests of the texts."""
    key = digest(b"".join(digest(text.encode("utf-8", "surrogatepass")) for text in (ours, base, theirs)))
    with _lock:
        if key in _done:
            _done.move_to_end(key)
            return _done[key]
    merged = _merge(ours, base, theirs)
    with _lock:
        _done[key] = merged
        while len(_done) > _REMEMBERED:
            _done.popitem(last=False)
    return merged


def _merge(ours: str, base: str, theirs: str) -> str | None:
    try:
        for text in (ours, base, theirs):
            check_program(text)
        merged = _by_git(ours, base, theirs)
        if merged is not None:
            check_program(merged)
    except DiffRejected:
        return None
    return merged


def _by_git(ours: str, base: str, theirs: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        raise MergeUnavailable("git is not installed")
    with tempfile.TemporaryDirectory(prefix="swarm-node-merge-") as name:
        folder = Path(name).resolve()  # git compares the ceiling with real paths
        for label, text in (("ours", ours), ("base", base), ("theirs", theirs)):
            # To git, neighbouring lines are one place; constants stand side by side, and are dials of their own.
            (folder / label).write_bytes(_CONSTANT.sub("\\g<0>\x1f\\1\n", text).encode())
        command = [git, "merge-file", "-p", "-q", "ours", "base", "theirs"]
        try:
            done = subprocess.run(
                command, cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, capture_output=True,
                timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MergeUnavailable(repr(error)) from error
    if done.returncode == 0:
        return _MARK.sub("", done.stdout.decode())
    if 0 < done.returncode <= _CONFLICTS:
        return None
    raise MergeUnavailable(f"git merge-file ended with {done.returncode}")


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the user's: no settings, no repository above the folder, no other language."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "LC_ALL": "C",
    }
