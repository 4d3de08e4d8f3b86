"""Every wrong input ends in one clear error with its fix and the designed exit code; nothing is lost."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from swarm_node.node.cli import main
from swarm_node.protocols.invites import Invite, encode_invite
from swarm_node.protocols.names import peer_id
from swarm_node.swarm.identity import load_or_create

from .conftest import TINY, NodeProcess, clean_env, run_command

ADDRESS = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes(range(32)))}"
EXPIRED = encode_invite(Invite(addresses=(ADDRESS,), task="gpt-cpu/60", task_id=bytes(32), expires=1))
FOREIGN = encode_invite(Invite(addresses=(ADDRESS,), task="gpt-cpu/60", task_id=bytes(32)))
ABSENT = encode_invite(Invite(addresses=(ADDRESS,), task="gpt-moon/short", task_id=bytes(32)))
SOLO = ("--solo", "--size", TINY)


def fails(args: list[str], code: int, *words: str) -> None:
    """The command exits with `code`, says `words` on stderr, and shows no traceback."""
    done = run_command(args, timeout=60)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr, (word, done.stderr)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nonsense"], 3, ("not an invite", "fix:")),
        ([FOREIGN[:-4]], 3, ("damaged", "fix:")),
        ([EXPIRED], 3, ("expired", "fix:")),
        ([FOREIGN, "--solo"], 2, ("cannot rebuild", "fix:")),
        ([FOREIGN], 5, ("cannot be rebuilt", "nobody", "fix:")),
        ([ABSENT], 2, ("gpt-moon", "does not have", "--task gpt-cpu")),
        (["--task", "gpt-moon"], 2, ("no task", "gpt-cpu")),
        (["--size", "huge"], 2, ("no size", "short")),
        (["--experiments", "0"], 2, ("makes no sense",)),
        (["--experiments", "-3"], 2, ("makes no sense",)),
        (["--for", "soon"], 2, ("not a time", "2h")),
        (["--experiments", "1.5"], 2, ("whole number",)),
        (["--price-in", "-3"], 2, ("makes no sense", "fix:")),
        (["--host", "not.an.address"], 2, ("IPv4", "fix:")),
        (["--corpus", "/dev/zero"], 4, ("cannot be a corpus", "fix:")),
        (["--port", "70000"], 2, ("makes no sense",)),
        (["--cpus", "0"], 2, ("makes no sense",)),
        (["--proposer", "oracle"], 2, ("unknown", "offline")),
        (["--corpus", "/nonexistent/text"], 4, ("/nonexistent/text", "fix:")),
        (["--program", "/nonexistent/program.md"], 4, ("brief", "fix:")),
    ],
)
def test_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    code: int,
    words: tuple[str, ...],
) -> None:
    """Wrong invites and flags name what is wrong and what would be right. In this process: there are many."""
    for name in set(os.environ) - set(clean_env()):
        monkeypatch.delenv(name)
    monkeypatch.setattr("swarm_node.node.presence.VISIT_SECONDS", 0.5)
    monkeypatch.setattr("sys.argv", ["swarm-node", "join", *args, "--home", str(tmp_path / "home")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == code and "Traceback" not in said.err + said.out
    assert all(word in said.err for word in words), said.err


def test_misspelled_commands_and_a_broken_config_file(tmp_path: Path) -> None:
    """Typos get a suggestion, in a config file and a variable too; a file that is not TOML is named."""
    fails(["joim"], 2, 'Did you mean "join"')
    fails(["join", "--exprimnts", "3"], 2, "--experiments")
    for text, word in (("port = [", "config.toml"), ("modle = 'x'", "did you mean model")):
        (tmp_path / "config.toml").write_text(text)
        done = run_command(["join", f"--home={tmp_path}"])
        assert done.returncode == 3 and word in done.stderr and "fix:" in done.stderr
    (tmp_path / "config.toml").unlink()
    done = run_command(["join", f"--home={tmp_path}"], env={"SWARM_NODE_TOKEN_LIMT": "1000"})
    assert done.returncode == 3 and "did you mean SWARM_NODE_TOKEN_LIMIT?" in done.stderr


def test_one_config_file_serves_every_command(tmp_path: Path) -> None:
    """A setting that only join has does not stop feed."""
    (tmp_path / "config.toml").write_text("model = 'gpt-5'\nfor = '2h'\nspend-limit = 3.0\n")
    done = run_command(["feed", "--no-follow"], env={"SWARM_NODE_HOME": str(tmp_path)})
    assert done.returncode == 3 and "there is no ledger" in done.stderr


def test_small_and_binary_corpora(tmp_path: Path) -> None:
    """Text that is too small, and bytes that are no text, are refused with the limit."""
    (tmp_path / "small.txt").write_text("too little text\n" * 100)
    fails(["join", "--corpus", str(tmp_path / "small.txt"), "--home", str(tmp_path / "home")], 4, "fix:")
    (tmp_path / "noise.bin").write_bytes(os.urandom(3 << 20))
    fails(["join", "--corpus", str(tmp_path / "noise.bin"), "--home", str(tmp_path / "home")], 4, "fix:")


def test_damaged_ledger_and_key(tmp_path: Path) -> None:
    """A damaged ledger or key is named, with the way out, and is left as it was."""
    home = tmp_path / "home"
    home.mkdir()
    ledger = home / "ledger.sqlite3"
    ledger.write_bytes(b"this is not a database" * 100)
    fails(["join", *SOLO, "--home", str(home)], 3, "ledger", "fix:")
    assert ledger.read_bytes().startswith(b"this is not a database")
    ledger.unlink()
    key = home / "identity.key"
    key.write_bytes(b"garbage")
    key.chmod(0o600)
    fails(["join", *SOLO, "--home", str(home)], 3, "key", "fix:")
    assert key.read_bytes() == b"garbage"


def test_key_open_to_others_is_refused(tmp_path: Path) -> None:
    """A key that other users can read is refused with the chmod that fixes it; a fresh one is private."""
    home = tmp_path / "home"
    key = home / "identity.key"
    load_or_create(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)
    fails(["join", *SOLO, "--home", str(home)], 3, "chmod 600")


def test_taken_port(tmp_path: Path) -> None:
    """A port that was asked for and is taken is a network error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        fails(["bootstrap", "--host", "127.0.0.1", "--port", port, "--home", str(tmp_path / "home")], 5, port, "fix:")


def test_second_node_on_one_home(start: Callable[..., NodeProcess]) -> None:
    """The second node on one home is refused and says who holds it; the first is not disturbed."""
    first = start("home", "join", *SOLO)
    first.wait_for("machine")
    fails(["join", *SOLO, "--home", str(first.home)], 4, "already uses", str(first.process.pid), "--home")
    assert first.process.poll() is None
    assert first.stop() == 130


def test_commands_without_a_ledger(tmp_path: Path) -> None:
    """Readers on an empty home say how to start a node."""
    for command in (["feed", "--no-follow"], ["show", "abcd"]):
        fails([*command, "--home", str(tmp_path / "none")], 3, "swarm-node join")
    assert not (tmp_path / "none").exists()


def test_a_private_home_without_its_key_joins_nobody(start: Callable[..., NodeProcess]) -> None:
    """As after a restored backup without it: it would take what was said behind the key into an open swarm."""
    lab = ("bootstrap", "--private", "--host", "127.0.0.1", "--port", "0", "--no-lan")
    first = start("home", *lab)
    first.wait_for("invite")
    assert first.stop() == 130
    key = first.home / "swarm.key"
    saved = key.read_bytes()
    key.unlink()
    for again in (("bootstrap", *lab[2:]), lab, ("join", FOREIGN), ("join", *SOLO)):
        fails([*again, "--home", str(first.home)], 3, "is gone", "swarm.key", "restore it")
    assert not key.exists()
    key.write_bytes(saved)
    key.chmod(0o600)
    second = start("home", *lab)
    second.wait_for("invite")
    assert second.stop() == 130
