"""What peers tell each other: logged records (results, verifications) and ephemeral notices (hello, lead).

A record is one entry of its author's append-only log. Its id is the digest of the canonical bytes of
everything but the signature. Models are frozen, strict and refuse unknown fields: what does not fit is
not a record. See SPEC.md for the rules and the reason of every limit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from . import canonical, signing
from .errors import InvalidData, Untimely
from .tags import Tag
from .text import forbidden_character

VERSION = 1
MAX_RECORD = 64 * 1024
MAX_NOTICE = 4 * 1024
MAX_DIFF = 32 * 1024
MAX_RUNS = 64
DECISIVE = 20.0  # the e-value at which a re-run, or several together, have a verdict: wrong in at most 1 of 20 cases
_DAY_MS = 86_400_000

Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
Signature = Annotated[bytes, Field(min_length=64, max_length=64)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _line(text: str) -> str:
    if char := forbidden_character(text):
        raise ValueError(f"contains the character {char}")
    return text


def _diff(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DIFF:
        raise ValueError("diff too large")
    if char := forbidden_character(text, "\n\t"):
        raise ValueError(f"contains the character {char}")
    return text


Line = Annotated[str, AfterValidator(_line)]  # of text for people
Diff = Annotated[str, AfterValidator(_diff)]
Short = Annotated[Line, StringConstraints(max_length=80)]
Title = Annotated[Line, StringConstraints(min_length=1, max_length=120)]
Note = Annotated[Line, StringConstraints(max_length=400)]


class Frozen(BaseModel):
    """Base of everything on the wire."""

    # Built when first used, which `recall` never does: a command that only reads is there sooner.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class Environment(Frozen):
    """Where runs happened; equal environments must reproduce runs bit for bit."""

    hardware: Annotated[Line, StringConstraints(min_length=1, max_length=32)]  # class: cpu, cuda-sm90, mps
    device: Short  # "AMD EPYC 7B13, 8 cores"
    system: Short  # "Linux x86_64"
    python: Short
    library: Short  # "torch 2.13.0+cpu AVX2"


class Run(Frozen):
    """One training run of one arm, scored on one slice."""

    arm: Literal["parent", "candidate"]
    role: Literal[
        "noise", "screen", "confirm", "replay"
    ]  # replay: another node's run, repeated with its seed and steps
    slice: Annotated[Line, StringConstraints(min_length=1, max_length=16)]
    seed: Count
    steps: Count
    draw: Count | None = None  # which text of the slice was drawn for it; None: the slice as it stands
    score: Number | None  # None: the run crashed
    seconds: Number  # CPU or device seconds, by the evaluator's accounting
    digest: Annotated[bytes, Field(max_length=32)]  # of the logits on fixed training windows; empty when crashed
    losses: Annotated[tuple[Number, ...], Field(max_length=10)] = ()  # the first ones, for replays elsewhere


class Audit(Frozen):
    """A fresh instance of the program, trained again, was asked for next bytes without the text behind them.

    `worst`, `mean`, `error`: of its bits minus the first instance's at the same positions, in bits; 0 when honest.
    """

    positions: Annotated[int, Field(ge=1, lt=2**53)]
    worst: Number
    mean: Number
    error: Number


class Evidence(Frozen):
    """What decided: paired differences of score, better is positive, in the task's unit."""

    pairs: Annotated[int, Field(ge=1, le=MAX_RUNS // 2)]
    required: Number  # what the gain had to exceed; negative for a simplification
    low: Number | None  # bounds of the gain at 95 %, at all looks together; None: infinite
    high: Number | None
    e_value: Annotated[Number, Field(ge=0)]  # against "the gain is not above what was required"
    against: Annotated[Number, Field(ge=0)] = 1.0  # against "it is worthwhile"; of a re-run, "at least half as claimed"
    level: Annotated[Number, Field(gt=0, le=1)]  # 1 / level is the e-value that was needed
    audit: Audit | None = None  # of what would otherwise be kept


class Cost(Frozen):
    """What an experiment cost its author."""

    seconds: Number = 0.0
    tokens_in: Count = 0
    tokens_out: Count = 0
    dollars: Number = 0.0


class Result(Frozen):
    """The record of one experiment, whatever came out of it. `gain` > 0 means better, in the task's unit."""

    task: Digest
    outcome: Literal["baseline", "kept", "discarded", "inconclusive", "crashed"]
    aim: Literal["gain", "simpler"] = "gain"  # simpler: less code, not worse than its anchor by a margin
    program: Digest
    parent: Digest | None
    anchor: Digest | None = None  # program of the parent arm, when it was not the parent: a simplification's
    normal: Digest  # digest of the program without comments and layout: what "already tried" means
    diff: Diff | None = None
    title: Title
    reason: Note = ""  # why it was tried; for people, never for another node's prompt
    cause: Note = ""  # why it ended so
    tags: Annotated[tuple[Tag, ...], Field(max_length=8)] = ()
    score: Number | None = None
    parent_score: Number | None = None
    gain: Number | None = None
    gain_error: Number | None = None  # standard error of the gain
    evidence: Evidence | None = None  # of what was promoted to confirmation
    noise: Number | None = None  # standard deviation over seeds of the parent
    steps: Count = 0
    cost_ratio: Number | None = None  # candidate's cost per step over the baseline's, on the author's machine
    runs: Annotated[tuple[Run, ...], Field(max_length=MAX_RUNS)] = ()
    proposer: Annotated[Line, StringConstraints(min_length=1, max_length=64)]
    inspired_by: Annotated[tuple[Digest, ...], Field(max_length=16)] = ()
    environment: Environment
    cost: Cost = Field(default_factory=Cost)  # made late: making one builds its validator, at every start

    @property
    def is_undecided(self) -> bool:
        """Whether it may be a gain, which was not shown."""
        return self.outcome == "inconclusive" and self.aim == "gain"

    @property
    def is_waiting(self) -> bool:
        """Whether it promised in one run, and is to be confirmed together with others."""
        return self.outcome == "inconclusive" and self.evidence is None

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        if (self.outcome == "baseline") != (self.parent is None):
            raise ValueError("exactly the baseline has no parent")
        if self.outcome == "kept" and self.diff is None:
            raise ValueError("what was kept carries its diff")
        if self.diff is not None and self.outcome != "kept" and not self.is_undecided:
            raise ValueError("only what was kept, or is undecided, carries its diff")
        if self.anchor is not None and self.aim != "simpler":
            raise ValueError("only a simplification is compared with something else than its parent")
        if self.outcome == "kept" and (self.score is None or self.gain is None or not self.runs or not self.evidence):
            raise ValueError("a kept result needs its evidence")
        return self


class Verification(Frozen):
    """Somebody's own paired re-run of a result."""

    task: Digest
    result: Digest
    outcome: Literal[
        "confirmed", "refuted", "inconclusive", "fabricated"
    ]  # fabricated: its own run is not its program's
    setting: Literal["same", "wider"] = "same"  # wider: both programs at twice the width, to see whether it transfers
    cause: Note = ""
    gain: Number | None = None
    gain_error: Number | None = None
    evidence: Evidence | None = None
    runs: Annotated[tuple[Run, ...], Field(max_length=MAX_RUNS)] = ()
    environment: Environment
    cost: Cost = Field(default_factory=Cost)

    @model_validator(mode="after")
    def _consistent(self) -> Verification:
        found = self.evidence
        if self.outcome == "confirmed" and (found is None or found.e_value < DECISIVE):
            raise ValueError("confirmed without the evidence for it")
        if self.outcome == "refuted" and (found is None or found.against < DECISIVE):
            raise ValueError("refuted without the evidence for it")
        if self.outcome == "fabricated" and not any(run.role == "replay" for run in self.runs):
            raise ValueError("a fabrication is shown by a repeated run")
        return self


class Hello(Frozen):
    """Ephemeral: who is here and with what."""

    agent: Short  # "swarm-node 0.1.0"
    task: Digest
    hardware: Short
    device: Short
    role: Literal["research", "bootstrap", "observe"]
    addresses: Annotated[tuple[Annotated[Line, StringConstraints(max_length=200)], ...], Field(max_length=8)] = ()


class Lead(Frozen):
    """Ephemeral: "I am about to try this", so that peers do not burn the same minutes."""

    task: Digest
    normal: Digest
    parent: Digest


F = TypeVar("F", bound=Frozen)
Body = Result | Verification
Kind = Literal["result", "verification"]
_BODIES: dict[str, type[Result] | type[Verification]] = {"result": Result, "verification": Verification}
_NOTICES: dict[str, type[Hello] | type[Lead]] = {"hello": Hello, "lead": Lead}


class Record(Frozen):
    """One signed entry of an author's log."""

    v: Literal[1] = VERSION
    author: Digest  # Ed25519 public key
    epoch: Count
    seq: Annotated[int, Field(ge=1, lt=2**53)]
    prev: Digest | None  # id of seq - 1 in this epoch; None for seq 1
    time: Count  # author's clock, Unix milliseconds
    kind: Kind
    body: Body
    sig: Signature

    @cached_property  # 60 µs, asked for several times per record; a model_copy would keep the old one
    def id(self) -> bytes:
        """32-byte BLAKE2b of the canonical bytes without the signature."""
        return canonical.digest(self._unsigned())

    def _unsigned(self) -> bytes:
        return _unsigned(self.author, self.epoch, self.seq, self.prev, self.time, self.kind, self.body)

    def to_bytes(self) -> bytes:
        """The canonical wire bytes."""
        return canonical.encode(dump(self))


def dump(model: Frozen) -> dict[str, Any]:
    """The model as the map that is encoded (python mode keeps bytes as bytes)."""
    return model.model_dump(mode="python")


def _unsigned(author: bytes, epoch: int, seq: int, prev: bytes | None, time: int, kind: str, body: Body) -> bytes:
    fields = {"v": VERSION, "author": author, "epoch": epoch, "seq": seq, "prev": prev, "time": time, "kind": kind}
    return canonical.encode({**fields, "body": dump(body)})


def sign_record(seed: bytes, *, epoch: int, seq: int, prev: bytes | None, time: int, body: Body) -> Record:
    """A signed record by the author whose 32-byte Ed25519 seed is given; InvalidData when it is too large."""
    body = type(body).model_validate(dump(body))  # a copy made without validation could hold 0 where 0.0 is meant
    author = signing.public_key(seed)
    kind: Kind = "result" if isinstance(body, Result) else "verification"
    sig = signing.sign(seed, signing.RECORD_DOMAIN, _unsigned(author, epoch, seq, prev, time, kind, body))
    record = Record(author=author, epoch=epoch, seq=seq, prev=prev, time=time, kind=kind, body=body, sig=sig)
    if len(record.to_bytes()) > MAX_RECORD:
        raise InvalidData(f"record of {len(record.to_bytes())} bytes; at most {MAX_RECORD} fit on the wire")
    return record


def parse_record(data: bytes, *, now_ms: int) -> Record:
    """The record in `data`, fully checked: size, canonical form, schema, signature, clock; else InvalidData.

    `now_ms`: this machine's clock; a record from more than a day ahead is Untimely, an old one never is.
    """
    value = canonical.decode(data, MAX_RECORD)
    record = _validated(Record, value, _BODIES)
    if record.kind != ("result" if isinstance(record.body, Result) else "verification"):
        raise InvalidData("record kind does not match its body")
    if (record.seq == 1) != (record.prev is None):
        raise InvalidData("exactly the first record of an epoch has no predecessor")
    unsigned = record._unsigned()
    _check_complete(value, unsigned)
    if not signing.verify(record.author, signing.RECORD_DOMAIN, unsigned, record.sig):
        raise InvalidData("signature does not match the author")
    if record.time > now_ms + _DAY_MS:  # last: what is wrong by any clock is the sender's fault
        raise Untimely("record from more than a day in the future")
    vars(record)["id"] = canonical.digest(unsigned)  # where `cached_property` looks; encoding it again takes longest
    return record


def recall_record(data: bytes, identity: bytes) -> Record:
    """The record that `data` held when it was parsed and stored, without its runs and costs: for views of histories.

    Nothing is checked again, which makes it twenty times as fast as `parse_record`; never for bytes from outside.
    """
    value = canonical.recall(data)
    fields = value["body"]
    fields["runs"], fields["cost"] = (), _NO_COST
    fields["environment"] = recall(Environment, fields["environment"])
    if (found := fields["evidence"]) is not None:
        found["audit"] = recall(Audit, found["audit"]) if found["audit"] is not None else None
        fields["evidence"] = recall(Evidence, found)
    if value["kind"] == "result":
        fields["tags"], fields["inspired_by"] = tuple(fields["tags"]), tuple(fields["inspired_by"])
    value["body"] = recall(_BODIES[value["kind"]], fields)
    return recall(Record, value | {"id": identity})  # in `__dict__`, where `cached_property` looks


_NO_COST = Cost.model_construct()


def recall(model: type[F], fields: dict[str, Any]) -> F:
    """The model with these fields, all of which are there and were validated before: `model_construct` takes five times
    as long to look for aliases and defaults that there are none of."""
    made = model.__new__(model)
    for name, value in (("__dict__", fields), ("__pydantic_fields_set__", set(fields))):
        object.__setattr__(made, name, value)
    object.__setattr__(made, "__pydantic_extra__", None)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


class Notice(Frozen):
    """A signed ephemeral message; never logged."""

    v: Literal[1] = VERSION
    author: Digest
    time: Count
    kind: Literal["hello", "lead"]
    body: Hello | Lead
    sig: Signature

    def to_bytes(self) -> bytes:
        """The canonical wire bytes."""
        return canonical.encode(dump(self))


def _notice_bytes(author: bytes, time: int, kind: str, body: Hello | Lead) -> bytes:
    return canonical.encode({"v": VERSION, "author": author, "time": time, "kind": kind, "body": dump(body)})


def sign_notice(seed: bytes, *, time: int, body: Hello | Lead) -> Notice:
    """A signed notice by the author whose 32-byte Ed25519 seed is given."""
    author = signing.public_key(seed)
    kind: Literal["hello", "lead"] = "hello" if isinstance(body, Hello) else "lead"
    sig = signing.sign(seed, signing.NOTICE_DOMAIN, _notice_bytes(author, time, kind, body))
    return Notice(author=author, time=time, kind=kind, body=body, sig=sig)


def parse_notice(data: bytes, *, now_ms: int, window_ms: int = 300_000) -> Notice:
    """The notice in `data`, fully checked; else InvalidData, and Untimely more than `window_ms` from this clock."""
    value = canonical.decode(data, MAX_NOTICE)
    notice = _validated(Notice, value, _NOTICES)
    if notice.kind != ("hello" if isinstance(notice.body, Hello) else "lead"):
        raise InvalidData("notice kind does not match its body")
    unsigned = _notice_bytes(notice.author, notice.time, notice.kind, notice.body)
    _check_complete(value, unsigned)
    if not signing.verify(notice.author, signing.NOTICE_DOMAIN, unsigned, notice.sig):
        raise InvalidData("signature does not match the author")
    if abs(notice.time - now_ms) > window_ms:
        raise Untimely("notice outside the time window")
    return notice


M = TypeVar("M", "Record", "Notice")


def _validated(model: type[M], value: Any, bodies: dict[str, Any]) -> M:
    """`value` as a model; the kind picks the body's model, so that errors name the right one."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in bodies:
        raise InvalidData("not a record of a known kind")
    try:
        body = bodies[kind].model_validate(_tuples(value.get("body")))
        return model.model_validate({**value, "body": body})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidData(
            "does not fit the schema", why=f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error


def _check_complete(value: dict[str, Any], unsigned: bytes) -> None:
    """InvalidData when a field was left to its default, or a float sent as an integer: one record, one encoding."""
    if canonical.encode({key: item for key, item in value.items() if key != "sig"}) != unsigned:
        raise InvalidData("a field is missing, or an integer where a float is due")


def _tuples(value: Any) -> Any:
    """Arrays decode to lists; the strict models hold tuples."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
