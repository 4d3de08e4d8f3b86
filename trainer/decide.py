"""The rules that turn scores into a verdict. Pure functions of numbers.

Interim rules, until sequential confirmation replaces them: screen with one run and promote when it is
better than the parent's mean by at least one standard deviation over seeds; confirm with three fresh seeds
of each arm and keep when the mean gain exceeds twice its standard error under the parent's noise,
2σ√(2/3). The screening run is never counted again: it was selected for being good (winner's curse).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SCREEN_AFTER = 2  # seeds of the parent before its noise is good enough to screen against
PROMOTE_AFTER = 5  # seeds of the parent before anything may be promoted
CONFIRM_RUNS = 3  # fresh seeds per arm
PROMOTE_SIGMAS = 1.0
KEEP_SIGMAS = 2.0
STEP_QUANTUM = 0.02  # steps are rounded to the nearest point of a 2 % grid, so that timing noise seldom changes N
MAX_RATIO = 8.0  # a cost ratio beyond 8 or 1/8 counts as that: a mismeasured one must not make a run endless or empty


@dataclass(frozen=True)
class Noise:
    """Mean and standard deviation of a program's score over `n` seeds, in the task's unit."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """What confirmation found. `gain` > 0 is better; `error` is its standard error from the runs themselves."""

    outcome: Literal["kept", "discarded", "inconclusive"]
    gain: float
    error: float
    needed: float
    cause: str


def noise_of(scores: Sequence[float]) -> Noise | None:
    """Noise over seeds, or None with fewer than two scores (one score has no spread)."""
    if len(scores) < 2:
        return None
    return Noise(statistics.fmean(scores), statistics.stdev(scores), len(scores))


def promotes(gain: float, noise: Noise) -> bool:
    """Whether a screening gain over the parent's mean earns confirmation."""
    return gain >= PROMOTE_SIGMAS * noise.sd and gain > 0


def decide(gains_candidate: Sequence[float], gains_parent: Sequence[float], noise: Noise) -> Verdict:
    """The verdict over fresh paired runs.

    Both arms are given as "better by" relative to one common reference (higher is better), in the task's unit.
    """
    if len(gains_candidate) < CONFIRM_RUNS or len(gains_parent) < CONFIRM_RUNS:
        raise ValueError(f"confirmation needs {CONFIRM_RUNS} runs of each arm")
    gain = statistics.fmean(gains_candidate) - statistics.fmean(gains_parent)
    n_candidate, n_parent = len(gains_candidate), len(gains_parent)
    error = math.sqrt(statistics.variance(gains_candidate) / n_candidate + statistics.variance(gains_parent) / n_parent)
    needed = KEEP_SIGMAS * noise.sd * math.sqrt(1 / n_candidate + 1 / n_parent)
    if gain > needed:
        return Verdict("kept", gain, error, needed, "")
    cause = f"mean gain {gain:+.4f} over {n_candidate}+{n_parent} runs; {needed:.4f} needed"
    return Verdict("inconclusive" if gain > 0 else "discarded", gain, error, needed, cause)


def steps_for(base_steps: int, cost_ratio: float) -> int:
    """Steps that cost as much as `base_steps` of the baseline, when one step costs `cost_ratio` baseline steps.

    Rounded to the nearest point of a geometric grid of 2 % through `base_steps`; at least 1. The ratio is clamped.
    """
    if not cost_ratio > 0:
        raise ValueError(f"cost ratio {cost_ratio}")
    cost_ratio = min(max(cost_ratio, 1 / MAX_RATIO), MAX_RATIO)
    grid = round(-math.log(cost_ratio) / math.log1p(STEP_QUANTUM))
    return max(1, round(base_steps * (1 + STEP_QUANTUM) ** grid))
