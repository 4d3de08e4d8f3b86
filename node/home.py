"""Where a node keeps its things, and the lock that keeps a second node out.

    <home>/identity.key   the node's Ed25519 key, 0600
    <home>/swarm.key      the key of a private swarm, 0600, where it takes part in one
    <home>/ledger.sqlite3 every record it made or accepted
    <home>/scratch/       sandboxed runs, emptied at every start
    <home>/node.log       structured log
    <home>/dash.token     what the dashboard asks for when it is not for this machine alone, 0600
    <cache>/corpora/      prepared text, shared by all nodes of this user

SWARM_NODE_HOME (or --home) moves all of it into one folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ..protocols.errors import MachineError, unwritable

_APP = "swarm-node"
_PROBE_BYTES = 4096  # one block: a full disk still takes empty files


@dataclass(frozen=True)
class Home:
    """The folders of one node."""

    data: Path
    cache: Path
    config: Path

    @classmethod
    def locate(cls, explicit: Path | None) -> Home:
        """The home given, else SWARM_NODE_HOME, else the platform's usual folders."""
        chosen = explicit or (Path(os.environ["SWARM_NODE_HOME"]) if os.environ.get("SWARM_NODE_HOME") else None)
        if chosen is not None:
            root = chosen.expanduser().absolute()
            return cls(root, root / "cache", root / "config.toml")
        return cls(
            Path(platformdirs.user_data_dir(_APP, appauthor=False)),
            Path(platformdirs.user_cache_dir(_APP, appauthor=False)),
            Path(platformdirs.user_config_dir(_APP, appauthor=False)) / "config.toml",
        )

    @property
    def key(self) -> Path:
        return self.data / "identity.key"

    @property
    def swarm_key(self) -> Path:
        return self.data / "swarm.key"

    @property
    def ledger(self) -> Path:
        return self.data / "ledger.sqlite3"

    @property
    def _lock(self) -> Path:
        return self.data / "node.lock"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    @property
    def corpora(self) -> Path:
        return self.cache / "corpora"

    @property
    def log(self) -> Path:
        return self.data / "node.log"

    @property
    def dash_token(self) -> Path:
        return self.data / "dash.token"

    def create(self) -> None:
        """Make the folders, private to this user; MachineError when that is impossible, or leaves no room."""
        if self.data.exists() and not self.data.is_dir():
            fix = "choose a folder, which is made when it is not there: swarm-node join --home DIR"
            raise MachineError(f"the home {self.data} is not a folder", why="there is a file of that name", fix=fix)
        probe = self.data / ".writable"
        try:
            for folder in (self.data, self.cache):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                probe.write_bytes(bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            fix = "make it writable, or choose another: swarm-node join --home DIR"
            raise unwritable(f"the home {self.data}", error, fix=fix) from error

    def is_in_use(self) -> bool:
        """Whether a node runs in this home now, on this machine or in another container of it."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this home for one node; MachineError when another node of this machine has it."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unwritable(self._lock, error, fix="choose another home: --home DIR") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise MachineError(
                    f"another swarm-node already uses {self.data}",
                    why=f"process {holder} holds it; two nodes with one identity would contradict each other",
                    fix="use that node (swarm-node feed), or give this one its own: swarm-node join --home DIR",
                ) from None
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            except OSError as error:
                raise unwritable(self._lock, error, fix="choose another home: --home DIR") from error
            yield
        finally:
            os.close(descriptor)  # the kernel drops the lock with it, also after kill -9
