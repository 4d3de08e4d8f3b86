"""How well a cost ratio is known, from made-up measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from swarm_node.trainer import cost
from swarm_node.trainer.cost import Pair, Side


class FakeSide:
    """A program whose every step costs the same."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.left, self.block = step_s, 40, 1

    def warm_up(self) -> None:
        pass

    def take(self, steps: int) -> float:
        self.left -= steps
        return self.step_s


def fresh(started: list[bool], step_s: float = 0.020) -> Callable[[bool], object]:
    @contextmanager
    def pair(swapped: bool) -> Iterator[tuple[Side, Side]]:
        started.append(swapped)
        yield cast(tuple[Side, Side], (FakeSide(0.010), FakeSide(step_s)))

    return pair


def test_rounds_that_agree_do_not_end_the_measurement() -> None:
    """Four fresh pairs are measured, every other one swapped, however well the first ones agree."""
    started: list[bool] = []
    measured = cost.measure(fresh(started), lambda _: None, cost.ROUNDS)  # type: ignore[arg-type]
    assert started == [False, True, False, True]
    assert measured.ratio == pytest.approx(2.0) and measured.base_s_per_step == 0.010


def test_a_rough_measurement_knows_half_as_much() -> None:
    """One round in place of four, and it says so."""
    rough = cost.measure(fresh([]), lambda _: None, cost.ROUGH_ROUNDS)  # type: ignore[arg-type]
    whole = cost.measure(fresh([]), lambda _: None, cost.ROUNDS)  # type: ignore[arg-type]
    assert rough.rel_err == pytest.approx(2 * whole.rel_err) and rough.seconds == pytest.approx(whole.seconds / 4)


def test_a_steep_cost_is_measured_once() -> None:
    """Sixty times the time of a step is known well enough after one round, and said to be known less well."""
    started: list[bool] = []
    measured = cost.measure(fresh(started, 0.6), lambda _: None, cost.ROUNDS)  # type: ignore[arg-type]
    assert started == [False] and measured.ratio == pytest.approx(60)
    assert measured.rel_err == pytest.approx(0.015 * math.sqrt(2))


def test_agreement_by_luck_is_no_precision() -> None:
    """Equal rounds are known no better than children of one program agree: 1.5 % each, two of them, four times."""
    pairs: list[Pair] = [(1.0, 1.5)] * 8
    assert cost.relative_error([pairs] * 4) == pytest.approx(0.015 * math.sqrt(2) / math.sqrt(4))


def test_rounds_that_disagree_show() -> None:
    """A spread between rounds beyond that is reported as it is."""
    rounds: list[list[Pair]] = [[(1.0, ratio)] * 8 for ratio in (1.0, 1.1, 1.0, 1.1)]
    assert cost.relative_error(rounds) == pytest.approx(math.log(1.1) / 2 / math.sqrt(3), rel=0.01)
