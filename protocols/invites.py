"""Invites: one copy-pasteable string that holds all that is needed to join a swarm.

`swarm1` + base32 (lower case, no padding, so that it survives chat programs and makes a small QR code) of
the canonical bytes and a 4-byte checksum.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from . import canonical
from .canonical import digest
from .errors import InvalidData, InviteError
from .records import Count, Digest, Frozen

PREFIX = "swarm1"
MAX_INVITE = 4096
_NEW = "ask for a new one: on a running node of that swarm, `swarm-node invite` prints it"
Address = Annotated[str, StringConstraints(pattern=r"^/[\x21-\x7e]{3,250}$")]


class Invite(Frozen):
    """Where to dial and what the swarm works on."""

    v: Literal[1] = 1
    addresses: Annotated[tuple[Address, ...], Field(min_length=1, max_length=8)]  # multiaddrs with /p2p/<peer id>
    task: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}/[a-z0-9-]{1,16}$")]  # name/size
    task_id: Digest  # digest of the whole specification, which the joiner rebuilds and compares
    expires: Count = 0  # Unix seconds; 0: never
    key: Annotated[Digest | None, Field(repr=False)] = None  # of a private swarm; left out of an open one's invite


def encode_invite(invite: Invite) -> str:
    """The invite as one string."""
    raw = canonical.encode({name: value for name, value in invite.model_dump().items() if value is not None})
    return PREFIX + base64.b32encode(raw + digest(raw)[:4]).decode().rstrip("=").lower()


def decode_invite(text: str, *, now: float) -> Invite:
    """The invite in `text`; InviteError says what is wrong with it. `now`: Unix seconds."""
    text = "".join(text.split()).lower()
    if not text.startswith(PREFIX):
        raise InviteError("this is not an invite", why=f"an invite starts with {PREFIX}", fix=_NEW)
    body = text[len(PREFIX) :].upper()
    try:
        raw = base64.b32decode(body + "=" * (-len(body) % 8))
        if len(raw) < 8 or digest(raw[:-4])[:4] != raw[-4:]:
            why = "its checksum does not match: part of it is missing or changed"
            raise InviteError("the invite is damaged", why=why, fix=_NEW)
        value = canonical.decode(raw[:-4], MAX_INVITE)
        if isinstance(value, dict) and value.get("v") != 1:
            raise InviteError("the invite is for another version of swarm-node", fix="pip install -U swarm-node")
        invite = Invite.model_validate({**value, "addresses": tuple(value["addresses"])})
        if encode_invite(invite) != text:
            raise InvalidData("another encoding of an invite")
    except (ValueError, InvalidData, KeyError, TypeError) as error:  # base64 and pydantic raise ValueErrors
        why = f"it does not decode ({type(error).__name__})"
        raise InviteError("the invite is damaged", why=why, fix=_NEW) from error
    if invite.expires and invite.expires < now:
        hours = (now - invite.expires) / 3600
        raise InviteError("the invite has expired", why=f"its time ran out {hours:.1f} hours ago", fix=_NEW)
    return invite
