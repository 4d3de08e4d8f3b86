"""Which task a node works on."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarm_node.node.choice import Choice, choose_task
from swarm_node.node.tasks import is_other_text, remember
from swarm_node.protocols.errors import UsageError
from swarm_node.protocols.invites import Invite
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks

ADDRESS = "/ip4/127.0.0.1/tcp/1/p2p/x"
LAST = tasks.load("gpt-cpu", "short", bytes(32)).spec


def invite(task: str) -> Invite:
    return Invite(addresses=(ADDRESS,), task=task, task_id=bytes(32))


@pytest.mark.parametrize(
    ("task", "size", "invited", "choice"),
    [
        (None, None, "gpt-cpu/long", Choice("gpt-cpu", "long", "from the invite")),
        ("gpt-cpu", "long", "gpt-cpu/long", Choice("gpt-cpu", "long", "from the invite")),
        ("gpt-cpu", None, "gpt-cpu/long", Choice("gpt-cpu", "long", "from the invite")),
        (None, "30", "gpt-cpu/long", Choice("gpt-cpu", "30", "as asked", "gpt-cpu/long")),
        ("gpt-cpu", None, "gpt-moon/long", Choice("gpt-cpu", None, "as asked", "gpt-moon/long")),
        ("gpt-cpu", "long", "gpt-moon/long", Choice("gpt-cpu", "long", "as asked", "gpt-moon/long")),
        (None, None, None, Choice("gpt-cpu", "short", "as before")),
        (None, "short", None, Choice("gpt-cpu", "short", "as asked")),
    ],
)
def test_what_was_asked_goes_before_the_invite_and_that_before_the_past(
    task: str | None, size: str | None, invited: str | None, choice: Choice
) -> None:
    """An invite for another task is one to the same swarm; what it is for is said."""
    assert choose_task(task, size, invite(invited) if invited else None, LAST) == choice


def test_a_new_home_without_an_invite_finds_its_size_by_calibration() -> None:
    """It begins with the smallest."""
    choice = choose_task(None, None, None, None)
    assert choice.size is None and choice.start == "short" and not choice.invited


def test_an_invite_to_a_task_of_another_version_says_how_to_take_part_all_the_same() -> None:
    """Such a swarm has room for the tasks of this version."""
    with pytest.raises(UsageError, match="does not have") as error:
        choose_task(None, None, invite("gpt-moon/long"), LAST)
    assert "--task gpt-cpu" in error.value.fix


def test_a_start_without_the_text_of_before_is_noticed(tmp_path: Path) -> None:
    """It is another task, though its name and size are the same: whoever forgot --corpus is told."""
    with Ledger.open(tmp_path / "ledger") as ledger:
        assert not is_other_text(ledger, LAST)  # a new home
        remember(ledger, LAST)
        assert not is_other_text(ledger, LAST)
        assert is_other_text(ledger, tasks.load("gpt-cpu", "short", bytes([1]) * 32).spec)
        assert not is_other_text(ledger, tasks.load("gpt-cpu", "long", bytes([1]) * 32).spec)  # it was asked for
