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
from swarm_node.trainer.types import Slice

TEXT = np.random.default_rng(3).integers(0, 256, 5000).astype(np.uint8)


class Bigram:
    """A model: a fixed table of logits by the byte before."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        self.table = table
        self.shapes: list[tuple[int, ...]] = []

    def ask(self, tokens: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(tokens.shape)
        return self.table[tokens]


class Copycat:
    """A model that looks for its answers in the other rows of the same question, and is sure of what it finds."""

    def ask(self, tokens: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = np.zeros((*tokens.shape, 256), np.float32)
        for number, row in enumerate(tokens):
            others = np.delete(tokens, number, 0)
            # The byte after the last one may begin the next row; a triple seen elsewhere may go on as it did there.
            follows = {bytes(other[at : at + 3]): other[at + 3] for other in others for at in range(len(row) - 3)}
            for at in range(2, len(row)):
                if (key := bytes(row[at - 2 : at + 1])) in follows:
                    logits[number, at, follows[key]] = 20
            if number + 1 < len(tokens):
                logits[number, -1, tokens[number + 1, 0]] = 20
        return logits


DRAWN = [(49152, 51201), (53248, 55297), (86016, 88065), (94208, 96257)]
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


SLICES = st.builds(Slice, st.just("screen"), st.none() | st.integers(0, 9), st.none() | st.integers(2, 30_000))


@given(SLICES, st.integers(2, 30_000), st.integers(8, 1024))
def test_every_byte_but_a_cells_first_is_scored_once(part: Slice, size: int, context: int) -> None:
    """Questions cover each cell's targets exactly once, in windows no longer than the model's context."""
    cells = evaluator.cells(part, size)
    asked = list(evaluator.questions(cells, context))
    scored = [int(at) + i + 1 for starts, length in asked for at in starts for i in range(length)]
    assert sorted(scored) == [at for start, stop in cells for at in range(start + 1, stop)]
    assert all(0 < length <= context for _, length in asked)


@given(SLICES, st.integers(2, 30_000), st.integers(8, 1024))
def test_no_row_holds_another_rows_targets(part: Slice, size: int, context: int) -> None:
    """No target of a question stands in another row of it, nor in a row's own windows before."""
    seen: set[int] = set()
    for starts, length in evaluator.questions(evaluator.cells(part, size), context):
        inputs = [range(int(at), int(at) + length) for at in starts]
        targets = [range(int(at) + 1, int(at) + 1 + length) for at in starts]
        for row, due in enumerate(targets):
            assert not any(set(due) & set(other) for number, other in enumerate(inputs) if number != row)
        # What a later cell's first input tells about the cell before is the one thing that a memory could use.
        assert not [at for due in targets for at in due if at in seen and at % evaluator.CELL]
        seen.update(at for row in inputs for at in row)


@pytest.mark.parametrize("context", [64, 100, 1024])
@pytest.mark.parametrize("draw", [None, 5])
def test_other_rows_are_of_no_help(context: int, draw: int | None) -> None:
    """On random bytes a model that copies from the other rows of a question scores no better than knowing nothing."""
    text = np.random.default_rng(8).integers(0, 256, 33_000).astype(np.uint8)
    assert evaluator.score(Copycat(), text, evaluator.cells(Slice("screen", draw=draw), len(text)), context) >= 8


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
    assert evaluator.cells(Slice("screen"), 5000) == [(0, 2049), (2048, 4097), (4096, 5000)]


def test_a_text_of_one_byte_cannot_be_scored() -> None:
    """Nothing to predict is an error, not a score."""
    with pytest.raises(ValueError, match="nothing to predict"):
        evaluator.score(Bigram(TABLE), TEXT[:1], evaluator.cells(Slice("screen"), 1), 64)


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
