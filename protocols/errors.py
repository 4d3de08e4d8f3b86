"""Every error a person may see, in one tree.

SwarmNodeError                       exit code 1
├── UsageError                       2   a flag or argument makes no sense
├── ConfigError                      3   config file, identity key or ledger is unusable
│   └── InviteError                  3   an invite is malformed, expired or for another protocol
├── MachineError                     4   disk, memory, corpus, a second node on the same home
├── NetworkError                     5   port in use, peers required but unreachable
├── IsolationError                   6   the sandbox cannot be applied here
├── LLMError                         7   endpoint, key, quota or spend cap
├── ReplayDisagreed                  8   a re-run did not reproduce the record
└── InvalidData                      1   bytes or text from outside broke a rule; never fatal to a node
    ├── DiffRejected                 1   a diff broke the diff policy or does not apply
    └── Untimely                     1   dated too far from this clock: not usable now, and nobody's fault
"""

from __future__ import annotations

import errno
from typing import TypeVar

_E = TypeVar("_E", bound=BaseException)


class SwarmNodeError(Exception):
    """An error with three answers for the reader: what happened, why, and the command that fixes it."""

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(SwarmNodeError):
    """A flag or argument makes no sense."""

    exit_code = 2


class ConfigError(SwarmNodeError):
    """The config file, the identity key or the ledger is unusable."""

    exit_code = 3


class InviteError(ConfigError):
    """An invite is malformed, expired or made for another protocol version."""


class MachineError(SwarmNodeError):
    """This machine cannot do it: disk, memory, corpus, or another node already uses this home."""

    exit_code = 4


class NetworkError(SwarmNodeError):
    """The network cannot be used as asked: port taken, required peers unreachable."""

    exit_code = 5


class IsolationError(SwarmNodeError):
    """The sandbox cannot be applied on this machine, so nothing foreign may run."""

    exit_code = 6


class LLMError(SwarmNodeError):
    """The language model endpoint, its key, quota or the spend cap stopped us."""

    exit_code = 7


class ReplayDisagreed(SwarmNodeError):
    """A re-run did not reproduce the recorded result."""

    exit_code = 8


class InvalidData(SwarmNodeError):
    """Bytes or text from outside broke a rule of the protocol; the sender is at fault, the node goes on."""


class DiffRejected(InvalidData):
    """A diff broke the diff policy or does not apply to its parent."""


class Untimely(InvalidData):
    """Dated too far from this machine's clock: it is not used now, but one of two clocks is wrong, and which one nobody
    can prove. Whoever sent or passed it on is not at fault."""


def is_full(error: OSError) -> bool:
    """Whether the error says that a disk, or this user's share of it, has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(path: object, error: Exception) -> MachineError:
    """The error for `path` on a disk without room."""
    why = getattr(error, "strerror", None) or str(error)
    return MachineError(f"the disk that holds {path} is full", why=why, fix="free some space, then start again")


def unwritable(path: object, error: OSError, *, fix: str) -> MachineError:
    """The error for `path` that cannot be written; `fix`: for reasons other than a full disk."""
    if is_full(error):
        return disk_full(path, error)
    return MachineError(f"cannot write to {path}", why=error.strerror or str(error), fix=fix)


def first_of(group: BaseExceptionGroup[_E]) -> _E:
    """The first error in nested groups, which is what task groups raise; ours before any other."""
    leaves: list[_E] = []
    for error in group.exceptions:
        leaves.append(first_of(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((leaf for leaf in leaves if isinstance(leaf, SwarmNodeError)), leaves[0])
