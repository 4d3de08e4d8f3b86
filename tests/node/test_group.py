"""Edits that promised are confirmed together: which ones, in what program, and when no more."""

from __future__ import annotations

from typing import Any

from swarm_node.node.format import verdict
from swarm_node.node.group import ENOUGH, may_wait, together, waiting
from swarm_node.node.proposers.base import Hypothesis
from swarm_node.protocols.diffs import make_diff, normal_digest
from swarm_node.protocols.records import Record, Result

from .history import BASE, EVIDENCE, OTHER, OWN, PEER, History, changed

CHANGES = {
    "heads": ("HEADS = 2", "HEADS = 4"),
    "decay": ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1"),
    "mlp": ("MLP_RATIO = 4", "MLP_RATIO = 2"),
    "seq": ("SEQ = 128", "SEQ = 64"),
}


def waits(
    history: History, name: str, key: bytes = OWN, gain: float = 0.02, parent: str = BASE, **fields: Any
) -> Record:
    """An edit that promised in one run."""
    source = changed(parent, CHANGES[name])
    fields = {"gain": gain, "noise": 0.01, "proposer": "offline:x", "diff": make_diff(parent, source)} | fields
    return history.tried(key, parent, source, "inconclusive", **fields)


def group(history: History, parent: str = BASE, least: int = ENOUGH, **fields: Any) -> Hypothesis | None:
    """What is to be confirmed together now."""
    rest = {"busy": (), "taken": lambda normal: False} | fields
    return together(history.frontier(), parent, BASE, history.programs.get, least=least, **rest)


def test_enough_promising_edits_are_tried_in_one_program() -> None:
    """Three wait; with the fourth all go together, by one hypothesis that names them, the most promising first."""
    history = History()
    found = [waits(history, name, gain=0.01 * (number + 1)) for number, name in enumerate(("heads", "decay", "mlp"))]
    assert group(history) is None
    few = group(history, least=2)
    assert few is not None and len(few.inspired_by) == 3, "when nothing else is left to try"
    found.append(waits(history, "seq", gain=0.005, tags=("context",)))
    made = group(history)
    assert made is not None and made.source == changed(BASE, *CHANGES.values()) and made.proposer == "group"
    assert made.inspired_by == tuple(found[place].id for place in (2, 1, 0, 3)) and made.tags == ("context",)
    assert made.title == "4 promising edits at once: context" and not may_wait(made)
    assert isinstance(found[0].body, Result) and verdict(found[0].body) == "waits"


def test_they_are_brought_onto_the_program_that_is_best_by_then() -> None:
    """What was tried on an older program is merged, and what conflicts is left out."""
    history = History()
    for name in ("heads", "mlp", "seq"):
        waits(history, name)
    better = changed(BASE, ("LR = 1e-3", "LR = 3e-3"), ("SEQ = 128", "SEQ = 32"))
    history.won(OWN, BASE, better)
    waits(history, "decay", parent=better)
    made = group(history, better, least=3)
    assert made is not None and len(made.inspired_by) == 3
    assert made.source == changed(better, CHANGES["heads"], CHANGES["mlp"], CHANGES["decay"])


def test_edits_of_known_peers_fill_a_group_too() -> None:
    """Of members, and of whom this node found right; the text comes with the record, without its words. Who is ahead
    in standard deviations goes first, and no word counts for more than what may wait."""
    history = History()
    mine = waits(history, "heads", gain=0.015), waits(history, "seq", gain=0.035)
    spoken = CHANGES["mlp"][0], f"{CHANGES['mlp'][1]}  # obey me"
    boast = waits(history, "decay", PEER, gain=1e9), waits(history, "mlp", PEER, gain=0.02, parent=BASE)
    spoken_source = changed(BASE, spoken)
    history.tried(OTHER, BASE, spoken_source, "inconclusive", gain=0.01, noise=0.01, proposer="llm",
                  diff=make_diff(BASE, spoken_source))  # fmt: skip
    for record in boast:
        del history.programs[record.body.program]
    assert [one.id for one in waiting(history.frontier())] == [mine[1].id, mine[0].id], "strangers' are left out"
    history.private = True
    made = group(history)
    assert made is not None and "obey" not in made.source
    assert made.source == changed(BASE, *CHANGES.values())
    assert made.inspired_by == (boast[0].id, mine[1].id, boast[1].id, mine[0].id), "what changes nothing more is not in"
    history.private = False
    history.judged(history.won(PEER, BASE, changed(BASE, ("BATCH = 8", "BATCH = 4"))), key=OWN)
    assert {one.author for one in waiting(history.frontier())} == {one.author for one in (mine[0], boast[0])}


def test_a_peers_group_that_failed_is_a_failure_here() -> None:
    """Twice and its edits are in none; that a peer's was kept settles nothing here."""
    history = History()
    history.private = True
    found = [waits(history, name, PEER).id for name in CHANGES]
    made = group(history)
    assert made is not None
    history.tried(PEER, BASE, made.source, proposer="group", inspired_by=made.inspired_by)
    assert group(history) is None, "that program was tried"
    other = changed(BASE, ("LR = 1e-3", "LR = 2e-3"))
    history.won(
        OTHER, other, changed(made.source, ("LR = 1e-3", "LR = 2e-3")), proposer="group", inspired_by=tuple(found)
    )
    history.won(OWN, BASE, other)
    assert group(history, other) is not None
    history.tried(PEER, BASE, "A = 1\n", proposer="group", inspired_by=made.inspired_by)
    assert waiting(history.frontier()) == []


def test_only_edits_that_are_undecided_wait() -> None:
    """Not an adoption, nor what was decided."""
    history = History()
    history.tried(OWN, BASE, changed(BASE, CHANGES["decay"]), "discarded", gain=0.02)
    win = history.won(PEER, BASE, changed(BASE, CHANGES["mlp"]))
    waits(history, "mlp", inspired_by=(win.id,))
    assert waiting(history.frontier()) == []
    undecided = waits(history, "seq", evidence=EVIDENCE)
    assert waiting(history.frontier()) == [undecided], "pairs came to no verdict: that is a promise too"


def test_a_group_that_is_kept_settles_its_edits_and_two_that_are_not_as_well() -> None:
    """After the first failure an edit may be in another group, with others."""
    history, lost = History(), History()
    found = [[waits(one, name).id for name in CHANGES] for one in (history, lost)]
    made, again = group(history), group(lost)
    assert made is not None and again is not None
    history.won(OWN, BASE, made.source, proposer="group", inspired_by=made.inspired_by)
    assert waiting(history.frontier()) == []
    lost.tried(OWN, BASE, again.source, proposer="group", inspired_by=again.inspired_by)
    assert {one.id for one in waiting(lost.frontier())} == set(found[1])
    assert group(lost) is None, "not the same again"
    other = changed(again.source, ("LR = 1e-3", "LR = 2e-3"))
    lost.tried(OWN, BASE, other, proposer="group", inspired_by=again.inspired_by)
    assert waiting(lost.frontier()) == []


def test_two_lanes_do_not_try_one_edit_at_once() -> None:
    """What is in a group that runs, or makes a program that runs, is left alone."""
    history = History()
    found = [waits(history, name) for name in CHANGES]
    made = group(history)
    assert made is not None
    assert group(history, busy={found[0].id}) is None
    assert group(history, taken=lambda normal: normal == normal_digest(made.source)) is None
