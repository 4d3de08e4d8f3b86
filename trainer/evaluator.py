"""Bits per byte of held-out text under a model that only ever sends logits.

What the model's process claims is never used: the log-softmax and the sums are computed here, from rows that are
checked to be whole and finite. Which bytes are scored depends on the slice alone, not on the candidate's context
length: every byte of a cell but its first is a target exactly once.

A question's rows come from different cells and never overlap, and the next question is asked when this one is
answered, so that no answer can be copied from another row. Not covered: a model that looks at the rest of its own
window, which needs truncated prefixes asked of a second instance (`score` takes any Answerer, so such an audit can
stand beside it); and one that remembers earlier questions, which learns the last target of a cell (1 in 2048) when
the cell after it stood in the same group.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .types import Slice

CELL = 2048  # targets in one cell
BATCH_TARGETS = 4096  # 4 MiB of float32 logits at a time
DIGEST_WINDOWS = 4

Text = NDArray[np.uint8]
Cell = tuple[int, int]  # [start, stop) in a text: every byte but the first is a target


class BadAnswer(Exception):
    """The logits are not usable; the message says how."""


class Answerer(Protocol):
    """A model at the other end of a pipe."""

    def ask(self, tokens: Text) -> NDArray[np.float32]:
        """The logits [B, T, 256] for token ids [B, T]; may be overwritten by the next call."""
        ...


def load(path: Path) -> Text:
    """A text as memory-mapped bytes."""
    return np.memmap(path, dtype=np.uint8, mode="r")


def cells(part: Slice, size: int) -> list[Cell]:
    """The cells of a text of `size` bytes that a slice names, in order; the last one may be shorter.

    Drawn cells are the ones whose BLAKE2b with the seed is smallest: the same on every machine and numpy version.
    """
    if part.draw is None:
        size = size if part.bytes is None else min(size, part.bytes)
        return [(at, min(size, at + CELL + 1)) for at in range(0, max(1, size - 1), CELL)]
    numbers = range(max(1, (size - 1) // CELL))
    wanted = len(numbers) if part.bytes is None else max(1, part.bytes // CELL)
    keys = sorted((hashlib.blake2b(b"%d/%d" % (part.draw, cell), digest_size=16).digest(), cell) for cell in numbers)
    return [(cell * CELL, min(size, (cell + 1) * CELL + 1)) for cell in sorted(cell for _, cell in keys[:wanted])]


def questions(parts: list[Cell], context: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """What is asked at a time: where the windows start, one in each cell of a group, and their length.

    From one question to the next each row walks on through its cell. Cells of a group are equally long, so that the
    last window of a cell is at most shorter and no byte is asked for twice.
    """
    if min(stop - start for start, stop in parts) < 2:
        raise ValueError("a cell of less than two bytes has nothing to predict")
    rows = max(1, BATCH_TARGETS // context)
    for targets, alike in itertools.groupby(parts, lambda cell: cell[1] - cell[0] - 1):
        starts = np.array([start for start, _ in alike])
        for first in range(0, len(starts), rows):
            for done in range(0, targets, context):
                yield starts[first : first + rows] + done, min(context, targets - done)


def score(model: Answerer, text: Text, parts: list[Cell], context: int) -> float:
    """Bits per byte over all targets of the cells. Raises BadAnswer on rows that are not finite."""
    total, count = 0.0, 0
    for starts, length in questions(parts, context):
        windows = text[starts[:, None] + np.arange(length + 1)]
        total += float(bits(model.ask(windows[:, :-1]), windows[:, 1:]).sum())
        count += len(starts) * length
    return total / count


def bits(logits: NDArray[np.float32], targets: Text) -> NDArray[np.float64]:
    """-log2 softmax(logits)[target]: float64 [B, T], from logits [B, T, 256] and targets [B, T]."""
    if not np.isfinite(logits).all():
        raise BadAnswer("the logits are not finite")
    with np.errstate(over="ignore"):  # a difference beyond float32 is -inf and weighs exp(-inf) = 0
        logits = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None].astype(np.int64), -1)[..., 0]
    if not np.isfinite(chosen).all():
        raise BadAnswer("the logits give a byte of the text no chance at all")
    np.exp(logits, out=logits)
    return (np.log(logits.sum(-1, dtype=np.float64)) - chosen) / np.log(2.0)


def digest(model: Answerer, train: Text, context: int) -> str:
    """BLAKE2b-256 (hex) of the logits on fixed windows of the training text: equal builds reproduce it."""
    length = min(context, len(train) - 1)
    starts = np.arange(DIGEST_WINDOWS) * ((len(train) - length) // DIGEST_WINDOWS)
    logits = model.ask(train[starts[:, None] + np.arange(length)])
    if not np.isfinite(logits).all():
        raise BadAnswer("the logits are not finite")
    return hashlib.blake2b(logits.tobytes(), digest_size=32).hexdigest()
