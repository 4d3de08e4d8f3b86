"""The decision rules."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from swarm_node.trainer import decide, evidence

NOISE = decide.Noise(3.2, 0.01, 5)


def confirm(rng: random.Random, effect: float, required: float, level: float, spread: float = 1.0) -> tuple[str, int]:
    """A whole confirmation of a candidate that is `effect` standard deviations better; outcome and pairs."""
    gains: list[float] = []
    while True:
        gains.append(NOISE.sd * (rng.gauss(effect, spread) - rng.gauss(0, 1)))
        if verdict := decide.look(gains, required, level, NOISE):
            return verdict.outcome, len(gains)


def test_one_score_has_no_noise() -> None:
    """A single seed says nothing about spread."""
    assert decide.noise_of([3.2]) is None
    assert decide.noise_of([3.0, 3.2]) == decide.Noise(3.1, statistics.stdev([3.0, 3.2]), 2)


def test_promotion_needs_one_sigma_and_a_real_gain() -> None:
    """A gain below the noise, or none over a noiseless parent, is not promoted."""
    noise = decide.Noise(3.0, 0.02, 5)
    assert decide.promotes(0.02, noise)
    assert not decide.promotes(0.0199, noise)
    assert not decide.promotes(0.0, decide.Noise(3.0, 0.0, 5))


@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_null_edits_seldom_pass_and_end_soon(spread: float) -> None:
    """Whatever the candidate's own variance, a null is kept less often than its level says, and costs two or three
    pairs."""
    rng = random.Random(4)
    ended = [confirm(rng, 0.0, 0.0, 0.05, spread) for _ in range(2000)]
    assert sum(outcome == "won" for outcome, _ in ended) / 2000 <= 0.05
    assert statistics.fmean(pairs for _, pairs in ended) < 3.5


@pytest.mark.parametrize(
    ("tested", "found", "effect", "power", "most"),
    [(0, 0, 2, 0.65, 11), (0, 0, 3, 0.95, 9), (0, 0, 5, 0.98, 6), (0, 0, 30, 1.0, 5), (40, 7, 3, 0.85, 12)],
)
def test_real_gains_are_found(tested: int, found: int, effect: float, power: float, most: float) -> None:
    """Gains of two standard deviations are mostly found at the level of a first hypothesis, and of three later on."""
    rng = random.Random(5)
    ended = [confirm(rng, effect, 0.003, evidence.level(0.05, tested, found)) for _ in range(300)]
    assert sum(outcome == "won" for outcome, _ in ended) / 300 >= power
    assert statistics.fmean(pairs for _, pairs in ended) <= most


def test_a_gain_below_what_is_required_is_no_win() -> None:
    """A tiny gain, however sure, is not kept, and its cause says what was missing."""
    gains = [0.0020 + 0.0001 * (number % 3) for number in range(decide.MAX_PAIRS)]
    verdict = decide.look(gains, 0.003, 0.05, NOISE)
    assert verdict is not None and verdict.outcome == "discarded" and "0.0030 needed" in verdict.cause


def test_two_pairs_that_differ_much_do_not_end_it() -> None:
    """The parent's seeds say that a spread of three times their own is luck; a mean of nothing ends it all the same."""
    level = evidence.level(0.05, 10, 4)
    assert decide.look([0.06, 0.0], 0.003, level, NOISE) is None
    worse = decide.look([0.03, -0.03], 0.003, level, NOISE)
    assert worse is not None and worse.outcome == "discarded"


def test_what_remains_open_is_inconclusive() -> None:
    """A gain that is there on average but not beyond doubt after all pairs has its own outcome."""
    gains = [0.03, -0.01] * (decide.MAX_PAIRS // 2)
    verdict = decide.look(gains, 0.003, 0.001, NOISE)
    assert verdict is not None and verdict.outcome == "inconclusive"
    assert verdict.low < verdict.gain < verdict.high


def test_a_simplification_may_lose_no_more_than_its_margin() -> None:
    """With minus the margin required, an equal program passes and one that is two margins worse does not."""
    rng = random.Random(6)
    margin = decide.margin(0.003, NOISE)
    assert margin == 0.01
    assert sum(confirm(rng, 3.0, 0.02, 0.05)[0] == "won" for _ in range(50)) < 50
    equal = [[rng.gauss(0, 0.002) for _ in range(8)] for _ in range(50)]
    assert all(decide.look(gains, -margin, 0.01, NOISE) for gains in equal)
    assert sum(decide.look(gains, -margin, 0.01, NOISE).outcome == "won" for gains in equal) >= 45  # type: ignore[union-attr]
    worse = [[gain - 2 * margin for gain in gains] for gains in equal]
    assert all(decide.look(gains, -margin, 0.01, NOISE).outcome == "discarded" for gains in worse)  # type: ignore[union-attr]


def test_doubt_is_what_steps_and_memory_could_buy() -> None:
    """Rounding that was given away, two errors of the cost ratio, and what the edit could remember, add up."""
    assert decide.doubt(0.5, 0.01, 0.01, 0.0) == pytest.approx(0.5 * 0.03)
    assert decide.doubt(0.5, -0.01, 0.0, 0.0) == 0.0
    assert decide.doubt(-0.1, 0.01, 0.01, 0.002) == pytest.approx(0.002)
    assert decide.memory_of(4096, 4_000_000) == pytest.approx(0.008192)
    assert decide.surplus(1300, decide.steps_for(1300, 1.007), 1.007) == pytest.approx(0.007, abs=1e-3)


def test_an_audit_tells_rounding_from_peeking() -> None:
    """Gaps of float noise pass; one large gap or a small constant one does not."""
    first = [2.0 + 0.01 * number for number in range(512)]
    honest = decide.audit(first, [bits + 1e-6 * (-1) ** number for number, bits in enumerate(first)])
    assert honest.cause == "" and honest.positions == 512
    assert "2.5 bits" in decide.audit(first, [*first[:-1], first[-1] + 2.5]).cause
    assert "on average" in decide.audit(first, [bits + 0.0015 for bits in first]).cause
    with pytest.raises(ValueError, match="positions"):
        decide.audit(first, first[:-1])


def test_the_books_tolerate_this_machines_noise_and_no_more() -> None:
    """3 %, half for what was run apart, or three times the baseline's own spread."""
    assert decide.tolerance([30.0]) == decide.tolerance([30.0, 30.1, 29.9]) == 0.03
    assert decide.tolerance([30.0, 33.0, 27.0]) == pytest.approx(0.3)
    assert decide.tolerance([30.0, 33.0, 27.0], apart=True) == decide.tolerance([30.0], apart=True) == 0.5
    assert decide.tolerance([30.0, 36.0, 24.0], apart=True) == pytest.approx(0.6)
    assert decide.excess([33.0, 33.0], [30.0, 30.0]) == pytest.approx(0.1)


def test_answers_that_take_long_leave_less_to_train_with() -> None:
    """Beyond a quarter more than the other arm's, or than its steps' cost explains."""
    assert decide.allowed(20.0, 2.5, 2.0, 1.0) == 20.0 == decide.allowed(20.0, 4.9, 2.0, 2.0)
    assert decide.allowed(20.0, 4.5, 2.0, 1.0) == pytest.approx(18.0)
    assert decide.allowed(20.0, 2.4, 2.0, 0.2) == 20.0  # smaller batches make steps cheap, and answers not
    assert decide.allowed(20.0, 500.0, 2.0, 1.0) < 20.0 / decide.MAX_RATIO


def test_steps_follow_cost_on_a_two_percent_grid() -> None:
    """Timing noise below the grid leaves N alone; double cost halves it; a faster program earns steps, up to 8-fold."""
    assert decide.steps_for(1300, 1.004) == decide.steps_for(1300, 0.996) == 1300
    assert decide.steps_for(1300, 2.0) == pytest.approx(650, rel=0.011)
    assert decide.steps_for(1300, 0.8) == pytest.approx(1625, rel=0.011)
    assert decide.steps_for(1300, 1e-6) == decide.steps_for(1300, 0.125)
    with pytest.raises(ValueError):
        decide.steps_for(1300, 0.0)


def test_an_absurd_cost_makes_neither_an_endless_nor_an_empty_run() -> None:
    """Beyond 8 and 1/8 the ratio counts as 8 and 1/8."""
    assert decide.steps_for(1300, 1000.0) == decide.steps_for(1300, 8.0) == pytest.approx(1300 / 8, rel=0.011)
    assert decide.steps_for(1300, 1e-9) == decide.steps_for(1300, 1 / 8) == pytest.approx(1300 * 8, rel=0.011)


def test_a_parent_with_stuck_seeds_is_noisy() -> None:
    """Three times the baseline's spread, over enough seeds to know."""
    baseline = decide.Noise(3.0, 0.01, 5)
    assert decide.is_noisy(decide.noise_of([2.5, 2.5, 2.51, 2.49, 2.6]), baseline)  # type: ignore[arg-type]
    assert not decide.is_noisy(decide.Noise(2.5, 0.02, 5), baseline)
    assert not decide.is_noisy(decide.Noise(2.5, 0.2, 2), baseline)


def test_a_loss_beyond_doubt_needs_no_more_seeds() -> None:
    """Two standard deviations of the few seeds there are, and never less than several times what counts as a gain."""
    assert decide.is_lost(-0.041, decide.Noise(3.2, 0.02, 2), 0.003)
    assert not decide.is_lost(-0.039, decide.Noise(3.2, 0.02, 2), 0.003)
    alike = decide.Noise(3.2, 0.0, 2)
    assert decide.is_lost(-0.016, alike, 0.003) and not decide.is_lost(-0.014, alike, 0.003)


@pytest.mark.parametrize("seeds", [3, 4])
def test_what_is_lost_by_algebra_no_missing_seeds_could_save(seeds: int) -> None:
    """Wherever they fall; and a little more gain could still be promoted."""
    rng = random.Random(seeds)
    saved = 0
    for _ in range(2000):
        known = [rng.gauss(3.2, 0.02) for _ in range(seeds)]
        few = decide.noise_of(known)
        assert few is not None
        missing = decide.PROMOTE_AFTER - seeds
        factor = math.sqrt((seeds - 1) / 4 * (1 - missing * 4 / (5 * seeds)))
        place = few.mean + few.sd * rng.uniform(-1.0, 3.0)  # of the missing ones
        whole = decide.noise_of([*known, *[place] * missing])
        assert whole is not None
        for gain, is_lost in ((0.999 * factor * few.sd, True), (1.001 * factor * few.sd, False)):
            assert decide.is_lost(gain, few, 0.003) == is_lost
            promoted = decide.promotes(gain + whole.mean - few.mean, whole)
            assert not (promoted and is_lost)
            saved += promoted
    assert saved > 0


def test_half_time_limit_is_worse_than_every_seed_of_the_parent() -> None:
    """And than their mean by two standard deviations; one seed sets no limit."""
    assert decide.kill_above([4.0]) is None
    assert decide.kill_above([4.0, 4.0, 4.0, 4.0, 4.5]) == pytest.approx(4.1 + 2 * 0.2236, abs=1e-3)
    assert decide.kill_above([4.0, 4.0, *[4.0] * 20, 4.5]) == 4.5


def test_a_claim_of_which_less_than_half_is_there_is_refuted() -> None:
    """Also when there is a gain: it is the claim that is judged. One that holds is confirmed, and chance is neither."""
    noise, dice = decide.Noise(3.0, 0.01, 5), random.Random(3)

    def judged(true: float, claimed: float) -> str:
        gains: list[float] = []
        bar = decide.refuted_below(0.003, claimed)
        while True:
            gains.append(true + dice.gauss(0.0, 0.01) - dice.gauss(0.0, 0.01))
            if (verdict := decide.verify(gains, 0.003, bar, noise)) is not None:
                return verdict.outcome

    assert [judged(0.3, claimed) for claimed in (0.3, 0.35, 1.0, 9.0)] == ["won", "won", "discarded", "discarded"]
    assert judged(0.0, 0.3) == "discarded"
    honest = [judged(0.06, 0.06 * dice.uniform(0.9, 1.3)) for _ in range(200)]
    assert honest.count("won") > 150 and honest.count("discarded") <= 10
