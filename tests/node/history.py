"""Logs of several nodes, made of real records, and what a frontier makes of them."""

from __future__ import annotations

from typing import Any

from swarm_node.node.situation import build
from swarm_node.node.stagnation import Course, course
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.records import Body, Environment, Evidence, Record, Result, Run, Verification, sign_record
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.frontier import Frontier
from swarm_node.trainer import task as tasks

OWN, PEER, OTHER, JUDGE = (letter * 32 for letter in (b"o", b"p", b"q", b"j"))
TASK = tasks.load("gpt-cpu", "short", bytes(32))
BASE = TASK.baseline
ENVIRONMENT = Environment(hardware="cpu", device="d", system="s", python="3", library="t")
RUN = Run(arm="candidate", role="confirm", slice="confirm", seed=1, steps=9, score=3.0, seconds=1.0, digest=bytes(32))
EVIDENCE = Evidence(pairs=4, required=0.0, low=0.1, high=0.2, e_value=99.0, level=0.05)


def digest(source: str) -> bytes:
    """A program's address."""
    return program_digest({EDITABLE: source})


def changed(source: str, *pairs: tuple[str, str]) -> str:
    """The program with lines in the place of others."""
    for old, new in pairs:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


class History:
    """What happened in a swarm, as records, with the programs that a node has the text of."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.private = False  # swarm
        self.programs: dict[bytes, str] = {digest(BASE): BASE}
        self._logs: dict[bytes, list[Record]] = {}

    def add(self, key: bytes, body: Body) -> Record:
        """The next record of an author's log."""
        log = self._logs.setdefault(key, [])
        prev = log[-1].id if log else None
        record = sign_record(key, epoch=0, seq=len(log) + 1, prev=prev, time=len(self.records), body=body)
        log.append(record)
        self.records.append(record)
        return record

    def tried(self, key: bytes, parent: str, source: str, outcome: str = "discarded", **fields: Any) -> Record:
        """An experiment; its program is known here from then on."""
        self.programs[digest(source)] = source
        kept = {"diff": make_diff(parent, source), "score": 3.0, "gain": 0.1, "runs": (RUN,), "evidence": EVIDENCE}
        base = self.fields(parent, source, outcome)
        return self.add(key, Result.model_validate(base | (kept if outcome == "kept" else {}) | fields))

    def fields(self, parent: str, source: str, outcome: str) -> dict[str, Any]:
        """What all results have."""
        return {
            "task": TASK.spec.id, "outcome": outcome, "program": digest(source), "parent": digest(parent),
            "normal": normal_digest(source), "title": "t", "proposer": "llm", "environment": ENVIRONMENT, "gain": -0.1,
        }  # fmt: skip

    def won(self, key: bytes, parent: str, source: str, **fields: Any) -> Record:
        """An experiment that was kept."""
        return self.tried(key, parent, source, "kept", **fields)

    def judged(self, record: Record, outcome: str = "confirmed", key: bytes = JUDGE) -> None:
        """Somebody's word about a result; the judge's counts, since something that it found held here."""
        if key == JUDGE and JUDGE not in self._logs:
            baseline = {"outcome": "baseline", "parent": None, "gain": None, "score": 3.2}
            self.add(OWN, Result.model_validate(self.fields(BASE, BASE, "baseline") | baseline))
            found = self.won(JUDGE, BASE, f"{BASE}\n# the baseline, which is nobody's idea\n")
            self.judged(found, key=OWN)
        numbers = {"confirmed": {"e_value": 99.0, "against": 0.01}, "refuted": {"e_value": 0.01, "against": 99.0}}
        found = EVIDENCE.model_copy(update=numbers.get(outcome, {}))
        fields = {"task": TASK.spec.id, "result": record.id, "outcome": outcome, "environment": ENVIRONMENT}
        fields |= {"evidence": found} if outcome in numbers else {}
        self.add(key, Verification.model_validate(fields))

    def frontier(self) -> Frontier:
        """The own node's view."""
        frontier = Frontier(public_key(OWN), TASK.spec.id, TASK.spec.baseline, private=self.private)
        for record in self.records:
            frontier.add(record)
        return frontier

    def course(self) -> Course:
        """What the own node does next."""
        return course(TASK.spec, self.frontier(), self.programs.get)

    def situation(self, **fields: Any) -> Any:
        """What the own node's proposer is told, with its own best as the parent."""
        frontier = self.frontier()
        parent = fields.pop("parent", self.programs[frontier.best_program])
        return build(TASK, "m", frontier, parent, fields.pop("noise", None), self.programs.get, **fields)
