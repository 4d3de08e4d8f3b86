"""The board, and that feed and show say the same of every result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from swarm_node.node.board import board_json
from swarm_node.node.feed import Feed
from swarm_node.node.techniques import techniques, techniques_json, techniques_text
from swarm_node.node.views import Views
from swarm_node.protocols.names import nickname
from swarm_node.protocols.records import Record, Result
from swarm_node.swarm.ledger import Ledger

from .swarms import GPU, MINE, OTHERS, Swarm


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    with Ledger.open(tmp_path / "ledger") as ledger:
        yield Swarm(ledger)


def test_the_best_score_comes_first_and_refuted_ones_come_last(swarm: Swarm) -> None:
    """Failures are not on it; a claim shows that it is one."""
    good = swarm.say(swarm.ann, "kept", 1, score=2.5)
    better = swarm.say(swarm.bob, "kept", 2, score=2.0)
    fake = swarm.say(swarm.cid, "kept", 3, score=0.1)
    swarm.say(swarm.ann, "discarded", 4, score=0.2)
    swarm.rerun(swarm.me, fake, "refuted")
    swarm.rerun(swarm.me, good, "confirmed")
    assert [one.id for one in swarm.rows()] == [better.id, good.id, fake.id]
    first, second, third = [line for line in swarm.lines().split("\n") if line.startswith("   ")]
    assert "claimed" in first and "confirmed by 1" in second and "refuted by" in third


def test_what_quarantined_authors_say_is_left_out(swarm: Swarm) -> None:
    """Who made something up, as found here, is neither ranked nor counted among techniques."""
    made_up = swarm.say(swarm.cid, "kept", 1, score=0.1, tags=("lr",))
    swarm.say(swarm.cid, "kept", 2, score=0.2, tags=("lr",))
    honest = swarm.say(swarm.ann, "kept", 3, score=2.0, tags=("init",))
    swarm.rerun(swarm.me, made_up, "fabricated")
    board = swarm.board
    assert [row.record.id for row in board.rows(board.tracks[0])] == [honest.id] and board.hidden == 2
    assert [one.tag for one in techniques(board.tracks[0], board.views)] == ["init"]


def test_tasks_and_classes_of_hardware_are_never_mixed(swarm: Swarm) -> None:
    """Each has a heading and ranks of its own; the task of this home comes first; one without a name shows its id."""
    unnamed = b"u" * 32
    here = swarm.say(swarm.ann, "kept", 1, score=3.0)
    for number in (2, 3):
        swarm.say(swarm.bob, "kept", number, score=float(number), task=OTHERS.id)
    swarm.say(swarm.bob, "kept", 4, score=1.0, environment=GPU)
    swarm.say(swarm.bob, "kept", 5, score=0.5, task=unnamed)
    headings = [its.name for its in swarm.board.tracks]
    assert set(headings[:2]) == {"gpt-cpu/short on cpu", "gpt-cpu/short on cuda-sm90"}
    assert headings[2:] == ["gpt-cpu/long on cpu", f"{unnamed.hex()[:8]} on cpu"]
    assert swarm.rows(headings.index("gpt-cpu/short on cpu"))[0].id == here.id
    ranks = [json.loads(line)["rank"] for line in board_json(swarm.board, 10)]
    assert ranks == [1, 1, 1, 2, 1]


def test_the_task_of_this_home_is_there_before_anything_was_found(swarm: Swarm) -> None:
    """Whoever just joined sees where they are."""
    swarm.say(swarm.bob, "kept", 1, task=OTHERS.id)
    assert [its.name for its in swarm.board.tracks] == ["gpt-cpu/short", "gpt-cpu/long on cpu"]
    assert "0 results of 0 nodes\n  nothing was kept yet" in swarm.lines()


def test_copies_of_a_program_share_one_row(swarm: Swarm) -> None:
    """It is that of the best verdict, then of who was first: claiming more of another's program moves nobody up."""
    first = swarm.say(swarm.ann, "kept", 1, score=2.0)
    swarm.say(swarm.bob, "kept", 1, score=0.1)
    (row,) = swarm.board.rows(swarm.board.tracks[0])
    assert row.record.id == first.id and len(row.same_program) == 1
    swarm.rerun(swarm.me, first, "refuted")
    (row,) = swarm.board.rows(swarm.board.tracks[0])
    assert row.verdict == "refuted"  # what it does is what its copy does


def test_who_really_ran_a_program_is_no_liar_because_somebody_made_its_run_up(swarm: Swarm) -> None:
    """The honest copy speaks for the program then."""
    first = swarm.say(swarm.ann, "kept", 1, score=2.0)
    copy = swarm.say(swarm.bob, "kept", 1, score=2.1)
    swarm.rerun(swarm.me, first, "fabricated")
    (row,) = swarm.board.rows(swarm.board.tracks[0])
    assert (row.record.id, row.verdict) == (copy.id, "claimed")


def test_many_copies_of_a_doubted_program_are_looked_through_once(swarm: Swarm) -> None:
    """One author may sign hundreds; what refutes one of them refutes all."""
    copies = [swarm.say(swarm.ann, "kept", 1, title=f"{number}") for number in range(100)]
    swarm.rerun(swarm.me, copies[0], "refuted")
    board = swarm.board
    looked, usual = 0, board.views.lineage.makers

    def counted(program: bytes, task: bytes) -> Sequence[Record]:
        nonlocal looked
        looked += len(found := usual(program, task))
        return found

    board.views.lineage.makers = counted  # type: ignore[method-assign]
    (row,) = board.rows(board.tracks[0])
    assert row.verdict == "refuted" and len(row.same_program) == 99 and looked <= 200


def test_adopters_are_counted_and_failures_to_adopt_are_not(swarm: Swarm) -> None:
    """By lineage: whoever kept it after an own re-run, and whoever built on that."""
    win = swarm.say(swarm.ann, "kept", 1, inspired_by=())
    swarm.say(swarm.bob, "kept", 2, 9, inspired_by=(win.id,))
    swarm.say(swarm.cid, "discarded", 3, 9, inspired_by=(win.id,))
    lines = [json.loads(line) for line in board_json(swarm.board, 10)]
    adopters = {line["id"]: [who["name"] for who in line["adopters"]] for line in lines}
    assert adopters[win.id.hex()] == [nickname(swarm.bob.author)]
    assert "adopted by 1" in swarm.lines()


def test_every_line_of_json_has_the_fields_of_records(swarm: Swarm) -> None:
    """Under their names, with evidence and without what `show` is for."""
    win = swarm.say(swarm.ann, "kept", 1, tags=("lr",), gain_error=0.02)
    swarm.rerun(swarm.bob, win, "confirmed", setting="wider")
    (line,) = map(json.loads, board_json(swarm.board, 10))
    body = win.body.model_dump(mode="python")
    assert {name: line[name] for name in ("title", "score", "gain", "gain_error", "noise", "aim")} == {
        name: body[name] for name in ("title", "score", "gain", "gain_error", "noise", "aim")
    }
    assert line["evidence"]["e_value"] == 99.0 and line["tags"] == ["lr"] and line["task"] == MINE.id.hex()
    assert (line["task_name"], line["size"], line["hardware"]) == ("gpt-cpu", "short", "cpu")
    assert line["transfers"] == [{"author": swarm.bob.author.hex(), "where": "wider", "outcome": "confirmed"}]
    assert line["state"] == "claimed" and "holds at twice the width" in line["state_text"]
    assert "runs" not in line and "diff" not in line


def test_who_confirmed_something_may_be_anybody(swarm: Swarm) -> None:
    """Two names of one liar confirm and refute what they like: whoever found neither right is told so, but not among
    those who were invited."""
    win = swarm.say(swarm.ann, "kept", 1)
    swarm.rerun(swarm.bob, win, "confirmed")
    other = swarm.say(swarm.ann, "kept", 2)
    for critic in (swarm.bob, swarm.cid):
        swarm.rerun(critic, other, "refuted")
    views = Views(swarm.ledger)
    assert views.state(win) == "confirmed by 1 stranger" and views.state(other) == "refuted by 2 strangers"
    assert views.opinion(other).state == "claimed", "slander hides no win"
    assert not views.is_sure(win)
    swarm.ledger.journal_put("node", "swarm", "ab")
    views = Views(swarm.ledger)
    assert views.state(win) == "confirmed by 1" and nickname(swarm.cid.author) in views.state(other)


def test_feed_show_and_board_agree_on_states(swarm: Swarm) -> None:
    """Claimed, confirmed, refuted, transferred and built on refuted work: the same words everywhere."""
    wins = [swarm.say(swarm.ann, "kept", number, score=float(number)) for number in range(1, 5)]
    wins.append(swarm.say(swarm.bob, "kept", 6, 3, score=9.0))
    swarm.rerun(swarm.bob, wins[1], "confirmed", environment=GPU)
    swarm.rerun(swarm.me, wins[2], "refuted")
    swarm.rerun(swarm.me, wins[3], "confirmed")
    feed, board = Feed(swarm.ledger), swarm.board
    states = {row.record.id: row.state for row in board.rows(board.tracks[0])}
    assert [states[win.id] for win in wins] == [
        "claimed",
        "claimed, holds on cuda-sm90, strangers say",
        f"refuted by {nickname(swarm.me.author)}",
        "confirmed by 1",
        "claimed, built on refuted work",
    ]
    for win in wins:
        state = states[win.id]
        assert feed.line(win).endswith(state) and f"  {state}\n" in swarm.shown(win)


def test_show_tells_the_lineage(swarm: Swarm) -> None:
    """What a win was built on, who re-ran it with which evidence and at which width, and who adopted it."""
    first = swarm.say(swarm.ann, "kept", 1, title="the first step")
    second = swarm.say(swarm.ann, "kept", 2, 1)
    swarm.rerun(swarm.bob, second, "confirmed")
    swarm.rerun(swarm.cid, second, "refuted", setting="wider")
    swarm.say(swarm.bob, "kept", 2, 1, inspired_by=(second.id,))
    text = swarm.shown(second)
    assert f"built on    {first.id.hex()[:8]} {nickname(swarm.ann.author)}   the first step   claimed" in text
    assert f"re-run by   {nickname(swarm.bob.author)} confirmed on cpu   e-value 40 for, 0.01 against" in text
    assert f"{nickname(swarm.cid.author)} refuted at twice the width   e-value 0.01 for, 40 against" in text
    assert f"adopted by  {nickname(swarm.bob.author)}   19" in text
    assert "does not hold at twice the width" in text
    failed = swarm.say(swarm.cid, "discarded", 9, 2)
    assert f"built on    {second.id.hex()[:8]}" in swarm.shown(failed)


def test_titles_cannot_drive_the_terminal(swarm: Swarm) -> None:
    """What no font prints is replaced, on the board and in lineages."""
    first = swarm.say(swarm.ann, "kept", 1, title="un\u0378seen")
    second = swarm.say(swarm.bob, "kept", 2, 1)
    assert isinstance(first.body, Result) and "\u0378" in first.body.title
    assert "un?seen" in swarm.lines() and "\u0378" not in swarm.lines() + swarm.shown(second)


def test_techniques_count_failures_and_measure_gains_in_noise(swarm: Swarm) -> None:
    """The most confirmed come first; what was stopped as hopeless weighs on the median, a crash does not."""
    won = swarm.say(swarm.ann, "kept", 1, tags=("lr", "schedule"), gain=0.4, noise=0.1)
    swarm.rerun(swarm.me, won, "confirmed")
    swarm.say(swarm.bob, "discarded", 2, tags=("lr",), gain=-0.2, noise=0.1)
    swarm.say(swarm.bob, "discarded", 3, tags=("lr",))
    swarm.say(swarm.cid, "crashed", 4, tags=("lr",), noise=None)
    wrong = swarm.say(swarm.cid, "kept", 5, tags=("width",), gain=1.0, noise=0.1)
    swarm.rerun(swarm.me, wrong, "refuted")
    swarm.say(swarm.bob, "discarded", 6, tags=("depth",))
    rows = [json.loads(line) for line in techniques_json(swarm.board)]
    found = {row["tag"]: row for row in rows}
    assert [row["tag"] for row in rows] == ["lr", "schedule", "depth", "width"]
    lr = found["lr"]
    assert (lr["tried"], lr["kept"], lr["confirmed"], lr["refuted"], lr["finished"]) == (4, 1, 1, 0, 2)
    assert lr["median_gain"] == pytest.approx(-2.0)
    assert (found["width"]["refuted"], found["depth"]["median_gain"]) == (1, None)
    text = "\n".join(techniques_text(swarm.board))
    assert "−2.0 σ" in text and "hopeless" in text
