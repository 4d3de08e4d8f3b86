"""How much more CPU time a candidate's step takes than its parent's, measured beside each other on one core.

Both run in gated children that take turns in short blocks, A B B A, so that whatever slows the machine slows both.
CPU time does not count the time that other processes take; the median over pairs of blocks is deaf to outliers.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import frames
from .runchild import RunChild
from .types import CostRatio

WARM_STEPS = 5  # first steps allocate, and choose kernels
BLOCK_CPU_S = 0.05  # of a block: short against what changes a machine's speed, long against the 20 µs of a turn
MIN_PAIRS = 12  # fewer deviations from a median say little about their spread
MIN_STEPS = 100  # a shorter program is measured as if it had this many
PRECISION = 0.01
SPEND_S = 3.0


@dataclass
class Side:
    """One of the two programs."""

    child: RunChild
    left: int  # steps it may still take
    block: int = 1  # steps in a block

    def take(self, steps: int) -> float:
        """Let it take some steps; CPU seconds per step."""
        before = self.child.cpu()
        self.child.send(frames.GO, frames.STEP.pack(steps))
        self.child.expect(frames.PAUSE)
        self.left -= steps
        return (self.child.cpu() - before) / steps


def measure(parent: Side, candidate: Side, spent: Callable[[float], None]) -> CostRatio:
    """Run both until the ratio is known to 1 % or 3 s are spent (or a program has no steps left).

    Each side's child has been started, gated; `spent(seconds)` is called after every pair.
    """
    for side in (parent, candidate):
        side.child.expect(frames.PAUSE)
        warm = [side.take(1) for _ in range(WARM_STEPS)]
        side.block = max(1, round(BLOCK_CPU_S / max(warm[-1], 1e-6)))
    started = time.monotonic()
    pairs: list[tuple[float, float]] = []
    while True:
        for side in (parent, candidate):
            side.block = min(side.block, side.left)
        if not (parent.block and candidate.block):
            break
        first, second = (parent, candidate) if len(pairs) % 2 == 0 else (candidate, parent)
        costs = first.take(first.block), second.take(second.block)
        pairs.append(costs if first is parent else (costs[1], costs[0]))
        seconds = time.monotonic() - started
        spent(seconds)
        if seconds > SPEND_S or (len(pairs) >= MIN_PAIRS and relative_error(pairs) <= PRECISION):
            break
    ratio = statistics.median(b / a for a, b in pairs)
    base = statistics.median(a for a, _ in pairs)
    return CostRatio(ratio, relative_error(pairs), base, time.monotonic() - started)


def relative_error(pairs: list[tuple[float, float]]) -> float:
    """Relative standard error of the median of b / a, from the median absolute deviation; infinite below 3 pairs."""
    if len(pairs) < 3:
        return math.inf
    ratios = [b / a for a, b in pairs]
    middle = statistics.median(ratios)
    spread = 1.4826 * statistics.median(abs(ratio - middle) for ratio in ratios)
    return 1.2533 * spread / math.sqrt(len(ratios)) / middle


def start(child: RunChild, source: str, steps: int, train: Path) -> Side:
    """Give a new gated child its program."""
    steps = max(steps, MIN_STEPS)
    child.start(source, 0, steps, train, probe=False, gated=True)
    return Side(child, steps - 2)  # it pauses after the first, and after the last it would be done
