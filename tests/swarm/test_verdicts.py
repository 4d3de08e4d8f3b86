"""What re-runs say together."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st
from swarm_node.protocols.records import Record, Verification
from swarm_node.swarm.verdicts import Transfer, Verdicts, doubts

from .logs import ENVIRONMENT, KEYS, Log, check, evidence, result

AUTHOR = Log(KEYS[1])
WIN = AUTHOR.say(result("kept", 1))
SIDE = st.floats(0, 19, allow_nan=False)


def told(*records: Record) -> Verdicts:
    verdicts = Verdicts()
    for record in records:
        verdicts.add(record)
    return verdicts


def words(first: int, outcome: str, count: int) -> tuple[list[Record], list[bytes]]:
    logs = [Log(KEYS[first + number]) for number in range(count)]
    return [log.say(check(WIN, outcome)) for log in logs], [log.author for log in logs]


def test_nobody_confirms_themselves_and_a_later_word_replaces_an_earlier_one() -> None:
    """Repeating counts once, a tie says nothing, no verdict takes no word back."""
    friend, critic = Log(KEYS[2]), Log(KEYS[3])
    verdicts = told(AUTHOR.say(check(WIN, "confirmed")))
    assert verdicts.of(WIN).state == "claimed"
    for _ in range(2):
        verdicts.add(friend.say(check(WIN, "confirmed")))
    assert verdicts.of(WIN).state == "confirmed" and verdicts.of(WIN).confirmed == (friend.author,)
    verdicts.add(critic.say(check(WIN, "refuted")))
    assert verdicts.of(WIN).state == "claimed" and verdicts.of(WIN).refuted == (critic.author,)
    verdicts.add(friend.say(check(WIN, "inconclusive")))
    assert verdicts.of(WIN).confirmed == (friend.author,)
    verdicts.add(friend.say(check(WIN, "refuted")))
    assert verdicts.of(WIN).state == "refuted"


def test_evidence_that_decides_nothing_alone_may_decide_together() -> None:
    """Two e-values of 6 make 36; no vote could have counted them."""
    logs = [Log(KEYS[2]), Log(KEYS[3])]
    said = [log.say(check(WIN, "inconclusive", evidence=evidence(e_value=6.0, against=0.1))) for log in logs]
    known = frozenset(log.author for log in logs)
    assert told(said[0]).of(WIN, established=known).state == "claimed"
    assert told(*said).of(WIN, established=known).state == "confirmed"
    against = [log.say(check(WIN, "inconclusive", evidence=evidence(e_value=0.1, against=6.0))) for log in logs]
    assert told(*against).of(WIN, established=known).state == "refuted"


def test_inventing_identities_gives_one_voice_in_all() -> None:
    """Thirty strangers who refute weigh half as much as one node that is known here, and nothing beside its verdict."""
    crowd, _ = words(5, "refuted", 30)
    friends, keys = words(2, "confirmed", 2)
    known = frozenset(keys)
    alone = told(*crowd).of(WIN)
    assert alone.state == "refuted" and not alone.settled  # nobody better is there to ask
    assert told(*crowd).of(WIN, established=known).state == "claimed"
    said = told(*crowd, friends[0]).of(WIN, established=known)
    assert said.state == "confirmed" and said.settled
    praise, _ = words(5, "confirmed", 30)
    critics, bad = words(2, "refuted", 1)
    said = told(*praise, *critics).of(WIN, established=frozenset(bad))
    assert said.state == "refuted" and said.settled
    said = told(*praise, *critics).of(WIN, established=frozenset(bad), members=True)
    assert said.state == "claimed" and not said.settled, "those who were invited are heard beside it"


def test_whom_nobody_listens_to_refutes_no_equal_find() -> None:
    """A true win that was confirmed, by who was quarantined later: that says nothing of the others who found it."""
    friends, keys = words(2, "confirmed", 1)
    before = told(*friends).of(WIN, established=frozenset(keys))
    assert before.state == "confirmed" and before.tells_of_equals
    after = told(*friends).of(WIN, established=frozenset(keys), quarantined=frozenset({WIN.author}))
    assert after.state == "refuted" and not after.tells_of_equals


def test_invented_evidence_is_worth_no_more_than_a_verdict() -> None:
    """An e-value of 1e300 from one author is outweighed by two others."""
    liar = Log(KEYS[2]).say(check(WIN, "confirmed", evidence=evidence(e_value=1e300, against=0.0)))
    critics, keys = words(3, "refuted", 2)
    known = frozenset([*keys, liar.author])
    assert told(liar, *critics).of(WIN, established=known).state == "refuted"


def test_what_the_viewer_found_decides_for_it() -> None:
    """Whatever others say; unless it found nothing."""
    crowd, _ = words(5, "refuted", 10)
    me = Log(KEYS[4])
    mine = told(*crowd, me.say(check(WIN, "confirmed")))
    assert mine.of(WIN, me.author).state == "confirmed" and mine.of(WIN, Log(KEYS[30]).author).state == "refuted"
    assert told(*crowd, me.say(check(WIN, "inconclusive"))).of(WIN, me.author).state == "refuted"


def test_other_conditions_label_and_never_decide() -> None:
    """Another hardware class, or twice the width, says whether it transfers there."""
    gpu = ENVIRONMENT.model_copy(update={"hardware": "cuda-sm90"})
    there = Log(KEYS[2]).say(check(WIN, "refuted", environment=gpu))
    wider = Log(KEYS[3]).say(check(WIN, "confirmed", setting="wider"))
    opinion = told(there, wider).of(WIN)
    assert opinion.state == "claimed" and opinion.refuted == opinion.confirmed == ()
    assert {(one.where, one.outcome) for one in opinion.transfers} == {("cuda-sm90", "refuted"), ("wider", "confirmed")}
    assert isinstance(opinion.transfers[0], Transfer)


def test_a_fabrication_weighs_like_a_refutation_and_is_named() -> None:
    """One stranger's word of it convicts nobody, but no good news outweighs it either."""
    opinion = told(Log(KEYS[2]).say(check(WIN, "fabricated"))).of(WIN)
    assert opinion.state == "refuted" and opinion.fabricated == opinion.refuted == (Log(KEYS[2]).author,)


@given(st.lists(st.one_of(st.sampled_from(["confirmed", "refuted"]), st.tuples(SIDE, SIDE)), max_size=6))
def test_no_claim_is_refuted_that_nobody_doubts(said: list[str | tuple[float, float]]) -> None:
    records = []
    for number, word in enumerate(said, 2):
        fields = {} if isinstance(word, str) else {"evidence": evidence(*word)}
        outcome = word if isinstance(word, str) else "inconclusive"
        records.append(Log(KEYS[number]).say(check(WIN, outcome, **fields)))
    refuted = told(*records).of(WIN).state == "refuted"
    event(f"refuted: {refuted}")
    assert not refuted or any(isinstance(one.body, Verification) and doubts(one.body) for one in records)


def test_a_re_run_as_another_task_says_nothing() -> None:
    """Sizes share a baseline, so that a program and its parent can be the same in both."""
    judge = Log(KEYS[7])
    seen = Verdicts()
    seen.add(judge.say(check(WIN, "refuted", task=b"o" * 32)))
    assert seen.of(WIN, judge.author).state == "claimed"


def test_a_gain_of_which_less_than_half_is_there_is_not_confirmed() -> None:
    """Though there is evidence that it is one: the claim is what is judged."""
    seen = Verdicts()
    for key in KEYS[10:12]:
        seen.add(Log(key).say(check(WIN, "confirmed", evidence=evidence(e_value=40.0, against=40.0))))
    assert seen.of(WIN).state == "refuted"
