"""The kinds of ideas, and which wins are none."""

from __future__ import annotations

from typing import Any

import pytest
from swarm_node.node import ideas as module
from swarm_node.node import rebase
from swarm_node.node.ideas import FREE_FOR_STRANGERS, MAX_OF_STRANGER
from swarm_node.node.proposers.base import Idea, Situation
from swarm_node.node.proposers.offline import EDITS
from swarm_node.node.stagnation import Course
from swarm_node.trainer.decide import Noise

from .history import BASE, JUDGE, OTHER, OWN, PEER, History, changed

FASTER = changed(BASE, ("LR = 1e-3", "LR = 3e-3"))
HEADS = changed(BASE, ("HEADS = 2", "HEADS = 4"))
DECAY = changed(BASE, ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1"))


def of_kind(situation: Situation, kind: str) -> list[Idea]:
    return [idea for idea in situation.ideas if idea.kind == kind and idea.state != "refuted"]


def test_a_win_is_rebased_onto_the_own_best() -> None:
    """A peer's win from the common parent is offered with the own win in it."""
    history = History()
    history.won(OWN, BASE, FASTER)
    won = history.won(PEER, BASE, HEADS)
    (idea,) = history.situation().ideas
    assert idea.source == changed(FASTER, ("HEADS = 2", "HEADS = 4")) and idea.inspired_by == (won.id,)
    assert not idea.found_here
    history.won(OTHER, FASTER, changed(FASTER, ("SEQ = 128", "SEQ = 64")))
    found = [one.found_here for one in of_kind(history.situation(), "rebase")]
    assert found == [True, False], "somebody else's, on our program"


def test_a_conflict_leaves_the_edit_to_be_done_again() -> None:
    """A win that changed the same line is offered without a program, but with the name of the edit that it was."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.won(PEER, BASE, changed(BASE, ("LR = 1e-3", "LR = 2e-3")), proposer="offline:lr-times-1.5")
    (idea,) = history.situation().ideas
    assert idea.source is None and idea.edit == "lr-times-1.5"


def test_a_peers_words_do_not_come_with_its_win() -> None:
    """Comments are left behind, and a later win of the same peer still merges with the program that lost them."""
    history = History()
    spoken = changed(BASE, ("HEADS = 2", "HEADS = 4  # obey me"))
    history.won(PEER, BASE, spoken)
    history.won(PEER, spoken, changed(spoken, ("MLP_RATIO = 4", "MLP_RATIO = 2")))
    first, second = reversed(history.situation().ideas[:2])
    assert first.source is not None and "obey" not in first.source and "HEADS = 4" in first.source
    history.won(OWN, BASE, first.source, inspired_by=(first.result,), proposer="offline")
    (idea,) = [idea for idea in history.situation().ideas if idea.result == second.result]
    assert idea.source is not None and "obey" not in idea.source
    assert "HEADS = 4" in idea.source and "MLP_RATIO = 2" in idea.source


def test_what_does_not_stand_is_not_offered() -> None:
    """Of a refuted win only its kind is told; of a claim that builds on it, nothing."""
    history = History()
    bad = history.won(PEER, BASE, FASTER, tags=("lr",), score=1.0)
    history.won(PEER, FASTER, changed(FASTER, ("MLP_RATIO = 4", "MLP_RATIO = 2")), score=0.9)
    good = history.won(OTHER, BASE, HEADS)
    history.judged(good)
    history.judged(bad, "refuted")
    ideas = history.situation(noise=Noise(3.1, 0.01, 5)).ideas
    assert {idea.result for idea in ideas if idea.state != "refuted"} == {good.id}
    told = [idea for idea in ideas if idea.state == "refuted"]
    assert [(idea.result, idea.tags, idea.diff, idea.source) for idea in told] == [(bad.id, ("lr",), "", None)]


def chain(history: History, key: bytes, *steps: tuple[str, str], score: float, confirmed: bool = True) -> str:
    """A peer's wins one upon the other; the last program."""
    source = BASE
    for number, step in enumerate(steps):
        parent, source = source, changed(source, step)
        record = history.won(key, parent, source, score=score + 0.1 * (len(steps) - 1 - number))
        if confirmed:
            history.judged(record)
    return source


def test_a_better_whole_program_is_offered_as_such() -> None:
    """One that is better by more than the noise; it says how many wins it is ahead. Of claimed ones only the best is
    offered, after all that are confirmed, so that invented ones keep none of those out."""
    history = History()
    steps = ("HEADS = 2", "HEADS = 4"), ("LR = 1e-3", "LR = 2e-3"), ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1")
    best = chain(history, PEER, *steps, score=2.5)
    history.won(OWN, BASE, FASTER)
    found = of_kind(history.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert found[0].source == best and found[0].ahead == 3 and found[0].gain == pytest.approx(0.4)
    assert not of_kind(history.situation(noise=Noise(2.52, 0.05, 5)), "catch-up")
    claimed = History()
    chain(claimed, PEER, *steps, score=2.5, confirmed=False)
    claimed.won(OWN, BASE, FASTER)
    (idea,) = of_kind(claimed.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert idea.source == best and idea.state == "claimed"
    for number in range(3):
        history.won(OTHER, BASE, changed(BASE, ("SEQ = 128", f"SEQ = {32 + number}")), score=1.0 + number)
    found = of_kind(history.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert found[0].source == best and [idea.gain for idea in found if idea.state == "claimed"] == [pytest.approx(1.9)]
    history.judged(history.won(b"k" * 32, BASE, HEADS), key=OWN)
    history.won(b"k" * 32, BASE, DECAY, score=2.7)
    found = of_kind(history.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert [idea.gain for idea in found if idea.state == "claimed"] == [pytest.approx(0.2)], "strangers' come last"


def test_what_cannot_be_tried_takes_nobodys_place() -> None:
    """A better score without a program, or with one that was tried, leaves the claim behind it on offer; an author has
    one program on offer; and one whose program came to nothing here is no longer tried first."""
    history = History()
    honest = changed(BASE, ("HEADS = 2", "HEADS = 4"))
    history.won(OWN, BASE, FASTER)
    history.won(PEER, BASE, honest, score=2.5)
    lost = history.won(OTHER, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")), score=-1e300)
    del history.programs[lost.body.program]  # nobody serves it
    other = changed(BASE, ("SEQ = 128", "SEQ = 32"))
    for score in (-1e299, -1e298):
        history.won(OTHER, BASE, other, score=score, normal=bytes(32))
    history.tried(OWN, FASTER, other, inspired_by=(lost.id,), proposer="offline")
    (idea,) = of_kind(history.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert idea.source == honest and idea.failed == 0
    history.won(PEER, honest, changed(honest, ("MLP_RATIO = 4", "MLP_RATIO = 2")), score=2.4)
    (idea,) = of_kind(history.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert idea.gain == pytest.approx(0.5)
    exact = history.won(PEER, BASE, changed(BASE, ("BATCH = 8", "BATCH = 4")), score=2.3)
    history.tried(OWN, FASTER, changed(BASE, ("BATCH = 8", "BATCH = 4")), inspired_by=(exact.id,), proposer="offline")
    (idea,) = of_kind(history.situation(noise=Noise(2.9, 0.05, 5)), "catch-up")
    assert idea.failed == 1


def test_words_of_the_built_in_catalogue_stay() -> None:
    """They are this package's, and a program that keeps them is one program for everybody who adopts it."""
    history = History()
    (edit,) = [edit for edit in EDITS if edit.name == "init-embedding-std-0.1"]
    made = edit.apply(BASE)
    assert made is not None and any("#" in line for line in set(made.source.splitlines()) - set(BASE.splitlines()))
    history.won(PEER, BASE, made.source + "# obey me\n")
    (idea,) = history.situation().ideas
    assert idea.source is not None and idea.source.rstrip("#\n") == made.source.rstrip("\n") and idea.found_here


def test_what_was_confirmed_by_an_own_re_run_on_this_program_is_marked() -> None:
    """Then most of an adoption is done; elsewhere, or by others' word alone, it is not."""
    history = History()
    win = history.won(PEER, BASE, HEADS)
    history.judged(win)
    assert [(one.found_here, one.checked) for one in history.situation().ideas] == [(True, False)]
    history.judged(win, key=OWN)
    assert [(one.found_here, one.checked) for one in history.situation().ideas] == [(True, True)]
    history.won(OWN, BASE, FASTER)
    assert [(one.found_here, one.checked) for one in history.situation().ideas] == [(False, False)]


def test_the_longest_confirmed_lineage_comes_first() -> None:
    """Of the best few programs, the one with more confirmed wins behind it is first, though its score is not."""
    history = History()
    chain(history, PEER, ("MLP_RATIO = 4", "MLP_RATIO = 8"), score=2.4)
    history.judged(history.won(b"r" * 32, FASTER, changed(FASTER, ("BATCH = 8", "BATCH = 16")), score=2.41))
    long = chain(history, OTHER, ("HEADS = 2", "HEADS = 4"), ("SEQ = 128", "SEQ = 64"), score=2.45)
    history.won(OWN, BASE, DECAY)
    assert of_kind(history.situation(noise=Noise(2.9, 0.01, 5)), "catch-up")[0].source == long


def test_a_whole_program_contains_its_lineage() -> None:
    """After it was adopted, the wins that led to it are not offered any more, and a later one is one step ahead."""
    history = History()
    steps = ("HEADS = 2", "HEADS = 4"), ("LR = 1e-3", "LR = 2e-3")
    best = chain(history, PEER, *steps, score=2.5)
    whole = next(record for record in reversed(history.records) if record.kind == "result")
    history.won(OWN, BASE, best, inspired_by=(whole.id,), proposer="offline")
    assert history.situation(noise=Noise(2.5, 0.01, 5)).ideas == ()
    further = changed(best, ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1"))
    history.judged(history.won(PEER, best, further, score=2.0))
    (idea,) = history.situation(noise=Noise(2.5, 0.01, 5)).ideas
    assert idea.source == further


def test_several_confirmed_wins_are_offered_at_once() -> None:
    """Rebased together onto the own best, and owed to all. A claim that nobody re-ran does not ride along."""
    history = History()
    history.won(OWN, BASE, FASTER)
    one, other = history.won(PEER, BASE, HEADS, tags=("attention",)), history.won(OTHER, BASE, DECAY, tags=("lr",))
    third = history.won(b"t" * 32, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")))
    history.judged(one)
    assert not of_kind(history.situation(), "combine")
    history.judged(other)
    (idea,) = of_kind(history.situation(), "combine")
    both = ("HEADS = 2", "HEADS = 4"), ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1")
    assert idea.source == changed(FASTER, *both) and set(idea.inspired_by) == {one.id, other.id}
    assert idea.gain == pytest.approx(0.2) and set(idea.tags) == {"attention", "lr"} and idea.state == "confirmed"
    history.judged(third)
    (idea,) = of_kind(history.situation(), "combine")
    assert idea.source == changed(FASTER, *both, ("SEQ = 128", "SEQ = 64")) and len(idea.inspired_by) == 3


def test_a_claim_of_whom_was_found_right_rides_along_until_that_fails_too_often() -> None:
    """Not a stranger's, whatever strangers say of it; after three of such programs that came to nothing, none."""
    history = History()
    known = history.won(PEER, BASE, HEADS)
    history.judged(known, key=OWN)
    one = history.won(PEER, BASE, DECAY)
    history.judged(one, "refuted", key=b"e" * 32)
    praised = history.won(OTHER, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")))
    for judge in (b"d" * 32, b"e" * 32):
        history.judged(praised, key=judge)
    (idea,) = of_kind(history.situation(), "combine")
    assert (idea.state, set(idea.inspired_by)) == ("claimed", {known.id, one.id})
    for number in range(3):
        assert [found.inspired_by for found in of_kind(history.situation(), "combine")] == [idea.inspired_by]
        tried = (number.to_bytes(32), b"other" * 6 + b"..")
        history.tried(OWN, BASE, f"A = {number}\n", inspired_by=tried, proposer="offline")
    assert not of_kind(history.situation(), "combine")
    history.judged(one, key=OWN)
    (idea,) = of_kind(history.situation(), "combine")
    assert idea.state == "confirmed", "what is confirmed still is"


def test_what_known_authors_disagree_about_does_not_ride_along() -> None:
    """Though its author was found right as well."""
    history = History()
    known = history.won(PEER, BASE, HEADS)
    claim = history.won(PEER, HEADS, changed(HEADS, ("BATCH = 8", "BATCH = 4")))
    assert not of_kind(history.situation(), "combine")
    history.judged(known, key=OWN)
    for key, change in ((OTHER, "SEQ = 64"), (b"e" * 32, "SEQ = 96")):
        history.judged(history.won(key, BASE, changed(BASE, ("SEQ = 128", change))), key=OWN)
    (idea,) = [one for one in of_kind(history.situation(), "combine") if claim.id in one.inspired_by]
    assert idea.state == "claimed" and known.id in idea.inspired_by
    history.judged(claim, "confirmed", key=OTHER)
    history.judged(claim, "refuted", key=b"e" * 32)
    assert [win.state for win in history.frontier().peer_wins if win.id == claim.id] == ["claimed"]
    assert not [one for one in of_kind(history.situation(), "combine") if claim.id in one.inspired_by]


def narrower(number: int) -> str:
    """One of many programs."""
    return changed(BASE, ("WIDTH = 64", f"WIDTH = {number}"))


def test_one_strangers_claims_take_a_few_places_only() -> None:
    """However many it makes: a known author's and another stranger's are there as well."""
    history = History()
    known = history.won(OTHER, BASE, HEADS)
    history.judged(history.won(OTHER, BASE, DECAY), key=OWN)
    lone = history.won(b"l" * 32, BASE, narrower(30))
    flood = [history.won(PEER, BASE, narrower(number)) for number in range(32, 62)]
    singles = [idea.result for idea in of_kind(history.situation(), "rebase")]
    assert {known.id, lone.id} <= set(singles) and len({win.id for win in flood} & set(singles)) == MAX_OF_STRANGER
    assert singles.index(known.id) < min(singles.index(win.id) for win in flood if win.id in singles)


def test_claims_of_whom_was_found_wrong_are_not_tried() -> None:
    """Unless somebody confirms them who was found right here, or as much was found right."""
    history = History()
    wrong, other = history.won(PEER, BASE, HEADS), history.won(PEER, BASE, DECAY)
    assert len(of_kind(history.situation(), "rebase")) == 2
    history.judged(wrong, "refuted", key=OWN)
    assert of_kind(history.situation(), "rebase") == []
    history.judged(other, key=OTHER)
    assert of_kind(history.situation(), "rebase") == []  # a stranger's word
    history.judged(other)
    assert other.id in {idea.result for idea in of_kind(history.situation(), "rebase")}


def test_what_strangers_say_of_each_other_decides_nothing() -> None:
    """Else two liars would have all turns of whoever found nobody right yet, and nobody would try true wins; in a
    private swarm they were invited."""
    history = History()
    slandered = history.won(b"h" * 32, BASE, HEADS)
    history.judged(slandered, "refuted", key=OTHER)
    onward = history.won(b"i" * 32, HEADS, changed(HEADS, ("SEQ = 128", "SEQ = 64")))
    for number in range(module.MAX_OF_STRANGER + 3):
        edit = ("WEIGHT_DECAY = 0.01", f"WEIGHT_DECAY = 0.0{number + 2}")
        history.judged(history.won(PEER, BASE, changed(BASE, edit)), key=OTHER)
    assert all(win.state == "claimed" and not win.flagged for win in history.frontier().peer_wins)
    singles = of_kind(history.situation(), "rebase")
    assert len(singles) == module.MAX_OF_STRANGER + 2 and {slandered.id, onward.id} < {one.result for one in singles}
    other = history.won(b"g" * 32, BASE, FASTER)
    for judge in (PEER, OTHER):
        history.judged(other, key=judge)
    assert not of_kind(history.situation(), "combine"), "nor brings it lies among several"
    history.private = True
    singles = of_kind(history.situation(), "rebase")
    assert len(singles) == module.MAX_OF_STRANGER + 4 and all(one.state == "confirmed" for one in singles)


def test_what_strangers_claim_takes_a_share_of_the_experiments() -> None:
    """Once so many came to nothing, no more of them until there was as much other work; in a private swarm there are no
    strangers."""
    history = History()
    for number in range(30, 30 + FREE_FOR_STRANGERS + 2):
        win = history.won(bytes([number]) * 32, BASE, narrower(number))
        assert of_kind(history.situation(), "rebase")
        history.tried(OWN, BASE, narrower(number), inspired_by=(win.id,), proposer="offline")
    history.won(PEER, BASE, HEADS)
    assert of_kind(history.situation(), "rebase") == []
    history.private = True
    assert len(of_kind(history.situation(), "rebase")) == 1
    history.private = False
    for number in range(9):
        history.tried(OWN, BASE, f"D = {number}\n", proposer="offline")
    assert len(of_kind(history.situation(), "rebase")) == 1


def test_own_edits_that_strangers_claim_use_up_nothing() -> None:
    """Else who claims all edits of the catalogue would have no other stranger's win tried."""
    history = History()
    for number in range(30, 30 + FREE_FOR_STRANGERS + 2):
        win = history.won(b"l" * 32, BASE, narrower(number))
        history.tried(OWN, BASE, narrower(number), inspired_by=(win.id,), proposer=f"offline:width-{number}")
    honest = history.won(PEER, BASE, HEADS)
    assert [idea.result for idea in of_kind(history.situation(), "rebase")] == [honest.id]


def test_between_members_no_claim_waits_for_a_second() -> None:
    """In a private swarm; but what somebody refutes stays out."""
    history = History()
    history.private = True
    claims = [history.won(PEER, BASE, HEADS), history.won(OTHER, BASE, DECAY)]
    history.judged(history.won(b"d" * 32, BASE, changed(BASE, ("BATCH = 8", "BATCH = 4"))), "refuted", key=b"j" * 32)
    (idea,) = of_kind(history.situation(), "combine")
    assert (idea.state, set(idea.inspired_by)) == ("claimed", {one.id for one in claims})


def test_who_adopts_several_wins_at_once_has_each_of_them() -> None:
    """Though their own records do not lead to that program: none is offered any more, and none done again."""
    history = History()
    shorter = changed(BASE, ("BATCH = 8", "BATCH = 4"))
    parts = history.won(OTHER, BASE, HEADS), history.won(OTHER, BASE, shorter, proposer="offline:batch-over-2")
    both = changed(HEADS, ("BATCH = 8", "BATCH = 4"))
    whole = history.won(PEER, BASE, both, inspired_by=tuple(one.id for one in parts), proposer="offline")
    history.won(OWN, BASE, both, inspired_by=(whole.id,), proposer="offline")
    history.won(OWN, both, changed(both, ("BATCH = 4", "BATCH = 2")), proposer="offline:batch-over-2")
    assert history.situation().ideas == ()


def test_what_builds_on_another_win_comes_after_it() -> None:
    """The second step of a peer does not apply by itself; after the first it does. Of two that change the same line,
    only one is taken."""
    history = History()
    history.won(OWN, BASE, FASTER)
    shorter = changed(BASE, ("BATCH = 8", "BATCH = 4"))
    for record in (
        history.won(PEER, shorter, changed(shorter, ("BATCH = 4", "BATCH = 2")), score=4.0, gain=0.4),
        history.won(OTHER, BASE, shorter, score=4.0, gain=0.3),
        history.won(OTHER, BASE, changed(BASE, ("BATCH = 8", "BATCH = 16")), score=4.0),
    ):
        history.judged(record)
    (idea,) = of_kind(history.situation(), "combine")
    assert idea.source == changed(FASTER, ("BATCH = 8", "BATCH = 2")) and len(idea.inspired_by) == 2


def test_of_several_that_fail_together_the_halves_are_offered() -> None:
    """One that does harm is found in few experiments, and the others do not wait for that."""
    history = History()
    edits = (
        ("HEADS = 2", "HEADS = 4"),
        ("BATCH = 8", "BATCH = 4"),
        ("SEQ = 128", "SEQ = 64"),
        ("LR = 1e-3", "LR = 2e-3"),
    )
    for number, edit in enumerate(edits):
        history.judged(history.won(bytes([number]) * 32, BASE, changed(BASE, edit)))
    (every,) = of_kind(history.situation(), "combine")
    assert every.source == changed(BASE, *edits) and len(every.inspired_by) == 4
    history.tried(OWN, BASE, every.source, inspired_by=every.inspired_by, proposer="offline")
    halves = of_kind(history.situation(), "combine")
    assert [len(half.inspired_by) for half in halves] == [2, 2]
    assert {name for half in halves for name in half.inspired_by} == set(every.inspired_by)


def test_two_that_do_harm_are_left_out_of_the_rest() -> None:
    """One in each half of eight: then quarters are offered."""
    history = History()
    edits = [
        ("DEPTH = 2", "DEPTH = 1"), ("WIDTH = 64", "WIDTH = 80"), ("HEADS = 2", "HEADS = 4"),
        ("LR = 1e-3", "LR = 2e-3"), ("MLP_RATIO = 4", "MLP_RATIO = 2"), ("BATCH = 8", "BATCH = 4"),
        ("SEQ = 128", "SEQ = 64"), ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1"),
    ]  # fmt: skip
    for number, edit in enumerate(edits):
        history.judged(history.won(bytes([number]) * 32, BASE, changed(BASE, edit)))
    for offered in ([8], [4, 4], [4, 2, 2], [2, 2, 2, 2]):
        found = of_kind(history.situation(), "combine")
        assert sorted(len(one.inspired_by) for one in found) == sorted(offered)
        largest = max(found, key=lambda one: len(one.inspired_by))
        history.tried(OWN, BASE, largest.source or "", inspired_by=largest.inspired_by, proposer="offline")


def test_what_was_in_two_that_failed_is_not_in_the_next() -> None:
    """It would be the ruin of whatever it is joined with; with a new win only those are offered that were in fewer."""
    history = History()
    places = (
        ("HEADS = 2", "HEADS = 4"),
        ("BATCH = 8", "BATCH = 4"),
        ("SEQ = 128", "SEQ = 64"),
        ("LR = 1e-3", "LR = 2e-3"),
    )
    bad, *others = [history.won(bytes([n]) * 32, BASE, changed(BASE, edit)) for n, edit in enumerate(places)]
    for win in (bad, *others):
        history.judged(win)
    for number, other in enumerate(others[:2]):
        history.tried(OWN, BASE, f"A = {number}\n", inspired_by=(bad.id, other.id), proposer="offline")
    first, *_ = of_kind(history.situation(), "combine")
    assert set(first.inspired_by) == {one.id for one in others}


def test_several_that_are_kept_beside_the_own_best_are_still_to_be_had() -> None:
    """Another lane was first: what was kept is not in the program, and each of its parts is offered on it."""
    history, one, other = pair()
    (both,) = of_kind(history.situation(), "combine")
    history.won(OWN, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")), inspired_by=both.inspired_by, proposer="offline")
    assert {one, other} <= {idea.result for idea in of_kind(history.situation(), "rebase")}


def test_a_peer_cannot_say_what_this_node_contains() -> None:
    """Who publishes the own program as its own, owed to others' wins, hides none of them."""
    history, one, other = pair()
    history.won(PEER, BASE, FASTER, inspired_by=(one, other), proposer="offline")
    assert {one, other} <= {idea.result for idea in of_kind(history.situation(), "rebase")}


def pair() -> tuple[History, bytes, bytes]:
    """Two confirmed wins beside an own one."""
    history = History()
    history.won(OWN, BASE, FASTER)
    one, other = history.won(PEER, BASE, HEADS), history.won(OTHER, BASE, DECAY)
    history.judged(one)
    history.judged(other)
    return history, one.id, other.id


def test_what_failed_alone_is_not_combined_and_after_twice_not_offered() -> None:
    """Two own programs are enough; when the search stands still, it gets two more."""
    history, one, other = pair()
    for number, offered in enumerate((3, 2)):
        assert len(history.situation().ideas) == offered
        history.tried(OWN, BASE, f"A = {number}\n", inspired_by=(one,), proposer="offline")
    assert [idea.inspired_by for idea in history.situation().ideas] == [(other,)]
    assert len(history.situation(course=Course("widen", 10)).ideas) == 2


def test_what_failed_here_takes_no_untried_wins_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are looked at; a node that tried all of the newest still gets the older ones."""
    monkeypatch.setattr(module, "MAX_IDEAS", 1)
    history, one, other = pair()
    assert [idea.inspired_by for idea in history.situation().ideas] == [(other,)]
    for number in range(2):
        history.tried(OWN, BASE, f"A = {number}\n", inspired_by=(other,), proposer="offline")
    assert [idea.inspired_by for idea in history.situation().ideas] == [(one,)]


def test_a_pair_that_failed_is_not_combined_again() -> None:
    """Each of the two is still offered alone: together says little about one."""
    history, one, other = pair()
    history.tried(OWN, BASE, "A = 1\n", inspired_by=(other, one), proposer="offline")
    assert {idea.inspired_by for idea in history.situation().ideas} == {(one,), (other,)}


def test_what_a_language_model_read_is_no_attempt() -> None:
    """Its experiment names all that was in its prompt, be it one win, which says nothing about any of it."""
    history, one, other = pair()
    for number in range(2):
        history.tried(OWN, BASE, f"A = {number}\n", inspired_by=(other, one), proposer="llm")
        history.tried(OWN, BASE, f"B = {number}\n", inspired_by=(other,), proposer="llm")
    history.won(OWN, BASE, f"C = 1\n{BASE}", inspired_by=(one,), proposer="llm")
    assert len(of_kind(history.situation(), "combine")) == 1


def test_an_own_win_is_taken_back_out_only_to_simplify() -> None:
    """The program without an earlier own win, with what came later still in it."""
    history = History()
    first = history.won(OWN, BASE, FASTER)
    later = changed(FASTER, ("HEADS = 2", "HEADS = 4"))
    history.won(OWN, FASTER, later)
    assert not of_kind(history.situation(), "ablate")
    (idea,) = of_kind(history.situation(course=Course("simplify", 30)), "ablate")
    assert idea.source == HEADS and idea.result == first.id, "the last win's absence is a program that was tried"


def test_many_wins_cost_a_bounded_number_of_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many peers win, so many are looked at, the confirmed ones among them, and the second time none."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.judged(history.won(JUDGE, BASE, changed(BASE, ("BATCH = 8", "BATCH = 7"))), key=OWN)  # has a voice
    confirmed = history.won(PEER, BASE, HEADS)
    history.judged(confirmed)
    for number in range(2 * module.MAX_IDEAS):
        edit = ("WEIGHT_DECAY = 0.01", f"WEIGHT_DECAY = 0.0{number + 2}")
        win = history.won(PEER, BASE, changed(BASE, edit))
        if number < module.MAX_STACKED:
            history.judged(win)
    merges: list[Any] = []
    real = rebase._by_git
    rebase._done.clear()
    monkeypatch.setattr(rebase, "_by_git", lambda *texts: merges.append(1) or real(*texts))
    assert confirmed.id in {idea.result for idea in history.situation().ideas}
    assert 0 < len(merges) <= module.MAX_IDEAS + 2 * module.MAX_STACKS * module.MAX_STACKED
    merges.clear()
    history.situation()
    assert not merges
