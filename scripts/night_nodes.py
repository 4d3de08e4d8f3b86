"""Real node processes for `bench_night.py`: started, watched and stopped, and what their ledgers say meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.types import wall_clock_ms
from swarm_node.trainer.cost import ROUGH_ROUNDS, ROUND_S, ROUNDS

HERE = Path(__file__).resolve().parent
LOCAL = ("--host", "127.0.0.1", "--port", "0")
START_SECONDS = 900.0  # until a node is up, on a machine with many nodes for each core
STOP_SECONDS = 60.0
STOP = threading.Event()  # set when this program is to end: whoever watches nodes stops them


@dataclass(frozen=True)
class Job:
    """One process: who it is and how it is started."""

    name: str
    args: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    honest: bool = True  # else a liar


@dataclass(frozen=True)
class Sample:
    """What the ledgers of all honest nodes together said at one time."""

    ms: int
    cpu_s: float
    finished: int
    verified: int


class Account:
    """The CPU seconds that a node's own journal accounts for, each finished run once.

    All runs are in the journal, recorded or not: screens, pairs, audits, noise, re-runs; those of pairs also as noise.
    Measurements of what a step costs are not timed there, but take ROUND_S a round.
    """

    def __init__(self) -> None:
        self.runs_s = 0.0
        self.runs = self.calibrations = self.rounds = 0
        self._row = 0
        self._seen: set[bytes] = set()

    @property
    def cpu_s(self) -> float:
        return self.runs_s + ROUND_S * self.rounds

    def take(self, rows: Sequence[tuple[int, str, str, str]]) -> None:
        """Take rows of the journal into account: (row, experiment, step, text)."""
        for row, experiment, step, text in rows:
            self._row = max(self._row, row)
            if experiment.startswith("cost-"):  # a budget by whole runs costs no more than these, which are in already
                rounds = {"rough": ROUGH_ROUNDS, "cost": ROUNDS}.get(step, 0)
                self.calibrations += rounds > 0
                self.rounds += rounds
            elif step != "plan" and text.startswith("{") and '"cpu_s"' in text:
                name = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if name not in self._seen:
                    self._seen.add(name)
                    value = json.loads(text)
                    self.runs_s += value["cpu_s"] + value.get("eval_cpu_s", 0.0)
                    self.runs += 1

    def read(self, path: Path) -> None:
        """Take what was journaled since the last time into account."""
        query = "SELECT row, experiment, step, text FROM journal WHERE row > ? ORDER BY row"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
            self.take(db.execute(query, (self._row,)).fetchall())


class Running:
    """One process on a home of its own."""

    def __init__(self, job: Job, home: Path) -> None:
        self.job, self.home = job, home
        home.mkdir(parents=True, exist_ok=True)
        self.account = Account()
        self.status: dict[str, Any] = {}  # the last that it said of itself
        self.started_ms = wall_clock_ms()
        command = [sys.executable, *job.args, "--home", str(home)]
        with (home / "stdout.txt").open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=clean_env() | job.env,
                start_new_session=True,
            )  # fmt: skip

    @property
    def ledger(self) -> Path:
        return self.home / "ledger.sqlite3"

    @property
    def died(self) -> bool:
        return self.process.poll() is not None

    def look(self) -> bool:
        """Read its status and its account; whether it is up."""
        if not self.ledger.exists():
            return False
        try:
            with Ledger.open(self.ledger, read_only=True) as ledger:
                self.status = json.loads(ledger.status() or "{}") or self.status
            self.account.read(self.ledger)
        except Exception:  # it is being created
            if self.status:
                raise
            return False
        return bool(self.status)

    def tell_to_stop(self) -> None:
        """Ctrl-C."""
        if not self.died:
            self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code; killed when it does not leave in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def use(self) -> tuple[float, float]:
        """CPU seconds of its processes and of those that ended below them, and MiB of memory they hold now."""
        cpu = memory = 0.0
        try:
            mother = psutil.Process(self.process.pid)
            for one in (mother, *mother.children(recursive=True)):
                try:
                    cpu += sum(one.cpu_times()[:4])
                    memory += one.memory_full_info().pss / 2**20  # what is shared counts once over all
                except psutil.Error:
                    pass
        except psutil.Error:
            pass
        return cpu, memory


def _pause(seconds: float) -> None:
    if STOP.wait(seconds):
        raise KeyboardInterrupt


def clean_env() -> dict[str, str]:
    """This environment without what could change a node's mind."""
    drop = ("SWARM_NODE_", "OPENAI_", "ATEN_CPU_CAPABILITY")
    return {name: value for name, value in os.environ.items() if not name.startswith(drop)} | {
        "PYTHONUNBUFFERED": "1",
        "SWARM_NODE_LAN": "false",  # arms that run at the same time are different swarms
    }


def bootstrap(size: str, *more: str, start: Path | None = None) -> Job:
    """The node that the others dial. `start`: the folder of a task with another program than gpt-cpu's."""
    return Job("boot", ("-m", "swarm_node.node.cli", "bootstrap", *LOCAL, *_task(size, start), *more))


def _task(size: str, start: Path | None) -> tuple[str, ...]:
    return (*(("--task", str(start)) if start else ()), "--size", size)


def researcher(
    name: str, size: str, seed: int, invite: str | None, verify: float, env: dict[str, str] | None = None,
    start: Path | None = None,
) -> Job:  # fmt: skip
    """A node that does research, alone without an invite."""
    where = ("join", invite, *LOCAL) if invite else ("join", "--solo")
    ideas = ("--proposer", "offline", "--proposer-seed", str(seed), "--verify", str(verify))
    return Job(name, ("-m", "swarm_node.node.cli", *where, *_task(size, start), "--cpus", "1", *ideas), env or {})


def liar(name: str, index: int, liars: int, group: str, invite: str, start: Path | None = None) -> Job:
    """A peer that lies; `group`: names the liars that know each other."""
    who = (str(HERE / "bench_liar.py"), invite, "--index", str(index), "--liars", str(liars), "--group", group)
    return Job(name, (*who, *(("--task", str(start)) if start else ())), honest=False)


class Nodes:
    """All processes of one arm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Running] = []
        self.deaths: dict[str, int] = {}  # exit codes of those that ended unasked
        self._stopping = False

    @property
    def researchers(self) -> list[Running]:
        """The honest nodes that do research."""
        return [one for one in self.all if one.job.honest and one.job.name != "boot"]

    def start(self, jobs: Sequence[Job], at_once: int) -> None:
        """Start these, so many at once, and wait until each is up."""
        waiting = list(jobs)
        coming: list[Running] = []
        deadline = time.monotonic() + START_SECONDS
        while waiting or coming:
            while waiting and len(coming) < at_once:
                job = waiting.pop(0)
                coming.append(Running(job, self.folder / job.name))
                self.all.append(coming[-1])
            _pause(0.5)
            for one in list(coming):
                if one.look():
                    coming.remove(one)
                    deadline = time.monotonic() + START_SECONDS
                elif one.died or time.monotonic() > deadline:
                    text = (one.home / "stdout.txt").read_text(errors="replace")
                    raise RuntimeError(
                        f"{one.job.name} did not start (exit code {one.process.poll()}):\n{text[-3000:]}"
                    )

    def invite(self) -> str:
        """The invite to the swarm of the bootstrap, which is started first."""
        boot = next(one for one in self.all if one.job.name == "boot")
        while not boot.status.get("invite"):
            _pause(0.2)
            boot.look()
        return boot.status["invite"]

    def sample(self) -> Sample:
        """What the ledgers of the researchers say now."""
        for one in self.researchers:
            one.look()
        for one in self.all:
            if one.died and not self._stopping and one.job.name not in self.deaths:
                self.deaths[one.job.name] = one.process.returncode
                print(f"  {one.job.name} ended with exit code {one.process.returncode}", flush=True)
        cpu = sum(one.account.cpu_s for one in self.researchers)
        finished, verified = (
            sum(one.status.get(key, 0) for one in self.researchers) for key in ("finished", "verified")
        )
        return Sample(wall_clock_ms(), round(cpu, 2), finished, verified)

    def watch(
        self, enough: Callable[[Sample], bool], *, every: float, stall: float, also: Callable[[], None] = lambda: None
    ) -> str:
        """Sample into samples.jsonl until there is enough; why it ended.

        stall: seconds without any progress after which nothing is expected to come any more.
        """
        last, moved = 0.0, time.monotonic()
        with (self.folder / "samples.jsonl").open("a") as out:
            while True:
                sample = self.sample()
                out.write(json.dumps(asdict(sample)) + "\n")
                out.flush()
                also()
                if enough(sample):
                    return "enough"
                if all(one.died for one in self.researchers):
                    return "all nodes ended"
                if sample.cpu_s != last:
                    last, moved = sample.cpu_s, time.monotonic()
                if time.monotonic() - moved > stall:
                    return f"no progress in {stall:.0f} s"
                _pause(every)

    def stop(self) -> None:
        """Ctrl-C for all, and wait."""
        self._stopping = True
        for one in self.all:
            if not one.died:
                one.tell_to_stop()
        for one in self.all:
            one.wait()


@contextmanager
def running(folder: Path) -> Iterator[Nodes]:
    """Processes on homes in `folder`, none of which outlives this."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.stop()


def samples(folder: Path) -> list[Sample]:
    """What was sampled in an arm."""
    return [Sample(**json.loads(line)) for line in (folder / "samples.jsonl").read_text().splitlines()]
