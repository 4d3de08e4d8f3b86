"""Programs of results on disk and as patches: rebuilt from the records, applied by git, never over what was there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from swarm_node.node.apply import caution, find, patch, write
from swarm_node.node.home import Home
from swarm_node.node.tasks import remember
from swarm_node.protocols.diffs import git_patch
from swarm_node.protocols.errors import ConfigError, MachineError, UsageError
from swarm_node.protocols.names import nickname
from swarm_node.protocols.records import Record
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_bytes
from swarm_node.swarm.ledger import Ledger

from .conftest import Command
from .history import BASE, OTHER, OWN, PEER, TASK, History, changed

WIDER = changed(BASE, ("HEADS = 2 ", "HEADS = 4 "))
FASTER = changed(WIDER, ("MLP_RATIO = 4 ", "MLP_RATIO = 3 "))


class Observer:
    """A home that stores no programs but its task's, and what it heard."""

    def __init__(self, home: Home) -> None:
        home.create()
        self.home, self.history = home, History()
        self.ledger = Ledger.open(home.ledger)
        remember(self.ledger, TASK.spec)
        self.ledger.journal_put("node", "author", public_key(OWN).hex())

    def hear(self, *records: Record) -> None:
        for record in records or self.history.records:
            self.ledger.add(record, received_ms=1)


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    observer = Observer(Home.locate(tmp_path / "home"))
    yield observer
    observer.ledger.close()


def git_applies(folder: Path, text: str, before: str) -> str:
    """train.py after `git apply`."""
    folder.mkdir()
    (folder / "train.py").write_bytes(before.encode())
    subprocess.run(["git", "apply", "-"], input=text.encode(), cwd=folder, check=True, timeout=60)
    return (folder / "train.py").read_bytes().decode()


def test_a_program_is_made_anew_from_the_wins_that_led_to_it(observer: Observer, tmp_path: Path) -> None:
    """Of several authors, from the baseline that this version has; both patches are accepted by git."""
    first = observer.history.won(PEER, BASE, WIDER)
    second = observer.history.won(OTHER, WIDER, FASTER, inspired_by=(first.id,), title="--- a/train.py")
    observer.hear()
    found = find(observer.ledger, second.id.hex()[:8])
    assert found.source == FASTER and found.parent == WIDER and found.baseline == BASE
    assert git_applies(tmp_path / "baseline", patch(found, "baseline"), BASE) == FASTER
    assert git_applies(tmp_path / "parent", patch(found, "parent"), WIDER) == FASTER
    assert "+HEADS" in patch(found, "baseline") and "+HEADS" not in patch(found, "parent")


@pytest.mark.parametrize(
    ("old", "new"),
    [("a\n", "a\nb\n"), ("a\n", "a"), ("a", "b"), ("a", "a\n"), ("a\nb\n", "b\n"), ("a\n", "\n"), ("a\n\n", "a\n")],
)
def test_ends_of_files_are_gits(tmp_path: Path, old: str, new: str) -> None:
    """With a line break at the end or without."""
    assert git_applies(tmp_path / "x", git_patch(old, new), old) == new


def test_what_takes_too_long_to_compare_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A program that somebody made for it keeps nobody waiting."""
    old = "".join(f"{number % 97}\n" for number in range(9000))
    new = "".join("x\n" if number % 13 == 0 else f"{number % 97}\n" for number in range(9000))
    text = git_patch(old, new)
    assert text.count("\n-") == 9000 + 1 and git_applies(tmp_path / "x", text, old) == new


def test_a_missing_ancestor_is_named(observer: Observer) -> None:
    """With its author, and what to do; a program stored whole needs no ancestors."""
    first = observer.history.won(PEER, BASE, WIDER)
    second = observer.history.won(OTHER, WIDER, FASTER)
    observer.hear(second)
    with pytest.raises(ConfigError, match=f"program of {second.id.hex()[:8]} is not here") as caught:
        find(observer.ledger, second.id.hex())
    assert first.body.program.hex()[:8] in caught.value.why and nickname(second.author) in caught.value.why
    assert "swarm-node join" in caught.value.fix
    observer.ledger.put_blob(program_bytes({"train.py": WIDER}))
    assert find(observer.ledger, second.id.hex()).source == FASTER


def test_what_was_not_kept_has_no_diff(observer: Observer) -> None:
    """And its author has the program; a verification has none at all."""
    failed = observer.history.tried(PEER, BASE, WIDER)
    win = observer.history.won(PEER, BASE, FASTER)
    observer.history.judged(win)
    observer.hear()
    with pytest.raises(ConfigError, match="is not here") as caught:
        find(observer.ledger, failed.id.hex())
    assert nickname(failed.author) in caught.value.fix
    with pytest.raises(UsageError, match="a verification has no program"):
        find(observer.ledger, observer.history.records[-1].id.hex())


def test_a_strangers_code_is_announced_before_it_is_written(observer: Observer) -> None:
    """Louder while nobody confirms it who was found right here; not at all when it was made here."""
    own = observer.history.won(OWN, BASE, WIDER)
    foreign = observer.history.won(PEER, BASE, FASTER)
    observer.hear()
    texts = ["\n".join(caution(find(observer.ledger, one.id.hex()))) for one in (own, foreign)]
    assert texts[0].endswith("claimed") and "\n" not in texts[0]
    assert "warning" in texts[1] and nickname(foreign.author) in texts[1] and "not run" in texts[1]
    observer.history.judged(foreign, key=OTHER)
    observer.hear(observer.history.records[-1])
    praised = caution(find(observer.ledger, foreign.id.hex()))
    assert praised[0].endswith("confirmed by 1 stranger") and praised[1].startswith("warning:")
    heard = len(observer.history.records)
    observer.history.judged(foreign)
    for record in observer.history.records[heard:]:
        observer.hear(record)
    confirmed = caution(find(observer.ledger, foreign.id.hex()))
    assert confirmed[0].endswith("confirmed by 2") and confirmed[1].startswith("note:")
    observer.history.judged(foreign, "refuted", OWN)
    observer.hear(observer.history.records[-1])
    assert "warning" in "\n".join(caution(find(observer.ledger, foreign.id.hex())))


def test_a_file_that_differs_is_not_lost(observer: Observer, tmp_path: Path) -> None:
    """Until its owner says so; a link is replaced, not followed; nothing else is left behind."""
    win = observer.history.won(PEER, BASE, WIDER)
    observer.hear()
    found, folder = find(observer.ledger, win.id.hex()), tmp_path / "new" / "folder"
    path, is_new = write(found, folder, force=False)
    assert is_new and path.read_bytes() == WIDER.encode()
    assert write(found, folder, force=False) == (path, False)
    path.unlink()
    (tmp_path / "mine.py").write_text("mine")
    path.symlink_to(tmp_path / "mine.py")
    with pytest.raises(MachineError, match="is there already and differs") as caught:
        write(found, folder, force=False)
    assert "--force" in caught.value.fix and path.read_text() == "mine"
    assert write(found, folder, force=True) == (path, True)
    assert (tmp_path / "mine.py").read_text() == "mine" and not path.is_symlink()
    assert [one.name for one in folder.iterdir()] == ["train.py"]


def test_a_folder_that_cannot_be_made_is_named(observer: Observer, tmp_path: Path) -> None:
    """With what to choose instead."""
    win = observer.history.won(PEER, BASE, WIDER)
    observer.hear()
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot write to .*file") as caught:
        write(find(observer.ledger, win.id.hex()), tmp_path / "file", force=False)
    assert "--to" in caught.value.fix


def test_the_command(observer: Observer, tmp_path: Path, command: Command) -> None:
    """The patch and nothing else on stdout; the warning on stderr; JSON says both and where."""
    win = observer.history.won(PEER, BASE, WIDER)
    observer.hear()
    where = ("--home", str(observer.home.data))
    code, out, err = command("apply", win.id.hex()[:8], "--patch", *where)
    assert code == 0 and git_applies(tmp_path / "a", out, BASE) == WIDER and "warning" in err
    code, out, err = command("apply", win.id.hex()[:8], "--to", str(tmp_path / "b"), "--json", *where)
    said = json.loads(out)
    assert (said["path"], said["written"], said["state"]) == (str(tmp_path / "b" / "train.py"), True, "claimed")
    for wrong in (("--against", "parent"), ("--patch", "--force")):
        code, out, err = command("apply", win.id.hex()[:8], *wrong, *where)
        assert (code, out) == (2, "") and "fix:" in err
