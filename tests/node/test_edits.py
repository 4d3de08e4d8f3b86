from __future__ import annotations

import asyncio

import pytest
from swarm_node.node.proposers.edits import Draft, NotApplicable, literal
from swarm_node.node.proposers.offline import candidates
from swarm_node.protocols.diffs import check_program

PROGRAM = '''"""A program."""

import torch

RATE = 1e-3  # how fast
SIZES = (1, 2)


def helper(x):
    return x


class Net:
    def __init__(self):
        self.a = helper(SIZES)
        self.b = 3

    def run(self, x):
        x = x + self.a(x)  # größer: not ASCII
        y = self.b
        return x, y
'''


def test_constant_keeps_its_comment() -> None:
    """Changing a constant leaves the rest of its line alone."""
    draft = Draft(PROGRAM)
    draft.set("RATE", draft.value("RATE") * 3)
    assert "RATE = 3e-3  # how fast\n" in draft.result()


def test_wildcards_bind_expressions() -> None:
    """A name with an underscore in a pattern stands for any expression, the same one each time."""
    draft = Draft(PROGRAM)
    assert draft.text(draft.find("Net.run", "x = x + _f(_arg)").bound["_f"]) == "self.a"
    assert draft.has("Net.run", "_a + _b")
    assert not draft.has("Net.run", "_a + _a")


def test_text_after_other_alphabets() -> None:
    """Positions are right on lines with characters outside ASCII."""
    draft = Draft(PROGRAM)
    place = draft.find("Net.run", "x = x + _branch")
    draft.after(place.node, "x = 'ä' + x; x = x[1:]")
    once = draft.result()
    again = Draft(once)
    again.replace(again.find("Net.run", "x[1:]").node, "x[2:]")
    assert again.result() == once.replace("x[1:]", "x[2:]")
    assert "# größer: not ASCII\n        x = 'ä' + x" in once


def test_what_an_edit_leaves_unused_goes_with_it() -> None:
    """Constants, functions and attributes that only the removed code used are removed; unused ones from before stay."""
    draft = Draft(PROGRAM)
    draft.replace(draft.find("Net.run", "x = x + _branch").node, "x = x + 1")
    edited = draft.result()
    assert "SIZES" not in edited and "helper" not in edited and "self.a" not in edited
    assert "import torch" in edited and "RATE" in edited, "they were unused before"
    assert "self.b = 3" in edited


def test_several_changes_at_once() -> None:
    """Insertions at one place keep the order in which they were made."""
    draft = Draft(PROGRAM)
    place = draft.find("Net.run", "y = self.b").node
    draft.after(place, "y += 1")
    draft.after(place, "y += 2")
    draft.before(place, "x += 0")
    assert "x += 0\n        y = self.b\n        y += 1\n        y += 2\n        return" in draft.result()


@pytest.mark.parametrize(
    "change",
    [
        lambda draft: draft.find("Net.run", "z = _any"),
        lambda draft: draft.find("Net.walk", "x = _any"),
        lambda draft: draft.value("ABSENT"),
        lambda draft: draft.calls("torch.compile"),
        lambda draft: (draft.replace(draft.find("Net.run", "y = _b").node, "y = = 1"), draft.result()),
        lambda draft: (draft.delete(draft.find("helper", "return x").node), draft.result()),
        lambda draft: (
            draft.replace(draft.find("Net.run", "x = x + _b").node, "x = 1"),
            draft.replace(draft.find("Net.run", "self.a(x)").node, "2"),
            draft.result(),
        ),
    ],
)
def test_what_does_not_fit_is_said(change: object) -> None:
    """A missing place, overlapping changes, and text that would not compile are all NotApplicable."""
    assert callable(change)
    with pytest.raises(NotApplicable):
        change(Draft(PROGRAM))


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.003, "3e-3"), (0.9, "0.9"), (1.0, "1.0"), (1 / 3 * 1e-3, "3.333e-4"), (1e5, "1e5"), (0.0, "0.0"),
     ((0.8, 0.99), "(0.8, 0.99)"), (1 - (1 - 0.9) * 2, "0.8")],
)  # fmt: skip
def test_numbers_are_written_as_people_do(value: float, text: str) -> None:
    """Literals have at most four significant digits and mean the same number."""
    assert literal(value) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x = " + "not \\\n" * 9000 + "1\n", id="not"),
        pytest.param("x = a" + ".b" * 450 + "\n", id="attributes"),
        pytest.param("x = " + "-" * 900 + "1\n", id="minus"),
        pytest.param("if a: pass\n" + "elif a: pass\n" * 3000, id="elif", marks=pytest.mark.long),  # 16 s
        pytest.param("x = f" + "()" * 490 + "\n", id="calls"),
        pytest.param("x = " + "[" * 95 + "]" * 95 + "\n", id="brackets"),
    ],
)
def test_depth_that_ends_a_parser_ends_no_node(text: str) -> None:
    """A program that passes the gate is parsed in a thread of the node: too deep is an edit that does not fit."""
    check_program(PROGRAM + text)
    assert isinstance(asyncio.run(asyncio.to_thread(candidates, PROGRAM + text)), list)
