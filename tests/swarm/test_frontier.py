"""The frontier: what records add up to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from swarm_node.protocols.records import Record, Result, Verification
from swarm_node.swarm.frontier import Frontier, fold

from .logs import BASELINE, ELSEWHERE, KEYS, OWN, TASK, Log, check, result


def test_own_best_follows_own_kept_results_only() -> None:
    """A peer's win moves nothing here; an own win whose parent is the own best does."""
    mine, peer = Log(KEYS[0]), Log(KEYS[1])
    frontier = fold([peer.say(result("kept", 9))], OWN, TASK, BASELINE)
    assert frontier.best_program == BASELINE and frontier.best_result is None
    first = mine.say(result("kept", 1))
    frontier.add(first)
    assert frontier.best_program == b"\x01" * 32 and frontier.best_result == first
    frontier.add(mine.say(result("kept", 5, parent=4)))  # from a parent that is not the own best
    assert frontier.best_program == b"\x01" * 32
    second = mine.say(result("kept", 2, parent=1))
    frontier.add(second)
    assert frontier.lineage == [first.id, second.id]
    assert frontier.own_experiments == 3


def test_tried_holds_own_and_peers_failures_but_not_peers_wins() -> None:
    """A peer's failure need not be repeated; a peer's win is there to be re-run."""
    mine, peer = Log(KEYS[0]), Log(KEYS[1])
    records = [mine.say(result("discarded", 1)), peer.say(result("discarded", 2)), peer.say(result("kept", 3))]
    frontier = fold(records, OWN, TASK, BASELINE)
    assert frontier.is_tried(bytes([101]) * 32) and not frontier.is_tried(bytes([103]) * 32)
    assert [win.result.program for win in frontier.peer_wins] == [b"\x03" * 32]
    frontier.add(mine.say(result("discarded", 3)))
    assert frontier.peer_wins == ()


def test_states_come_from_re_runs_by_whom_was_found_right() -> None:
    """The claimant's own word, what came to no verdict, and what strangers say do not count; members of a private swarm
    are none."""
    peer, second, third, mine = (Log(key) for key in (KEYS[1], KEYS[2], KEYS[3], KEYS[0]))
    win = peer.say(result("kept", 3))
    frontier, members = Frontier(OWN, TASK, BASELINE), Frontier(OWN, TASK, BASELINE, private=True)
    for one in (frontier, members):
        one.add(win)

    def after(log: Log, outcome: str, *before: Record) -> tuple[str, str]:
        said = log.say(check(win, outcome))
        for one in (frontier, members):
            for record in (*before, said):
                one.add(record)
        return frontier.win(win, win.body).state, members.win(win, win.body).state  # type: ignore[arg-type]

    assert after(peer, "confirmed") == ("claimed", "claimed")
    assert after(second, "inconclusive") == ("claimed", "claimed")
    assert after(second, "confirmed") == ("claimed", "confirmed")
    assert after(third, "refuted") == ("claimed", "claimed")
    assert after(second, "refuted") == ("claimed", "refuted")
    assert after(third, "refuted", *known(mine, third)) == ("refuted", "refuted")
    assert after(mine, "confirmed") == ("confirmed", "confirmed")  # what was found here decides here


def test_wins_of_other_tasks_are_kept_apart() -> None:
    """Another task's win is a hint, never a candidate of this task."""
    frontier = fold([Log(KEYS[1]).say(result("kept", 3, task=ELSEWHERE))], OWN, TASK, BASELINE)
    assert frontier.peer_wins == () and frontier.trials == [] and len(frontier.other_task_wins) == 1


def story() -> list[Record]:
    """Three authors who work on each other's programs."""
    mine, peer, third = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    records = [
        mine.say(result("kept", 1)), mine.say(result("discarded", 5, 1)), mine.say(result("kept", 2, 1)),
        peer.say(result("kept", 1)), peer.say(result("kept", 6, 1)), peer.say(result("crashed", 7)),
        third.say(result("kept", 8, task=ELSEWHERE)),
    ]  # fmt: skip
    records += [third.say(check(records[4], "confirmed")), mine.say(check(records[2], "refuted"))]
    records += [peer.say(result("kept", 9)), third.say(result("kept", 10))]
    words = [third.say(check(records[-2], outcome)) for outcome in ("refuted", "confirmed", "refuted")]
    return [*records, *words, *(mine.say(check(one, "confirmed")) for one in records[-2:])]


def view(frontier: Frontier) -> tuple[Any, ...]:
    wins = {(win.id, win.state) for win in (*frontier.peer_wins, *frontier.other_task_wins)}
    tried = frozenset(number for number in range(256) if frontier.is_tried(bytes([number]) * 32))
    trusted = {key: frontier.is_known(Log(key).author) for key in KEYS[:4]}
    return frontier.best_program, tuple(frontier.lineage), tried, frontier.own_tried, frozenset(wins), trusted


@given(st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(chance: random.Random) -> None:
    """Records in any order, and repeated, give the same frontier."""
    records = story()
    shuffled = [*records, chance.choice(records)]
    chance.shuffle(shuffled)
    assert view(fold(shuffled, OWN, TASK, BASELINE)) == view(fold(records, OWN, TASK, BASELINE))


def test_own_wins_beside_the_best_stay_to_be_tried_on_it() -> None:
    """Of two wins from one parent the first becomes the own best, the second waits beside it."""
    mine = Log(KEYS[0])
    first, second = mine.say(result("kept", 1)), mine.say(result("kept", 2))
    frontier = fold([first, second], OWN, TASK, BASELINE)
    assert frontier.best_result == first
    assert [win.record for win in frontier.own_wins_aside] == [second]


def known(mine: Log, peer: Log) -> list[Record]:
    """A claim of the peer that held here: it has a voice from then on."""
    win = peer.say(result("kept", 30))
    return [win, mine.say(check(win, "confirmed"))]


def test_half_of_what_strangers_call_hopeless_is_tried_all_the_same() -> None:
    """Another half on each node; of an author with a voice, nothing; of one in quarantine, everything. In a private
    swarm there are no strangers."""
    mine, stranger = Log(KEYS[0]), Log(KEYS[1])
    dead = [stranger.say(result("discarded", 50 + number)) for number in range(40)]
    normals = [record.body.normal for record in dead if isinstance(record.body, Result)]

    def tried(own: bytes, *more: Record) -> set[bytes]:
        frontier = fold([*dead, *more], own, TASK, BASELINE)
        return {normal for normal in normals if frontier.is_tried(normal)}

    here, there = tried(OWN), tried(Log(KEYS[9]).author)
    assert 8 < len(here) < 32 and here != there
    assert tried(OWN, *known(mine, stranger)) == set(normals)
    lie = stranger.say(result("kept", 20))
    assert tried(OWN, lie, mine.say(check(lie, "fabricated"))) == set()
    private = Frontier(OWN, TASK, BASELINE, private=True)
    for record in dead:
        private.add(record)
    assert all(private.is_tried(one) for one in normals)


def test_a_verdict_of_strangers_ends_no_re_run() -> None:
    """Else three invented identities could have every honest claim refuted before anybody looks."""
    mine, author, crowd = Log(KEYS[0]), Log(KEYS[1]), [Log(KEYS[number]) for number in range(10, 20)]
    win = author.say(result("kept", 3))
    frontier = fold([win, *(log.say(check(win, "refuted")) for log in crowd)], OWN, TASK, BASELINE)
    assert [one.record for one in frontier.claims] == [win]
    for record in known(mine, crowd[0]):
        frontier.add(record)
    assert win not in [one.record for one in frontier.claims]
    assert [one.record for one in frontier.denied] == [win]


def test_what_only_others_refute_is_open_until_this_node_looked() -> None:
    """At that or at an equal find: then it knows by itself, and whoever lied has no voice any more."""
    mine, author, peer = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    win, same = author.say(result("kept", 3)), Log(KEYS[3]).say(result("kept", 3))
    frontier = fold([win, same, *known(mine, peer), peer.say(check(win, "refuted"))], OWN, TASK, BASELINE)
    assert [one.record for one in frontier.denied] == [win, same] and frontier.claims == ()
    frontier.add(mine.say(check(win, "confirmed")))
    assert frontier.denied == () and not frontier.is_known(peer.author)


def test_equal_finds_from_one_parent_are_re_run_once() -> None:
    """A verdict on one of them is about the other as well."""
    mine = Log(KEYS[0])
    first, second = (Log(KEYS[number]).say(result("kept", 3)) for number in (1, 2))
    frontier = fold([first, second], OWN, TASK, BASELINE)
    assert len(frontier.claims) == 2
    frontier.add(mine.say(check(first, "confirmed")))
    assert frontier.claims == ()


def test_a_refuted_claim_leaves_the_own_best_only_by_an_own_re_run() -> None:
    """Others' re-runs make the own win doubted; the own re-run takes it out, and what stood on it stands aside."""
    mine, peer = Log(KEYS[0]), Log(KEYS[1])
    first, second = mine.say(result("kept", 1)), mine.say(result("kept", 2, parent=1))
    frontier = fold([first, second, peer.say(check(first, "refuted"))], OWN, TASK, BASELINE)
    assert frontier.best_result == second and frontier.doubted == ()  # a stranger's word
    for record in known(mine, peer):
        frontier.add(record)
    assert frontier.best_result == second and [win.record for win in frontier.doubted] == [first]
    frontier.add(mine.say(check(first, "refuted")))
    assert frontier.best_program == BASELINE and frontier.best_result is None and frontier.doubted == ()
    assert [win.record for win in frontier.own_wins_aside] == [second] and frontier.own_wins_aside[0].flagged is False
    frontier.add(mine.say(check(first, "confirmed")))
    assert frontier.best_result == second


def test_an_own_re_run_that_confirms_ends_the_doubt() -> None:
    """Then the own best stays, and nobody asks again."""
    mine, peer = Log(KEYS[0]), Log(KEYS[1])
    first = mine.say(result("kept", 1))
    records = [first, peer.say(check(first, "refuted")), *known(mine, peer), mine.say(check(first, "confirmed"))]
    frontier = fold(records, OWN, TASK, BASELINE)
    assert frontier.best_result == first and frontier.doubted == ()


def test_descendants_of_refuted_wins_are_flagged_until_they_are_confirmed_themselves() -> None:
    """A win on a refuted one is no idea by its author's word alone; by a re-run of its own it is."""
    author, critic, mine = Log(KEYS[1]), Log(KEYS[2]), Log(KEYS[0])
    first, second = author.say(result("kept", 1)), author.say(result("kept", 2, parent=1))
    frontier = fold([first, second, *known(mine, critic)], OWN, TASK, BASELINE)

    def flags() -> list[bool]:
        return [win.flagged for win in frontier.peer_wins if win.id in (first.id, second.id)]

    assert flags() == [False, False]
    frontier.add(critic.say(check(first, "refuted")))
    assert flags() == [False, True]
    frontier.add(critic.say(check(second, "confirmed")))
    assert flags() == [False, False]


def test_who_made_something_up_is_not_listened_to() -> None:
    """Its claims are no ideas, its descendants are flagged, its words on others' claims do not count."""
    liar, honest, mine = Log(KEYS[1]), Log(KEYS[2]), Log(KEYS[0])
    lie, win = liar.say(result("kept", 1)), honest.say(result("kept", 2))
    on_lie = honest.say(result("kept", 3, parent=1))
    records = [lie, win, on_lie, liar.say(check(win, "refuted")), mine.say(check(lie, "fabricated"))]
    frontier = fold(records, OWN, TASK, BASELINE)
    assert frontier.quarantined == {liar.author}
    assert [(one.record, one.state, one.flagged) for one in frontier.peer_wins] == [
        (win, "claimed", False), (on_lie, "claimed", True),
    ]  # fmt: skip


def test_time_is_counted_by_what_it_was_spent_on() -> None:
    """The share of verification is read from the own records."""
    mine, peer = Log(KEYS[0]), Log(KEYS[1])
    win = peer.say(result("kept", 3))
    records = [mine.say(result("discarded", 1, cost={"seconds": 60.0})), win,
               mine.say(check(win, "confirmed", cost={"seconds": 15.0})), peer.say(result("crashed", 9))]  # fmt: skip
    assert fold(records, OWN, TASK, BASELINE).own_seconds == {"research": 60.0, "verify": 15.0}


def test_what_refutes_one_find_refutes_its_equals_and_a_made_up_run_does_not() -> None:
    """What a program does is the same whoever found it; who made up a run of it says nothing of who ran it. What
    claims less may hold, and what claims much more than what was confirmed may not."""
    mine, first, second = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    one, again, other = first.say(result("kept", 3)), second.say(result("kept", 3)), second.say(result("kept", 4))
    less, more = (Log(KEYS[key]).say(result("kept", 3, gain=gain)) for key, gain in ((3, 0.04), (4, 0.5)))
    shorter = Log(KEYS[5]).say(result("kept", 3, aim="simpler"))
    told = [one, again, other, less, more, shorter]
    refuted = fold([*told, mine.say(check(one, "refuted"))], OWN, TASK, BASELINE)
    states = {win.id: win.state for win in refuted.peer_wins}
    assert [states[win.id] for win in told] == ["refuted", "refuted", "claimed", "claimed", "refuted", "claimed"]
    assert {win.id for win in refuted.claims} == {other.id, less.id, shorter.id}
    mine = Log(KEYS[0])
    held = fold([*told, mine.say(check(one, "confirmed"))], OWN, TASK, BASELINE)
    assert {win.id for win in held.claims} == {other.id, more.id, shorter.id}
    mine = Log(KEYS[0])
    made_up = fold([one, again, other, mine.say(check(one, "fabricated"))], OWN, TASK, BASELINE)
    assert [(win.id, win.state) for win in made_up.claims] == [(again.id, "claimed"), (other.id, "claimed")]


def test_leads_and_dead_ends_of_who_signed_two_records_for_one_place_count_nothing() -> None:
    """As of all in quarantine; a known author's word counts everywhere, a stranger's on half of all nodes."""
    mine, peer = Log(KEYS[0]), Log(KEYS[1])
    frontier = fold(known(mine, peer), OWN, TASK, BASELINE)
    normals = [bytes([number]) * 32 for number in range(100)]
    heeded = {author: sum(frontier.heeds(author, one) for one in normals) for author in (peer.author, b"s" * 32)}
    assert heeded[peer.author] == 100 and 25 < heeded[b"s" * 32] < 75
    assert frontier.quarantined == frozenset()
    frontier.ban(frozenset({peer.author}))
    assert not any(frontier.heeds(peer.author, one) for one in normals) and peer.author in frontier.quarantined


def test_verdicts_of_who_signed_two_records_for_one_place_count_nothing() -> None:
    """Though its claims held before. The own word counts, also when this home was copied and ran twice."""
    mine, judge, peer = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    win, other = peer.say(result("kept", 1)), peer.say(result("kept", 2))
    frontier = fold([win, other, *known(mine, judge), judge.say(check(win, "refuted"))], OWN, TASK, BASELINE)
    frontier.add(mine.say(check(other, "confirmed")))

    def states() -> list[str]:
        return [one.state for one in frontier.peer_wins if one.record.author == peer.author]

    assert states() == ["refuted", "confirmed"] and frontier.is_known(judge.author)
    frontier.ban(frozenset({judge.author, OWN}))
    assert states() == ["claimed", "confirmed"] and not frontier.is_known(judge.author)


def test_what_a_simplification_is_compared_with_is_the_last_gain_on_its_authors_way() -> None:
    """Which nobody can name for it; unknown as long as records on the way are missing."""
    peer = Log(KEYS[1])
    gain, less = peer.say(result("kept", 1)), peer.say(result("kept", 2, 1, aim="simpler"))
    frontier = fold([gain, less], OWN, TASK, BASELINE)
    assert frontier.anchor_of(bytes([2]) * 32, peer.author) == bytes([1]) * 32
    assert frontier.anchor_of(BASELINE, peer.author) == BASELINE
    assert fold([less], OWN, TASK, BASELINE).anchor_of(bytes([2]) * 32, peer.author) is None


def test_a_long_history_of_wins_is_looked_through_once() -> None:
    """One author's chain of wins, each of which asks about all before it: no more work than there are wins."""
    peer = Log(KEYS[1])
    chain = [peer.say(result("kept", 0).model_copy(update=link(number))) for number in range(1, 400)]
    frontier = fold(chain, OWN, TASK, BASELINE)
    asked = 0
    usual = frontier._is_bad

    def counted(record: Record) -> bool:
        nonlocal asked
        asked += 1
        return usual(record)

    frontier._is_bad = counted  # type: ignore[method-assign]
    assert len(frontier.peer_wins) == len(frontier.claims) == 399 and asked < 800


def test_many_ways_from_one_program_are_looked_through_once() -> None:
    """One author may sign hundreds of records that made one program and hundreds that were made from it: no more work
    than there are records, also when everybody's word is against them."""
    count = 200
    makers = [Log(KEYS[number % 20 + 1]).say(result("kept", 1, title=f"{number}")) for number in range(count)]
    builders = [Log(KEYS[number % 20 + 1]).say(result("kept", 2, 1, title=f"{number}")) for number in range(count)]
    critic = Log(KEYS[30])
    doubts = [*known(Log(KEYS[0]), critic), *(critic.say(check(one, "refuted")) for one in makers)]
    frontier = fold([*makers, *builders, *doubts], OWN, TASK, BASELINE)
    looked, asked, usual, is_bad = 0, 0, frontier.kept.makers, frontier._is_bad

    def counted(program: bytes, task: bytes) -> Sequence[Record]:
        nonlocal looked
        looked += len(found := usual(program, task))
        return found

    def asking(record: Record) -> bool:
        nonlocal asked
        asked += 1
        return is_bad(record)

    frontier.kept.makers, frontier._is_bad = counted, asking  # type: ignore[method-assign]
    flagged = [win.flagged for win in frontier.peer_wins if win.result.program in (b"\x01" * 32, b"\x02" * 32)]
    assert flagged == [False] * count + [True] * count
    assert looked <= 2 * count and asked <= 2 * count


def test_what_strangers_sign_is_not_looked_through_to_know_whom_to_trust() -> None:
    """Whom this node believes is asked after every record and for every lead: only own re-runs, and the words of whom
    it believes, tell."""
    mine, peer, stranger = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    frontier = fold(known(mine, peer), OWN, TASK, BASELINE)
    looked, usual = list[bytes](), frontier._verdicts.word

    def counted(author: bytes, result: bytes, setting: str = "same") -> Verification | None:
        looked.append(result)
        return usual(author, result, setting)

    frontier._verdicts.word = counted  # type: ignore[method-assign]
    for number in range(100):
        frontier.add(stranger.say(result("kept", 2, title=f"{number}")))
        frontier.add(stranger.say(check(frontier.trials[0], "refuted", result=bytes([number]) * 32)))
    assert frontier.quarantined == frozenset() and len(looked) < 10


def link(number: int) -> dict[str, Any]:
    """The fields of the win of this number in a chain."""
    name = lambda of: BASELINE if of == 0 else of.to_bytes(32, "big")  # noqa: E731
    return {"program": name(number), "parent": name(number - 1), "normal": name(1000 + number)}
