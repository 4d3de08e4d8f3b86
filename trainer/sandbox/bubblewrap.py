"""bubblewrap around the sandbox, where it is installed and works: a second opinion, by other means.

Namespaces of its own for mounts, network, IPC and host name: what the policy does not name is not merely forbidden, it
is not there. No namespace for processes: the worker accounts for its descendants by their ids.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

from .policy import Policy, loaders

_NAMESPACES = "--unshare-user-try --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try".split()
_PROBE_S = 10.0


def command(policy: Policy) -> list[str]:
    """What to put before the launcher's command; empty where bubblewrap is missing or does not work."""
    program = _program() if policy.bubblewrap else None
    arguments = tuple(_arguments(policy))
    return [program, *arguments] if program and _works(program, arguments) else []


def _program() -> str | None:
    return shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")  # not where the user's PATH may lead


def _arguments(policy: Policy) -> list[str]:
    """Every path of the policy and its parents, at its own place, and nothing else."""
    shown = ["--die-with-parent", "--cap-drop", "ALL", *_NAMESPACES, "--ro-bind", "/proc", "/proc"]
    if os.path.islink("/lib"):  # as the loader's cache names libraries
        shown += ["--symlink", os.readlink("/lib"), "/lib"]
    how = dict.fromkeys((*policy.trees, *policy.rx, sys.executable, *loaders()), "--ro-bind")
    how |= {path: "--dev-bind" for path in (*policy.dev, *how) if path.startswith("/dev/")}
    how |= dict.fromkeys(policy.rw, "--bind")
    for path in sorted(how):  # parents before what is mounted on top of them
        if os.path.exists(path):
            shown += [how[path], path, path]
    return [*shown, "--"]


@functools.cache
def _works(program: str, arguments: tuple[str, ...]) -> bool:
    """Whether this Python starts in it. It needs user namespaces, which containers and hardened kernels may refuse."""
    probe = [program, *arguments, sys.executable, "-I", "-S", "-c", ""]
    try:
        done = subprocess.run(probe, env={}, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
