"""A swarm whose second node asks a language model: a real HTTP server on loopback that speaks the OpenAI API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from fake_openai import FakeOpenAI, Reply, edit

from .conftest import TINY, NodeProcess
from .test_swarm import LOCAL, kept

Start = Callable[..., NodeProcess]
KEY = "sk-canary-9876543210"


@pytest.mark.long
def test_every_kind_of_bad_answer_is_a_recorded_outcome(start: Start) -> None:
    """A peer's diff is in the prompt; malformed, oversized, non-applying and crashing edits, a timeout and an HTTP 429
    each end in the ledger; the node lives on and then runs a good edit."""
    boot = start("boot", "bootstrap", *LOCAL, "--size", TINY)
    invite = boot.wait_for(r"swarm-node join (swarm1\S+)")[1]
    finder = start("finder", "join", invite, *LOCAL, "--proposer-seed", "339")
    finder.wait_for(r"#\d+ +KEEP", 240)
    win = kept(finder.records())[0]
    assert finder.stop() == 130

    malformed = Reply("no edit today")
    oversized = Reply(edit("LR = 1e-3", "LR = 1e-3\n" + "x = 1\n" * 9000))
    unfitting = Reply(edit("LR = 7e-7", "LR = 1"))
    crashing = Reply(edit("    model = GPT(ctx.vocab_size)", "    raise RuntimeError('scripted crash')"))
    good = Reply(edit("HEADS = 2", "HEADS = 4", title="four heads"))
    script = [  # the SDK itself tries three times
        malformed, malformed, oversized, oversized, unfitting, unfitting, crashing,
        *[Reply(delay=60)] * 3, *[Reply(status=429, headers={"Retry-After": "0"})] * 3, good,
    ]  # fmt: skip
    with FakeOpenAI(script) as server:
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url, "SWARM_NODE_LLM_PAUSE": "0"}
        flags = ("--llm-share", "1", "--llm-timeout", "2", "--experiments", "5")  # two of seven get no answer
        asker = start("asker", "join", invite, *LOCAL, *flags, env=env)
        assert asker.process.wait(300) == 0, asker.lines
    text = server.requests[0]["messages"][1]["content"]
    added = [line for line in win["body"]["diff"].splitlines() if line[:1] == "+" and line[:3] != "+++"]
    assert any(line.split("#")[0].rstrip() in text for line in added if len(line) > 8)
    assert win["body"]["title"] not in text

    mine = [r["body"] for r in asker.records() if r["kind"] == "result" and r["body"]["proposer"] == "llm"]
    causes = " | ".join(body["cause"] for body in mine)
    for cause in ("no JSON object", "larger than", "not found", "scripted crash", "no answer", "HTTP 429"):
        assert cause in causes, causes
    assert any(body["title"] == "four heads" and body["outcome"] != "crashed" for body in mine)
    assert sum(body["cost"]["tokens_in"] for body in mine) > 0
    everything = (
        "\n".join(asker.lines) + (asker.home / "node.log").read_text() + asker.command("feed", "--json", "--no-follow")
    )
    assert KEY not in everything


@pytest.mark.long
def test_a_dead_endpoint_falls_back_to_the_offline_proposer(start: Start) -> None:
    """With nobody at the endpoint the node says so once; the one experiment asked for is the built-in proposer's."""
    with FakeOpenAI([Reply()]) as server:
        url = server.url
    env: dict[str, Any] = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
    flags = ("--solo", "--size", TINY, "--model", "m", "--llm-share", "1", "--experiments", "1")
    node = start("solo", "join", *flags, env=env)
    assert node.process.wait(360) == 0, node.lines
    said = [line for line in node.lines if "offline proposer goes on" in line]
    assert len(said) == 1 and "cannot be reached" in said[0]
    proposers = [r["body"]["proposer"] for r in node.records() if r["body"]["outcome"] != "baseline"]
    assert proposers[0] == "llm" and proposers[1].startswith(("offline", "sweep")) and len(proposers) == 2


REACHING = {
    "write a file": "open('{there}/.bashrc', 'a').write('owned')",
    "plant a file": "open('/tmp/{canary}', 'w').write('owned')",
    "read a private key": "raise RuntimeError(open('{there}/.ssh/id').read())",
    "read the node's key": "raise RuntimeError(open('{home}/identity.key').read())",
    "read the API key": "import os; raise RuntimeError(os.environ['OPENAI_API_KEY'])",
    "ask the endpoint": "import socket; socket.create_connection(('127.0.0.1', {port})).send(b'GET /{canary}')",
    "run a program": "import subprocess; subprocess.run(['touch', '{there}/{canary}'], check=True)",
}


@pytest.mark.long
def test_a_captured_model_reaches_nothing(start: Start, tmp_path: Path) -> None:
    """Edits that write, read, dial and start programs, and answers that hold the key: nothing of it happens, each is a
    recorded crash or refusal, and the key is in no record, log or request but for its header."""
    there = tmp_path / "there"
    (there / ".ssh").mkdir(parents=True)
    (there / ".ssh" / "id").write_text("canary-private")
    (there / ".bashrc").write_text("harmless")
    canary = f"canary-{tmp_path.name}"
    with FakeOpenAI([Reply()]) as server:
        names = {"there": there, "home": tmp_path / "captured", "canary": canary, "port": server.url.split(":")[2][:-3]}
        first = "    model = GPT(ctx.vocab_size)"
        server.script[:] = [
            *(
                Reply(edit(first, f"    {code.format(**names)}\n{first}", title=name))
                for name, code in REACHING.items()
            ),
            Reply(edit("LR = 1e-3", "LR = 2e-3", title=f"use {KEY}")),
            Reply(edit("LR = 1e-3", f"LR = 2e-3  # {KEY[::-1]}", title="quicker")),
        ]
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url, "SWARM_NODE_LLM_PAUSE": "0", "HOME": str(there)}
        count = str(len(server.script))
        flags = ("--solo", "--size", TINY, "--llm-share", "1", "--experiments", count)
        node = start("captured", "join", *flags, env=env)
        assert node.process.wait(240) == 0, node.lines
    assert node.home == tmp_path / "captured"
    mine = [record["body"] for record in node.records() if record["body"].get("proposer") == "llm"]
    assert [body["outcome"] for body in mine] == ["crashed"] * int(count), mine
    assert [body["title"] for body in mine[: len(REACHING)]] == list(REACHING)
    assert all("Error" in body["cause"] for body in mine[: len(REACHING)]), mine
    assert {str(path.relative_to(there)) for path in there.rglob("*")} == {".ssh", ".ssh/id", ".bashrc"}
    assert (there / ".bashrc").read_text() == "harmless"
    assert not Path("/tmp", canary).exists()
    secrets = (KEY, KEY[::-1], "canary-private", "BEGIN")
    said = node.command("feed", "--json", "--no-follow") + "\n".join(node.lines) + repr(server.requests)
    said += (node.home / "node.log").read_text()
    assert not any(secret in said for secret in secrets)
    assert all(key == f"Bearer {KEY}" for key in server.keys)
