"""The profile's text only: no macOS machine has run it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox.policy import Policy
from swarm_node.trainer.sandbox.seatbelt import profile

from .conftest import Place


def test_profile_denies_by_default_and_names_every_path_once(own_policy: Policy, place: Place) -> None:
    """Nothing about the network, forks or mach services is allowed, and only the scratch directory is written."""
    lines = profile(own_policy).splitlines()
    assert lines[1] == "(deny default)"
    assert not [line for line in lines if any(word in line for word in ("network", "fork", "mach", "file*"))]
    written = [line for line in lines if "write" in line and "/dev/null" not in line]
    assert len(written) == 1 and str(place.own) in written[0]


def test_path_cannot_add_a_rule(own_policy: Policy, tmp_path: Path) -> None:
    """A quote in a path is quoted, a line end refused."""
    hostile = replace(own_policy, rw=(str(tmp_path / '")) (allow network*) (x "'),))
    assert '\\")) (allow network*)' in profile(hostile)
    with pytest.raises(ValueError, match="control"):
        profile(replace(own_policy, rw=(str(tmp_path / "a\n(allow default)"),)))
