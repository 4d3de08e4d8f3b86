"""What a sandboxed process uses right now: memory, threads, disk. Read from outside, so that it cannot lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Soft limits of one run; a reading above one of them is a reason to kill it."""

    rss: int  # bytes, shared pages of the fork server included
    threads: int = 64
    disk: int = 64 << 20  # bytes
    inodes: int = 1000


@dataclass(frozen=True)
class Usage:
    """One reading."""

    rss: int
    threads: int
    disk: int
    inodes: int


def read_usage(pid: int, scratch: Path, max_inodes: int = 100_000) -> Usage:
    """Memory (resident and swapped) and threads of a process and its descendants, disk and entries of a directory.

    A process that is gone counts as zero. The walk stops at `max_inodes`.
    """
    rss = threads = 0
    for member in _tree(pid):
        member_rss, member_threads = _memory_and_threads(member)
        rss += member_rss
        threads += member_threads
    disk, inodes = disk_usage(scratch, max_inodes)
    return Usage(rss, threads, disk, inodes)


def exceeded(usage: Usage, limits: Limits) -> str:
    """Why this reading must end the run, in a few words; empty when it need not."""
    if usage.rss > limits.rss:
        return f"used {usage.rss >> 20} MiB of memory, the limit is {limits.rss >> 20}"
    if usage.threads > limits.threads:
        return f"started {usage.threads} threads, the limit is {limits.threads}"
    if usage.disk > limits.disk:
        return f"wrote {usage.disk >> 20} MiB to disk, the limit is {limits.disk >> 20}"
    if usage.inodes > limits.inodes:
        return f"made {usage.inodes} files, the limit is {limits.inodes}"
    return ""


def disk_usage(directory: Path, max_inodes: int = 100_000) -> tuple[int, int]:
    """(allocated bytes, entries) below a directory; stops counting at `max_inodes` entries."""
    disk = inodes = 0
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    inodes += 1
                    disk += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if inodes >= max_inodes:
                        return disk, inodes
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError:
            return disk, max_inodes  # what cannot be counted is too much
    return disk, inodes


def _tree(pid: int) -> list[int]:
    found = [pid]
    for member in found:
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                found += map(int, Path(f"/proc/{member}/task/{task}/children").read_text().split())
        except OSError:
            continue  # ended meanwhile
    return found


def _memory_and_threads(pid: int) -> tuple[int, int]:
    rss = threads = 0
    try:
        with open(f"/proc/{pid}/status") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key in ("VmRSS", "VmSwap"):
                    rss += int(value.split()[0]) << 10
                elif key == "Threads":
                    threads = int(value)
    except OSError:
        pass  # ended meanwhile
    return rss, threads
