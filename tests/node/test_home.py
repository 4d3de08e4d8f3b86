"""Where a node keeps its things."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from swarm_node.node.home import Home
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
