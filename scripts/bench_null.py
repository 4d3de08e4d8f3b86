#!/usr/bin/env python3
"""A night of null edits: what our rule keeps of them, what `keep if lower` would keep, and where the time goes.

    scripts/bench_null.py run OUT_DIR [--size short] [--edits 40] [--cpus 1]
    scripts/bench_null.py report OUT_DIR

A null edit shifts the random stream, of the initialisation or of the batches, and leaves the recipe alone: it is
another seed. So whatever is kept is luck, and whatever is stopped at half time was stopped in error. Each is tried by
the node's own code, from the program that was kept last; nothing asks whether it was tried before. OUT_DIR is a node's
home (`swarm-node feed --home OUT_DIR`), and calls.jsonl in it says what each call of the worker took. A second start
goes on where the first stopped.
"""

import argparse
import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, permutations
from pathlib import Path
from uuid import uuid4

from scipy.stats import binomtest
from swarm_node.node import bench as benches
from swarm_node.node.app import environment
from swarm_node.node.experiment import Experiment, Plan
from swarm_node.node.format import experiment_line
from swarm_node.node.home import Home
from swarm_node.node.laboratory import Laboratory
from swarm_node.node.noise import NoiseBook
from swarm_node.node.programs import Programs
from swarm_node.node.proposers.base import Hypothesis
from swarm_node.node.screen import Screen
from swarm_node.node.tasks import current_task, remember
from swarm_node.protocols.records import Result
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.frontier import Frontier, fold
from swarm_node.swarm.identity import load, load_or_create
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.types import wall_clock_ms
from swarm_node.trainer import corpus, task
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.hardware import detect
from swarm_node.trainer.types import CostRatio, OnProgress, RunResult, RunSpec, Slice

CHECK_STEPS = 3


def before(line: str, new: str, source: str) -> str:
    """The program with a line added."""
    assert source.count(line) == 1, line
    return source.replace(line, new + line)


def reordered(owner: str, order: Sequence[int], source: str) -> str:
    """The program with the random parts of a module made in another order; norms start without chance."""
    lines = source.split("\n")
    start = lines.index(f"class {owner}(nn.Module):")
    body = range(start, lines.index("", start))
    places = [at for at in body if lines[at].startswith("        self.") and "LayerNorm" not in lines[at]]
    for place, line in zip(places, [lines[places[index]] for index in order], strict=True):
        lines[place] = line
    return "\n".join(lines)


def edits() -> dict[str, Callable[[str], str]]:
    """Every null edit by name, the kinds in turn. Orders are relative, so they compose with what was kept before."""
    owners = {"GPT": 4, "Block": 2, "Attention": 2, "MLP": 2}
    orders = [(owner, order) for owner, parts in owners.items() for order in list(permutations(range(parts)))[1:]]
    found: dict[str, Callable[[str], str]] = {}
    for count, (owner, order) in enumerate(reversed(orders), 1):
        found[f"order-{owner}-{''.join(map(str, order))}"] = partial(reordered, owner, order)
        found[f"draw-{count}"] = partial(before, "    model = GPT(ctx.vocab_size)\n", f"    torch.rand({count})\n")
        skip = f"    for _ in range({count}):\n        ctx.batch(BATCH, SEQ)\n"
        found[f"skip-{count}"] = partial(before, "    for step in range(ctx.steps):\n", skip)
    return found


EDITS = edits()


def check(executor: Executor, baseline: str, names: Sequence[str]) -> None:
    """Each edit makes another model of the same seed, in the same steps, when it is applied to the baseline."""
    print(f"checking that {len(names)} edits make {len(names)} models", flush=True)
    digests: dict[str, str] = {}
    for name in ("baseline", *names):
        source = EDITS[name](baseline) if name in EDITS else baseline
        spec = RunSpec(source, 1, CHECK_STEPS, (Slice("probe", bytes=2048),), wall_s=60, probe=False)
        result = executor.run(spec, lambda _: None)
        assert result.status == "ok", f"{name}: {result.reason}"
        twin = digests.setdefault(result.logits_digest, name)
        assert twin == name, f"{name} makes the same model as {twin}"


class Clocked(Executor):
    """An executor that notes what each call took that came to its end."""

    calls: Path

    def run(self, spec: RunSpec, on_progress: OnProgress) -> RunResult:
        """One run."""
        begun = time.monotonic()
        done = super().run(spec, on_progress)
        kind = {"probe": "screen", "confirm": "pair", "screen": "seed"}[spec.slices[-1].name]
        if not done.cancelled:
            cpu = done.cpu_s + done.eval_cpu_s
            self._note(begun, kind, done.status, train=done.wall_s - done.eval_s, score=done.eval_s, cpu=cpu)
        return done

    def cost_ratio(
        self, parent_source: str, source: str, steps: int, on_progress: OnProgress, rough: bool = False
    ) -> CostRatio | RunResult:
        """One calibration; while it measures, it keeps its core busy."""
        begun = time.monotonic()
        cost = super().cost_ratio(parent_source, source, steps, on_progress, rough)
        if isinstance(cost, CostRatio):
            self._note(begun, "calibration", "ok", calibrate=cost.seconds, cpu=cost.seconds)
        return cost

    def _note(self, begun: float, kind: str, status: str, **seconds: float) -> None:
        line = {"kind": kind, "status": status, "wall": time.monotonic() - begun, **seconds}
        with self.calls.open("a") as log:
            log.write(json.dumps(line) + "\n")


async def run(out: Path, size: str, count: int, lanes: int) -> None:
    """Try the null edits that this home has not finished."""
    home, screen = Home.locate(out), Screen()
    home.create()
    with home.locked(), Ledger.open(home.ledger) as ledger:
        seed = load_or_create(home.key)
        text = corpus.prepare(home.corpora)
        work = task.load("gpt-cpu", size, bytes.fromhex(text.digest))
        assert ledger.journal("node").get("size", size) == size, "this folder holds a night of another size"
        remember(ledger, work.spec)
        frontier = fold(ledger.all_records(), public_key(seed), work.spec.id, work.spec.baseline)
        programs = Programs(ledger, work.baseline)
        programs.store(work.baseline)
        Clocked.calls, benches.Executor = home.data / "calls.jsonl", Clocked  # the bench makes its executors itself
        resumed = [Plan.from_json(one, ledger.journal(one)["plan"]) for one in ledger.open_experiments()]
        begun = {plan.hypothesis.edit for plan in resumed} | set(map(name_of, tried(frontier)))
        fresh = [name for name in list(EDITS)[:count] if name not in begun]
        with Executor(text, home.scratch) as executor:
            check(executor, work.baseline, fresh)
        async with screen.ticking(), benches.opened(text, home.scratch, lanes, screen) as bench:
            lab = Laboratory(
                work, bench, ledger, frontier, programs, environment(detect()), wall_s=600 + work.spec.steps,
                pool_bytes=text.held["confirm"].stat().st_size,
            )  # fmt: skip
            todo = chain(resumed, plans(lab, ledger, fresh))
            async with asyncio.TaskGroup() as group:
                for _ in range(lanes):
                    group.create_task(conduct(todo, lab, ledger, seed, screen))


def plans(lab: Laboratory, ledger: Ledger, names: Sequence[str]) -> Iterator[Plan]:
    """Each edit, applied to what is the own best by then."""
    for name in names:
        program = lab.frontier.best_program
        parent = lab.programs.get(program)
        assert parent is not None
        hypothesis = Hypothesis(EDITS[name](parent), f"null: {name}", "the same recipe", (), "null", name)
        plan = Plan(f"x-{uuid4().hex}", lab.task.spec.id, parent, program, hypothesis)
        ledger.journal_put(plan.id, "plan", plan.to_json())
        yield plan


async def conduct(todo: Iterator[Plan], lab: Laboratory, ledger: Ledger, seed: bytes, screen: Screen) -> None:
    """One lane: an experiment after the other, each recorded as a node does it."""
    for plan in todo:
        begun = time.monotonic()
        result = await Experiment(lab, plan).conduct()
        lab.programs.store(plan.hypothesis.source)
        for record in ledger.append_all(seed, [result], now_ms=wall_clock_ms(), done=plan.id):
            lab.frontier.add(record)
        number, direction = lab.frontier.own_experiments, lab.task.spec.direction
        screen.say("  " + experiment_line(number, result, direction, time.monotonic() - begun))


def tried(frontier: Frontier) -> list[Result]:
    """The results of null edits so far."""
    return [one.body for one in frontier.trials if isinstance(one.body, Result) and one.body.outcome != "baseline"]


def name_of(one: Result) -> str:
    """The null edit that a result is about."""
    return one.proposer.partition(":")[2]


def report(out: Path) -> None:
    """Print each edit, what the two rules kept, and where the time went."""
    home = Home.locate(out)
    with Ledger.open(home.ledger, read_only=True) as ledger:
        spec = current_task(ledger).spec
        results = tried(fold(ledger.all_records(), public_key(load(home.key)), spec.id, spec.baseline))
        book = NoiseBook(ledger, spec.id)
        first = next(iter(book.results(spec.baseline).values())).scores["screen"]
        noise = book.noise(spec.baseline)
    assert noise is not None
    print(f"{spec.name}/{spec.size}: {spec.steps} steps, baseline {noise.mean:.4f} ± {noise.sd:.4f}, {noise.n} runs")
    print("  # edit               outcome       screen gain  in sd  steps  pairs  e-value   needed  runs  CPU s")
    for number, one in enumerate(results, 1):
        score, found, shown = screen_score(one), one.evidence, " " * 18
        if score is not None and one.parent_score is not None and one.noise:
            gain = one.parent_score - score
            shown = f"{gain:+11.4f} {gain / one.noise:+6.2f}"
        pairs = f"{found.pairs:6} {found.e_value:8.3g} {1 / found.level:8.3g}" if found else " " * 24
        outcome, spent = "killed" if is_killed(one) else one.outcome, f"{len(one.runs):5} {one.cost.seconds:6.0f}"
        print(f"{number:3} {name_of(one):<18} {outcome:<13} {shown} {one.steps:6} {pairs} {spent}")
    causes = Counter(
        re.sub(r"[-+]?\d[\d.e+-]*", "N", one.cause or "did not gain enough to be promoted") for one in results
    )
    print("causes:", *(f"{times:5} x {cause}" for cause, times in causes.most_common()), sep="\n")
    promoted = sum(one.evidence is not None for one in results)
    kept = sum(one.outcome == "kept" for one in results)
    print(f"our rule: {promoted} of {len(results)} promoted, {kept} kept")
    best, lower = first, 0
    for one in results:
        score = screen_score(one)
        if score is not None and score < best:
            best, lower = score, lower + 1
    print(
        f"keep if lower: {lower} kept, {first - best:.4f} bpb claimed, from {first:.4f}, the first seed, to {best:.4f}"
    )
    killed, screened = sum(map(is_killed, results)), sum(one.outcome != "crashed" for one in results)
    low, high = binomtest(killed, screened).proportion_ci(method="wilson")
    rate = f"{killed / screened:.1%} [{low:.1%}, {high:.1%}]"
    print(f"stopped at half time, all in error: {killed} of {screened} screens, {rate} (95 %, Wilson)")
    calls = [json.loads(line) for line in (home.data / "calls.jsonl").read_text().splitlines()]
    print_time(calls, len(results))


def screen_score(one: Result) -> float | None:
    """The score of the screening run that counted; None when it was stopped or failed."""
    return next((run.score for run in reversed(one.runs) if run.role == "screen"), None)


def is_killed(one: Result) -> bool:
    """Whether it was stopped at half time."""
    return one.outcome == "discarded" and screen_score(one) is None


def print_time(calls: Sequence[dict], judged: int) -> None:
    """The wall time of the workers' calls: what it was spent on, and how many hypotheses it judged."""
    names = {"seed": "seeds and full screens", "screen": "seeds and full screens", "pair": "pairs and audits"}
    groups: dict[str, list[dict]] = {}
    for call in calls:
        name = names.get(call["kind"], "calibrations") if call["status"] == "ok" else call["status"]
        groups.setdefault(name, []).append(call)
    print(f"{'':<24} calls  wall s   CPU s  training  scoring  calibrating   rest")
    for name, group in (*groups.items(), ("together", calls)):
        wall, cpu = (sum(call[key] for call in group) for key in ("wall", "cpu"))
        train, score, calibrate = (
            sum(call.get(key, 0.0) for call in group) / wall for key in ("train", "score", "calibrate")
        )
        shares = f"{train:9.1%} {score:8.1%} {calibrate:12.1%} {1 - train - score - calibrate:6.1%}"
        print(f"{name:<24} {len(group):5} {wall:7.0f} {cpu:8.0f} {shares}")
    runs, hours = sum(call["kind"] != "calibration" for call in calls), wall / 3600  # of all calls, by now
    print(f"a decision cost {runs / judged:.1f} runs and {cpu / judged:.0f} CPU seconds, the parents' seeds included")
    full = [call["wall"] for call in calls if (call["kind"], call["status"]) == ("screen", "ok")]
    saved = sum(statistics.fmean(full) - call["wall"] for call in groups.get("killed", ())) / 3600
    without = f"{judged / (hours + saved):.1f} had the killed runs gone to their end"
    print(f"{judged / hours:.1f} hypotheses judged per core-hour; {without}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("out", type=Path, help="a folder for the night; made when it is not there")
    parser.add_argument("--size", default="short", help="a named size of gpt-cpu, or a number of steps")
    parser.add_argument("--edits", type=int, default=40, help=f"at most {len(EDITS)}")
    parser.add_argument("--cpus", type=int, default=1)
    given = parser.parse_args()
    if given.command == "run":
        asyncio.run(run(given.out, given.size, given.edits, given.cpus))
    report(given.out)


if __name__ == "__main__":
    main()
