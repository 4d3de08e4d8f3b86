"""What goes in and out of the network: its configuration, its peers and its counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..protocols.records import Hello


def wall_clock_ms() -> int:
    """This machine's clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Timing:
    """Intervals and deadlines in seconds; tests shorten them."""

    heartbeat: float = 1.0  # the spec's; py-libp2p's default is 120
    sync: float = 60.0  # between two syncs with one peer
    sync_gap: float = 1.0  # the least time between two syncs with one peer, whatever the reason
    redial: tuple[float, float] = (1.0, 60.0)  # first and longest pause before dialling a lost peer again
    dial: float = 8.0
    stream: float = 10.0  # for each single answer on a sync or blob stream
    health: float = 30.0  # between pings of each connection, from both ends
    ping: float = 15.0
    exchange: float = 60.0  # between two questions for more peers
    addresses: float = 15.0  # between two looks at what this machine's addresses are


@dataclass(frozen=True)
class Limits:
    """What one author or peer may send before it is ignored."""

    author_burst: int = 250  # gossip messages at once; sync brings whatever was dropped
    author_per_second: float = 1.0
    peer_burst: int = 2000  # messages that one peer forwards, whoever signed them: new identities cost nothing
    peer_per_second: float = 100.0
    author_records: int = 200_000  # that are stored of one author
    author_bytes: int = 512 << 20
    author_epochs: int = 64  # logs of one author; an honest one starts another only when it has lost its ledger
    stored_bytes: int = 8 << 30  # of everybody else's records together; own ones are never refused
    stored_authors: int = 100_000
    new_share: float = 0.25  # of stored bytes and authors, for those first heard of in the last day
    offences: int = 20  # provably invalid messages before a peer is banned
    ban_seconds: float = 600.0
    connections_wanted: int = 8  # to nodes on the own task: with fewer, those who say hello are dialled
    connections: int = 200


@dataclass(frozen=True)
class NetworkConfig:
    """How a node takes part: who it is, where it listens, whom it dials, what it works on."""

    seed: bytes = field(repr=False)
    listen: tuple[str, ...]  # multiaddrs; port 0 means any free one
    dial: tuple[str, ...]  # multiaddrs with /p2p/<peer id>, dialled again for ever
    task: bytes
    shared: Mapping[str, Path] = field(default_factory=dict)  # slices of the text that others may fetch
    key: bytes | None = field(default=None, repr=False)  # 32 bytes of a private swarm: who lacks it cannot connect
    hub: bool = False  # easy to find: keeps a mesh link to many more peers
    bytes_per_second: float | None = None  # each way; None: no cap
    timing: Timing = Timing()
    limits: Limits = Limits()
    clock_ms: Callable[[], int] = wall_clock_ms


@dataclass(frozen=True)
class Peer:
    """A connected peer."""

    author: bytes
    name: str
    address: str  # where it is seen; its port is not one to dial when it dialled us
    since_ms: int
    hello: Hello | None


@dataclass(frozen=True)
class NetworkStatistics:
    """Counters since the start."""

    published: int = 0
    received: int = 0  # valid records over gossip, new or known
    new: int = 0  # stored for the first time, over gossip or sync
    duplicates: int = 0
    dropped: int = 0  # valid, but over the author's rate or the inbox's size; sync brings them later
    refused: int = 0  # valid, but of a quarantined author or over a quota: not stored
    crowded_out: int = 0  # connections closed because there were too many
    equivocations: int = 0
    banned: int = 0
    syncs: int = 0
    sync_failures: int = 0
    synced: int = 0  # records that came over sync and were new
    dials: int = 0
    dial_failures: int = 0
    bytes_out: int = 0  # over TCP
    bytes_in: int = 0
    reached: int = 0  # connections that others opened, not through a relay
    invalid: tuple[tuple[str, int], ...] = ()  # by reason
