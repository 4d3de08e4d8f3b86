"""A process that has torch warm and forks run children: 72 ms from a job to its first step instead of 3 s.

It runs confined, started by the sandbox's launcher, holds no held-out text and never runs a candidate. Each child
is forked twice, so that the worker, a subreaper, becomes its parent, reaps it and gets the kernel's accounting.
The worker's control channel is descriptor 0: a length with the job's pipes attached, then the job.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import socket
import struct
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F

from . import frames, harness
from .sandbox import confine
from .sandbox.policy import Policy

READY = b"ready"
REPARENT_S = 5.0
FDS = 3  # requests (read end), replies (write end), log (write end)
REQUESTS, REPLIES = 4, 5  # their numbers in the run child; the log is 1 and 2


def main() -> None:
    """Warm up, say so, and serve until the worker is gone."""
    torch.set_num_threads(1)
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    warm_up()
    gc.collect()
    gc.freeze()  # a child's collector must not touch, and so copy, every page of torch's objects
    control.sendall(READY)
    while True:
        job, fds = receive(control)
        if not job:
            return
        forked = os.fork()
        if not forked:
            if not os.fork():
                _become_run(json.loads(job), fds)
            os._exit(0)
        os.waitpid(forked, 0)
        for fd in fds:
            os.close(fd)


def warm_up() -> None:
    """Two throw-away training steps: the first use of optimizers imports for 1.2 s, kernels allocate for 50 ms."""
    table, head = torch.nn.Embedding(256, 32), torch.nn.Linear(32, 256)
    block = torch.nn.Sequential(torch.nn.LayerNorm(32), torch.nn.Linear(32, 96))
    parts = torch.nn.ModuleList([table, head, block])
    for fused in (True, False):
        optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-3, fused=fused)
        tokens = torch.randint(256, (8, 129))
        x = table(tokens[:, :-1])
        q, k, v = (part.view(8, 128, 2, 16).transpose(1, 2) for part in block(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(8, 128, 32)
        loss = F.cross_entropy(head(F.gelu(x + y)).view(-1, 256), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One job with its descriptors; empty when the worker is gone."""
    head, fds, _, _ = socket.recv_fds(control, 4, FDS)
    if len(head) < 4:
        return b"", []
    size = struct.unpack(">I", head)[0]
    data = b""
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            return b"", []
        data += part
    return data, fds


def _become_run(job: dict[str, Any], fds: list[int]) -> None:
    """Confine this process to one run, then let the harness read the candidate. Never returns."""
    try:
        _confine(job, fds)
        pipe = harness.Pipe(REQUESTS, REPLIES)
        pipe.write(frames.HELLO, frames.PID.pack(os.getpid()))
    except BaseException as error:  # a layer is missing
        confine.fail_closed(error)
    harness.run(pipe)
    os._exit(0)


def _confine(job: dict[str, Any], fds: list[int]) -> None:
    deadline = time.monotonic() + REPARENT_S
    while os.getppid() != job["worker"]:  # until the process between us has ended
        if time.monotonic() > deadline:
            raise TimeoutError("the worker did not become the parent")
        time.sleep(0.0005)
    confine.set_parent_death(job["worker"])
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]  # out of the way of the numbers that they get
    for fd, target in zip(high, (REQUESTS, REPLIES, 1), strict=True):
        os.dup2(fd, target)
    os.dup2(1, 2)
    confine.close_fds((0, 1, 2, REQUESTS, REPLIES))
    if job["core"] is not None:
        os.sched_setaffinity(0, {job["core"]})
    policy = Policy.from_json(job["policy"])
    os.chdir(policy.cwd)
    confine.confine(policy, "run")


if __name__ == "__main__":
    main()
    sys.exit(0)
