"""The rules that turn scores into a verdict: pure functions of numbers, explained in docs/reading-the-evidence.md.

Screen with one run and promote what is better than the parent's mean by one standard deviation over seeds. Confirm with
pairs of fresh runs, one of each arm, looking after every pair, until the evidence that the gain is above what is
required passes the level that this hypothesis got, or the budget of pairs cannot bring it there any more. The screening
run is never counted again: it was selected for being good (winner's curse).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from . import evidence

ALPHA = 0.05  # of everything that a node keeps on a task, at most this share is expected to be luck
SCREEN_AFTER = 2  # seeds of the parent before its noise is good enough to screen against
PROMOTE_AFTER = 5  # seeds of the parent before anything may be promoted
PROMOTE_SIGMAS = 1.0
WAIT_SIGMAS = 4.0  # of a screening gain, below which an edit is confirmed together with others
KILL_SIGMAS = 2.0
LOST_SIGMAS, LOST_WORTHWHILE = 2.0, 5.0  # below the mean of fewer seeds than PROMOTE_AFTER: no more of them are needed
NOISY = 3.0  # times the baseline's standard deviation; five seeds of equal programs differ by that in 3 % of cases
FIRST_LOOK = 2  # pairs before futility may stop a confirmation
MAX_PAIRS = 20  # a record has room for so many
VERIFY_PAIRS = 12  # of a re-run of somebody's claim, which is one hypothesis and needs an e-value of 20 only
SPREAD_WEIGHT = 4.0  # pairs' worth of what the parent's seeds say of the spread, while few pairs tell it
STEP_QUANTUM = 0.02  # steps are rounded to the nearest point of a grid of 2 %, so that timing noise seldom changes N
MAX_RATIO = 8.0  # of a step's cost to the baseline's, either way
COST_SIGMAS = 2.0  # of the cost ratio's error, which the gain has to exceed in what they could buy
TOLERANCE, TOLERANCE_SIGMAS = 0.03, 3.0  # of a run's CPU time over its budget
APART_TOLERANCE = 0.5  # of a run alone: so much a machine's speed changes with what else it does, and with its heat
ANSWERS = 1.25  # times what the other arm's answers took, at the cost of its steps: what takes more has trained
SIMPLER = 0.99  # of the parent's tokens, at most, to count as less code
AUDIT_GAP, AUDIT_MEAN = 2e-3, 1e-4  # bits; float noise is a thousandth of it
MARGIN_SIGMAS = 1.0  # that a simplification may lose against its anchor


@dataclass(frozen=True)
class Noise:
    """Mean and standard deviation of a program's score over `n` seeds, in the task's unit."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """What confirmation found. `gain` > 0 is better, `error` its standard error; bounds hold at all looks together."""

    outcome: Literal["won", "discarded", "inconclusive"]
    gain: float
    error: float
    low: float
    high: float
    e_value: float
    cause: str


def noise_of(scores: Sequence[float]) -> Noise | None:
    """Noise over seeds, or None with fewer than two scores (one score has no spread)."""
    if len(scores) < 2:
        return None
    return Noise(statistics.fmean(scores), statistics.stdev(scores), len(scores))


def is_noisy(noise: Noise, baseline: Noise) -> bool:
    """Whether a program differs over seeds far more than the baseline does: some recipes have seeds that get stuck."""
    return noise.n >= PROMOTE_AFTER and noise.sd > NOISY * baseline.sd


def kill_above(probes: Sequence[float]) -> float | None:
    """The bits per byte at half time above which a candidate is clearly losing: worse than all of the parent's probes,
    and than their mean by two standard deviations. None with fewer than two."""
    noise = noise_of(probes)
    return None if noise is None else max(noise.mean + KILL_SIGMAS * noise.sd, *probes)


def promotes(gain: float, noise: Noise) -> bool:
    """Whether a screening gain over the parent's mean earns confirmation."""
    return gain >= PROMOTE_SIGMAS * noise.sd and gain > 0


def waits(gain: float, noise: Noise) -> bool:
    """Whether a screening gain that earns confirmation is so small that proving it alone would take many pairs.

    Several together take no more pairs than one that gains as much; it pays while half or more of what each gains alone
    is left in company.
    """
    return gain < WAIT_SIGMAS * noise.sd


def is_lost(gain: float, noise: Noise, worthwhile: float) -> bool:
    """Whether the seeds still missing for a promotion cannot change that a screening gets none.

    With three or four seeds by algebra, whatever scores the missing ones would have: what moves the mean of all five
    adds more to their standard deviation, which the gain has to reach. Two leave that open; then a loss by
    LOST_SIGMAS is enough. Two seeds alike say little of the spread, so it is taken to be several times the least gain
    that counts.
    """
    missing = PROMOTE_AFTER - noise.n
    # For `missing` seeds on average d from the mean of n: gain + d missing / 5 has to reach the standard deviation,
    # sqrt(((n - 1) sd^2 + d^2 n missing / 5) / 4) or more. At the d that is best for that, it does from `least` on.
    room = PROMOTE_SIGMAS**2 - missing * (PROMOTE_AFTER - 1) / (noise.n * PROMOTE_AFTER)
    if room > 0:
        least = noise.sd * math.sqrt((noise.n - 1) / (PROMOTE_AFTER - 1) * room)
        return gain < least
    return gain < -max(LOST_SIGMAS * noise.sd, LOST_WORTHWHILE * worthwhile)


def doubt(slope: float, surplus: float, cost_error: float, memory: float) -> float:
    """What could look like a gain without being one, in the task's unit: it is added to the gain that is required.

    slope: gain per ln(steps). surplus: ln of how much more the candidate's steps cost than its parent's, from rounding;
    cost_error: relative standard error of that. Both could have bought a gain of slope times as much. memory: what the
    edit could have saved by holding held-out text itself (`memory_of`).
    """
    return max(0.0, slope) * (max(0.0, surplus) + COST_SIGMAS * cost_error) + memory


def memory_of(compressed_bytes: int, pool_bytes: int) -> float:
    """Bits per byte that an edit of so many compressed bytes can save by remembering text to be scored on: no more than
    its own length, spread over the pool that this text is drawn from."""
    return 8.0 * compressed_bytes / pool_bytes


def look(gains: Sequence[float], required: float, level: float, noise: Noise) -> Verdict | None:
    """The verdict over paired gains so far, or None when another pair should be run.

    gains: score of the parent minus score of the candidate, or the other way round where higher is better, one for each
    pair. level: the α of this hypothesis (`evidence.level`). Futility has no part in the error rate: stopping early can
    only lose a win.
    """
    beyond = [gain - required for gain in gains]
    value = evidence.e_value(beyond)
    if value >= 1.0 / level:
        return _verdict("won", gains, value, "")
    n = len(gains)
    if n < FIRST_LOOK:
        return None
    mean = statistics.fmean(gains)
    if n < MAX_PAIRS and _hope(beyond, noise, MAX_PAIRS) >= 1.0 / level:
        return None
    cause = f"gain {mean:+.4f} over {n} pairs, more than {required:.4f} needed; evidence {value:.3g} of {1 / level:.3g}"
    return _verdict("inconclusive" if mean > required else "discarded", gains, value, cause)


def verify(gains: Sequence[float], required: float, bar: float, noise: Noise) -> Verdict | None:
    """The verdict of a re-run over paired gains so far: `won` when the claim is confirmed, `discarded` when it is
    refuted, which takes as much evidence, `inconclusive` when neither is in reach; None: another pair should be run.

    required: what the gain has to exceed to be confirmed; bar: what it has to stay below to be refuted.
    """
    beyond, short = [gain - required for gain in gains], [bar - gain for gain in gains]
    value, down = evidence.e_value(beyond), evidence.e_value(short)
    if max(value, down) >= 1.0 / ALPHA:
        return _verdict("discarded" if down >= 1.0 / ALPHA else "won", gains, value, "")
    n = len(gains)
    if n < FIRST_LOOK:
        return None
    hopes = (_hope(part, noise, VERIFY_PAIRS) for part in (beyond, short))
    if n < VERIFY_PAIRS and max(hopes) >= 1.0 / ALPHA:
        return None
    return _verdict("inconclusive", gains, value, "")


def refuted_below(aim: float, claimed: float) -> float:
    """The gain below which a claim is refuted: the least that counts, or half of what is claimed.

    A gain of nothing cannot be told from one of `worthwhile` by any number of pairs that somebody would run; it can be
    told from what was claimed. Half, since an honest claim is a little too high: it was selected for being good.
    """
    return max(aim, 0.5 * claimed) if aim > 0 else aim


def against(gains: Sequence[float], bar: float) -> float:
    """The e-value against "the gain is at least `bar`"."""
    return evidence.e_value([bar - gain for gain in gains])


def _hope(beyond: Sequence[float], noise: Noise, pairs: int) -> float:
    """The e-value after all pairs if the rest have the mean so far plus one standard error, and the spread so far.

    Two or three pairs say little of the spread: the parent's noise, in both arms, is weighed in. Else a win twice as
    large as that noise is given up when its first two pairs happen to differ much.
    """
    n, left = len(beyond), pairs - len(beyond)
    squared = (n - 1) * statistics.variance(beyond) + SPREAD_WEIGHT * 2.0 * noise.sd**2
    spread = math.sqrt(squared / (n - 1 + SPREAD_WEIGHT))
    mean = statistics.fmean(beyond) + spread / math.sqrt(n)
    if mean <= 0.0:
        return 0.0
    total = sum(beyond) + left * mean
    squares = sum(gain * gain for gain in beyond) + left * (mean * mean + spread * spread)
    return evidence.from_sums(total, squares, pairs)


def _verdict(
    outcome: Literal["won", "discarded", "inconclusive"], gains: Sequence[float], value: float, cause: str
) -> Verdict:
    low, high = evidence.interval(gains, ALPHA)
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    return Verdict(outcome, statistics.fmean(gains), error, low, high, value, cause)


def margin(worthwhile: float, noise: Noise) -> float:
    """How much a simplification may lose: it is tested like a gain of which minus this is required (non-inferiority).

    It is tested against its anchor, the last program that was kept for a gain, so that losses cannot creep.
    """
    return max(worthwhile, MARGIN_SIGMAS * noise.sd)


@dataclass(frozen=True)
class AuditFound:
    """Bits of the second instance minus bits of the first at the same positions; `cause` is empty when honest."""

    positions: int
    worst: float
    mean: float
    error: float
    cause: str


def audit(first: Sequence[float], second: Sequence[float]) -> AuditFound:
    """Compare the bits at audited positions of the instance that saw whole windows with those of the one that did not.

    An honest model answers alike but for the rounding of other batch shapes (at most 4e-6 bits measured in float32).
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} positions in the first instance, {len(second)} in the second")
    gaps = [after - before for before, after in zip(first, second, strict=True)]
    worst, mean = max(gaps, key=abs), statistics.fmean(gaps)
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    cause = ""
    if abs(worst) > AUDIT_GAP:
        share = sum(abs(gap) > AUDIT_GAP for gap in gaps) / len(gaps)
        cause = f"audit: answers change by up to {abs(worst):.3g} bits, at {share:.1%}, with the text behind them"
    elif abs(mean) > 3.0 * error + AUDIT_MEAN:
        cause = f"audit: answers change by {mean:+.2g} ± {error:.1g} bits on average with the text behind them"
    return AuditFound(len(gaps), worst, mean, error, cause)


def steps_for(base_steps: int, cost_ratio: float) -> int:
    """Steps that cost as much as `base_steps` of the baseline, when one step costs `cost_ratio` baseline steps.

    Rounded to the nearest point of a geometric grid of 2 % through `base_steps`; at least 1. A ratio beyond 8 either
    way is taken as 8.
    """
    if not cost_ratio > 0:
        raise ValueError(f"cost ratio {cost_ratio}")
    ratio = min(max(cost_ratio, 1 / MAX_RATIO), MAX_RATIO)
    grid = round(-math.log(ratio) / math.log1p(STEP_QUANTUM))
    return max(1, round(base_steps * (1 + STEP_QUANTUM) ** grid))


def surplus(base_steps: int, steps: int, cost_ratio: float) -> float:
    """ln of what `steps` cost over the budget of `base_steps` baseline steps; negative when they cost less."""
    return math.log(steps * cost_ratio / base_steps)


def tolerance(baseline_seconds: Sequence[float], apart: bool = False) -> float:
    """The relative excess of CPU time that is this machine's noise: 3 %, or three times the baseline's own spread.

    apart: of runs at another time than those that they are compared with, as a screening is: then at least half. What
    takes more than its share and less than that is found out by pairs, side by side, before anything is kept.
    """
    least = APART_TOLERANCE if apart else TOLERANCE
    if len(baseline_seconds) < 2:
        return least
    return max(least, TOLERANCE_SIGMAS * statistics.stdev(baseline_seconds) / statistics.fmean(baseline_seconds))


def allowed(seconds: float, answers: float, beside: float, cost: float) -> float:
    """CPU seconds of training that a run has, beside one of the other arm that took `seconds`: as many, less what its
    `answers` took beyond the other's (`beside`). A model may go on training while it is asked.

    cost: of a step, over the other arm's. A model whose steps cost twice as much takes twice as long to answer. What is
    left is something, since it is compared by its logarithm; no program's steps fit into it.
    """
    return max(0.01 * seconds, seconds - max(0.0, answers - ANSWERS * max(1.0, cost) * beside))


def excess(seconds: Sequence[float], budget: Sequence[float]) -> float:
    """How much more CPU time the candidate's runs took than their budget, relative: of the geometric means."""
    logs = (math.log(mine / allowed) for mine, allowed in zip(seconds, budget, strict=True))
    return math.expm1(statistics.fmean(logs))
