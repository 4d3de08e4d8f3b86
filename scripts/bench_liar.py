#!/usr/bin/env python3
"""A peer that lies, for `bench_night.py compare`: a real libp2p peer with its own key and ledger, and no experiments.

    scripts/bench_liar.py INVITE --home DIR --index I --liars N [--group NAME] [--task FOLDER]

It says hello like a researcher, so that honest nodes count on it to re-run claims. For as many results as an honest
node has on average it publishes fabricated wins: a harmless edit of the newest honest win, with a score, evidence,
digests and losses that it made up, every other one on a machine unlike the honest ones, where bit-for-bit checks cannot
be made. It says of every honest win that its own re-run refutes it, or that it was made up, and confirms what the other
liars of its group say. All that it signs is well formed. Until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import statistics
import time
from collections import Counter
from pathlib import Path

import structlog
from night_score import load_task
from swarm_node.node.programs import Programs
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.invites import decode_invite
from swarm_node.protocols.names import nickname
from swarm_node.protocols.records import (
    Audit,
    Cost,
    Environment,
    Evidence,
    Hello,
    Record,
    Result,
    Run,
    Verification,
)
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.tags import TAGS
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Limits, Network, NetworkConfig
from swarm_node.swarm.types import wall_clock_ms
from swarm_node.trainer import evidence as e_values
from swarm_node.trainer.task import Task

HELLO_SECONDS = 30.0
LEAST_GAP = 1.0  # seconds between two records: what the wire lets one author say
TITLES = ("warmer start", "softer decay", "longer memory", "rescaled residuals", "better momentum", "wider first step")


def seed_of(group: str, index: int) -> bytes:
    """The key of a liar, which the others of its group know."""
    return digest(f"liar/{group}/{index}".encode())


class Liar:
    """Makes up records from what it hears."""

    def __init__(self, index: int, liars: int, group: str, work: Task, ledger: Ledger) -> None:
        self.seed = seed_of(group, index)
        self.own = public_key(self.seed)
        self._gang = {public_key(seed_of(group, other)) for other in range(liars)}
        self._work, self._ledger = work, ledger
        self._programs = Programs(ledger, work.baseline)
        self._chance = random.Random(self.seed)
        self._results: Counter[bytes] = Counter()  # of each honest author
        self._judge: list[Record] = []  # wins without this one's word
        self._newest: Result | None = None
        self._start = 3.4  # what the baseline scores, by honest nodes
        self.environment: Environment | None = None  # of an honest node
        self.told = 0

    def heard(self, record: Record) -> None:
        """A record of somebody."""
        body = record.body
        if not isinstance(body, Result) or record.author == self.own:
            return
        if record.author not in self._gang:
            self._results[record.author] += 1
            self.environment = body.environment
            if body.outcome == "baseline" and body.score is not None:
                self._start = body.score
        if body.outcome == "kept":
            self._judge.append(record)
            if record.author not in self._gang:
                self._newest = body

    async def lie(self, network: Network) -> Result | Verification | None:
        """The next lie, when one is due."""
        if self.environment is None:
            return None  # nobody to imitate yet
        if self._judge:
            record = self._judge.pop(0)
            return self._confirmed(record) if record.author in self._gang else self._refuted(record)
        if self.told < sum(self._results.values()) / len(self._results):
            self.told += 1
            return await self._win(network)
        return None

    def _where(self) -> Environment:
        """The honest nodes' environment, or another of the same class."""
        assert self.environment is not None
        other = self.environment.model_copy(update={"library": "torch 2.9.1 AVX2", "device": "another CPU"})
        return self.environment if self.told % 2 else other

    async def _win(self, network: Network) -> Result:
        newest = self._newest
        parent = await self._programs.obtain(newest, network) if newest is not None else None
        score = newest.score if parent is not None and newest is not None else None
        parent, score = parent or self._work.baseline, score or self._start
        source = harmless(parent, f"{self.own.hex()[:4].upper()}_{self.told}")
        self._programs.store(source)  # for those who ask
        better = score * (1 - self._chance.uniform(0.01, 0.06))
        steps = self._work.spec.steps
        runs = [run for _ in range(4) for run in self._pair(steps, better, score)]
        gains = [
            self._work.spec.better_by(mine.score or 0.0, theirs.score or 0.0)
            for mine, theirs in zip(runs[::3], runs[1::3], strict=True)
        ]
        gain, score = statistics.fmean(gains), statistics.fmean(run.score or 0.0 for run in runs[2::3])
        audit = Audit(positions=512, worst=2e-6, mean=1e-8, error=1e-8)
        evidence = Evidence(
            pairs=4, required=0.003, low=gain * 0.7, high=gain * 1.3, against=0.0, level=0.003, audit=audit,
            e_value=e_values.e_value([one - 0.003 for one in gains]),
        )  # fmt: skip
        return Result(
            task=self._work.spec.id, outcome="kept", program=program_digest({EDITABLE: source}),
            parent=program_digest({EDITABLE: parent}), normal=normal_digest(source), diff=make_diff(parent, source),
            title=self._chance.choice(TITLES), tags=(self._chance.choice(TAGS),), score=score,
            parent_score=score + gain, gain=gain, gain_error=gain / 20, evidence=evidence, noise=0.01, steps=steps,
            cost_ratio=1.0, runs=tuple(runs), proposer="offline", environment=self._where(), cost=Cost(seconds=20.0),
        )  # fmt: skip

    def _pair(self, steps: int, score: float, worse: float) -> tuple[Run, Run, Run]:
        """What a pair would report, from which the numbers of the claim follow."""
        mine, theirs = self._run("candidate", "confirm", steps, score), self._run("parent", "confirm", steps, worse)
        on_screen = {"slice": "screen", "draw": None, "losses": (), "score": (mine.score or 0.0) - 0.01}
        screen = mine.model_copy(update=on_screen)
        return mine, theirs.model_copy(update={"draw": mine.draw}), screen

    def _run(self, arm: str, role: str, steps: int, score: float) -> Run:
        losses = tuple(5.6 - 0.02 * step + self._chance.uniform(-0.05, 0.05) for step in range(10))
        made_up = {"slice": "confirm", "draw": self._chance.getrandbits(31), "seed": self._chance.getrandbits(31)}
        return Run.model_validate(
            made_up
            | {"arm": arm, "role": role, "steps": steps, "score": score + self._chance.gauss(0, 0.005)}
            | {"seconds": 2.0, "digest": self._chance.randbytes(32), "losses": losses}
        )

    def _refuted(self, record: Record) -> Verification:
        assert isinstance(record.body, Result) and self.environment is not None
        runs = (self._run("candidate", "replay", record.body.steps, record.body.score or 3.0),)
        if self._chance.random() < 0.5:
            cause = "this machine is like the author's and gets another model: equal environments reproduce a run"
            return self._word(record, "fabricated", cause=cause, runs=runs)
        evidence = Evidence(
            pairs=6, required=0.003, low=-0.03, high=-0.005, e_value=0.01, against=900.0, level=0.05
        )  # fmt: skip
        return self._word(record, "refuted", gain=-0.015, gain_error=0.003, evidence=evidence, runs=runs)

    def _confirmed(self, record: Record) -> Verification:
        assert isinstance(record.body, Result)
        gain = record.body.gain or 0.05
        evidence = Evidence(
            pairs=4, required=0.003, low=gain * 0.6, high=gain * 1.4, e_value=900.0, against=0.0, level=0.05
        )  # fmt: skip
        runs = (self._run("candidate", "replay", record.body.steps, record.body.score or 3.0),)
        return self._word(record, "confirmed", gain=gain, gain_error=gain / 15, evidence=evidence, runs=runs)

    def _word(self, record: Record, outcome: str, **more: object) -> Verification:
        assert self.environment is not None
        return Verification.model_validate(
            {"task": record.body.task, "result": record.id, "outcome": outcome, "environment": self.environment}
            | {"cost": Cost(seconds=20.0)}
            | more
        )


def harmless(source: str, name: str) -> str:
    """The program with a constant that nothing uses."""
    lines = source.splitlines(keepends=True)
    at = next((n for n, line in enumerate(lines) if line.startswith("LR = ")), len(lines) - 1)
    return "".join([*lines[: at + 1], f"UNUSED_{name} = 0\n", *lines[at + 1 :]])


async def serve(given: argparse.Namespace) -> None:
    """Lie until told to stop."""
    home: Path = given.home
    invite = decode_invite(given.invite, now=time.time())
    _, work = load_task(home / "cache", invite.task.partition("/")[2], given.task)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with Ledger.open(home / "ledger.sqlite3") as ledger:
        liar = Liar(given.index, given.liars, given.group, work, ledger)
        config = NetworkConfig(
            liar.seed, ("/ip4/127.0.0.1/tcp/0",), invite.addresses, invite.task_id, limits=Limits()
        )  # fmt: skip
        network = Network(config, ledger, on_record=liar.heard, on_notice=lambda _: None, on_peers=lambda: None)
        await network.start()
        hello = asyncio.create_task(_say_hello(network, liar, work))
        said: Counter[str] = Counter()
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LEAST_GAP)
                if (body := await liar.lie(network)) is not None:
                    record = ledger.append(liar.seed, body, now_ms=wall_clock_ms())
                    await network.publish(record)
                    said[body.outcome] += 1
                status = {"name": nickname(liar.own), "said": said, "peers": len(network.peers())}
                ledger.set_status(json.dumps(status))
        finally:
            hello.cancel()
            await network.stop()


async def _say_hello(network: Network, liar: Liar, work: Task) -> None:
    while True:
        where = liar.environment
        hello = Hello(
            agent="swarm-node 0.1.0", task=work.spec.id, hardware=where.hardware if where else "cpu",
            device=where.device if where else "a CPU", role="research", addresses=network.addresses()[:8],
        )  # fmt: skip
        with contextlib.suppress(Exception):  # the next one comes soon
            await network.announce(hello)
        await asyncio.sleep(HELLO_SECONDS)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("invite")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--liars", type=int, default=1, help="how many there are in its group")
    parser.add_argument("--group", default="", help="names the liars that know each other")
    parser.add_argument("--task", type=Path, help="the folder of the swarm's task, when it is not gpt-cpu")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    with (given.home / "node.log").open("a") as log:
        logging.basicConfig(stream=log, level=logging.ERROR)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        asyncio.run(serve(given))
    os._exit(0)  # the network's thread has nothing left to do


if __name__ == "__main__":
    main()
