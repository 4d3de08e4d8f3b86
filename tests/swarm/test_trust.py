"""Who is believed how far."""

from __future__ import annotations

from swarm_node.protocols.records import Record, Result
from swarm_node.swarm.trust import Standing, Trust
from swarm_node.swarm.verdicts import Verdicts

from .logs import KEYS, Log, check, result

ME = Log(KEYS[0])


def seen(*records: Record) -> tuple[Trust, Verdicts]:
    trust, verdicts = Trust(ME.author), Verdicts()
    for record in records:
        verdicts.add(record)
        if isinstance(record.body, Result):
            trust.claimed(record.id, record.author)
    return trust, verdicts


def test_standing_counts_what_was_found_true_here() -> None:
    """Claims by the own re-run of them; re-runs by whether they had come to the same verdict before that was known."""
    author, fellow, wrong, echo = (Log(KEYS[number]) for number in (1, 2, 3, 4))
    good, bad, unknown = (author.say(result("kept", number)) for number in (1, 2, 3))
    trust, verdicts = seen(
        good, bad, unknown, fellow.say(check(good, "confirmed")), wrong.say(check(good, "refuted")),
        ME.say(check(good, "confirmed")), ME.say(check(bad, "refuted")),
        echo.say(check(good, "confirmed")), echo.say(check(bad, "refuted")), fellow.say(check(unknown, "confirmed")),
    )  # fmt: skip
    assert trust.standings(verdicts) == {
        author.author: Standing(confirmed=1, refuted=1),
        fellow.author: Standing(agreed=1),
        wrong.author: Standing(disagreed=1),
    }
    assert trust.established(verdicts) == {fellow.author}


def test_who_changes_its_mind_says_so_from_then_on() -> None:
    """Else a word of no meaning, said early, would be a place for the right one."""
    author, echo = Log(KEYS[1]), Log(KEYS[2])
    claim = author.say(result("kept", 1))
    early, mine, late = (
        echo.say(check(claim, "inconclusive")), ME.say(check(claim, "confirmed")), echo.say(check(claim, "confirmed"))
    )  # fmt: skip
    trust, verdicts = seen(claim, early, mine, late)
    assert echo.author not in trust.standings(verdicts)


def test_praise_among_strangers_establishes_nobody() -> None:
    """Identities that confirm each other's claims stay unknown here."""
    first, second = Log(KEYS[1]), Log(KEYS[2])
    claims = [log.say(result("kept", number)) for number, log in ((1, first), (2, second))]
    trust, verdicts = seen(*claims, first.say(check(claims[1], "confirmed")), second.say(check(claims[0], "confirmed")))
    assert trust.standings(verdicts) == {} and trust.established(verdicts) == frozenset()


def test_bad_luck_is_no_offence_and_a_fabrication_is() -> None:
    """A refuted claim costs standing; one that its program never made puts its author into quarantine."""
    unlucky, liar = Log(KEYS[1]), Log(KEYS[2])
    honest, lie = unlucky.say(result("kept", 1)), liar.say(result("kept", 2))
    trust, verdicts = seen(honest, lie, ME.say(check(honest, "refuted")), ME.say(check(lie, "fabricated")))
    assert trust.quarantined(verdicts) == {liar.author}


def test_two_established_witnesses_convict_and_any_number_of_strangers_do_not() -> None:
    """Else identities that cost nothing could silence anybody."""
    accused, winner = Log(KEYS[1]), Log(KEYS[2])
    claim, known = accused.say(result("kept", 1)), winner.say(result("kept", 2))
    crowd = [Log(KEYS[number]) for number in range(5, 25)]
    accusations = [log.say(check(claim, "fabricated")) for log in crowd]
    trust, verdicts = seen(claim, known, ME.say(check(known, "confirmed")), *accusations)
    assert trust.quarantined(verdicts) == frozenset()
    friends = [log.say(check(known, "confirmed")) for log in crowd[:2]]  # found true here, as ours agrees
    trust, verdicts = seen(claim, known, friends[0], ME.say(check(known, "confirmed")), *accusations)
    assert trust.quarantined(verdicts) == frozenset()
    trust, verdicts = seen(claim, known, *friends, ME.say(check(known, "confirmed")), *accusations)
    assert trust.quarantined(verdicts) == {accused.author}


def test_what_was_found_here_stands_against_any_witnesses() -> None:
    """A claim that held here is not made up because others say so, nor is its author a liar of other claims."""
    accused, winner = Log(KEYS[1]), Log(KEYS[2])
    claim, other = accused.say(result("kept", 1)), accused.say(result("kept", 3))
    known = winner.say(result("kept", 2))
    witnesses = [Log(KEYS[number]) for number in (5, 6)]
    agreed = [log.say(check(known, "confirmed")) for log in witnesses]
    told = [log.say(check(one, "fabricated")) for log in witnesses for one in (claim, other)]
    found = (known, *agreed, ME.say(check(known, "confirmed")), claim, other, *told)
    trust, verdicts = seen(*found)
    assert trust.quarantined(verdicts) == {accused.author}
    trust, verdicts = seen(*found, ME.say(check(claim, "confirmed")))
    assert trust.quarantined(verdicts) == frozenset()
