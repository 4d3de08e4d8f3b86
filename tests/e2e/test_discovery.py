"""Nodes of one network find each other with nothing to type."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import TINY, NodeProcess

ALONE = ("bootstrap", "--host", "127.0.0.1", "--port", "0", "--size", TINY)
LAN = {"SWARM_NODE_LAN": "true"}


@pytest.mark.long
def test_nodes_of_one_network_find_each_other(start: Callable[..., NodeProcess]) -> None:
    """Without an invite; and again after one was killed and came back at another port. One that does not want to be
    found is not."""
    first = start("first", *ALONE, env=LAN)
    first.wait_for("looking for others on this network")
    shy = start("shy", *ALONE, "--no-lan", env=LAN)
    shy.wait_for("Ctrl-C to stop")
    second = start("second", *ALONE, env=LAN)
    first.wait_for(r"peers +\+ \S+ connected \(1 now\)", 20)
    second.wait_for(r"peers +\+ \S+ connected \(1 now\)", 20)
    second.kill()
    mark = len(first.lines)
    again = start("second", *ALONE, env=LAN)
    first.wait_for(r"peers +\+ \S+ connected", 60, after=mark)
    again.wait_for(r"peers +\+ \S+ connected", 20)
    assert not any("connected" in line for line in shy.lines)
    assert shy.stop() == 130
