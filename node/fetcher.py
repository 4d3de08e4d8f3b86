"""Peers' programs, got in the background: a few at a time, of a bounded list.

A record of one kilobyte makes this node ask for two programs of up to 256 KiB, and costs its author nothing. So what
does not fit on the list is not got before an idea needs it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from ..protocols.records import Record, Result
from ..swarm.frontier import Frontier
from .programs import Programs

if TYPE_CHECKING:
    from ..swarm.net import Network

log = structlog.get_logger()

AT_ONCE = 4
WAITING = 64  # wins whose programs are still to be got
_AGAIN_SECONDS = 120.0  # nobody is asked sooner for what nobody had; doubles each time
_ASKED = 1024  # wins of which it is known when that was
_BATCH = 50  # programs made between two looks at whether the node is to stop


class Fetcher:
    """Gets the programs of wins. Belongs to one event loop."""

    def __init__(
        self,
        programs: Programs,
        frontier: Frontier,
        task: bytes,
        network: Callable[[], Network | None],
        came: Callable[[], None],
    ) -> None:
        """`network`: as it is by then. `came`: told when a program is here."""
        self._programs, self._frontier, self._task = programs, frontier, task
        self._network, self._came = network, came
        self._waiting: OrderedDict[bytes, Record] = OrderedDict()  # by id, the next one first
        self._asked: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # when each win was asked for, how often
        self._news = asyncio.Event()

    def heard(self, win: Record) -> None:
        """A kept result came. Its program is got while its author is there: it may not apply as a diff to what we have
        by then. Those on other tasks are hints, of which few are looked at; they wait until they are."""
        own = win.author == self._frontier.own
        if win.body.task == self._task and (own or len(self._waiting) < WAITING):
            self._put(win, first=own)

    def wanted(self, programs: Collection[bytes]) -> None:
        """These would have been looked at, and are not here: they come before what was merely heard of."""
        now = time.monotonic()
        wins = self._frontier.wins_naming(programs) if programs else ()
        may = [win for win in wins if now >= self._not_before(win)][-WAITING:]
        for win in sorted(may, key=lambda win: self._frontier.is_known(win.author)):  # the last one goes first
            self._put(win, first=True)

    def _not_before(self, win: Record) -> float:
        asked, times = self._asked.get(win.id, (-math.inf, 1))
        return asked + _AGAIN_SECONDS * 2.0 ** (min(times, 10) - 1)

    def _put(self, win: Record, first: bool) -> None:
        self._waiting[win.id] = win
        if first:
            self._waiting.move_to_end(win.id, last=False)
        while len(self._waiting) > WAITING:
            self._waiting.popitem()
        self._news.set()

    async def run(self) -> None:
        """Get what is on the list, until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_ONCE):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            _, win = self._waiting.popitem(last=False)
            self._asked[win.id] = time.monotonic(), self._asked.pop(win.id, (0.0, 0))[1] + 1
            if len(self._asked) > _ASKED:
                self._asked.popitem(last=False)
            assert isinstance(win.body, Result)
            own = win.author == self._frontier.own
            try:
                if win.author in await asyncio.to_thread(lambda: self._frontier.quarantined):  # takes some milliseconds
                    continue
                source = await self._programs.obtain(win.body, self._network(), own=own)
            except Exception as error:  # one win must not stop the others
                log.warning("a peer's program could not be fetched", error=repr(error))
                continue
            if source is not None:
                self._came()


async def restore(programs: Programs, frontier: Frontier) -> None:
    """Make the programs of this task's wins that are not here: of a ledger that was lost, records come back from peers,
    programs do not. Others' only as far as there is room; what own results are about stays."""
    gone = frontier.quarantined
    wins = [one for one in frontier.trials if _is_kept(one) and one.author not in gone]
    for first in range(0, len(wins), _BATCH):
        await asyncio.to_thread(_restore, programs, wins[first : first + _BATCH], frontier.own)


def _restore(programs: Programs, wins: Sequence[Record], own: bytes) -> None:
    for win in wins:
        body = win.body
        assert isinstance(body, Result)
        if not programs.has(body.program) and (win.author == own or programs.has_room):
            programs.rebuild(body)
        if win.author == own:
            programs.keep(body)


def _is_kept(record: Record) -> bool:
    return isinstance(record.body, Result) and record.body.outcome == "kept"
