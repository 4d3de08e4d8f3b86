"""Installs swarm-node into the virtual environment that runs this file. Called by scripts/setup; standard library only.

Two things plain `pip install -e .` would do wrong on a fresh machine, and what is done instead:
- torch: the registry's newest build for Linux brings gigabytes of CUDA. Without an NVIDIA GPU the CPU build is taken,
  and nothing is installed when pip resolves to a build that needs CUDA packages.
- libp2p pins fastecdsa 2.3.2, which has no wheel and needs a compiler and GMP headers. swarm-node never calls it
  (Ed25519 keys only), so libp2p's other requirements are installed with a fastecdsa that has a wheel.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = Path(sys.prefix) / "swarm-node.stamp"
LOG = Path(sys.prefix) / "setup.log"
TORCH = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
FASTECDSA = "fastecdsa==3.0.1"  # the newest that ran with libp2p 0.8.1 and has wheels for every Python we support
LIBP2P = "libp2p==0.8.1"
SILENCE = 3.0 if sys.stderr.isatty() else 30.0  # seconds between two signs of life


def main() -> int:
    dev = "dev" in sys.argv[1:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    stamp = hashlib.sha256(repr((project, sys.version, sys.prefix, Path(__file__).read_text())).encode()).hexdigest()
    if STAMP.exists():
        have = STAMP.read_text().split()
        if have[0] == stamp and (have[1] == "dev" or not dev):
            return 0
    wanted = [text for text in project["project"]["dependencies"] if not re.match(r"(torch|libp2p)\b", text)]
    if dev:
        wanted += project["dependency-groups"]["dev"]
    say("installing torch (about 200 MB)")
    install_torch()
    say("installing libp2p and the rest")
    pip("install", "--no-deps", LIBP2P)
    pip("install", *wanted, *libp2p_requirements(), *project["build-system"]["requires"])
    pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    STAMP.write_text(f"{stamp} {'dev' if dev else 'run'}\n")
    say("ready")
    return 0


def install_torch() -> None:
    """The CPU build, also where there is a GPU: runs are on the CPU for now. One that is there is left alone."""
    if installed("torch"):
        return
    if platform.system() != "Linux":
        pip("install", f"torch=={TORCH}")
        return
    for source in ((), ("--index-url", TORCH_CPU_INDEX, "--retries", "1", "--timeout", "15")):
        if without_cuda(source):
            pip("install", *source, f"torch=={TORCH}")
            return
    raise SystemExit(
        "error: no CPU build of torch was found\n"
        f"  why: runs are on the CPU, pip alone would download gigabytes of CUDA, and {TORCH_CPU_INDEX} "
        f"has none for this Python or cannot be reached; all that pip said is in {LOG}\n"
        f"  fix: check the network and run this again, or: .venv/bin/pip install FILE_OR_SOURCE_OF_A_CPU_BUILD"
    )


def without_cuda(source: tuple[str, ...]) -> bool:
    """Whether pip would install torch from `source` without any CUDA package. Downloads metadata only."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = ["install", "--dry-run", "--quiet", "--report", report.name, *source, f"torch=={TORCH}"]
        if run_pip(command):
            return False
        names = [item["metadata"]["name"] for item in json.load(report)["install"]]
    return not any(name.startswith(("nvidia", "cuda", "triton")) for name in names)


def libp2p_requirements() -> list[str]:
    """What libp2p asks for, with a fastecdsa that needs no compiler."""
    asked = [text for text in metadata.requires("libp2p") or [] if "extra ==" not in text]
    return [text for text in asked if not text.startswith("fastecdsa")] + [FASTECDSA]


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def pip(*arguments: str) -> None:
    """Run pip, or stop with the end of what it said."""
    if run_pip(arguments):
        print("\n".join(LOG.read_text(errors="replace").splitlines()[-15:]), file=sys.stderr)
        raise SystemExit(
            f"error: pip failed\n  why: see above, or all of it in {LOG}\n  fix: check the network, run this again"
        )


def run_pip(arguments: Sequence[str]) -> int:
    """Run pip with its output in a log: it calls the fastecdsa above an error, which it is not."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    with LOG.open("ab") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as pip:
        begun, start = time.monotonic(), log.tell()
        while True:
            try:
                return pip.wait(SILENCE)
            except subprocess.TimeoutExpired:
                note(f"{time.monotonic() - begun:.0f} s   {latest(start)}")


def latest(start: int) -> str:
    """What pip said last of a package, in the log from byte `start` on."""
    with LOG.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").splitlines()
    told = [
        line.strip()
        for line in lines
        if line.strip().startswith(("Collecting", "Downloading", "Processing", "Installing"))
    ]
    names = told[-1].removeprefix("Installing collected packages: ") if told else ""
    return names[:60] if not told or names == told[-1] else f"Installing {names.count(',') + 1} packages"


def say(text: str) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}setup: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """A sign of life, in a terminal on one line that the next thing said overwrites."""
    if sys.stderr.isatty():
        print(f"\r\033[K  {text}\r", end="", file=sys.stderr, flush=True)
    else:
        say(f"  {text}")


if __name__ == "__main__":
    sys.exit(main())
