"""Where a node keeps its things."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from swarm_node.node import cli, logs
from swarm_node.node.home import Home
from swarm_node.node.logs import LogFile
from swarm_node.protocols.errors import MachineError


def test_environment_moves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SWARM_NODE_HOME moves data, cache and config; an explicit home wins over it."""
    monkeypatch.setenv("SWARM_NODE_HOME", str(tmp_path / "env"))
    assert Home.locate(None).ledger == tmp_path / "env" / "ledger.sqlite3"
    assert Home.locate(tmp_path / "flag").corpora == tmp_path / "flag" / "cache" / "corpora"
    monkeypatch.delenv("SWARM_NODE_HOME")
    assert tmp_path not in Home.locate(None).data.parents


def test_home_is_private(tmp_path: Path) -> None:
    """Other users cannot read a node's folder."""
    home = Home.locate(tmp_path / "home")
    home.create()
    assert home.data.stat().st_mode & 0o077 == 0


def test_second_node_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """A second process on the same home gets an error that names the first; kill -9 frees the home."""
    home = Home.locate(tmp_path / "home")
    home.create()
    program = (
        "import sys; from pathlib import Path; from swarm_node.node.home import Home\n"
        "with Home.locate(Path(sys.argv[1])).locked():\n    print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(home.data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(MachineError, match="already uses") as caught, home.locked():
            raise AssertionError("two nodes hold one home")
        assert home.is_in_use()
        assert str(holder.pid) in caught.value.why and "--home" in caught.value.fix
        holder.kill()
    assert not home.is_in_use()
    with home.locked():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_home_says_how_to_choose_another(tmp_path: Path) -> None:
    """A read-only home is one clear error."""
    (tmp_path / "ro").mkdir(mode=0o500)
    with pytest.raises(MachineError, match="cannot write") as caught:
        Home.locate(tmp_path / "ro").create()
    assert "--home" in caught.value.fix


def test_home_under_a_file_is_one_clear_error(tmp_path: Path) -> None:
    """A home that cannot be a folder is refused with the reason, also for root."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        Home.locate(tmp_path / "file" / "home").create()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    """Nobody is told to make a file writable that was given as the home."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="is not a folder") as caught:
        Home.locate(tmp_path / "file").create()
    assert "choose a folder" in caught.value.fix


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a new home and the lock of an old one say so; what is only logged is lost without an error."""
    home = Home.locate(tmp_path)
    (tmp_path / ".writable").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"disk that holds the home .* is full") as caught:
        home.create()
    assert "free some space" in caught.value.fix

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    home.create()
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MachineError, match=r"disk that holds .*node\.lock is full"), home.locked():
        raise AssertionError("a home whose lock cannot be written is not held")
    home.log.symlink_to("/dev/full")
    LogFile(home.log, verbose=False).write("a line\n")


def test_a_write_that_fails_on_a_full_disk_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it happens, it ends with the machine's exit code and leaves no crash report."""

    def write(*_: object, **__: object) -> int:
        Path("/dev/full").write_text("x")
        return 0

    monkeypatch.setattr(cli, "app", write)
    monkeypatch.setattr(sys, "argv", ["swarm-node", "join", "--home", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 4 and "is full" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_log_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full file becomes the one before; two writers, or one whose file was removed, go on in the same new one."""
    monkeypatch.setattr(logs, "LIMIT", 100)
    path = tmp_path / "node.log"
    one, other = LogFile(path, verbose=False), LogFile(path, verbose=False)
    one.write("x" * 101)
    one.write("first\n")
    other.write("second\n")
    assert path.read_text() == "first\nsecond\n" and path.with_suffix(".log.1").read_text() == "x" * 101
    path.unlink()
    other.write("third\n")
    one.write("fourth\n")
    assert path.read_text() == "third\nfourth\n" and path.stat().st_mode & 0o777 == 0o600
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        one.write("y" * 101)
    assert len(os.listdir("/proc/self/fd")) == descriptors
