"""Evidence that may be looked at after every pair of runs: e-values, their intervals, and control over many tries.

An e-value against a hypothesis has an expectation of at most 1 while the hypothesis is true. The one here is a test
martingale: the chance that it ever passes 1/α is at most α, however often one looks and whenever one stops (Ville).

It tests the mean of paired differences that are normal with unknown variance, so the two arms may differ in variance.
The model is invariant under scale, and the e-value is the likelihood ratio of the invariant part, with a half-normal
prior over the effect in standard deviations: Pérez-Ortiz, Lardy, de Heide and Grünwald, "E-statistics, group
invariance and anytime-valid testing", Annals of Statistics 52 (2024). The interval inverts its two-sided form: Wang
and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", Sequential
Analysis 44 (2025). Where differences are not normal but symmetric, as two equal recipes give, simulation on real
scores shows what is left of the promise (scripts/bench_decisions.py).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

PRIOR = 0.1  # 1/variance of the prior over effects: real gains are a few to fifty standard deviations
GAMMA = 1.3  # exponent of the series that spreads α over hypotheses; its sum is zeta(1.3)
_ZETA = 3.9319492118


def e_value(differences: Sequence[float]) -> float:
    """Evidence that the mean of the differences is above 0, against that it is 0 or less. 1 when there is none."""
    return from_sums(sum(differences), sum(d * d for d in differences), len(differences))


def from_sums(total: float, squares: float, n: int) -> float:
    """`e_value` of `n` differences with this sum and this sum of squares."""
    from scipy.special import stdtr  # takes 0.1 s to import, and only deciding needs it

    if n == 0 or squares <= 0.0:
        return 1.0  # differences of exactly zero speak for nobody
    k = n + PRIOR
    rest = max(squares - total * total / k, 1e-12 * squares)
    ratio = 0.5 * n * math.log(squares / rest) + 0.5 * math.log(PRIOR / k)
    return 2.0 * math.exp(min(ratio, 700.0)) * float(stdtr(n, total * math.sqrt(n / (k * rest))))


def interval(differences: Sequence[float], alpha: float) -> tuple[float, float]:
    """Bounds of the mean that hold at all looks together with a chance of 1 - `alpha`; infinite when too few."""
    n = len(differences)
    if n < 2:
        return -math.inf, math.inf
    mean = statistics.fmean(differences)
    k = n + PRIOR
    r = (math.sqrt(k / PRIOR) / alpha) ** (2.0 / n)
    room = 1.0 - r * PRIOR / k
    if room <= 0.0:
        return -math.inf, math.inf
    half = math.sqrt((r - 1.0) * statistics.variance(differences) * (n - 1) / (n * room))
    return mean - half, mean + half


def level(alpha: float, tested: int, found: int) -> float:
    """The α of the next hypothesis after `tested` others of which `found` were claimed as discoveries.

    e-LOND: the expected share of false ones among all discoveries stays at or below `alpha`, at all times and under any
    dependence between the tests. Xu and Ramdas, "Online multiple testing with e-values", AISTATS 2024.
    """
    return alpha * (tested + 1) ** -GAMMA / _ZETA * (found + 1)
