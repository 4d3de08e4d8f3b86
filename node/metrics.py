"""`swarm-node metrics`: this home's node in figures, for Prometheus. Read from the ledger alone, at each scrape."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..protocols.errors import NetworkError
from ..swarm.ledger import Ledger
from .board import Board
from .format import clean
from .home import Home
from .status import Running, ledger_bytes, peers, standings
from .tasks import known_tasks

_TRACKS = 20  # with labels of their own: strangers can invent any number of tasks and classes of hardware
_QUICK = 1.0  # seconds
_STATES = ("claimed", "confirmed", "refuted")


class Figures(Collector):
    """Everything that is told. What is counted over all records is counted again only when there is a new one."""

    def __init__(self, home: Home, ledger: Ledger, version: str) -> None:
        self._home, self._ledger, self._version = home, ledger, version
        self._counted: list[Metric] | None = None
        self._count, self._made_at, self._took = 0, 0.0, 0.0

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        yield from self._of_node(Running.of(self._home, self._ledger))
        yield _gauge("ledger_bytes", "Size of the ledger with its log.", ledger_bytes(self._home))
        yield from self._of_records()

    def _of_records(self) -> list[Metric]:
        """Of a ledger for which it takes seconds (100,000 records do), these may be ten times that old."""
        count, age = self._ledger.count(), time.monotonic() - self._made_at
        if self._counted is None or (count != self._count and (self._took < _QUICK or age > 10 * self._took)):
            start = time.monotonic()
            board = Board(self._ledger, known_tasks(self._ledger))
            self._counted = [*_of_ledger(board), *_of_tracks(board)]
            self._count, self._made_at = count, time.monotonic()
            self._took = self._made_at - start
        return self._counted

    def _of_node(self, running: Running | None) -> Iterator[Metric]:
        yield _gauge("up", "Whether a node runs in this home.", running is not None)
        info = {"version": self._version}
        if running is not None:
            info |= {"name": running.name, "role": running.role, "task": running.task}
            yield _gauge("peers", "Peers that are connected now.", len(running.peers))
            if running.started_ms:
                yield _gauge("start_time_seconds", "When the node started, in Unix time.", running.started_ms / 1000)
            for name, value, text in (
                ("experiments", running.finished, "Experiments that this node finished since it started."),
                ("reruns", running.verified, "Re-runs of others' claims since it started."),
                ("sent_bytes", running.sent, "Bytes sent over TCP since it started."),
                ("received_bytes", running.received, "Bytes received over TCP since it started."),
                ("avoided", running.avoided, "Ideas passed over since it started, because a peer tried them."),
            ):
                yield CounterMetricFamily(f"swarm_node_{name}", text, value)
            crashes = CounterMetricFamily(
                "swarm_node_crashes", "Failures of a part, which began again.", labels=["part"]
            )
            for part, count in running.crashes.items():
                crashes.add_metric([clean(part, 32)], count)
            yield crashes
        yield InfoMetricFamily("swarm_node", "This node.", info)


def _of_ledger(board: Board) -> Iterator[Metric]:
    records = _labelled("records", "Records in the ledger.", "kind", "outcome")
    count: Counter[tuple[str, str]] = Counter()
    for _, kind, outcome, number in board.index.counts():
        count[kind, outcome] += number
    for labels, number in sorted(count.items()):
        records.add_metric(labels, number)
    yield records
    authors = _labelled("authors", "Authors of records, by how far this node trusts them.", "standing")
    for standing, number in sorted(standings(peers(board, None)).items()):
        authors.add_metric([standing], number)
    yield authors
    yield _gauge("hidden_results", "Results of quarantined authors, which nothing here counts.", board.hidden)
    if latest := board.index.latest():
        last = min(max(record.time for record in latest) / 1000, time.time())  # its clock may be ahead of ours
        yield _gauge("last_record_time_seconds", "When the latest record was made, by its author's clock.", last)


def _of_tracks(board: Board) -> Iterator[Metric]:
    score = _labelled(
        "best_score",
        "Best score of a track, confirmed or only claimed, of what was not built on refuted work.",
        "track",
        "state",
    )
    start = _labelled("baseline_score", "Median score of the baseline on a track.", "track")
    wins = _labelled("kept_programs", "Programs that were kept on a track, by their state.", "track", "state")
    results = _labelled("results", "Results on a track.", "track")
    for its in board.tracks[:_TRACKS]:
        rows = board.rows(its)
        for state in ("claimed", "confirmed"):
            best = next((row.body.score for row in rows if row.verdict == state and not row.flagged), None)
            if best is not None:
                score.add_metric([its.name, state], best)
        if (plain := its.baseline()) is not None:
            start.add_metric([its.name], plain)
        states = Counter(row.verdict for row in rows)
        for state in _STATES:
            wins.add_metric([its.name, state], states[state])
        results.add_metric([its.name], its.total)
    yield from (score, start, wins, results)
    yield _gauge("tracks", f"Tracks in the ledger; the first {_TRACKS} are told one by one.", len(board.tracks))


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"swarm_node_{name}", text, value)


def _labelled(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"swarm_node_{name}", text, labels=labels)


def registry(home: Home, ledger: Ledger, version: str) -> CollectorRegistry:
    """What Prometheus' own library asks for figures."""
    found = CollectorRegistry(auto_describe=False)
    found.register(Figures(home, ledger, version))
    return found


def exposition(home: Home, ledger: Ledger, version: str) -> str:
    """All figures in Prometheus' text format."""
    return generate_latest(registry(home, ledger, version)).decode()


def serve(home: Home, ledger: Ledger, version: str, host: str, port: int) -> None:
    """Answer scrapes until Ctrl-C; NetworkError when it cannot listen there."""
    try:
        server, thread = start_http_server(port, host, registry(home, ledger, version))
    except OSError as error:
        why = error.strerror or str(error)
        raise NetworkError(
            f"cannot listen on {host}, port {port}", why=why, fix="choose another: --port 4082"
        ) from error
    print(f"http://{host}:{server.server_port}/metrics   (Ctrl-C to stop)", file=sys.stderr, flush=True)
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()
