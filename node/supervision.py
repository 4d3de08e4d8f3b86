"""Parts of a node that fail alone: a crash is logged, counted and told, and the part begins again after a pause."""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ..protocols.errors import ConfigError, IsolationError, SwarmNodeError, UsageError, disk_full, is_full
from .screen import Screen

log = structlog.get_logger()

PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds before the next beginning; the last one again and again
_SETTLED = 300.0  # a part that ran for so many seconds begins at the first pause again
_FOR_A_PERSON = (ConfigError, UsageError, IsolationError)  # no pause mends these


class Supervision:
    """Keeps parts running. A full disk, a dead worker or a bug of ours in one part leaves the others alone."""

    def __init__(self, screen: Screen, pauses: Sequence[float] = PAUSES) -> None:
        self.crashes: Counter[str] = Counter()  # by part
        self._screen, self._pauses = screen, pauses

    async def keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run `part` until it returns. Raises ConfigError, UsageError, IsolationError: a person has to solve these."""
        pauses = self._backoff()
        while True:
            begun = time.monotonic()
            try:
                return await part()
            except _FOR_A_PERSON:
                raise
            except Exception as caught:
                full = isinstance(caught, OSError) and is_full(caught)
                error = disk_full("this home", caught) if full else caught
                if time.monotonic() - begun > _SETTLED:
                    pauses = self._backoff()
                pause = next(pauses)
                self.crashes[name] += 1
                known = isinstance(error, SwarmNodeError)
                what = " ".join(str(error).split()) if known else f"a bug: {type(error).__name__}: {error}"
                self._screen.warn(f"  {name:<10} {what[:300]}; begins again in {pause:.0f} s, the rest goes on")
                trace = {} if known else {"exception": "".join(traceback.format_exception(error))}
                log.error("a part crashed", part=name, error=repr(error), pause=pause, **trace)
            await asyncio.sleep(pause)

    def _backoff(self) -> itertools.chain[float]:
        return itertools.chain(self._pauses, itertools.repeat(self._pauses[-1]))
