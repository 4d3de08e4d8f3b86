"""Two proposers by turns: a share of the proposals is the language model's, the rest the built-in one's.

A dead endpoint or an empty purse never stops the research: then the built-in one has all turns.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from .base import Hypothesis, Proposer, Refused, Situation
from .endpoint import CapReached, EndpointFailed

FIRST_PAUSE = 30.0  # seconds without asking a failed endpoint; doubles with each failure in a row
_DOUBLINGS = 5


class HybridProposer:
    """Asks `first` for its share; a failure is a refused proposal, and `second` proposes until the pause is over.

    A cap that is reached is no failed proposal: `second` proposes at once, and from then on. Whose turn it is depends
    on the number of own experiments alone, so that a restart changes nothing.
    """

    def __init__(
        self,
        first: Proposer,
        second: Proposer,
        tell: Callable[[str], None],
        share: float = 1.0,
        seed: int = 0,
        pause: float = FIRST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._second, self._tell, self._pause, self._clock = first, second, tell, pause, clock
        self._share, self._offset = share, random.Random(f"turns/{seed}").random()
        self._failures = 0
        self._not_before = 0.0
        self._told = ""

    @property
    def name(self) -> str:
        """Who would be asked now, if it is the first one's turn."""
        return self._first.name if self._clock() >= self._not_before else self._second.name

    def is_firsts_turn(self, situation: Situation) -> bool:
        """Whether the next proposal is part of the first one's share; turns are spread as evenly as can be."""
        own = sum(trial.own for trial in situation.trials)
        return math.floor((own + 1) * self._share + self._offset) > math.floor(own * self._share + self._offset)

    async def propose(self, situation: Situation) -> Hypothesis | Refused | None:
        """A hypothesis from the one whose turn it is, if it can give one."""
        if self._clock() < self._not_before or not self.is_firsts_turn(situation):
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
        name = self._first.name
        return Refused(f"{name} gave no answer", error.recorded, name, error.cost, answered=False)
