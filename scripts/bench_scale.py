#!/usr/bin/env python3
"""A swarm of up to 10,000 nodes, simulated over the rules that nodes run by: how wins spread, and what re-runs,
messages and invented identities cost.

    scripts/bench_scale.py [--nodes 10 100 300 1000 10000] [--sybils 0 0.01 0.3 0.6] [--hours 2] [--seed 1] [--json]
                           [--plot FILE] [--rule table|hearsay|blind]

Production code: who is to re-run what (`verifiers.ranked` and `is_chosen`; `node.queue.Queue` itself, over a real
`Frontier` fed with what has arrived, decides for a sample of observed nodes), what re-runs say (`Verdicts.of`), who is
believed and who is in quarantine (`Trust`, one for each honest node), the verdicts on every experiment and re-run
(`decide.promotes`, `look`, `verify`; `evidence.level` and `e_value`, on drawn pairs), the weights of a proposer's
choice among peers' wins, and the constants of these. All other nodes decide by `Swarm.next_job`, which is the queue
with its ranks computed once for each claim instead of at every look; `queue disagreed` counts where the two differ.
Their `Trust` sees the words on what they re-ran and the accusations of those whom they believe: no other word can
change it; unless they spoke, it is counted again every 10 minutes. Above 2,000 identities claims are ranked by a 64-bit
mixer in place of BLAKE2b (`--exact`: never), which saves 10 ms a claim, and nobody is observed.

Modelled: a run takes 30 s, a node does one thing at a time and never leaves, starts are spread over 10 minutes. An edit
gains nothing (60 %), loses 3 (25 %), or gains an exponential of mean 3 (15 %), in standard deviations over seeds; seeds
are normal, so that a pair differs by sqrt(2). A program with edits of gain S is worth 40 (1 - exp(-S / 40)), so wins
get rarer. A proposer draws from 5,000 edits; a peer's diff applies to the own program in 4 of 5 cases, else the peer's
whole program is tried in its place; several confirmed diffs are tried together. A record needs log6(N) hops of 100 ms,
each log-normal with the spread that 35 nodes on shared cores showed (p50 58 ms, p99 455 ms); for each observed node it
is drawn, the others hear it at one time. Hellos come every 30 s, of more than 40 nodes less often; of more identities
than the table holds, a node sees those that it heard last. Each message comes over 5 of 6 mesh links. Not modelled:
simplifications, calibration, half-time stops, churn, other hardware, that a node far behind a whole program tries that
first, that a gain is often smaller on another program (though a proposer expects it), pairs that an adoption takes over
from a re-run, and messages lost to rate limits (`per link` says when a link carries more than the 100 a second that a
node takes from it).

Sybils do no research. Each publishes made-up wins at a rate; three of them confirm each lie, and three call each honest
win refuted or fabricated, within a minute. The programs of lies are served, and are a little worse than the baseline.
With `--copies` each also claims as its own what honest nodes found and confirmed, newest first, with a name changed, so
that it is re-run as new and found true.

Read the table so: `could adopt` is the time from an edit's first claim until a claim of it is confirmed in the eyes of
a node that knows nobody (which shows it so, and goes by it nowhere), over the edits for which that happened; `did
adopt` the time until so many honest nodes had it in their program by runs of their own, over the ten best edits that
were claimed in the first half of the time (how many of them got there is beside it); `verdict` the time until a
stranger sees a claim confirmed or refuted, over claims older than half an hour at the end. Times are in minutes; `mean
gain` is in standard deviations. A lie counts as adopted when what a node kept of it is no better than what it had, and
when it rode along with true wins.

`--rule` tries changes to the rules: `table` holds everybody's hello; with `blind` a node builds upon claims of which it
repeated no run; with `hearsay` what strangers say decides what is
tried while nobody else says anything, and one of them is enough for a claim to be tried among others.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from scale_parts import (
    COPIES,
    CPU,
    EXACT_UP_TO,
    LINKS,
    RULES,
)
from scale_swarm import Swarm
from swarm_node.protocols.canonical import digest
from swarm_node.protocols.records import (
    Evidence,
    Hello,
    Lead,
    Result,
    Run,
    Verification,
    sign_notice,
    sign_record,
)
from swarm_node.swarm.types import Limits


@cache
def wire_bytes() -> dict[str, int]:
    """Sizes of typical messages, encoded and signed: runs with digests and ten losses, as the node publishes them."""
    key, losses = digest(b"key"), tuple(1.0 + number / 7 for number in range(10))
    runs = [
        Run(arm="candidate", role="confirm", slice="confirm", seed=2**30, steps=1300, draw=2**30, score=2.9,
            seconds=23.4, digest=key, losses=losses)
    ] * 12  # fmt: skip
    found = Evidence(pairs=4, required=0.2, low=0.1, high=0.2, e_value=99.0, level=0.05)
    cpu = CPU.model_copy(update={"device": "AMD EPYC 7B13, 8 cores", "library": "torch 2.13.0+cpu AVX2"})
    fields: dict[str, Any] = {
        "task": key, "program": key, "parent": key, "normal": key, "title": "half of the input comes from before",
        "reason": "r" * 120, "score": 2.9, "parent_score": 3.2, "gain": 0.3, "gain_error": 0.01, "noise": 0.01,
        "steps": 1300, "cost_ratio": 1.01, "environment": cpu, "proposer": "offline:shift-half", "inspired_by": (key,),
    }  # fmt: skip
    checked = Verification(task=key, result=key, outcome="confirmed", gain=0.3, gain_error=0.01, evidence=found,
                           runs=tuple(runs[:7]), environment=cpu)  # fmt: skip
    bodies = {
        "kept": Result(outcome="kept", diff="+" * 600, evidence=found, runs=tuple(runs[:9]), **fields),
        "other": Result(outcome="discarded", runs=tuple(runs[:1]), **fields),
        "verification": checked,
    }
    notices = {
        "lead": Lead(task=key, normal=key, parent=key),
        "hello": Hello(agent="swarm-node 0.1.0", task=key, hardware="cpu", device=cpu.device, role="research",
                       addresses=("/ip4/203.0.113.7/tcp/4001/p2p/" + "Q" * 52,)),
    }  # fmt: skip
    records = {name: sign_record(key, epoch=0, seq=1, prev=None, time=2**40, body=b) for name, b in bodies.items()}
    said = {name: sign_notice(key, time=2**40, body=body) for name, body in notices.items()}
    return {name: len(one.to_bytes()) for name, one in {**records, **said}.items()}


def _quantile(values: Sequence[float], share: float) -> float | None:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def _rate(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def report(swarm: Swarm) -> dict[str, Any]:
    """The numbers of one scenario."""
    hours, nodes = swarm.end / 3600, swarm.nodes
    honest = [one for one in swarm.claims if one.author < swarm.honest]
    true = [one for one in swarm.wins if one.author < swarm.honest and one.program.worth > one.parent.worth]
    eyes = nodes[:: max(1, len(nodes) // 30)]
    seen = [swarm.opinion(node, one)[0] for node in eyes for one in true]
    sybils = set(swarm.keys[swarm.honest :])
    # Claims of the last half hour had no time for a verdict.
    old = [one for one in honest if one.at < swarm.end - 1800]
    verdicts = [(one.settled - one.at) / 60 if one.settled is not None else math.inf for one in old]
    first = [(at - swarm.first_claim[edit]) / 60 for edit, at in swarm.first_confirmed.items()]
    could = [one + swarm.delay() / 60 for one in first for _ in range(30)]
    early = [edit for edit, at in swarm.first_claim.items() if at < swarm.end / 2]
    leaders = sorted(early, key=lambda edit: -swarm.gains[edit])[:10]
    did: dict[float, list[float]] = {}
    for share in (0.5, 0.9):
        count = math.ceil(share * len(nodes))
        reached = [edit for edit in leaders if len(swarm.had[edit]) >= count]
        did[share] = [(sorted(swarm.had[edit])[count - 1] - swarm.first_claim[edit]) / 60 for edit in reached]
    verify, research = (sum(of) for of in zip(*((one.verify, one.research) for one in nodes), strict=True))
    on_sybils = sum(node.on_authors[who] for node in nodes for who in sybils)
    sent = swarm.sent + Counter(hello=int(swarm.size * swarm.end / swarm.hello))
    per_second = sum(sent.values()) / swarm.end
    size = wire_bytes()
    checked = [one for one in honest if one.checks]
    steps = {one.step for one in checked}
    pairs = len(nodes) * len(swarm.first_lie)
    caught = [seconds / 60 for of in swarm.caught.values() for seconds in of]
    finite = lambda value: None if value is None or math.isinf(value) else value  # noqa: E731
    return {
        "nodes": swarm.size,
        "sybils": swarm.size - swarm.honest,
        "rules": sorted(swarm.rules),
        "hours": hours,
        "claims": len(honest),
        "edits found": len(swarm.first_claim),
        "of them confirmed": len(swarm.first_confirmed),
        "could adopt 50 %": finite(_quantile(could, 0.5)),
        "could adopt 90 %": finite(_quantile(could, 0.9)),
        "had by half of the nodes": f"{len(did[0.5])}/{len(leaders)}",
        "did adopt 50 %": _quantile(did[0.5], 0.5),
        "had by nine in ten": f"{len(did[0.9])}/{len(leaders)}",
        "did adopt 90 %": _quantile(did[0.9], 0.5),
        "mean gain": statistics.fmean(one.program.worth for one in nodes),
        "verdict, median": finite(_quantile(verdicts, 0.5)),
        "verdict, 90 %": finite(_quantile(verdicts, 0.9)),
        "without verdict": _rate(sum(map(math.isinf, verdicts)), len(verdicts)) if verdicts else None,
        "runs of re-runs a node-hour": sum(one.runs for one in nodes) / len(nodes) / hours,
        "most": max(one.runs for one in nodes) / hours,
        "share of time": _rate(verify, verify + research),
        "re-runs a checked claim": _rate(sum(one.checks for one in checked), len(checked)),
        "on steps already checked": 1 - _rate(len(steps), len(checked)) if checked else 0.0,
        "authors believed": statistics.fmean(len(one.established) for one in nodes),
        "messages an hour": 3600 * per_second,
        "received and forwarded an hour": 3600 * per_second * COPIES,
        "kB a second, each way": COPIES * sum(size[kind] * n for kind, n in sent.items()) / swarm.end / 1000,
        "per link a second": per_second * COPIES / LINKS,
        "of them hellos": sent["hello"] / sum(sent.values()),
        "record GB a day": sum(size[k] * n for k, n in sent.items() if k not in ("hello", "lead")) / hours * 24 / 1e9,
        "re-runs wasted on lies": _rate(sum(one.on_lies for one in nodes), verify),
        "re-runs of own doubted wins": _rate(sum(one.doubting for one in nodes), verify),
        "research wasted on lies": _rate(sum(one.chasing_lies for one in nodes), research),
        "lies": sum(one.lie for one in swarm.claims),
        "lies adopted": swarm.lies_adopted,
        "copies of true wins": sum(not one.lie for one in swarm.claims) - len(honest),
        "Sybils believed": statistics.fmean(len(one.established & sybils) for one in nodes),
        "re-runs spent on copies": _rate(on_sybils, verify) - _rate(sum(one.on_lies for one in nodes), verify),
        "kept by luck": _rate(swarm.luck, len(honest)),
        "honest wins called refuted": _rate(sum(one.state == "refuted" for one in honest), len(honest)),
        "true wins refuted for a node": _rate(seen.count("refuted"), len(seen)),
        "liars in quarantine": _rate(sum(map(len, swarm.caught.values())), pairs),
        "until quarantine": _quantile(caught, 0.5),
        "honest in quarantine": sum(len(one.quarantined & set(swarm.keys[: swarm.honest])) for one in nodes),
        "queue agreed": swarm.agreed,
        "queue disagreed": swarm.disagreed,
    }


SHARES = {"without verdict", "share of time", "on steps already checked", "of them hellos", "re-runs wasted on lies",
          "re-runs of own doubted wins", "research wasted on lies", "honest wins called refuted",
          "liars in quarantine", "kept by luck", "re-runs spent on copies", "true wins refuted for a node"}  # fmt: skip


def shown(name: str, value: Any) -> str:
    """A number for people."""
    if value is None:
        return "—"
    if name in SHARES:
        return f"{100 * value:.1f} %"
    if isinstance(value, list):
        return ", ".join(value) or "production"
    if isinstance(value, str):
        return value
    return f"{value:,.3g}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def table(found: Sequence[dict[str, Any]]) -> str:
    """One column for each scenario."""
    lines = ["| " + " | ".join([name, *(shown(name, one[name]) for one in found)]) + " |" for name in found[0]]
    return "\n".join([lines[0], "|---" * (len(found) + 1) + "|", *lines[1:]])


def plot(swarms: Sequence[tuple[str, list[tuple[float, float]]]], out: Path) -> None:
    """Mean gain over time."""
    from swarm_node.node.plot import pyplot

    figure, axes = pyplot().subplots(figsize=(9, 5), layout="constrained")
    for name, points in swarms:
        axes.plot([at / 60 for at, _ in points], [gain for _, gain in points], label=name)
    axes.set(xlabel="minutes", ylabel="mean gain (standard deviations over seeds)")
    axes.legend()
    figure.savefig(out, dpi=120)


def scenarios(nodes: Sequence[int], sybils: Sequence[float], sybil_nodes: int) -> list[tuple[int, float]]:
    """Every size without Sybils, and one size with them."""
    return [(size, 0.0) for size in nodes if 0.0 in sybils] + [(sybil_nodes, share) for share in sybils if share]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 300, 1000, 10000])
    parser.add_argument("--sybils", type=float, nargs="+", default=[0.0, 0.01, 0.3, 0.6])
    parser.add_argument("--sybil-nodes", type=int, default=300, help="identities in the scenarios with Sybils")
    parser.add_argument("--lies", type=float, default=6.0, help="made-up wins an hour of each Sybil")
    parser.add_argument("--copies", type=float, default=0.0, help="and others' true wins that it claims as its own")
    parser.add_argument(
        "--hours", type=float, default=2.0, help="of each swarm; half of it above 300 identities, a quarter above 2,000"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rule", action="append", choices=RULES, default=[])
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--json", action="store_true", help="one line for each swarm, as soon as it is done")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    lines: list[tuple[str, list[tuple[float, float]]]] = []
    for size, share in scenarios(given.nodes, given.sybils, given.sybil_nodes):
        begun = time.process_time()
        print(f"{size} nodes, {share:.0%} Sybils", file=sys.stderr, flush=True)
        hours = given.hours / (1 if size <= 300 else 2 if size <= EXACT_UP_TO else 4)
        swarm = Swarm(size, share, hours, given.seed, given.rule, given.lies, given.copies, exact=given.exact)
        swarm.run(lambda line: print(line, file=sys.stderr, flush=True))
        found.append({**report(swarm), "CPU seconds of this": time.process_time() - begun})
        lines.append((f"{size} nodes" + (f", {share:.0%} Sybils" if share else ""), swarm.progress))
        if given.json:
            print(json.dumps(found[-1]), flush=True)
    if not given.json:
        print(table(found))
    print(f"per link: a node takes {Limits().peer_per_second:.0f} a second from each forwarder", file=sys.stderr)
    if given.plot is not None:
        plot(lines, given.plot)


if __name__ == "__main__":
    main()
