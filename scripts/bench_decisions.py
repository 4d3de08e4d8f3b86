#!/usr/bin/env python3
"""What our rule keeps of nothing and of real gains: histories of resampled real scores, judged by the node's own
functions, with `keep if lower` beside.

    scripts/bench_decisions.py collect SCORES.jsonl [--size short] [--seeds 64]
    scripts/bench_decisions.py simulate SCORES.jsonl [--histories 400] [--edits 400]
    scripts/bench_decisions.py reread RESULTS.tsv --seed-effect 0.0007

`collect` trains the baseline over seeds and scores each run on `screen` and on a text drawn from `confirm`, the same
for all; a second start goes on where the first stopped. `simulate` resamples these runs. `reread` takes another night's
log of single runs, in autoresearch's columns, and the difference that another seed made there.
"""

import argparse
import csv
import json
import math
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from platformdirs import user_cache_path
from scipy.stats import binomtest, norm
from swarm_node.node.group import ENOUGH
from swarm_node.node.proposers.belief import TOGETHER
from swarm_node.trainer import corpus, decide, evidence, task
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import RunSpec

STUCK_CHANCE, STUCK_SIGMAS = 0.1, 8.0
STUCK = "seeds stuck at times, in both arms"
CHASED = "0.5 to 3 times the noise, chased"
SCALES = 0.5, 1.0, 2.0, 3.0  # of a null edit's noise over its parent's
MIXED = (0.0,) * 70 + (-3.0,) * 15 + (1.0,) * 5 + (3.0,) * 5 + (6.0,) * 5  # gains in sd, all equally likely


def collect(out: Path, size: str, seeds: int) -> None:
    """Train the baseline on the seeds that the file does not hold yet."""
    done = {line["seed"] for line in read(out)} if out.exists() else set[int]()
    text = corpus.prepare(user_cache_path("swarm-node"))
    work = task.load("gpt-cpu", size, bytes.fromhex(text.digest))
    slices = work.screen, work.drawn(0)
    with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch)) as executor, out.open("a") as log:
        for seed in set(range(seeds)) - done:
            spec = RunSpec(work.baseline, seed, work.spec.steps, slices, wall_s=600 + work.spec.steps, probe=False)
            result = executor.run(spec, lambda _: None)
            assert result.status == "ok", result.reason
            log.write(json.dumps({"seed": seed, "worthwhile": work.worthwhile, **result.scores}) + "\n")
            log.flush()


def read(path: Path) -> list[dict[str, float]]:
    """Lines of a file of runs."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Recipe:
    """A program: how much better it is than the baseline, and how its seeds differ. Scores are drawn from real ones."""

    better: float = 0.0
    scale: float = 1.0
    stuck: float = 0.0  # the chance that a seed gets stuck


class Chance:
    """Real scores, less their mean, to draw from."""

    def __init__(self, lines: Sequence[dict[str, float]], seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.worthwhile = lines[0]["worthwhile"]
        self.mean, self.sd = (of([line["screen"] for line in lines]) for of in (statistics.fmean, statistics.stdev))
        self.paired_sd = math.sqrt(2) * statistics.stdev(line["confirm"] for line in lines)
        centres = {name: statistics.fmean(line[name] for line in lines) for name in ("screen", "confirm")}
        self._runs = [(line["screen"] - centres["screen"], line["confirm"] - centres["confirm"]) for line in lines]

    def run(self, recipe: Recipe) -> tuple[float, float]:
        """The score of a fresh run on `screen` and on a pair's text, less the baseline's mean."""
        worse = self.sd * STUCK_SIGMAS if recipe.stuck and self.random.random() < recipe.stuck else 0.0
        screen, drawn = self.random.choice(self._runs)
        return screen * recipe.scale + worse - recipe.better, drawn * recipe.scale + worse - recipe.better


@dataclass
class History:
    """One node's experiments under our rule."""

    chance: Chance
    best: Recipe = field(default_factory=Recipe)
    seeds: list[float] = field(default_factory=list)  # of the best, on `screen`
    waiting: list[Recipe] = field(default_factory=list)
    last: decide.Verdict | None = None  # of the latest confirmation
    claimed: float = 0.0  # gains of what was kept, by its own pairs
    runs = tested = found = false = 0

    def __post_init__(self) -> None:
        self.adopt(self.best)

    def adopt(self, recipe: Recipe) -> None:
        """A new parent, with fresh seeds of its own."""
        self.best, self.seeds = recipe, [self.chance.run(recipe)[0] for _ in range(decide.PROMOTE_AFTER)]
        self.runs += decide.PROMOTE_AFTER

    def judge(self, edit: Recipe) -> tuple[Recipe, ...]:
        """Screen an edit, and confirm it, or let it wait until enough can be confirmed together; what was kept.

        `edit.better`: its gain over whatever is best.
        """
        if (gain := self.screen(edit)) is None:
            return ()
        if not decide.waits(gain, self.noise):
            return (edit,) if self.confirm(edit).outcome == "won" else ()
        self.waiting.append(edit)
        if len(self.waiting) < ENOUGH:
            return ()
        members, self.waiting = tuple(self.waiting), []
        better, scale = sum(one.better for one in members), max(one.scale for one in members)
        group = Recipe(better * (TOGETHER if better > 0 else 1.0), scale, edit.stuck)
        return members if self.screen(group) is not None and self.confirm(group).outcome == "won" else ()

    @property
    def noise(self) -> decide.Noise:
        """Of the best."""
        noise = decide.noise_of(self.seeds)
        assert noise is not None
        return noise

    def screen(self, edit: Recipe) -> float | None:
        """The gain of one run, when it earns confirmation."""
        self.runs += 1
        gain = self.noise.mean - self.chance.run(self._onto(edit))[0]
        return gain if decide.promotes(gain, self.noise) else None

    def confirm(self, edit: Recipe) -> decide.Verdict:
        """Pairs until there is a verdict."""
        level, noise, recipe = evidence.level(decide.ALPHA, self.tested, self.found), self.noise, self._onto(edit)
        self.tested += 1
        gains, verdict = list[float](), None
        while verdict is None:
            (_, mine), (screen, theirs) = self.chance.run(recipe), self.chance.run(self.best)
            gains.append(theirs - mine)
            self.seeds.append(screen)  # a node learns its parent's noise from pairs too
            verdict = decide.look(gains, self.chance.worthwhile, level, noise)
        self.runs += 2 * len(gains)
        self.last = verdict
        if verdict.outcome == "won":
            self.found += 1
            self.false += edit.better <= 0
            self.claimed += verdict.gain
            self.adopt(recipe)
        return verdict

    def _onto(self, edit: Recipe) -> Recipe:
        return replace(edit, better=self.best.better + edit.better)


def null_histories(chance: Chance, name: str, histories: int, edits: int) -> None:
    """Histories in which nothing gains: how many of them keep anything, under both rules."""
    adaptive, stuck = name == CHASED, STUCK_CHANCE if name == STUCK else 0.0
    with_keep = kept = promoted = runs = lower = 0
    claimed = 0.0
    for _ in range(histories):
        history = History(chance, Recipe(stuck=stuck))
        best = first = chance.run(history.best)[0]
        wins = dict.fromkeys(SCALES, 1)
        for _ in range(edits):
            scale = chance.random.choices(SCALES, [wins[one] for one in SCALES])[0] if adaptive else 1.0
            recipe = Recipe(scale=scale, stuck=stuck)
            history.last, waited = None, len(history.waiting)
            history.judge(recipe)
            # A proposer that learns: what was promoted, and more so what nearly won, is proposed more often.
            nearly = history.last is not None and history.last.outcome != "discarded"
            wins[scale] += (history.last is not None or len(history.waiting) != waited) + 10 * nearly
            if (score := chance.run(recipe)[0]) < best:
                best, lower = score, lower + 1
        with_keep, kept, promoted = with_keep + (history.found > 0), kept + history.found, promoted + history.tested
        runs, claimed = runs + history.runs, claimed + first - best
    low, high = binomtest(with_keep, histories).proportion_ci(method="wilson")
    total = histories * edits
    print(
        f"| {name} | {kept} | {with_keep / histories:.1%} [{low:.1%}, {high:.1%}] | {promoted / total:.1%} |"
        f" {runs / total:.2f} | {lower / histories:.1f} | {claimed / histories / chance.sd:.1f} |"
    )


def power(chance: Chance, sigmas: float, tries: int) -> None:
    """How often an edit with this gain is kept, as a node's first promoted edit and later."""
    better = sigmas * chance.sd
    shown = []
    for tested, found in ((0, 0), (30, 3)):
        outcomes, runs, gains, promoted = list[str](), 0, list[float](), 0
        for _ in range(tries):
            history = History(chance)
            history.runs, history.tested, history.found = 0, tested, found
            is_promoted = history.screen(Recipe(better)) is not None
            promoted += is_promoted
            if is_promoted:
                verdict = history.confirm(Recipe(better))
                outcomes.append(verdict.outcome)
                if verdict.outcome == "won":
                    gains.append(verdict.gain)
                    history.runs -= decide.PROMOTE_AFTER
            runs += history.runs
        won, open_ = outcomes.count("won"), outcomes.count("inconclusive")
        claimed = f"{statistics.fmean(gains) / chance.sd:.2f}" if gains else "-"
        shown.append(f" {won / tries:.1%} | {open_ / tries:.1%} | {runs / tries:.1f} | {claimed} |")
    print(f"| {sigmas:g} ({better:.4f}) | {promoted / tries:.0%} |" + "".join(shown))


def mixed(chance: Chance, histories: int, edits: int) -> None:
    """Histories with real gains in them: what both rules find, and what it is worth."""
    ours: dict[float, int] = dict.fromkeys(sorted(set(MIXED)), 0)
    theirs, seen = dict(ours), dict(ours)
    false_share, runs, progress, claimed, lower_progress, lower_claimed = ([] for _ in range(6))
    for _ in range(histories):
        history, lower = History(chance), Recipe()
        best = first = chance.run(lower)[0]
        for _ in range(edits):
            sigmas = chance.random.choice(MIXED)
            seen[sigmas] += 1
            gain = sigmas * chance.sd
            for one in history.judge(Recipe(gain)):
                ours[round(one.better / chance.sd, 6)] += 1
            tried = Recipe(lower.better + gain)
            if (score := chance.run(tried)[0]) < best:
                theirs[sigmas] += 1
                best, lower = score, tried
        false_share.append(history.false / max(1, history.found))
        runs.append(history.runs / edits)
        progress.append(history.best.better), claimed.append(history.claimed)
        lower_progress.append(lower.better), lower_claimed.append(first - best)
    print("| gain, sd | tried | kept by our rule | by keep if lower |\n|---|---|---|---|")
    for sigmas, times in seen.items():
        share, other = ours[sigmas] / times, theirs[sigmas] / times
        print(f"| {sigmas:+g} | {times / histories:.1f} | {share:.1%} | {other:.1%} |")
    mean = statistics.fmean
    print(f"false among what our rule kept: {mean(false_share):.2%} on average; {mean(runs):.2f} runs an edit")
    for name, real, said in (("our rule", progress, claimed), ("keep if lower", lower_progress, lower_claimed)):
        print(f"{name}: {mean(real) / chance.sd:.1f} sd of real progress, {mean(said) / chance.sd:.1f} claimed")


def simulate(scores: Path, histories: int, edits: int) -> None:
    """Print every table."""
    lines = read(scores)
    chance = Chance(lines)
    print(
        f"{len(lines)} real runs: {chance.mean:.4f} ± {chance.sd:.4f} bpb; differences of two runs on one text ± "
        f"{chance.paired_sd:.4f}; least gain that counts {chance.worthwhile:.4f}, "
        f"{chance.worthwhile / chance.sd:.2f} sd"
    )
    print(f"\n{histories} histories of {edits} null edits; promised: at most {decide.ALPHA:.0%} of them keep anything")
    print("| null edits | kept in all | histories that keep | in pairs | runs an edit | keep if lower | claims, sd |")
    print("|---|---|---|---|---|---|---|")
    for name in ("equal recipes", CHASED, STUCK):
        null_histories(chance, name, histories, edits)
    print("\npower, as a node's first promoted edit and as its 31st after 3 were kept; claimed: the gain when kept")
    print("| gain, sd | promoted |" + " kept | inconclusive | runs | claimed, sd |" * 2)
    print("|" + "---|" * 10)
    for sigmas in (-2, 0, 0.5, 1, 2, 3, 5):
        power(chance, sigmas, 10 * histories)
    print(f"\n{histories} histories of 100 edits, {MIXED.count(0.0)} % of them null")
    mixed(chance, histories, 100)


def reread(log: Path, seed_effect: float) -> None:
    """A night of single runs at its own noise. One difference of two seeds is all that it says about that."""
    with log.open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["status"] != "crash"]
    scores = [(float(row["val_bpb"]), row["status"]) for row in rows]
    best, gains = scores[0][0], list[float]()
    for score, status in scores[1:]:
        if status == "keep":
            gains.append(best - score)
            best = score
    tries = len(scores) - 1
    paired = seed_effect / norm.ppf(0.75)  # the median of |difference| is 0.67 of its standard deviation
    print(f"{tries} finished experiments, {len(gains)} kept, {scores[0][0]:.6f} to {best:.6f}")
    print(f"another seed made {seed_effect:g}: were that the median, two runs would differ by ± {paired:.5f}")
    bars = {
        "what another seed made": seed_effect,
        "one in twenty equal recipes": norm.isf(0.05) * paired,
        f"one in twenty nights of {tries} equal recipes": norm.isf(0.05 / tries) * paired,
    }
    for name, bar in bars.items():
        print(f"  gains above {bar:.5f}, {name}: {sum(gain > bar for gain in gains)} of {len(gains)}")
    sd = paired / math.sqrt(2)
    level = evidence.level(decide.ALPHA, 0, 0)
    print(f"  gains of one sd ({sd:.5f}) or more, which we would confirm: {sum(gain >= sd for gain in gains)}")
    claimed = sum(evidence.e_value([gain / paired]) >= 1 / level for gain in gains)
    print(f"  gains that one pair of runs proves without knowing the noise: {claimed} (e-values of at most 1.5)")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("collect", "simulate", "reread"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", default="short", help="a named size of gpt-cpu, or a number of steps")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--histories", type=int, default=400)
    parser.add_argument("--edits", type=int, default=400)
    parser.add_argument("--seed-effect", type=float, default=0.0007, help="difference of two seeds' scores in the log")
    given = parser.parse_args()
    if given.command == "collect":
        collect(given.file, given.size, given.seeds)
    elif given.command == "simulate":
        simulate(given.file, given.histories, given.edits)
    else:
        reread(given.file, given.seed_effect)


if __name__ == "__main__":
    main()
