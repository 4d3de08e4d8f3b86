"""What `bench_night.py` works out of records and samples. Pure functions of numbers and records."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarm_node.node.group import NAME as GROUP
from swarm_node.protocols.records import Record, Result, Verification
from swarm_node.swarm.frontier import Frontier
from swarm_node.swarm.ledger import Entry
from swarm_node.swarm.lineage import Lineage, adoptions
from swarm_node.swarm.verdicts import Verdicts

Curve = list[tuple[float, float]]  # (compute, best score from there on), both in order


# ---- numbers


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval (Student's t); the half width is NaN with fewer than two values."""

    value: float
    half: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f}" + (f" ± {self.half:.4f}" if math.isfinite(self.half) else "")


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of independent values and its interval."""
    from scipy.stats import t

    if not values:
        return Mean(math.nan, math.nan, 0)
    n = len(values)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return Mean(statistics.fmean(values), half, n)


def centile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


# ---- compute and the best score


def compute_at(ms: int, times: Sequence[int], spent: Sequence[float]) -> float:
    """The CPU seconds that were spent at a time, between samples in proportion. `times` in order."""
    at = bisect.bisect_right(times, ms)
    if at == 0:
        return spent[0] if spent else 0.0
    if at == len(times):
        return spent[-1]
    share = (ms - times[at - 1]) / (times[at] - times[at - 1])
    return spent[at - 1] + share * (spent[at] - spent[at - 1])


def own_bests(entries: Iterable[Entry], own: bytes, task: bytes, baseline: bytes) -> list[tuple[int, float]]:
    """When a node's own best score changed, and to what, by its ledger."""
    frontier = Frontier(own, task, baseline)
    found: list[tuple[int, float]] = []
    for entry in entries:
        frontier.add(entry.record)
        score = frontier.best_score
        if entry.record.author == own and score is not None and (not found or found[-1][1] != score):
            found.append((entry.received_ms, score))
    return found


def best_curve(bests: Sequence[list[tuple[int, float]]], times: Sequence[int], spent: Sequence[float]) -> Curve:
    """The lowest of the nodes' own bests against the compute of all together: a point wherever it changed."""
    changes = sorted((ms, node, score) for node, points in enumerate(bests) for ms, score in points)
    now: dict[int, float] = {}
    curve: Curve = []
    for ms, node, score in changes:
        now[node] = score
        best = min(now.values())
        if not curve or best != curve[-1][1]:
            curve.append((compute_at(ms, times, spent), best))
    return curve


def compute_to(curve: Curve, target: float) -> float | None:
    """The compute at which a curve first is at the target or better."""
    return next((at for at, score in curve if score <= target), None)


def equal_score(one: Curve, other: Curve) -> tuple[float, float, float] | None:
    """The best score that both reach, and the compute that each needed for it; None when one has no score."""
    if not one or not other:
        return None
    target = max(min(score for _, score in curve) for curve in (one, other))
    needed = [compute_to(curve, target) for curve in (one, other)]
    assert needed[0] is not None and needed[1] is not None
    return target, needed[0], needed[1]


def value_at(curve: Curve, compute: float) -> float | None:
    """The best score at this compute."""
    found = [score for at, score in curve if at <= compute]
    return found[-1] if found else None


# ---- what was found, and what others said of it


def count(records: Sequence[Record], honest: Collection[bytes]) -> dict[str, float]:
    """What honest nodes did, and what their words together say of each claim; CPU seconds as records name them."""
    out: Counter[str] = Counter()
    authors = {record.id: record.author for record in records}
    tried: dict[bytes, bytes] = {}  # normal digest -> who tried it first, by the clock
    verdicts = Verdicts()
    kept: list[Record] = []
    for record in sorted(records, key=lambda one: one.time):
        body, mine = record.body, record.author in honest
        if isinstance(body, Verification):
            if mine:
                verdicts.add(record)
                kind = "wider" if body.setting == "wider" else "adoption" if body.cost.seconds == 0 else "rerun"
                out[f"{kind}_{body.outcome}"] += 1
                out["verification_cpu_s"] += body.cost.seconds
                out["lies_checked_cpu_s"] += body.cost.seconds * (authors.get(body.result) not in honest)
            continue
        if body.outcome == "kept":
            kept.append(record)
        if not mine or body.outcome == "baseline":
            continue
        out["experiments"] += 1
        out[body.outcome] += 1
        out["experiment_cpu_s"] += body.cost.seconds
        of_others = any(authors.get(source) not in (None, record.author) for source in body.inspired_by)
        if body.proposer == GROUP:
            out["groups"] += 1
            out["groups_with_peers"] += of_others
            out["groups_kept"] += body.outcome == "kept"
        elif of_others:
            out["adoption_tries"] += 1
            out["adoption_cpu_s"] += body.cost.seconds
        elif not body.inspired_by:
            first = tried.setdefault(body.normal, record.author)
            out["duplicates"] += first != record.author
    for record in kept:
        mine = record.author in honest
        state = verdicts.of(record).state
        out[f"claims_{state}" if mine else f"lies_{state}"] += 1
        out["lies_fabricated"] += bool(not mine and verdicts.of(record).fabricated)
        out["claims_fabricated"] += bool(mine and verdicts.of(record).fabricated)
    return dict(out)


# ---- how things spread


def delays(
    ledgers: Mapping[bytes, Sequence[Entry]], since: Mapping[bytes, int], authors: Collection[bytes]
) -> list[float]:
    """ms from signing to storing, of each record by `authors` at each other node that was up when it was signed.

    since: when each node was up, by the same clock.
    """
    return [
        entry.received_ms - entry.record.time
        for node, entries in ledgers.items()
        for entry in entries
        if entry.record.author != node and entry.record.author in authors and entry.record.time >= since[node]
    ]


def missing(ledgers: Mapping[bytes, Sequence[Entry]], until_ms: int) -> dict[bytes, int]:
    """How many of the records that any ledger holds and that were signed until then each ledger lacks."""
    held = {
        node: {entry.record.id for entry in entries if entry.record.time <= until_ms}
        for node, entries in ledgers.items()
    }
    union: set[bytes] = set().union(*held.values())
    return {node: len(union - ids) for node, ids in held.items()}


@dataclass(frozen=True)
class Spread:
    """How one kept result spread: seconds from its record to each other node's first own win that contains it."""

    result: bytes
    title: str
    gain: float
    state: str
    adopted: tuple[float, ...]  # seconds, in order
    others: int  # nodes that could adopt it

    def until(self, share: float) -> float | None:
        """Seconds until so many of the others had it; None when that did not happen."""
        needed = max(1, math.ceil(share * self.others))
        return self.adopted[needed - 1] if len(self.adopted) >= needed else None


def spreads(records: Sequence[Record], nodes: Collection[bytes]) -> list[Spread]:
    """How the kept results of these nodes spread among them, the earliest first. Equal programs are one discovery:
    what counts is the first record of it, and who found it alone did not adopt it."""
    verdicts, found = Verdicts(), adoptions(records)
    for record in records:
        verdicts.add(record)
    out: list[Spread] = []
    seen: set[bytes] = set()
    for record in sorted(records, key=lambda one: one.time):
        body = record.body
        if not isinstance(body, Result) or body.outcome != "kept" or record.author not in nodes or body.program in seen:
            continue
        seen.add(body.program)
        times = tuple((ms - record.time) / 1000 for who, ms in found.get(record.id, ()) if who in nodes)
        state = verdicts.of(record).state
        out.append(Spread(record.id, body.title, body.gain or 0.0, state, times, len(nodes) - 1))
    return out


def built_on(records: Sequence[Record], honest: Collection[bytes]) -> int:
    """Honest kept results that contain a lie: a result of somebody else that is not honest."""
    lineage = Lineage()
    kept = [record for record in records if isinstance(record.body, Result) and record.body.outcome == "kept"]
    for record in kept:
        lineage.add(record)
    lies = [record for record in kept if record.author not in honest]
    found = {one.id for lie in lies for one in lineage.descendants(lie) if one.author in honest}
    return len(found)


# ---- the staircase


def staircase(scores: Sequence[float | None], kept: Sequence[bool], start: float) -> list[tuple[int, float]]:
    """The best score after each experiment that was kept: (its number from 1, score), from (0, start)."""
    out = [(0, start)]
    for number, (score, keeps) in enumerate(zip(scores, kept, strict=True), 1):
        if keeps and score is not None:
            out.append((number, score))
    return out


@dataclass(frozen=True)
class Survival:
    """What a search claims to have gained, and what fresh seeds on text that never decided anything say."""

    claimed: float
    real: float
    error: float  # standard error of `real`, over seeds

    @property
    def share(self) -> float:
        """Of the claimed gain, what survives."""
        return self.real / self.claimed if self.claimed else math.nan


def survival(claimed: float, start: Sequence[float], final: Sequence[float]) -> Survival:
    """The real gain of `final` over `start`: scores of fresh runs, lower is better."""
    real = statistics.fmean(start) - statistics.fmean(final)
    sides = [statistics.variance(side) / len(side) for side in (start, final) if len(side) > 1]
    return Survival(claimed, real, math.sqrt(sum(sides)) if len(sides) == 2 else math.nan)


def surviving_steps(way: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Of the steps of a staircase, how many are really better than the step before; and how many there are.

    way: scores of fresh runs of each program from the start on.
    """
    better: dict[bool, int] = defaultdict(int)
    for before, after in itertools.pairwise(way):
        better[statistics.fmean(after) < statistics.fmean(before)] += 1
    return better[True], len(way) - 1
