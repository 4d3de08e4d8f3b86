"""The key of a private swarm: in its invites, and in a file of every home that takes part.

The file has the form of libp2p's `swarm.key` (github.com/libp2p/specs, pnet). A home never leaves its private swarm, so
that records which were made behind the key do not reach an open one.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from ..protocols.canonical import digest
from ..protocols.errors import ConfigError, UsageError
from ..protocols.invites import Invite
from ..swarm.identity import write_secret

_HEAD = ["/key/swarm/psk/1.0.0/", "/base16/"]
_BYTES = 32
_ELSEWHERE = "give this node another home: --home DIR"


def swarm_key(path: Path, invite: Invite | None, private: bool, was: str = "") -> bytes | None:
    """The key of the swarm that a home takes part in, None for an open one. It is the home's own, else the invite's,
    else a new one when the user asks for a `private` swarm. ConfigError and UsageError for what does not fit.

    was: `name_of` the key that the home had before; empty: none."""
    if path.exists():
        key = _read(path)
        if invite is not None and invite.key != key:
            why = f"the invite is to {'an open swarm' if invite.key is None else 'another private one'}"
            raise ConfigError("this home takes part in a private swarm", why=why, fix=_ELSEWHERE)
        return key
    if was and name_of(invite.key if invite is not None else None) != was:
        why = "this home takes part in a private swarm, and what it knows must not reach another one"
        fix = f"restore it from your copy of the home, or join with an invite of that swarm; {_ELSEWHERE}"
        raise ConfigError(f"the swarm key {path} is gone", why=why, fix=fix)
    if private and invite is not None and invite.key is None:
        raise UsageError(
            "--private starts a private swarm, and the invite is to an open one", fix="leave out one of them"
        )
    key = invite.key if invite is not None else secrets.token_bytes(_BYTES) if private else None
    if key is not None:
        write_secret(path, "\n".join((*_HEAD, key.hex(), "")), f"the swarm key {path}")
        return _read(path)
    return None


def name_of(key: bytes | None) -> str:
    """Tells swarms apart and says nothing of the key; empty for an open one."""
    return digest(b"swarm key" + key).hex()[:16] if key is not None else ""


def _read(path: Path) -> bytes:
    try:
        lines = path.read_text(encoding="ascii").split()
        key = bytes.fromhex(lines[2]) if lines[:2] == _HEAD and len(lines) == 3 else b""
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if len(key) != _BYTES:
        raise _damaged(path, "it is not a key of libp2p's form")
    return key


def _damaged(path: Path, why: str) -> ConfigError:
    fix = f"restore it; or move it away and join with an invite of that swarm (mv {path} {path}.old)"
    return ConfigError(f"the swarm key {path} cannot be read", why=why, fix=fix)
