"""Evidence, against its promises: simulated with the production code."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from scipy import integrate, stats
from swarm_node.trainer import evidence


def test_e_value_is_the_integral_that_it_claims_to_be() -> None:
    """The closed form equals the likelihood ratio, integrated over the prior of the effect and over the scale."""
    data = [0.4, 1.1, -0.2, 0.9]
    n = len(data)

    def likelihood(effect: float, scale: float) -> float:  # right Haar prior: d scale / scale
        exponent = -sum((d / scale - effect) ** 2 for d in data) / 2
        return scale ** (-n - 1) * math.exp(exponent)

    prior = stats.halfnorm(scale=1 / math.sqrt(evidence.PRIOR)).pdf
    above = integrate.dblquad(lambda g, s: prior(g) * likelihood(g, s), 0, 60, 0, 40, epsabs=1e-6, epsrel=1e-6)[0]
    null = integrate.quad(lambda s: likelihood(0.0, s), 0, 60)[0]
    assert evidence.e_value(data) == pytest.approx(above / null, rel=1e-4)


def test_scale_changes_nothing_and_signs_do() -> None:
    """Bits or nats give the same evidence; losses give less than one."""
    gains = [0.02, 0.03, 0.025]
    assert evidence.e_value([1e6 * gain for gain in gains]) == pytest.approx(evidence.e_value(gains))
    assert evidence.e_value(gains) > 20 > 1 > evidence.e_value([-gain for gain in gains])
    assert evidence.e_value([]) == evidence.e_value([0.0, 0.0]) == 1.0
    assert math.isfinite(evidence.e_value([1.0] * 30))


@pytest.mark.parametrize("mean", [0.0, -0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_false_alarms_at_any_time_stay_below_alpha(mean: float, alpha: float) -> None:
    """Looking after each of 12 pairs, the chance of ever passing 1/α is at most α while there is no gain."""
    rng = random.Random(1)
    tries, alarms = 4000, 0
    for _ in range(tries):
        total = squares = 0.0
        for n in range(1, 13):
            d = rng.gauss(mean, 1.0)
            total, squares = total + d, squares + d * d
            if evidence.from_sums(total, squares, n) >= 1 / alpha:
                alarms += 1
                break
    assert alarms / tries <= alpha


def test_interval_holds_at_all_looks_together() -> None:
    """The truth leaves the interval at any of 12 looks in at most 5 % of histories; more pairs make it narrower."""
    rng = random.Random(2)
    left = 0
    for _ in range(2000):
        gains = [rng.gauss(0.3, 1.0) for _ in range(12)]
        bounds = [evidence.interval(gains[:n], 0.05) for n in range(1, 13)]
        left += any(not low <= 0.3 <= high for low, high in bounds)
    assert left / 2000 <= 0.05
    few, many = evidence.interval([0.1, 0.2] * 3, 0.05), evidence.interval([0.1, 0.2] * 6, 0.05)
    assert few[0] < many[0] < 0.15 < many[1] < few[1]
    assert evidence.interval([0.1], 0.05) == (-math.inf, math.inf)


def test_levels_spend_alpha_once() -> None:
    """Without discoveries, the levels of all hypotheses together stay below α; each discovery earns more."""
    levels = [evidence.level(0.05, tested, 0) for tested in range(100_000)]
    assert levels == sorted(levels, reverse=True)
    rest = 0.05 * 100_000 ** (1 - evidence.GAMMA) / (evidence.GAMMA - 1) / evidence._ZETA
    assert sum(levels) + rest == pytest.approx(0.05, rel=1e-3)
    assert evidence.level(0.05, 7, 2) == pytest.approx(3 * evidence.level(0.05, 7, 0))


def test_false_discoveries_stay_below_alpha() -> None:
    """e-LOND over histories with real gains among nulls: the mean share of false ones among discoveries is below α."""
    rng = random.Random(3)
    shares: list[float] = []
    for _ in range(200):
        found = false = 0
        for tested in range(40):
            real = rng.random() < 0.3
            gains = [rng.gauss(6.0 if real else 0.0, 1.4) for _ in range(6)]
            if evidence.e_value(gains) >= 1 / evidence.level(0.05, tested, found):
                found, false = found + 1, false + (not real)
        shares.append(false / max(1, found))
    assert statistics.fmean(shares) <= 0.05
