"""Picks the proposer from flags and environment, and says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ...protocols.canonical import digest
from ...protocols.errors import LLMError, UsageError
from ...protocols.records import Cost
from .base import Proposer
from .endpoint import Endpoint
from .hybrid import FIRST_PAUSE, HybridProposer
from .llm import LLMProposer, api_settings
from .offline import OfflineProposer
from .sweep import Sweep


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
    pause: float = FIRST_PAUSE  # seconds
    llm_share: float = 0.5  # of the proposals that the language model makes
    seed: int | None = None


def choose(settings: ProposerSettings, key: bytes, tell: Callable[[str], None], spent: Cost) -> tuple[Proposer, str]:
    """The proposer, and the line that explains the choice. `key`: the node's private seed; `spent`: by it so far."""
    seed = settings.seed if settings.seed is not None else secret_seed(key)
    offline = OfflineProposer(seed, sweep=Sweep(seed))
    if settings.kind not in ("auto", "llm", "offline"):
        raise UsageError(f"--proposer {settings.kind} is unknown", why="it is auto, llm or offline")
    if not 0 <= settings.llm_share <= 1:
        raise UsageError(f"--llm-share {settings.llm_share} makes no sense", why="it is a share, from 0 to 1")
    keyed = bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))
    if settings.kind == "offline":
        return offline, "offline proposer   (as asked)"
    if settings.kind == "auto" and not keyed:
        return offline, "offline proposer   (no OPENAI_API_KEY; set it and join again, nothing is lost)"
    api_key, base_url = api_settings()
    if not keyed:
        raise LLMError(
            "--proposer llm needs an endpoint", fix="export OPENAI_API_KEY=..., or OPENAI_BASE_URL=http://..."
        )
    endpoint = Endpoint(
        api_key=api_key,
        base_url=base_url,
        model=settings.model,
        timeout=settings.timeout,
        spend_limit=settings.spend_limit,
        token_limit=settings.token_limit,
        price_in=settings.price_in,
        price_out=settings.price_out,
        spent=spent,
    )
    secret = secret_seed(key)
    both = HybridProposer(LLMProposer(endpoint, secret), offline, tell, settings.llm_share, secret, settings.pause)
    share = f"{settings.llm_share:.0%} of the proposals; the rest, and when it fails, offline"
    return both, f"{settings.model or 'the model'} at {endpoint.where}   ({share})"


def secret_seed(key: bytes) -> int:
    """Seeds a node's own choices: the same after a restart, and no stranger can foresee them (the data marker)."""
    return int.from_bytes(digest(b"swarm-node/choices/1" + key)[:8], "big")
