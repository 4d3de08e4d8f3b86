#!/usr/bin/env python3
"""What attacks on the wire cost a node: honest delivery, its CPU time and memory, beside the same without an attack.

    scripts/bench_wire.py [--seconds 20] [--only NAME ...]

One node in a process of its own, three honest peers that say three records a second each, and one attacker in another
process, all on loopback. `delivered`: honest records that the node stored; p50 and p99: ms from signing to storing;
CPU: of one core; MiB: resident memory at the end, minus at the start. The first and last lines are without attack.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import structlog
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from swarm_node.protocols.records import Environment, Result
from swarm_node.swarm import sync
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Limits, Network, NetworkConfig

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "swarm"))
attacker: Any = importlib.import_module("attacker")  # the stock host that the tests attack with

HONEST, RATE = 3, 3.0  # peers, records a second of each


def main() -> None:
    """Measure, or be one of the processes of a measurement."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if sys.argv[1:2] == ["victim"]:
        asyncio.run(victim(Path(sys.argv[2])))
    elif sys.argv[1:2] == ["attack"]:
        with contextlib.suppress(BaseException):
            ATTACKS[sys.argv[2]](sys.argv[3], float(sys.argv[4]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seconds", type=float, default=20.0)
        parser.add_argument("--only", nargs="*", default=list(ATTACKS))
        given = parser.parse_args()
        print("| attack | delivered | p50 ms | p99 ms | CPU | MiB | dropped | refused | offences | banned | alive |")
        print("|" + " --- |" * 11, flush=True)
        for name in ("none", *given.only, "none"):
            print(asyncio.run(measured(name, given.seconds)), flush=True)


def result(text: str) -> Result:
    """A valid record's body, different each time."""
    environment = Environment(hardware="cpu", device="d", system="s", python="3", library="torch")
    return Result.model_validate(
        {
            "task": attacker.TASK, "outcome": "discarded", "program": os.urandom(32), "parent": b"p" * 32,
            "normal": os.urandom(32), "title": text, "proposer": "offline", "environment": environment,
        }
    )  # fmt: skip


async def victim(path: Path) -> None:
    """The node: prints its address, then at the end its counters."""
    with Ledger.open(path) as ledger:
        network = await started(b"v" * 32, ledger)
        print(network.addresses()[0], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        found = network.statistics()
        counts = {name: getattr(found, name) for name in ("dropped", "refused", "banned")}
        print(json.dumps(counts | {"offences": sum(dict(found.invalid).values()), "alive": not network.crashed.done()}))
        await network.stop()


async def started(seed: bytes, ledger: Ledger, *dial: str) -> Network:
    """A network on a free port of loopback."""
    config = NetworkConfig(seed, ("/ip4/127.0.0.1/tcp/0",), dial, attacker.TASK, limits=Limits())
    network = Network(config, ledger, on_record=_ignore, on_notice=_ignore, on_peers=lambda: None)
    await network.start()
    return network


def _ignore(what: object) -> None: ...


async def measured(name: str, seconds: float) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder)
        node = start("victim", str(path / "victim.ledger"))
        stack.callback(node.kill)
        assert node.stdout is not None
        address = (await asyncio.to_thread(node.stdout.readline)).strip()
        ledgers = [stack.enter_context(Ledger.open(path / f"{n}.ledger")) for n in range(HONEST)]
        peers = [await started(bytes([n + 1]) * 32, ledger, address) for n, ledger in enumerate(ledgers)]
        for peer in peers:
            assert await peer.synced(20)
        await asyncio.sleep(3)  # let the mesh form
        process = psutil.Process(node.pid)
        before, memory = process.cpu_times(), process.memory_info().rss
        if name != "none":
            stack.callback(start("attack", name, address, str(seconds)).kill)
        said: list[bytes] = []
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            for number, (peer, ledger) in enumerate(zip(peers, ledgers, strict=True)):
                now = time.time_ns() // 1_000_000
                record = ledger.append(bytes([number + 1]) * 32, result(f"at {passed}"), now_ms=now)
                await peer.publish(record)
                said.append(record.id)
            await asyncio.sleep(1 / RATE)
        after, grown = process.cpu_times(), process.memory_info().rss - memory
        await asyncio.sleep(3)
        out, _ = await asyncio.to_thread(node.communicate, "\n", 20)
        counts: dict[str, Any] = json.loads(out.splitlines()[-1])
        for peer in peers:
            await peer.stop()
        with Ledger.open(path / "victim.ledger") as ledger:
            entries = {entry.record.id: entry for entry in all_entries(ledger)}
        late = [entries[one].received_ms - entries[one].record.time for one in said if one in entries]
        cpu = (after.user + after.system - before.user - before.system) / seconds
        centiles = statistics.quantiles(late, n=100) if len(late) > 1 else [float("nan")] * 99
        shown = [counts[key] for key in ("dropped", "refused", "offences", "banned", "alive")]
        middle, worst = f"{centiles[49]:.0f}", f"{centiles[98]:.0f}"
        cells = [f"{len(late) / len(said):.1%} of {len(said)}", middle, worst, f"{cpu:.1%}", f"{grown / 2**20:+.0f}"]
        cells = [name, *cells, *map(str, shown)]
        return "| " + " | ".join(cells) + " |"


def all_entries(ledger: Ledger) -> list[Any]:
    """Every entry of a ledger."""
    found: list[Any] = []
    while page := ledger.entries(found[-1].row if found else 0):
        found += page
    return found


def start(*arguments: str) -> subprocess.Popen[str]:
    """This script again, in a role."""
    pipe = subprocess.PIPE
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


# ---- attacks: each lasts for `seconds`, at 200 messages a second or as many connections as it says


def _send(address: str, seconds: float, frames: Any, seed: bytes = attacker.SEED, rate: float = 200.0) -> None:
    """Gossip the frames that the generator `frames` gives, on ever new streams and connections where it is cut off."""
    until = time.monotonic() + seconds

    async def what(host: Any, peer: Any) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(Exception):
                stream = await host.new_stream(peer, [attacker.GOSSIP])
                while time.monotonic() < until:
                    await stream.write(encode_varint_prefixed(next(frames)))
                    await trio.sleep(1 / rate)
            await trio.sleep(0.2)

    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            attacker.attack(address, what, seed=seed, seconds=seconds)
        time.sleep(0.2)


def _said(message: Any) -> bytes:
    return rpc_pb2.RPC(publish=[message]).SerializeToString()


def _garbage(address: str, seconds: float) -> None:
    _send(address, seconds, iter(lambda: os.urandom(300), b""))


def _invalid(address: str, seconds: float) -> None:
    _send(address, seconds, iter(lambda: _said(attacker.message(os.urandom(2000))), b""))


def _oversized(address: str, seconds: float) -> None:
    _send(address, seconds, iter(lambda: _said(attacker.message(os.urandom(200_000))), b""), rate=20)


def _valid(seed: bytes) -> Any:
    """The endless log of one identity."""
    keys, seq, previous = create_new_key_pair(seed), 0, None
    while True:
        seq += 1
        record = attacker.record(seed, result(f"flood {seq}"), epoch=1, seq=seq, prev=previous, time=seq)
        previous = record.id
        yield _said(attacker.message(record.to_bytes(), keys=keys))


def _one_identity(address: str, seconds: float) -> None:
    _send(address, seconds, _valid(attacker.SEED))


def _many_identities(address: str, seconds: float) -> None:
    """20 processes, 20 messages a second each, twice what an author may say."""
    own = [multiprocessing.Process(target=_identity, args=(address, seconds), daemon=True) for _ in range(20)]
    for process in own:
        process.start()
    for process in own:
        process.join()


def _identity(address: str, seconds: float) -> None:
    seed = os.urandom(32)
    _send(address, seconds, _valid(seed), seed=seed, rate=20)


def _new_identities(address: str, seconds: float) -> None:
    def frames() -> Any:
        while True:
            seed = os.urandom(32)
            record = attacker.record(seed, result("new"))
            yield _said(attacker.message(record.to_bytes(), keys=create_new_key_pair(seed)))

    _send(address, seconds, frames())


def _sockets(address: str, seconds: float) -> None:
    """300 sockets that say nothing, opened again when they are closed."""
    port = int(address.split("/")[4])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        time.sleep(5)
        for one in idle:
            one.close()


def _connections(address: str, seconds: float) -> None:
    """300 identities that connect and then say nothing."""

    async def stay(host: Any, peer: Any) -> None:
        await trio.sleep(seconds)

    def one() -> None:
        with contextlib.suppress(BaseException):
            attacker.attack(address, stay, seed=os.urandom(32), seconds=seconds + 5)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(300)]
    for thread in threads:
        thread.start()
        time.sleep(seconds / 600)
    for thread in threads:
        thread.join()


def _questions(address: str, seconds: float) -> None:
    """Sync questions for everything, whose answers are not read, and that claim to know more."""
    until = time.monotonic() + seconds

    async def what(host: Any, peer: Any) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(Exception):
                question = sync._question(b"", b"", {(os.urandom(32), 0): (9, bytes(32))})
                stream = await host.new_stream(peer, [TProtocol(sync.PROTOCOL)])
                await stream.write(len(question).to_bytes(4, "big") + question)
            await trio.sleep(0.05)

    attacker.attack(address, what, seconds=seconds)


ATTACKS = {
    "garbage frames": _garbage,
    "invalid messages": _invalid,
    "oversized messages": _oversized,
    "valid flood, 1 identity": _one_identity,
    "valid flood, 20 identities": _many_identities,
    "a new identity each": _new_identities,
    "300 silent sockets": _sockets,
    "300 idle connections": _connections,
    "unread questions, false claims": _questions,
}

if __name__ == "__main__":
    main()
