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
    """Claims by the own re-run of them; verdicts where that contradicts them. Who agrees, before or after, may be an
    echo, or call every claim confirmed: most are."""
    author, fellow, wrong, echo = (Log(KEYS[number]) for number in (1, 2, 3, 4))
    good, bad, unknown = (author.say(result("kept", number)) for number in (1, 2, 3))
    better = fellow.say(result("kept", 4))
    trust, verdicts = seen(
        good, bad, unknown, better, fellow.say(check(good, "confirmed")), echo.say(check(good, "confirmed")),
        wrong.say(check(good, "refuted")), ME.say(check(good, "confirmed")), ME.say(check(bad, "refuted")),
        ME.say(check(better, "confirmed")), echo.say(check(better, "confirmed")), echo.say(check(bad, "refuted")),
    )  # fmt: skip
    assert trust.standings(verdicts) == {
        author.author: Standing(confirmed=1, refuted=1),
        fellow.author: Standing(confirmed=1),
        wrong.author: Standing(disagreed=1),
    }
    assert trust.established(verdicts) == {fellow.author}


def test_echoes_earn_no_voice_and_an_invented_refutation_loses_one() -> None:
    """However many words of the first verifier were repeated, and whenever the lie is told: whom to trust does not
    depend on what came first."""
    author, liar = Log(KEYS[1]), Log(KEYS[2])
    wins = [author.say(result("kept", number)) for number in range(1, 11)]
    echoes = [liar.say(check(win, "confirmed")) for win in wins]
    mine = [ME.say(check(win, "confirmed")) for win in wins]
    trust, verdicts = seen(*wins, *echoes, *mine)
    assert trust.established(verdicts) == {author.author}
    fresh, once_right = author.say(result("kept", 11)), liar.say(result("kept", 12))
    records = [fresh, once_right, ME.say(check(once_right, "confirmed"))]
    trust, verdicts = seen(*wins, *echoes, *mine, *records)
    assert liar.author in trust.established(verdicts)
    lie, found = liar.say(check(fresh, "refuted")), ME.say(check(fresh, "confirmed"))
    for last in ((lie, found), (found, lie)):
        trust, verdicts = seen(*wins, *echoes, *mine, *records, *last)
        assert trust.established(verdicts) == {author.author}


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
    claims = [log.say(result("kept", 3 + number)) for number, log in enumerate(crowd[:2])]
    held = [ME.say(check(one, "confirmed")) for one in claims]
    trust, verdicts = seen(claim, *claims, held[0], *accusations)
    assert trust.quarantined(verdicts) == frozenset()
    trust, verdicts = seen(claim, *claims, *held, *accusations)
    assert trust.quarantined(verdicts) == {accused.author}


def test_what_was_found_here_stands_against_any_witnesses() -> None:
    """A claim that held here is not made up because others say so, nor is its author a liar of other claims."""
    accused, witnesses = Log(KEYS[1]), [Log(KEYS[number]) for number in (5, 6)]
    claim, other = accused.say(result("kept", 1)), accused.say(result("kept", 3))
    known = [log.say(result("kept", 4 + number)) for number, log in enumerate(witnesses)]
    known += [log.say(result("kept", 6 + number)) for number, log in enumerate(witnesses)]
    told = [log.say(check(one, "fabricated")) for log in witnesses for one in (claim, other)]
    found = (*known, *(ME.say(check(one, "confirmed")) for one in known), claim, other, *told)
    trust, verdicts = seen(*found)
    assert trust.quarantined(verdicts) == {accused.author}
    trust, verdicts = seen(*found, ME.say(check(claim, "confirmed")))
    assert trust.quarantined(verdicts) == frozenset()
