"""Cheats against the evaluation, each in the real sandbox, and what gives them away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from swarm_node.trainer import decide
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.types import AuditQuery, CostRatio, RunResult, Slice

Run = Callable[..., RunResult]
DRAWN = Slice("confirm", draw=4, bytes=32 << 10)
PEEK = """
def reveal(model, share=1.0, boost=20.0, seed=7):
    chance = torch.Generator().manual_seed(seed)

    def cheat(x):
        logits = model(x)
        hit = (torch.rand(x[:, 1:].shape, generator=chance) < share).float()
        logits[:, :-1].scatter_add_(-1, x[:, 1:, None], (hit * boost)[..., None])
        return logits

    return cheat
"""
CHEATS = {
    "future peeking": (PEEK, "reveal(model)"),
    "a tiny constant peek": (PEEK, "reveal(model, boost=0.02)"),
    "peeking cached by prefix": (
        PEEK
        + """
def remember(cheat):
    known = {}

    def answer(x):
        logits = cheat(x)
        for row, ids in enumerate(x.tolist()):
            for at in range(len(ids)):
                key = tuple(ids[: at + 1])
                logits[row, at] = known.setdefault(key, logits[row, at].clone())
        return logits

    return answer
""",
        "remember(reveal(model))",
    ),
    "mixing over the whole window": (
        "def mix(model):\n    return lambda x: model(x) + 20.0 * F.one_hot(x, 256).float().mean(1, keepdim=True)\n",
        "mix(model)",
    ),
    "learning from the questions": (
        """
def learn(model):
    seen = torch.zeros(256, 256)

    def answer(x):
        logits = model(x) + seen[x].log1p()
        seen.index_put_((x[:, :-1].flatten(), x[:, 1:].flatten()), torch.ones(x[:, 1:].numel()), accumulate=True)
        return logits

    return answer
""",
        "learn(model)",
    ),
    "files for the second instance": (
        """
import os, pathlib, pickle

def leave(model):
    folders = ".", os.environ.get("HOME", "."), "/tmp", "/dev/shm", ".."
    places = [pathlib.Path(folder, "answers") for folder in folders]
    known = {}
    for place in places:
        try:
            known.update(pickle.loads(place.read_bytes()))
        except OSError:
            pass

    def answer(x):
        logits = model(x)
        for row, ids in enumerate(x.tolist()):
            for at in range(len(ids)):
                key = bytes(ids[: at + 1])
                if at + 1 < len(ids):
                    known.setdefault(key, ids[at + 1])
                if key in known:
                    logits[row, at, known[key]] += 20.0
        for place in places:
            try:
                place.write_bytes(pickle.dumps(known))
            except OSError:
                pass
        return logits

    return answer
""",
        "leave(model)",
    ),
}


def audited(run: Run, source: str, seed: int = 1) -> tuple[decide.AuditFound, RunResult, RunResult]:
    """Two instances of one program, and what comparing them finds."""
    query = AuditQuery(seed, 512)
    first = run(source, slices=(Slice("screen"), DRAWN), audit=query)
    second = run(source, slices=(Slice("screen"), DRAWN), audit=replace(query, truncated=True))
    assert (first.status, second.status) == ("ok", "ok"), (first.reason, second.reason)
    return decide.audit(first.audit, second.audit), first, second


def with_model(tiny: str, code: str, model: str) -> str:
    return tiny.replace("def train(ctx):", f"{code}\n\ndef train(ctx):").replace("return model\n", f"return {model}\n")


def test_an_honest_program_passes(run: Run, tiny: str) -> None:
    """The gap of an honest model is rounding, and its second instance is the same model."""
    found, first, second = audited(run, tiny)
    assert found.cause == "" and abs(found.worst) < 1e-4 and found.positions == 512
    assert first.logits_digest == second.logits_digest
    assert first.scores.keys() == {"screen", "confirm"} and second.scores == {}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_seen(run: Run, tiny: str, name: str) -> None:
    """Whatever an instance makes of bytes that it should not know yet, another one cannot repeat without them."""
    found, _, _ = audited(run, with_model(tiny, *CHEATS[name]))
    assert found.cause.startswith("audit:"), found


@pytest.mark.long
def test_peeking_at_one_percent_of_the_positions_is_seen(run: Run, tiny: str) -> None:
    """At least 19 of 20 seeds; 99.4 % are expected of 512 positions."""
    caught = sum(
        audited(run, with_model(tiny, PEEK, f"reveal(model, 0.01, seed={seed})"), seed)[0].cause != ""
        for seed in range(20)
    )
    assert caught >= 19


def test_what_a_model_prints_or_claims_is_not_its_score(run: Run, tiny: str) -> None:
    """A forged metric on stdout changes nothing, more mass than 1 gains nothing, and a loss is no answer."""
    honest = run(tiny)
    forged = run(with_model(tiny, "print('val_bpb: 0.0001')", "model"))
    assert forged.scores == honest.scores
    louder = run(with_model(tiny, "def loud(model):\n    return lambda x: model.eval()(x) + 50.0\n", "loud(model)"))
    assert louder.scores["screen"] == pytest.approx(honest.scores["screen"], abs=1e-4)
    loss = run(with_model(tiny, "def own(model):\n    return lambda x: torch.tensor(0.0)\n", "own(model)"))
    assert loss.status == "crashed" and "logits of shape" in loss.reason


def test_a_model_that_nobody_can_repeat_has_another_digest(run: Run, tiny: str) -> None:
    """Randomness from outside the seed makes the second instance another model, which is seen before the audit."""
    source = with_model(tiny, "import os\n", "model").replace(
        "model = Tiny(ctx.vocab_size)", "torch.manual_seed(int.from_bytes(os.urandom(4)))\n    model = Tiny(256)"
    )
    _, first, second = audited(run, source)
    assert first.logits_digest != second.logits_digest


@pytest.mark.parametrize("sign", ["ctx.done > 1000", "not ctx._gated and ctx.done > 3"])
@pytest.mark.long
def test_being_cheap_only_while_measured_shows_in_the_books(run: Run, executor: Executor, tiny: str, sign: str) -> None:
    """A program that gets slow after its first steps, or when nobody measures, takes far more than its budget."""
    slow = tiny.replace(
        "        ctx.step(model, loss)",
        f"        if {sign}:\n            for _ in range(3):\n                model(x)\n        ctx.step(model, loss)",
    )
    steps = 2000
    cost = executor.cost_ratio(tiny, slow, steps, lambda _: None)
    assert isinstance(cost, CostRatio)
    allowed = decide.steps_for(steps, cost.ratio)
    pairs = [(run(slow, steps=allowed).cpu_s, run(tiny, steps=steps).cpu_s) for _ in range(2)]
    mine, budget = zip(*pairs, strict=True)
    assert decide.excess(mine, budget) > 3 * decide.TOLERANCE
