"""`feed` in a terminal: records scroll by as they arrive, and below them stays what this home's node does now.

It fits the width that there is, down to a phone's; words carry the meaning, and colour only repeats it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..protocols.names import nickname
from ..protocols.records import Record, Result, Verification
from ..swarm.ledger import Entry, Ledger
from .board import Board
from .feed import POLL, Feed
from .format import change, clean, duration, interval, odds, verdict, why
from .home import Home
from .status import Best, Running

_WIDE, _MEDIUM = 112, 76  # columns from which ids and scores, and from which names and intervals are shown
_LEAST = 12  # columns of a title
_CAUSE = 22  # of the reason why there is no score: "(killed at half time…"
_ASCII = str.maketrans({"−": "-", "±": "~", "×": "x", "÷": "/", "…": "~", "█": "#", "░": ".", "·": "|", "─": "-"})
_STYLES = {
    "KEEP": "bold green", "SIMPLER": "bold green", "confirmed": "cyan", "refuted": "red", "fabricated": "bold red",
    "crash": "red", "baseline": "bold", "discard": "dim", "unclear": "dim", "waits": "dim", "inconclusive": "dim",
}  # fmt: skip


class LiveFeed:
    """The lines and the footer, as wide as the console."""

    def __init__(self, home: Home, ledger: Ledger, console: Console) -> None:
        self._home, self._ledger, self._console, self._feed = home, ledger, console, Feed(ledger)
        self._ascii = not (console.encoding or "").lower().startswith("utf")
        self._best: tuple[int, str] = (-1, "")  # at this count of records

    def line(self, record: Record) -> Text:
        """A record on one line, or a win on two where there is little room."""
        state, subject, track = self._feed.look(record)
        body = record.body
        clock, who = time.strftime("%H:%M", time.localtime(record.time / 1000)), nickname(record.author)
        foreign = "" if track.here else f"{track.name}  "
        if isinstance(body, Verification):
            about = ""
            if subject is not None and isinstance(subject.body, Result):
                about = f"{nickname(subject.author)}'s {subject.id.hex()[:8]}  {clean(subject.body.title)}"
            found = f"{change(body.gain, track.direction)} {odds(body)}".strip()
            return self._fit(clock, record, who, body.outcome, "", foreign + about, found)
        score = f"{body.score:.4f}" if body.score is not None else ""
        numbers = f"{change(body.gain, track.direction)} {interval(body.evidence, track.direction)}".strip()
        if body.outcome == "baseline" and body.noise is not None:
            numbers = f"±{body.noise:.4f} over seeds"
        title, word = foreign + clean(body.title), verdict(body)
        if body.outcome == "kept":
            return self._fit(clock, record, who, word, score, title, f"{numbers}  {state}".strip())
        return self._fit(clock, record, who, word, score, title, numbers, why(body))

    def _fit(
        self, clock: str, record: Record, who: str, word: str, score: str, title: str, end: str, cause: str = ""
    ) -> Text:
        width = self._console.width - 1
        style = _STYLES.get(word, "")
        start = Text().append(f"{clock} ", style="dim")  # not the style of the whole line
        if width >= _WIDE:
            start.append(f"{record.id.hex()[:8]} ", style="dim")
        if width >= _MEDIUM:
            start.append(f"{who:<14} ")
        start.append(f"{word:<9}", style=style)
        if width >= _WIDE:
            start.append(f"{score:>7} ")
        whole = f"{end}  {cause}".strip()
        if cause:  # has what the title leaves, and some words in any case
            left = width - start.cell_len - cell_len(end) - cell_len(title) - (5 if end else 3)
            end = f"{end}  {_cut(cause, max(_CAUSE, left))}".strip()
        room = width - start.cell_len - cell_len(end) - 3
        if room < _LEAST:  # numbers and state on a line of their own, when they are worth one
            lines = [start.append(_cut(f" {title}", width - start.cell_len))]
            if whole and "dim" not in style:
                lines.append(Text("      ").append(_cut(whole, width - 6), style=style))
            return self._plain(Text("\n").join(lines))
        start.append(f" {set_cell_size(_cut(title, room), room)}  ", style="dim" if "dim" in style else "")
        return self._plain(start.append(end, style=style))

    def footer(self) -> Group:
        """What the node of this home does now."""
        node = Running.of(self._home, self._ledger)  # what a killed one said last says nothing
        width = self._console.width - 1
        rule = Text("─" * width, style="dim")
        lanes = [Text("  ").append(_bar(lane, width - 2)) for lane in (node.running if node is not None else ())]
        facts = [f"{self._ledger.count()} records"]
        if node is None:
            lanes = [Text("  no node runs in this home now; start it: swarm-node join", style="dim")]
        else:
            names = ": " + ", ".join(map(clean, node.peers[:4])) if node.peers else ""
            facts = [node.task, *facts, f"{len(node.peers)} peer{'' if len(node.peers) == 1 else 's'}{names}"]
        facts += [self._best_score(), "Ctrl-C to leave"]
        last = Text("  " + _cut(" · ".join(filter(None, facts)), width - 2), style="bold")
        return Group(*map(self._plain, (rule, *lanes, last)))

    def _best_score(self) -> str:
        count = self._ledger.count()
        if self._best[0] != count:
            board = Board(self._ledger, self._feed.known)
            best = Best.of(board.best(board.tracks[0])) if board.tracks else None
            told = f"best {best.score:.4f} by {best.name}, {best.state}" if best is not None else ""
            self._best = (count, told)
        return self._best[1]

    def _plain(self, text: Text) -> Text:
        """In a terminal that has only ASCII, with what ASCII has for it."""
        if self._ascii:
            text.plain = text.plain.translate(_ASCII).encode("ascii", "replace").decode()
        text.no_wrap, text.overflow = True, "crop"
        return text


def watch(home: Home, ledger: Ledger, entries: Iterable[Entry | None], follow: bool) -> None:
    """Show entries, and below them the footer when they go on for ever; None among them: nothing new for now."""
    console = Console(highlight=False, emoji=False, markup=False)
    feed = LiveFeed(home, ledger, console)
    footer = Live(console=console, auto_refresh=False, transient=True, get_renderable=feed.footer)
    with footer if follow else nullcontext():
        for entry in entries:
            if entry is not None:
                console.print(feed.line(entry.record))
            else:
                footer.refresh()
                time.sleep(POLL)


def _bar(lane: dict[str, Any], width: int) -> str:
    """What a lane is busy with, at most `width` wide: the bar is never cut."""
    text, fraction, left = clean(str(lane.get("text", ""))), lane.get("fraction"), lane.get("left")
    end = ""
    if isinstance(fraction, float | int):
        filled = round(15 * min(1.0, max(0.0, fraction)))
        end = f"  {'█' * filled}{'░' * (15 - filled)} {fraction:4.0%}" if width > 2 * 15 else f" {fraction:.0%}"
    if isinstance(left, float | int) and width > 2 * 15:
        end += f"  {duration(left)} left"
    return _cut(text, max(_LEAST, width - len(end))) + end


def _cut(text: str, width: int) -> str:
    """At most `width` cells of it: some letters take two."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"
