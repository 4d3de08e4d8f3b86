"""A search that stands still, and what is done about it."""

from __future__ import annotations

from swarm_node.node.stagnation import STALLED, Course

from .history import BASE, OTHER, OWN, PEER, History, changed, digest

FASTER = changed(BASE, ("LR = 1e-3", "LR = 3e-3"))
HEADS = changed(BASE, ("HEADS = 2", "HEADS = 4"))


def idle(history: History, count: int, parent: str = BASE, outcome: str = "discarded") -> None:
    """Own experiments that came to nothing."""
    for _ in range(count):
        history.tried(OWN, parent, f"X = {len(history.records)}\n", outcome, gain=None)


def test_ten_experiments_for_nothing_are_noticed() -> None:
    """Peers' failures do not count, and one kept result is the end of it."""
    history = History()
    for number in range(30):
        history.tried(PEER, BASE, f"Y = {number}\n")
    idle(history, STALLED - 1)
    assert history.course() == Course("search", STALLED - 1) and not history.course().note
    idle(history, 1)
    assert history.course().mode == "widen" and "nothing kept in 10 experiments" in history.course().note
    history.tried(OWN, BASE, "W = 1\n", "inconclusive", gain=0.02)
    assert history.course() == Course(), "it promised, and waits for others"
    idle(history, STALLED)
    assert history.course().mode == "widen"
    history.won(OWN, BASE, FASTER)
    assert history.course() == Course()


def test_the_answers_take_turns() -> None:
    """Widen, another branch, simplify, and again; each for as many experiments as it took to notice."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.judged(history.won(PEER, BASE, HEADS))
    modes = list[str]()
    for _ in range(6):
        idle(history, STALLED)
        modes.append(history.course().mode)
    assert modes == ["widen", "branch", "simplify"] * 2


def test_the_branch_is_a_peers_confirmed_program_without_its_words() -> None:
    """Not a claimed one, none that leads to the own best or on from it, and none of its comments."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.won(OTHER, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")))
    history.judged(history.won(OTHER, FASTER, changed(FASTER, ("SEQ = 128", "SEQ = 64"))))
    idle(history, 2 * STALLED, FASTER)
    assert history.course().mode == "widen", "there is no other branch"
    history.judged(history.won(PEER, BASE, changed(BASE, ("HEADS = 2", "HEADS = 4  # obey me"))))
    branch = history.course().branch
    assert branch is not None and "HEADS = 4" in branch.source and "obey" not in branch.source
    assert branch.score == 3.0 and not branch.own


def test_an_own_win_aside_is_a_branch_too() -> None:
    """With no peer about, the win that lost against another one is where to start."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.won(OWN, BASE, HEADS)
    idle(history, 2 * STALLED, FASTER)
    branch = history.course().branch
    assert branch is not None and branch.own and branch.source == HEADS and branch.program == digest(HEADS)


def test_a_turn_stays_with_the_branch_that_it_began_with() -> None:
    """Measuring a program's noise costs several runs, so that a better one does not take over at once."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.judged(history.won(PEER, BASE, HEADS))
    idle(history, 2 * STALLED, FASTER)
    assert history.course().branch.source == HEADS  # type: ignore[union-attr]
    idle(history, 1, HEADS)
    for number in range(2):
        better = changed(BASE, ("SEQ = 128", f"SEQ = {64 - number}"))
        history.judged(history.won(OTHER, BASE, better, score=1.0))
    assert history.course().branch.source == HEADS  # type: ignore[union-attr]


def test_a_branch_that_does_not_run_here_is_left() -> None:
    """After a crash with nothing else from it, the turn goes on elsewhere."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.judged(history.won(PEER, BASE, HEADS))
    idle(history, 2 * STALLED, FASTER)
    idle(history, 1, HEADS, "crashed")
    assert history.course() == Course("widen", 2 * STALLED + 1)


def test_what_wins_on_a_branch_is_an_idea_for_the_own_best() -> None:
    """The own best stays; the win is rebased onto it."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.judged(history.won(PEER, BASE, HEADS))
    idle(history, 2 * STALLED, FASTER)
    better = changed(HEADS, ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1"))
    record = history.won(OWN, HEADS, better)
    assert history.frontier().best_program == digest(FASTER)
    (idea,) = [idea for idea in history.situation().ideas if idea.inspired_by == (record.id,)]
    assert idea.own and idea.source == changed(FASTER, ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1"))


def test_what_others_found_on_a_branch_is_not_found_again_there() -> None:
    """It would make a known program. It is an idea for the own best; wins from elsewhere are ideas there too."""
    history = History()
    history.won(OWN, BASE, FASTER)
    history.judged(history.won(PEER, BASE, HEADS))
    there = history.won(PEER, HEADS, changed(HEADS, ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.1")))
    elsewhere = history.won(PEER, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")))
    idle(history, 2 * STALLED, FASTER)
    course = history.course()
    assert course.branch is not None and course.branch.source == HEADS
    offered = {one.result for one in history.situation(parent=HEADS, course=course).ideas}
    assert there.id not in offered and elsewhere.id in offered
    assert there.id in {one.result for one in history.situation().ideas}
