"""Where the language model is, what may be spent on it, and what went wrong with it.

Nothing here shows the key, and what a record may say of a failure names neither the address nor the server's words:
records travel to strangers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from ...protocols.errors import LLMError, UsageError
from ...protocols.records import Cost

MAX_ANSWER_TOKENS = 8_000
_MAX_USAGE = 10**9  # tokens of one call; what says more is wrong
OPENAI = "api.openai.com"


class CapReached(LLMError):
    """One more call could go over a hard cap; no later one fits either."""


class EndpointFailed(LLMError):
    """The endpoint gave no answer. `recorded`: what a record may say of it; `cost`: spent on this proposal before."""

    def __init__(self, what: str, *, why: str, fix: str, recorded: str) -> None:
        super().__init__(what, why=why, fix=fix)
        self.recorded = recorded
        self.cost = Cost()


@dataclass(frozen=True)
class Endpoint:
    """Where the model is, and what may be spent on it; UsageError or LLMError when that makes no sense."""

    api_key: str
    base_url: str | None
    model: str | None
    timeout: float = 120.0  # seconds for one answer
    spend_limit: float | None = None  # dollars
    token_limit: int | None = None
    price_in: float | None = None  # dollars per million tokens
    price_out: float | None = None
    spent: Cost = field(default_factory=Cost)  # before this start: limits hold for the life of a node

    def __post_init__(self) -> None:
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise LLMError("OPENAI_API_KEY has a character that no key has", fix="export OPENAI_API_KEY=... again")
        if self.base_url is not None and not _is_address(self.base_url):
            raise LLMError("OPENAI_BASE_URL is no address", fix="export OPENAI_BASE_URL=http://127.0.0.1:11434/v1")
        for flag, price in (("--price-in", self.price_in), ("--price-out", self.price_out)):
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise UsageError(f"{flag} {price:g} is no price", fix=f"{flag} DOLLARS, per million tokens")
        if self.spend_limit is not None and (self.price_in is None or self.price_out is None):
            raise LLMError(
                "--spend-limit needs to know what tokens cost",
                why="endpoints do not say their prices",
                fix="add --price-in and --price-out (dollars per million tokens), or use --token-limit",
            )

    def __repr__(self) -> str:
        return f"Endpoint({self.where}, model={self.model})"  # never the key

    @property
    def where(self) -> str:
        """The address for people: without the user, password and query that it may hold."""
        if self.base_url is None:
            return OPENAI
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI's own service."""
        return self.base_url is None or urlsplit(self.base_url).hostname == OPENAI

    def dollars(self, tokens_in: int, tokens_out: int) -> float:
        """What these tokens cost; 0 when no prices were given."""
        return (tokens_in * (self.price_in or 0.0) + tokens_out * (self.price_out or 0.0)) / 1e6


class Meter:
    """Counts what calls cost, and says how many more fit under the caps."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._in, self._out = endpoint.spent.tokens_in, endpoint.spent.tokens_out
        self._lost_in = self._lost_out = 0  # may have been billed by an endpoint that then did not answer
        self._ratio = 1.0  # this model's tokens per estimated token, when its tokenizer is worse than estimated

    def mark(self) -> tuple[int, int]:
        """Where the count is now, for `cost_since`."""
        return self._in, self._out

    def cost_since(self, mark: tuple[int, int]) -> Cost:
        """What was counted since `mark`."""
        tokens_in, tokens_out = self._in - mark[0], self._out - mark[1]
        return Cost(tokens_in=tokens_in, tokens_out=tokens_out, dollars=self._endpoint.dollars(tokens_in, tokens_out))

    def calls_left(self, asked: int, most: int) -> int:
        """How many calls of `asked` estimated tokens surely stay under the caps, up to `most`; CapReached when none."""
        for calls in range(most, 0, -1):
            if not self._over(math.ceil(asked * self._ratio) * calls, MAX_ANSWER_TOKENS * calls):
                return calls
        raise self._cap()

    def count(self, asked: int, usage: Any, answered: int) -> None:
        """One answered call, by the endpoint's own count where it gives a sane one, else as estimated."""
        tokens_in, tokens_out = tokens_read(usage), getattr(usage, "completion_tokens", None)
        if tokens_in is not None:
            self._ratio = max(self._ratio, tokens_in / asked)
        self._in += tokens_in if tokens_in is not None else asked
        self._out += tokens_out if _is_count(tokens_out) else answered

    def lose(self, asked: int, calls: int) -> None:
        """Calls that timed out: they count against the caps, as if answered at full length."""
        self._lost_in += math.ceil(asked * self._ratio) * calls
        self._lost_out += MAX_ANSWER_TOKENS * calls

    def _over(self, more_in: int, more_out: int) -> bool:
        tokens_in, tokens_out = self._in + self._lost_in + more_in, self._out + self._lost_out + more_out
        endpoint = self._endpoint
        over_tokens = endpoint.token_limit is not None and tokens_in + tokens_out > endpoint.token_limit
        return over_tokens or (
            endpoint.spend_limit is not None and endpoint.dollars(tokens_in, tokens_out) > endpoint.spend_limit
        )

    def _cap(self) -> CapReached:
        endpoint = self._endpoint
        lost = f", {self._lost_in + self._lost_out} more may be billed for timeouts" if self._lost_in else ""
        why = f"{self._in + self._out} tokens used{lost}; the next answer could go over it"
        if endpoint.spend_limit is None:
            what = f"the token limit of {endpoint.token_limit} is reached"
            return CapReached(what, why=why, fix="join again with a larger --token-limit")
        spent = f"${endpoint.dollars(self._in, self._out):.4f} spent, "
        what = f"the spend limit of ${endpoint.spend_limit:g} is reached"
        return CapReached(what, why=spent + why, fix="join again with a larger --spend-limit")


def tokens_read(usage: Any) -> int | None:
    """How many tokens of the prompt the endpoint says it read; None where it gives no sane count."""
    tokens = getattr(usage, "prompt_tokens", None)
    return tokens if _is_count(tokens) else None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_USAGE


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a broken port or IPv6 address
        return False
