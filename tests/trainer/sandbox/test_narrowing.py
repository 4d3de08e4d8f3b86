"""A fork server with torch warm is confined, its run children narrow themselves further, and training is unchanged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from swarm_node.trainer import sandbox
from swarm_node.trainer.sandbox.policy import run_policy
from swarm_node.trainer.sandbox.readable import site_directories
from swarm_node.trainer.sandbox.spawn import spawn

TRAIN = """
import importlib, json, os, sys, threading
job = json.load(sys.stdin)
sys.path += job["path"]
import torch
import torch.nn.functional as F
torch.set_num_threads(1)

def train():
    torch.manual_seed(7)
    table, mix, head = torch.nn.Embedding(256, 64), torch.nn.Linear(64, 192), torch.nn.Linear(64, 256)
    flat = [*table.parameters(), *mix.parameters(), *head.parameters()]
    losses = []
    for optimizer in (torch.optim.AdamW(flat, lr=1e-2, fused=True), torch.optim.AdamW(flat, lr=1e-2, foreach=True)):
        for _ in range(3):
            tokens = torch.randint(256, (4, 65))
            x = table(tokens[:, :-1])
            q, k, v = (part.view(4, 64, 4, 16).transpose(1, 2) for part in mix(x).chunk(3, dim=-1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(4, 64, 64)
            loss = F.cross_entropy(head(F.gelu(x + y)).view(-1, 256), tokens[:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    update = mix.weight.grad.bfloat16()  # Newton-Schulz, as Muon does it
    for _ in range(3):
        gram = update.mT @ update
        update = 3.4445 * update + update @ (-4.775 * gram + 2.0315 * gram @ gram)
    thread = threading.Thread(target=lambda: head(torch.ones(1, 64)).sum().backward())
    thread.start()
    thread.join()
    torch.save(mix.state_dict(), "mix.pt")
    return [*losses, update.float().sum().item(), head.weight.grad.sum().item()]

if not job["policy"]:
    print(json.dumps(train()))
    sys.exit()

def denied(attempt, *arguments):
    try: attempt(*arguments)
    except OSError: return True

server = os.getpid()
confine = importlib.import_module("sandbox.confine")
train()
if not os.fork():
    try:
        confine.set_parent_death(server)
        confine.close_fds((1, 2))
        policy = confine.Policy.from_json(job["policy"])
        os.chdir(policy.cwd)
        confine.confine(policy, "run")
    except BaseException as error:
        confine.fail_closed(error)
    walls = [denied(os.listdir, ".."), denied(open, "../mix.pt")]
    walls += [denied(os.fork), denied(os.execv, sys.executable, ["x"])]
    print(json.dumps([train(), walls]), flush=True)
    os.abort()
print(os.wait()[1])
"""


def program(place, policy: str | None) -> tuple[list[str], str]:
    package = str(Path(next(iter(sandbox.__path__))).parent)
    job = {"path": [package, *site_directories()], "policy": policy}
    return [sys.executable, "-s", "-S", "-P", "-B", "-c", TRAIN], json.dumps(job)


@pytest.mark.long
def test_training_is_the_same_inside(server_policy, place):
    """AdamW, attention, Muon's products and a backward thread give the same bits inside as outside."""
    argv, job = program(place, run_policy(server_policy, place.own, 60).to_json())
    with spawn(server_policy, argv, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(job.encode(), timeout=120)
    lines = out.decode().splitlines()
    assert process.returncode == 0 and len(lines) == 2, err.decode()
    inside, walls = json.loads(lines[0])
    assert walls == [True] * 4
    assert os.WTERMSIG(int(lines[1])) == signal.SIGABRT  # abort, which torch and glibc call, is a signal to oneself

    argv, job = program(place, None)
    plain = subprocess.run(
        argv, input=job, capture_output=True, text=True, cwd=place.own, env=server_policy.env, check=True
    )
    assert inside == json.loads(plain.stdout)
