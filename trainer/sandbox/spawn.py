"""Start a program inside the sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from . import bubblewrap
from .policy import Policy

_LAUNCHER = str(Path(__file__).resolve().parent / "launch.py")
Stream = int | IO[bytes] | None


def spawn(
    policy: Policy,
    argv: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Run argv (argv[0] an absolute path that the policy lets execute) under the policy, as leader of its own session.

    It dies with the calling thread. Exit status 126: the sandbox could not be applied and argv did not run.
    """
    outer = bubblewrap.command(policy)
    policy = replace(policy, parent=0 if outer else os.getpid(), keep_fds=tuple(pass_fds))
    with os.fdopen(os.memfd_create("policy"), "w") as file:  # thousands of paths: too long for an argument or a pipe
        file.write(policy.to_json())
        file.flush()
        command = [*outer, sys.executable, "-I", "-S", "-B", _LAUNCHER, f"/proc/self/fd/{file.fileno()}", "--", *argv]
        fds = (file.fileno(), *pass_fds)
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env={}, pass_fds=fds)
