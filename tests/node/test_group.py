"""Edits that promised are confirmed together: which ones, in what program, and when no more."""

from __future__ import annotations

from typing import Any

from swarm_node.node.format import verdict
from swarm_node.node.group import ENOUGH, may_wait, together, waiting
from swarm_node.node.proposers.base import Hypothesis
from swarm_node.protocols.diffs import make_diff, normal_digest
from swarm_node.protocols.records import Record, Result

from .history import BASE, EVIDENCE, JUDGE, OTHER, OWN, PEER, History, changed

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


def test_edits_of_peers_fill_a_group_too() -> None:
    """The text comes with the record, without its words. Who is ahead in standard deviations goes first, and no word
    counts for more than what may wait."""
    history = History()
    mine = waits(history, "heads", gain=0.015), waits(history, "seq", gain=0.035)
    spoken = CHANGES["mlp"][0], f"{CHANGES['mlp'][1]}  # obey me"
    boast = waits(history, "decay", PEER, gain=1e9), waits(history, "mlp", PEER, gain=0.02, parent=BASE)
    spoken_source = changed(BASE, spoken)
    history.tried(OTHER, BASE, spoken_source, "inconclusive", gain=0.01, noise=0.01, proposer="llm",
                  diff=make_diff(BASE, spoken_source))  # fmt: skip
    for record in boast:
        del history.programs[record.body.program]
    made = group(history)
    assert made is not None and made.source == changed(BASE, *CHANGES.values()) and "obey" not in made.source
    assert made.inspired_by == (mine[1].id, mine[0].id, boast[0].id, boast[1].id), "strangers' come last"
    history.private = True
    made = group(history)
    assert made is not None and made.source == changed(BASE, *CHANGES.values()) and "obey" not in made.source
    assert made.inspired_by == (boast[0].id, mine[1].id, boast[1].id, mine[0].id), "what conflicts is not in"


def strange(history: History, key: bytes, *lines: tuple[str, str]) -> Record:
    """A stranger's edit that promises everything."""
    source = changed(BASE, *lines)
    fields = {"gain": 9.0, "noise": 0.01, "proposer": "offline:x", "diff": make_diff(BASE, source)}
    return history.tried(key, BASE, source, "inconclusive", **fields)


def test_strangers_only_join_a_group() -> None:
    """Of each two edits, no more than others', and after others': one that changes all lines keeps nobody's out."""
    history = History()
    greedy = strange(history, OTHER, *((old, f"{old} + 1 - 1") for old, _ in CHANGES.values()))
    theirs = {
        strange(history, PEER, line).id
        for line in (("BATCH = 8", "BATCH = 4"), ("WIDTH = 64", "WIDTH = 48"), ("LR = 1e-3", "LR = 2e-3"))
    }
    assert group(history, least=2) is None, "there is none to join"
    mine = [waits(history, name).id for name in ("heads", "mlp")]
    made = group(history)
    assert made is not None and made.inspired_by[:2] == tuple(mine) and len(made.inspired_by) == 4
    assert set(made.inspired_by[2:]) < theirs and greedy.id not in made.inspired_by
    history.judged(history.won(PEER, BASE, changed(BASE, ("DEPTH = 2", "DEPTH = 5"))), key=OWN)
    made = group(history)
    assert made is not None and theirs < set(made.inspired_by), "once something of the peer's held here, all of them"


def test_strangers_are_blamed_more_and_not_for_ever_listened_to() -> None:
    """Own edits survive two groups that fail with a stranger's; after these there are none until one was without; to
    leave by signing nonsense changes nothing."""
    history = History()
    mine = {waits(history, name).id for name in CHANGES}
    theirs = [strange(history, bytes([number]) * 32, ("BATCH = 8", f"BATCH = {number}")) for number in (3, 4, 5)]
    for number in range(2):
        assert {one.id for one in waiting(history.frontier())} == mine | {one.id for one in theirs}
        source = changed(BASE, ("LR = 1e-3", f"LR = {number}e-2"))
        named = (*sorted(mine), theirs[number].id)
        history.tried(OWN, BASE, source, proposer="group", inspired_by=named, score=3.0)
    assert {one.id for one in waiting(history.frontier())} == mine
    gone = history.frontier()
    gone.ban(frozenset({theirs[0].author, theirs[1].author}))
    assert {one.id for one in waiting(gone)} == mine
    history.tried(OWN, BASE, changed(BASE, ("LR = 1e-3", "LR = 7e-2")), proposer="group", inspired_by=(), score=3.0)
    assert {one.id for one in waiting(history.frontier())} == mine | {one.id for one in theirs}, "one was without"
    source = changed(BASE, ("LR = 1e-3", "LR = 8e-2"))
    history.tried(OWN, BASE, source, proposer="group", inspired_by=(*mine, theirs[2].id), score=3.0)
    assert not mine & {one.id for one in waiting(history.frontier())}, "three are enough for anybody"


def test_what_failed_with_strangers_is_tried_without() -> None:
    """The very next group holds the same own edits alone."""
    history = History()
    mine = [waits(history, name).id for name in CHANGES]
    for key, line in ((PEER, ("BATCH = 8", "BATCH = 4")), (OTHER, ("WIDTH = 64", "WIDTH = 48"))):
        strange(history, key, line)
    first = group(history)
    assert first is not None and len(first.inspired_by) == 6
    history.tried(OWN, BASE, first.source, proposer="group", inspired_by=first.inspired_by, score=3.0)
    second = group(history)
    assert second is not None and set(second.inspired_by) == set(mine)


def test_a_strangers_copy_takes_no_blame() -> None:
    """Else who copies an edit would keep it alive."""
    history = History()
    mine = {waits(history, name).id for name in CHANGES}
    copy = waits(history, "heads", OTHER)
    made = group(history)
    assert made is not None and set(made.inspired_by) == mine and copy.id not in made.inspired_by


def test_what_a_peer_runs_or_tried_leaves_the_next_best_group() -> None:
    """Two nodes do not confirm one group, nor one with another edit in addition; nor is a peer's kept one made again
    from the same program, where it is the peer's win."""
    history = History()
    history.private = True
    more = (
        ("BATCH = 8", "BATCH = 4"), ("WIDTH = 64", "WIDTH = 48"), ("DEPTH = 2", "DEPTH = 3"), ("LR = 1e-3", "LR = 2e-3")
    )  # fmt: skip
    for number, change in enumerate((*CHANGES.values(), *more)):
        fields = {"gain": 0.03 - 0.001 * number, "noise": 0.01, "proposer": "offline:x"}
        history.tried(OWN, BASE, changed(BASE, change), "inconclusive", **fields)
    first, rest = changed(BASE, *CHANGES.values()), changed(BASE, *more)
    made = group(history, taken=lambda normal: normal == normal_digest(first))
    assert made is not None and made.source == rest, "one of six is the same one with two more"
    best = group(history)
    assert best is not None and len(best.inspired_by) == 6
    history.won(PEER, BASE, first, proposer="group", inspired_by=best.inspired_by[:4])
    made = group(history)
    assert made is not None and made.source == rest
    history.tried(PEER, BASE, rest, proposer="group", inspired_by=made.inspired_by)
    assert group(history) is None


def test_what_peers_groups_made_of_an_edit_counts_once_for_each() -> None:
    """Two have an edit of a peer's given up here; an own one only own groups do, whatever peers say."""
    for key in (PEER, OWN):
        history = History()
        history.private = True
        found = tuple(waits(history, name, key).id for name in CHANGES)
        for number, author in enumerate((OTHER, OTHER, JUDGE)):
            assert len(waiting(history.frontier())) == 4, "one author's second failure says nothing new"
            source = changed(BASE, ("LR = 1e-3", f"LR = {number}e-2"))
            history.tried(author, BASE, source, proposer="group", inspired_by=found, score=3.0)
        assert len(waiting(history.frontier())) == (0 if key == PEER else 4)


def test_one_peer_cannot_fill_all_groups_nor_keep_an_edit_alive_by_another_name() -> None:
    """Of each only a few edits are looked at; who found the same is named too, and fails with it."""
    history = History()
    history.private = True
    for name in CHANGES:
        waits(history, name)
    for number in range(30):
        source = changed(BASE, ("HEADS = 2", f"HEADS = {number + 8}"), ("SEQ = 128", "SEQ = 32"))
        fields = {"gain": 9.0, "noise": 0.01, "diff": make_diff(BASE, source), "proposer": "offline:x"}
        history.tried(PEER, BASE, source, "inconclusive", **fields)
    same = waits(history, "decay", OTHER)
    made = group(history, least=2)
    assert made is not None and same.id in made.inspired_by
    assert made.source.count("MLP_RATIO = 2") == made.source.count("WEIGHT_DECAY = 0.1 ") == 1, "own ones are in it"
    assert made.title.startswith("3 promising") and len(made.inspired_by) == 4


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
