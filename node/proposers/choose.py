"""Picks the proposer from flags and environment, and says why."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...protocols.canonical import digest
from ...protocols.errors import UsageError
from .base import Proposer
from .offline import OfflineProposer


@dataclass(frozen=True)
class ProposerSettings:
    """What the user said about where ideas come from."""

    kind: str = "auto"  # auto, llm, offline
    model: str | None = None
    spend_limit: float | None = None  # dollars
    token_limit: int | None = None
    price_in: float | None = None  # dollars per million tokens
    price_out: float | None = None
    timeout: float = 120.0  # seconds
    seed: int | None = None


def choose(settings: ProposerSettings, author: bytes) -> tuple[Proposer, str]:
    """The proposer, and the line that explains the choice."""
    seed = settings.seed if settings.seed is not None else int.from_bytes(digest(author)[:6], "big")
    offline = OfflineProposer(seed)
    if settings.kind not in ("auto", "llm", "offline"):
        raise UsageError(f"--proposer {settings.kind} is unknown", why="it is auto, llm or offline")
    keyed = bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))
    if settings.kind == "offline":
        return offline, "offline proposer   (as asked)"
    if settings.kind == "auto" and not keyed:
        return offline, "offline proposer   (no OPENAI_API_KEY; set it and join again, nothing is lost)"
    raise UsageError("no llm yet")
