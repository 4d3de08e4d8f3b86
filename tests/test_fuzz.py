"""Every parser of strangers' bytes, fed with broken forms of what it accepts: its documented error, or a fixed point.

`--hypothesis-profile=long` tries a thousand times as many.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from swarm_node.node.proposers.blocks import AnswerRefused, read_answer
from swarm_node.protocols import canonical, diffs, invites, quoting, records
from swarm_node.protocols.errors import DiffRejected, InvalidData, InviteError

sys.path.insert(0, str(Path(__file__).parent))
from fake_openai import edit

SEED, NOW = b"s" * 32, 1_800_000_000_000
PROGRAM = 'A = 1\n\n\ndef f(x):\n    """Says."""\n    return f"{x} of {A}"  # it\n'
EDITED = PROGRAM.replace("A = 1", "A = 2").replace("it", "that")
BODY = records.Lead(task=b"t" * 32, normal=b"n" * 32, parent=b"p" * 32)
NOTICE = records.sign_notice(SEED, time=NOW, body=BODY).to_bytes()
ENVIRONMENT = records.Environment(hardware="cpu", device="d", system="s", python="3", library="t")
RESULT = records.Result(
    task=b"t" * 32, outcome="discarded", program=b"q" * 32, parent=b"p" * 32, normal=b"n" * 32, title="t",
    proposer="offline", environment=ENVIRONMENT,
)  # fmt: skip
RECORD = records.sign_record(SEED, epoch=0, seq=1, prev=None, time=1, body=RESULT).to_bytes()
INVITE = invites.encode_invite(
    invites.Invite(addresses=("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWP8nRXWJhYUmnWroFu3gZHK3QuU8rW4DcWQUB74GoFyWf",),
                   task="gpt-cpu/short", task_id=b"t" * 32)
)  # fmt: skip
DIFF = diffs.make_diff(PROGRAM, EDITED)

EDITS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6)
PIECES = ["@@", "\n", "\r", "\0", "\n-", "\n+", "```", ">>>>>>> REPLACE\n", '"""', "{", "#", "\\\n", ";"]
TEXT_EDITS = st.lists(
    st.tuples(
        st.integers(0, 5000), st.integers(0, 8),
        st.text(max_size=8) | st.sampled_from(PIECES),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def mutated(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, put in edits:
        at %= len(data) + 1
        data = data[:at] + put + data[at + gone :]
    return data


def mutated_text(text: str, edits: list[tuple[int, int, str]]) -> str:
    for at, gone, put in edits:
        at %= len(text) + 1
        text = text[:at] + put + text[at + gone :]
    return text


@given(EDITS)
def test_decoder(edits: list[tuple[int, int, bytes]]) -> None:
    """What is decoded encodes to the same bytes."""
    for valid in (RECORD, NOTICE):
        data = mutated(valid, edits)
        try:
            value = canonical.decode(data, 1 << 16)
        except InvalidData:
            continue
        assert canonical.encode(value) == data


@given(EDITS)
def test_signed_things(edits: list[tuple[int, int, bytes]]) -> None:
    """Nothing but the original verifies."""
    parsers: list[tuple[bytes, Callable[..., object]]] = [
        (RECORD, records.parse_record),
        (NOTICE, records.parse_notice),
    ]
    for valid, parse in parsers:
        data = mutated(valid, edits)
        try:
            parse(data, now_ms=NOW)
        except InvalidData:
            continue
        assert data == valid


@given(TEXT_EDITS)
def test_invites(edits: list[tuple[int, int, str]]) -> None:
    """What is accepted is the original."""
    text = mutated_text(INVITE, edits)
    try:
        found = invites.decode_invite(text, now=0)
    except InviteError:
        return
    assert invites.encode_invite(found) == "".join(text.split()).lower() == INVITE


@given(TEXT_EDITS)
def test_diffs(edits: list[tuple[int, int, str]]) -> None:
    """What applies is the edit that its result names, and what is quoted of it is one."""
    diff = mutated_text(DIFF, edits)
    quoting.strip_for_prompt(diff)
    try:
        source = diffs.apply_diff(PROGRAM, diff, fuzzy=True)
    except DiffRejected:
        return
    if source != PROGRAM:
        assert diffs.apply_diff(PROGRAM, diffs.make_diff(PROGRAM, source)) == source


@given(TEXT_EDITS)
def test_programs(edits: list[tuple[int, int, str]]) -> None:
    """Whatever stands in a program, it has a normal form, which its comments do not change."""
    source = mutated_text(PROGRAM, edits)
    try:
        diffs.check_program(source)
    except DiffRejected:
        return
    quiet = quoting.without_words(source, PROGRAM)
    with warnings.catch_warnings(action="ignore"):
        try:
            compile(source, "train.py", "exec")
        except (SyntaxError, ValueError):
            return
        compile(quiet, "train.py", "exec")
    assert diffs.normal_digest(quiet) == diffs.normal_digest(source)
    quoting.cut_literals(source, PROGRAM)


@given(TEXT_EDITS)
def test_answers(edits: list[tuple[int, int, str]]) -> None:
    """A model's answer is an edit or a refusal."""
    try:
        header, source = read_answer(mutated_text(edit("A = 1", "A = 3"), edits), PROGRAM)
    except (AnswerRefused, DiffRejected):
        return
    assert source != PROGRAM or header
