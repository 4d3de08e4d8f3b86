"""Hardware detection: limits of containers, affinity, GPUs, each with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from swarm_node.trainer import hardware

GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Linux PC with 8 cores, 16 GiB, no GPU and no limits; its files lie in the returned folder."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 16 * GIB}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "cgroup/box/inner").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/box/inner\n")
    (tmp_path / "cpuinfo").write_text("model name\t: Fast  CPU\nflags\t\t: sse avx2 fma\n")
    return tmp_path


def nvidia_smi(machine: Path, script: str) -> None:
    """Put a command of that name, a real process, on the PATH."""
    path = machine / "bin/nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def reason(found: hardware.Hardware, name: str) -> str:
    return next(fact.reason for fact in found.facts if fact.name == name)


def test_this_machine_is_described_quickly_without_torch() -> None:
    """Detection on the real machine takes well under a second, gives a reason for every value, and no torch."""
    found, started = hardware.detect(), time.monotonic()
    hardware.detect()
    assert time.monotonic() - started < 0.5
    assert 1 <= found.research_cores <= found.cores <= (os.cpu_count() or 1)
    assert 0 < found.memory <= psutil.virtual_memory().total
    assert all(fact.value and fact.reason for fact in found.facts if fact.name != "instruction set")
    code = "import sys, swarm_node.trainer.hardware as h; h.detect(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_plain_machine(machine: Path) -> None:
    """Physical cores count, one is left free, and the line for people and the one for prompts name what there is."""
    found = hardware.detect()
    assert (found.cores, found.research_cores, found.memory) == (8, 7, 16 * GIB)
    assert (found.hardware_class, found.gpu, found.instruction_set) == ("cpu", "", "AVX2")
    assert found.summary == "8 cores, 16 GB, no CUDA GPU"
    assert found.device == "Fast CPU, 8 cores"
    assert found.profile().startswith("Fast CPU, 8 cores, AVX2, 16 GB memory")


AVX512 = "avx2 fma avx512f avx512vl avx512bw avx512dq"


@pytest.mark.parametrize(
    ("flags", "chosen", "carried", "reported"),
    [
        ("avx2 fma", "", "", "AVX2"),
        ("avx2 fma", "avx2", "avx2", "AVX2"),
        ("avx2 fma", "default", "default", "DEFAULT on AVX2"),
        ("avx2 fma", "avx512", "", "AVX2"),  # torch would believe it, and die of SIGILL
        ("avx2 fma", "AVX2", "", "AVX2"),
        ("avx2 fma", "default; rm -rf /", "", "AVX2"),
        (AVX512, "", "", "AVX512"),
        (AVX512, "avx512", "avx512", "AVX512"),
        (AVX512, "avx2", "avx2", "AVX2 on AVX512"),
        ("avx512f", "", "", "SSE"),
    ],
)
def test_the_users_choice_of_kernels(
    machine: Path, monkeypatch: pytest.MonkeyPatch, flags: str, chosen: str, carried: str, reported: str
) -> None:
    """ATEN_CPU_CAPABILITY counts where it names kernels that the processor has, and then shows in the record."""
    (machine / "cpuinfo").write_text(f"flags\t\t: sse {flags}\n")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", chosen)
    assert (hardware.kernel_choice(), hardware.detect().instruction_set) == (carried, reported)


def test_affinity_limits_cores(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process pinned to three cores counts three of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 5})
    found = hardware.detect()
    assert (found.cores, found.research_cores) == (3, 2)
    assert reason(found, "cores") == "affinity allows 3 of 8"


@pytest.mark.parametrize("folder", ["cgroup", "cgroup/box", "cgroup/box/inner"])
def test_cgroup_limits_at_every_level(machine: Path, folder: str) -> None:
    """Quota and memory limit are believed in the container's root, the process's own group and between."""
    (machine / folder / "cpu.max").write_text("250000 100000\n")
    (machine / folder / "memory.max").write_text(f"{5 * GIB}\n")
    found = hardware.detect()
    assert (found.cores, found.memory) == (2, 5 * GIB)
    assert reason(found, "cores") == "the container's quota is 2.5 cores"
    assert reason(found, "memory") == "the container's limit"


def test_tightest_cgroup_limit_wins(machine: Path) -> None:
    """A group that allows more than the one above it gains nothing."""
    (machine / "cgroup/box/cpu.max").write_text("50000 100000\n")
    (machine / "cgroup/box/inner/cpu.max").write_text("400000 100000\n")
    (machine / "cgroup/box/inner/memory.max").write_text(f"{64 * GIB}\n")
    found = hardware.detect()
    assert (found.cores, found.research_cores, found.memory) == (1, 1, 16 * GIB)


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense", "100000 0"])
def test_no_quota(machine: Path, text: str) -> None:
    """An unlimited or unreadable quota leaves all cores."""
    (machine / "cgroup/cpu.max").write_text(text)
    (machine / "cgroup/memory.max").write_text("max\n")
    found = hardware.detect()
    assert (found.cores, found.memory) == (8, 16 * GIB)


def test_no_cgroup_v2(machine: Path) -> None:
    """Only the old cgroups, or none at all, are no error."""
    (machine / "own").write_text("4:memory:/somewhere\n")
    assert hardware.detect().cores == 8
    (machine / "own").unlink()
    assert hardware.detect().cores == 8


def test_memory_limits_runs(machine: Path) -> None:
    """Each run may take 2 GB, so 5 GB make two runs at a time on eight cores."""
    (machine / "cgroup/memory.max").write_text(str(5 * GIB))
    found = hardware.detect()
    assert found.research_cores == 2
    assert reason(found, "runs at a time") == "each may take 2 GB of memory"


def test_nvidia_gpus(machine: Path) -> None:
    """The GPU's name, their number and the compute capability come from nvidia-smi."""
    nvidia_smi(machine, "echo 'NVIDIA H100 80GB HBM3, 9.0'; echo 'NVIDIA H100 80GB HBM3, 9.0'")
    found = hardware.detect()
    assert (found.gpu, found.hardware_class) == ("2 x NVIDIA H100 80GB HBM3", "cuda-sm90")
    assert found.summary.endswith("2 x NVIDIA H100 80GB HBM3")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'no driver' >&2; exit 9", "nvidia-smi failed: CalledProcessError"),
        ("echo 'No devices were found'", "nvidia-smi lists none"),
    ],
)
def test_broken_nvidia_driver(machine: Path, script: str, why: str) -> None:
    """A driver that does not answer, or a machine without cards, is a CPU machine and says why."""
    nvidia_smi(machine, script)
    found = hardware.detect()
    assert (found.hardware_class, found.gpu, reason(found, "gpu")) == ("cpu", "", why)


def test_apple_silicon(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac with its own chip has an mps GPU, NEON, and needs none of Linux's files."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    monkeypatch.delattr(os, "sched_getaffinity")
    for name in ("cpuinfo", "own"):
        (machine / name).unlink()
    found = hardware.detect()
    assert (found.hardware_class, found.gpu, found.instruction_set) == ("mps", "Apple GPU", "NEON")
    assert (found.cores, found.device) == (8, "arm, 8 cores")
