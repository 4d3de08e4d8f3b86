"""Bits per byte of held-out text under a model that only ever sends logits.

What the model's process claims is never used: the log-softmax and the sums are computed here, from rows that are
checked to be whole and finite. Which bytes are scored depends on the slice alone, not on the candidate's context
length: every byte of a span but its first is a target exactly once.

Not covered: a model that looks at the rest of its own window. That needs truncated prefixes asked of a second
instance; `score` takes any Answerer, so such an audit can stand beside it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .types import Slice

CELL = 2048  # targets in one drawn cell
BATCH_TARGETS = 4096  # 4 MiB of float32 logits at a time
DIGEST_WINDOWS = 4

Text = NDArray[np.uint8]
Span = tuple[int, int]  # [start, stop) in a text


class BadAnswer(Exception):
    """The logits are not usable; the message says how."""


class Answerer(Protocol):
    """A model at the other end of a pipe. Two submits may be outstanding, so that it computes while we sum."""

    def submit(self, tokens: Text) -> None:
        """Ask for the logits of token ids [B, T]."""
        ...

    def collect(self) -> NDArray[np.float32]:
        """The logits [B, T, 256] of the oldest outstanding submit; may be overwritten by the next collect."""
        ...


def load(path: Path) -> Text:
    """A text as memory-mapped bytes."""
    return np.memmap(path, dtype=np.uint8, mode="r")


def spans(part: Slice, size: int) -> list[Span]:
    """The spans of a text of `size` bytes that a slice names, in order.

    Drawn cells are the ones whose BLAKE2b with the seed is smallest: the same on every machine and numpy version.
    """
    if part.draw is None:
        return [(0, size if part.bytes is None else min(size, part.bytes))]
    cells = range(max(1, (size - 1) // CELL))
    wanted = len(cells) if part.bytes is None else max(1, part.bytes // CELL)
    keys = sorted((hashlib.blake2b(b"%d/%d" % (part.draw, cell), digest_size=16).digest(), cell) for cell in cells)
    return [(cell * CELL, min(size, (cell + 1) * CELL + 1)) for cell in sorted(cell for _, cell in keys[:wanted])]


def windows(parts: list[Span], context: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where the windows start, how many of each one's first targets are not scored again, and their length.

    The last window of a span is moved back to full length, so that the model always sees the length that it chose.
    """
    length = min(context, min(stop - start for start, stop in parts) - 1)
    if length < 1:
        raise ValueError("a span of less than two bytes has nothing to predict")
    starts: list[int] = []
    skips: list[int] = []
    for start, stop in parts:
        for at in range(start, stop - 1, length):
            moved = min(at, stop - 1 - length)
            starts.append(moved)
            skips.append(at - moved)
    return np.array(starts), np.array(skips), length


def score(model: Answerer, text: Text, parts: list[Span], context: int) -> float:
    """Bits per byte over all targets of the spans. Raises BadAnswer on rows that are not finite."""
    starts, skips, length = windows(parts, context)
    rows = max(1, BATCH_TARGETS // length)
    offsets = np.arange(length + 1)
    batches = [text[starts[at : at + rows, None] + offsets] for at in range(0, len(starts), rows)]
    total, count = 0.0, 0
    model.submit(batches[0][:, :-1])
    for number, batch in enumerate(batches):
        if number + 1 < len(batches):
            model.submit(batches[number + 1][:, :-1])
        scored = np.arange(length) >= skips[number * rows : number * rows + rows, None]
        total += float(bits(model.collect(), batch[:, 1:])[scored].sum())
        count += int(scored.sum())
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
    model.submit(train[starts[:, None] + np.arange(length)])
    logits = model.collect()
    if not np.isfinite(logits).all():
        raise BadAnswer("the logits are not finite")
    return hashlib.blake2b(logits.tobytes(), digest_size=32).hexdigest()
