#!/usr/bin/env python3
"""How long the commands that only look take, over a large history: whole processes, from start to exit.

    scripts/bench views [--records 100000] [--authors 1000] [--times 7] [--keep FILE]

The history is one track: every author measured the baseline, 3 % of the rest was kept, 6 % re-runs of what was kept,
a third of the wins were built on others' wins. For each command: seconds of the fastest, the median and the slowest
run, and the CPU seconds of the median one, which a busy machine stretches less (up to 1.7 times). `dash`: from the
start of the server until page and feed are there, and until it has read all and answered for the whole first screen.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from swarm_node.node.tasks import remember
from swarm_node.protocols.records import Body, Environment, Evidence, Record, Result, Run, Verification
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks

TASK = tasks.load("gpt-cpu", "short", bytes(32)).spec
ENVIRONMENT = Environment(
    hardware="cpu", device="AMD EPYC 7B13", system="Linux", python="3.12.3", library="torch 2.13.0"
)
SWARM_NODE = Path(sys.executable).parent / "swarm-node"
_HURRY = 0.3  # seconds, as main.js
CHUNK = 10  # records of an author before another's follow


class History:
    """Records as a search leaves them, of many authors in turn."""

    def __init__(self, ledger: Ledger, authors: int) -> None:
        self._ledger, self._random = ledger, random.Random(1)
        self._seeds = [number.to_bytes(32, "big") for number in range(1, authors + 1)]
        self._wins: list[Record] = []
        self._best = 3.24
        remember(ledger, TASK)
        ledger.journal_put("node", "author", public_key(self._seeds[0]).hex())

    def write(self, count: int) -> None:
        """So many records, the last one now."""
        now = time.time_ns() // 1_000_000 - 60 * count
        for start in range(0, count, CHUNK):
            seed = self._seeds[start // CHUNK % len(self._seeds)]
            first = [self._baseline()] if start // CHUNK < len(self._seeds) else []
            bodies = [*first, *(self._body() for _ in range(CHUNK - len(first)))]
            records = self._ledger.append_all(seed, bodies, now_ms=now + 60 * start)
            self._wins += [one for one in records if isinstance(one.body, Result) and one.body.outcome == "kept"]

    def _body(self) -> Body:
        drawn = self._random.random()
        if drawn < 0.03:
            return self._kept()
        if drawn < 0.09 and self._wins:
            return self._rerun(self._random.choice(self._wins[-50:]))
        gain = -abs(self._random.gauss(0, 0.05))
        return self._result("discarded", gain=gain, score=self._best - gain)

    def _baseline(self) -> Result:
        return self._result("baseline", program=TASK.baseline, parent=None, score=3.24, noise=0.0145)

    def _kept(self) -> Result:
        gain = self._random.expovariate(1 / 0.05)
        self._best *= 0.9997
        on = self._random.choice(self._wins[-50:]) if self._wins else None
        based = {"parent": on.body.program} if on is not None and isinstance(on.body, Result) else {}
        if on is not None and self._random.random() < 1 / 3:
            based["inspired_by"] = (on.id,)
        return self._result(
            "kept", gain=gain, score=self._best, diff=f"--- a/train.py\n{self._random.randbytes(400).hex()}\n",
            evidence=self._evidence(gain), runs=self._runs(gain), **based,
        )  # fmt: skip

    def _rerun(self, win: Record) -> Verification:
        outcome = self._random.choices(("confirmed", "refuted", "inconclusive"), (8, 1, 1))[0]
        e_value, against = {"confirmed": (84.0, 0.01), "refuted": (0.02, 61.0)}.get(outcome, (1.0, 1.0))
        evidence = self._evidence(0.05).model_copy(update={"e_value": e_value, "against": against})
        return Verification(
            task=TASK.id, result=win.id, outcome=outcome, environment=ENVIRONMENT, gain=0.05, evidence=evidence,
            gain_error=0.007, runs=self._runs(0.05),
        )  # fmt: skip

    def _result(self, outcome: str, **fields: object) -> Result:
        name = self._random.randbytes(32)
        base = {
            "task": TASK.id, "outcome": outcome, "program": name, "parent": TASK.baseline, "normal": name,
            "title": f"sweep: LR 0.001 → {self._random.random():.3g}", "tags": (self._random.choice(("lr", "init")),),
            "noise": 0.0145, "steps": 1300, "cost_ratio": 1.0, "proposer": "offline", "environment": ENVIRONMENT,
        }  # fmt: skip
        return Result.model_validate(base | fields)

    def _evidence(self, gain: float) -> Evidence:
        return Evidence(
            pairs=4, required=0.01, low=gain - 0.01, high=gain + 0.01, e_value=131.0, against=0.02, level=0.01
        )

    def _runs(self, gain: float) -> tuple[Run, ...]:
        return tuple(
            Run(
                arm=arm, role="confirm", slice="confirm", seed=self._random.getrandbits(31), steps=1300, draw=index,
                score=score, seconds=22.4, digest=self._random.randbytes(32),
            )
            for index in range(4) for arm, score in (("candidate", 3.0 - gain), ("parent", 3.0))
        )  # fmt: skip


def command(environ: dict[str, str], *words: str) -> None:
    """From its start to its exit."""
    subprocess.run([SWARM_NODE, *words], env=environ, stdout=subprocess.DEVNULL, check=True)


def dash(environ: dict[str, str], *, whole: bool) -> None:
    """From the start of the server until the page and the latest records are there; `whole`: until it has read the
    ledger and answered everything that the first screen asks for."""
    server = subprocess.Popen(
        [SWARM_NODE, "dash", "--port", "0"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip().rstrip("/")
        for part in ("", "style.css", "main.js"):
            _get(f"{address}/{part}")
        news = json.loads(_get(f"{address}/api/news"))
        while not news["ready"] and whole:  # meanwhile the page asks how far it is
            time.sleep(_HURRY)
            news = json.loads(_get(f"{address}/api/news?after={news['row']}"))
        if whole:
            track = json.loads(_get(f"{address}/api/tracks"))[0]["key"]
            for part in (f"tracks/{track}/progress", f"tracks/{track}/board", "nodes"):
                _get(f"{address}/api/{part}")
    finally:
        server.kill()
        server.wait()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and CPU seconds of the processes that it started."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--authors", type=int, default=1000)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="the ledger: made there, or used if it is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-views-") as folder:
        file = Path(folder) / "ledger.sqlite3"
        if given.keep is not None and given.keep.exists():
            shutil.copy(given.keep, file)
        else:
            with Ledger.open(file) as ledger:
                History(ledger, given.authors).write(given.records)
            if given.keep is not None:
                shutil.copy(file, given.keep)
        with Ledger.open(file, read_only=True) as ledger:
            some = next(record for record in ledger.all_records() if getattr(record.body, "outcome", "") == "kept")
            print(f"{ledger.count():,} records, {file.stat().st_size / 2**20:.0f} MiB")
        environ = os.environ | {"SWARM_NODE_HOME": folder}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed copy is compiled once
        print(f"{'':28s}  {'fastest':>7}  {'median':>7}  {'slowest':>7}  {'CPU':>7}")
        looks = ("--help", "feed --last 100 --no-follow", "board", "status", f"show {some.id.hex()[:12]}")
        works = {words: partial(command, environ, *words.split()) for words in looks}
        works |= {"dash: page and feed": partial(dash, environ, whole=False)}
        works |= {"dash: everything": partial(dash, environ, whole=True)}
        for words, work in works.items():
            took = sorted(measured(work) for _ in range(given.times))
            middle = took[len(took) // 2]
            print(
                f"{words:28.28s}  {took[0][0]:7.2f}  {middle[0]:7.2f}  {took[-1][0]:7.2f}  {middle[1]:7.2f}", flush=True
            )


if __name__ == "__main__":
    main()
