"""LLM first, built-in proposer when it fails: a dead endpoint or an empty purse never stops the research."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from .base import Hypothesis, Proposer, Refused, Situation
from .endpoint import CapReached, EndpointFailed

FIRST_PAUSE = 30.0  # seconds without asking a failed endpoint; doubles with each failure in a row
_DOUBLINGS = 5


class FallbackProposer:
    """Asks `first`; a failure is recorded as a refused proposal, and `second` proposes until the pause is over.

    A cap that is reached is no failed proposal: `second` proposes at once, and from then on.
    """

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
        except CapReached as cap:
            self._not_before = math.inf
            self._tell(f"  ideas      {cap.what} ({cap.why}): the offline proposer goes on from here")
            return await self._second.propose(situation)
        except EndpointFailed as error:
            return self._failed(error)
        self._failures, self._told = 0, ""
        return proposal

    def _failed(self, error: EndpointFailed) -> Refused:
        pause = self._pause * 2 ** min(self._failures, _DOUBLINGS)
        self._failures += 1
        self._not_before = self._clock() + pause
        if error.what != self._told:
            self._tell(
                f"  ideas      {error.what} ({error.fix}): the offline proposer goes on, asking again in {pause:.0f} s"
            )
            self._told = error.what
        return Refused(f"{self._first.name} gave no answer", error.recorded, self._first.name, error.cost)
