"""The node's identity: one Ed25519 seed in a file that only its owner can read.

The file is one line, `swarm-node-key-1 <seed> <public key>` in hex. The public key is there to notice damage:
a changed seed would otherwise be a valid key of somebody else, and the node would lose its history silently.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from ..protocols.errors import ConfigError, unwritable
from ..protocols.signing import public_key

_MAGIC = "swarm-node-key-1"
_SEED_BYTES = 32
_MAX_FILE = 4096


def load_or_create(path: Path) -> bytes:
    """The 32-byte seed in `path`, made there first when the file does not exist."""
    if not path.exists():
        seed = secrets.token_bytes(_SEED_BYTES)
        write_secret(path, f"{_MAGIC} {seed.hex()} {public_key(seed).hex()}\n", f"the identity key {path}")
    return load(path)  # also when another process made it first


def load(path: Path) -> bytes:
    """The 32-byte seed in `path`; ConfigError when it is missing, unreadable, damaged or open to others."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_FILE)
    except OSError as error:
        raise ConfigError(
            f"the identity key {path} cannot be read",
            why=error.strerror or str(error),
            fix=f"give this user the file back (chown, chmod 600 {path}), or choose another home with --home",
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"the identity key {path} is open to other users",
            why=f"its mode is {mode:04o}; whoever reads it can sign records in this node's name",
            fix=f"chmod 600 {path}",
        )
    seed = _parse(data)
    if seed is None:
        raise ConfigError(
            f"the identity key {path} is damaged",
            why="it is not a key that swarm-node wrote, or it was changed since",
            fix=f"restore it from a backup; or move it away (mv {path} {path}.damaged) to start as a new node",
        )
    return seed


def _parse(data: bytes) -> bytes | None:
    try:
        magic, seed_hex, public_hex = data.decode("ascii").split()
        seed = bytes.fromhex(seed_hex)
        intact = magic == _MAGIC and len(seed) == _SEED_BYTES and public_key(seed).hex() == public_hex
    except ValueError:
        return None
    return seed if intact else None


def write_secret(path: Path, text: str, what: str) -> None:
    """Write a file for this user's eyes so that a crash leaves none or a whole one, and a race leaves the first one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)  # unlike a rename, never replaces a key that is already there
            except FileExistsError:
                pass
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise unwritable(what, error, fix="choose a writable home: --home DIR") from error
