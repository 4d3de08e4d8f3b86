#!/usr/bin/env python3
"""How much of a node's progress was overfitting: its own wins again, on text that never decided anything.

    scripts/bench_overfit.py HOME [OUT.json] [--seeds 2] [--corpus PATH]

Every program from the baseline to the own best is trained again on fresh seeds, with the steps that its record names,
and scored on `screen`, which chose what to confirm, on text drawn from `confirm`, the same for all programs, and on
`audit`, which nobody has looked at. Optimism is the progress on `screen` minus the progress on `audit`. Its standard
error is over seeds; that two texts differ in how much there is to gain is not in it, but shows in how much `confirm`
and `audit` differ. With OUT.json, runs are kept there, and a second start goes on where the first stopped.
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm_node.node.format import clean
from swarm_node.node.home import Home
from swarm_node.node.programs import Programs
from swarm_node.node.tasks import current_task, known_tasks, load_known
from swarm_node.protocols.errors import SwarmNodeError
from swarm_node.protocols.records import Result
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.frontier import fold
from swarm_node.swarm.identity import load
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.task import Task
from swarm_node.trainer.types import RunSpec, Slice

SLICES = ("screen", "confirm", "audit")


@dataclass(frozen=True)
class Step:
    """A program on the way from the baseline to the own best."""

    title: str
    program: str  # digest
    source: str
    steps: int


def lineage(ledger: Ledger, own: bytes, work: Task) -> list[Step]:
    """The baseline and every win that the own best contains, in order."""
    spec, programs = work.spec, Programs(ledger, work.baseline)
    found = [Step("the baseline", spec.baseline.hex(), work.baseline, spec.steps)]
    for win in fold(ledger.all_records(), own, spec.id, spec.baseline).lineage:
        record = ledger.get(win)
        assert record is not None and isinstance(record.body, Result)
        body = record.body
        source = programs.get(body.program)
        assert source is not None, f"the program of {win.hex()[:8]} is not in this home"
        found.append(Step(clean(body.title, 40), body.program.hex(), source, body.steps))
    return found


def train(executor: Executor, work: Task, step: Step, seed: int) -> dict[str, float]:
    """The scores of one run. No node draws seeds this small."""
    slices = (work.screen, work.drawn(seed), Slice("audit"))
    spec = RunSpec(step.source, seed, step.steps, slices, wall_s=600 + step.steps, probe=False)
    result = executor.run(spec, lambda _: None)
    assert result.status == "ok", f"{step.title}, seed {seed}: {result.reason}"
    return result.scores


def report(work: Task, way: Sequence[Step], scores: Sequence[Sequence[dict[str, float]]]) -> None:
    """Print each program's scores, its progress since the baseline, and the optimism."""
    spec, seeds = work.spec, len(scores[0])
    print(f"{spec.name}/{spec.size}, {spec.metric}, {seeds} seeds each; progress > 0 is better than the baseline")
    print(f"{'':<45} {'score on':<26} {'progress on':<26} optimism on")
    print(f" step  {'title':<40} screen  confirm    audit   screen  confirm    audit  screen ± error")
    for number, (step, runs) in enumerate(zip(way, scores, strict=True)):
        mean, base = ({name: statistics.fmean(run[name] for run in of) for name in SLICES} for of in (runs, scores[0]))
        shown = " ".join(f"{mean[name]:8.4f}" for name in SLICES)
        if number:
            gains = {name: spec.better_by(mean[name], base[name]) for name in SLICES}
            gaps = [[run["screen"] - run["audit"] for run in of] for of in (runs, scores[0])]
            error = math.sqrt(sum(statistics.variance(gap) for gap in gaps) / seeds)
            shown += " " + " ".join(f"{gains[name]:+8.4f}" for name in SLICES)
            shown += f" {gains['screen'] - gains['audit']:+8.4f} ± {error:.4f}"
        print(f"{number:5}  {step.title:<38} {shown}")


def main() -> None:
    """Parse the command line, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="a file that keeps the runs")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each program; at least 2")
    parser.add_argument("--corpus", type=Path, help="the text that the home works on, when it is not the built-in one")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("one run has no standard error: --seeds is at least 2")
    home = Home.locate(given.home)
    saved: dict[str, dict[str, float]] = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    try:
        with Ledger.open(home.ledger, read_only=True) as ledger:
            text = corpus.prepare(home.corpora, given.corpus)
            work = load_known(known_tasks(ledger), current_task(ledger).spec.id, bytes.fromhex(text.digest))
            way = lineage(ledger, public_key(load(home.key)), work)
        with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch)) as executor:
            for step in way:
                for seed in range(given.seeds):
                    key = f"{step.program}/{step.steps}/{seed}"
                    if key not in saved:
                        saved[key] = train(executor, work, step, seed)
                        if given.out:
                            given.out.write_text(json.dumps(saved, indent=1))
    except SwarmNodeError as error:
        parser.exit(1, f"{error}\n")
    runs = [[saved[f"{step.program}/{step.steps}/{seed}"] for seed in range(given.seeds)] for step in way]
    report(work, way, runs)


if __name__ == "__main__":
    main()
