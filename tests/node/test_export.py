"""Tables and pictures of a track: what autoresearch's own tools read, and nothing that a peer could slip in."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from swarm_node.node.export import COLUMNS, jsonl, save, tsv
from swarm_node.node.home import Home
from swarm_node.node.plot import points, progress, staircase
from swarm_node.protocols.errors import MachineError, UsageError
from swarm_node.swarm.ledger import Ledger

from .conftest import Command
from .swarms import GPU, MINE, OTHERS, Swarm

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    home = Home.locate(tmp_path / "home")
    home.create()
    with Ledger.open(home.ledger) as ledger:
        yield Swarm(ledger)


def rows(swarm: Swarm, track: int = 0) -> list[dict[str, str]]:
    """The table as any reader of TSV sees it."""
    board = swarm.board
    text = "\n".join(tsv(board, board.tracks[track]))
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_table_is_autoresearchs(swarm: Swarm) -> None:
    """Its columns, its three words, seven digits, six decimals, and 0 for a crash."""
    start = swarm.say(swarm.me, "baseline", 0, score=3.25, parent=None, title="the plain baseline")
    win = swarm.say(swarm.me, "kept", 1, score=3.0, title="a win")
    swarm.say(swarm.me, "discarded", 2, score=3.5)
    swarm.say(swarm.me, "inconclusive", 3, score=2.9)
    swarm.say(swarm.me, "crashed", 4)
    swarm.say(swarm.me, "discarded", 5)
    found = rows(swarm)
    assert COLUMNS == ("commit", "val_bpb", "memory_gb", "status", "description")
    assert [row["status"] for row in found] == ["keep", "keep", "discard", "discard", "crash", "discard"]
    assert [row["val_bpb"] for row in found] == ["3.250000", "3.000000", "3.500000", "2.900000", "0.000000", ""]
    assert [row["commit"] for row in found[:2]] == [start.id.hex()[:7], win.id.hex()[:7]]
    assert {row["memory_gb"] for row in found} == {"0.0"} and found[1]["description"] == "a win"


def test_what_was_refuted_is_not_a_win(swarm: Swarm) -> None:
    """In the table, and on the staircase, however good it was said to be; made up results are not there at all."""
    swarm.say(swarm.me, "baseline", 0, score=3.25, parent=None)
    wrong = swarm.say(swarm.ann, "kept", 1, score=1.0)
    made_up = swarm.say(swarm.cid, "kept", 2, score=0.5)
    swarm.rerun(swarm.me, wrong, "refuted")
    swarm.rerun(swarm.me, made_up, "fabricated")
    found = {row["commit"]: row for row in rows(swarm)}
    assert found[wrong.id.hex()[:7]]["status"] == "discard" and "refuted by" in found[wrong.id.hex()[:7]]["description"]
    assert made_up.id.hex()[:7] not in found
    board = swarm.board
    drawn = points(board, board.tracks[0])
    assert sorted(point.state for point in drawn) == ["baseline", "refuted"]
    assert [point.score for point in staircase(drawn, "lower")] == [3.25]


def test_the_staircase_rests_on_what_is_own_or_confirmed(swarm: Swarm) -> None:
    """A claim is drawn, and moves it once somebody confirmed it."""
    swarm.say(swarm.me, "baseline", 0, score=3.25, parent=None)
    swarm.say(swarm.me, "kept", 1, score=3.0)
    claim = swarm.say(swarm.ann, "kept", 2, score=2.0)
    board = swarm.board
    drawn = points(board, board.tracks[0])
    assert {point.score: point.state for point in drawn} == {3.25: "baseline", 3.0: "kept", 2.0: "claimed"}
    assert min(point.score for point in staircase(drawn, "lower")) == 3.0
    swarm.rerun(swarm.bob, claim, "confirmed")
    board = swarm.board
    steps = staircase(points(board, board.tracks[0]), "lower")
    assert min(point.score for point in steps) == 2.0
    assert [point.score for point in steps] == sorted((point.score for point in steps), reverse=True)


def test_where_higher_is_better_the_staircase_goes_up(swarm: Swarm) -> None:
    """The same points, the other way round."""
    for number, score in enumerate((1.0, 3.0, 2.0, 4.0), 1):
        swarm.say(swarm.me, "kept", number, score=score)
    board = swarm.board
    assert [point.score for point in staircase(points(board, board.tracks[0]), "higher")] == [1.0, 3.0, 4.0]


def test_words_of_peers_stay_in_their_cell(swarm: Swarm) -> None:
    """What no font prints is replaced; quotes and formulas are text."""
    swarm.say(swarm.ann, "kept", 1, title='un\u0378seen "quoted" $\\frac{$ =HYPERLINK(1)')
    (row,) = rows(swarm)
    assert row["description"] == 'un?seen "quoted" $\\frac{$ =HYPERLINK(1)'


def test_the_picture_takes_any_title(swarm: Swarm, tmp_path: Path) -> None:
    """Formulas that are none and letters that no font has."""
    swarm.say(swarm.me, "baseline", 0, score=3.25, parent=None, noise=0.02)
    swarm.say(swarm.me, "kept", 1, score=3.0, gain_error=0.01, title="$\\frac{$ 直す _{^")
    swarm.say(swarm.ann, "kept", 2, score=2.5, title="claimed")
    swarm.say(swarm.ann, "discarded", 3, score=300.0)
    board = swarm.board
    progress(board, board.tracks[0], tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(PNG)
    with pytest.raises(MachineError, match="cannot write to") as caught:
        progress(board, board.tracks[0], tmp_path / "none" / "it.png")
    assert "--out" in caught.value.fix


def test_a_picture_without_points_or_without_matplotlib(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what is missing; for matplotlib, the command that installs it."""
    swarm.say(swarm.me, "crashed", 1)
    board = swarm.board
    with pytest.raises(UsageError, match="nothing on gpt-cpu/short on cpu has a score yet"):
        progress(board, board.tracks[0], Path("never.png"))
    swarm.say(swarm.me, "kept", 2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    board = swarm.board
    with pytest.raises(MachineError, match="needs matplotlib") as caught:
        progress(board, board.tracks[0], Path("never.png"))
    assert "-m pip install" in caught.value.fix and sys.executable in caught.value.fix


def test_tracks_are_never_mixed_and_found_by_name_or_id(swarm: Swarm) -> None:
    """Each by its name as the board has it, its start if no other begins so, or the start of its task's id."""
    mine = swarm.say(swarm.me, "kept", 1)
    swarm.say(swarm.ann, "kept", 2, environment=GPU)
    long = swarm.say(swarm.ann, "kept", 3, task=OTHERS.id)
    board = swarm.board
    by_words = {words: board.track(words) for words in (None, "gpt-cpu/short on cpu", OTHERS.id.hex()[:9])}
    assert [its.name for its in by_words.values()] == ["gpt-cpu/short on cpu"] * 2 + ["gpt-cpu/long on cpu"]
    assert [json.loads(line)["id"] for line in jsonl(swarm.ledger, by_words[None])] == [mine.id.hex()]
    assert [json.loads(line)["id"] for line in jsonl(swarm.ledger, board.track("gpt-cpu/long"))] == [long.id.hex()]
    assert len(list(jsonl(swarm.ledger, None))) == 3
    for words, what in (("gpt-cpu/sh", "several tracks are called"), ("gpt-gpu", "there is no track")):
        with pytest.raises(UsageError, match=what) as caught:
            board.track(words)
        assert "gpt-cpu/short on cuda-sm90" in caught.value.why


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """What was there stays when something goes wrong halfway."""
    out = tmp_path / "results.tsv"
    save(["a", "b"], out)
    assert out.read_bytes() == b"a\nb\n"

    def broken() -> Iterator[str]:
        yield "half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(broken(), out)
    assert out.read_bytes() == b"a\nb\n" and list(tmp_path.iterdir()) == [out]


def test_pipes_and_links_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As are devices."""
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit((tmp_path / "pipe").read_text)
        save(["a", "b"], tmp_path / "pipe")
        assert text.result(60) == "a\nb\n" and (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    save(["c"], tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "c\n"
    with pytest.raises(MachineError, match="is full"):
        save(["a"] * 9000, Path("/dev/full"))


def test_the_command(swarm: Swarm, tmp_path: Path, command: Command) -> None:
    """A table on stdout, and what it leaves out on stderr."""
    swarm.say(swarm.me, "kept", 1, title="mine")
    swarm.say(swarm.ann, "kept", 2, task=OTHERS.id, title="theirs")
    made_up = swarm.say(swarm.cid, "kept", 3)
    swarm.rerun(swarm.me, made_up, "fabricated")
    home = ("--home", str(tmp_path / "home"))
    code, out, err = command("export", *home)
    assert code == 0 and out.splitlines()[1].endswith("\tmine") and len(out.splitlines()) == 2
    assert "1 more tracks" in err and "1 results of quarantined authors" in err
    assert command("export", "--track", "gpt-cpu/long", *home)[1].splitlines()[1].endswith("\ttheirs")
    assert len(command("export", "--format", "jsonl", *home)[1].splitlines()) == 4
    assert command("export", "--track", "moon", *home)[0] == 2
    assert MINE.id != OTHERS.id
