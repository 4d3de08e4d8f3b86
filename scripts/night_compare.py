"""Swarm against solo at equal compute: the arms of `bench_night.py compare`."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import night_arms as arms
from night_measures import built_on, count
from night_nodes import STOP, Nodes, bootstrap, liar, researcher, running, samples
from night_score import Lab, mean_audit, opened, started_from
from swarm_node.protocols.records import Record, Result
from swarm_node.trainer.task import Task

ARMS = ("solo", "swarm", "private", "unverified", "liars", "single")
LYING = 0.3  # of all peers of the arm `liars`
VERIFY = 0.2
MEMBER_SEEDS = 2  # fresh runs that judge each node's own best
PRIMARY = (
    "mean bits per byte on the slice `audit`, over fresh seeds at compute parity, of the best program of the arm, "
    "chosen by the arm's own records: the lowest recorded own-best score over its honest nodes; beside it, what one "
    f"member gets: the same of every honest node's own best, over {MEMBER_SEEDS} fresh seeds, the mean of all"
)


@dataclass(frozen=True)
class Settings:
    """Of the whole comparison."""

    nodes: tuple[int, ...]
    reps: int
    arms: tuple[str, ...]
    size: str
    budget: float  # CPU seconds for each node; an arm has so many times the nodes
    seeds: int  # fresh runs that judge a program
    stall: float
    start: str = ""  # program that all nodes start from, in place of gpt-cpu's
    verify: float = VERIFY

    def proposer_seed(self, rep: int, node: int) -> int:
        """The same in all arms of a repetition, so that they can be compared in pairs."""
        return 1000 * rep + node + 1


def liars_beside(nodes: int) -> int:
    """Liars that make 30 % of all peers, as nearly as whole liars can, and at least one."""
    return max(1, round(nodes * LYING / (1 - LYING)))


def compare(out: Path, settings: Settings, parallel: int) -> None:
    """Run what is missing, `parallel` arms at a time; every finished arm is a line of compare.jsonl."""
    said = {name: value for name, value in asdict(settings).items() if value != ""}
    plan = arms.Plan(out, "compare", json.loads(json.dumps(said)), PRIMARY)
    done = {(line["nodes"], line["rep"], line["arm"]) for line in plan.done()}
    print(f"primary metric: {PRIMARY}")
    todo = [
        (nodes, rep, arm)
        for rep in range(settings.reps)
        for nodes in settings.nodes
        for arm in settings.arms
        if (nodes, rep, arm) not in done
    ]
    start = started_from(out, settings.start) if settings.start else None
    with opened(out, settings.size, start) as lab, ThreadPoolExecutor(parallel) as pool:
        lab.scores(lab.baseline, range(settings.seeds))
        coming = [pool.submit(_arm, out, settings, *what, lab, start) for what in todo]
        try:
            for future in as_completed(coming):
                line = future.result()
                plan.write(line)
                _tell(line)
        except BaseException:
            STOP.set()  # the arms that run end without a line
            pool.shutdown(cancel_futures=True)
            raise


def _arm(out: Path, settings: Settings, nodes: int, rep: int, arm: str, lab: Lab, start: Path | None) -> dict[str, Any]:
    """One arm from its start to its line. What an interrupted start left is begun anew."""
    folder = out / "arms" / f"n{nodes}-r{rep}-{arm}"
    shutil.rmtree(folder, ignore_errors=True)
    budget = nodes * settings.budget
    print(f"{folder.name}: {budget:.0f} CPU seconds in all", flush=True)
    started = time.monotonic()
    with running(folder) as group:
        liars = _start(group, settings, nodes, rep, arm, start)
        ended = group.watch(lambda sample: sample.cpu_s >= budget, every=1.0, stall=settings.stall)
        used = arms.usage(group)
        group.stop()
        last = group.sample()
        spent, deaths = arms.compute(group), group.deaths
        avoided = [one.status.get("avoided") for one in group.researchers]
    line: dict[str, Any] = {
        "arm": arm, "nodes": nodes, "rep": rep, "liars": liars, "budget": budget, "ended": ended,
        "wall_s": round(time.monotonic() - started), "compute": spent, "finished": last.finished, "processes": used,
        "deaths": deaths,
        "avoided": sum(one for one in avoided if one) if any(one is not None for one in avoided) else None,
    }  # fmt: skip
    line |= read(folder, lab.work)
    homes = _honest(folder, lab.work)
    line["members"] = {home.name: member_score(home, lab) for home in homes}
    name, score, program = arms.chosen(homes, lab.work)
    (folder / "best.py").write_text(program.source)
    scores = lab.scores(program, range(settings.seeds))
    line["best"] = {
        "node": name, "recorded": score, "program": program.digest.hex(), "steps": program.steps,
        "screen": [one["screen"] for one in scores], "audit": [one["audit"] for one in scores],
        "baseline_audit": [one["audit"] for one in lab.scores(lab.baseline, range(settings.seeds))],
    }  # fmt: skip
    arms.slim(folder)
    return line


def member_score(home: arms.Home, lab: Lab) -> float:
    """What a node's own best scores on text that decided nothing."""
    return mean_audit(lab.scores(arms.chosen([home], lab.work)[2], range(MEMBER_SEEDS)))


def _start(group: Nodes, settings: Settings, nodes: int, rep: int, arm: str, start: Path | None) -> int:
    """Start an arm's processes; how many of them lie."""
    at_once = 2 * (os.cpu_count() or 1)
    invite = None
    if arm not in ("solo", "single"):
        private = ("--private",) if arm == "private" else ()
        group.start([bootstrap(settings.size, *private, start=start)], at_once)
        invite = group.invite()
    liars = liars_beside(nodes) if arm == "liars" else 0
    verify = 0.0 if arm == "unverified" else settings.verify
    jobs = [
        researcher(f"node-{node}", settings.size, settings.proposer_seed(rep, node), invite, verify, start=start)
        for node in range(1 if arm == "single" else nodes)
    ]
    if invite and liars:
        jobs += [liar(f"liar-{index}", index, liars, f"{nodes}/{rep}", invite, start) for index in range(liars)]
    group.start(jobs, at_once)
    return liars


def _honest(folder: Path, work: Task) -> list[arms.Home]:
    return [arms.read(path, work) for path in sorted(folder.glob("node-*"))]


def read(folder: Path, work: Task) -> dict[str, Any]:
    """What an arm's ledgers say."""
    homes = _honest(folder, work)
    honest = {home.author for home in homes}
    records = arms.union(homes)
    found: dict[str, Any] = {"curve": arms.curve(homes, samples(folder), work), "counts": count(records, honest)}
    found["own_best"] = {home.name: home.frontier.best_score for home in homes}
    if any(folder.glob("liar-*")):
        found["lies"] = _lies(homes, honest)
    return found


def _lies(homes: Sequence[arms.Home], honest: set[bytes]) -> dict[str, int]:
    """What lies did: what each honest node believes of each claim and of each author."""
    records = arms.union(homes)
    wins = [record for record in records if isinstance(record.body, Result) and record.body.outcome == "kept"]
    believed = [
        (record.author in honest, _believes(home, record))
        for home in homes
        for record in wins
        if record.author != home.author
    ]
    gone = [author in honest for home in homes for author in home.frontier.quarantined]
    return {
        "liars_heard": len({record.author for record in records} - honest),
        "liars_quarantined": gone.count(False),
        "honest_quarantined": gone.count(True),
        "honest_results_with_a_lie": built_on(records, honest),
        "lies_believed": believed.count((False, "confirmed")),
        "lies_disbelieved": believed.count((False, "refuted")),
        "lies_undecided": believed.count((False, "claimed")),
        "wins_believed": believed.count((True, "confirmed")),
        "wins_disbelieved": believed.count((True, "refuted")),
        "wins_undecided": believed.count((True, "claimed")),
    }


def _believes(home: arms.Home, record: Record) -> str:
    """What a node makes of a claim: what an author of fabrications says counts for nothing."""
    gone = record.author in home.frontier.quarantined
    return "refuted" if gone else home.frontier.opinion(record).state


def _tell(line: dict[str, Any]) -> None:
    audit, counts = line["best"]["audit"], line["counts"]
    print(
        f"n{line['nodes']}-r{line['rep']}-{line['arm']}: {line['ended']} after {line['wall_s']} s: "
        f"{line['compute']['cpu_s']:.0f} CPU s, "
        f"{counts.get('experiments', 0)} experiments, {counts.get('kept', 0)} kept, "
        f"recorded best {line['best']['recorded']:.4f}, on audit {sum(audit) / len(audit):.4f}",
        flush=True,
    )
