"""Canonical msgpack: one value has exactly one encoding, so bytes can be hashed, signed and compared.

The subset: nil, bool, int (64 bit), float64 (finite), str (UTF-8), bin, array, and maps whose keys are
strings in sorted order. No extension types. msgpack alone accepts duplicate keys, NaN and non-minimal
integers; decoding therefore re-encodes and compares the bytes (6.6 µs for a typical record).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgpack

from .errors import InvalidData

MAX_DEPTH = 8
MAX_ITEMS = 4096
DIGEST_BYTES = 32


def digest(data: bytes) -> bytes:
    """BLAKE2b-256 of `data`: 32 bytes."""
    return hasher(data).digest()


def hasher(data: bytes = b"") -> hashlib.blake2b:
    """`digest` of more than fits into memory: it takes the rest by `update`."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def encode(value: Any) -> bytes:
    """The one canonical encoding of `value`; raises InvalidData for anything outside the subset."""
    try:
        packed = msgpack.packb(_ordered(value, 0), use_bin_type=True, use_single_float=False)
    except UnicodeEncodeError as error:
        raise InvalidData("a lone surrogate, which UTF-8 cannot hold") from error
    assert packed is not None  # the stub allows None, packb never returns it
    return packed


def decode(data: bytes, max_bytes: int) -> Any:
    """The value that `data` canonically encodes; raises InvalidData on any other bytes."""
    if len(data) > max_bytes:
        raise InvalidData(f"{len(data)} bytes where at most {max_bytes} are allowed")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            use_list=True,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
        same = encode(value) == data
    except InvalidData:
        raise
    except Exception as error:  # ValueError, StackError, UnicodeDecodeError, ... all mean the same here
        raise InvalidData("not decodable as canonical msgpack", why=type(error).__name__) from error
    if not same:
        raise InvalidData("not the canonical encoding")
    return value


def recall(data: bytes) -> Any:
    """The value in bytes that `decode` accepted before; nothing is checked again."""
    return msgpack.unpackb(data, raw=False)


_AS_IT_IS = frozenset((type(None), bool, str, bytes))  # looked at first: most values, in what is hot


def _ordered(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidData(f"nested deeper than {MAX_DEPTH}")
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidData("integer outside 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidData("NaN or infinity")
        return value
    if isinstance(value, list | tuple | dict) and len(value) > MAX_ITEMS:
        raise InvalidData(f"more than {MAX_ITEMS} items")
    if isinstance(value, list | tuple):
        return [_ordered(item, depth + 1) for item in value]
    if isinstance(value, dict):
        if set(map(type, value)) - {str}:
            raise InvalidData("map key that is not a string")
        return {key: its if type(its := value[key]) in _AS_IT_IS else _ordered(its, depth + 1) for key in sorted(value)}
    raise InvalidData(f"type {type(value).__name__} has no canonical encoding")
