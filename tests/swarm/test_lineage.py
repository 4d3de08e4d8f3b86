"""Who built on what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swarm_node.swarm.index import StoredLineage
from swarm_node.swarm.ledger import Added, Ledger
from swarm_node.swarm.lineage import Lineage, adoptions

from .logs import KEYS, Log, result


def test_adoption_is_read_from_lineage_and_not_from_likeness(tmp_path: Path) -> None:
    """Who rebased a win, and whoever built on that, has adopted it; who found the same by itself has not."""
    ann, bob, cid, dan = (Log(KEYS[number]) for number in range(4))
    win = ann.say(result("kept", 1))
    bob.seq = 10
    rebased = bob.say(result("kept", 12, parent=11, inspired_by=(win.id,)))
    on_it = bob.say(result("kept", 13, parent=12))
    whole = cid.say(result("kept", 13, parent=0, inspired_by=(on_it.id,)))
    alike = dan.say(result("kept", 1))
    records = [win, rebased, on_it, whole, alike]
    found = adoptions(records)
    assert [author for author, _ in found[win.id]] == [cid.author, bob.author]  # cid's clock is at 1, bob's at 11
    assert found[on_it.id] == [(cid.author, 1)] and rebased.id in found
    assert alike.id not in found
    with Ledger.open(tmp_path / "ledger") as ledger:  # one that is not in memory says the same
        for record in records:
            assert ledger.add(record, received_ms=1) is Added.NEW
        stored = StoredLineage(ledger.index)
        assert {one.id: stored.adopters(one) for one in records} == {one.id: found.get(one.id, []) for one in records}


def test_who_merges_a_merge_has_what_is_in_it() -> None:
    """But not what it was made from: only the change of a result goes with it."""
    ann, bob, cid, dan = (Log(KEYS[number]) for number in range(4))
    win = ann.say(result("kept", 1))
    merged = bob.say(result("kept", 12, parent=11, inspired_by=(win.id,)))
    merged_again = cid.say(result("kept", 23, parent=22, inspired_by=(merged.id,)))
    next_step = bob.say(result("kept", 13, parent=12))
    step_alone = dan.say(result("kept", 34, parent=33, inspired_by=(next_step.id,)))
    found = adoptions([win, merged, merged_again, next_step, step_alone])
    assert {author for author, _ in found[win.id]} == {bob.author, cid.author}
    assert [author for author, _ in found[next_step.id]] == [dan.author]


def test_what_a_language_model_was_shown_is_not_adopted() -> None:
    """Unless its answer is that very program."""
    ann, bob = Log(KEYS[0]), Log(KEYS[1])
    win = ann.say(result("kept", 1))
    shown = bob.say(result("kept", 2, inspired_by=(win.id,), proposer="llm"))
    assert adoptions([win, shown]) == {}
    same = bob.say(result("kept", 1, inspired_by=(win.id,), proposer="llm"))
    assert adoptions([win, shown, same]) == {win.id: [(bob.author, 2)]}


def test_ancestors_follow_the_own_line_and_end_in_circles() -> None:
    """Of equal finds the author's own is taken; forged circles of parents do not hang."""
    ann, bob = Log(KEYS[0]), Log(KEYS[1])
    records = [ann.say(result("kept", 1)), bob.say(result("kept", 1)), bob.say(result("kept", 2, parent=1))]
    lineage = Lineage()
    for record in records:
        lineage.add(record)
    assert lineage.ancestors(records[2]) == [records[1]]
    circle = Lineage()
    for record in (ann.say(result("kept", 5, parent=6)), bob.say(result("kept", 6, parent=5))):
        circle.add(record)
        assert len(circle.ancestors(record)) <= 2
    assert len(circle.descendants(record)) == 1 and not circle.is_tainted(record, lambda one: False)


def test_who_built_on_one_of_many_equal_finds_is_read_once(tmp_path: Path) -> None:
    """Hundreds of records of one author between two programs, each made from the other: each is read about once."""
    ann, bob, count = Log(KEYS[0]), Log(KEYS[1]), 100
    there = [ann.say(result("kept", 1, parent=2, title=f"{number}")) for number in range(count)]
    back = [bob.say(result("kept", 2, parent=1, title=f"{number}")) for number in range(count)]
    with Ledger.open(tmp_path / "ledger") as ledger:
        for record in (*there, *back):
            ledger.add(record, received_ms=1)
        read, usual = 0, ledger.index._rows

        def counted(*given: Any) -> list[tuple[Any, ...]]:
            nonlocal read
            read += len(found := usual(*given))
            return found

        ledger.index._rows = counted
        assert StoredLineage(ledger.index).adopters(there[0]) == [(bob.author, 1)]
        assert read < 10 * count
    in_memory = Lineage()
    for record in (*there, *back):
        in_memory.add(record)
    assert in_memory.adopters(there[0]) == [(bob.author, 1)] and in_memory.adopters(there[1]) == []
