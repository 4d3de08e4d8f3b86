"""`swarm-node task check`: whether a task can be worked on, found out with its baseline in the real sandbox."""

from __future__ import annotations

import secrets
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..protocols.diffs import EDITABLE
from ..protocols.errors import ConfigError, MachineError, SwarmNodeError
from ..trainer import decide
from ..trainer import task as tasks
from ..trainer.corpus import prepare
from ..trainer.executor import Executor
from ..trainer.types import AuditQuery, CostRatio, Progress, RunResult, RunSpec, Slice
from .bench import MEMORY_GIB, lock_dir
from .doctor import Check, failed
from .home import Home

_STEPS = 8  # enough to see that it trains; a score after them says nothing
_WALL_S = 120.0
_TEXT = Slice("confirm", 0, 32 << 10)
_AUDITED = 512  # positions at most
_AIM_S = 30.0  # a good length of a run: a node tries many


def examine(home: Home, name: str, folder: Path | None) -> Iterator[Check]:
    """Every check, as it is made; those after a failure that they rest on are not."""
    try:
        task = tasks.load(name, next(iter(tasks.sizes(name, folder))), bytes(32), folder=folder)
        definition = tasks.define(name, folder)
    except SwarmNodeError as error:
        yield failed("task", error)
        return
    yield Check("task", "ok", f"{name}: {definition.title}   ({folder or 'built in'})")
    yield Check("brief", "ok", f"{tasks.BRIEF}, {len(task.brief.encode()):,} bytes")
    try:
        home.create()
        corpus = prepare(home.corpora, definition.corpus)
    except SwarmNodeError as error:
        yield failed("corpus", error)
        return
    yield Check("corpus", "ok", f"{corpus.reason}, {corpus.train_bytes / 1e6:.1f} MB to train on")
    with tempfile.TemporaryDirectory(prefix="task-check-", dir=home.data) as scratch:
        executor = Executor(corpus, Path(scratch) / "runs", MEMORY_GIB << 30, lock_dir=lock_dir())
        try:
            report = executor.start()
            yield Check("isolation", "ok", ", ".join(report.layers))
            yield from train(executor, task, definition)
        except SwarmNodeError as error:
            yield failed("isolation" if error.exit_code == 6 else "run", error)
        finally:
            executor.close()


def train(executor: Executor, task: tasks.Task, definition: tasks.Definition) -> Iterator[Check]:
    """What the baseline does in the sandbox, up to the first thing that is wrong."""
    query = AuditQuery(secrets.randbits(32), _AUDITED)
    spec = RunSpec(task.baseline, secrets.randbits(31), _STEPS, (_TEXT,), _WALL_S, audit=query)
    first = executor.run(spec, _ignore)
    if first.status != "ok":
        yield _broken("trains", first)
        return
    score = first.scores["confirm"]
    yield Check("trains", "ok", f"{_STEPS} steps, then {score:.2f} bits per byte   (guessing: 8)")
    again = executor.run(replace(spec, audit=replace(query, truncated=True)), _ignore)
    if again.status != "ok":
        yield _broken("repeats", again)
        return
    if again.logits_digest != first.logits_digest:
        what = "the same seed and steps gave another model: peers could not check a result"
        fix = f"let all chance in {EDITABLE} come from torch, random or numpy as they are seeded, and ask no clock"
        yield Check("repeats", "failed", what, fix, ConfigError.exit_code)
        return
    yield Check("repeats", "ok", "the same seed gave the same model, bit for bit")
    found = decide.audit(first.audit, again.audit)
    if found.cause:
        fix = "the answer for a byte may use only the bytes before it: look at the attention mask"
        yield Check("looks ahead", "failed", found.cause, fix, ConfigError.exit_code)
        return
    yield Check("looks ahead", "ok", f"no answer of {found.positions} depends on the text behind it")
    cost = executor.cost_ratio(task.baseline, task.baseline, task.spec.steps, _ignore)
    if not isinstance(cost, CostRatio):
        yield _broken("speed", cost)
        return
    step = cost.base_s_per_step
    aim = f"{_AIM_S:.0f} s would be about {max(1, round(_AIM_S / step)):,} steps"
    yield Check("speed", "ok", f"{1e3 * step:.3g} ms a step here, {first.peak_rss >> 20} MiB; {aim}")
    for name, steps in definition.sizes.items():
        long = steps * step > 20 * _AIM_S
        fix = f"a node tries many ideas, each a run or more: fewer steps in {tasks.CONFIG}, or a smaller model"
        found_s = f"{name}: {steps:,} steps, about {steps * step:,.0f} s a run"
        yield Check("size", "note" if long else "ok", found_s, fix if long else "")


def _broken(name: str, run: RunResult) -> Check:
    """A run that failed, with the end of its log."""
    if run.cancelled:
        return failed(name, MachineError("the run was cut short", fix="try again"))
    tail = textwrap.indent("\n".join(run.log_tail.strip().splitlines()[-12:]), " " * 22)
    fix = f"correct {EDITABLE} there, and check again"
    if run.status == "timeout":
        fix = f"a step takes too long on one core: a smaller model, batch or context in {EDITABLE}"
    return Check(name, "failed", f"{run.reason}\n{tail}".rstrip(), fix, ConfigError.exit_code)


def _ignore(progress: Progress) -> None:
    """Nothing is shown of a run of seconds."""
