#!/usr/bin/env python3
"""What the sandbox stops, and what it costs.

    scripts/bench_sandbox.py matrix          the attack suite here, now, as a table of attack x backend
    scripts/bench_sandbox.py cost [--repeats 12]

`cost` starts the same program by turns as a plain subprocess, confined, and confined in bubblewrap, and measures the
time to its first line and the CPU time of a fixed piece of training; then what a whole run child costs beside them.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from swarm_node.trainer.corpus import Corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.sandbox import bubblewrap
from swarm_node.trainer.sandbox.policy import Policy, exec_policy, fork_server_policy
from swarm_node.trainer.sandbox.spawn import spawn
from swarm_node.trainer.types import RunSpec, Slice

ROOT = Path(__file__).resolve().parent.parent
BARE = "test_attack_succeeds_without_the_sandbox"
BEGIN = "import sys; print('x', flush=True)\n"
TRAIN = """
import time, torch
torch.set_num_threads(1); torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256))
optimizer = torch.optim.AdamW(model.parameters())
began = time.process_time()
for _ in range(400):
    loss = model(torch.randn(64, 256)).square().mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
print(time.process_time() - began)
"""
NOTHING = "def train(ctx): raise SystemExit('nothing to do')\n"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["matrix", "cost"])
    parser.add_argument("--repeats", type=int, default=12)
    given = parser.parse_args()
    if given.what == "matrix":
        matrix()
    else:
        cost(given.repeats)


def matrix() -> None:
    """Print one line per attack. Its columns: whether it worked bare, and what each backend did to it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        only = ["--deselect", "tests/attacks/test_unprivileged.py"]
        command = [sys.executable, "-m", "pytest", "-q", "tests/attacks", f"--junitxml={report}", *only]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        cases = ElementTree.parse(report).iter("testcase")
        table: dict[str, dict[str, str]] = defaultdict(dict)
        for case in cases:
            test, _, parameters = case.attrib["name"].partition("[")
            backend, attack = ("bare", parameters[:-1]) if test == BARE else _parameters(parameters[:-1])
            table[attack][backend] = _outcome(case, test == BARE)
    backends = list(dict.fromkeys(backend for row in table.values() for backend in row))
    print("| attack |", " | ".join(backends), "|\n|" + " --- |" * (1 + len(backends)))
    for attack, row in table.items():
        print(f"| {attack} |", " | ".join(row.get(backend, "") for backend in backends), "|")
    for backend in backends:
        outcomes = [row[backend] for row in table.values() if backend in row]
        print(f"{backend}: {', '.join(f'{outcomes.count(one)} {one}' for one in dict.fromkeys(outcomes))}")


def _parameters(text: str) -> tuple[str, str]:
    """Backend and attack; both may hold dashes."""
    known = ("run-abi-1", "run-bubblewrap", "run-gpu", "run", "exec-abi-1", "exec")
    backend = next(name for name in known if text.startswith(name + "-"))
    return backend, text[len(backend) + 1 :]


def _outcome(case: ElementTree.Element, bare: bool) -> str:
    if case.find("skipped") is not None:
        return "-"
    failed = case.find("failure") is not None or case.find("error") is not None
    return ("works", "FAILS")[failed] if bare else ("stopped", "ESCAPES")[failed]


def cost(repeats: int) -> None:
    """Print medians and the quartiles of each way, and its ratio to the plain subprocess."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        text = root / "train.bin"
        text.write_bytes(b"training text " * 4096)
        scratch = root / "scratch"
        (scratch / "own").mkdir(parents=True)
        plain = exec_policy(fork_server_policy(scratch, text, [], 2 << 30), scratch / "own", 600)
        outer = exec_policy(fork_server_policy(scratch, text, [], 2 << 30, bubblewrap=True), scratch / "own", 600)
        ways: dict[str, Policy | None] = {"plain subprocess": None, "confined": plain}
        if bubblewrap.command(outer):
            ways["confined, in bubblewrap"] = outer
        table("time to the first line, ms", ways, repeats, lambda policy: 1000 * first_line(policy))
        table("CPU time of 400 steps, s", ways, repeats, training)
        held = {name: text for name in ("probe", "screen", "confirm", "audit")}
        corpus = Corpus("00" * 32, text, held, (), text.stat().st_size, "made for this measurement")
        spec = RunSpec(NOTHING, 1, 4, (Slice("screen"),), wall_s=60.0)
        for outer_too in (False, True):
            with Executor(corpus, root / f"runs-{outer_too}", bubblewrap=outer_too) as executor:
                run = partial(executor.run, spec, lambda _: None)
                times = [1000 * timed(run) for _ in range(repeats)]
            print(f"whole run child that ends at once, bubblewrap {outer_too}: {figures(times)} ms")


def table(title: str, ways: dict[str, Policy | None], repeats: int, measure: Callable[[Policy | None], float]) -> None:
    """Take turns, so that whatever else the machine does falls on all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, policy in ways.items():
            found[name].append(measure(policy))
    base = next(iter(found.values()))
    print(title)
    for name, values in found.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"  {name:<26} {figures(values)}   x {ratio:.3f}")


def figures(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def first_line(policy: Policy | None) -> float:
    """Seconds from the start of a program to its first line."""
    began = time.perf_counter()
    with start(policy, BEGIN) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"x\n"
        passed = time.perf_counter() - began
        process.communicate()
    return passed


def training(policy: Policy | None) -> float:
    """CPU seconds of the steps, as the program itself counts them."""
    with start(policy, TRAIN) as process:
        out, _ = process.communicate()
    return float(out)


def start(policy: Policy | None, program: str) -> subprocess.Popen[bytes]:
    """A Python with its packages."""
    argv = [sys.executable, "-P", "-s", "-B", "-c", program]
    if policy is None:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return spawn(policy, argv)


if __name__ == "__main__":
    main()
