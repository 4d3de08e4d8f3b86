"""What `doctor` says of a home."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarm_node.node import doctor
from swarm_node.node.home import Home
from swarm_node.swarm.ledger import Ledger


def test_a_damaged_ledger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that `join` would refuse is not ok, although a reader can open it; the fix keeps its files."""
    monkeypatch.setattr(doctor, "_isolation", lambda home: ())
    home = Home.locate(tmp_path)
    with Ledger.open(home.ledger) as ledger:
        for number in range(50):
            ledger.put_blob(bytes([number]) * 4000)
    data = bytearray(home.ledger.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xaa" * 8192
    home.ledger.write_bytes(data)
    (check,) = [check for check in doctor.examine(home) if check.name == "ledger"]
    assert check.state == "failed" and check.code == 3 and "mv " in check.fix
