"""The frontier: what records add up to."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from swarm_node.protocols.records import Environment, Evidence, Record, Result, Run, Verification, sign_record
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.frontier import Frontier, Verdicts, fold

KEYS = [bytes([number]) * 32 for number in range(4)]
OWN = public_key(KEYS[0])
TASK, ELSEWHERE, BASELINE = b"t" * 32, b"e" * 32, b"0" * 32
ENVIRONMENT = Environment(hardware="cpu", device="d", system="s", python="3", library="t")
RUN = Run(arm="candidate", role="confirm", slice="c", seed=1, steps=1, score=3.0, seconds=1.0, digest=b"d" * 32)

EVIDENCE = Evidence(pairs=4, required=0.0, low=0.1, high=0.2, e_value=99.0, level=0.05)


class Log:
    """Signs bodies as one author's log."""

    def __init__(self, key: bytes) -> None:
        self.key, self.last, self.seq = key, None, 0

    def say(self, body: Result | Verification) -> Record:
        self.seq += 1
        record = sign_record(self.key, epoch=0, seq=self.seq, prev=self.last, time=self.seq, body=body)
        self.last = record.id
        return record


def result(outcome: str, program: int, parent: int = 0, **fields: Any) -> Result:
    name = lambda number: BASELINE if number == 0 else bytes([number]) * 32  # noqa: E731
    kept = (
        {"diff": "--- a/train.py\n", "score": 3.0, "gain": 0.1, "runs": (RUN,), "evidence": EVIDENCE}
        if outcome == "kept"
        else {}
    )
    base: dict[str, Any] = {
        "task": TASK, "outcome": outcome, "program": name(program), "parent": name(parent), "title": "t",
        "normal": bytes([100 + program]) * 32, "proposer": "offline", "environment": ENVIRONMENT,
    }  # fmt: skip
    return Result(**(base | kept | fields))


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
    assert frontier.tried == {bytes([101]) * 32, bytes([102]) * 32}
    assert [win.result.program for win in frontier.peer_wins] == [b"\x03" * 32]
    frontier.add(mine.say(result("discarded", 3)))
    assert frontier.peer_wins == ()


def test_states_come_from_others_re_runs() -> None:
    """Confirmed and refuted are counted by author; the claimant's own word and inconclusive ones do not count."""
    peer, second, third = Log(KEYS[1]), Log(KEYS[2]), Log(KEYS[3])
    win = peer.say(result("kept", 3))
    frontier = fold([win], OWN, TASK, BASELINE)

    def check(log: Log, outcome: str) -> str:
        body = Verification(task=TASK, result=win.id, outcome=outcome, environment=ENVIRONMENT)  # type: ignore[arg-type]
        frontier.add(log.say(body))
        return frontier.peer_wins[0].state

    assert frontier.peer_wins[0].state == "claimed"
    assert check(peer, "confirmed") == "claimed"
    assert check(second, "inconclusive") == "claimed"
    assert check(second, "confirmed") == "confirmed"
    assert check(third, "refuted") == "claimed"
    assert check(second, "refuted") == "refuted"


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
    check = Verification(task=TASK, result=records[4].id, outcome="confirmed", environment=ENVIRONMENT)
    return [*records, third.say(check)]


def view(frontier: Frontier) -> tuple[Any, ...]:
    wins = {(win.id, win.state) for win in (*frontier.peer_wins, *frontier.other_task_wins)}
    return frontier.best_program, tuple(frontier.lineage), frontier.tried, frontier.own_tried, frozenset(wins)


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


def test_verdicts_are_the_last_word_of_others() -> None:
    """Nobody confirms themselves, repeating counts once, a later word replaces an earlier one, a tie says nothing."""
    author, friend, critic = Log(KEYS[1]), Log(KEYS[2]), Log(KEYS[3])
    win = author.say(result("kept", 1))

    def says(log: Log, outcome: str) -> Record:
        fields = {"task": TASK, "result": win.id, "outcome": outcome, "gain": 0.1, "gain_error": 0.01, "runs": (RUN,)}
        return log.say(Verification.model_validate(fields | {"environment": ENVIRONMENT}))

    verdicts = Verdicts()
    for record in (says(author, "confirmed"), says(friend, "confirmed"), says(friend, "confirmed")):
        verdicts.add(record)
    assert verdicts.of(win) == ("confirmed", [friend_key := public_key(KEYS[2])], [])
    verdicts.add(says(critic, "refuted"))
    assert verdicts.of(win) == ("claimed", [friend_key], [public_key(KEYS[3])])
    verdicts.add(says(friend, "inconclusive"))
    verdicts.add(says(friend, "refuted"))
    assert verdicts.of(win)[0] == "refuted"
