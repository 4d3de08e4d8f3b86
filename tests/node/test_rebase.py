"""Changes of one program brought onto another."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarm_node.node import rebase as module
from swarm_node.node.rebase import merge, rebase
from swarm_node.protocols.diffs import make_diff

from .history import BASE, changed

OURS = changed(BASE, ("LR = 1e-3", "LR = 3e-3"), ("x = x + self.pos(torch.arange(T))", "x = 2 * x"))
THEIRS = changed(BASE, ("HEADS = 2", "HEADS = 4"))
BOTH = changed(OURS, ("HEADS = 2", "HEADS = 4"))


@pytest.fixture(autouse=True)
def forgetful() -> None:
    """Every test merges anew."""
    module._done.clear()


def test_both_changes_are_in_the_merge() -> None:
    """What was changed in different places stands in one program."""
    assert merge(OURS, BASE, THEIRS) == BOTH
    assert merge(OURS, BASE, BASE) == OURS and merge(BASE, BASE, THEIRS) == THEIRS


def test_a_merge_follows_what_moved_where_a_diff_does_not() -> None:
    """A change next to lines that stand twice, or whose surroundings changed, is placed by the common ancestor."""
    base = "a = 1\n\n\nx = 0\n\n\nx = 0\n\n\nb = 1\n"
    theirs = "a = 1\n\n\nx = 0\n\n\nx = 5\n\n\nb = 1\n"
    ours = "new = 7\n\n\n" + base.replace("b = 1", "b = 2")
    wanted = "new = 7\n\n\n" + theirs.replace("b = 1", "b = 2")
    diff = make_diff(base, theirs)
    assert rebase(ours, None, theirs, diff) is None, "by the diff alone it has no place"
    assert rebase(ours, base, theirs, diff) == wanted


def test_neighbouring_constants_are_two_places() -> None:
    """To git, lines side by side are one place; sizes and rates stand so. Comments and order stay as they are."""
    ours, theirs = changed(BASE, ("BATCH = 8", "BATCH = 4")), changed(BASE, ("SEQ = 128", "SEQ = 64"))
    assert merge(ours, BASE, theirs) == changed(ours, ("SEQ = 128", "SEQ = 64"))
    assert merge(ours, BASE, changed(BASE, ("BATCH = 8", "BATCH = 2"))) is None


def test_a_conflict_is_no_program() -> None:
    """Both sides changed one line: nothing is guessed, and no conflict markers come out."""
    theirs = changed(BASE, ("LR = 1e-3", "LR = 5e-3"))
    assert rebase(OURS, BASE, theirs, make_diff(BASE, theirs)) is None


def test_without_git_a_diff_still_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git falls back to the diff; so does one that does not know the win's parent."""
    diff = make_diff(BASE, THEIRS)
    assert rebase(OURS, None, THEIRS, diff) == BOTH
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert rebase(OURS, BASE, THEIRS, diff) == BOTH
    assert rebase(OURS, BASE, THEIRS, "") is None


def test_nothing_of_the_users_git_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's settings nor a repository around the temporary folder say how texts are merged."""
    hostile = "[merge]\n\tconflictStyle = diff3\n[core]\n\tautocrlf = true\n[alias]\n\tmerge-file = !touch ran\n[broken"
    (tmp_path / ".gitconfig").write_text(hostile)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "config").write_text(hostile)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    assert merge(OURS, BASE, THEIRS) == BOTH
    assert not list(tmp_path.glob("swarm-node-merge-*")), "nothing is left behind"


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("hostile", ["a = 1\u202e\n", "a = 1\x00\n", "x\n" * 20_000, "# coding: utf-7\n", "(" * 200])
def test_what_breaks_the_policy_is_not_merged(which: int, hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git never sees a text that could not be a program."""
    monkeypatch.setattr(module, "_by_git", lambda *texts: pytest.fail("git was asked"))
    texts = [OURS, BASE, THEIRS]
    texts[which] = hostile
    assert merge(*texts) is None


def test_a_merge_that_breaks_the_policy_is_none() -> None:
    """Two halves within the limits can be over them together."""
    filler = "".join(f"y{n} = {n}\n" for n in range(6_000))
    base = "a = 1\n\n\n\n\nb = 2\n"
    assert merge(base + filler, base, filler + base) is None


def test_the_same_merge_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered by the texts, conflicts too; a failure of git is not."""
    asked: list[int] = []
    real = module._by_git

    def counted(*texts: str) -> str | None:
        asked.append(1)
        return real(*texts)

    monkeypatch.setattr(module, "_by_git", counted)
    for _ in range(3):
        assert merge(OURS, BASE, THEIRS) == BOTH
    assert len(asked) == 1
    monkeypatch.setattr(module, "TIMEOUT", 0.0)
    with pytest.raises(module.MergeUnavailable):
        merge(THEIRS, BASE, OURS)
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    assert merge(THEIRS, BASE, OURS) == BOTH
