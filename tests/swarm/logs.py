"""Logs of invented authors, with results and re-runs as records carry them."""

from __future__ import annotations

from typing import Any

from swarm_node.protocols.records import Environment, Evidence, Record, Result, Run, Verification, sign_record
from swarm_node.protocols.signing import public_key

KEYS = [bytes([number]) * 32 for number in range(40)]
OWN = public_key(KEYS[0])
TASK, ELSEWHERE, BASELINE = b"t" * 32, b"e" * 32, b"0" * 32
ENVIRONMENT = Environment(hardware="cpu", device="d", system="s", python="3", library="t")
RUN = Run(arm="candidate", role="confirm", slice="c", seed=1, steps=1, score=3.0, seconds=1.0, digest=b"d" * 32)

EVIDENCE = Evidence(pairs=4, required=0.0, low=0.1, high=0.2, e_value=99.0, level=0.05)


class Log:
    """Signs bodies as one author's log."""

    def __init__(self, key: bytes) -> None:
        self.key, self.last, self.seq = key, None, 0
        self.author = public_key(key)

    def say(self, body: Result | Verification) -> Record:
        self.seq += 1
        record = sign_record(self.key, epoch=0, seq=self.seq, prev=self.last, time=self.seq, body=body)
        self.last = record.id
        return record


def result(outcome: str, program: int, parent: int | None = 0, **fields: Any) -> Result:
    name = lambda number: BASELINE if number == 0 else bytes([number]) * 32  # noqa: E731
    kept = (
        {"diff": "--- a/train.py\n", "score": 3.0, "gain": 0.1, "runs": (RUN,), "evidence": EVIDENCE}
        if outcome == "kept"
        else {}
    )
    base: dict[str, Any] = {
        "task": TASK, "outcome": outcome, "program": name(program), "title": "t",
        "parent": None if parent is None else name(parent),
        "normal": bytes([100 + program]) * 32, "proposer": "offline", "environment": ENVIRONMENT,
    }  # fmt: skip
    return Result.model_validate(base | kept | fields)


def evidence(e_value: float = 1.0, against: float = 1.0) -> Evidence:
    return EVIDENCE.model_copy(update={"e_value": e_value, "against": against, "level": 0.05})


def check(win: Record, outcome: str, **fields: Any) -> Verification:
    """What a re-run says, with evidence that fits."""
    found = {
        "confirmed": {"evidence": evidence(e_value=40.0, against=0.01)},
        "refuted": {"evidence": evidence(e_value=0.01, against=40.0)},
        "fabricated": {"runs": (RUN.model_copy(update={"role": "replay"}),)},
    }
    base = {"task": TASK, "result": win.id, "outcome": outcome, "environment": ENVIRONMENT}
    return Verification.model_validate(base | found.get(outcome, {}) | fields)
