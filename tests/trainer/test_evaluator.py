"""The evaluator's arithmetic, against sums done the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from swarm_node.trainer import evaluator
from swarm_node.trainer.evaluator import BadAnswer
from swarm_node.trainer.types import AuditQuery, Slice

TEXT = np.random.default_rng(3).integers(0, 256, 5000).astype(np.uint8)


class Bigram:
    """A model: a fixed table of logits by the byte before."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        self.table = table
        self.shapes: list[tuple[int, ...]] = []

    def ask(self, tokens: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(tokens.shape)
        return self.table[tokens]


class Neighbours:
    """A model that remembers every byte it was ever shown, by its place, and looks it up in other rows and batches."""

    def __init__(self, text: NDArray[np.uint8]) -> None:
        self.text = text.tobytes()
        self.shown: set[int] = set()

    def ask(self, tokens: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = np.zeros((*tokens.shape, 256), np.float32)
        places = [self.text.find(row.tobytes()) for row in tokens]  # random text: a window is found by itself
        own = [set(range(place, place + tokens.shape[1])) for place in places]
        for row, place in enumerate(places):
            others = self.shown.union(*(own[:row] + own[row + 1 :])) - own[row]
            for column in range(tokens.shape[1]):
                if (target := place + column + 1) in others:
                    logits[row, column, self.text[target]] = 30.0
        self.shown.update(*own)
        return logits


DRAWN = [(49176, 51225), (53274, 55323), (86058, 88107), (94254, 96303)]
TABLE = np.random.default_rng(4).normal(0, 3, (256, 256)).astype(np.float32)


def slow_bits(text: NDArray[np.uint8], start: int, stop: int) -> float:
    """Mean -log2 p over text[start + 1 : stop], one byte at a time, in Python's floats."""
    total = 0.0
    for at in range(start, stop - 1):
        row = [float(value) for value in TABLE[text[at]]]
        top = max(row)
        total -= (row[text[at + 1]] - top - math.log(math.fsum(math.exp(value - top) for value in row))) / math.log(2)
    return total / (stop - start - 1)


@pytest.mark.parametrize("context", [8, 100, 1024])
def test_score_is_the_mean_of_every_targets_bits(context: int) -> None:
    """Whatever the context length, a model that needs one byte of context gets the same, right score."""
    got = evaluator.score(Bigram(TABLE), TEXT, [(0, 1500)], context)
    assert got == pytest.approx(slow_bits(TEXT, 0, 1500), abs=1e-6)


def test_an_even_model_costs_eight_bits() -> None:
    """Equal logits for all 256 bytes are exactly 8 bits per byte."""
    assert evaluator.score(Bigram(np.zeros((256, 256), np.float32)), TEXT, [(0, 5000)], 64) == pytest.approx(
        8, abs=1e-12
    )


def test_adding_a_constant_to_the_logits_gains_nothing() -> None:
    """Claiming more mass than there is changes no score: rows are normalised here."""
    plain = evaluator.score(Bigram(TABLE), TEXT, [(0, 900)], 32)
    assert evaluator.score(Bigram(TABLE + 50), TEXT, [(0, 900)], 32) == pytest.approx(plain, abs=1e-5)


@given(st.integers(2, 9000), st.integers(8, 1024), st.booleans())
def test_every_byte_but_a_cells_first_is_scored_once(size: int, context: int, drawn: bool) -> None:
    """Windows cover each cell's targets exactly once, never leave it, and are no longer than the context."""
    cells = evaluator.cells(Slice("confirm", draw=3 if drawn else None), size)
    scored: list[int] = []
    for starts, length in evaluator.batches(cells, context):
        assert 1 <= length <= context and len(starts) * length <= 4096
        scored += [int(start) + i + 1 for start in starts for i in range(length)]
    assert sorted(scored) == sorted(at for start, stop in cells for at in range(start + 1, stop))
    assert len(scored) == (2048 * (size // 2049) or size - 1)


@pytest.mark.parametrize("context", [8, 100, 128, 1000, 1024])
@pytest.mark.parametrize("draw", [None, 5])
def test_other_rows_and_batches_tell_nothing(context: int, draw: int | None) -> None:
    """On random text a model that knows all it was shown, but for the rest of its own window, pays the full 8 bits."""
    text = np.random.default_rng(9).integers(0, 256, 20_000).astype(np.uint8)
    cells = evaluator.cells(Slice("confirm", draw=draw, bytes=16_384), len(text))
    assert evaluator.score(Neighbours(text), text, cells, context) == pytest.approx(8.0, abs=1e-9)


def test_audited_bits_are_those_of_the_whole_windows() -> None:
    """An honest model says the same of a byte whether or not it was shown what follows, in the same order."""
    cells = evaluator.cells(Slice("confirm"), len(TEXT))
    points = evaluator.points(cells, 64, AuditQuery(seed=1, positions=40))
    notes = evaluator.Notes(points)
    evaluator.score(Bigram(TABLE), TEXT, cells, 64, notes)
    assert len(points) == 40 and len({point.start for point in points}) == 40
    assert all(1 <= point.cut < 64 for point in points)
    assert evaluator.audit(Bigram(TABLE), TEXT, points) == pytest.approx(notes.in_order(), abs=1e-9)
    slow = [slow_bits(TEXT, point.start + point.cut - 1, point.start + point.cut + 1) for point in points]
    assert notes.in_order() == pytest.approx(slow, abs=1e-6)
    assert evaluator.points(cells, 64, AuditQuery(seed=2, positions=40)) != points


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_refused(bad: float) -> None:
    """One bad value anywhere ends the evaluation."""
    table = TABLE.copy()
    table[TEXT[40], 9] = bad
    with pytest.raises(BadAnswer, match="not finite"):
        evaluator.score(Bigram(table), TEXT, [(0, 100)], 32)


def test_huge_logits_neither_overflow_nor_score_well() -> None:
    """Rows at the ends of float32 are legal, and a target without any chance is refused."""
    logits = np.zeros((1, 1, 256), np.float32)
    logits[..., 65] = 3e38
    assert evaluator.bits(logits, np.array([[65]], np.uint8)) == pytest.approx(0)
    logits[..., 66] = -3e38
    with pytest.raises(BadAnswer, match="no chance"):
        evaluator.bits(logits, np.array([[66]], np.uint8))


def test_drawn_cells_are_the_same_everywhere() -> None:
    """A seed draws fixed, disjoint cells: this list is part of what a score means."""
    drawn = evaluator.cells(Slice("confirm", draw=5, bytes=8192), 100_000)
    assert drawn == DRAWN
    assert evaluator.cells(Slice("confirm", draw=6, bytes=8192), 100_000) != drawn
    assert len(evaluator.cells(Slice("confirm", draw=5), 100_000)) == 48


def test_a_fixed_slice_is_the_start_of_the_text() -> None:
    """Without a seed the first bytes are taken, all of them by default, never more than there are."""
    assert evaluator.cells(Slice("screen", bytes=300), 1000) == [(0, 300)]
    assert evaluator.cells(Slice("screen"), 1000) == evaluator.cells(Slice("screen", bytes=9999), 1000) == [(0, 1000)]
    assert evaluator.cells(Slice("screen"), 5000) == [(0, 2049), (2049, 4098)]


def test_memory_is_bounded_by_small_batches() -> None:
    """No question asks for more than 4 MiB of logits."""
    model = Bigram(TABLE)
    evaluator.score(model, TEXT, [(0, 5000)], 128)
    assert max(rows * length for rows, length in model.shapes) <= 4096


def test_the_digest_names_the_logits() -> None:
    """Equal logits have equal digests, and one changed value changes it."""
    table = TABLE.copy()
    table[TEXT[0], 0] += np.float32(1e-6)
    first = evaluator.digest(Bigram(TABLE), TEXT, 64)
    assert len(first) == 64 and first == evaluator.digest(Bigram(TABLE.copy()), TEXT, 64)
    assert evaluator.digest(Bigram(table), TEXT, 64) != first
