"""Who re-runs a claim: rendezvous hashing over the nodes that a node sees (Thaler and Ravishankar, "Using name-based
mappings to increase hit rates", IEEE/ACM Transactions on Networking 6, 1998).

It spreads the load, so that work per node stays constant while the swarm grows. It proves nothing about anybody.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from ..protocols.canonical import digest

VERIFIERS = 2


def ranked(result: bytes, present: Iterable[bytes], purpose: bytes = b"") -> list[bytes]:
    """The authors among `present` in the order in which they are to re-run `result`."""
    return sorted(set(present), key=lambda author: _place(result, purpose, author))


def _place(result: bytes, purpose: bytes, author: bytes) -> bytes:
    return digest(result + purpose + author)


def is_chosen(
    own: bytes,
    result: bytes,
    present: Iterable[bytes],
    *,
    age: float,
    patience: float,
    verifiers: int = VERIFIERS,
    purpose: bytes = b"",
) -> bool:
    """Whether `own` is to re-run `result` now.

    age: seconds since the claim was heard; each `patience` seconds without a verdict widen the circle by one verifier.
    """
    circle = verifiers + int(age / patience)
    mine = _place(result, purpose, own)
    before = (author for author in set(present) if author != own and _place(result, purpose, author) < mine)
    return next(itertools.islice(before, circle - 1, None), None) is None  # looks no further than it has to
