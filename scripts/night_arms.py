"""What `bench_night.py` shares between its benchmarks: the output folder, and what one arm's ledgers hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from night_measures import Curve, best_curve, own_bests
from night_nodes import Nodes, Sample
from night_score import Program
from swarm_node.node.programs import Programs
from swarm_node.protocols.records import Record, Result
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.frontier import Frontier
from swarm_node.swarm.identity import load
from swarm_node.swarm.ledger import Entry, Ledger
from swarm_node.trainer.task import Task

HEAVY = ("cache", "scratch")  # of a home: what can be made again


class Plan:
    """What was decided before anything ran. A second start with other settings is refused."""

    def __init__(self, folder: Path, what: str, settings: dict[str, Any], primary: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file, plan = folder / f"{what}-plan.json", {"primary": primary} | settings
        if file.exists() and (saved := json.loads(file.read_text())) != plan:
            differs = ", ".join(key for key in {**saved, **plan} if saved.get(key) != plan.get(key))
            raise SystemExit(f"{file} was made with other settings ({differs}): use another folder")
        file.write_text(json.dumps(plan, indent=1))
        self.lines = folder / f"{what}.jsonl"

    def done(self) -> list[dict[str, Any]]:
        """The lines so far."""
        return [json.loads(line) for line in self.lines.read_text().splitlines()] if self.lines.exists() else []

    def write(self, line: dict[str, Any]) -> None:
        """One more finished arm."""
        with self.lines.open("a") as out:
            out.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Home:
    """A stopped node, as its ledger shows it."""

    name: str
    author: bytes
    path: Path
    entries: list[Entry]
    frontier: Frontier

    def best(self, work: Task) -> tuple[float, Program] | None:
        """Its own best by its own records: the recorded score, and the program with the steps that were its share."""
        score, record = self.frontier.best_score, self.frontier.best_result
        if score is None:
            return None
        if record is None:
            return score, Program(work.baseline, work.spec.steps)
        assert isinstance(record.body, Result)
        return score, Program(self.source(work, self.frontier.best_program), record.body.steps)

    def way(self, work: Task) -> list[tuple[Result, Program]]:
        """The own kept results that led to its best, in order."""
        out: list[tuple[Result, Program]] = []
        by_id = {entry.record.id: entry.record.body for entry in self.entries}
        for win in self.frontier.lineage:
            body = by_id[win]
            assert isinstance(body, Result)
            out.append((body, Program(self.source(work, body.program), body.steps)))
        return out

    def source(self, work: Task, program: bytes) -> str:
        """The text of a program of its own."""
        with Ledger.open(self.path / "ledger.sqlite3", read_only=True) as ledger:
            source = Programs(ledger, work.baseline).get(program)
        assert source is not None, f"{self.name} lost program {program.hex()[:8]}"
        return source


def read(folder: Path, work: Task) -> Home:
    """The stopped node whose home this is."""
    own = public_key(load(folder / "identity.key"))
    with Ledger.open(folder / "ledger.sqlite3", read_only=True) as ledger:
        entries = list(ledger.all_entries())
    frontier = Frontier(own, work.spec.id, work.spec.baseline)
    for entry in entries:
        frontier.add(entry.record)
    return Home(folder.name, own, folder, entries, frontier)


def union(homes: Iterable[Home]) -> list[Record]:
    """Every record that any of them holds."""
    return list({entry.record.id: entry.record for home in homes for entry in home.entries}.values())


def chosen(homes: Sequence[Home], work: Task) -> tuple[str, float, Program]:
    """The arm's best program by its own records: the lowest recorded own best, never by the text that judges it."""
    found = [(best[0], home.name, best[1]) for home in homes if (best := home.best(work)) is not None]
    score, name, program = min(found, key=lambda one: one[0]) if found else (
        float("nan"), "", Program(work.baseline, work.spec.steps),
    )  # fmt: skip
    return name, score, program


def curve(homes: Sequence[Home], samples: Sequence[Sample], work: Task) -> Curve:
    """The best recorded score against the compute of all."""
    spec = work.spec
    bests = [own_bests(home.entries, home.author, spec.id, spec.baseline) for home in homes]
    return best_curve(bests, [one.ms for one in samples], [one.cpu_s for one in samples])


def compute(nodes: Nodes) -> dict[str, Any]:
    """What the researchers' journals account for, and what the kernel says that their processes took in all."""
    accounts = {one.job.name: one.account for one in nodes.researchers}
    return {
        "cpu_s": round(sum(one.cpu_s for one in accounts.values()), 1),
        "runs_s": round(sum(one.runs_s for one in accounts.values()), 1),
        "runs": sum(one.runs for one in accounts.values()),
        "calibrations": sum(one.calibrations for one in accounts.values()),
        "by_node": {name: round(one.cpu_s, 1) for name, one in accounts.items()},
    }


def usage(nodes: Nodes) -> dict[str, list[float]]:
    """CPU seconds and MiB of each process tree now."""
    return {one.job.name: [round(value, 1) for value in one.use()] for one in nodes.all if not one.died}


def slim(folder: Path) -> None:
    """Leave the ledgers, keys and logs of an arm, and drop what is large and can be made again."""
    for home in folder.iterdir():
        for heavy in HEAVY:
            shutil.rmtree(home / heavy, ignore_errors=True)
