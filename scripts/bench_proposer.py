#!/usr/bin/env python3
"""How many experiments the offline proposer needs from the plain baseline to 30 % below it, beside random order.

    scripts/bench_proposer.py run OUT.jsonl [--size short] [--seeds 3] [--most 60]
    scripts/bench_proposer.py report OUT.jsonl

Real runs in the real sandbox at compute parity, as a node makes them: N = N_base / cost ratio, screen slice, one run
per experiment. To save time a win is believed when it beats the best score by three standard deviations of the
baseline over seeds; the winning run's score is then the score to beat. All searches advance in turn, each line of the
output is one experiment, and a second start goes on where the first stopped.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path
from swarm_node.node.proposers.base import Hypothesis, Situation, Trial
from swarm_node.node.proposers.offline import EDITS, OfflineProposer
from swarm_node.protocols.diffs import normal_digest
from swarm_node.trainer import corpus, decide, task
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import RunResult, RunSpec

TARGET = 0.30  # of the baseline's score, to be gained
KEEP_SIGMAS = 3.0
BASELINE_SEEDS = 5
BY_NAME = {edit.name: edit for edit in EDITS}


class RandomOrder:
    """The same catalogue in random order: what there is to beat."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, situation: Situation) -> Hypothesis | None:
        """A random edit that fits and was not tried on this program."""
        chance = random.Random(f"{self._seed}/{len(situation.trials)}")
        for edit in chance.sample(EDITS, len(EDITS)):
            made = edit.apply(situation.parent)
            if made is not None and not situation.tried(made.source):
                return Hypothesis(made.source, made.title, made.reason, made.tags, "random", made.name)
        return None


class Search:
    """One proposer's search, rebuilt from the lines that it wrote so far."""

    def __init__(self, order: str, seed: int, lab: "Lab", lines: Sequence[dict]) -> None:
        self.order, self.seed, self.lab = order, seed, lab
        self.proposer = OfflineProposer(seed) if order == "bandit" else RandomOrder(seed)
        self.parent, self.best = lab.task.baseline, lab.mean
        self.trials: list[Trial] = []
        self.tried = {normal_digest(self.parent)}
        for line in lines:
            if (line["order"], line["seed"]) == (order, seed):
                made = BY_NAME[line["edit"]].apply(self.parent)
                assert made is not None
                self._learn(made.source, line)

    @property
    def done(self) -> bool:
        return self.best <= (1 - TARGET) * self.lab.mean

    def advance(self) -> dict | None:
        """One experiment, as a line of the output; None when nothing is left to try."""
        idea = self.proposer.choose(
            Situation(
                self.lab.task.spec, "", "", self.parent, self.best, self.lab.sd, tuple(self.trials), (),
                lambda source: normal_digest(source) in self.tried,
            )
        )  # fmt: skip
        if idea is None:
            return None
        started = time.monotonic()
        steps, score = self.lab.measure(idea.source, seed=100 + len(self.trials))
        gain = None if score is None else round(self.best - score, 4)
        kept = gain is not None and gain > KEEP_SIGMAS * self.lab.sd
        line = {
            "order": self.order, "seed": self.seed, "n": len(self.trials) + 1, "edit": idea.edit, "title": idea.title,
            "steps": steps, "score": score, "gain": gain, "kept": kept,
            "best": score if kept else self.best, "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        self._learn(idea.source, line)
        return line

    def _learn(self, source: str, line: dict) -> None:
        outcome = "kept" if line["kept"] else "crashed" if line["gain"] is None else "discarded"
        tags = BY_NAME[line["edit"]].tags
        self.trials.append(Trial(line["title"], tags, outcome, line["gain"], True, line["edit"]))
        self.tried.add(normal_digest(source))
        if line["kept"]:
            self.parent, self.best = source, line["best"]


class Lab:
    """Measures programs of one task on this machine."""

    def __init__(self, executor: Executor, work: task.Task, baseline: dict | None) -> None:
        self.executor, self.task = executor, work
        self.steps = work.spec.steps
        scores = (
            baseline["scores"]
            if baseline
            else [self._score(work.baseline, s, self.steps) for s in range(BASELINE_SEEDS)]
        )
        assert all(score is not None for score in scores), "the baseline crashed"
        self.scores = scores
        self.mean, self.sd = statistics.fmean(scores), statistics.stdev(scores)

    def measure(self, source: str, seed: int) -> tuple[int, float | None]:
        """Steps at compute parity with the baseline, and the score; None when the program failed."""
        cost = self.executor.cost_ratio(self.task.baseline, source, self.steps, lambda _: None)
        if isinstance(cost, RunResult):
            return 0, None
        steps = decide.steps_for(self.steps, cost.ratio)
        return steps, self._score(source, seed, steps)

    def _score(self, source: str, seed: int, steps: int) -> float | None:
        spec = RunSpec(source, seed, steps, (self.task.screen,), wall_s=600 + steps, probe=False)
        score = self.executor.run(spec, lambda _: None).scores.get("screen")
        return None if score is None else round(score, 4)


def run(out: Path, size: str, seeds: int, most: int) -> None:
    """Advance every search by one experiment in turn until all arrived or made `most`."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    text = corpus.prepare(user_cache_path("swarm-node"))
    work = task.load("gpt-cpu", size, bytes.fromhex(text.digest))
    with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch)) as executor, out.open("a") as log:

        def write(line: dict) -> None:
            log.write(json.dumps(line) + "\n")
            log.flush()

        lab = Lab(executor, work, lines[0] if lines else None)
        if not lines:
            write({"baseline": work.spec.baseline.hex(), "size": size, "steps": lab.steps, "scores": lab.scores})
        searches = [Search(order, seed, lab, lines[1:]) for seed in range(seeds) for order in ("bandit", "random")]
        while going := [one for one in searches if not one.done and len(one.trials) < most]:
            fewest = min(going, key=lambda one: len(one.trials))
            line = fewest.advance()
            if line is None:
                searches.remove(fewest)
            else:
                write(line)
    report(out)


def report(out: Path) -> None:
    """Print each search and the medians. A search that did not arrive counts as more than it made."""
    first, *lines = [json.loads(line) for line in out.read_text().splitlines()]
    mean, sd = statistics.fmean(first["scores"]), statistics.stdev(first["scores"])
    goal = (1 - TARGET) * mean
    print(f"baseline {mean:.4f} ± {sd:.4f} bpb at {first['steps']} steps; goal {goal:.4f}")
    for order in ("bandit", "random"):
        needed = []
        for seed in sorted({line["seed"] for line in lines if line["order"] == order}):
            mine = [line for line in lines if (line["order"], line["seed"]) == (order, seed)]
            arrived = next((line["n"] for line in mine if line["best"] <= goal), None)
            needed.append(float("inf") if arrived is None else arrived)
            wins = ", ".join(f"#{line['n']} {line['edit']} −{line['gain']:.2f}" for line in mine if line["kept"])
            print(
                f"  {order} {seed}: {arrived or f'not in {len(mine)}'} experiments, best {mine[-1]['best']:.4f}: {wins}"
            )
        if needed:
            print(f"  {order} median of {len(needed)}: {statistics.median(needed)}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", default="short", help="a named size of gpt-cpu, or a number of steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=60, help="experiments per search")
    given = parser.parse_args()
    if given.command == "report":
        report(given.out)
    else:
        run(given.out, given.size, given.seeds, given.most)


if __name__ == "__main__":
    main()
