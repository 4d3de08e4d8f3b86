"""Many nodes, one night: what `bench_night.py crowd` runs and works out of the ledgers."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import night_arms as arms
from night_measures import centile, count, delays, missing, spreads
from night_nodes import Nodes, Running, bootstrap, researcher, running, samples
from night_score import load_task
from swarm_node.protocols.records import Record, Result
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.types import wall_clock_ms
from swarm_node.trainer.task import Task

# What torch's kernels may use, a third of the nodes each: "" is all that the machine has.
PROFILES = ("", "avx2", "default")
SETTLE_SECONDS = 180.0
USE_EVERY = 20.0
PRIMARY = "seconds until half of the other nodes had adopted each confirmed win; p50 and p99 of propagation in ms"


@dataclass(frozen=True)
class Settings:
    """Of the whole night."""

    nodes: int
    experiments: int
    size: str
    stall: float
    at_once: int  # nodes that start at the same time
    verify: float = 0.2


class Night:
    """Watches a crowd: when each node was up, what its processes take, how many experiments there are."""

    def __init__(self, group: Nodes) -> None:
        self._group = group
        self.up_ms: dict[str, int] = {}  # since when a node has had a peer, in this start
        self.use: list[dict[str, float]] = []
        self._measured = 0.0

    def look(self) -> None:
        """Called with every sample."""
        for one in self._group.researchers:
            if one.job.name not in self.up_ms and one.status.get("peers"):
                self.up_ms[one.job.name] = wall_clock_ms()
        if time.monotonic() - self._measured > USE_EVERY:
            self._measured = time.monotonic()
            used = [one.use() for one in self._group.researchers]
            self.use.append(
                {"ms": wall_clock_ms(), "cpu_s": sum(cpu for cpu, _ in used), "mib": sum(mib for _, mib in used)}
            )


def crowd(out: Path, settings: Settings) -> None:
    """Run the night, or go on with it, and write its line."""
    plan = arms.Plan(out, "crowd", asdict(settings), PRIMARY)
    if plan.done():
        print("this night is over: scripts/bench night report")
        return
    folder = out / "crowd"
    before = _experiments(folder)
    _, work = load_task(out, settings.size)
    print(f"{settings.nodes} nodes, {before} of {settings.experiments} experiments so far", flush=True)
    started = time.monotonic()
    with running(folder) as group:
        night = Night(group)
        group.start([bootstrap(settings.size)], 1)
        jobs = [_job(node, settings, group.invite()) for node in range(settings.nodes)]
        group.start(jobs, settings.at_once)
        print(f"all are up after {time.monotonic() - started:.0f} s", flush=True)
        goal = settings.experiments - before
        ended = group.watch(lambda one: one.finished >= goal, every=2.0, stall=settings.stall, also=night.look)
        until_ms = wall_clock_ms()
        settled = _settle(group.all, until_ms)
        statuses = {one.job.name: one.status for one in group.researchers}
        used, spent = arms.usage(group), arms.compute(group)
    line: dict[str, Any] = {
        "ended": ended, "resumed": before > 0, "wall_s": round(time.monotonic() - started), "until_ms": until_ms,
        "settled_s": settled, "compute": spent, "processes": used, "memory_mib": max(one["mib"] for one in night.use),
        "cores": os.cpu_count(), "deaths": group.deaths,
        "avoided": [status.get("avoided") for status in statuses.values()],
        "peers": sorted(len(status.get("peers", ())) for status in statuses.values()),
        "crashes": dict(sum((Counter(status.get("crashes", {})) for status in statuses.values()), Counter())),
    }  # fmt: skip
    line |= read(folder, work, until_ms, night.up_ms)
    plan.write(line)
    arms.slim(folder)
    tell(line)


def _job(node: int, settings: Settings, invite: str) -> Any:
    profile = PROFILES[node % len(PROFILES)]
    env = {"ATEN_CPU_CAPABILITY": profile} if profile else {}
    return researcher(f"node-{node:02}", settings.size, node + 1, invite, settings.verify, env)


def _experiments(folder: Path) -> int:
    """The experiments in the ledgers of an earlier start."""
    found = 0
    for path in folder.glob("node-*/ledger.sqlite3"):
        with Ledger.open(path, read_only=True) as ledger:
            own = bytes.fromhex(ledger.journal("node").get("author", ""))
            found += sum(
                record.author == own and isinstance(record.body, Result) and record.body.outcome != "baseline"
                for record in ledger.all_records("result")
            )
    return found


def _settle(nodes: Sequence[Running], until_ms: int) -> float | None:
    """Seconds until every ledger held every record signed until then; None when that did not happen."""
    started = time.monotonic()
    while time.monotonic() - started < SETTLE_SECONDS:
        ledgers = {}
        for one in nodes:
            with Ledger.open(one.ledger, read_only=True) as ledger:
                ledgers[one.job.name.encode()] = list(ledger.all_entries())
        passed = round(time.monotonic() - started, 1)
        if not any(missing(ledgers, until_ms).values()):
            return passed
        time.sleep(2.0)
    return None


def read(folder: Path, work: Task, until_ms: int, up_ms: dict[str, int]) -> dict[str, Any]:
    """What the ledgers say of the time until then."""
    homes = [arms.read(path, work) for path in sorted(folder.glob("node-*"))]
    nodes = {home.author: home for home in homes}
    records: list[Record] = [record for record in arms.union(homes) if record.time <= until_ms]
    ledgers = {home.author: home.entries for home in homes}
    since = {home.author: up_ms.get(home.name, until_ms) for home in homes}
    took = delays(ledgers, since, nodes.keys())
    lacking = missing(ledgers, until_ms)
    spread = spreads(records, nodes.keys())
    return {
        "counts": count(records, nodes.keys()),
        "records": len(records),
        "propagation": {"n": len(took), "p50_ms": centile(took, 0.5), "p99_ms": centile(took, 0.99),
                        "max_ms": max(took, default=None), "mean_ms": statistics.fmean(took) if took else None,
                        "centiles": [centile(took, share / 100) for share in range(1, 100)]},
        "lacking": {nodes[author].name: lacks for author, lacks in lacking.items() if lacks},
        "spread": [{"id": one.result.hex(), "title": one.title, "gain": one.gain, "state": one.state,
                    "others": one.others, "adopted": list(one.adopted), "t50": one.until(0.5), "t90": one.until(0.9)}
                   for one in spread],
        "environments": dict(Counter(
            record.body.environment.library for record in records if isinstance(record.body, Result)
            and record.body.outcome == "baseline"
        )),
        "own_best": {home.name: home.frontier.best_score for home in homes},
        "curve": arms.curve(homes, samples(folder), work),
        "finished": [[one.ms, one.cpu_s, one.finished, one.verified] for one in samples(folder)],
    }  # fmt: skip


def tell(line: dict[str, Any]) -> None:
    """The night in a few lines."""
    counts, moved = line["counts"], line["propagation"]
    confirmed = [one for one in line["spread"] if one["state"] == "confirmed"]
    done = counts.get("experiments", 0)
    print(f"{line['ended']} after {line['wall_s']} s; {done} experiments, {line['records']} records")
    print(f"discoveries: {counts.get('kept', 0)} kept, {len(confirmed)} different ones confirmed")
    print(f"propagation: p50 {moved['p50_ms']:.0f} ms, p99 {moved['p99_ms']:.0f} ms of {moved['n']}")
    settled = line["settled_s"]
    print("all ledgers equal " + (f"after {settled} s" if settled is not None else f"never: {line['lacking']}"))
