"""The diff gate: every hostile diff is refused with one clear reason, in time that does not depend on its author."""

from __future__ import annotations

import tokenize

import pytest
from swarm_node.protocols import diffs
from swarm_node.protocols.diffs import (
    MAX_HUNKS,
    MAX_LINE,
    MAX_LINES,
    MAX_NESTING,
    MAX_PROGRAM_LINES,
    apply_diff,
    make_diff,
    normalise,
    parse_diff,
)
from swarm_node.protocols.errors import DiffRejected
from swarm_node.protocols.records import MAX_DIFF
from swarm_node.protocols.task import MAX_SOURCE

PROGRAM = "".join(f"x{n} = {n}\n" for n in range(1, 201))
HEAD = "--- a/train.py\n+++ b/train.py\n"
HUNK = "@@ -2 +2 @@\n-x2 = 2\n+x2 = 3\n"
FINE = HEAD + HUNK


def put(*lines: str) -> str:
    """A diff that puts these lines in the place of the second."""
    return f"{HEAD}@@ -2 +2,{len(lines)} @@\n-x2 = 2\n" + "".join(f"+{line}\n" for line in lines)


PATHS = {
    "another file": FINE.replace("train.py", "evaluator.py"),
    "a path upwards": FINE.replace("a/train.py", "a/../train.py"),
    "an absolute path": FINE.replace("a/train.py", "/etc/passwd").replace("b/train.py", "/etc/passwd"),
    "a new file": FINE.replace("--- a/train.py", "--- /dev/null"),
    "a deleted file": FINE.replace("+++ b/train.py", "+++ /dev/null"),
    "a quoted path": FINE.replace("a/train.py", '"a/train.py"').replace("b/train.py", '"b/train.py"'),
    "a quoted path with escapes": FINE.replace("b/train.py", '"b/\\164rain.py"'),
    "a backslash path": FINE.replace("b/train.py", "b\\train.py"),
    "a path with a time stamp": FINE.replace("b/train.py", "b/train.py\t2026-01-01"),
    "a path with a trailing space": FINE.replace("b/train.py", "b/train.py "),
    "a path in capitals": FINE.replace("b/train.py", "b/TRAIN.PY"),
    "the paths exchanged": "+++ b/train.py\n--- a/train.py\n" + HUNK,
    "a rename": "diff --git a/train.py b/e.py\nsimilarity index 90%\nrename from train.py\nrename to e.py\n" + FINE,
    "a copy": "diff --git a/train.py b/e.py\ncopy from train.py\ncopy to e.py\n" + FINE,
    "a mode": "diff --git a/train.py b/train.py\nold mode 100644\nnew mode 100755\n" + FINE,
    "a symbolic link": "diff --git a/train.py b/train.py\nnew file mode 120000\n" + FINE,
    "a submodule": "diff --git a/train.py b/train.py\nindex 1..2 160000\n" + FINE,
    "a binary patch": "diff --git a/train.py b/train.py\nGIT binary patch\nliteral 3\nKcmZQzWMT#Y01f~L\n",
    "a combined diff": "--- a/train.py\n--- a/train.py\n+++ b/train.py\n@@@ -1 -1 +1 @@@\n",
    "prose before it": "Here is the diff:\n" + FINE,
    "nothing": "",
    "one line feed": "\n",
}
HUNKS = {
    "a second file": (FINE + FINE, "malformed hunk header"),
    "prose after it": (FINE + "I hope this helps.\n", "malformed hunk header"),
    "a signature after it": (FINE + "-- \n2.43.0\n", "malformed hunk header"),
    "no hunk": (HEAD, "has no hunk"),
    "a heading after the header": (FINE.replace(" @@", " @@ def train"), "malformed hunk header"),
    "negative counts": (FINE.replace("-2 +2", "-2,-1 +2,-1"), "malformed hunk header"),
    "counts in other digits": (FINE.replace("-2 +2", "-２ +２"), "malformed hunk header"),
    "a count of a million digits": (FINE.replace("-2 +2", f"-{'9' * 900} +2"), "malformed hunk header"),
    "a line number beyond counting": (FINE.replace("-2 +2", "-9999999 +2"), "malformed hunk header"),
    "more lines than the header says": (HEAD + HUNK + "+x = 1\n", "malformed hunk header"),
    "fewer lines than the header says": (FINE.replace("-2 +2", "-2,2 +2,2"), "shorter than its header"),
    "other counts than the header says": (HEAD + "@@ -2 +2,0 @@\n+y\n-x2 = 2\n", "counts do not match"),
    "a hunk of nothing": (HEAD + "@@ -2,0 +2,0 @@\n", "changes nothing"),
    "a hunk of context alone": (HEAD + "@@ -2 +2 @@\n x2 = 2\n", "changes nothing"),
    "a line in its own place": (put("x2 = 2"), "changes nothing"),
    "a no-op beside an edit": (FINE + "@@ -9 +9 @@\n-x9 = 9\n+x9 = 9\n", "changes nothing"),
    "hunks that overlap": (HEAD + HUNK + HUNK, "overlap"),
    "hunks out of order": (HEAD + "@@ -9 +9 @@\n-x9 = 9\n+y\n" + HUNK, "out of order"),
    "a hunk before line 1": (FINE.replace("-2 +2", "-0 +0"), "before line 1"),
    "a header that lies of the new place": (FINE.replace("+2 @@", "+90 @@"), "new place"),
    "a second header that lies of it": (
        f"{HEAD}@@ -1,0 +2 @@\n+y\n@@ -5 +5 @@\n-x5 = 5\n+z\n", "new place"),
    "a hunk far below the end": (FINE.replace("-2 +2", "-99999 +99999"), "does not apply"),
    "a hunk just below the end": (HEAD + "@@ -202,0 +203 @@\n+y\n", "does not apply"),
    "other old lines": (FINE.replace("-x2 = 2", "-x2 = 22"), "does not apply"),
    "a line end that is missing": (FINE + "\\ No newline at end of file\n", "malformed hunk header"),
    "a line end that is missing within": (
        FINE.replace("+x2", "\\ No newline at end of file\n+x2"), "neither space, - nor +"),
    "a hunk line without its sign": (f"{HEAD}@@ -1,2 +1,2 @@\n\n-x2 = 2\n+y\n", "neither space, - nor +"),
    "a header inside a hunk": (FINE.replace("+x2 = 3\n", "--- a/other.py\n+++ b/other.py\n"), "counts do not match"),
}  # fmt: skip
SIZES = {
    "too many bytes": (put("x" * MAX_DIFF), "larger than"),
    "too many bytes in few characters": (put(*["é" * 900] * 20), "larger than"),
    "a long line": (put("x" * (MAX_LINE + 1)), f"line of more than {MAX_LINE}"),
    "a number of a thousand digits": (put("x = " + "9" * MAX_LINE), f"line of more than {MAX_LINE}"),
    "a long literal": (put(f"x = '{'a1' * 600}'"), f"line of more than {MAX_LINE}"),
    "too many lines": (put(*["y"] * MAX_LINES), f"more than {MAX_LINES} lines"),
    "100,000 tiny hunks": (HEAD + "".join(f"@@ -{n},0 +{n} @@\n+\n" for n in range(100_000)), "larger than"),
    "65 tiny hunks": (
        HEAD + "".join(f"@@ -{n} +{n} @@\n-x{n}\n+y\n" for n in range(1, 2 + MAX_HUNKS)), f"than {MAX_HUNKS} hunks"),
    "brackets that no parser survives": (put(*["(" * 60] * 2), f"more than {MAX_NESTING} brackets"),
    "an encoding that is none": (f"{HEAD}@@ -1 +1 @@\n-x1 = 1\n+# coding: utf-7\n", "encoded in utf-7"),
    "an encoding as editors write it": (put("# -*- coding=rot13 -*-"), "encoded in rot13"),
}  # fmt: skip
HIDDEN = {
    "NUL": "\0", "a carriage return": "\r", "a bell": "\a", "an escape sequence": "\x1b[2J", "backspace": "\b",
    "form feed": "\f", "vertical tab": "\v", "delete": "\x7f", "NEL": "\x85", "a C1 control": "\x9b31m",
    "right-to-left override": "\u202e", "an isolate": "\u2066", "the Arabic letter mark": "\u061c",
    "zero-width space": "\u200b", "zero-width joiner": "\u200d", "word joiner": "\u2060", "byte order mark": "\ufeff",
    "soft hyphen": "\xad", "line separator": "\u2028", "paragraph separator": "\u2029",
    "a tag character": "\U000e0049", "private use": "\ue000", "a lone surrogate": "\ud800",
    "a pair of surrogates": "\ud83d\ude00", "a variation selector": "\ufe01",
    "a variation selector of the supplement": "\U000e0154", "the Hangul filler": "\u3164",
    "the halfwidth filler, a letter in names": "x\uffa0", "a blank of Braille": "\u2800", "a noncharacter": "\uffff",
    "the grapheme joiner": "\u034f", "a Mongolian selector": "\u180b",
}  # fmt: skip


def test_the_pattern_of_all_these_diffs_is_fine() -> None:
    """What the others change one thing in passes, so each is refused for that thing."""
    assert apply_diff(PROGRAM, FINE) == PROGRAM.replace("x2 = 2", "x2 = 3")
    assert apply_diff(PROGRAM, put("x2 = 3")) == apply_diff(PROGRAM, FINE.rstrip("\n"))


@pytest.mark.parametrize("diff", PATHS.values(), ids=PATHS)
def test_other_files_and_other_formats(diff: str) -> None:
    """Only train.py can be edited, and it can only be edited."""
    with pytest.raises(DiffRejected, match=r"does not edit train\.py alone"):
        apply_diff(PROGRAM, diff)


@pytest.mark.parametrize(("diff", "reason"), (HUNKS | SIZES).values(), ids=HUNKS | SIZES)
def test_lies_and_bombs(diff: str, reason: str) -> None:
    """Headers that lie, hunks that do not fit and everything too large."""
    with pytest.raises(DiffRejected, match=reason) as caught:
        apply_diff(PROGRAM, diff)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("place", ["a code line", "a header", "a context line"])
def test_characters_that_hide(text: str, place: str) -> None:
    """Nothing that a person does not see, or sees elsewhere than it is, wherever it stands."""
    there = {"a code line": "x2 = 3", "a header": "b/train.py", "a context line": "-x2"}[place]
    with pytest.raises(DiffRejected, match=r"contains the character U\+"):
        apply_diff(PROGRAM, FINE.replace(there, there + text))


def test_line_ends_of_windows_are_named() -> None:
    """A diff in CRLF is refused for its carriage returns, not half applied."""
    with pytest.raises(DiffRejected, match=r"U\+000D"):
        parse_diff(FINE.replace("\n", "\r\n"))


def test_a_program_grows_to_its_limit_and_no_further() -> None:
    """Edits that each pass cannot add up to a program that is too large, too long or too deep."""
    with pytest.raises(DiffRejected, match="larger than"):
        apply_diff(PROGRAM + f"{'y' * 900}\n" * (MAX_SOURCE // 901), put("x2 = 3", "z" * 900))
    with pytest.raises(DiffRejected, match=f"more than {MAX_PROGRAM_LINES} lines"):
        apply_diff(PROGRAM + "y\n" * (MAX_PROGRAM_LINES - 201), put("x2 = 3", "z"))
    with pytest.raises(DiffRejected, match="brackets"):
        apply_diff(PROGRAM + "(" * MAX_NESTING, put("("))


def test_a_comparison_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two long programs made of a few lines over and over are refused after a number of steps, not of hours."""
    before = "\n".join(str(n % 97) for n in range(9_000))
    after = "\n".join("x" if n % 13 == 0 else str(n % 97) for n in range(9_000))
    counted: list[int] = []
    steps = diffs._Matcher.find_longest_match

    def count(self: diffs._Matcher, *args: int) -> object:
        counted.append(1)
        return steps(self, *args)

    monkeypatch.setattr(diffs._Matcher, "find_longest_match", count)
    with pytest.raises(DiffRejected, match="repetitive"):
        make_diff(before, after)
    assert len(counted) < 50


def test_what_takes_the_tokenizer_long_never_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12.1 takes quadratic time for a line: no line that is long is given to it, and no program with many."""
    seen: list[str] = []
    generate = tokenize.generate_tokens
    monkeypatch.setattr(
        tokenize, "generate_tokens", lambda readline: generate(lambda: (seen.append(line := readline()), line)[1])
    )
    for bomb in ("é;" * 60_000, "a\n" * (MAX_PROGRAM_LINES + 1), "x = 1\n" + "(" * (MAX_LINE + 1), "(\n" * 500):
        assert normalise(bomb) == bomb and not seen
    assert normalise("a = (1,\n 2)  # words\n") == "a = ( 1 , 2 ) ;" and seen


@pytest.mark.parametrize(
    "source",
    ["x = " + "-" * 900 + "1\n", "x = \\\n" + "not \\\n" * 5000 + "1\n", "if a: pass\n" + "elif a: pass\n" * 5000,
     "x = " + "lambda: \\\n" * 5000 + "1\n", "".join(" " * n + "if a:\n" for n in range(150)), "'''\n" * 4001,
     "x = (\n", "\\\n" * 9000, "$ ? `\n", "  x\n y\n", "f'{'" * 30],
)  # fmt: skip
def test_the_normal_form_of_what_is_no_program(source: str) -> None:
    """Depth and errors that end Python's own parsers are text like any other here: nothing parses it."""
    assert isinstance(normalise(source), str) and len(diffs.normal_digest(source)) == 32


def test_a_fuzzy_place_is_found_in_linear_time() -> None:
    """A hunk of hundreds of lines that nearly stands at every line of a program is looked for once."""
    program = "a\n" * 9_000 + "b\n" + "a\n" * 900
    old = ["a"] * 700 + ["b"]
    diff = f"{HEAD}@@ -1,701 +1,702 @@\n" + "".join(f" {line}\n" for line in old) + "+c\n"
    assert apply_diff(program, diff, fuzzy=True) == program.replace("b\n", "b\nc\n")
    twice = f"{HEAD}@@ -9999 +9999 @@\n-a\n+c\n"
    with pytest.raises(DiffRejected, match="does not apply"):
        apply_diff(program, twice, fuzzy=True)
