#!/usr/bin/env python3
"""What compute parity gives to programs that cost more, less or the same, and whom its accounting catches.

    scripts/bench_parity.py [--steps 1300] [--repeats 6]

Each program's cost ratio is measured beside the reference several times, as for an experiment, and N is what it earns
of the reference's steps:
    same            the baseline beside itself: what is left of N when nothing differs
    same, beside    the same while a process keeps every other core busy
    twice as wide   WIDTH × 2: about half the steps of a layer of the old width, and less of what does not grow with it
    fused kernel    the baseline beside the same model with softmax attention written out: a faster kernel earns more
    slow later      the baseline that computes twice from its 200th step on: equal at calibration, found by its runs
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path
from swarm_node.trainer import corpus, decide, task
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import CostRatio, RunSpec, Slice

KERNEL = "y = F.scaled_dot_product_attention(q, k, v, is_causal=True)"
BY_HAND = (
    "seen = torch.ones(T, T, dtype=torch.bool).tril(); "
    "y = (q @ k.transpose(-2, -1) / (C // HEADS) ** 0.5).masked_fill(~seen, float('-inf')).softmax(-1) @ v"
)
LATER = "        loss.backward()\n"
SLOW_LATER = (
    LATER
    + """\
        if step >= 200:
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
"""
)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--repeats", type=int, default=6)
    given = parser.parse_args()
    text = corpus.prepare(user_cache_path("swarm-node"))
    plain = task.load("gpt-cpu", str(given.steps), bytes.fromhex(text.digest)).baseline
    core, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch), cores=[core]) as executor:

        def show(name: str, reference: str, source: str) -> None:
            found = [measured(executor, reference, source, given.steps) for _ in range(given.repeats)]
            ratios = [cost.ratio for cost in found]
            steps = sorted(decide.steps_for(given.steps, ratio) for ratio in ratios)
            spread = statistics.stdev(ratios) / statistics.fmean(ratios)
            error = statistics.fmean(cost.rel_err for cost in found)
            print(
                f"{name:<15} ratio {statistics.fmean(ratios):.3f}  spread {spread:.1%} (said {error:.1%})  N {steps}",
                flush=True,
            )

        show("same", plain, plain)
        with busy(others):
            show(f"same, {len(others)} busy", plain, plain)
        show("twice as wide", plain, edited(plain, "WIDTH = 64", "WIDTH = 128"))
        show("fused kernel", edited(plain, KERNEL, BY_HAND), plain)
        slow = edited(plain, LATER, SLOW_LATER)
        show("slow later", plain, slow)
        seconds = {
            name: [cpu_seconds(executor, source, seed, given.steps) for seed in range(3)]
            for name, source in (("baseline", plain), ("slow later", slow))
        }
        excess = decide.excess(seconds["slow later"], seconds["baseline"])
        noise = decide.tolerance(seconds["baseline"])
        print(f"slow later      took {excess:+.1%} of the baseline's CPU time in whole runs; tolerated are {noise:.1%}")


def edited(source: str, old: str, new: str) -> str:
    """`source` with its only `old` replaced."""
    assert source.count(old) == 1, old
    return source.replace(old, new)


def measured(executor: Executor, reference: str, source: str, steps: int) -> CostRatio:
    """One calibration."""
    cost = executor.cost_ratio(reference, source, steps, lambda _: None)
    assert isinstance(cost, CostRatio), cost
    return cost


def cpu_seconds(executor: Executor, source: str, seed: int, steps: int) -> float:
    """What a whole run takes by the kernel's account, evaluation excluded."""
    run = executor.run(
        RunSpec(source, seed, steps, (Slice("screen"),), wall_s=600 + steps, probe=False), lambda _: None
    )
    assert run.status == "ok", run.reason
    return run.cpu_s


@contextmanager
def busy(cores: list[int]) -> Iterator[None]:
    """Arithmetic on memory larger than the caches, on each of the cores."""
    context = multiprocessing.get_context("spawn")
    burners = [context.Process(target=burn, args=(core,), daemon=True) for core in cores]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def burn(core: int) -> None:
    """Never returns."""
    import numpy as np

    os.sched_setaffinity(0, {core})
    wide, small = np.ones(1 << 23), np.ones((256, 256))
    while True:
        np.multiply(wide, 1.0001, out=wide)
        small @ small


if __name__ == "__main__":
    main()
