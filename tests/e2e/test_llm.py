"""A swarm whose second node asks a language model: a real HTTP server on loopback that speaks the OpenAI API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from fake_openai import FakeOpenAI, Reply, edit

from .conftest import TINY, NodeProcess
from .test_swarm import LOCAL, kept

Start = Callable[..., NodeProcess]
KEY = "sk-canary-9876543210"


def test_every_kind_of_bad_answer_is_a_recorded_outcome(start: Start) -> None:
    """A peer's diff is in the prompt; malformed, oversized, non-applying and crashing edits, a timeout and an HTTP 429
    each end in the ledger; the node lives on and then runs a good edit."""
    boot = start("boot", "bootstrap", *LOCAL, "--size", TINY)
    invite = boot.wait_for(r"swarm-node join (swarm1\S+)")[1]
    finder = start("finder", "join", invite, *LOCAL, "--proposer-seed", "37")
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
        flags = ("--llm-timeout", "2", "--experiments", "7")
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


def test_a_dead_endpoint_falls_back_to_the_offline_proposer(start: Start) -> None:
    """With nobody at the endpoint the node says so once and goes on with built-in ideas."""
    with FakeOpenAI([Reply()]) as server:
        url = server.url
    env: dict[str, Any] = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
    node = start("solo", "join", "--solo", "--size", TINY, "--model", "m", "--experiments", "2", env=env)
    assert node.process.wait(200) == 0
    said = [line for line in node.lines if "offline proposer goes on" in line]
    assert len(said) == 1 and "cannot be reached" in said[0]
    proposers = [r["body"]["proposer"] for r in node.records() if r["body"]["outcome"] != "baseline"]
    assert proposers[0] == "llm" and proposers[1].startswith("offline")
