"""The proposer that asks a language model behind any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, ...).

The model gets text and gives text: no tools, no secrets. Every call is counted, and hard caps are checked before a
call is made, with the largest answer it could give.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from ...protocols.diffs import make_diff, normal_digest
from ...protocols.errors import DiffRejected, LLMError
from ...protocols.records import Cost
from ..prompt import Prompt, build_prompt, estimate_tokens
from .base import Hypothesis, Refused, Situation
from .blocks import AnswerRefused, read_answer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = structlog.get_logger()

MAX_ANSWER_TOKENS = 8_000
ATTEMPTS = 2  # a refused answer goes back once, with the reason
DEFAULT_MODEL = "gpt-5-mini"  # at api.openai.com, when --model is not given
_SDK_RETRIES = 2  # on 429 and 5xx, with the SDK's own backoff


@dataclass(frozen=True)
class Endpoint:
    """Where the model is, and what may be spent on it."""

    api_key: str
    base_url: str | None
    model: str | None
    timeout: float = 120.0  # seconds for one answer
    spend_limit: float | None = None  # dollars
    token_limit: int | None = None
    price_in: float | None = None  # dollars per million tokens
    price_out: float | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url or 'api.openai.com'}, model={self.model})"  # never the key

    def __post_init__(self) -> None:
        if self.spend_limit is not None and (self.price_in is None or self.price_out is None):
            raise LLMError(
                "--spend-limit needs to know what tokens cost",
                why="endpoints do not say their prices",
                fix="add --price-in and --price-out (dollars per million tokens), or use --token-limit",
            )

    def dollars(self, tokens_in: int, tokens_out: int) -> float:
        """What these tokens cost; 0 when no prices were given."""
        return (tokens_in * (self.price_in or 0.0) + tokens_out * (self.price_out or 0.0)) / 1e6


class EndpointFailed(LLMError):
    """The endpoint failed in the middle of a proposal; `cost` was spent on it before."""

    def __init__(self, what: str, why: str, fix: str, cost: Cost) -> None:
        super().__init__(what, why=why, fix=fix)
        self.cost = cost


class LLMProposer:
    """One hypothesis per call; raises LLMError when the endpoint cannot be used or a cap is reached."""

    name = "llm"

    def __init__(self, endpoint: Endpoint, seed: int) -> None:
        self._endpoint = endpoint
        self._seed = seed
        self._model = endpoint.model
        self._client: AsyncOpenAI | None = None
        self.tokens_in = self.tokens_out = 0

    async def propose(self, situation: Situation) -> Hypothesis | Refused:
        """Ask, read, and feed a refusal back once. Refused carries what the calls cost, like a hypothesis does."""
        prompt = build_prompt(situation, rng_seed=proposal_seed(self._seed, situation))
        messages: list[dict[str, str]] = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
        before = (self.tokens_in, self.tokens_out)
        title, cause = "an answer that cannot be used", ""
        for _ in range(ATTEMPTS):
            try:
                answer = await self._ask(messages)
            except LLMError as error:
                # What was spent on the answers before it counts too.
                raise EndpointFailed(error.what, error.why, error.fix, self._cost_since(before)) from None
            try:
                header, source = read_answer(answer, situation.parent)
                title = " ".join(header.title.split())[:120]
                make_diff(situation.parent, source)
                if situation.tried(source):
                    raise AnswerRefused("exactly this program was already tried, here or by a peer")
            except (AnswerRefused, DiffRejected) as refusal:
                cause = f"{refusal.what}{': ' + refusal.why if refusal.why else ''}"
                log.info("the model's answer was refused", cause=cause)
                messages += [
                    {"role": "assistant", "content": answer[:20_000]},
                    {"role": "user", "content": f"That cannot be used: {cause}. Answer again in the asked format."},
                ]
                continue
            reason = " ".join(header.reason.split())[:400]
            inspired = _inspirations(prompt, situation, source)
            cost = self._cost_since(before)
            return Hypothesis(source, _line(title), _line(reason), header.known_tags(), self.name, "", inspired, cost)
        return Refused(_line(title), f"answer refused: {_line(cause)}"[:400], self.name, self._cost_since(before))

    async def close(self) -> None:
        """Close the connections to the endpoint."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(self, messages: list[dict[str, str]]) -> str:
        import openai

        client = self._open()
        model = self._model or await self._pick_model(client)
        self._check_caps(messages)
        try:
            response = await client.chat.completions.create(
                model=model,
                messages=messages,  # type: ignore[arg-type]
                max_tokens=MAX_ANSWER_TOKENS,
            )
        except openai.BadRequestError as error:
            if "max_completion_tokens" not in str(error):
                raise self._explained(error) from None
            try:  # newer OpenAI models refuse max_tokens; older and other servers do not know its successor
                response = await client.chat.completions.create(
                    model=model,
                    messages=messages,  # type: ignore[arg-type]
                    max_completion_tokens=MAX_ANSWER_TOKENS,
                )
            except (openai.OpenAIError, ValueError) as again:
                raise self._explained(again) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: the answer is not JSON
            raise self._explained(error) from None
        return self._count(messages, response)

    def _count(self, messages: list[dict[str, str]], response: Any) -> str:
        """The answer's text; its tokens are added up, estimated where the endpoint does not say."""
        choices = getattr(response, "choices", None)
        text = (choices[0].message.content if choices else None) or ""
        usage = getattr(response, "usage", None)
        asked = sum(estimate_tokens(message["content"]) for message in messages)
        self.tokens_in += usage.prompt_tokens if usage else asked
        self.tokens_out += usage.completion_tokens if usage else estimate_tokens(text)
        return text

    def _check_caps(self, messages: list[dict[str, str]]) -> None:
        asked = sum(estimate_tokens(message["content"]) for message in messages)
        worst_in, worst_out = self.tokens_in + asked, self.tokens_out + MAX_ANSWER_TOKENS
        endpoint = self._endpoint
        if endpoint.token_limit is not None and worst_in + worst_out > endpoint.token_limit:
            spent = self.tokens_in + self.tokens_out
            raise LLMError(
                f"the token limit of {endpoint.token_limit} is reached", why=f"{spent} used", fix="--token-limit N"
            )
        if endpoint.spend_limit is not None and endpoint.dollars(worst_in, worst_out) > endpoint.spend_limit:
            spent_dollars = endpoint.dollars(self.tokens_in, self.tokens_out)
            why = f"${spent_dollars:.4f} spent, and the next answer could go over it"
            raise LLMError(f"the spend limit of ${endpoint.spend_limit:g} is reached", why=why, fix="--spend-limit USD")

    def _cost_since(self, before: tuple[int, int]) -> Cost:
        tokens_in, tokens_out = self.tokens_in - before[0], self.tokens_out - before[1]
        return Cost(tokens_in=tokens_in, tokens_out=tokens_out, dollars=self._endpoint.dollars(tokens_in, tokens_out))

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI  # takes 1.1 s to import

            endpoint = self._endpoint
            self._client = AsyncOpenAI(
                api_key=endpoint.api_key or "none",  # local servers want none, the SDK insists on one
                base_url=endpoint.base_url,
                timeout=endpoint.timeout,
                max_retries=_SDK_RETRIES,
            )
        return self._client

    async def _pick_model(self, client: AsyncOpenAI) -> str:
        """A local server's only model; the default one at api.openai.com; else the user has to say."""
        import openai

        if self._endpoint.base_url is None:
            self._model = DEFAULT_MODEL
            return self._model
        try:
            served = [model.id async for model in client.models.list()]
        except (openai.OpenAIError, ValueError) as error:
            raise self._explained(error) from None
        if len(served) != 1:
            why = f"the endpoint serves {', '.join(served[:10]) or 'none that it names'}"
            raise LLMError("which model is to be used?", why=why, fix="--model NAME")
        self._model = served[0]
        return self._model

    def _explained(self, error: Exception) -> LLMError:
        """The SDK's error in our words, without the key, whatever the server echoed."""
        import openai

        where = self._endpoint.base_url or "api.openai.com"
        why = f"{type(error).__name__}: {error}"[:300]
        if self._endpoint.api_key:
            why = why.replace(self._endpoint.api_key, "***")
        if isinstance(error, openai.APITimeoutError):
            return LLMError(
                f"no answer from {where} in {self._endpoint.timeout:g} s", why=why, fix="--llm-timeout SECONDS"
            )
        if isinstance(error, openai.APIConnectionError):
            return LLMError(f"{where} cannot be reached", why=why, fix="check OPENAI_BASE_URL")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return LLMError(f"{where} refuses the key", why=why, fix="check OPENAI_API_KEY")
        if isinstance(error, openai.NotFoundError):
            return LLMError(f"{where} does not have the model {self._model}", why=why, fix="--model NAME")
        if isinstance(error, openai.RateLimitError):
            return LLMError(
                f"{where} answers HTTP 429: too many requests or no quota", why=why, fix="wait, or raise the quota"
            )
        return LLMError(f"{where} failed", why=why, fix="look at the endpoint's log")


def proposal_seed(seed: int, situation: Situation) -> int:
    """Seeds every random choice of the next prompt: the same records give the same text, other nodes another."""
    own = sum(trial.own for trial in situation.trials)
    return int.from_bytes(normal_digest(f"{seed}/{own}")[:6], "big")


def api_settings(environ: dict[str, str] | None = None) -> tuple[str, str | None]:
    """(key, base url) from OPENAI_API_KEY and OPENAI_BASE_URL."""
    env = os.environ if environ is None else environ
    return env.get("OPENAI_API_KEY", ""), env.get("OPENAI_BASE_URL") or None


def _inspirations(prompt: Prompt, situation: Situation, source: str) -> tuple[bytes, ...]:
    """Which peers' results this edit stands on: the one it re-runs exactly, else all that were in the prompt."""
    normal = normal_digest(source)
    same = [idea.result for idea in situation.ideas if idea.source is not None and normal_digest(idea.source) == normal]
    return tuple(same[:16] or prompt.ideas[:16])


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip() or "untitled"
