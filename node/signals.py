"""Ctrl-C: the first one ends the work politely, the second leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine

from ..protocols.errors import first_of
from .screen import Screen


async def until_signalled(screen: Screen, work: Coroutine[object, object, None], what: str = "") -> int:
    """Run `work`; the first Ctrl-C stops it politely (exit code 130), the second leaves at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(130)
        screen.warn(f"  stopping{what} (Ctrl-C again to leave at once)")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
        return 0
    except asyncio.CancelledError:
        if not signals:
            raise
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            if signals:  # the process only ends when threads that are still busy do: the loop waits for them
                signal.signal(number, lambda *_: os._exit(130))


def run_to_end(work: Coroutine[object, object, int]) -> int:
    """Run `work` on a loop of its own, and raise the error that it ends with rather than the group around it."""
    import uvloop

    try:
        return uvloop.run(work)
    except BaseExceptionGroup as group:  # TaskGroups wrap; people want the error itself
        raise first_of(group) from group
