"""A night of a small swarm, made up, as a ledger of real signed records: what a dashboard has to show."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from swarm_node.node.tasks import remember
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.records import (
    Cost,
    Environment,
    Evidence,
    Record,
    Result,
    Run,
    Verification,
    sign_record,
)
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_bytes, program_digest
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks
from swarm_node.trainer.types import RunResult

TASK = tasks.load("gpt-cpu", "short", bytes(32))
NOISE = 0.0145
OWN = bytes([40]) * 32  # key of the node of this home
HEAD = "        self.head = nn.Linear(WIDTH, vocab_size)\n"
SMALL = "        for table in (self.tok, self.pos):\n            nn.init.normal_(table.weight, std=0.02)\n"
DRAW = "        x, y = ctx.batch(BATCH, SEQ)\n"
FALL = """\
        for group in opt.param_groups:
            group["lr"] = LR * (1 - 0.9 * step / ctx.steps)
"""
MEET = "        y = F.scaled_dot"
UNIT = "        q, k = 4 * F.normalize(q, dim=-1), 4 * F.normalize(k, dim=-1)\n"


class Idea(NamedTuple):
    """An edit that is better than what it starts from."""

    title: str
    tag: str
    gain: float
    old: str
    new: str
    reason: str = ""


WINS = [
    Idea(
        "embeddings start at std 0.02", "init", 0.279, HEAD, HEAD + SMALL,
        "At the default of 1.0 the first logits are huge, and the loss spends its first hundred steps on undoing that.",
    ),
    Idea("learning rate 3e-3", "lr", 0.131, "LR = 1e-3", "LR = 3e-3", "1300 steps are few: the loss still falls."),
    Idea("Adam forgets squares faster", "optimizer", 0.046, "BETAS = (0.9, 0.999)", "BETAS = (0.9, 0.95)"),
    Idea("learning rate falls to a tenth", "schedule", 0.094, DRAW, FALL + DRAW),
    Idea(
        "squared relu in place of gelu", "activation", 0.038, "h = F.gelu(self.up(x))",
        "h = F.relu(self.up(x)).square()",
    ),
    Idea(
        "queries and keys are normalised before they meet", "attention", 0.052, MEET, UNIT + MEET,
        "Keeps attention from saturating at this learning rate.",
    ),
    Idea("four heads of 16", "attention", 0.021, "HEADS = 2", "HEADS = 4"),
    Idea("no weight decay", "regularisation", 0.017, "WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.0"),
]  # fmt: skip
TRIES = [
    ("mlp ratio 6", "mlp"), ("learning rate warms up over 5 % of the steps", "schedule"), ("three blocks", "depth"),
    ("batch of 16", "batch"), ("dropout 0.05 after attention", "regularisation"), ("rotary positions", "position"),
    ("head shares the embedding's weights", "head"), ("width 80", "width"), ("sequences of 96 bytes", "context"),
    ("average of the last tenth of the weights", "averaging"), ("rms norm without a gain", "norm"),
    ("half of the input of attn comes from the byte before", "mixing"), ("label smoothing 0.02", "loss"),
    ("residual branches start at zero", "residual"), ("gradient clipped at 1", "optimizer"),
    ("bias-free linear layers", "simplify"),
]  # fmt: skip
MACHINES = ["AMD EPYC 7B13, 8 cores", "Intel Core i7-1260P", "Raspberry Pi 5", "AMD Ryzen 7 5800X", "unknown"]


def digest(source: str) -> bytes:
    """A program's address."""
    return program_digest({EDITABLE: source})


@dataclass
class Member:
    """A node of the swarm, with its own best program."""

    key: bytes
    environment: Environment
    source: str = TASK.baseline
    score: float = 3.238
    log: list[Record] = field(default_factory=list)
    has: set[bytes] = field(default_factory=set)  # wins that it made, adopted, or failed to adopt


class Night:
    """Writes the ledger of the first member, which hears of everything at once."""

    def __init__(self, ledger: Ledger, *, until_ms: int, hours: float = 9.0, experiments: int = 150) -> None:
        self.ledger, self.rng = ledger, random.Random(11)
        self.members = [
            Member(bytes([40 + number]) * 32, Environment(
                hardware="cpu", device=device, system="Linux x86_64", python="3.12.3", library="torch 2.13.0+cpu AVX2"
            ))
            for number, device in enumerate(MACHINES)
        ]  # fmt: skip
        self.now, self.step_ms = until_ms - int(hours * 3.6e6), int(hours * 3.6e6 / (experiments * 1.4))
        self.experiments = experiments
        remember(ledger, TASK.spec)
        ledger.journal_put("node", "author", public_key(self.own.key).hex())

    @property
    def own(self) -> Member:
        """The node of this home."""
        return self.members[0]

    def add(self, who: Member, body: Result | Verification) -> Record:
        """The next record of a member's log, heard here."""
        prev = who.log[-1].id if who.log else None
        record = sign_record(who.key, epoch=0, seq=len(who.log) + 1, prev=prev, time=self.now, body=body)
        who.log.append(record)
        self.ledger.add(record, received_ms=self.now + 400)
        self.now += int(self.step_ms * self.rng.uniform(0.5, 1.5))
        return record

    def write(self) -> None:
        """The whole night."""
        for member in self.members[:4]:
            self.add(member, self._baseline(member))
        wins = list(WINS)
        due = [int(6 + index * (self.experiments - 20) / len(wins)) for index in range(len(wins))]
        heard: list[Record] = []
        for number in range(self.experiments):
            who = self.members[self.rng.choice([0, 0, 1, 1, 2, 3])]
            if due and number >= due[0]:
                due.pop(0)
                idea = wins.pop(0)
                win = self.keep(who, idea)
                heard.append(win)
                for judge in [one for one in self.members[:4] if one is not who][:2]:
                    self.judge(judge, win, "confirmed", idea.gain * self.rng.uniform(0.8, 1.1))
            elif heard and self.rng.random() < 0.45 and (missing := [win for win in heard if win.id not in who.has]):
                self._adopt(who, missing[-1])
            else:
                self._fail(who)
            if number == self.experiments // 3:
                self._unlucky()
            if number == self.experiments // 2:
                self._liar()

    def keep(self, who: Member, idea: Idea, **fields: Any) -> Record:
        """Somebody's win, with its diff."""
        source = who.source.replace(idea.old, idea.new, 1)
        before, after = who.score, who.score - idea.gain + self.rng.gauss(0, 0.004)
        body = self._result(
            who, "kept", idea.title, source, tags=(idea.tag,), score=after, gain=idea.gain, gain_error=0.006,
            diff=make_diff(who.source, source), evidence=self._evidence(idea.gain), parent_score=before,
            runs=self._runs(before, after), reason=idea.reason, **fields,
        )  # fmt: skip
        record = self.add(who, body)
        self._journal(who, record, source)
        who.source, who.score = source, after
        who.has.add(record.id)
        return record

    def judge(self, who: Member, win: Record, outcome: str, gain: float) -> Record:
        """Somebody's re-run."""
        good = outcome == "confirmed"
        numbers = {"e_value": 84.0 if good else 0.02, "against": 0.01 if good else 61.0}
        fields: dict[str, Any] = {
            "task": TASK.spec.id, "result": win.id, "outcome": outcome, "environment": who.environment, "gain": gain,
            "evidence": self._evidence(gain).model_copy(update=numbers), "gain_error": 0.007,
            "runs": self._runs(3.0, 3.0 - gain),
        }  # fmt: skip
        if outcome == "fabricated":
            again = self._runs(3.0, 3.2)[0].model_copy(update={"role": "replay"})
            cause = "the recorded run was not made by this program: its first losses differ by up to 4.1e-02"
            fields |= {"runs": (again,), "cause": cause, "gain": None, "gain_error": None, "evidence": None}
        return self.add(who, Verification.model_validate(fields))

    def _adopt(self, who: Member, win: Record) -> None:
        who.has.add(win.id)
        idea = next(idea for idea in WINS if isinstance(win.body, Result) and idea.title == win.body.title)
        if idea.old not in who.source:
            return self._fail(who)
        gain = idea.gain * self.rng.uniform(0.85, 1.0)
        again = idea._replace(title=f"a peer's claimed win: {idea.tag}", gain=gain, reason="")
        self.keep(who, again, inspired_by=(win.id,), proposer="peers:rebase")
        return None

    def _fail(self, who: Member) -> None:
        title, tag = self.rng.choice(TRIES)
        outcome = self.rng.choices(["discarded", "inconclusive", "crashed"], [0.82, 0.12, 0.06])[0]
        worse = abs(self.rng.gauss(0, 0.05)) if outcome == "discarded" else self.rng.gauss(0, NOISE / 2)
        source = f"{who.source}\n\n# {title} {self.rng.random()}\n"
        score = None if outcome == "crashed" else who.score + worse
        fields: dict[str, Any] = {"score": score, "gain": None if score is None else -worse, "tags": (tag,)}
        if outcome == "crashed":
            fields |= {"cause": "RuntimeError: The size of tensor a (96) must match the size of tensor b (128)"}
        if outcome == "inconclusive":
            runs = self._runs(who.score, who.score + worse)
            fields |= {"evidence": self._evidence(-worse), "parent_score": who.score, "runs": runs}
        record = self.add(who, self._result(who, outcome, title, source, **fields))
        self._journal(who, record, source)

    def _unlucky(self) -> None:
        """A win that others do not see."""
        who = self.members[2]
        source, score = who.source, who.score
        win = self.keep(who, Idea("batch of 7", "batch", 0.09, "BATCH = 8", "BATCH = 7"))
        who.source, who.score = source, score  # nothing is built on it
        for judge in (self.members[0], self.members[3]):
            self.judge(judge, win, "refuted", 0.004)

    def _liar(self) -> None:
        """A node whose results are made up."""
        who = self.members[4]
        win = self.keep(who, Idea("reads the answers", "other", 1.9, "DEPTH = 2", "DEPTH = 1"))
        self.judge(self.own, win, "fabricated", 0.0)

    def _baseline(self, who: Member) -> Result:
        who.score = 3.238 + self.rng.gauss(0, 0.004)
        return Result(
            task=TASK.spec.id, outcome="baseline", program=TASK.spec.baseline, parent=None, title="the baseline",
            normal=normal_digest(TASK.baseline), score=who.score, noise=NOISE, steps=TASK.spec.steps, cost_ratio=1.0,
            proposer="task", environment=who.environment,
        )  # fmt: skip

    def _result(self, who: Member, outcome: str, title: str, source: str, **fields: Any) -> Result:
        base: dict[str, Any] = {
            "task": TASK.spec.id, "outcome": outcome, "program": digest(source), "parent": digest(who.source),
            "normal": digest(source), "title": title, "noise": NOISE, "steps": TASK.spec.steps, "cost_ratio": 1.0,
            "proposer": "catalogue", "environment": who.environment, "cost": Cost(seconds=241.0),
        }  # fmt: skip
        return Result.model_validate(base | fields)

    def _evidence(self, gain: float) -> Evidence:
        half, e_value = min(0.02, 0.4 * abs(gain) + 0.002), 131.0 if gain > 0 else 0.7
        return Evidence(
            pairs=4, required=0.012, low=gain - half, high=gain + half, e_value=e_value, against=0.02, level=0.0125
        )

    def _runs(self, parent: float, candidate: float) -> tuple[Run, ...]:
        return tuple(self._run(arm, index, score) for index in range(4) for arm, score in (
            ("candidate", candidate), ("parent", parent)
        ))  # fmt: skip

    def _run(self, arm: Literal["candidate", "parent"], index: int, score: float) -> Run:
        return Run(
            arm=arm, role="confirm", slice="confirm", seed=self.rng.getrandbits(31), steps=TASK.spec.steps, draw=index,
            score=score + self.rng.gauss(0, NOISE), seconds=22.4, digest=self.rng.randbytes(32),
        )  # fmt: skip

    def _journal(self, who: Member, record: Record, source: str) -> None:
        """What only the node itself knows: both programs, and the losses while its runs trained."""
        if who is not self.own:
            return
        body, name = record.body, f"x-{record.id.hex()[:12]}"
        assert isinstance(body, Result)
        for text in (who.source, source):
            self.ledger.put_blob(program_bytes({EDITABLE: text}))
        self.ledger.journal_put(name, "plan", "{}")
        self.ledger.journal_put(name, "screen", self._trained(body.score, body.cause))
        for pair in range(2 if body.evidence else 0):
            self.ledger.journal_put(name, f"candidate-{pair}", self._trained(body.score))
            self.ledger.journal_put(name, f"parent-{pair}", self._trained(body.parent_score))
        self.ledger.journal_put(name, "done", record.id.hex())

    def _trained(self, end: float | None, cause: str = "") -> str:
        losses = [
            (step, 0.69 * (end or 4.0) + 3.4 * math.exp(-step / 220) + self.rng.gauss(0, 0.03))
            for step in range(0, TASK.spec.steps, 20)
        ]
        run = RunResult(
            status="crashed" if cause else "ok", reason=cause, scores={}, probe=None, steps_done=1, cpu_s=22.0,
            wall_s=23.0, eval_s=1.0, peak_rss=1 << 28, loss_curve=tuple(losses), first_losses=(), logits_digest="",
            log_tail=f"Traceback (most recent call last):\n  ...\n{cause}" if cause else "",
        )  # fmt: skip
        return json.dumps(asdict(run))
