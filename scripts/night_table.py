"""What a night brought: a table of its results and a plot of the progress, from a node's ledger.

One section and one staircase for each author and task in the ledger. Listed are the kept results (or every one); the
counts are over all of them. The plot shows every screened experiment, and what was kept with its standard error.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from swarm_node.node.format import change, duration, interval, track_name
from swarm_node.node.home import Home
from swarm_node.node.tasks import known_tasks
from swarm_node.protocols.names import nickname
from swarm_node.protocols.records import Record, Result
from swarm_node.swarm.ledger import Ledger

Night = list[tuple[float, Record, Result]]  # seconds since the first record of all, in the order of the author's log


def nights(records: Sequence[Record]) -> dict[tuple[bytes, bytes], Night]:
    """Results by author and task."""
    found: dict[tuple[bytes, bytes], Night] = defaultdict(list)
    first = min(record.time for record in records)
    for record in records:
        if isinstance(record.body, Result):
            found[record.author, record.body.task].append(((record.time - first) / 1000, record, record.body))
    return found


def show(name: str, direction: str, night: Night, everything: bool) -> None:
    """Print one author's table and counts."""
    best = next((one.score for _, _, one in night if one.outcome == "baseline"), None)
    print(f"\n{name}   baseline {best:.4f}" if best is not None else f"\n{name}   no baseline recorded")
    print("| time | # | what | outcome | change | at 95 % | score | pairs | e-value of | audit: worst bits |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    tried = [(at, one) for at, _, one in night if one.outcome != "baseline"]
    for number, (at, one) in enumerate(tried, 1):
        if one.outcome != "kept" and not everything:
            continue
        found = one.evidence
        outcome = "simplified" if one.outcome == "kept" and one.aim == "simpler" else one.outcome
        shown = [
            duration(at), str(number), one.title, outcome, change(one.gain, direction), interval(found, direction),
            f"{one.score:.4f}" if one.score is not None else "",
            str(found.pairs) if found else "",
            f"{found.e_value:.3g} of {1 / found.level:.3g}" if found else "",
            f"{found.audit.worst:.1e}" if found and found.audit else "",
        ]  # fmt: skip
        print("| " + " | ".join(shown) + " |")
    outcomes = Counter(one.outcome for _, one in tried)
    promoted = sum(one.evidence is not None for _, one in tried)
    runs = sum(len(one.runs) for _, one in tried)
    seconds = sum(run.seconds for _, _, one in night for run in one.runs)
    counts = ", ".join(f"{times} {what}" for what, times in outcomes.most_common())
    print(f"{len(tried)} experiments, {promoted} promoted: {counts}")
    if tried:
        print(f"{runs / len(tried):.1f} recorded runs an experiment; {seconds:.0f} CPU seconds of training in all runs")
    kept = [one.score for _, one in tried if one.outcome == "kept" and one.score is not None]
    if kept and best is not None:
        print(f"{best:.4f} to {kept[-1]:.4f}: {100 * (kept[-1] / best - 1):+.1f} %")


def plot(title: str, by_name: dict[str, Night], out: Path) -> None:
    """Every screened experiment as a dot, every author's own best as a staircase."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5.5), layout="constrained")
    for name, night in by_name.items():
        kept = [(at / 60, one) for at, _, one in night if one.outcome in ("baseline", "kept") and one.score is not None]
        if not kept:
            continue
        times, scores = [at for at, _ in kept], [one.score for _, one in kept]
        last = max(at for at, _, _ in night) / 60
        (line,) = axes.step([*times, last], [*scores, scores[-1]], where="post", label=name)
        errors = [one.gain_error or 0.0 for _, one in kept]
        axes.errorbar(times, scores, yerr=errors, fmt="o", color=line.get_color(), capsize=3)
        rest = [(at / 60, one.score) for at, _, one in night if one.outcome in ("discarded", "inconclusive")]
        axes.scatter(*zip(*rest, strict=True), s=12, color=line.get_color(), alpha=0.35) if rest else None
    axes.set(xlabel="minutes", ylabel="bits per byte of held-out text (screen slice)", title=title)
    axes.legend(title="kept: line and dots with the gain's standard error\nnot kept: faint dots")
    figure.savefig(out, dpi=120)


def table(home: Path, picture: Path | None, everything: bool) -> None:
    """Print every table, and plot when a picture is asked for."""
    with Ledger.open(Home.locate(home).ledger, read_only=True) as ledger:
        records, known = list(ledger.all_records()), known_tasks(ledger)
    found = {
        f"{nickname(author)} on {track_name(task, known)}": (known[task].direction if task in known else "lower", night)
        for (author, task), night in nights(records).items()
    }
    for name, (direction, night) in found.items():
        show(name, direction, night, everything)
    if picture is not None:
        plot(f"{len(records)} records", {name: night for name, (_, night) in found.items()}, picture)
