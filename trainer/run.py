"""One run from its first step to its scores: who asks what, in which order, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import evaluator, frames
from .evaluator import BadAnswer, Notes, Text
from .runchild import RunChild, Stop
from .supervisor import Supervisor
from .types import AuditQuery, RunResult, RunSpec, Slice, Status

FIRST_LOSSES = 10


@dataclass(frozen=True)
class Texts:
    """The corpus as the worker sees it."""

    train_path: Path  # for the run child, which maps it itself
    train: Text
    held: dict[str, Text]  # never leaves this process but as windows whose answers are already due


@dataclass
class Run:
    """A run in progress, and all that is known about it so far."""

    supervisor: Supervisor
    spec: RunSpec
    texts: Texts
    child: RunChild | None = None
    stopped: Stop | None = None
    scores: dict[str, float] = field(default_factory=dict)
    probe: float | None = None
    digest: str = ""
    audit: tuple[float, ...] = ()

    def train_and_score(self) -> None:
        """Let the child train, score it at half time and at the end; Stop when it fails or is not worth the rest."""
        assert self.child is not None
        self.supervisor.enter("train", self.spec.steps)
        self.child.start(
            self.spec.source, self.spec.seed, self.spec.steps, self.texts.train_path, probe=self.spec.probe
        )
        if self.spec.probe:
            self._score_half_time(self.child)
        context = _asked(self.child, final=True)
        try:
            with self.child.answering():
                self.digest = evaluator.digest(self.child, self.texts.train, context)
                if self.spec.audit is not None and self.spec.audit.truncated:
                    self.audit = self._audit(self.child, self.spec.audit, context)
                else:
                    self.scores = self._score(self.child, self.spec.slices, context)
        except BadAnswer as error:
            raise Stop("crashed", str(error)) from None

    def result(self) -> RunResult:
        """The record of the run, once its child has ended."""
        if self.stopped is None:
            return replace(
                result_of(self.child, "ok", "", probe=self.probe),
                scores=self.scores, logits_digest=self.digest, audit=self.audit,
            )  # fmt: skip
        return result_of(self.child, self.stopped.status, self.stopped.reason, probe=self.probe)

    def _score_half_time(self, child: RunChild) -> None:
        context = _asked(child, final=False)
        try:
            with child.answering():
                self.probe = self._score(child, (Slice("probe"),), context)["probe"]
        except BadAnswer as error:
            raise Stop("crashed", f"{error} at half time") from None
        if self.spec.kill_above is not None and self.probe > self.spec.kill_above:
            found = f"{self.probe:.4f} bits per byte, above {self.spec.kill_above:.4f}"
            raise Stop("killed", f"killed at half time: {found}")
        self.supervisor.enter("train", self.spec.steps, child.step)
        child.send(frames.END, b"")

    def _score(self, child: RunChild, slices: Sequence[Slice], context: int) -> dict[str, float]:
        parts = {part.name: evaluator.cells(part, len(self.texts.held[part.name])) for part in slices}
        child.answered = 0
        self.supervisor.enter("evaluate", sum(stop - start - 1 for cells in parts.values() for start, stop in cells))
        scores: dict[str, float] = {}
        for name, cells in parts.items():
            query = self.spec.audit if name == self.spec.slices[-1].name and slices is self.spec.slices else None
            notes = Notes(evaluator.points(cells, context, query)) if query else None
            scores[name] = evaluator.score(child, self.texts.held[name], cells, context, notes)
            self.audit = notes.in_order() if notes else self.audit
        return scores

    def _audit(self, child: RunChild, query: AuditQuery, context: int) -> tuple[float, ...]:
        part = self.spec.slices[-1]
        text = self.texts.held[part.name]
        asked = evaluator.points(evaluator.cells(part, len(text)), context, query)
        child.answered = 0
        self.supervisor.enter("evaluate", sum(point.cut for point in asked))
        return evaluator.audit(child, text, asked)


def _asked(child: RunChild, *, final: bool) -> int:
    """Wait until the model is there to be asked; the context length that it wants."""
    is_final, context = frames.QUESTION.unpack(child.expect(frames.ASK))
    if is_final != final or not frames.CONTEXT[0] <= context <= frames.CONTEXT[1]:
        raise Stop("crashed", "it sent a malformed message", child)
    return context


def result_of(
    child: RunChild | None,
    status: Status,
    reason: str,
    probe: float | None = None,
) -> RunResult:
    """A result from what the kernel and the child's pipes tell; a run that never got a child has used nothing."""
    curve = tuple(child.curve) if child else ()
    return RunResult(
        status=status,
        reason=reason,
        scores={},
        probe=probe,
        steps_done=child.step if child else 0,
        cpu_s=child.cpu_s if child else 0.0,
        wall_s=child.ended - child.started if child else 0.0,
        eval_s=child.eval_s if child else 0.0,
        peak_rss=child.peak_rss if child else 0,
        loss_curve=curve,
        first_losses=tuple(loss for step, loss in curve if step <= FIRST_LOSSES and math.isfinite(loss))[:FIRST_LOSSES],
        logits_digest="",
        log_tail=child.log_tail() if child else "",
        eval_cpu_s=child.eval_cpu_s if child else 0.0,
    )
