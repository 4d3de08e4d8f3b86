"""A swarm on its own text: who is invited gets it from the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import TINY, NodeProcess

Start = Callable[..., NodeProcess]
LOCAL = ("--host", "127.0.0.1", "--port", "0")
INVITE = r"swarm-node join (swarm1\S+)"
FETCHED, KEPT = r"corpus +the swarm's own text, from its nodes", r"corpus +the text that this home had before"


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, ...]:
    """The flags of a swarm on some text that nobody else has."""
    words, text = random.Random(1), tmp_path / "text.txt"
    text.write_text("\n".join(f"{words.getrandbits(64):x} {words.getrandbits(64):x}" for _ in range(60_000)))
    return ("--size", TINY, "--corpus", str(text))


@pytest.mark.long
def test_the_swarms_own_text_comes_with_the_invite(start: Start, own: tuple[str, ...]) -> None:
    """Only where it is shared; who got it gives it to the next one when its owner is gone, and finds it again."""
    owner = start("owner", "bootstrap", *LOCAL, *own)
    refused = start("refused", "bootstrap", "--invite", owner.wait_for(INVITE)[1], *LOCAL)
    refused.wait_for("who has it starts its node with --share-corpus")
    assert refused.process.wait(20) == 5
    assert owner.stop() == 130

    owner = start("owner", "bootstrap", *LOCAL, *own, "--share-corpus")
    first = start("first", "bootstrap", "--invite", owner.wait_for(INVITE)[1], *LOCAL)
    first.wait_for(FETCHED)
    invite = first.wait_for(INVITE)[1]
    assert owner.stop() == 130

    second = start("second", "bootstrap", "--invite", invite, *LOCAL)
    second.wait_for(FETCHED)
    second.wait_for("Ctrl-C to stop")
    assert second.stop() == first.stop() == 130
    again = start("second", "bootstrap", *LOCAL)
    again.wait_for(KEPT)
    again.wait_for(rf"task +gpt-cpu, {TINY}")
    assert again.stop() == 130


@pytest.mark.long
def test_a_node_trains_on_text_that_it_was_given(start: Start, own: tuple[str, ...]) -> None:
    """As on its own: the baseline runs, in the sandbox."""
    owner = start("owner", "bootstrap", *LOCAL, *own, "--share-corpus")
    node = start("node", "join", owner.wait_for(INVITE)[1], *LOCAL)
    node.wait_for(FETCHED)
    node.wait_for(r"baseline +\d", 120)
    assert node.stop() == owner.stop() == 130
