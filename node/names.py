"""What the tasks of heard wins are called: their specifications, asked of peers by task id.

Names are for people and cost no honest node anything to miss, so little is spent on them: one question at a time, a
bounded list of what is wanted, and a bounded number of tries, since strangers invent task ids for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from ..protocols.errors import InvalidData, NetworkError
from ..protocols.records import Record, Result
from ..swarm.ledger import Ledger
from .tasks import MAX_HEARD, known_tasks, remember_heard

if TYPE_CHECKING:
    from ..swarm.net import Network

log = structlog.get_logger()

_WANTED = 32  # tasks at a time
_TRIES = 5
_AGAIN_SECONDS = 30.0  # who knows the answer may not be connected yet


class Names:
    """Learns the names of tasks that peers' wins are about. Belongs to one event loop."""

    def __init__(self, ledger: Ledger, again_seconds: float = _AGAIN_SECONDS) -> None:
        self._ledger, self._again = ledger, again_seconds
        self._settled = set(known_tasks(ledger))  # known, or found to be no task
        self._wanted: dict[bytes, int] = {}  # tries so far, by task
        self._news = asyncio.Event()

    def heard(self, record: Record) -> None:
        """A record that is in the ledger now."""
        if isinstance(record.body, Result) and record.body.outcome == "kept":
            self._want(record.body.task)

    def _want(self, task: bytes) -> None:
        if task not in self._settled and task not in self._wanted and len(self._wanted) < _WANTED:
            self._wanted[task] = 0
            self._news.set()

    async def run(self, network: Callable[[], Network | None]) -> None:
        """Ask for what is wanted, until cancelled; first for what the ledger holds from earlier."""
        for task in await asyncio.to_thread(self._ledger.index.tasks_of_wins):
            self._want(task)
        while len(self._settled) < MAX_HEARD:
            try:
                async with asyncio.timeout(self._again if self._wanted else None):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            for task in list(self._wanted):
                if (connected := network()) is not None:
                    await self._ask(task, connected)

    async def _ask(self, task: bytes, network: Network) -> None:
        self._wanted[task] += 1
        try:
            data = await network.fetch(task)
            spec = await asyncio.to_thread(remember_heard, self._ledger, task, data)
        except NetworkError:
            if self._wanted[task] >= _TRIES:
                del self._wanted[task]  # until another win of it is heard
            return
        except InvalidData as error:
            log.warning("a peer works on what is no task", task=task.hex(), why=str(error))
        else:
            log.info("a task became known", task=task.hex(), name=f"{spec.name}/{spec.size}")
        self._settled.add(task)
        del self._wanted[task]
