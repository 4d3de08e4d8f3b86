"""The vectors of SPEC.md, byte for byte."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from swarm_node.protocols import canonical, diffs, invites, names, records, task
from swarm_node.protocols.errors import DiffRejected, InvalidData, InviteError


def load(name: str) -> dict[str, Any]:
    return json.loads((resources.files("swarm_node.protocols.vectors") / f"{name}.json").read_text(encoding="utf-8"))


CANONICAL, RECORDS, TASKS, DIFFS = (load(name) for name in ("canonical", "records", "tasks", "diffs"))
NOW = RECORDS["now"] + 100_000


@pytest.mark.parametrize("vector", CANONICAL["accept"], ids=lambda v: v["hex"][:20])
def test_canonical_encodings(vector: dict[str, Any]) -> None:
    """Every value has the one encoding that the vector says, and decodes back."""
    value = bytes.fromhex(vector["value_hex"]) if "value_hex" in vector else vector["value"]
    data = bytes.fromhex(vector["hex"])
    assert canonical.encode(value) == data
    assert canonical.decode(data, 1024) == value


@pytest.mark.parametrize("vector", CANONICAL["reject"], ids=lambda v: v["why"])
def test_encodings_that_are_refused(vector: dict[str, str]) -> None:
    """Bytes that are not canonical are refused, whatever msgpack thinks of them."""
    with pytest.raises(InvalidData):
        canonical.decode(bytes.fromhex(vector["hex"]), 1 << 16)


@pytest.mark.parametrize("vector", RECORDS["records"], ids=lambda v: v["kind"])
def test_records(vector: dict[str, Any]) -> None:
    """A record parses, has the id and signature of the vector, and is signed again to the same bytes."""
    data = bytes.fromhex(vector["hex"])
    record = records.parse_record(data, now_ms=NOW)
    assert (record.id.hex(), record.sig.hex(), record.seq) == (vector["id"], vector["sig"], vector["seq"])
    again = records.sign_record(
        bytes.fromhex(RECORDS["seed"]),
        epoch=record.epoch,
        seq=record.seq,
        prev=record.prev,
        time=record.time,
        body=record.body,
    )
    assert again.to_bytes() == data


@pytest.mark.parametrize("vector", RECORDS["reject"], ids=lambda v: v["why"])
def test_records_that_are_refused(vector: dict[str, str]) -> None:
    """A record with any one thing wrong is not a record, though its bytes are canonical."""
    data = bytes.fromhex(vector["hex"])
    canonical.decode(data, records.MAX_RECORD)
    with pytest.raises(InvalidData):
        records.parse_record(data, now_ms=NOW)


def test_second_record_names_the_first() -> None:
    """The log is a chain of ids."""
    first, second = (records.parse_record(bytes.fromhex(v["hex"]), now_ms=NOW) for v in RECORDS["records"])
    assert second.prev == first.id


def test_notice_and_names() -> None:
    """A notice, the peer id and the nickname of the vector's author."""
    notice = records.parse_notice(bytes.fromhex(RECORDS["notice"]["hex"]), now_ms=1_790_000_000_000)
    assert notice.sig.hex() == RECORDS["notice"]["sig"]
    author = bytes.fromhex(RECORDS["author"])
    assert (names.peer_id(author), names.nickname(author)) == (RECORDS["peer_id"], RECORDS["nickname"])
    assert names.author_of(RECORDS["peer_id"]) == author


def test_program_task_and_invite() -> None:
    """Content addresses, the task id, and the invite string."""
    program = TASKS["program"]
    assert task.program_bytes(program["files"]).hex() == program["hex"]
    assert task.program_digest(program["files"]).hex() == program["digest"]
    assert task.parse_program(bytes.fromhex(program["hex"])) == program["files"]
    spec = task.TaskSpec.model_validate(canonical.decode(bytes.fromhex(TASKS["task"]["hex"]), 4096))
    assert spec.id.hex() == TASKS["task"]["id"]
    recalled = task.recall_task(bytes.fromhex(TASKS["task"]["hex"]), spec.id)
    assert recalled == spec and task.task_bytes(recalled).hex() == TASKS["task"]["hex"]
    invite = invites.decode_invite(TASKS["invite"]["text"].upper(), now=0.0)
    assert invites.encode_invite(invite) == TASKS["invite"]["text"]
    assert invite.task_id.hex() == TASKS["invite"]["task_id"] == spec.id.hex()
    assert list(invite.addresses) == TASKS["invite"]["addresses"]


@pytest.mark.parametrize("text", TASKS["no invites"])
def test_invites_that_are_refused(text: str) -> None:
    """Whatever was cut, changed or added, the error says that it is the invite."""
    with pytest.raises(InviteError, match="invite"):
        invites.decode_invite(text, now=0.0)


@pytest.mark.parametrize("data", TASKS["no programs"])
def test_programs_that_are_refused(data: str) -> None:
    """A program is a map of plain file names to plain text, and nothing else."""
    with pytest.raises(InvalidData):
        task.parse_program(bytes.fromhex(data))


def test_diffs() -> None:
    """The canonical diff, its application, fuzzy application to a moved program, and the normal form."""
    assert diffs.make_diff(DIFFS["before"], DIFFS["after"]) == DIFFS["diff"]
    assert diffs.apply_diff(DIFFS["before"], DIFFS["diff"]) == DIFFS["after"]
    moved = DIFFS["moved"]
    with pytest.raises(DiffRejected):
        diffs.apply_diff(moved["before"], DIFFS["diff"])
    assert diffs.apply_diff(moved["before"], DIFFS["diff"], fuzzy=True) == moved["after"]
    assert diffs.normalise(DIFFS["after"]) == DIFFS["normal"]["text"]
    assert diffs.normal_digest(DIFFS["after"]).hex() == DIFFS["normal"]["digest"]


@pytest.mark.parametrize("vector", DIFFS["reject"], ids=lambda v: v["why"])
def test_hostile_diffs(vector: dict[str, str]) -> None:
    """Every diff that breaks the policy is refused."""
    with pytest.raises(DiffRejected):
        diffs.apply_diff(DIFFS["before"], vector["diff"])
