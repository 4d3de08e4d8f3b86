"""How much more CPU time a candidate's step takes than its parent's, measured beside each other on one core.

Both run in gated children that take turns in short blocks, A B B A, so that whatever slows the machine slows both.
CPU time does not count the time that other processes take, and a median over pairs of blocks is deaf to outliers.
Two children of one program still differ by 1.5 % for as long as they live (where their memory lies, measured), so
several fresh pairs are measured for a short time each, every other pair started in the other order. How many is fixed
beforehand: who stops when a few pairs happen to agree believes in luck. Only a step that takes many times as long
is measured once: four rounds of it would take minutes, and their last percent decides nothing.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from . import frames
from .runchild import RunChild
from .types import CostRatio

WARM_STEPS = 4  # first steps allocate, and choose kernels
WARM_CPU_S = 1.0  # no further ones beyond this: next to steps that long it does not show
STEEP = 8.0  # times the CPU time, beyond which one round is enough
BLOCK_CPU_S = 0.03  # of a block: short against what changes a machine's speed, long against the 20 µs of a turn
MIN_STEPS = 100  # a shorter program is measured as if it had this many
CHILD_SPREAD = 0.015  # by which children of one program differ, taken as each child's standard deviation
ROUND_S = 0.6  # of measuring; starting the children takes another quarter of a second
MIN_PAIRS = 8  # in a round, however little a step costs
ROUNDS = 4  # of what decides
ROUGH_ROUNDS = 1  # of what only chooses what to look at

Pair = tuple[float, float]  # CPU seconds per step of the parent, of the candidate


@dataclass
class Side:
    """One of the two programs, in a child that waits for its next steps."""

    child: RunChild
    left: int  # steps it may still take
    block: int = 1  # steps in a block

    def take(self, steps: int) -> float:
        """Let it take some steps; CPU seconds per step."""
        before = self.child.cpu()
        self.child.send(frames.GO, frames.STEP.pack(steps))
        self.child.expect(frames.PAUSE)
        self.left -= steps
        return max(self.child.cpu() - before, 1e-9) / steps

    def warm_up(self) -> None:
        """Take the first steps, and see how many make a block."""
        self.child.expect(frames.PAUSE)
        costs: list[float] = []
        while len(costs) < WARM_STEPS and sum(costs) < WARM_CPU_S:
            costs.append(self.take(1))
        self.block = max(1, min(round(BLOCK_CPU_S / costs[-1]), self.left // MIN_PAIRS))


def start(child: RunChild, source: str, steps: int, train: Path) -> Side:
    """Give a new gated child its program."""
    steps = max(steps, MIN_STEPS)
    child.start(source, 0, steps, train, probe=False, gated=True)
    return Side(child, steps - 2)  # it pauses after the first, and after the last it would be done


def measure(
    fresh: Callable[[bool], AbstractContextManager[tuple[Side, Side]]], spent: Callable[[float], None], count: int
) -> CostRatio:
    """Measure `count` fresh pairs, for ROUND_S each; one when the candidate turns out STEEP.

    `fresh(swapped)` gives (parent, candidate) in new children, the candidate's started first when swapped;
    `spent(seconds)` is called after every pair of blocks.
    """
    rounds: list[list[Pair]] = []
    seconds = 0.0
    for number in range(count):
        with fresh(number % 2 == 1) as (parent, candidate):
            parent.warm_up()
            candidate.warm_up()
            rounds.append(_take_turns(parent, candidate, lambda more, before=seconds: spent(before + more)))
        seconds += ROUND_S
        if _middle(rounds[0]) > STEEP:
            break
    ratio = math.exp(statistics.fmean(math.log(middle) for middle in map(_middle, rounds)))
    base = statistics.median(a for pairs in rounds for a, _ in pairs)
    return CostRatio(ratio, relative_error(rounds), base, seconds)


def relative_error(rounds: list[list[Pair]]) -> float:
    """Relative standard error of the mean of the rounds' medians: the largest of what rounds, pairs and children tell.

    The spread of four rounds is often small by luck, so the error is never less than the spread of children gives.
    """
    logs = [math.log(_middle(pairs)) for pairs in rounds]
    between = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    deviations = [abs(math.log(b / a) - middle) for middle, pairs in zip(logs, rounds, strict=True) for a, b in pairs]
    # 1.48 makes a median absolute deviation a standard deviation, 1.25 a mean's standard error a median's.
    within = 1.4826 * 1.2533 * statistics.median(deviations) / math.sqrt(len(deviations))
    children = CHILD_SPREAD * math.sqrt(2 / len(rounds))
    return max(between, within, children)


def _take_turns(parent: Side, candidate: Side, spent: Callable[[float], None]) -> list[Pair]:
    """Pairs of blocks until this round's time is over or a program has no steps left."""
    started = time.monotonic()
    pairs: list[Pair] = []
    while min(parent.left - parent.block, candidate.left - candidate.block) >= 0:
        if len(pairs) % 2 == 0:
            pairs.append((parent.take(parent.block), candidate.take(candidate.block)))
        else:
            cost = candidate.take(candidate.block)
            pairs.append((parent.take(parent.block), cost))
        seconds = time.monotonic() - started
        spent(seconds)
        if seconds > ROUND_S:
            break
    return pairs


def _middle(pairs: list[Pair]) -> float:
    return statistics.median(b / a for a, b in pairs)
