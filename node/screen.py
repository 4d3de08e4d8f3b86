"""What `join` and `bootstrap` show: permanent lines on stdout, and a live line per worker that never stands still.

On a terminal the live lines are redrawn in place on stderr; elsewhere one plain line every few seconds says
what is going on, so that a log is never silent for more than five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

_QUIET_LIMIT = 4.5  # seconds; the promise is 5
_BAR = 15


@dataclass
class _Activity:
    text: str
    after: str  # of the text, which is cut where a line is too long
    fraction: float | None
    seconds_left: float | None
    since: float


class Screen:
    """The only writer to the terminal while a node runs."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._ascii = (sys.stderr.encoding or "").lower().replace("-", "") != "utf8"
        self._activities: dict[int, _Activity] = {}
        self._drawn = 0
        self._spoke = time.monotonic()

    def say(self, text: str) -> None:
        """A permanent line on stdout."""
        if self._quiet:
            return
        self._erase()
        print(text, flush=True)
        self._spoke = time.monotonic()
        self._draw()

    def item(self, label: str, text: str) -> None:
        """A labelled header line: `machine    8 cores, ...`."""
        self.say(f"  {label:<10} {text}")

    def warn(self, text: str) -> None:
        """A permanent line on stderr."""
        self._erase()
        print(text, file=sys.stderr, flush=True)
        self._spoke = time.monotonic()
        self._draw()

    def busy(
        self, lane: int, text: str, fraction: float | None = None, seconds_left: float | None = None, after: str = ""
    ) -> None:
        """What lane `lane` is doing now; shown until it changes or `idle`. On a narrow terminal `text` is cut, and
        `after`, which follows it, is not."""
        old = self._activities.get(lane)
        since = old.since if old and (old.text, old.after) == (text, after) else time.monotonic()
        self._activities[lane] = _Activity(text, after, fraction, seconds_left, since)

    def idle(self, lane: int) -> None:
        """Lane `lane` does nothing worth a line."""
        self._activities.pop(lane, None)

    def activities(self) -> list[dict[str, object]]:
        """What each lane does now, for other commands: `fraction` of it done, or None, and seconds `left`, or None."""
        return [
            {
                "lane": lane,
                "text": one.text + one.after,
                "fraction": None if one.fraction is None else round(min(1.0, one.fraction), 2),
                "left": None if one.seconds_left is None else round(one.seconds_left),
            }
            for lane, one in sorted(self._activities.items())
        ]

    @contextlib.asynccontextmanager
    async def ticking(self) -> AsyncIterator[None]:
        """Keep the live lines moving while the block runs."""
        ticker = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticker
            self._erase()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.2)  # a redraw rate, not a wait for anything
            if self._live:
                self._erase()
                self._draw()
            elif self._activities and time.monotonic() - self._spoke > _QUIET_LIMIT and not self._quiet:
                for activity in self._activities.values():
                    print("  " + self._line(activity), file=sys.stderr, flush=True)
                self._spoke = time.monotonic()

    def _line(self, activity: _Activity, width: int | None = None) -> str:
        """The activity on one line, of at most `width` cells."""
        if activity.fraction is None:
            end = f"{activity.after}  {time.monotonic() - activity.since:.0f} s"
        else:
            filled = round(_BAR * min(1.0, activity.fraction))
            full, empty = ("#", ".") if self._ascii else ("█", "░")
            left = f"  {activity.seconds_left:.0f} s left" if activity.seconds_left is not None else ""
            end = f"{activity.after}  {full * filled}{empty * (_BAR - filled)} {activity.fraction:4.0%}{left}"
        text = activity.text
        if width is not None and cell_len(text + end) > width:
            dots = "..." if self._ascii else "…"
            room = width - cell_len(end + dots)
            text = set_cell_size(text, room) + dots if room > 0 else ""
            end = set_cell_size(end, min(width, cell_len(end)))
        return text + end

    def _draw(self) -> None:
        if not self._live or self._quiet or not self._activities:
            return
        width, height = os.get_terminal_size(sys.stderr.fileno())
        room = max(10, width - 1) - 2
        lines = ["  " + self._line(activity, room) for activity in self._activities.values()]
        if len(lines) > (most := max(1, height - 2)):  # what scrolls out of the window cannot be erased
            lines = [*lines[: most - 1], f"  and {len(lines) - most + 1} more"[: room + 2]]
        sys.stderr.write("\n".join(lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[2K" + "\x1b[1A\x1b[2K" * (self._drawn - 1))
            sys.stderr.flush()
            self._drawn = 0
