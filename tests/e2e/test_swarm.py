"""The main job: a bootstrap and joiners, real processes, real training at a tiny budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import TINY, NodeProcess

Start = Callable[..., NodeProcess]
Records = list[dict[str, Any]]
LOCAL = ("--host", "127.0.0.1", "--port", "0")


def kept(records: Records) -> Records:
    return [record for record in records if record["kind"] == "result" and record["body"]["outcome"] == "kept"]


def heads(records: Records, author: str) -> dict[tuple[int, int], str]:
    """(epoch, seq) -> id of one author's records."""
    return {(r["epoch"], r["seq"]): r["id"] for r in records if r["author"] == author}


def second_author(records: Records, first: str) -> str:
    """The other of two nodes."""
    return next(record["author"] for record in records if record["author"] != first)


def test_a_win_spreads_and_is_built_upon(start: Start) -> None:
    """A node finds a win; the other sees it, gets it into its prompt, re-runs it unasked, tries it on its own best;
    a latecomer ends with everything."""
    boot = start("boot", "bootstrap", *LOCAL, "--size", TINY)
    invite = boot.wait_for(r"swarm-node join (swarm1\S+)")[1]
    first = start("first", "join", invite, *LOCAL, "--proposer-seed", "339")
    finder_lines = first.wait_for(r"#\d+ +KEEP", 240)
    assert finder_lines
    win = kept(first.records())[0]

    second = start("second", "join", invite, *LOCAL, "--proposer-seed", "60")
    second.wait_for("peers")
    second.wait_for_records(lambda seen: any(record["id"] == win["id"] for record in seen))
    added = [line[1:].strip() for line in win["body"]["diff"].splitlines() if line[:1] == "+" and line[:3] != "+++"]
    prompt = second.command("prompt")
    assert any(len(line) > 8 and line.split("#")[0].strip() in prompt for line in added), prompt
    assert win["body"]["title"] not in prompt

    assert first.stop() == 130  # what it found is in the swarm; and what waits for no core is done sooner

    def rerun(seen: Records) -> bool:
        return any(
            record["kind"] == "result"
            and record["author"] != win["author"]
            and win["id"] in record["body"]["inspired_by"]
            for record in seen
        )

    history = second.wait_for_records(rerun, 240)
    checks = [r for r in history if r["kind"] == "verification" and r["body"]["result"] == win["id"]]
    assert {check["author"] for check in checks} >= {second_author(history, win["author"])}
    assert {check["body"]["outcome"] for check in checks} <= {"confirmed", "inconclusive"}
    assert all(check["body"]["runs"] for check in checks)

    late = start("late", "bootstrap", "--invite", invite, *LOCAL)
    wanted = {record["id"] for record in history}
    late.wait_for("Ctrl-C to stop")
    late.wait_for_records(lambda seen: wanted <= {record["id"] for record in seen})
    assert second.stop() == late.stop() == 130


@pytest.mark.long
def test_a_killed_node_comes_back_and_goes_on(start: Start) -> None:
    """kill -9 in the middle of a run, in a swarm: the same history, no sequence number twice, the loop goes on."""
    boot = start("boot", "bootstrap", *LOCAL, "--size", TINY)
    invite = boot.wait_for(r"swarm-node join (swarm1\S+)")[1]
    node = start("node", "join", invite, *LOCAL, "--proposer-seed", "60")
    node.wait_for("peers")
    before = node.wait_for_records(lambda seen: len(seen) >= 2, 240)
    own = before[0]["author"]
    node.wait_for(r"running ", 60, after=len(node.lines))
    before = node.records()
    node.kill()
    again = start("node", "join", *LOCAL, "--proposer-seed", "60")
    again.wait_for("peers")
    after = again.wait_for_records(lambda seen: len(heads(seen, own)) > len(heads(before, own)), 120)
    old, new = heads(before, own), heads(after, own)
    assert old.items() <= new.items()
    assert [seq for _, seq in sorted(new)] == list(range(1, len(new) + 1))
    assert len({epoch for epoch, _ in new}) == 1
    boot.wait_for_records(lambda seen: {record["id"] for record in after} <= {record["id"] for record in seen})
    assert again.stop() == 130
