"""Bits per byte of held-out text under a model that only ever sends logits.

What the model's process claims is never used: the log-softmax and the sums are computed here, from rows that are
checked to be whole and finite. Which bytes are scored depends on the slice alone, not on the candidate's context
length: every byte of a cell but its first is a target exactly once.

No question shows the model a byte that it is still to be asked for, but for the rest of its own window: the rows of a
batch walk through cells that share no byte, and the next batch follows the answer. Whether a model looks at the rest of
its window is found by asking a second instance, which saw nothing else, for single bytes after truncated windows
(`audit`), and comparing with what the first one said there.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .types import AuditQuery, Slice

CELL = 2048  # targets in a cell
BATCH_TARGETS = 4096  # 4 MiB of float32 logits at a time
AUDIT_ROWS = 16  # audited windows that are cut at one place, so that they make a batch
DIGEST_WINDOWS = 4

Text = NDArray[np.uint8]
Span = tuple[int, int]  # [start, stop) in a text


class BadAnswer(Exception):
    """The logits are not usable; the message says how."""


class Answerer(Protocol):
    """A model at the other end of a pipe."""

    def ask(self, tokens: Text) -> NDArray[np.float32]:
        """The logits [B, T, 256] for token ids [B, T], in memory that the next question overwrites."""
        ...


@dataclass(frozen=True)
class Point:
    """An audited position: the byte at `start` + `cut`, given the window from `start` up to it."""

    start: int
    cut: int  # bytes of the window before the target


@dataclass
class Notes:
    """What the first instance said at audited positions, in their order."""

    points: Sequence[Point] = ()
    bits: dict[int, float] = field(default_factory=dict)  # by start of the window

    def in_order(self) -> tuple[float, ...]:
        """The bits at every point."""
        return tuple(self.bits[point.start] for point in self.points)


def load(path: Path) -> Text:
    """A text as memory-mapped bytes."""
    return np.memmap(path, dtype=np.uint8, mode="r")


def cells(part: Slice, size: int) -> list[Span]:
    """The cells of a text of `size` bytes that a slice names, in order; they share no byte.

    Drawn cells are the ones whose BLAKE2b with the seed is smallest: the same on every machine and numpy version.
    """
    if size < 2:
        raise ValueError("a text of less than two bytes has nothing to predict")
    end = size if part.draw is not None or part.bytes is None else min(size, part.bytes)
    # The rest of a text, less than a cell, is left out: contexts of a power of two never see a shorter window.
    every = [(start, start + CELL + 1) for start in range(0, end - CELL, CELL + 1)] or [(0, end)]
    if part.draw is None:
        return every
    wanted = len(every) if part.bytes is None else max(1, part.bytes // CELL)
    key = lambda cell: hashlib.blake2b(b"%d/%d" % (part.draw, cell), digest_size=16).digest()  # noqa: E731
    return [every[cell] for cell in sorted(sorted(range(len(every)), key=key)[:wanted])]


def batches(parts: Sequence[Span], context: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Where the windows of each batch start, and their length; the last window of a cell may be shorter than others."""
    rows = max(1, BATCH_TARGETS // context)
    by_targets: dict[int, list[int]] = {}
    for start, stop in parts:
        by_targets.setdefault(stop - start - 1, []).append(start)
    for targets, starts in by_targets.items():
        for first in range(0, len(starts), rows):
            group = np.array(starts[first : first + rows])
            for at in range(0, targets, context):
                yield group + at, min(context, targets - at)


def score(model: Answerer, text: Text, parts: Sequence[Span], context: int, notes: Notes | None = None) -> float:
    """Bits per byte over all targets of the cells. Raises BadAnswer on rows that are not finite.

    `notes` takes down the bits at its points.
    """
    cuts = {point.start: point.cut for point in notes.points} if notes else {}
    total, count = 0.0, 0
    for starts, length in batches(parts, context):
        batch = text[starts[:, None] + np.arange(length + 1)]
        found = bits(model.ask(batch[:, :-1]), batch[:, 1:])
        total += float(found.sum())
        count += found.size
        for row, start in enumerate(starts.tolist()):
            if notes and start in cuts:
                notes.bits[start] = float(found[row, cuts[start] - 1])
    return total / count


def points(parts: Sequence[Span], context: int, query: AuditQuery) -> list[Point]:
    """The audited positions: windows of full length in random order, each once, AUDIT_ROWS in a row cut at one place.

    A window's last target is never asked for, since it is the first byte of the next window.
    """
    chance = random.Random(query.seed)
    starts = [int(start) for group, length in batches(parts, context) if length == context for start in group]
    chosen = chance.sample(starts, min(query.positions, len(starts)))
    cuts = [chance.randrange(1, context) for _ in range(0, len(chosen), AUDIT_ROWS)]
    return [Point(start, cuts[index // AUDIT_ROWS]) for index, start in enumerate(chosen)]


def audit(model: Answerer, text: Text, asked: Sequence[Point]) -> tuple[float, ...]:
    """Bits of single bytes, each asked for with what comes before it in its window and nothing of what follows."""
    out: list[float] = []
    for first in range(0, len(asked), AUDIT_ROWS):
        group = asked[first : first + AUDIT_ROWS]
        cut = group[0].cut
        batch = text[np.array([point.start for point in group])[:, None] + np.arange(cut + 1)]
        logits = model.ask(batch[:, :-1])[:, -1:]
        out += bits(logits, batch[:, -1:])[:, 0].tolist()
    return tuple(out)


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
