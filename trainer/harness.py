"""What runs around a candidate in its own sandboxed process: data, seeds, ticks, and answering the evaluator.

The candidate shares this process and may change anything in it, so nothing that is said here counts: losses are
for people, and the score is computed elsewhere, from the logits, against text that this process cannot read.
"""

from __future__ import annotations

import json
import linecache
import math
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from . import frames

Model = Callable[[torch.Tensor], torch.Tensor]
FILE = "train.py"
BEAT_S = 0.25  # so that the worker can show a living progress bar
CURVE_POINTS = 100
BATCH_STREAM = 0x5EED_BA7C  # keeps the batches' random stream apart from the one that initialises the model


class Pipe:
    """The two pipes to the worker."""

    def __init__(self, requests: int, replies: int) -> None:
        self.requests, self.replies = requests, replies

    def read(self) -> tuple[int, bytes]:
        """The next frame from the worker: kind, body. Leaves the process when the worker is gone."""
        kind, size = frames.HEAD.unpack(self._exactly(frames.HEAD.size))
        return kind, self._exactly(size)

    def write(self, kind: int, body: bytes | memoryview) -> None:
        """Send one frame to the worker."""
        for part in (memoryview(frames.HEAD.pack(kind, len(body))), memoryview(body)):
            while part:
                part = part[os.write(self.replies, part) :]

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = os.read(self.requests, size)
            if not part:
                os._exit(1)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Context:
    """What a candidate's `train(ctx)` gets."""

    vocab_size = frames.VOCABULARY
    device = "cpu"

    def __init__(self, pipe: Pipe, data: torch.Tensor, seed: int, steps: int, probe: bool, gated: bool) -> None:
        self.steps, self.seed = steps, seed
        self.done = 0
        self._pipe, self._data, self._probe, self._gated = pipe, data, probe, gated
        self._generator = torch.Generator().manual_seed((seed + BATCH_STREAM) % 2**63)
        self._context: int | None = None
        self._last_length = 0
        self._granted = 0
        self._beat = time.monotonic()
        self._every = max(1, steps // CURVE_POINTS)

    @property
    def eval_context(self) -> int:
        """Length of the windows that the evaluator will ask for; the length of the last batch unless set."""
        if self._context is not None:
            return self._context
        return min(max(self._last_length, frames.CONTEXT[0]), frames.CONTEXT[1])

    @eval_context.setter
    def eval_context(self, length: int) -> None:
        if not isinstance(length, int) or not frames.CONTEXT[0] <= length <= frames.CONTEXT[1]:
            raise ValueError(f"eval_context is {length!r}; it must be an int between {frames.CONTEXT}")
        self._context = length

    def batch(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and next-token targets, int64 [batch, length] each, from random places of the training text."""
        starts = torch.randint(len(self._data) - length, (batch, 1), generator=self._generator)
        rows = self._data[starts + torch.arange(length + 1)].long()
        self._last_length = length
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def step(self, model: Model, loss: torch.Tensor | float | None = None) -> None:
        """Count one training step. At half time the worker may score `model`."""
        if self.done >= self.steps:
            raise RuntimeError(f"ctx.step was called more than {self.steps} times")
        self.done += 1
        self._report(float(loss.detach()) if isinstance(loss, torch.Tensor) else loss)
        if self._probe and self.done == max(1, self.steps // 2):
            self.answer(model, final=False)
        if self._gated and self.done >= self._granted and self.done < self.steps:
            self._pipe.write(frames.PAUSE, frames.STEP.pack(self.done))
            kind, body = self._pipe.read()
            self._granted = self.done + (frames.STEP.unpack(body)[0] if kind == frames.GO else 0)

    def answer(self, model: Model, final: bool) -> None:
        """Answer the worker's batches with logits until it ends; training goes on as if nothing had happened."""
        modes = [(part, part.training) for part in _modules(model)]
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        if modes:
            modes[0][0].eval()
        self._pipe.write(frames.ASK, frames.QUESTION.pack(final, self.eval_context))
        with torch.no_grad():
            while True:
                kind, body = self._pipe.read()
                if kind != frames.BATCH:
                    break
                rows, length = frames.SHAPE.unpack_from(body)
                tokens = torch.frombuffer(bytearray(body[frames.SHAPE.size :]), dtype=torch.uint8)
                logits = model(tokens.view(rows, length).long())
                shape = (rows, length, self.vocab_size)
                if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != shape:
                    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
                    raise ValueError(f"the model returned {found} where logits of shape {shape} were due")
                self._pipe.write(frames.LOGITS, logits.float().contiguous().numpy().data.cast("B"))
        for part, training in modes:
            part.training = training
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])

    def _report(self, loss: float | None) -> None:
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {self.done}")
        now = time.monotonic()
        on_curve = self.done <= 10 or self.done % self._every == 0 or self.done == self.steps
        if on_curve or now - self._beat > BEAT_S:
            body = frames.LOSS.pack(self.done, math.nan if loss is None else loss)
            self._pipe.write(frames.TICK if on_curve else frames.BEAT, body)
            self._beat = now


def _modules(model: Model) -> list[torch.nn.Module]:
    return list(model.modules()) if isinstance(model, torch.nn.Module) else []


def tokens(path: Path) -> torch.Tensor:
    """The training text, memory-mapped: uint8 [bytes]."""
    return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)


def run(pipe: Pipe) -> None:
    """Read one job from the worker, run it, and report. Returns when there is nothing left to answer."""
    kind, body = pipe.read()
    if kind != frames.START:
        return
    job = json.loads(body)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    try:
        _train(pipe, job)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a candidate are its failures too
        reason = _explain(error)
        sys.stdout.flush()
        pipe.write(frames.FAILED, reason.encode()[: frames.MAX_REASON])


def _train(pipe: Pipe, job: dict[str, Any]) -> None:
    source: str = job["source"]
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    torch.manual_seed(job["seed"])
    random.seed(job["seed"])
    np.random.seed(job["seed"] % 2**32)  # all that it takes
    ctx = Context(pipe, tokens(Path(job["train"])), job["seed"], job["steps"], job["probe"], job["gated"])
    module = sys.modules["train"] = ModuleType("train")  # by its name dataclasses find what their annotations mean
    module.__file__ = FILE
    exec(compile(source, FILE, "exec", dont_inherit=True), vars(module))
    train = vars(module).get("train")
    if not callable(train):
        raise TypeError("train.py defines no function train(ctx)")
    model = train(ctx)
    if ctx.done < ctx.steps:
        raise RuntimeError(f"train returned after {ctx.done} of {ctx.steps} steps")
    if not callable(model):
        raise TypeError(f"train returned {type(model).__name__}, not a callable model")
    ctx.answer(cast(Model, model), final=True)


def _explain(error: BaseException) -> str:
    """Print the candidate's traceback without our own frames; return its last line with the place."""
    report = traceback.TracebackException.from_exception(error)
    while report.stack and report.stack[0].filename != FILE:
        report.stack.pop(0)
    print("".join(report.format()), file=sys.stderr)
    lines = [frame.lineno for frame in report.stack if frame.filename == FILE]
    if isinstance(error, SyntaxError) and error.filename == FILE:
        lines.append(error.lineno)
    last = "".join(report.format_exception_only()).strip().splitlines()[-1]
    return f"{last} ({FILE}, line {lines[-1]})" if lines else last
