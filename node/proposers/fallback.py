"""LLM first, built-in proposer when it fails: a dead endpoint or an empty purse never stops the research."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...protocols.errors import LLMError
from ...protocols.records import Cost
from .base import Hypothesis, Proposer, Refused, Situation

FIRST_PAUSE = 30.0  # seconds without asking a failed endpoint; doubles with each failure in a row
_DOUBLINGS = 5


class FallbackProposer:
    """Asks `first`; a failure is recorded as a refused proposal, and `second` proposes until the pause is over."""

    def __init__(
        self,
        first: Proposer,
        second: Proposer,
        tell: Callable[[str], None],
        pause: float = FIRST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._second, self._tell, self._pause, self._clock = first, second, tell, pause, clock
        self._failures = 0
        self._not_before = 0.0
        self._told = ""

    @property
    def name(self) -> str:
        """Who would be asked now."""
        return self._first.name if self._clock() >= self._not_before else self._second.name

    async def propose(self, situation: Situation) -> Hypothesis | Refused | None:
        """A hypothesis from the first proposer that can give one."""
        if self._clock() < self._not_before:
            return await self._second.propose(situation)
        try:
            proposal = await self._first.propose(situation)
        except LLMError as error:
            pause = self._pause * 2 ** min(self._failures, _DOUBLINGS)
            self._failures += 1
            self._not_before = self._clock() + pause
            if error.what != self._told:
                self._tell(f"  ideas      {error.what}: the offline proposer goes on, asking again in {pause:.0f} s")
                self._told = error.what
            cause = f"{error.what}: {error.why}" if error.why else error.what
            return Refused(
                f"{self._first.name} gave no answer", cause, self._first.name, getattr(error, "cost", Cost())
            )
        self._failures, self._told = 0, ""
        return proposal
