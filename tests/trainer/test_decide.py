"""The interim decision rules."""

from __future__ import annotations

import random
import statistics

import pytest
from swarm_node.trainer import decide


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


def test_keep_needs_two_standard_errors() -> None:
    """The bar for 3 + 3 runs is 2σ√(2/3)."""
    noise = decide.Noise(3.0, 0.03, 5)
    bar = 2 * 0.03 * (2 / 3) ** 0.5
    parent = [0.0, 0.01, -0.01]
    kept = decide.decide([bar + 0.011, bar - 0.009, bar + 0.001], parent, noise)
    assert kept.outcome == "kept" and kept.needed == pytest.approx(bar)
    assert decide.decide([bar, bar, bar - 0.003], parent, noise).outcome == "inconclusive"
    assert decide.decide([-0.01, -0.02, 0.0], parent, noise).outcome == "discarded"


def test_null_edits_are_kept_at_about_the_promised_rate() -> None:
    """Simulated candidates equal to their parent are kept in about 2.3 % of confirmations when σ is known."""
    rng = random.Random(1)
    noise = decide.Noise(0.0, 1.0, 5)
    draws = 20_000
    kept = sum(
        decide.decide([rng.gauss(0, 1) for _ in range(3)], [rng.gauss(0, 1) for _ in range(3)], noise).outcome == "kept"
        for _ in range(draws)
    )
    assert 0.018 < kept / draws < 0.028


def test_steps_follow_cost_on_a_two_percent_grid() -> None:
    """Timing noise below the grid leaves N alone; double cost halves it; a faster program earns steps."""
    assert decide.steps_for(1300, 1.004) == decide.steps_for(1300, 0.996) == 1300
    assert decide.steps_for(1300, 2.0) == pytest.approx(650, rel=0.011)
    assert decide.steps_for(1300, 0.8) == pytest.approx(1625, rel=0.011)
    with pytest.raises(ValueError):
        decide.steps_for(1300, 0.0)


def test_an_absurd_cost_makes_neither_an_endless_nor_an_empty_run() -> None:
    """Beyond 8 and 1/8 the ratio counts as 8 and 1/8."""
    assert decide.steps_for(1300, 1000.0) == decide.steps_for(1300, 8.0) == pytest.approx(1300 / 8, rel=0.011)
    assert decide.steps_for(1300, 1e-9) == decide.steps_for(1300, 1 / 8) == pytest.approx(1300 * 8, rel=0.011)
