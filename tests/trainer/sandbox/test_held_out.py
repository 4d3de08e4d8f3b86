"""The real corpus under the real policy of this machine: held-out text is nowhere to be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from swarm_node.trainer import corpus
from swarm_node.trainer.sandbox.policy import exec_policy, fork_server_policy
from swarm_node.trainer.sandbox.selftest import self_test

WINDOW = 64
PROBE = """
import json, sys
readable = []
for path in json.load(sys.stdin):
    try: open(path, "rb").close(); readable.append(path)
    except PermissionError: pass
print(json.dumps(readable))
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> corpus.Corpus:
    return corpus.prepare(tmp_path_factory.mktemp("corpus"))


def test_held_out_files_are_denied_and_the_training_text_is_not(text, place, run):
    """No held-out source, its bytecode or its slice opens in the sandbox; train.bin does; the self-test agrees."""
    hidden = [*text.held_out_sources, *text.held.values()]
    server = fork_server_policy(place.root, text.train, hidden, 1 << 30)
    bytecode = [path for source in hidden for path in (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")]
    asked = list(map(str, [text.train, *hidden, *bytecode]))
    done = run(exec_policy(server, place.own, 20), PROBE, stdin=json.dumps(asked))
    assert json.loads(done.stdout) == [str(text.train)], done.stderr
    assert self_test(server, hidden).ok


@pytest.mark.long
def test_no_readable_file_holds_held_out_text(text, place):
    """Of the 64-byte windows of the held-out text, less than 3 % stand anywhere in what the sandbox can read.

    Not 0: sources repeat each other's phrases, and so does the training text that is there to be read.
    """
    server = fork_server_policy(place.root, text.train, text.held_out_sources, 1 << 30)
    search = _Search([path.read_bytes() for path in text.held.values()])
    devices = ("/proc", "/sys", "/dev")
    for path in _files([path for path in server.ro if not path.startswith(devices)]):
        data = path.read_bytes()
        if not data.startswith(b"\x7fELF"):  # a gigabyte of machine code, a minute of searching
            search.read(data)
    assert len(search.windows) > 5000
    assert len(search.found) < 0.03 * len(search.windows), sorted(search.found)[:20]


class _Search:
    """Looks for windows at any offset: a table over a hash of their first 8 bytes first, then the bytes themselves."""

    BITS = 24

    def __init__(self, texts: list[bytes]) -> None:
        self.windows = {text[at : at + WINDOW] for text in texts for at in range(0, len(text) - WINDOW, 512)}
        self.found: set[bytes] = set()
        self._table = np.zeros(1 << self.BITS, bool)
        self._table[self._hash(np.array([int.from_bytes(w[:8], "little") for w in self.windows], np.uint64))] = True

    def read(self, data: bytes) -> None:
        for start in range(min(8, len(data) - WINDOW)):
            words = np.frombuffer(data, "<u8", (len(data) - start) // 8, start)
            for index in np.flatnonzero(self._table[self._hash(words)]):
                at = start + 8 * int(index)
                if data[at : at + WINDOW] in self.windows:
                    self.found.add(data[at : at + WINDOW])

    def _hash(self, words: np.ndarray) -> np.ndarray:
        return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - self.BITS)


def _files(paths: list[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_file():
            yield path
        for directory, _, names in os.walk(path):
            yield from (file for name in names if (file := Path(directory, name)).is_file() and not file.is_symlink())
