"""The proposer that asks a language model behind any OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, ...).

The model gets text and gives text: no tools, no secrets. Every call is counted, and hard caps are checked before a
call is made, with the largest answer it could give.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from ...protocols.diffs import make_diff, normal_digest
from ...protocols.errors import DiffRejected, LLMError
from ...protocols.text import printable
from ..egress import Egress
from ..prompt import build_prompt, estimate_tokens
from .base import Hypothesis, Idea, Refused, Situation
from .blocks import AnswerRefused, read_answer
from .endpoint import MAX_ANSWER_TOKENS, CapReached, Endpoint, EndpointFailed, Meter, tokens_read

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = structlog.get_logger()

ATTEMPTS = 2  # a refused answer goes back once, with the reason
DEFAULT_MODEL = "gpt-5-mini"  # at api.openai.com, when --model is not given
_SDK_CALLS = 3  # on 429, 5xx and timeouts, with the SDK's own backoff
_CUT_PROMPT = 0.5  # of the estimated tokens: that would be 7 characters of Python a token
_BACKOFF = 120.0  # seconds: the SDK obeys a Retry-After of up to 60 between two calls


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and what explains an answer that cannot be used: in words, or empty."""

    text: str
    excuse: str


class LLMProposer:
    """One hypothesis per call; raises LLMError when the endpoint cannot be used or a cap is reached."""

    name = "llm"

    def __init__(self, endpoint: Endpoint, seed: int) -> None:
        self._endpoint = endpoint
        self._seed = seed
        self._model = endpoint.model
        self._meter = Meter(endpoint)
        self._egress = Egress(endpoint.api_key)
        self._client: AsyncOpenAI | None = None
        self._limit = "max_tokens"

    async def propose(self, situation: Situation) -> Hypothesis | Refused:
        """Ask, read, and feed a refusal back once. Refused carries what the calls cost, like a hypothesis does."""
        seed = proposal_seed(self._seed, situation)
        prompt = await asyncio.to_thread(build_prompt, situation, rng_seed=seed)
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        mark = self._meter.mark()
        title, cause = "an answer that cannot be used", ""
        for _ in range(ATTEMPTS):
            try:
                answer = await self._ask(messages)
            except CapReached:
                if not cause:
                    raise
                break  # the first answer was paid for: it is recorded, and the next proposal meets the cap
            except EndpointFailed as error:
                error.cost = self._meter.cost_since(mark)
                raise
            if self._egress.holds_key(answer.text):  # it is not told so: that would send the answer out once more
                cause = "it holds the API key"
                log.warning("an answer of the model holds the API key and was dropped: revoke the key")
                break
            try:
                header, source = await asyncio.to_thread(read_answer, answer.text, situation.parent)
                title = _line(header.title, 120) or title
                reruns = await asyncio.to_thread(_reruns, situation, source)
                inspired = tuple(dict.fromkeys(one for idea in reruns for one in idea.inspired_by)) or prompt.ideas
                return Hypothesis(
                    source, title, _line(header.reason or "", 400), header.known_tags(), self.name, "", inspired[:16],
                    self._meter.cost_since(mark),
                )  # fmt: skip
            except (AnswerRefused, DiffRejected) as refusal:
                cause = f"{refusal.what}{': ' + refusal.why if refusal.why else ''}"
            cause += answer.excuse
            log.info("the model's answer was refused", cause=cause)
            messages += [
                {"role": "assistant", "content": answer.text[:20_000] or "(no text)"},
                {"role": "user", "content": f"That cannot be used: {cause}. Answer again in the asked format."},
            ]
        return Refused(title, _line(f"answer refused: {cause}", 400), self.name, self._meter.cost_since(mark))

    async def close(self) -> None:
        """Close the connections to the endpoint."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(self, messages: list[dict[str, str]]) -> Answer:
        """One answer, counted; EndpointFailed when none comes, CapReached when it could cost too much."""
        import openai

        asked = sum(estimate_tokens(message["content"]) for message in messages)
        calls = self._meter.calls_left(asked, _SDK_CALLS)
        endpoint = self._endpoint
        try:
            # The SDK's timeout is between two bytes: a server that drips them would hold it for ever.
            async with asyncio.timeout(calls * endpoint.timeout + _BACKOFF):
                response = await self._complete(messages, calls - 1)
        except LLMError:
            raise
        except (openai.APITimeoutError, TimeoutError) as error:
            if self._model is not None and type(error.__cause__).__name__ != "ConnectTimeout":
                self._meter.lose(asked, calls)  # it was asked, and may send a bill
            phrase = f"gave no answer in {endpoint.timeout:g} s"
            raise self._failed(phrase, error, "--llm-timeout SECONDS") from None
        except Exception as error:  # whatever a broken server makes the SDK raise costs one proposal, not the node
            raise self._explained(error) from None
        answer, usage = _read_response(response), getattr(response, "usage", None)
        self._meter.count(asked, usage, estimate_tokens(answer.text) if answer else 0)
        if answer is None:
            fix = "check OPENAI_BASE_URL: it usually ends in /v1"
            raise self._failed(
                "sent something that is no chat completion",
                ValueError(f"a {type(response).__name__} without an answer"),
                fix,
            )
        read = tokens_read(usage)
        if read and read < asked * _CUT_PROMPT:  # 0: some servers do not count what they have in their cache
            excuse = f" (the endpoint read {read} of about {asked} tokens: its context is too short)"
            return Answer(answer.text, answer.excuse + excuse)
        return answer

    async def _complete(self, messages: list[dict[str, str]], retries: int) -> Any:
        import openai

        client = self._open()
        model = self._model or await self._pick_model(client)
        create: Any = client.with_options(max_retries=retries).chat.completions.create
        try:
            return await create(model=model, messages=messages, **{self._limit: MAX_ANSWER_TOKENS})
        except openai.BadRequestError as error:
            if self._limit != "max_tokens" or "max_completion_tokens" not in str(error):
                raise
        self._limit = "max_completion_tokens"  # newer OpenAI models want it; older and other servers do not know it
        return await create(model=model, messages=messages, **{self._limit: MAX_ANSWER_TOKENS})

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI  # takes 1.1 s to import

            key = self._endpoint.api_key or "none"  # local servers want none, the SDK insists on one
            self._client = AsyncOpenAI(
                api_key=key, base_url=self._endpoint.base_url, timeout=self._endpoint.timeout, max_retries=0
            )
        return self._client

    async def _pick_model(self, client: AsyncOpenAI) -> str:
        """A local server's only model; the default one at api.openai.com; else the user has to say."""
        if self._endpoint.is_openai:
            self._model = DEFAULT_MODEL
            return self._model
        served = [str(getattr(model, "id", "?")) for model in (await client.models.list()).data or ()]
        if len(served) != 1:
            names = _line(", ".join(served[:10]), 400) or "the endpoint names none"
            what, why = "which model is to be used?", f"{self._endpoint.where} serves {len(served)}"
            raise EndpointFailed(what, why=why, fix=f"--model NAME, of {names}", recorded="no model was picked")
        self._model = served[0]
        return self._model

    def _explained(self, error: Exception) -> EndpointFailed:
        """The SDK's error in our words."""
        import openai

        if isinstance(error, openai.APIConnectionError):
            return self._failed("cannot be reached", error, "check OPENAI_BASE_URL")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return self._failed("refuses the key", error, "check OPENAI_API_KEY")
        if isinstance(error, openai.NotFoundError):
            return self._failed("does not have the model", error, f"--model NAME (asked for {self._model})")
        if isinstance(error, openai.RateLimitError):
            return self._failed("answers HTTP 429: too many requests or no quota", error, "wait, or raise the quota")
        kind = f"HTTP {error.status_code}" if isinstance(error, openai.APIStatusError) else type(error).__name__
        return self._failed(f"failed ({kind})", error, "look at the endpoint's log")

    def _failed(self, phrase: str, error: Exception, fix: str) -> EndpointFailed:
        """The failure without the key, whatever the server echoed."""
        why, key = f"{type(error).__name__}: {error}", self._endpoint.api_key
        why = _line(why.replace(key, "***") if key else why, 300)
        return EndpointFailed(f"{self._endpoint.where} {phrase}", why=why, fix=fix, recorded=f"the endpoint {phrase}")


def proposal_seed(seed: int, situation: Situation) -> int:
    """Seeds every random choice of the next prompt: the same records give the same text, other nodes another."""
    own = sum(trial.own for trial in situation.trials)
    return int.from_bytes(normal_digest(f"{seed}/{own}")[:6], "big")


def api_settings(environ: dict[str, str] | None = None) -> tuple[str, str | None]:
    """(key, base url) from OPENAI_API_KEY and OPENAI_BASE_URL."""
    env = os.environ if environ is None else environ
    return env.get("OPENAI_API_KEY", "").strip(), env.get("OPENAI_BASE_URL", "").strip() or None


def _read_response(response: Any) -> Answer | None:
    """The answer in a chat completion; None when it is none. The SDK does not check what a server sends."""
    try:
        choice = response.choices[0]
        text = choice.message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    if not isinstance(text, str | None):
        return None
    cut = getattr(choice, "finish_reason", None) == "length"
    return Answer(text or "", f" (the answer was cut at {MAX_ANSWER_TOKENS} tokens)" if cut else "")


def _reruns(situation: Situation, source: str) -> list[Idea]:
    """The peers' wins that this edit re-runs exactly; AnswerRefused or DiffRejected when the edit may not run.

    A program that was tried is tried again only as a peer's win on this task, to see whether it holds here.
    """
    make_diff(situation.parent, source)
    normal = normal_digest(source)
    same = [idea for idea in situation.ideas if idea.source is not None and normal_digest(idea.source) == normal]
    if situation.tried(source) and all(idea.other_task for idea in same):
        raise AnswerRefused("exactly this program was already tried, here or by a peer")
    return same


def _line(text: str, limit: int) -> str:
    """`text` on one line of printable characters, at most `limit` long."""
    return " ".join(printable(text[: 4 * limit]).split())[:limit]
