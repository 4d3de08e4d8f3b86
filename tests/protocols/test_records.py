"""Records and notices: what is accepted, and every limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarm_node.protocols import canonical, diffs, quoting, records, signing
from swarm_node.protocols.errors import DiffRejected, InvalidData, Untimely

SEED, OTHER = bytes(range(32)), bytes(32)
NOW = 1_790_000_000_000
ENVIRONMENT = {"hardware": "cpu", "device": "d", "system": "s", "python": "3", "library": "torch"}
RESULT: dict[str, Any] = {
    "task": b"t" * 32, "outcome": "discarded", "program": b"p" * 32, "parent": b"q" * 32, "normal": b"n" * 32,
    "title": "a title", "proposer": "offline", "environment": records.Environment(**ENVIRONMENT),
}  # fmt: skip


def signed(seed: bytes = SEED, **fields: Any) -> records.Record:
    body = records.Result(**(RESULT | fields))
    return records.sign_record(seed, epoch=0, seq=1, prev=None, time=NOW, body=body)


def forged(change: Callable[[dict[str, Any]], object], *, resign: bool = True) -> bytes:
    """A record's bytes after `change` of its map, signed again by its author unless told otherwise."""
    value = records.dump(signed())
    change(value)
    if resign:
        unsigned = {key: value[key] for key in value if key != "sig"}
        value["sig"] = signing.sign(SEED, signing.RECORD_DOMAIN, canonical.encode(unsigned))
    return canonical.encode(value)


def test_round_trip() -> None:
    """What is signed is what is parsed."""
    record = signed(score=3.2, tags=("lr", "init"))
    assert records.parse_record(record.to_bytes(), now_ms=NOW) == record


def test_what_is_recalled_is_what_was_parsed_without_its_runs_and_costs() -> None:
    """The fast way back from storage makes the same record, and takes the id that it was stored under."""
    run = records.Run(arm="parent", role="confirm", slice="s", seed=1, steps=1, score=1.0, seconds=1.0, digest=b"")
    audit = records.Audit(positions=4, worst=0.0, mean=0.0, error=0.0)
    found = records.Evidence(pairs=1, required=0.0, low=None, high=0.5, e_value=40.0, level=0.05, audit=audit)
    result = signed(
        tags=("lr", "init"),
        runs=(run,),
        evidence=found,
        inspired_by=(b"i" * 32,),
        score=3.0,
        cost=records.Cost(seconds=9.0),
    )
    rerun = records.Verification(
        task=b"t" * 32, result=result.id, outcome="confirmed", evidence=found.model_copy(update={"audit": None}),
        runs=(run,), environment=records.Environment(**ENVIRONMENT),
    )  # fmt: skip
    for record in (result, records.sign_record(OTHER, epoch=1, seq=1, prev=None, time=NOW, body=rerun)):
        recalled = records.recall_record(record.to_bytes(), record.id)
        assert recalled.body == record.body.model_copy(update={"runs": (), "cost": records.Cost()})
        assert recalled.id == record.id
        assert recalled.model_copy(update={"body": record.body}) == record


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(extra=1),
        lambda v: v["body"].update(extra=1),
        lambda v: v["body"].pop("title"),
        lambda v: v.update(v=2),
        lambda v: v.update(kind="verification"),
        lambda v: v.update(kind="nonsense"),
        lambda v: v.update(seq=0),
        lambda v: v.update(seq=2),
        lambda v: v.update(seq=True),
        lambda v: v.update(epoch=-1),
        lambda v: v.update(prev=b"x" * 32),
        lambda v: v.update(author=b"short"),
        lambda v: v.update(time=NOW + 2 * 86_400_000),
        lambda v: v["body"].update(task="t" * 32),
        lambda v: v["body"].update(task=b"t" * 31),
        lambda v: v["body"].update(title=""),
        lambda v: v["body"].update(title="x" * 121),
        lambda v: v["body"].update(title="two\nlines"),
        lambda v: v["body"].update(title="bell\x07"),
        lambda v: v["body"].update(title="over\u202eride"),
        lambda v: v["body"].update(title="zero\u200bwidth"),
        lambda v: v["body"].update(title="end\n"),
        lambda v: v["body"].update(title="arabic\u061cmark"),
        lambda v: v["body"].update(reason="tag\U000e0041"),
        lambda v: v["body"].update(cause="private\U000f0000"),
        lambda v: v["body"]["environment"].update(device="interlinear\ufff9"),
        lambda v: v["body"].update(score="3.2"),
        lambda v: v["body"].update(score=True),
        lambda v: v["body"].update(steps=1.0),
        lambda v: v["body"].update(steps=True),
        lambda v: v["body"].update(tags=["free text"]),
        lambda v: v["body"].update(tags=["lr"] * 9),
        lambda v: v["body"].update(outcome="kept"),
        lambda v: v["body"].update(diff="--- a/train.py\n"),
        lambda v: v["body"].update(diff="--- a/train.py\n", outcome="inconclusive", aim="simpler"),
        lambda v: v["body"].update(parent=None),
        lambda v: v["body"].update(inspired_by=[b"i" * 32] * 17),
        lambda v: v["body"]["environment"].update(hardware=""),
    ],
)
def test_what_breaks_the_schema_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """Even correctly signed, a record outside the schema is not a record."""
    with pytest.raises(InvalidData):
        records.parse_record(forged(change), now_ms=NOW)


def test_a_forged_author_or_body_is_refused() -> None:
    """A record signed by another key, or changed after signing, does not verify."""
    stolen = forged(lambda v: v.update(author=signing.public_key(OTHER)), resign=False)
    changed = forged(lambda v: v["body"].update(score=1.0), resign=False)
    notice_signature = forged(
        lambda v: v.update(sig=signing.sign(SEED, signing.NOTICE_DOMAIN, b"anything")), resign=False
    )
    for data in (stolen, changed, notice_signature):
        with pytest.raises(InvalidData, match="signature"):
            records.parse_record(data, now_ms=NOW)


def test_a_date_is_looked_at_last() -> None:
    """A day ahead is too much, and is a matter of clocks only in a record that is right by any clock."""
    forged_early = forged(lambda v: v.update(time=NOW + 86_400_001), resign=False)
    at = signed().time - 86_400_000
    assert records.parse_record(signed().to_bytes(), now_ms=at)
    with pytest.raises(Untimely):
        records.parse_record(signed().to_bytes(), now_ms=at - 1)
    with pytest.raises(InvalidData, match="signature"):
        records.parse_record(forged_early, now_ms=0)


def test_oversize_is_refused_on_both_sides() -> None:
    """A record over 64 KiB is neither made nor read."""
    with pytest.raises(InvalidData, match="at most"):
        records.parse_record(b"\xc4" * (records.MAX_RECORD + 1), now_ms=NOW)
    run = records.Run(
        arm="parent", role="confirm", slice="s", seed=1, steps=1, score=1.0, seconds=1.0, digest=b"d" * 32
    )
    evidence = records.Evidence(pairs=4, required=0.0, low=None, high=None, e_value=99.0, level=0.05)
    kept = {"outcome": "kept", "score": 1.0, "gain": 0.1, "runs": (run,), "evidence": evidence}
    assert records.parse_record(signed(**kept, diff="é" * (records.MAX_DIFF // 2)).to_bytes(), now_ms=NOW)
    with pytest.raises(ValueError, match="diff too large"):
        signed(**kept, diff="é" * (records.MAX_DIFF // 2) + "x")
    for hiding in ("\x1b[2J", "\u202e", "\r"):
        with pytest.raises(ValueError, match="character"):
            signed(**kept, diff=hiding)
    fat = run.model_copy(
        update={"slice": "\N{GRINNING FACE}" * 16, "digest": b"d" * 32, "draw": 2**52, "losses": (1.0,) * 10}
    )
    many = {"inspired_by": (b"i" * 32,) * 16, "reason": "\N{GRINNING FACE}" * 400, "cause": "\N{GRINNING FACE}" * 400}
    largest = signed(**kept | {"runs": (fat,) * 64}, diff="x" * records.MAX_DIFF, **many).to_bytes()
    assert len(largest) <= records.MAX_RECORD


def test_an_unvalidated_copy_is_signed_as_it_will_be_read() -> None:
    """An integer that slipped into a float field by model_copy does not make a record nobody can verify."""
    body = records.Result(**RESULT).model_copy(update={"cost": records.Cost().model_copy(update={"seconds": 0})})
    record = records.sign_record(SEED, epoch=0, seq=1, prev=None, time=NOW, body=body)
    assert records.parse_record(record.to_bytes(), now_ms=NOW) == record


def test_notices_live_in_a_time_window() -> None:
    """A notice from ten minutes ago is a replay; its kind must match its body."""
    lead = records.Lead(task=b"t" * 32, normal=b"n" * 32, parent=b"p" * 32)
    data = records.sign_notice(SEED, time=NOW, body=lead).to_bytes()
    assert records.parse_notice(data, now_ms=NOW + 1000).body == lead
    for clock in (NOW + 600_000, NOW - 600_000):
        with pytest.raises(InvalidData, match="window"):
            records.parse_notice(data, now_ms=clock)


@given(st.binary(max_size=300))
def test_garbage_is_invalid_and_nothing_else(data: bytes) -> None:
    """No bytes make the parsers raise anything but InvalidData."""
    for parse in (records.parse_record, records.parse_notice):
        with pytest.raises(InvalidData):
            parse(data, now_ms=NOW)


def test_values_outside_the_subset_have_no_encoding() -> None:
    """What another node could not decode is not encoded either."""
    deep: Any = 1
    for _ in range(canonical.MAX_DEPTH + 1):
        deep = [deep]
    many = canonical.MAX_ITEMS + 1
    floats = (float("nan"), float("-inf"))
    for value in (deep, [0] * many, {str(n): 0 for n in range(many)}, "\ud800", *floats, 2**63, {1: 2}, {1}):
        with pytest.raises(InvalidData):
            canonical.encode(value)
    for data in (b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc1"):
        with pytest.raises(InvalidData):
            canonical.decode(data, 1 << 20)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_canonical_round_trip(value: Any) -> None:
    """Whatever can be encoded decodes to itself, unless it is nested too deep."""
    try:
        data = canonical.encode(value)
    except InvalidData:
        return
    assert canonical.decode(data, 1 << 20) == value


TEXT = st.lists(st.sampled_from(["a = 1", "b = 2", "", "def f():", "    return a", "x"]), max_size=30).map("\n".join)


@given(TEXT, TEXT)
def test_a_diff_applied_is_the_edit(before: str, after: str) -> None:
    """make_diff and apply_diff are inverse on every pair of texts."""
    if before == after:
        with pytest.raises(DiffRejected, match="changes nothing"):
            diffs.make_diff(before, after)
    else:
        assert diffs.apply_diff(before, diffs.make_diff(before, after)) == after


@given(TEXT, TEXT, st.integers(0, 5))
def test_a_diff_applies_to_a_moved_program_or_not_at_all(before: str, after: str, moved: int) -> None:
    """Where lines were added above, a fuzzy application is the same edit lower down, or is refused."""
    above = "".join(f"# line {number}\n" for number in range(moved))
    try:
        got = diffs.apply_diff(above + before, diffs.make_diff(before, after), fuzzy=True)
    except DiffRejected:
        return
    assert sorted(got.split("\n")) == sorted((above + after).split("\n"))


@given(st.text(max_size=200), st.sampled_from(["", "--- a/train.py\n+++ b/train.py\n@@ -1,1 +1,1 @@\n"]))
def test_no_text_makes_the_diff_gate_raise_anything_else(text: str, head: str) -> None:
    """Whatever comes as a diff is applied or refused; nothing else happens."""
    try:
        diffs.apply_diff("a = 1\nb = 2\n", head + text, fuzzy=True)
    except DiffRejected:
        pass
    assert isinstance(quoting.strip_for_prompt(head + text), str)


def test_layout_comments_and_docstrings_do_not_make_a_new_program() -> None:
    """Programs that differ in them alone are the same experiment; programs that differ in a token are not."""
    plain = "def f(x):\n    return x + 1\n"
    dressed = '# why\ndef f( x ):  # comment\n    """Doc."""\n\n    return x+1\n'
    assert diffs.normal_digest(plain) == diffs.normal_digest(dressed)
    assert diffs.normal_digest(plain) != diffs.normal_digest(plain.replace("1", "2"))
    for one, other in (
        ("s = 'x'", "s = 'y'"),
        ("'x'.join(s)", "'y'.join(s)"),
        ('f"{x}"', 'f"{x}" + s'),
        ("s = f'{x}'", "s = f'{ x}'"),
    ):
        assert diffs.normal_digest(f"{one}\n") != diffs.normal_digest(f"{other}\n")


def test_f_strings_are_one_token_on_every_python() -> None:
    """Python 3.12 and later cut f-strings apart; the normal form, and so "already tried", must not depend on that."""
    assert diffs.normalise("s = f'''a {x!r:>{w}}\n b''' + rf'{y}'\n") == "s = f'''a {x!r:>{w}}\n b''' + rf'{y}' ;"


def test_text_that_does_not_tokenize_is_its_own_normal_form() -> None:
    """A program that cannot run is still the same or not the same as another."""
    assert diffs.normalise("s = (1,\n") == "s = (1,\n"
