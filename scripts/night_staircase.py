"""The night of one researcher: a node's staircase, and that of "keep if lower", judged by fresh seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import night_arms as arms
from night_measures import survival, surviving_steps
from night_nodes import researcher, running
from night_score import Lab, Program, audits, opened
from swarm_node.node.proposers.base import Situation, Trial
from swarm_node.node.proposers.offline import EDITS, OfflineProposer
from swarm_node.protocols.diffs import normal_digest
from swarm_node.protocols.records import Result

PRIMARY = (
    "the share of each rule's claimed gain (recorded score of its start minus that of its final program) that fresh "
    "seeds at compute parity find on the slice `audit`"
)
RUN_SEED = 50_000  # of the greedy loop's runs: none of the seeds that judge
BY_NAME = {edit.name: edit for edit in EDITS}


@dataclass(frozen=True)
class Settings:
    """Of both searches."""

    experiments: int
    size: str
    seeds: int  # fresh runs of each program on the staircases
    proposer_seed: int
    stall: float


def staircase(out: Path, settings: Settings) -> None:
    """Run what is missing of both searches, judge what they kept, and write a line for each."""
    plan = arms.Plan(out, "staircase", asdict(settings), PRIMARY)
    done = {line["rule"] for line in plan.done()}
    print(f"primary metric: {PRIMARY}")
    with opened(out, settings.size) as lab:
        for rule, search in (("evidence", _node), ("keep if lower", _greedy)):
            if rule not in done:
                line, way = search(out, settings, lab)
                line = {"rule": rule} | line | _judged(lab, line, way, settings.seeds)
                plan.write(line)
                tell(line)


def _judged(lab: Lab, line: dict[str, Any], way: Sequence[Program], seeds: int) -> dict[str, Any]:
    """Fresh runs of every program on the staircase, its start included."""
    scores = [lab.scores(program, range(seeds)) for program in way]
    judged = survival(line["start"] - line["final"], audits(scores[0]), audits(scores[-1]))
    better, steps = surviving_steps([audits(of) for of in scores])
    return {
        "claimed": judged.claimed, "real": judged.real, "error": judged.error, "share": judged.share,
        "steps_kept": steps, "steps_real": better, "seeds": seeds,
        "again": [[{"screen": one["screen"], "audit": one["audit"]} for one in of] for of in scores],
    }  # fmt: skip


# ---- the node: what is kept is what evidence carries


def _node(out: Path, settings: Settings, lab: Lab) -> tuple[dict[str, Any], list[Program]]:
    folder = out / "staircase"
    done = len(_own(folder, lab)) if (folder / "node-0" / "ledger.sqlite3").exists() else 0
    started = time.monotonic()
    if done < settings.experiments:
        print(f"the node: {done} of {settings.experiments} experiments so far", flush=True)
        job = researcher("node-0", settings.size, settings.proposer_seed, None, 0.0)
        job = replace(job, args=(*job.args, "--experiments", str(settings.experiments - done)))
        with running(folder) as group:
            group.start([job], 1)
            group.watch(lambda _: False, every=1.0, stall=settings.stall)
    home = arms.read(folder / "node-0", lab.work)
    baseline = home.frontier.own_baseline
    assert baseline is not None and isinstance(baseline.body, Result) and baseline.body.score is not None
    trials = [
        {"score": one.score, "kept": one.outcome == "kept", "outcome": one.outcome, "title": one.title,
         "gain": one.gain, "error": one.gain_error, "aim": one.aim, "cause": one.cause}
        for one in _own(folder, lab)
    ]  # fmt: skip
    runs = [run for one in _own(folder, lab) for run in one.runs]
    line = {
        "start": baseline.body.score, "final": home.frontier.best_score, "trials": trials, "recorded_runs": len(runs),
        "cpu_s": round(baseline.body.cost.seconds + sum(one.cost.seconds for one in _own(folder, lab)), 1),
        "wall_s": round(time.monotonic() - started),
    }  # fmt: skip
    way = [lab.baseline, *(program for _, program in home.way(lab.work))]
    arms.slim(folder)
    return line, way


def _own(folder: Path, lab: Lab) -> list[Result]:
    """The node's experiments, in the order of its log."""
    home = arms.read(folder / "node-0", lab.work)
    bodies = (entry.record.body for entry in home.entries if entry.record.author == home.author)
    return [body for body in bodies if isinstance(body, Result) and body.outcome != "baseline"]


# ---- keep if lower: the rule of a loop that runs every idea once


def _greedy(out: Path, settings: Settings, lab: Lab) -> tuple[dict[str, Any], list[Program]]:
    """The same proposer with the same seed; one run each; kept when its score is the lowest so far."""
    search = Greedy(lab, settings.proposer_seed, out / "greedy.jsonl")
    started = time.monotonic()
    print(f"keep if lower: {len(search.trials)} of {settings.experiments} experiments so far", flush=True)
    while len(search.trials) < settings.experiments and search.advance():
        pass
    line = {
        "start": search.start, "final": search.best, "trials": search.lines[1:], "recorded_runs": len(search.lines),
        "cpu_s": round(sum(one["cpu_s"] for one in search.lines), 1), "wall_s": round(time.monotonic() - started),
    }  # fmt: skip
    return line, search.way


class Greedy:
    """The search, rebuilt from the lines that it wrote so far."""

    def __init__(self, lab: Lab, seed: int, file: Path) -> None:
        self._lab, self._file = lab, file
        self._proposer = OfflineProposer(seed)
        self.lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        if not self.lines:
            self._write(self._run(lab.work.baseline, lab.work.spec.steps, 0) | {"title": "the baseline"})
        self.start = self.best = self.lines[0]["score"]
        self.way = [lab.baseline]
        self.trials: list[Trial] = []
        self._tried = {normal_digest(lab.work.baseline)}
        for line in self.lines[1:]:
            made = BY_NAME[line["edit"]].apply(self.way[-1].source)
            assert made is not None
            self._learn(made.source, line)

    def advance(self) -> bool:
        """One experiment; False when nothing is left to try."""
        lab, parent = self._lab, self.way[-1].source
        idea = self._proposer.choose(
            Situation(
                lab.work.spec, "", "", parent, self.best, None, tuple(self.trials), (),
                lambda source: normal_digest(source) in self._tried,
            )
        )  # fmt: skip
        if idea is None:
            return False
        measured = lab.measured(idea.source)
        number = len(self.trials) + 1
        ran = self._run(idea.source, measured[0], number) if measured else {"score": None, "steps": 0, "cpu_s": 0.0}
        kept = ran["score"] is not None and ran["score"] < self.best
        gain = self.best - ran["score"] if ran["score"] is not None else None
        line = ran | {"kept": kept, "gain": gain, "title": idea.title, "edit": idea.edit}
        self._write(line)
        self._learn(idea.source, line)
        return True

    def _run(self, source: str, steps: int, number: int) -> dict[str, Any]:
        result = self._lab.screen(source, RUN_SEED + number, steps)
        return {
            "score": result.scores.get("screen"), "steps": steps, "cpu_s": result.cpu_s + result.eval_cpu_s,
        }  # fmt: skip

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        with self._file.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def _learn(self, source: str, line: dict[str, Any]) -> None:
        outcome = "kept" if line["kept"] else "crashed" if line["score"] is None else "discarded"
        self.trials.append(
            Trial(line["title"], BY_NAME[line["edit"]].tags, outcome, line["gain"], own=True, edit=line["edit"])
        )
        self._tried.add(normal_digest(source))
        if line["kept"]:
            self.way.append(Program(source, line["steps"]))
            self.best = line["score"]


def tell(line: dict[str, Any]) -> None:
    """One rule in one line."""
    print(
        f"{line['rule']}: {len(line['trials'])} experiments, {line['cpu_s']:.0f} CPU s, {line['steps_kept']} kept, "
        f"claimed gain {line['claimed']:.4f}, real {line['real']:.4f} ± {line['error']:.4f}: "
        f"{line['share']:.0%} survives; {line['steps_real']} of {line['steps_kept']} steps are better on fresh seeds",
        flush=True,
    )
