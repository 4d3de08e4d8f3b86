"""What the live lines show."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from swarm_node.node.screen import Screen

TITLE = "running weight decay decoupled from the learning rate, 0.1 at the start"


@pytest.mark.parametrize("title", [TITLE, "running " + "学习率" * 20, "running it"])
@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("fraction", [0.42, None])
def test_a_long_title_leaves_the_bar_on_the_screen(title: str, width: int, fraction: float | None) -> None:
    """The title is what gives way; which run it is, the bar, the percentage and the seconds stay whole."""
    screen = Screen(quiet=True)
    after = " (candidate-0)"
    screen.busy(0, title, fraction, 123.0, after)
    line = screen._line(screen._activities[0], width)
    assert cell_len(line) <= width and line.startswith("running ")
    assert after in line and line.endswith(" 42%  123 s left" if fraction else " 0 s")
    assert (title in line) == (cell_len(title) <= width - cell_len(line.partition(after)[2] + after))


def test_a_very_narrow_terminal_gets_a_short_line() -> None:
    """A line that wraps could not be erased."""
    screen = Screen(quiet=True)
    screen.busy(0, TITLE, 0.5, 10.0, " (candidate-0)")
    assert cell_len(screen._line(screen._activities[0], 12)) == 12
