"""Readable names of peers: `brave-heron` on screen, the Ed25519 key in every record."""

from __future__ import annotations

import base58

from .canonical import digest

# libp2p's identity multihash of the protobuf-wrapped Ed25519 key; the 32 key bytes follow.
_PEER_ID_PREFIX = bytes.fromhex("002408011220")

_ADJECTIVES = (
    "able amber ample aqua bold brave brisk bright calm candid chief clear clever cool cosmic crisp "
    "daring deft eager early fair fast fine firm fleet fond free fresh gentle glad golden grand "
    "happy hardy humble jolly keen kind lively loyal lucid merry mighty mild neat nimble noble "
    "patient plain polite prime proud quick quiet rapid ready sharp silver sleek smart solid steady swift warm wise"
).split()
_ANIMALS = (
    "ant badger bat bear beaver bee bison boar camel cat cobra condor crab crane crow deer "
    "dove eagle elk falcon ferret finch fox frog gecko goose hare hawk heron ibis jay koala "
    "lark lemur lion lynx mole moose moth mouse newt orca otter owl panda parrot pike puma "
    "rabbit raven robin salmon seal shark sloth stork swan tapir tiger toad trout turtle viper whale"
).split()


def nickname(author: bytes) -> str:
    """A stable two-word name for a 32-byte public key; not unique, only readable."""
    mark = digest(author)
    return f"{_ADJECTIVES[mark[0] % len(_ADJECTIVES)]}-{_ANIMALS[mark[1] % len(_ANIMALS)]}"


def peer_id(author: bytes) -> str:
    """The libp2p peer id (base58, `12D3Koo…`) of a 32-byte Ed25519 public key."""
    return base58.b58encode(_PEER_ID_PREFIX + author).decode()


def author_of(peer: str) -> bytes:
    """The 32-byte Ed25519 public key inside a base58 peer id; ValueError when it holds none."""
    raw = base58.b58decode(peer)
    if not raw.startswith(_PEER_ID_PREFIX) or len(raw) != len(_PEER_ID_PREFIX) + 32:
        raise ValueError(f"{peer} is not an Ed25519 peer id")
    return raw[len(_PEER_ID_PREFIX) :]
