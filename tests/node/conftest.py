"""Situations for proposers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.proposers.base import Situation
from swarm_node.trainer import task as tasks

sys.path.insert(0, str(Path(__file__).parent.parent))  # fake_openai.py


@pytest.fixture
def situation() -> Callable[..., Situation]:
    """Builds a situation on the real baseline; any field can be given."""
    task = tasks.load("gpt-cpu", "short", bytes(32))

    def make(**fields: Any) -> Situation:
        base: dict[str, Any] = {
            "task": task.spec, "brief": task.brief, "machine": "8 cores", "parent": task.baseline, "parent_score": 3.2,
            "noise": 0.01, "trials": (), "ideas": (), "tried": lambda source: False,
        }  # fmt: skip
        return Situation(**(base | fields))

    return make
