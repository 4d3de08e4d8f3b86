#!/usr/bin/env python3
"""What stopping a screening run at half time saves, and whom it stops in error: real edits, run to their end anyway.

    scripts/bench_kill.py run OUT.jsonl [--size short] [--edits 40] [--seed 0]
    scripts/bench_kill.py report OUT.jsonl

Random edits of the catalogue on the plain baseline, each once at compute parity with the probe at half time and no one
stopped. The rule is the node's (`decide.kill_above` over the baseline's own runs). A stop is an error when the run
ended well enough to be promoted (`decide.promotes`). A second start goes on where the first stopped.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from platformdirs import user_cache_path
from scipy.stats import binomtest
from swarm_node.node.proposers.offline import EDITS
from swarm_node.trainer import corpus, decide, task
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import CostRatio, RunResult, RunSpec, Slice


def run(out: Path, size: str, count: int, seed: int) -> None:
    """Run what the file does not hold yet."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {line["edit"] for line in lines}
    text = corpus.prepare(user_cache_path("swarm-node"))
    work = task.load("gpt-cpu", size, bytes.fromhex(text.digest))
    baseline, base = work.baseline, work.spec.steps
    made = {edit.name: one.source for edit in EDITS if (one := edit.apply(baseline)) is not None}
    chosen = random.Random(seed).sample(sorted(made), min(count, len(made)))
    with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch)) as executor, out.open("a") as log:

        def note(name: str, begun: float, seconds: float, result: RunResult) -> None:
            line = {
                "edit": name, "status": result.status, "steps": result.steps_done, "probe": result.probe,
                "score": result.scores.get("screen"), "cost_s": round(seconds, 2), "wall_s": round(result.wall_s, 2),
                "judged_s": round(time.monotonic() - begun, 2), "size": size,
            }  # fmt: skip
            log.write(json.dumps(line) + "\n")
            log.flush()

        def one_run(source: str, number: int, steps: int) -> RunResult:
            return executor.run(RunSpec(source, number, steps, (Slice("screen"),), wall_s=600 + steps), lambda _: None)

        for number in range(decide.PROMOTE_AFTER):
            if f"seed-{number}" not in done:
                begun = time.monotonic()
                note(f"seed-{number}", begun, 0.0, one_run(baseline, number, base))
        for number, name in enumerate(chosen, 100):
            if name not in done:
                begun = time.monotonic()
                cost = executor.cost_ratio(baseline, made[name], base, lambda _: None)
                spent = time.monotonic() - begun
                if isinstance(cost, CostRatio):
                    note(name, begun, spent, one_run(made[name], number, decide.steps_for(base, cost.ratio)))
                else:
                    note(name, begun, spent, cost)
    report(out)


def report(out: Path) -> None:
    """Print who would have been stopped, and what that saves."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    seeds = [line for line in lines if line["edit"].startswith("seed-")]
    noise = decide.noise_of([line["score"] for line in seeds])
    limit = decide.kill_above([line["probe"] for line in seeds])
    assert noise is not None and limit is not None
    print(f"baseline {noise.mean:.4f} ± {noise.sd:.4f} over {noise.n} seeds; stopped above {limit:.4f} at half time")
    edits = [line for line in lines if line not in seeds and line["status"] == "ok"]
    stopped = [line for line in edits if line["probe"] > limit]
    good = [line for line in edits if decide.promotes(noise.mean - line["score"], noise)]
    wrongly = [line for line in good if line in stopped]
    for line in sorted(edits, key=lambda line: line["score"]):
        marks = ("stopped " if line in stopped else "") + ("promoted" if line in good else "")
        print(f"  {line['edit']:<28} half time {line['probe']:.4f}  end {line['score']:.4f}  {marks}")
    print(f"{len(edits)} edits ran to their end, {len(stopped)} would have been stopped, {len(good)} be promoted")
    if good:
        low, high = binomtest(len(wrongly), len(good)).proportion_ci(method="wilson")
        names = ", ".join(line["edit"] for line in wrongly) or "none"
        print(f"stopped in error: {len(wrongly)} of {len(good)} [{low:.0%}, {high:.0%}] (95 %, Wilson): {names}")
    whole = sum(line["judged_s"] for line in edits)
    saved = sum(line["wall_s"] / 2 for line in stopped)
    without, with_it = (3600 * len(edits) / seconds for seconds in (whole, whole - saved))
    print(f"screened per core-hour: {without:.0f}, with the rule {with_it:.0f}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", default="short", help="a named size of gpt-cpu, or a number of steps")
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.command == "run":
        run(given.out, given.size, given.edits, given.seed)
    else:
        report(given.out)


if __name__ == "__main__":
    main()
