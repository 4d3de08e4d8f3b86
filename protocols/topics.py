"""GossipSub topics: their names, and what each carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .records import MAX_NOTICE, MAX_RECORD

_ROOT = "swarm-node/1"


@dataclass(frozen=True)
class Topic:
    """A topic name with the kind and size of what may be said on it."""

    name: str
    carries: Literal["record", "notice"]
    max_bytes: int


def results(task: bytes) -> Topic:
    """Every result of one task."""
    return Topic(f"{_ROOT}/{task.hex()}/results", "record", MAX_RECORD)


def verifications(task: bytes) -> Topic:
    """Every verification of one task."""
    return Topic(f"{_ROOT}/{task.hex()}/verifications", "record", MAX_RECORD)


def notices(task: bytes) -> Topic:
    """Hellos and leads of one task."""
    return Topic(f"{_ROOT}/{task.hex()}/notices", "notice", MAX_NOTICE)


# Swarm-wide: kept results of every task, so that an H100's node hears what laptops found and the other way round.
WINS = Topic(f"{_ROOT}/wins", "record", MAX_RECORD)


def of_task(task: bytes) -> tuple[Topic, ...]:
    """All topics that a node working on `task` joins."""
    return results(task), verifications(task), notices(task), WINS
