#!/usr/bin/env python3
"""How a latecomer gets a large history and a large text: processes on loopback.

    scripts/bench sync [--records 100000] [--authors 1000] [--megabytes 100]

History: one node has all of it; another one starts with nothing, is killed with SIGKILL when it has 40 %, and goes on.
`slowest`: the longest that the joiner's own event loop waited meanwhile, which is what its experiments would notice.
Text: from one node that has it, then from three at once.
"""

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import structlog
from swarm_node.protocols.canonical import digest, encode
from swarm_node.protocols.records import Environment, Result
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Network, NetworkConfig
from swarm_node.swarm.types import wall_clock_ms

TASK = b"s" * 32


def result(number: int) -> Result:
    """A valid record of about the size of a search's."""
    environment = Environment(hardware="cpu", device="d", system="s", python="3", library="torch")
    values = {
        "task": TASK, "outcome": "discarded", "program": os.urandom(32), "parent": b"p" * 32, "normal": os.urandom(32),
        "title": f"an idea, number {number}", "cause": os.urandom(150).hex(), "proposer": "offline",
        "environment": environment,
    }  # fmt: skip
    return Result.model_validate(values)


def network(seed: int, ledger: Ledger, dial: list[str], shared: dict[str, Path], heard: Any) -> Network:
    """A node on loopback."""
    config = NetworkConfig(
        seed=seed.to_bytes(32, "big"), listen=("/ip4/127.0.0.1/tcp/0",), dial=tuple(dial), task=TASK, shared=shared
    )
    return Network(config, ledger, on_record=heard, on_notice=lambda _: None, on_peers=lambda: None)


async def give(seed: int, path: Path, text: dict[str, Path]) -> None:
    """Have it, and give it, for ever."""
    node = network(seed, Ledger.open(path), [], text, lambda _: None)
    await node.start()
    print(node.addresses()[0], flush=True)
    await node.crashed


async def take(path: Path, address: str, wanted: int, stop_at: int) -> None:
    """Join with what is here, and say how it went when there are `wanted` records; killed when there are `stop_at`."""
    ledger = Ledger.open(path)
    have = before = ledger.count()
    enough = asyncio.Event()

    def heard(_: object) -> None:
        nonlocal have
        have += 1
        if have >= stop_at:
            os.kill(os.getpid(), 9)
        if have >= wanted:
            enough.set()

    slowest = 0.0

    async def feel() -> None:
        nonlocal slowest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            slowest = max(slowest, time.monotonic() - began - 0.01)

    began = time.monotonic()
    node = network(1, ledger, [address], {}, heard)
    await node.start()
    feeling = asyncio.create_task(feel())
    await enough.wait()
    feeling.cancel()
    process = psutil.Process()
    used = process.cpu_times()
    said = {
        "before": before, "seconds": time.monotonic() - began, "cpu": used.user + used.system, "slowest": slowest,
        "rss": process.memory_info().rss, "received": node.statistics().bytes_in, "stored": ledger.count(),
    }  # fmt: skip
    print(json.dumps(said), flush=True)
    await node.stop()


def child(*args: object) -> subprocess.Popen[str]:
    """This script as another process."""
    words = [sys.executable, __file__, "child", *map(str, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    """Its next line; empty when it was killed."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def history(folder: Path, records: int, authors: int) -> None:
    """The first table."""
    began = time.monotonic()
    with Ledger.open(folder / "all.sqlite3") as ledger:
        for author in range(authors):
            bodies = [result(number) for number in range(records // authors)]
            ledger.append_all((1000 + author).to_bytes(32, "big"), bodies, now_ms=wall_clock_ms())
        total = ledger.count()
    print(f"{total} records of {authors} authors, made in {time.monotonic() - began:.0f} s", flush=True)
    giver = child("give", 2, folder / "all.sqlite3")
    try:
        address = line(giver)
        began = time.monotonic()
        first = child("take", folder / "new.sqlite3", address, total, total * 4 // 10)
        assert line(first) == "", "it should have been killed"
        first.wait()
        took = time.monotonic() - began
        second = child("take", folder / "new.sqlite3", address, total, total + 1)
        said = json.loads(line(second))
        assert second.wait() == 0 and said["stored"] == total, said
        new = total - said["before"]
        print(f"  killed after {took:.1f} s with {said['before']} of them on the disk")
        print(
            f"  the other {new} in {said['seconds']:.1f} s: {new / said['seconds']:.0f} a second,"
            f" {said['received'] / new:.0f} bytes each, {said['cpu']:.1f} s of CPU, {said['rss'] / 2**20:.0f} MiB,"
            f" slowest {1e3 * said['slowest']:.0f} ms",
            flush=True,
        )
    finally:
        giver.kill()


async def text(folder: Path, megabytes: int) -> None:
    """The second table."""
    shared = {"train": folder / "train", "confirm": folder / "confirm"}
    shared["train"].write_bytes(os.urandom(megabytes * 1_000_000 * 9 // 10))
    shared["confirm"].write_bytes(os.urandom(megabytes * 1_000_000 // 10))
    corpus = digest(encode({name: digest(path.read_bytes()) for name, path in shared.items()}))
    for count in (1, 3):
        givers = [child("give", 50 + number, folder / f"{count}-{number}.sqlite3", folder) for number in range(count)]
        try:
            addresses = [line(giver) for giver in givers]
            node = network(9, Ledger.open(folder / f"taker-{count}.sqlite3"), addresses, {}, lambda _: None)
            await node.start()
            while len(node.peers()) < count:  # noqa: ASYNC110  # once
                await asyncio.sleep(0.05)
            began = time.monotonic()
            await node.fetch_corpus(corpus, folder / f"got-{count}", lambda *_: None)
            took = time.monotonic() - began
            await node.stop()
            print(f"  {megabytes} MB of text from {count}: {took:.1f} s, {megabytes / took:.1f} MB/s", flush=True)
        finally:
            for giver in givers:
                giver.kill()


def main() -> None:
    """Measure, or be one of the nodes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if sys.argv[1:2] == ["child"]:
        what, *args = sys.argv[2:]
        if what == "give":
            names = ("train", "confirm") if len(args) > 2 else ()
            asyncio.run(give(int(args[0]), Path(args[1]), {name: Path(args[2]) / name for name in names}))
        else:
            asyncio.run(take(Path(args[0]), args[1], int(args[2]), int(args[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--authors", type=int, default=1000)
    parser.add_argument("--megabytes", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-sync-") as folder:
        history(Path(folder), given.records, given.authors)
        asyncio.run(text(Path(folder), given.megabytes))


if __name__ == "__main__":
    main()
