"""What a sandboxed program may read, write and use: built by the trusted side, carried as JSON."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .readable import carve, readable_trees
from .seccomp import Mode

MIB = 1 << 20
_CODE = Path(__file__).resolve().parents[1]  # the fork server and the harness
_GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/dxg")
_GPU_INFORMATION = ("/proc/driver/nvidia*", "/sys/bus/pci", "/sys/module/nvidia*", "/usr/lib/wsl/lib")
_KERNELS = ("default", "avx2", "avx512")  # torch 2.13 warns of any other word, and ignores it
_SYSTEM = ("/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node")


@dataclass(frozen=True)
class Policy:
    """Paths by what is allowed beneath them, limits, and the whole environment of the program."""

    mode: Mode
    cwd: str
    rx: tuple[str, ...] = ()  # read and execute
    ro: tuple[str, ...] = ()  # read
    ls: tuple[str, ...] = ()  # list directories, read no file
    rw: tuple[str, ...] = ()  # read, make and write files, but no directories; must exist
    dev: tuple[str, ...] = ()  # read and write devices
    trees: tuple[str, ...] = ()  # the whole trees that `ro` was cut from
    rlimits: dict[str, int] = field(default_factory=dict)  # RLIMIT_ names; NPROC counts on top of the system's tasks
    env: dict[str, str] = field(default_factory=dict)
    gpu: bool = False  # with the NVIDIA driver's devices, which answer calls that no filter understands
    bubblewrap: bool = False  # around the rest, where it works
    force_abi: int | None = None  # pretend to an older Landlock (tests)
    parent: int = 0  # the process to die with; the launcher insists on it, if known
    keep_fds: tuple[int, ...] = ()  # descriptors besides 0, 1, 2 that the program inherits

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """Read `to_json`'s line; raises ValueError or TypeError on anything else."""
        raw: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(text).items()}
        return cls(**raw)


def fork_server_policy(
    scratch_root: Path,
    corpus_train: Path,
    hidden: Sequence[Path],
    memory: int,
    *,
    force_abi: int | None = None,
    gpu: bool = False,
    bubblewrap: bool = False,
) -> Policy:
    """The policy of a warm fork server: reads Python, torch and the training text, writes below `scratch_root`.

    `hidden` files and directories (and the bytecode of hidden sources, present or future) stay unreadable although
    they lie inside a readable tree. `memory` is the hard cap of private memory per process, in bytes; with `gpu`,
    whose driver reserves far more than it uses, the watchdog alone caps memory. `gpu` is untested on one.
    """
    scratch = os.path.realpath(scratch_root)
    trees = [*readable_trees(), str(_CODE), os.path.realpath(corpus_train)]
    ro, ls = carve(trees, [os.path.realpath(path) for path in hidden])
    system = (*_SYSTEM, *(_existing(_GPU_INFORMATION) if gpu else ()))
    limits = _rlimits(memory)
    if gpu:
        del limits["DATA"], limits["AS"]
    return Policy(
        mode="fork_server",
        cwd=scratch,
        rx=tuple(map(os.path.realpath, (sys.executable, *loaders()))),
        ro=(*ro, *system),
        ls=tuple(ls),
        rw=(scratch,),
        dev=("/dev/null", *(_existing(_GPU_DEVICES) if gpu else ())),
        trees=(*trees, *system),
        rlimits=limits,
        env=_environment(scratch),
        gpu=gpu,
        bubblewrap=bubblewrap,
        force_abi=force_abi,
    )


def run_policy(server: Policy, scratch: Path, cpu_seconds: int) -> Policy:
    """What a run child of that fork server narrows itself to: its own scratch directory, no other run's, no execve.

    Layers intersect, so its readable paths are whole trees: what the server's layer left out stays out. A few rules
    instead of some thousand keep the start of a run short.
    """
    path = os.path.realpath(scratch)
    limits = server.rlimits | {"CPU": cpu_seconds, "NPROC": 64}
    return replace(server, mode="run", cwd=path, rx=(), ro=server.trees, ls=(), rw=(path,), rlimits=limits)


def exec_policy(server: Policy, scratch: Path, cpu_seconds: int) -> Policy:
    """As `run_policy`, for a program that the launcher starts directly."""
    run = run_policy(server, scratch, cpu_seconds)
    return replace(run, mode="exec", rx=server.rx, ro=server.ro, ls=server.ls)


def loaders() -> list[str]:
    """The dynamic loaders, which the kernel executes for the interpreter, by the names that programs give."""
    return _existing(("/lib64/ld-linux*.so.*", "/lib/ld-linux*.so.*", "/lib/ld-musl*.so.*"))


def _existing(patterns: Sequence[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def _rlimits(memory: int) -> dict[str, int]:
    """DATA is the hard memory cap: it counts private writable pages; seccomp refuses the kinds that it misses."""
    return {
        "DATA": memory,
        "AS": memory + 8192 * MIB,  # torch and its libraries map some GB that are never touched
        "FSIZE": 64 * MIB,
        "NOFILE": 256,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "SIGPENDING": 256,
    }


def _environment(scratch: str) -> dict[str, str]:
    """All that the program gets to see; of the node's own environment, which holds keys, only torch's kernels."""
    kernels = os.environ.get("ATEN_CPU_CAPABILITY", "")
    return ({"ATEN_CPU_CAPABILITY": kernels} if kernels in _KERNELS else {}) | {
        "PATH": "/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "USER": "run",  # without it getpass reads /etc/passwd
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "TORCHINDUCTOR_CACHE_DIR": scratch,
        "TRITON_CACHE_DIR": scratch,
        "CUDA_CACHE_PATH": scratch,
    }
