#!/usr/bin/env python3
"""What the network does on hosts of their own: delivery, partitions, loss, killed nodes, clocks, churn, hours.

    scripts/bench network growth [--nodes 2 5 10 20 35] [--seconds 60]
    scripts/bench network faults [--nodes 8] [--seconds 120] [--only partition loss killed moved clocks]
    scripts/bench network churn  [--nodes 8] [--minutes 60]
    scripts/bench network soak   [--nodes 4] [--minutes 120]

Every node is a process in a network namespace with an address of its own (root, iproute2 and nftables needed), behind
a link that loses --loss % and takes --delay ms there and back, a quarter more or less. All know the first one, which is
a hub; the rest they find out. Together they write --rate records a second, as large as those of a search. The clock is
one, so times are from signing on one host to the ledger of another. `delivered`: of all (record, other node) pairs,
after at most 30 s of rest. `bytes`: sent by all nodes over TCP, for each record that came to one. `CPU`: of one core,
per node. `alike`: seconds from the end of the fault (and of writing) until every node has the same set of records.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import structlog
from slow_switch import SlowSwitch
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.records import Environment, Hello, Result
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Network, NetworkConfig

TASK = b"n" * 32
FAULTS = ("partition", "loss", "killed", "moved", "clocks")
REST = 30.0


# ---- one node


def result(size: int = 1500) -> Result:
    """A valid record of about the size of a search's."""
    environment = Environment(hardware="cpu", device="d", system="s", python="3", library="torch")
    values = {
        "task": TASK, "outcome": "discarded", "program": os.urandom(32), "parent": b"p" * 32, "normal": os.urandom(32),
        "title": os.urandom(32).hex(), "cause": os.urandom(min(size // 8, 200)).hex(), "proposer": "offline",
        "environment": environment,
    }  # fmt: skip
    return Result.model_validate(values)


async def peer(config: dict[str, Any]) -> None:
    """A node without research; it is told what to do line by line, and says what it sees as JSON."""
    ledger = Ledger.open(Path(config["ledger"]))
    seed, offset = bytes.fromhex(config["seed"]), config["clock_ms"]
    clock = lambda: time.time_ns() // 1_000_000 + offset  # noqa: E731
    known: set[bytes] = {entry.record.id for entry in ledger.all_entries()}
    met = asyncio.Event()

    def say(**words: Any) -> None:
        print(json.dumps(words), flush=True)

    def heard(record: Any) -> None:
        known.add(record.id)
        say(got=record.id.hex()[:16], at=time.monotonic())

    def peers() -> None:
        if not met.is_set() and network.peers():
            met.set()
            say(met=time.monotonic() - began)

    network = Network(
        NetworkConfig(
            seed=seed, listen=(f"/ip4/{config['host']}/tcp/4001",), task=TASK, hub=config["hub"], clock_ms=clock,
            dial=(*config["dial"], *ledger.remembered_peers(16)),
        ),
        ledger, on_record=heard, on_notice=lambda _: None, on_peers=peers,
    )  # fmt: skip
    began = time.monotonic()
    await network.start()
    say(address=network.addresses()[0])
    rate = config["rate"]
    process = psutil.Process()

    async def write() -> None:
        while True:
            await asyncio.sleep(random.expovariate(rate) if rate else 0.2)
            if rate:
                record = ledger.append(seed, result(), now_ms=clock())
                known.add(record.id)
                say(wrote=record.id.hex()[:16], at=time.monotonic())
                await network.publish(record)

    async def hello() -> None:
        while True:
            body = Hello(
                agent="bench", task=TASK, hardware="cpu", device="d", role="research", addresses=network.addresses()
            )
            with contextlib.suppress(Exception):
                await network.announce(body)
            await asyncio.sleep(30)

    tasks = [asyncio.create_task(write()), asyncio.create_task(hello())]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode():
        if line.startswith("rate"):
            rate = float(line.split()[1])
        elif line.startswith("state"):
            used, counts = process.cpu_times(), network.statistics()
            say(
                state=digest(b"".join(sorted(known))).hex()[:16], records=len(known), cpu=used.user + used.system,
                rss=process.memory_info().rss, descriptors=process.num_fds(), peers=len(network.peers()),
                out=counts.bytes_out, back=counts.bytes_in, invalid=dict(counts.invalid), dials=counts.dials,
                failed=counts.dial_failures, syncs=counts.syncs, sync_failures=counts.sync_failures,
            )  # fmt: skip
    for task in tasks:
        task.cancel()
    await network.stop()
    ledger.close()


# ---- hosts


def do(*command: str, say: str | None = None) -> None:
    """Run a command; what it says when it fails."""
    done = subprocess.run(command, input=say, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


class Node:
    """A host and the node on it."""

    def __init__(self, lab: "Lab", number: int, clock_ms: int = 0) -> None:
        self.lab, self.number, self.clock_ms = lab, number, clock_ms
        self.space = f"bench-{os.getpid()}-{number}"
        self.host = f"10.77.{number // 200}.{number % 200 + 10}"
        self.process: asyncio.subprocess.Process | None = None
        self.wrote: dict[str, float] = {}
        self.got: dict[str, float] = {}
        self.met = 0.0
        self.address = ""
        self._states: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        do("ip", "netns", "add", self.space)
        do("ip", "-n", self.space, "link", "set", "lo", "up")
        if lab.slow:
            lab.slow.plug(device := f"b{number}-{os.getpid()}")
            do("ip", "link", "set", device, "name", "eth", "netns", self.space)
        else:
            ends = ("eth", "netns", self.space, "type", "veth", "peer", "name", f"b{number}", "netns", lab.switch)
            do("ip", "link", "add", *ends)
            do("ip", "-n", lab.switch, "link", "set", f"b{number}", "up", "master", "switch")
        do("ip", "-n", self.space, "link", "set", "eth", "up")
        do("ip", "-n", self.space, "addr", "add", f"{self.host}/16", "dev", "eth")
        self.hear(lab.loss)

    def hear(self, loss: float, apart: "Sequence[Node]" = ()) -> None:
        """Of what comes in, lose `loss` %, and everything from the hosts `apart`."""
        rules = [f"meta l4proto tcp numgen random mod 1000 < {round(10 * loss)} drop"] if loss else []
        if apart:
            rules.append(f"ip saddr {{ {', '.join(other.host for other in apart)} }} drop")
        chain = ("chain in {", "type filter hook input priority 0", *rules, "}")
        lines = ("flush ruleset", "table ip links {", *chain, "}")
        do("ip", "netns", "exec", self.space, "nft", "-f", "-", say="\n".join(lines))

    def move(self, host: str) -> None:
        """To another address."""
        do("ip", "-n", self.space, "addr", "del", f"{self.host}/16", "dev", "eth")
        self.host = host
        do("ip", "-n", self.space, "addr", "add", f"{self.host}/16", "dev", "eth")

    async def start(self, dial: Sequence[str], rate: float) -> None:
        """Until it listens."""
        config = {
            "ledger": str(self.lab.folder / f"{self.number}.sqlite3"), "seed": self.number.to_bytes(32, "big").hex(),
            "host": self.host, "dial": list(dial), "hub": self.number == 0, "rate": rate, "clock_ms": self.clock_ms,
        }  # fmt: skip
        self.process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.space, sys.executable, __file__, "peer", json.dumps(config),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        listens = asyncio.Event()
        self.lab.keep(self._read(self.process, listens))
        await asyncio.wait_for(listens.wait(), 120)

    async def _read(self, process: asyncio.subprocess.Process, listens: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said = json.loads(line)
            if "got" in said:
                self.got.setdefault(said["got"], said["at"])
            elif "wrote" in said:
                self.wrote[said["wrote"]] = said["at"]
            elif "met" in said:
                self.met = said["met"]
            elif "address" in said:
                self.address = said["address"]
                listens.set()
            else:
                self._states.put_nowait(said)

    def tell(self, words: str) -> None:
        """One line."""
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{words}\n".encode())

    async def state(self) -> dict[str, Any]:
        """What it has and what it costs."""
        self.tell("state")
        return await asyncio.wait_for(self._states.get(), 60)

    async def kill(self) -> None:
        """As a power cut."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


class Lab:
    """Hosts at one switch."""

    def __init__(self, folder: Path, delay: float, loss: float) -> None:
        self.folder, self.loss = folder, loss
        self.slow = SlowSwitch(delay) if delay else None
        self.nodes: list[Node] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.switch = f"bench-{os.getpid()}-switch"
        do("ip", "netns", "add", self.switch)
        do("ip", "-n", self.switch, "link", "add", "switch", "type", "bridge")
        do("ip", "-n", self.switch, "link", "set", "switch", "up")

    def keep(self, work: Any) -> None:
        """Run it beside."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def open(self, count: int, rate: float, clocks: Sequence[int] = ()) -> None:
        """So many nodes, which write `rate` records a second together."""
        for number in range(count):
            self.nodes.append(Node(self, number, clocks[number] if number < len(clocks) else 0))
        await self.nodes[0].start((), rate / count)
        for some in range(1, count, 4):  # imports take a core each
            few = self.nodes[some : some + 4]
            await asyncio.gather(*(node.start([self.nodes[0].address], rate / count) for node in few))

    async def settled(self) -> None:
        """Until nobody has met anybody for ten seconds and meshes have had their time: two minutes at most."""
        met: list[int] = []
        for _ in range(12):
            await asyncio.sleep(10)
            states = await asyncio.gather(*(node.state() for node in self.nodes))
            if met == (met := [state["peers"] for state in states]):
                return
        print(f"  still meeting: {met}", flush=True)

    def close(self) -> None:
        """Nothing is left."""
        for node in self.nodes:
            if node.process is not None and node.process.returncode is None:
                node.process.kill()
        for space in (*(node.space for node in self.nodes), self.switch):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        if self.slow:
            self.slow.close()

    def tell(self, words: str) -> None:
        for node in self.nodes:
            node.tell(words)

    async def alike(self, seconds: float = 120) -> tuple[float, int]:
        """Seconds until every node has the same set, and how many records it has; -1: not within `seconds`."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            states = await asyncio.gather(*(node.state() for node in self.nodes))
            if len({state["state"] for state in states}) == 1:
                wrote = sum(len(node.wrote) for node in self.nodes)
                missing = wrote - states[0]["records"]
                if missing > 0:  # said to be written, and nowhere: must not be
                    print(f"  {missing} records lost", flush=True)
                return time.monotonic() - began, states[0]["records"]
            await asyncio.sleep(0.2)
        return -1.0, min(state["records"] for state in states)

    def delivery(self, since: float = 0.0) -> tuple[float, list[float]]:
        """The share of (record, other node) pairs that arrived, and their times in ms."""
        wrote = {key: (node, at) for node in self.nodes for key, at in node.wrote.items() if at >= since}
        times = [
            1e3 * (node.got[key] - at)
            for key, (author, at) in wrote.items()
            for node in self.nodes
            if node is not author and key in node.got
        ]
        return len(times) / max(1, len(wrote) * (len(self.nodes) - 1)), times


def quantile(values: list[float], share: float) -> float:
    """Of the sorted values; NaN of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


# ---- what is measured


async def growth(lab: Lab, count: int, rate: float, seconds: float) -> None:
    """One line of the table."""
    await lab.open(count, 0.0)
    await lab.settled()
    lab.tell(f"rate {rate / count}")
    before = await asyncio.gather(*(node.state() for node in lab.nodes))
    began = time.monotonic()
    await asyncio.sleep(seconds)
    lab.tell("rate 0")
    alike, _ = await lab.alike(REST)
    took = time.monotonic() - began
    after = await asyncio.gather(*(node.state() for node in lab.nodes))
    delivered, times = lab.delivery()
    arrived = max(1, len(times))
    spent = [(new["cpu"] - old["cpu"]) / took for old, new in zip(before, after, strict=True)]
    sent = sum(new["out"] - old["out"] for old, new in zip(before, after, strict=True))
    print(
        f"{count:5d}  {delivered:9.2%}  {quantile(times, 0.5):7.0f}  {quantile(times, 0.99):7.0f}  {alike:6.1f}"
        f"  {statistics.mean(spent):6.1%}  {max(spent):6.1%}  {max(one['rss'] for one in after) / 2**20:6.0f}"
        f"  {sent / arrived:7.0f}  {statistics.median(node.met for node in lab.nodes if node.met):6.2f}",
        flush=True,
    )


async def fault(lab: Lab, name: str, count: int, rate: float, seconds: float) -> None:
    """One fault, while everybody writes."""
    minutes = 60_000
    clocks = [0, 2 * 60 * minutes, -2 * 60 * minutes, 20 * minutes] if name == "clocks" else []
    await lab.open(count, rate, clocks)
    await asyncio.sleep(15)
    half = count // 2
    if name == "partition":
        for node in lab.nodes:
            node.hear(lab.loss, lab.nodes[half:] if node.number < half else lab.nodes[:half])
        await asyncio.sleep(seconds)
        apart = {(await node.state())["state"] for node in (lab.nodes[0], lab.nodes[-1])}
        assert len(apart) == 2, "the halves were not apart"
        for node in lab.nodes:
            node.hear(lab.loss)
    elif name == "loss":
        for node in lab.nodes:
            node.hear(10.0)
        await asyncio.sleep(seconds)
        for node in lab.nodes:
            node.hear(lab.loss)
    elif name == "killed":
        victims = random.Random(1).sample(lab.nodes[1:], round(0.3 * count))
        for node in victims:
            await node.kill()
        await asyncio.sleep(seconds)
        for node in victims:
            await node.start([lab.nodes[0].address], rate / count)
    elif name == "moved":
        hub = lab.nodes[0]
        await hub.kill()
        await asyncio.sleep(seconds / 2)
        hub.move("10.77.250.250")
        await hub.start([], rate / count)  # remembers whom it knew
        await asyncio.sleep(seconds / 2)
    else:
        await asyncio.sleep(seconds)
    lab.tell("rate 0")
    alike, records = await lab.alike()
    invalid = {reason for node in lab.nodes for reason in (await node.state())["invalid"]}
    told = f"   refused: {', '.join(sorted(invalid))}" if invalid else ""
    print(f"{name:10s}  {count:5d}  {records:7d}  {alike:6.1f}{told}", flush=True)


async def churn(lab: Lab, count: int, rate: float, minutes: float) -> None:
    """Somebody is killed about every ten seconds and comes back after about twenty."""
    await lab.open(count, rate)
    chance, deaths, end = random.Random(1), 0, time.monotonic() + 60 * minutes
    away: set[Node] = set()
    back: list[asyncio.Task[None]] = []

    async def die(node: Node) -> None:
        away.add(node)
        await node.kill()
        await asyncio.sleep(chance.expovariate(1 / 20))
        await node.start([lab.nodes[0].address] if node.number else [], rate / count)
        away.discard(node)

    while time.monotonic() < end:
        await asyncio.sleep(chance.expovariate(1 / 10))
        node = chance.choice(lab.nodes)
        if node not in away and len(away) < count // 2:
            deaths += 1
            back.append(asyncio.create_task(die(node)))
    await asyncio.gather(*back)
    lab.tell("rate 0")
    alike, records = await lab.alike()
    print(
        f"{count} nodes, {minutes:.0f} minutes, {deaths} killed and back: {records} records, alike after {alike:.1f} s"
    )


async def soak(lab: Lab, count: int, rate: float, minutes: float) -> None:
    """What a node holds, every so often."""
    await lab.open(count, rate)
    began = time.monotonic()
    print(f"{'min':>5}  {'records':>7}  {'MiB':>11}  {'descriptors':>11}  {'CPU':>6}", flush=True)
    spent, at = 0.0, began
    while (passed := (time.monotonic() - began) / 60) < minutes:
        await asyncio.sleep(min(600.0, 60 * minutes / 12))
        states = await asyncio.gather(*(node.state() for node in lab.nodes))
        memory = [state["rss"] / 2**20 for state in states]
        used, now = sum(state["cpu"] for state in states) / count, time.monotonic()
        descriptors = [state["descriptors"] for state in states]
        print(
            f"{(now - began) / 60:5.0f}  {states[0]['records']:7d}  {min(memory):5.0f}-{max(memory):<5.0f}"
            f"  {min(descriptors):5d}-{max(descriptors):<5d}  {(used - spent) / (now - at):6.1%}",
            flush=True,
        )
        spent, at = used, now
    lab.tell("rate 0")
    alike, records = await lab.alike()
    print(f"{count} nodes, {passed:.0f} minutes: {records} records, alike after {alike:.1f} s")


async def measure(given: argparse.Namespace) -> None:
    """Lab after lab."""

    async def inside(work: Any, *args: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-network-") as folder:
            lab = Lab(Path(folder), given.delay, given.loss)
            try:
                await work(lab, *args)
            finally:
                lab.close()

    print(f"link {given.delay:.0f} ms, {given.loss:.1f} % lost; {given.rate} records a second together", flush=True)
    if given.what == "growth":
        heads = ("nodes", "delivered", "p50 ms", "p99 ms", "alike", "CPU", "most", "MiB", "bytes", "met s")
        print("  ".join(f"{head:>{width}}" for head, width in zip(heads, (5, 9, 7, 7, 6, 6, 6, 6, 7, 6), strict=True)))
        for count in given.nodes or (2, 5, 10, 20, 35):
            await inside(growth, count, given.rate, given.seconds or 60)
    elif given.what == "faults":
        print(f"{'fault':10s}  {'nodes':>5}  {'records':>7}  {'alike':>6}")
        for name in given.only:
            await inside(fault, name, (given.nodes or [8])[0], given.rate, given.seconds or 120)
    elif given.what == "churn":
        await inside(churn, (given.nodes or [8])[0], given.rate, given.minutes or 60)
    else:
        await inside(soak, (given.nodes or [4])[0], given.rate, given.minutes or 120)


def main() -> None:
    """Measure, or be one of the nodes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if sys.argv[1:2] == ["peer"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asyncio.run(peer(json.loads(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("growth", "faults", "churn", "soak"))
    parser.add_argument("--nodes", type=int, nargs="*")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--only", nargs="*", choices=FAULTS, default=FAULTS)
    if os.geteuid() or not all(map(shutil.which, ("ip", "tc", "nft"))):
        sys.exit("needs root, iproute2 and nftables, for hosts with addresses of their own")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no host is left behind
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
