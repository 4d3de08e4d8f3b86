"""`status` and `peers`: what the node of this home does now, and who else is known, read from the ledger alone."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..protocols.names import author_of, nickname
from ..protocols.task import TaskSpec
from ..swarm.ledger import Ledger
from .board import Board, Row
from .format import clean, counted, duration
from .home import Home


@dataclass(frozen=True)
class Running:
    """What the running node said of itself last; all empty when none runs."""

    pid: int = 0
    name: str = ""
    role: str = ""
    task: str = ""
    ideas: str = ""
    invite: str = ""
    started_ms: int = 0  # 0: an older version, which does not say
    finished: int = 0
    verified: int = 0
    avoided: int = 0
    crashes: dict[str, int] = field(default_factory=dict)
    peers: Sequence[str] = ()
    reached: int | None = None  # connections that others opened to it; None: an older version, which does not say
    sent: int = 0  # bytes since it started
    received: int = 0
    addresses: Sequence[str] = ()  # at which it can be dialled, as far as it knows
    private: bool = False
    connected: Sequence[dict[str, str]] = ()  # author in hex, name, address
    running: Sequence[dict[str, Any]] = ()  # lane, text, fraction

    @classmethod
    def of(cls, home: Home, ledger: Ledger) -> Running | None:
        """None when no node runs: what a killed one said last says nothing."""
        text = ledger.status()
        if not text or not home.is_in_use():
            return None
        said = json.loads(text)
        return cls(**{name: said[name] for name in cls.__dataclass_fields__ if name in said})

    @property
    def uptime(self) -> float | None:
        """Seconds, by this machine's clock."""
        return max(0.0, time.time() - self.started_ms / 1000) if self.started_ms else None


@dataclass(frozen=True)
class Best:
    """The best program of a track, with what is thought of it."""

    id: bytes
    name: str  # whose
    score: float
    gain_error: float | None
    title: str
    state: str

    @classmethod
    def of(cls, row: Row | None) -> Best | None:
        """The row of the board in short."""
        if row is None or row.body.score is None:
            return None
        body = row.body
        who = nickname(row.record.author)
        return cls(row.record.id, who, row.body.score, body.gain_error, clean(body.title), row.state)


@dataclass(frozen=True)
class Status:
    """What there is to say."""

    node: Running | None
    name: str  # of the node whose home this is; empty when none ever ran
    track: str
    metric: str
    best: Best | None
    own_best: Best | None
    records: int
    authors: int
    bytes: int

    @classmethod
    def read(cls, home: Home, ledger: Ledger, known: dict[bytes, TaskSpec]) -> Status:
        """Look at the ledger."""
        board = Board(ledger, known)
        its = board.tracks[0] if board.tracks else None
        own = board.views.own
        by_author = ledger.stored_by_author()
        return cls(
            Running.of(home, ledger),
            nickname(own) if own else "",
            its.name if its else "",
            its.spec.metric if its and its.spec else "",
            Best.of(board.best(its)) if its else None,
            Best.of(board.best(its, own)) if its and own else None,
            sum(count for _, count, _ in by_author.values()),
            len(by_author),
            ledger_bytes(home),
        )

    def lines(self) -> list[str]:
        """For a reader."""
        node = self.node
        items = [
            ("node", f"{self.name or 'none yet'}   not running   (start it: swarm-node join)"),
            ("task", self.track),
        ]
        if node is not None:
            up = f", up {duration(node.uptime)}" if node.uptime is not None else ""
            since = "since it started" if node.started_ms else "so far"
            items = [
                ("node", f"{node.name}   {node.role}, process {node.pid}{up}"),
                ("task", node.task),
                ("ideas", node.ideas),
                *(("" if number else "now", _activity(one)) for number, one in enumerate(node.running)),
                ("peers", f"{len(node.peers)} connected" + (": " if node.peers else "") + ", ".join(node.peers)),
                ("reached", _reached(node)),
                ("traffic", f"{node.received / 1e6:.1f} MB in, {node.sent / 1e6:.1f} MB out   ({since})"),
                ("swarm", "private" if node.private else ""),
                ("finished", f"{node.finished} experiments, {node.verified} re-runs of others' claims   ({since})"),
                ("avoided", f"{node.avoided} ideas that peers tried or are trying" if node.avoided else ""),
                ("restarted", ", ".join(f"{part} {count} times" for part, count in node.crashes.items())),
            ]
        known = f"{counted(self.records, 'record')} of {counted(self.authors, 'node')}"
        own = self.own_best if self.own_best != self.best else None
        items += [
            ("best", self._told(self.best)),
            ("own best", self._told(own) if own is not None else ""),
            ("ledger", f"{known}, {self.bytes / 1e6:.1f} MB"),
            ("invite", node.invite if node is not None else ""),
        ]
        return [f"  {label:<10} {text}" for label, text in items if text]

    def _told(self, best: Best | None) -> str:
        if best is None:
            return "nothing was kept yet"
        error = f" ± {best.gain_error:.4f}" if best.gain_error is not None else ""
        score = f"{best.score:.4f}{error} {clean(self.metric, 16)}".rstrip()
        return f"{score}   {best.id.hex()[:8]} {best.name}   {clean(best.title, 60)}   {best.state}"


@dataclass
class Known:
    """An author of records in the ledger, or somebody connected now."""

    author: bytes
    name: str
    standing: str  # this node, established, stranger, quarantined
    connected: bool = False
    address: str = ""  # by which it is connected; empty when the node does not say
    results: int = 0
    kept: int = 0
    confirmed: int = 0  # of those kept, by others' re-runs
    refuted: int = 0
    verifications: int = 0
    last_ms: int = 0  # its clock at its last record; 0: there is none


def peers(board: Board, running: Running | None) -> list[Known]:
    """Everybody, those connected first, then by their last record."""
    views = board.views
    established, gone = views.established, views.quarantined
    found: dict[bytes, Known] = {}

    def known(author: bytes) -> Known:
        if author not in found:
            standing = "established" if author in established else "stranger"
            standing = "quarantined" if author in gone else "this node" if author == views.own else standing
            found[author] = Known(author, nickname(author), standing)
        return found[author]

    for author, kind, outcome, count in board.index.counts():
        who = known(author)
        who.results += count if kind == "result" else 0
        who.verifications += count if kind == "verification" else 0
        who.kept += count if outcome == "kept" else 0
    for record in board.index.all_kept():
        state = views.opinion(record).state
        known(record.author).confirmed += state == "confirmed"
        known(record.author).refuted += state == "refuted"
    for record in board.index.latest():
        known(record.author).last_ms = record.time
    for one in running.connected if running is not None else ():
        who = known(bytes.fromhex(one["author"]))
        who.connected, who.address = True, one.get("address", "")
    return sorted(found.values(), key=lambda who: (not who.connected, -who.last_ms, who.author))


def peer_lines(everybody: Sequence[Known], now_ms: int) -> Iterator[str]:
    """A table for a reader."""
    yield (
        f"{'name':<14} {'standing':<11} {'results':>7} {'kept':>5} {'confirmed':>9} {'refuted':>7} {'re-runs':>7} "
        f"{'last record':>11}  connected"
    )
    for who in everybody:
        age = _age(now_ms - who.last_ms) if who.last_ms else "none"
        here = (_path(who.address) or "yes") if who.connected else ""
        yield (
            f"{who.name:<14} {who.standing:<11} {who.results:>7} {who.kept:>5} {who.confirmed:>9} {who.refuted:>7} "
            f"{who.verifications:>7} {age:>11}  {clean(here)}"
        ).rstrip()


def standings(everybody: Sequence[Known]) -> Counter[str]:
    """How many there are of each standing."""
    return Counter(who.standing for who in everybody)


def ledger_bytes(home: Home) -> int:
    """The size of the ledger with its log."""
    files = (home.ledger.with_name(home.ledger.name + end) for end in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _age(milliseconds: int) -> str:
    seconds = max(0, milliseconds) / 1000  # its clock may be ahead of ours
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _path(address: str) -> str:
    """How a peer is connected: its address, or the name of the relay between."""
    relay, through, _ = address.partition("/p2p-circuit")
    return f"through {_name_in(relay)}" if through else address


def _name_in(address: str) -> str:
    """What the peer at the end of an address is called."""
    try:
        return nickname(author_of(address.rsplit("/", 1)[1]))
    except (IndexError, ValueError):
        return "a relay"


def _reached(node: Running) -> str:
    """Whether others can dial a node, as far as can be told."""
    if node.reached is None:
        return ""
    relays = [_path(address) for address in node.addresses if "/p2p-circuit" in address]
    also = f", and {' and '.join(relays)}" if relays else ""
    if node.reached:
        return f"yes, by {counted(node.reached, 'connection')} of others{also}"
    return f"by nobody yet{also or ', and no relay: peers are dialled from here'}"


def _activity(one: dict[str, Any]) -> str:
    done = f"   {one['fraction']:.0%}" if one.get("fraction") is not None else ""
    return clean(str(one.get("text", ""))) + done
