"""What this machine is, each value with the reason why we believe it. Imports no torch and takes milliseconds."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 1 << 30
_RUN_MEMORY = 2 * GIB  # cap of one run; a plain run takes 0.35 GB
KERNELS = "ATEN_CPU_CAPABILITY"  # the user's choice of torch's kernels
_CHOICES = {"": ("default",), "AVX2": ("default", "avx2"), "AVX512": ("default", "avx2", "avx512")}  # by what it can do
_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Fact:
    """A detected value as text, and how it was found."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Hardware:
    """A machine as far as sizing research needs to know it."""

    cores: int  # physical cores this process may use, at least 1
    research_cores: int  # runs at a time
    memory: int  # bytes this process may use
    device: str  # for people: "AMD EPYC 7B13, 8 cores"
    hardware_class: str  # cpu, cuda, mps: what the machine has; gpt-cpu runs on the CPU of all of them
    gpu: str  # its name, or empty
    instruction_set: str  # torch's kernels: AVX512, AVX2, NEON, or the user's choice: "DEFAULT on AVX2"
    facts: tuple[Fact, ...]

    @property
    def summary(self) -> str:
        """One line for the start of a run."""
        gpu = self.gpu or "no CUDA GPU"
        return f"{self.cores} core{'s' if self.cores > 1 else ''}, {self.memory / GIB:.0f} GB, {gpu}"

    def profile(self) -> str:
        """One line for a prompt."""
        return f"{self.device}, {self.instruction_set}, {self.memory / GIB:.0f} GB memory; one thread per run, fp32"


def detect() -> Hardware:
    """Look at this machine."""
    cores, cores_reason = _cores()
    memory, memory_reason = _memory()
    gpu, hardware_class, gpu_reason = _gpu()
    research, research_reason = _research_cores(cores, memory)
    model = _cpu_model()
    instruction_set, set_reason = _instruction_set()
    facts = (
        Fact("cores", str(cores), cores_reason),
        Fact("memory", f"{memory / GIB:.1f} GB", memory_reason),
        Fact("gpu", gpu or "none", gpu_reason),
        Fact("runs at a time", str(research), research_reason),
        Fact("processor", model, "as the system names it"),
        Fact("instruction set", instruction_set, set_reason),
    )
    device = f"{model}, {cores} core{'s' if cores > 1 else ''}"[:80]
    return Hardware(cores, research, memory, device, hardware_class, gpu, instruction_set, facts)


def _cores() -> tuple[int, str]:
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    count, reason = physical, f"{physical} physical cores"
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        if allowed < count:
            count, reason = allowed, f"affinity allows {allowed} of {physical}"
    quota = _cgroup_quota()
    if quota is not None and quota < count:
        count, reason = max(1, int(quota)), f"the container's quota is {quota:.1f} cores"
    return count, reason


def _cgroup_quota() -> float | None:
    quotas = []
    for text in _cgroup_limits("cpu.max"):
        limit, _, period = text.partition(" ")
        if limit.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(limit) / int(period))
    return min(quotas, default=None)


def _memory() -> tuple[int, str]:
    total = psutil.virtual_memory().total
    limit = min((int(text) for text in _cgroup_limits("memory.max") if text.isdecimal()), default=total)
    return (limit, "the container's limit") if limit < total else (total, "all of the machine's")


def _cgroup_limits(name: str) -> list[str]:
    """What cgroup v2 says in `name`, for this process's group and each one above it; "max" means no limit.

    In a container its own group looks like the root; under systemd (CPUQuota=, MemoryMax=) it is further down.
    """
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
        group = next(line[3:].strip("/") for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):  # not Linux, or cgroup v1 only
        return []
    limits = []
    for folder in (_CGROUP / group, *(_CGROUP / group).parents):
        if folder.is_relative_to(_CGROUP) and (folder / name).is_file():
            limits.append((folder / name).read_text().strip())
    return limits


def _research_cores(cores: int, memory: int) -> tuple[int, str]:
    free_core = max(1, cores - 1)
    fitting = max(1, memory // _RUN_MEMORY)
    if fitting < free_core:
        return fitting, f"each may take {_RUN_MEMORY // GIB} GB of memory"
    return free_core, "one core is left to you and the network" if cores > 1 else "the only core"


def _gpu() -> tuple[str, str, str]:
    """(name, class, reason). nvidia-smi answers in about 50 ms; torch would take 2 s."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Apple GPU", "mps", "Apple silicon"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "", "cpu", "no nvidia-smi"
    query = [tool, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return "", "cpu", f"nvidia-smi failed: {type(error).__name__}"
    lines = [line for line in answer.splitlines() if "," in line]
    if not lines:
        return "", "cpu", "nvidia-smi lists none"
    name, capability = lines[0].rsplit(",", 1)
    count = f"{len(lines)} x " if len(lines) > 1 else ""
    return f"{count}{name.strip()}", f"cuda-sm{capability.strip().replace('.', '')}", "nvidia-smi"


def _cpu_model() -> str:
    try:
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def kernel_choice() -> str:
    """The user's ATEN_CPU_CAPABILITY, if this processor can follow it; else empty.

    torch itself believes what it is told, and dies of the first instruction that the processor does not have.
    """
    chosen = os.environ.get(KERNELS, "")
    native, _ = _native_set()
    return chosen if chosen in _CHOICES.get(native, _CHOICES[""]) else ""


def _instruction_set() -> tuple[str, str]:
    """A choice of lesser kernels does not bind the libraries for matrices, so the processor's own set stays named."""
    native, reason = _native_set()
    chosen = kernel_choice().upper()
    if chosen and chosen != native:
        return f"{chosen} on {native}".strip(), f"{KERNELS}, {reason}"
    if os.environ.get(KERNELS) and not chosen:
        reason += f"; {KERNELS} is no choice here and ignored"
    return native, reason


def _native_set() -> tuple[str, str]:
    """What torch picks by itself; it asks for these flags."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "NEON", "a 64-bit Arm"
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return "", "unknown"
    flags = next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    if {"avx512vl", "avx512bw", "avx512dq", "fma"} <= set(flags):
        return "AVX512", "/proc/cpuinfo"
    if {"avx2", "fma"} <= set(flags):
        return "AVX2", "/proc/cpuinfo"
    return "SSE", "neither AVX2 nor AVX512 in /proc/cpuinfo"
