#!/usr/bin/env python3
"""Training speed of our loop beside a plain PyTorch loop of the same model: tokens per wall second, one core each.

    scripts/bench_speed.py [--steps 300] [--rounds 7]

Arms, taken in turn in each round so that a busy machine slows all of them:
    node      the baseline as a node runs it: forked, sandboxed, batches from the harness (evaluation excluded)
    plain     an unconfined process with the textbook loop: batches stacked from a memory map, default AdamW, zero_grad
    fused     the same with AdamW(fused=True), which is what the baseline itself uses
Printed are the median of each arm and the median over the rounds of its ratio to `plain`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from platformdirs import user_cache_path
from swarm_node.trainer import corpus, task
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import RunSpec, Slice

PLAIN = """
import sys, time
import numpy as np, torch, torch.nn.functional as F
path, steps, fused = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fused"
torch.set_num_threads(1)
torch.manual_seed(1)
program = {}
exec(compile(sys.stdin.read(), "train.py", "exec"), program)
B, T = program["BATCH"], program["SEQ"]
data = np.memmap(path, dtype=np.uint8, mode="r")
model = program["GPT"](256)
opt = torch.optim.AdamW(model.parameters(), lr=program["LR"], fused=True if fused else None)

def batch():
    starts = torch.randint(len(data) - T, (B,))
    x = torch.stack([torch.from_numpy(data[i : i + T].astype(np.int64)) for i in starts])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + T].astype(np.int64)) for i in starts])
    return x, y

started = time.perf_counter()
for step in range(steps):
    x, y = batch()
    loss = F.cross_entropy(model(x).view(B * T, -1), y.view(-1))
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
print(B * T * steps / (time.perf_counter() - started))
"""


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    text = corpus.prepare(user_cache_path("swarm-node"))
    work = task.load("gpt-cpu", str(given.steps), bytes.fromhex(text.digest))
    tokens = 8 * 128 * given.steps  # BATCH * SEQ of the baseline
    speeds: dict[str, list[float]] = {"node": [], "plain": [], "fused": []}

    def plain(arm: str) -> float:
        command = [sys.executable, "-c", PLAIN, str(text.train), str(given.steps), arm]
        return float(subprocess.run(command, input=work.baseline, capture_output=True, text=True, check=True).stdout)

    with tempfile.TemporaryDirectory() as scratch, Executor(text, Path(scratch)) as executor:
        for seed in range(given.rounds):
            spec = RunSpec(work.baseline, seed, given.steps, (Slice("probe"),), wall_s=600, probe=False)
            result = executor.run(spec, lambda _: None)
            assert result.status == "ok", result.reason
            speeds["node"].append(tokens / (result.wall_s - result.eval_s))
            for arm in ("plain", "fused"):
                speeds[arm].append(plain(arm))
    for arm, values in speeds.items():
        ratio = statistics.median(mine / other for mine, other in zip(values, speeds["plain"], strict=True))
        print(f"{arm:6}{statistics.median(values):9,.0f} tokens/s  {ratio:.2f} x plain")


if __name__ == "__main__":
    main()
