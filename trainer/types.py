"""What the rest of the node says to the trainer and hears from it. Frozen, plain, imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..protocols.errors import IsolationError, MachineError

SliceName = Literal["probe", "screen", "confirm", "audit"]
Status = Literal["ok", "killed", "crashed", "timeout"]
Stage = Literal["wait", "calibrate", "train", "evaluate"]
CANCELLED: tuple[Status, str] = ("killed", "cancelled")  # status and reason


@dataclass(frozen=True)
class Slice:
    """A part of the held-out text.

    It is scored in cells of 2 KiB. draw None: the first `bytes` of it (all of it when None). Else cells drawn with that
    seed, `bytes` in total; the same seed draws the same cells on every machine.
    """

    name: SliceName
    draw: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class AuditQuery:
    """Positions of the drawn text at which two instances of one program are compared, each in a window of its own.

    truncated False: note the bits there while scoring. True: do not score; ask for these bytes alone, each without the
    text behind it.
    """

    seed: int  # what it draws is unknown to the program
    positions: int
    truncated: bool = False


@dataclass(frozen=True)
class RunSpec:
    """One training run and what to score it on."""

    source: str  # the whole train.py
    seed: int
    steps: int
    slices: tuple[Slice, ...]
    wall_s: float  # cap for the whole run, evaluation included; waiting for a core is not
    probe: bool = True  # score the probe slice at half time
    kill_above: float | None = None  # stop at half time when the probe is above this
    audit: AuditQuery | None = None  # of the last slice


@dataclass(frozen=True)
class RunResult:
    """What the evaluator and the kernel say about a run. A failing candidate is a result, never an exception."""

    status: Status
    reason: str  # empty when ok; else one sentence
    scores: dict[str, float]  # bits per byte by slice name; empty unless ok
    probe: float | None  # bits per byte at half time
    steps_done: int  # as the candidate ticked them
    cpu_s: float  # kernel CPU seconds of the run's process, evaluation excluded
    wall_s: float
    eval_s: float  # wall seconds spent in probe and evaluation
    peak_rss: int  # bytes
    loss_curve: tuple[tuple[int, float], ...]  # (step, loss) as the candidate reported it: for people only
    first_losses: tuple[float, ...]  # at most 10, for a tolerant comparison between machines
    logits_digest: str  # BLAKE2b-256 (hex) of the float32 logits on 4 fixed training windows; empty unless ok
    log_tail: str  # last 50 lines of stdout and stderr, control characters stripped
    audit: tuple[float, ...] = ()  # bits at the audited positions
    eval_cpu_s: float = 0.0  # kernel CPU seconds of the run's process while it answered

    @property
    def cancelled(self) -> bool:
        """Whether it was cut short for reasons of its node's, so that it says nothing of the program."""
        return (self.status, self.reason) == CANCELLED


@dataclass(frozen=True)
class Progress:
    """Sent at least every half second while a call is in progress."""

    stage: Stage
    step: int
    steps: int
    loss: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class CostRatio:
    """How much CPU time a candidate's step takes, relative to its parent's, on this machine."""

    ratio: float  # candidate / parent
    rel_err: float  # relative standard error of `ratio`
    base_s_per_step: float  # CPU seconds per step of the parent
    seconds: float  # spent measuring


OnProgress = Callable[[Progress], None]


class SandboxUnavailable(IsolationError):
    """The sandbox cannot be applied here, so no candidate may run."""


class WorkerDied(MachineError):
    """The worker process ended in the middle of a call; the next call starts a new one."""


class DiskFull(MachineError):
    """There is no room for a run's scratch directory."""
