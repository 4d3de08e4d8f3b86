"""What a home's node does, who else is known, and the same as figures: read from the ledger, node or no node."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from swarm_node.node import metrics
from swarm_node.node.app import Node, Settings
from swarm_node.node.home import Home
from swarm_node.node.screen import Screen
from swarm_node.node.status import Running
from swarm_node.node.status import peers as everybody
from swarm_node.protocols.errors import NetworkError
from swarm_node.protocols.names import nickname, peer_id
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.types import NetworkStatistics, Peer
from swarm_node.trainer import task as tasks

from .conftest import Command
from .swarms import GPU, KEYS, OTHERS, Swarm


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.locate(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def swarm(home: Home) -> Iterator[Swarm]:
    with Ledger.open(home.ledger) as ledger:
        yield Swarm(ledger)


def says(swarm: Swarm) -> dict[str, object]:
    """What the node of this home tells others while it runs."""
    connected = {
        "author": swarm.ann.author.hex(),
        "name": nickname(swarm.ann.author),
        "address": "/ip4/192.0.2.7/tcp/1",
    }
    said: dict[str, object] = {
        "pid": 77, "started_ms": int(time.time() * 1000) - 3_700_000, "name": nickname(swarm.me.author),
        "role": "research", "task": "gpt-cpu/short", "ideas": "offline proposer   (as asked)",
        "running": [{"lane": 0, "text": "running the idea (screen)", "fraction": 0.4}], "peers": [connected["name"]],
        "connected": [connected], "invite": "swarm1x", "finished": 5, "verified": 2, "avoided": 3,
        "crashes": {"network": 1},
    }  # fmt: skip
    swarm.ledger.set_status(json.dumps(said))
    return said


def test_status_of_a_running_node(swarm: Swarm, home: Home, command: Command) -> None:
    """What it does, since when, with whom; the best of all and its own, each with its state."""
    says(swarm)
    mine = swarm.say(swarm.me, "kept", 1, score=3.0, title="mine")
    theirs = swarm.say(swarm.ann, "kept", 2, score=2.0, title="theirs")
    wrong = swarm.say(swarm.bob, "kept", 3, score=1.0)
    swarm.say(swarm.cid, "kept", 4, 3, score=0.5)  # built on it
    swarm.rerun(swarm.me, wrong, "refuted")
    swarm.rerun(swarm.bob, theirs, "confirmed")
    where = ("--home", str(home.data))
    with home.locked():
        text, said = command("status", *where)[1], json.loads(command("status", "--json", *where)[1])
    assert "process 77, up 1:01:" in text and "running the idea (screen)   40%" in text and "swarm1x" in text
    assert f"{theirs.id.hex()[:8]} {nickname(theirs.author)}   theirs   confirmed by 1" in text
    assert f"{mine.id.hex()[:8]} {nickname(mine.author)}   mine   claimed" in text and "network 1 times" in text
    assert (said["running"], said["node"]["pid"], said["node"]["finished"], said["records"]) == (True, 77, 5, 6)
    assert (said["best"]["score"], said["own_best"]["score"]) == (2.0, 3.0) and said["bytes"] > 0


def test_status_of_a_stopped_or_killed_node(swarm: Swarm, home: Home, command: Command) -> None:
    """Says so, whatever the node said last, with what is in the ledger; the exit code is that of a good answer."""
    says(swarm)
    where = ("--home", str(home.data))
    code, out, _ = command("status", *where)
    assert code == 0 and "not running" in out and "nothing was kept yet" in out and "swarm1x" not in out
    said = json.loads(command("status", "--json", *where)[1])
    assert (said["running"], said["node"], said["best"]) == (False, None, None)
    assert said["name"] == nickname(swarm.me.author)


def test_status_of_an_older_node(swarm: Swarm, home: Home, command: Command) -> None:
    """It does not say since when it runs nor what; what it says more than is known here does not matter either."""
    swarm.ledger.set_status(json.dumps({"pid": 7, "name": "n", "role": "bootstrap", "task": "t", "shoe size": 9}))
    with home.locked():
        code, out, _ = command("status", "--home", str(home.data))
    assert code == 0 and "bootstrap, process 7\n" in out


def test_peers_are_told_with_what_became_of_their_claims(swarm: Swarm, home: Home, command: Command) -> None:
    """Those connected first, with their address; whoever is connected without a record is there too."""
    says(swarm)
    good = swarm.say(swarm.bob, "kept", 1)
    swarm.say(swarm.bob, "discarded", 2)
    bad = swarm.say(swarm.bob, "kept", 3)
    made_up = swarm.say(swarm.cid, "kept", 4)
    swarm.rerun(swarm.ann, good, "confirmed")
    for win, outcome in (
        (swarm.say(swarm.ann, "kept", 5), "confirmed"),
        (good, "confirmed"),
        (bad, "refuted"),
        (made_up, "fabricated"),
    ):
        swarm.rerun(swarm.me, win, outcome)
    where = ("--home", str(home.data))
    with home.locked():
        _, out, err = command("peers", *where)
        said = [json.loads(line) for line in command("peers", "--json", *where)[1].splitlines()]
    assert err == "" and len(out.splitlines()) == 5 and "/ip4/192.0.2.7/tcp/1" in out.splitlines()[1]
    by_author = {bytes.fromhex(one["author"]): one for one in said}
    standings = [by_author[log.author]["standing"] for log in (swarm.me, swarm.ann, swarm.bob, swarm.cid)]
    assert standings == ["this node", "established", "stranger", "quarantined"]
    bob, ann = by_author[swarm.bob.author], by_author[swarm.ann.author]
    assert [bob[name] for name in ("results", "kept", "confirmed", "refuted", "verifications")] == [3, 2, 1, 1, 0]
    assert (ann["connected"], ann["results"], ann["verifications"], bob["connected"]) == (True, 1, 1, False)
    assert "nobody is connected" in command("peers", *where)[2]


def test_a_node_behind_a_relay_says_so(swarm: Swarm, home: Home, command: Command) -> None:
    """Whether others reached it, through whom they can, and by which path a peer is here."""
    relay = f"/ip4/192.0.2.7/tcp/4001/p2p/{peer_id(swarm.ann.author)}/p2p-circuit/p2p/"
    where = ("--home", str(home.data))
    said = says(swarm)
    peer = {"author": swarm.bob.author.hex(), "name": "bob", "address": relay + peer_id(swarm.bob.author)}
    own = relay + peer_id(swarm.me.author)
    with home.locked():
        swarm.ledger.set_status(json.dumps(said | {"reached": 0, "addresses": [own], "connected": [peer]}))
        alone, table = command("status", *where)[1], command("peers", *where)[1]
        swarm.ledger.set_status(json.dumps(said | {"reached": 3, "addresses": [], "private": True}))
        seen = command("status", *where)[1]
    name = nickname(swarm.ann.author)
    assert f"by nobody yet, and through {name}" in alone and f"through {name}" in table and "p2p-circuit" not in table
    assert "yes, by 3 connections of others" in seen and "private" in seen


def test_somebody_without_a_record_is_a_peer_too(swarm: Swarm, home: Home) -> None:
    """Connected a moment ago, nothing found yet."""
    says(swarm)
    with home.locked():
        (who,) = everybody(swarm.board, Running.of(home, swarm.ledger))
    assert (who.author, who.connected, who.last_ms) == (swarm.ann.author, True, 0)


def test_what_a_node_says_of_itself_is_what_others_read(home: Home) -> None:
    """Written as it starts, with who is connected and how, what runs, and since when."""
    before = int(time.time() * 1000)
    screen = Screen(quiet=True)
    screen.busy(0, "running it", 0.5)
    node = Node(Settings(home=home.data), home, screen, "research")
    node.ideas = "offline proposer"
    ann = public_key(KEYS[1])
    peer = Peer(ann, nickname(ann), "/ip4/192.0.2.7/tcp/1", 1, None)
    node.spec = tasks.load("gpt-cpu", "short", bytes(32)).spec
    node.presence.network = SimpleNamespace(  # type: ignore[assignment]
        peers=lambda: (peer,),
        addresses=lambda: (),
        statistics=lambda: NetworkStatistics(reached=2, bytes_out=3_000_000, bytes_in=9),
    )

    async def write_once() -> None:
        written = asyncio.Event()
        loop, keep = asyncio.get_running_loop(), node.ledger.set_status
        node.ledger.set_status = lambda text: (keep(text), loop.call_soon_threadsafe(written.set))  # type: ignore
        writing = asyncio.create_task(node._write_status())
        await asyncio.wait_for(written.wait(), 60)
        writing.cancel()

    with home.locked():
        asyncio.run(write_once())
        found = Running.of(home, node.ledger)
    node.ledger.close()
    assert found is not None and before <= found.started_ms <= time.time() * 1000
    assert (found.role, found.task, found.ideas) == ("research", "gpt-cpu/short", "offline proposer")
    assert list(found.running) == [{"lane": 0, "text": "running it", "fraction": 0.5, "left": None}]
    assert found.reached == 2 and not found.private and (found.sent, found.received) == (3_000_000, 9)
    assert list(found.connected) == [{"author": ann.hex(), "name": nickname(ann), "address": peer.address}]


def test_a_screen_tells_what_runs() -> None:
    """Rounded, so that a status is not written for every step of every lane."""
    screen = Screen(quiet=True)
    screen.busy(1, "running it", 0.4321, 9.0, " (screen)")
    screen.busy(0, "thinking")
    assert screen.activities() == [
        {"lane": 0, "text": "thinking", "fraction": None, "left": None},
        {"lane": 1, "text": "running it (screen)", "fraction": 0.43, "left": 9},
    ]


def figures(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """As Prometheus itself reads them: name and values of the labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    labels = lambda sample: tuple(sample.labels[key] for key in sorted(sample.labels))  # noqa: E731
    return {(sample.name.removeprefix("swarm_node_"), labels(sample)): sample.value for sample in samples}


def test_figures_of_a_running_node(swarm: Swarm, home: Home) -> None:
    """Counters since its start, and the ledger by kind, outcome, track and state."""
    says(swarm)
    swarm.say(swarm.me, "baseline", 0, score=3.25, parent=None)
    claim = swarm.say(swarm.bob, "kept", 1, score=1.5)
    better = swarm.say(swarm.ann, "kept", 2, score=2.0)
    swarm.say(swarm.ann, "kept", 3, score=1.0, environment=GPU)
    swarm.rerun(swarm.me, better, "confirmed")
    with home.locked():
        found = figures(metrics.exposition(home, swarm.ledger, "1.2"))
    track = "gpt-cpu/short on cpu"
    expected = {
        ("up", ()): 1, ("peers", ()): 1, ("experiments_total", ()): 5, ("reruns_total", ()): 2,
        ("avoided_total", ()): 3, ("crashes_total", ("network",)): 1, ("records", ("result", "kept")): 3,
        ("records", ("verification", "confirmed")): 1, ("best_score", ("claimed", track)): 1.5,
        ("best_score", ("confirmed", track)): 2.0, ("baseline_score", (track,)): 3.25,
        ("kept_programs", ("claimed", track)): 1, ("kept_programs", ("refuted", track)): 0,
        ("best_score", ("claimed", "gpt-cpu/short on cuda-sm90")): 1.0, ("tracks", ()): 2,
        ("authors", ("established",)): 1,
        ("info", (nickname(swarm.me.author), "research", "gpt-cpu/short", "1.2")): 1,
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert found["ledger_bytes", ()] > 0 and claim.body.score == 1.5
    assert figures(metrics.exposition(home, swarm.ledger, "1.2"))["up", ()] == 0


def test_labels_of_strangers_are_bounded(swarm: Swarm, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in what is in them: anybody can invent classes of hardware."""
    monkeypatch.setattr(metrics, "_TRACKS", 3)
    swarm.say(swarm.me, "kept", 1)
    for number in range(9):
        odd = GPU.model_copy(update={"hardware": f'"}} {number}\u0378\\n'})
        swarm.say(swarm.bob, "kept", 2, environment=odd, task=OTHERS.id)
    found = figures(metrics.exposition(home, swarm.ledger, "1"))
    tracks = {labels[0] for name, labels in found if name == "results"}
    assert len(tracks) == 3 and "gpt-cpu/short on cpu" in tracks and not any("\u0378" in track for track in tracks)
    assert found["tracks", ()] == 10


def test_figures_are_served_fresh(swarm: Swarm, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """On this machine alone unless told otherwise; each scrape knows the records that came since the last."""
    found = metrics.registry(home, swarm.ledger, "1")
    server, thread = metrics.start_http_server(0, "127.0.0.1", found)
    try:
        url = f"http://127.0.0.1:{server.server_port}/metrics"

        def kept() -> float:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return figures(answer.read().decode()).get(("records", ("result", "kept")), 0)

        assert kept() == 0
        swarm.say(swarm.me, "kept", 1)
        assert kept() == 1
        with pytest.raises(NetworkError, match=f"cannot listen on 127.0.0.1, port {server.server_port}"):
            metrics.serve(home, swarm.ledger, "1", "127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)
    assert isinstance(thread, Thread) and capsys.readouterr().out == ""


def test_a_long_fold_is_not_made_for_every_scrape(swarm: Swarm, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a large ledger takes seconds for may be ten times as old as that; what the node says is always fresh."""
    monkeypatch.setattr(metrics, "_QUICK", 0.0)
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    board = metrics.Board
    made: list[float] = []

    def slow(*args: object) -> object:
        made.append(now[0])
        now[0] += 3.0
        return board(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(metrics, "Board", slow)
    found = metrics.Figures(home, swarm.ledger, "1")
    for when in (100.0, 110.0, 134.0):
        now[0] = when
        swarm.say(swarm.me, "discarded", 1)
        list(found.collect())
    assert made == [100.0, 134.0]


def test_settings_of_join_do_not_open_the_figures_to_the_world(
    swarm: Swarm, home: Home, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host and a port in the config file are those of the node."""
    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(metrics, "serve", lambda *args: heard.append(args[-2:]))
    home.config.write_text('host = "0.0.0.0"\nport = 4001\n')
    monkeypatch.setenv("SWARM_NODE_HOST", "0.0.0.0")
    assert command("metrics", "--serve", "--home", str(home.data))[0] == 0
    assert heard == [("127.0.0.1", 4081)]
