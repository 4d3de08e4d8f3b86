"""How records look on one line."""

from __future__ import annotations

import pytest
from swarm_node.node import format as show
from swarm_node.node.feed import json_line
from swarm_node.protocols.records import Environment, Evidence, Result, Run, Verification, sign_record

SEED = bytes(range(32))
ENV = Environment(hardware="cpu", device="test, 2 cores", system="Linux", python="3.11", library="torch 2")
RUN = Run(arm="candidate", role="confirm", slice="confirm", seed=1, steps=10, score=2.6, seconds=1.0, digest=b"d" * 32)
EVIDENCE = Evidence(pairs=4, required=0.003, low=0.547, high=0.615, e_value=900.0, level=0.0125)
KEPT = Result(
    task=b"t" * 32, outcome="kept", program=b"p" * 32, parent=b"q" * 32, normal=b"n" * 32,
    diff="--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-a\n+b\n", title="embeddings start at std 0.02",
    score=2.6121, gain=0.5813, gain_error=0.017, evidence=EVIDENCE, runs=(RUN,), proposer="offline", environment=ENV,
)  # fmt: skip


@pytest.mark.parametrize(
    ("gain", "direction", "shown"),
    [(0.5813, "lower", "−0.5813"), (-0.02, "lower", "+0.0200"), (0.5, "higher", "+0.5000"), (None, "lower", "")],
)
def test_change_is_the_metrics_own(gain: float | None, direction: str, shown: str) -> None:
    """A gain shows as what happened to the metric."""
    assert show.change(gain, direction) == shown


def test_json_is_what_every_parser_reads() -> None:
    """No number that is not finite gets into a line of it."""
    value = {"a": 1e308 * 10, "b": [0.5, (float("nan"), {"c": -1e308 * 10})], "d": b"\x01", "e": True}
    assert json_line(value) == '{"a": null, "b": [0.5, [null, {"c": null}]], "d": "01", "e": true}'


def test_interval_orders_its_ends() -> None:
    """The interval is that of the metric's change, low end first; without two bounds there is none."""
    assert show.interval(EVIDENCE, "lower") == "[−0.615, −0.547]"
    assert show.interval(EVIDENCE, "higher") == "[+0.547, +0.615]"
    assert show.interval(EVIDENCE.model_copy(update={"high": None}), "lower") == show.interval(None, "lower") == ""


def test_durations() -> None:
    """Minutes and seconds below an hour, hours above."""
    assert show.duration(161) == "02:41"
    assert show.duration(3761.9) == "1:02:41"


def test_peers_text_cannot_drive_the_terminal() -> None:
    """Escape sequences in any text are replaced."""
    assert show.clean("a\x1b[2Jb\u202ec\nd") == "a?[2Jb?c?d"


def test_kept_experiment_line_has_score_change_and_interval() -> None:
    """The line that a node prints for a win."""
    line = show.experiment_line(2, KEPT, "lower", 362)
    assert line.startswith("#2   KEEP     2.6121 ± 0.0170")
    assert "−0.5813 [−0.615, −0.547]" in line and line.endswith("06:02")


def test_what_is_not_decided_yet_says_what_decides() -> None:
    """The lines between a screening run and the verdict; a simplification may be promoted at a loss."""
    assert show.screened_line("RMSNorm", 3.2, "3.25 ± 0.02", 94) == (
        "screened   3.2000  RMSNorm   parent 3.25 ± 0.02, more runs decide   01:34"
    )
    assert show.promoted_line("RMSNorm", 0.05, 0.02, "lower", 150) == (
        "promoted   −0.0500 (2.5 σ)  RMSNorm   pairs of fresh runs decide   02:30"
    )
    assert show.promoted_line("no bias", -0.01, 0.02, "lower", 150).startswith("promoted   +0.0100  no bias ")


def test_a_run_without_a_score_says_why() -> None:
    """A screening run that was killed shows its reason on the node's line and in the feed; a scored one needs none."""
    cause = "killed at half time: 3.1000 bits per byte, above 2.9000"
    changes = {"outcome": "discarded", "score": None, "gain": None, "evidence": None, "diff": None, "cause": cause}
    for score in (None, 2.7):
        body = KEPT.model_copy(update=changes | {"score": score})
        record = sign_record(SEED, epoch=0, seq=1, prev=None, time=1_700_000_000_000, body=body)
        for line in (show.experiment_line(1, body, "lower", 60), show.feed_line(record, "", None, "t", "lower")):
            assert (f"({cause})" in line) == (score is None)


def test_feed_lines_name_the_author_and_the_state() -> None:
    """A win shows its state; a verification shows whose win it is about."""
    win = sign_record(SEED, epoch=0, seq=1, prev=None, time=1_700_000_000_000, body=KEPT)
    line = show.feed_line(win, "claimed", None, "t", "lower")
    assert win.id.hex()[:8] in line and "−0.5813 ±0.0170" in line and line.endswith("claimed")
    check = Verification(
        task=b"t" * 32, result=win.id, outcome="confirmed", gain=0.5, evidence=EVIDENCE, environment=ENV
    )
    other = sign_record(bytes(32), epoch=0, seq=1, prev=None, time=1_700_000_000_000, body=check)
    assert f"confirmed {show.nickname(win.author)}'s {win.id.hex()[:8]}" in show.feed_line(other, "", win, "t", "lower")


def test_a_re_run_shows_by_what_it_decided() -> None:
    """Confirmed with an e-value of 25, however wide the interval; an inconclusive one shows the interval."""
    win = sign_record(SEED, epoch=0, seq=1, prev=None, time=1_700_000_000_000, body=KEPT)
    wide = EVIDENCE.model_copy(update={"low": -0.01, "e_value": 25.0, "against": 0.04})
    said = {}
    for outcome, found in (
        ("confirmed", wide),
        ("refuted", wide.model_copy(update={"e_value": 0.04, "against": 25.0})),
        ("inconclusive", wide.model_copy(update={"e_value": 3.0})),
    ):
        check = Verification.model_validate(
            {
                "task": b"t" * 32,
                "result": win.id,
                "outcome": outcome,
                "gain": 0.05,
                "evidence": found,
                "environment": ENV,
            }
        )
        said[outcome] = show.rerun_line(check, win, "lower", 60)
    assert "−0.0500 e-value 25 for it" in said["confirmed"] and "[" not in said["confirmed"]
    assert "e-value 25 against it" in said["refuted"]
    assert "[−0.615, +0.010]" in said["inconclusive"]
