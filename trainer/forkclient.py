"""The worker's end of the fork server: start it confined, hand it jobs, end it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

from .sandbox.confine import FAILED
from .sandbox.policy import Policy
from .sandbox.spawn import spawn
from .types import SandboxUnavailable

# Not isolated mode: PYTHONHASHSEED must count, or sets of strings iterate differently after each restart. The
# environment is the policy's alone, and -P and -s keep the working directory and the user's packages out.
_PYTHON = (sys.executable, "-P", "-s", "-B", "-m", "swarm_node.trainer.forkserver")


class ForkServer:
    """A warm process that forks run children for this one."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.control, theirs = socket.socketpair()
        with theirs:
            self._process = spawn(policy, _PYTHON, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=None)
        self.pid = self._process.pid
        self.is_warm = False

    def has_ended(self) -> bool:
        """Whether there is no fork server any more."""
        return self._process.poll() is not None

    def read_ready(self) -> None:
        """Take the sign that torch is warm, once `control` is readable. SandboxUnavailable when it ended instead."""
        if not self.control.recv(16):
            raise self._ended()
        self.is_warm = True

    def submit(self, policy: Policy, core: int | None, fds: Sequence[int]) -> None:
        """Fork a run child, confined by `policy`, pinned to `core`, with `fds`: requests (read end), replies and log
        (write ends)."""
        body = json.dumps({"policy": policy.to_json(), "core": core, "worker": os.getpid()}).encode()
        try:
            socket.send_fds(self.control, [struct.pack(">I", len(body))], list(fds))
            self.control.sendall(body)
        except OSError:
            raise self._ended() from None

    def close(self) -> None:
        """Kill it. Its run children, if any, are children of this process."""
        self._process.kill()
        self._process.wait()
        self.control.close()

    def _ended(self) -> SandboxUnavailable:
        self._process.kill()  # it hung up, so it is ending at best
        status = self._process.wait()
        why = "a layer could not be applied" if status == FAILED else f"its warm process ended with status {status}"
        fix = "see worker.log in the scratch folder of the node's home"
        return SandboxUnavailable("the training sandbox does not start", why=why, fix=fix)
