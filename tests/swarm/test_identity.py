"""The identity key: one file, one owner, one identity."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from swarm_node.protocols.errors import ConfigError, MachineError
from swarm_node.protocols.names import peer_id
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.identity import load, load_or_create


def test_key_is_made_once_and_kept(tmp_path: Path) -> None:
    """A key is made on the first start, readable by its owner alone, and is the same afterwards."""
    path = tmp_path / "home" / "identity.key"
    seed = load_or_create(path)
    assert len(seed) == 32
    assert load_or_create(path) == load(path) == seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.key"]


def test_peer_id_is_libp2ps() -> None:
    """The peer id that a record's author shows is the one that libp2p makes of the same seed."""
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    for seed in (bytes(32), b"s" * 32, bytes(range(32))):
        keys = create_new_key_pair(seed)
        assert keys.public_key.to_bytes() == public_key(seed)
        assert ID.from_pubkey(keys.public_key).to_base58() == peer_id(public_key(seed))


def test_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """A key that others can read is refused with the command that closes it."""
    path = tmp_path / "identity.key"
    seed = load_or_create(path)
    for mode in (0o644, 0o640, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="open to other users") as refused:
            load(path)
        assert refused.value.fix == f"chmod 600 {path}"
    path.chmod(0o600)
    assert load(path) == seed


def test_damaged_key_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A truncated, emptied, foreign or changed key is an error, never a new identity."""
    path = tmp_path / "identity.key"
    load_or_create(path)
    whole = path.read_bytes()
    digit = b"0" if whole[20:21] != b"0" else b"1"
    for damaged in (b"", whole[:-9], b"\xff" * 99, b"-----BEGIN KEY-----", whole[:20] + digit + whole[21:], whole * 2):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="damaged"):
            load_or_create(path)
        assert path.read_bytes() == damaged


def test_missing_or_unreadable_key_is_explained(tmp_path: Path) -> None:
    """What cannot be read is a ConfigError that names the file; what cannot be written is the machine's error."""
    with pytest.raises(ConfigError, match=r"identity\.key"):
        load(tmp_path / "identity.key")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_or_create(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write to the identity key"):
        load_or_create(tmp_path / "file" / "identity.key")


def test_processes_that_race_get_one_key(tmp_path: Path) -> None:
    """Processes that start at once in a new home agree on one identity."""
    code = (
        "import sys; from pathlib import Path; from swarm_node.swarm.identity import load_or_create;"
        "sys.stdin.read(1); print(load_or_create(Path(sys.argv[1])).hex())"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "identity.key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        for _ in range(4)
    ]
    for process in starts:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    keys = {process.communicate(timeout=30)[0].strip() for process in starts}
    assert len(keys) == 1
    assert keys == {load(tmp_path / "identity.key").hex()}
