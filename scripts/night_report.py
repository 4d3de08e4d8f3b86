"""The report of `bench_night.py`: markdown, and plots beside it, from what an output folder holds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from night_measures import Mean, equal_score, mean_of, value_at
from swarm_node.node.plot import pyplot as plots

Line = dict[str, Any]
COLOURS = {
    "solo": "tab:gray",
    "swarm": "tab:blue",
    "unverified": "tab:orange",
    "liars": "tab:red",
    "private": "tab:green",
    "single": "black",
}


def report(out: Path) -> str:
    """Write OUT/report.md and its plots; the text."""
    parts: list[str] = []
    for name, render in (("compare", compare), ("crowd", crowd), ("staircase", staircase)):
        if (lines := _lines(out / f"{name}.jsonl")) and (plan := out / f"{name}-plan.json").exists():
            parts += render(out, json.loads(plan.read_text()), lines)
    if not parts:
        return f"{out} holds no finished arm"
    (out / "report.md").write_text("\n".join(parts) + "\n")
    return "\n".join(parts)


def _lines(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def rows(head: Sequence[str], body: Iterable[Sequence[object]]) -> list[str]:
    """A markdown table and an empty line; nothing without rows."""
    if not (found := list(body)):
        return []
    cells = [head, ["---"] * len(head), *found]
    return ["| " + " | ".join(map(str, row)) + " |" for row in cells] + [""]


def number(value: float | None, form: str = ".0f") -> str:
    """A number, or a dash for what did not happen."""
    return "–" if value is None or not math.isfinite(value) else format(value, form)


# ---- swarm against solo


def compare(out: Path, plan: Line, lines: Sequence[Line]) -> list[str]:
    """The comparison, by number of nodes."""
    text = [
        "## Swarm against solo at equal compute", "",
        f"Primary metric, fixed before the first run: {plan['primary']}. Lower is better; ± is the 95 % interval of "
        f"the mean over repetitions. {plan['budget']:.0f} CPU s for each node, {plan['size']} steps, {plan['seeds']} "
        "fresh seeds.", "",
    ]  # fmt: skip
    for nodes in sorted({line["nodes"] for line in lines}):
        of = [line for line in lines if line["nodes"] == nodes]
        arms = [arm for arm in COLOURS if any(line["arm"] == arm for line in of)]
        text += [f"### {nodes} nodes, {nodes * plan['budget']:.0f} CPU s in all", ""]
        text += rows(
            ("arm", "runs", "bpb on audit", "of a member", "recorded best", "baseline on audit", "CPU s", "experiments",
             "kept"),
            (_arm_row(arm, [line for line in of if line["arm"] == arm]) for arm in arms),
        )  # fmt: skip
        text += rows(
            ("arm − solo", "pairs", "bpb on audit", "of a member",
             "compute to the best score that both reach, solo ÷ arm"),
            (_pair_row(arm, _pairs(of, arm)) for arm in arms if arm != "solo" and _pairs(of, arm)),
        )  # fmt: skip
        text += rows(
            ("arm", "claims confirmed", "refuted", "undecided", "re-runs", "adoptions tried", "duplicates",
             "CPU s verifying", "CPU s adopting", "avoided"),
            (_count_row(arm, [line for line in of if line["arm"] == arm]) for arm in arms),
        )  # fmt: skip
        text += _lies([line for line in of if line["arm"] == "liars"])
        text += _odd(of)
    _plot_compare(out, plan, lines)
    return [*text, "![best score against compute](compare.png)", ""]


def audit(line: Line) -> float:
    """The primary metric of one arm."""
    return statistics.fmean(line["best"]["audit"])


def _sum(line: Line, *keys: str) -> float:
    return sum(line["counts"].get(key, 0) for key in keys)


def _mean(lines: Sequence[Line], *keys: str) -> str:
    return number(statistics.fmean(_sum(line, *keys) for line in lines), ".1f")


def _arm_row(arm: str, of: Sequence[Line]) -> list[object]:
    recorded = mean_of([line["best"]["recorded"] for line in of])
    baseline = statistics.fmean(statistics.fmean(line["best"]["baseline_audit"]) for line in of)
    cpu = statistics.fmean(line["compute"]["cpu_s"] for line in of)
    found = mean_of([audit(line) for line in of])
    return [
        arm, len(of), found, _of_members(of), recorded, f"{baseline:.4f}", f"{cpu:.0f}", _mean(of, "experiments"),
        _mean(of, "kept"),
    ]  # fmt: skip


def _pairs(of: Sequence[Line], arm: str) -> list[tuple[Line, Line]]:
    """(solo, arm) of each repetition that has both."""
    solo = {line["rep"]: line for line in of if line["arm"] == "solo"}
    return [(solo[line["rep"]], line) for line in of if line["arm"] == arm and line["rep"] in solo]


def _pair_row(arm: str, pairs: Sequence[tuple[Line, Line]]) -> list[object]:
    gaps = mean_of([audit(line) - audit(solo) for solo, line in pairs])
    equal = [found for solo, line in pairs if (found := equal_score(solo["curve"], line["curve"])) is not None]
    logs = mean_of([math.log(alone / together) for _, alone, together in equal if alone > 0 and together > 0])
    both = [(solo, line) for solo, line in pairs if "members" in solo and "members" in line]
    members = _signed(mean_of([member(line) - member(solo) for solo, line in both])) if both else "–"
    return [arm, len(pairs), _signed(gaps), members, _factor(logs)]


def member(line: Line) -> float:
    """What one member of an arm gets on the average."""
    return statistics.fmean(line["members"].values())


def _of_members(of: Sequence[Line]) -> object:
    found = [member(line) for line in of if "members" in line]  # earlier nights did not ask
    return mean_of(found) if found else "–"


def _signed(mean: Mean) -> str:
    return f"{mean.value:+.4f}" + (f" ± {mean.half:.4f}" if math.isfinite(mean.half) else "")


def _factor(logs: Mean) -> str:
    """A geometric mean with its interval."""
    if not logs.n:
        return "–"
    text = f"{math.exp(logs.value):.2f} ×"
    if math.log(100) < logs.half < math.inf:
        text += " [less than 1 % of it to more than a hundred times it]"
    elif math.isfinite(logs.half):
        text += f" [{math.exp(logs.value - logs.half):.2f}, {math.exp(logs.value + logs.half):.2f}]"
    return text


def _count_row(arm: str, of: Sequence[Line]) -> list[object]:
    avoided = [line["avoided"] for line in of if line["avoided"] is not None]
    return [
        arm, _mean(of, "claims_confirmed"), _mean(of, "claims_refuted"), _mean(of, "claims_claimed"),
        _mean(of, *(f"rerun_{word}" for word in ("confirmed", "refuted", "inconclusive", "fabricated"))),
        _mean(of, "adoption_tries"), _mean(of, "duplicates"), _mean(of, "verification_cpu_s"),
        _mean(of, "adoption_cpu_s"), number(statistics.fmean(avoided), ".1f") if avoided else "–",
    ]  # fmt: skip


def _lies(of: Sequence[Line]) -> list[str]:
    if not of:
        return []
    first, lies = of[0], {key: statistics.fmean(line["lies"][key] for line in of) for key in of[0]["lies"]}
    made = _mean(of, "lies_claimed", "lies_confirmed", "lies_refuted")
    eyes = [
        f"{lies[f'{what}_{word}']:.1f}"
        for what in ("lies", "wins")
        for word in ("believed", "disbelieved", "undecided")
    ]
    return [
        f"{first['liars']} liars beside {first['nodes']} honest nodes ({lies['liars_heard']:.1f} heard): {made} "
        f"fabricated wins, of which honest re-runs refuted {_mean(of, 'lies_refuted')} "
        f"({_mean(of, 'lies_fabricated')} shown to be made up) and confirmed {_mean(of, 'lies_confirmed')}; "
        f"{_mean(of, 'lies_checked_cpu_s')} CPU s went there. {lies['honest_results_with_a_lie']:.1f} honest results "
        f"contain a lie. In the eyes of each honest node, lies: {eyes[0]} confirmed, {eyes[1]} refuted or of a "
        f"quarantined author, {eyes[2]} undecided; others' honest wins: {eyes[3]} confirmed, {eyes[4]} refuted, "
        f"{eyes[5]} undecided. Liars are quarantined {lies['liars_quarantined']:.1f} times of "
        f"{first['liars'] * first['nodes']} possible, honest authors {lies['honest_quarantined']:.1f} times.",
        "",
    ]


def _odd(of: Sequence[Line]) -> list[str]:
    """Arms that did not end as planned."""
    out = [
        f"- {line['arm']}, repetition {line['rep']}: {line['ended']}, ended unasked: {line['deaths'] or 'none'}"
        for line in of
        if line["ended"] != "enough" or line["deaths"]
    ]
    return [*out, ""] if out else []


def _plot_compare(out: Path, plan: Line, lines: Sequence[Line]) -> None:
    pyplot = plots()
    sizes = sorted({line["nodes"] for line in lines})
    figure, axes = pyplot.subplots(
        1, len(sizes) + 1, figsize=(5 * len(sizes) + 4, 4.5), layout="constrained", squeeze=False
    )  # fmt: skip
    for panel, nodes in zip(axes[0], sizes, strict=False):
        end = nodes * plan["budget"]
        for arm, colour in COLOURS.items():
            curves = [line["curve"] for line in lines if (line["nodes"], line["arm"]) == (nodes, arm) and line["curve"]]
            for curve in curves:
                panel.step(*_to(curve, end), where="post", color=colour, alpha=0.25, linewidth=0.8)
            grid = [end * part / 200 for part in range(201)]
            means = [(at, statistics.fmean(have)) for at in grid if (have := _all_at(curves, at)) is not None]
            if means:
                panel.step(*zip(*means, strict=True), where="post", color=colour, label=arm)
        panel.set(
            xlabel="CPU seconds of all runs of all honest nodes", ylabel="recorded best, bpb", title=f"{nodes} nodes"
        )
        panel.legend()
    last = axes[0][-1]
    for place, (arm, colour) in enumerate(COLOURS.items()):
        points = [
            (nodes, mean_of([audit(line) for line in lines if (line["nodes"], line["arm"]) == (nodes, arm)]))
            for nodes in sizes
        ]
        points = [(nodes, found) for nodes, found in points if found.n]
        if points:
            at = [sizes.index(nodes) + 0.08 * place for nodes, _ in points]
            halves = [found.half if math.isfinite(found.half) else 0.0 for _, found in points]
            last.errorbar(
                at, [found.value for _, found in points], halves, fmt="o-", color=colour, capsize=3, label=arm
            )
    last.set_xticks(range(len(sizes)), [str(nodes) for nodes in sizes])
    last.set(xlabel="nodes", ylabel="bpb on audit, fresh seeds, 95 %", title="primary metric")
    last.legend()
    figure.savefig(out / "compare.png", dpi=120)


def _to(curve: Sequence[Sequence[float]], end: float) -> tuple[list[float], list[float]]:
    return [*(at for at, _ in curve), end], [*(score for _, score in curve), curve[-1][1]]


def _all_at(curves: Sequence[Any], at: float) -> list[float] | None:
    found = [value_at(curve, at) for curve in curves]
    return [one for one in found if one is not None] if found and None not in found else None


# ---- the crowd


def crowd(out: Path, plan: Line, lines: Sequence[Line]) -> list[str]:
    """The night of many."""
    line = lines[-1]
    counts, moved = line["counts"], line["propagation"]
    get = lambda *keys: sum(counts.get(key, 0) for key in keys)  # noqa: E731
    confirmed = [one for one in line["spread"] if one["state"] == "confirmed"]
    used = line["processes"]
    nodes = [value for name, value in used.items() if name.startswith("node-")]
    avoided = [value for value in line["avoided"] if value is not None]
    settled = "never" if line["settled_s"] is None else f"after {line['settled_s']:.0f} s"
    environments = ", ".join(f"{count} on {name}" for name, count in line["environments"].items())
    cores = line["cores"]
    text = [
        f"## {plan['nodes']} nodes, one night", "",
        f"{plan['nodes']} node processes and a bootstrap on one machine with {cores} cores, {plan['size']} steps. "
        f"{line['wall_s'] / 60:.0f} minutes, ended: {line['ended']}.", "",
    ]  # fmt: skip
    text += rows(("what", "how much"), [
        ("experiments", f"{get('experiments'):.0f}"),
        ("discoveries (kept)", f"{get('kept'):.0f}: {get('claims_confirmed'):.0f} confirmed by others, "
         f"{get('claims_refuted'):.0f} refuted, {get('claims_claimed'):.0f} undecided"),
        ("different programs kept", f"{len(line['spread'])}, of which confirmed {len(confirmed)}"),
        ("re-runs of claims", ", ".join(f"{get('rerun_' + word):.0f} {word}" for word in
                                         ("confirmed", "refuted", "inconclusive", "fabricated"))),
        ("propagation of a record", f"p50 {number(moved['p50_ms'])} ms, p99 {number(moved['p99_ms'])} ms, longest "
         f"{number(moved['max_ms'])} ms, {moved['n']} arrivals"),
        ("adopted by half of the others", _adopted(confirmed, "t50")),
        ("adopted by 90 % of the others", _adopted(confirmed, "t90")),
        ("ideas tried twice", f"{get('duplicates'):.0f}; avoided because a peer tried them: "
         f"{sum(avoided) if avoided else 'not reported by this version'}"),
        ("convergence", f"all ledgers held all {line['records']} records {settled}"
         + (f"; lacking at the end: {line['lacking']}" if line["lacking"] else "")),
        ("compute", f"{line['compute']['cpu_s']:.0f} CPU s in runs, of which {get('verification_cpu_s'):.0f} verifying "
         f"and {get('adoption_cpu_s'):.0f} adopting; {sum(cpu for cpu, _ in nodes):.0f} CPU s of the processes in all"),
        ("memory", f"{line['memory_mib'] / 1024:.1f} GiB at most, {statistics.fmean(mib for _, mib in nodes):.0f} MiB "
         "a node at the end (what is shared counts once)"),
        ("peers of a node", f"{line['peers'][0]} to {line['peers'][-1]}"),
        ("hardware profiles", environments or "–"),
        ("ended unasked", line["deaths"] or "none"),
        ("parts that failed and began again", line["crashes"] or "none"),
    ])  # fmt: skip
    text += ["Kept programs by when they were found; adoption: the first own win of another node that contains it.", ""]
    text += rows(
        ("result", "what", "gain", "state", "adopted by", "half, s", "90 %, s"),
        ((one["id"][:8], one["title"][:60].replace("|", "/"), f"{one['gain']:.4f}", one["state"],
          f"{len(one['adopted'])} of {one['others']}", number(one["t50"]), number(one["t90"]))
         for one in line["spread"][:40]),
    )  # fmt: skip
    _plot_crowd(out, line, confirmed)
    return [*text, "![the night](crowd.png)", ""]


def _adopted(confirmed: Sequence[Line], key: str) -> str:
    times = [one[key] for one in confirmed if one[key] is not None]
    middle = f", median {statistics.median(times):.0f} s" if times else ""
    return f"{len(times)} of {len(confirmed)} confirmed wins{middle}"


def _plot_crowd(out: Path, line: Line, confirmed: Sequence[Line]) -> None:
    pyplot = plots()
    figure, axes = pyplot.subplots(1, 3, figsize=(16, 4.5), layout="constrained")
    start = line["finished"][0][0]
    minutes = [(one[0] - start) / 60_000 for one in line["finished"]]
    axes[0].plot(minutes, [one[2] for one in line["finished"]], label="experiments")
    axes[0].plot(minutes, [one[3] for one in line["finished"]], label="re-runs of claims")
    axes[0].set(xlabel="minutes", title="finished")
    axes[0].legend()
    axes[1].plot(line["propagation"]["centiles"], range(1, 100))
    axes[1].set(xscale="log", xlabel="ms from signing to storing", ylabel="% of arrivals", title="propagation")
    for one in confirmed:
        times = [0.0, *one["adopted"]]
        axes[2].step(
            [t / 60 for t in times], [100 * n / one["others"] for n in range(len(times))], where="post", alpha=0.6
        )
    axes[2].set(
        xlabel="minutes since the win", ylabel="% of the other nodes", ylim=(0, 100), title="adoption of confirmed wins"
    )
    figure.savefig(out / "crowd.png", dpi=120)


# ---- the staircase


def staircase(out: Path, plan: Line, lines: Sequence[Line]) -> list[str]:
    """Both rules."""
    text = [
        "## One researcher, one night", "",
        f"Primary metric, fixed before the first run: {plan['primary']}. {plan['size']} steps, {plan['seeds']} fresh "
        "seeds of every program; ± is a standard error.", "",
    ]  # fmt: skip
    head = ("rule", "experiments", "CPU s", "kept", "claimed gain", "fresh seeds, same text", "fresh seeds, audit")
    text += rows((*head, "survives", "steps that are real"), (_rule_row(line) for line in lines))
    pyplot = plots()
    figure, axes = pyplot.subplots(
        1, len(lines), figsize=(8 * len(lines), 5), layout="constrained", squeeze=False, sharey=True
    )  # fmt: skip
    for panel, line in zip(axes[0], lines, strict=True):
        _plot_staircase(panel, line)
    figure.savefig(out / "staircase.png", dpi=120)
    return [*text, "![staircases](staircase.png)", ""]


def _rule_row(line: Line) -> list[object]:
    """Scores on `screen` again tell the luck of seeds from that of the text."""
    start, final = (statistics.fmean(one["screen"] for one in line["again"][at]) for at in (0, -1))
    return [
        line["rule"], len(line["trials"]), f"{line['cpu_s']:.0f}", line["steps_kept"], f"{line['claimed']:.4f}",
        f"{start - final:.4f}", f"{line['real']:.4f} ± {line['error']:.4f}", f"{line['share']:.0%}",
        f"{line['steps_real']} of {line['steps_kept']}",
    ]  # fmt: skip


def _plot_staircase(panel: Any, line: Line) -> None:
    scored = [(n, one) for n, one in enumerate(line["trials"], 1) if one["score"] is not None]
    kept = [(0, line["start"]), *((n, one["score"]) for n, one in scored if one["kept"])]
    panel.scatter([n for n, _ in scored], [one["score"] for _, one in scored], s=10, color="tab:gray", alpha=0.5)
    panel.step(*zip(*kept, (len(line["trials"]), kept[-1][1]), strict=True), where="post", label="claimed")
    panel.plot(*zip(*kept, strict=True), "o", color="tab:blue")
    # What a node kept beside its best, or took back, is not on the way that was run again.
    if len(kept) == len(line["again"]):
        for which, mark in (("screen", "^"), ("audit", "s")):
            again = [statistics.fmean(one[which] for one in of) for of in line["again"]]
            panel.plot([n for n, _ in kept], again, mark, markerfacecolor="none", label=f"fresh seeds, {which}")
    low, high = min(score for _, score in kept), max(score for _, score in kept)
    room = 0.4 * max(high - low, 0.02)
    panel.set(
        xlabel="experiment", ylabel="bits per byte", ylim=(low - room, high + room),
        title=f"{line['rule']}: {line['share']:.0%} of the gain survives",
    )  # fmt: skip
    panel.legend()
