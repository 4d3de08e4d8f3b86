"""Reading a model's answer: what is accepted, and what is said of the rest."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarm_node.node.proposers.blocks import MAX_ANSWER, AnswerRefused, read_answer

HEADER = '{"title": "t", "reason": "r", "tags": ["lr"]}'
SOURCE = """\
LR = 1e-3  # rate
MUON_LR = 1e-3


class A:
    def f(self, x):
        x = x + 1
        return x

    def g(self, x):
        if x:
            x = x + 2
        return x


def train(ctx):
    return A()
"""


def block(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def edited(answer: str, header: str = HEADER) -> str:
    """The whole program that `answer` makes of SOURCE."""
    return read_answer(f"{header}\n{answer}", SOURCE)[1]


def refusal(answer: str, header: str = HEADER) -> str:
    """What the model is told about `answer`."""
    with pytest.raises(AnswerRefused) as caught:
        read_answer(f"{header}\n{answer}", SOURCE)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "was", "now"),
    [
        ("MUON_LR = 1e-3", "MUON_LR = 2e-3", "MUON_LR = 1e-3", "MUON_LR = 2e-3"),
        ("LR = 1e-3", "LR = 2e-3", "LR = 1e-3  #", "LR = 2e-3  #"),  # a part of one line, whole names only
        ("            x = x + 2  ", "            x = x + 3", "x + 2", "x + 3"),  # trailing space
        ("def g(self, x):\n    if x:", "def g(self, x):\n    if not x:", "if x:", "if not x:"),  # too far out
        ("        def g(self, x):\n            if x:", "        def g(self, x):\n            if 1:", "if x:", "if 1:"),
        ("        x = x + 1\n", "", "        x = x + 1\n", ""),  # deletion
        ("```python\n        x = x + 1\n```", "```python\n        x = x + 5\n```", "x + 1", "x + 5"),
        ("    def g(self, x):\n", "    def h(self, x):\n", "def g(", "def h("),  # a blank line at both ends
    ],
)
def test_a_block_is_found_where_only_one_place_can_be_meant(old: str, new: str, was: str, now: str) -> None:
    """Exact lines, a part of a line, and lines with other outer space are found; the new lines move along."""
    assert edited(block(old, new)) == SOURCE.replace(was, now, 1)


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("return x", "block 1 occurs more than once"),
        ("        return x", "block 1 occurs more than once"),
        ("R = 1e-3", "block 1 was not found"),  # not inside of MUON_LR
        ("LR = 1", "block 1 was not found"),  # not inside of 1e-3
        ("if x:\nx = x + 2", "block 1 was not found"),  # another relative indentation
        ("x = x + 2222", "nearest lines are: ['x = x + 2'"),
        ("zzzz qqqq", "no line is similar"),
        ("  \n", "block 1 is empty"),
        ("a\n" * 2000, "split it"),
    ],
)
def test_a_doubtful_block_is_refused_with_what_to_do(old: str, said: str) -> None:
    """Nothing is guessed: the refusal names the block and helps to write a better one."""
    assert said in refusal(block(old, "y"))


def test_blocks_apply_in_order_and_a_refusal_names_its_number() -> None:
    """A later block sees what an earlier one wrote."""
    assert "x = x + 9" in edited(block("x = x + 1", "x = x + 8") + block("x = x + 8", "x = x + 9"))
    assert "block 2 was not found" in refusal(block("x = x + 1", "x = x + 8") + block("x = x + 1", "y"))


@pytest.mark.parametrize(
    "answer",
    [
        f"Sure! Here it is.\n```python\n{block('x = x + 1', 'x = x + 7')}```\nGood luck!",
        f"<think>{{'title'}} {block('x = x + 1', 'nonsense')}</think>\n{HEADER}\n{block('x = x + 1', 'x = x + 7')}",
        block("x = x + 1", "x = x + 7").replace("\n", "\r\n"),
        block("x = x + 1", "x = x + 7").replace("<<<<<<< SEARCH", "  <<<<<< SEARCH  "),
        "train.py\n" + block("x = x + 1", "x = x + 7"),
        f"```python\n{SOURCE.replace('x = x + 1', 'x = x + 7')}```\n",
        f"```Python title=train.py\n\n{SOURCE.replace('x = x + 1', 'x = x + 7')}\n```",
        f"```py\nx = 1\n```\nand the file:\n```py\n{SOURCE.replace('x = x + 1', 'x = x + 7')}```",
    ],
)
def test_what_models_usually_add_does_no_harm(answer: str) -> None:
    """Prose, fences, drafts in think tags, Windows line ends and file names around the edit are passed over."""
    assert edited(answer) == SOURCE.replace("x = x + 1", "x = x + 7")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("<<<<<<< SEARCH\nx = x + 1\n=======\nx = 2", "block 1 is not complete"),
        ("<<<<<<< SEARCH\nx = x + 1\n>>>>>>> REPLACE", "block 1 is not complete"),
        (block("x = x + 1", "y") + "<<<<<<< SEARCH\nx = x + 2\n<<<<<<< SEARCH\n", "block 2 is not complete"),
        (f"```python\n{SOURCE}", "the end of train.py is missing"),
        (f"```python\n{SOURCE}```\n```python\n{SOURCE}```", "more than one whole train.py"),
        ("```python\nx = 1\n```", "neither a SEARCH/REPLACE block nor one whole train.py"),
        (f"```python\n{SOURCE}```", "changes nothing"),
        (block("x = x + 1", "x = x + 1"), "changes nothing"),
        ("x" * MAX_ANSWER, "larger than"),
        ("".join(block(f"q{n}", "y") for n in range(65)), "more than 64"),
    ],
)
def test_an_unusable_answer_is_refused_with_its_fault(answer: str, said: str) -> None:
    """Unfinished blocks, cut and repeated files and idle edits are told apart."""
    assert said in refusal(answer)


@pytest.mark.parametrize(
    ("header", "title", "tags"),
    [
        ('{"title": " a {b} c ", "tags": "lr, Norm"}', "a {b} c", ("norm", "lr")),
        ('First {x}, then\n```json\n{\n "title": "two\nlines", "tags": null, "more": {"a": 1}}\n```', "two\nlines",
         ("other",)),
        ('{"a": 1} {"title": "t", "tags": ["speed", "nonsense", 7]}', "t", ("speed",)),
        ('{"title": "t", "reason": null, "tags": ["lr", "init", "norm", "loss"]}', "t", ("init", "norm", "lr")),
    ],
)  # fmt: skip
def test_a_header_is_read_as_models_write_it(header: str, title: str, tags: tuple[str, ...]) -> None:
    """Braces, line breaks and other objects do not disturb; unknown tags become `other`, of many three stay."""
    got, _ = read_answer(f"{header}\n{block('x = x + 1', 'y')}", SOURCE)
    assert (got.title, got.known_tags()) == (title, tags)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("no header", 'no JSON object with a "title"'),
        ('{"title": 5}', "not valid"),
        ('{"title": ""}', "not valid"),
        ('{"title": "x", }', "not valid"),
        ('{"title": "' + "x" * 1001 + '"}', "not valid"),
    ],
)
def test_a_bad_header_is_refused(header: str, said: str) -> None:
    """A missing title and a broken one are told apart."""
    assert said in refusal(block("x = x + 1", "y"), header)


@pytest.mark.parametrize(
    "hostile",
    [
        "<<<<<<< SEARCH\n" * 17_000,
        "<<<<<<< SEARCH\n" + "=======\n" * 30_000,
        ("<<<<<<< SEARCH\n=======\n") * 10_000,
        "```python\n" * 26_000,
        "{" + '"title"' * 37_000,
        '{"title":' * 29_000,
        '{"' * 130_000,
        "{" + " " * 260_000,
        block("a\n" * 1500, "y") * 64,
        block("LR" * 1000, "y") * 64,
        " " * 260_000 + "<<<<<<<",
    ],
)
def test_reading_time_is_bounded_whatever_comes(hostile: str) -> None:
    """Answers of full size that are built to be slow are refused within a second."""
    program = "a\n" * 5000 + SOURCE
    start = time.process_time()
    for header in (HEADER, ""):
        with pytest.raises(AnswerRefused):
            read_answer(header + "\n" + hostile[: MAX_ANSWER - 100], program)
    assert time.process_time() - start < 1.0


PARTS = [
    "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", HEADER, "```python", "```", "x = x + 1", "        x = x + 1", "",
    "def train(ctx):", "{", '"title"', "</think>",
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS)))
def test_any_mix_of_parts_is_an_edit_or_a_refusal(lines: list[str]) -> None:
    """No answer raises anything but AnswerRefused, and what is accepted changes the program."""
    try:
        _, source = read_answer("\n".join(lines), SOURCE)
    except AnswerRefused:
        return
    assert source != SOURCE
