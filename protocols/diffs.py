"""Diff policy: what an edit of a program may look like, and how it is made, applied and compared.

A gate, not a sandbox: what passes still runs only inside one. All work is on text in memory, bounded in
size; no parser of Python runs here, since parsing hostile source can exhaust the stack or memory.
"""

from __future__ import annotations

import difflib
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .canonical import digest
from .errors import DiffRejected
from .records import MAX_DIFF
from .task import MAX_SOURCE
from .text import forbidden_character

MAX_LINES = 1500
MAX_HUNKS = 64
MAX_LINE = 1000  # characters: Python 3.12.1 needs a minute for the tokens of one line of 256 KiB
MAX_PROGRAM_LINES = 10_000
MAX_NESTING = 100  # open brackets; Python's own limit is 200
_MAX_STEPS = 5_000_000  # of a comparison of two programs, about a second; the baseline and an edit take some hundred
EDITABLE = "train.py"
_HUNK = re.compile(
    r"@@ -(\d{1,6})(?:,(\d{1,6}))? \+(\d{1,6})(?:,(\d{1,6}))? @@", re.ASCII
)  # not the digits of all scripts
_BRACKET = re.compile(r"[][(){}]")
_COOKIE = re.compile(r"[ \t]*#.*?coding[:=][ \t]*([-\w.]+)")  # as PEP 263 has it, and more


@dataclass(frozen=True)
class Hunk:
    """One hunk: 1-based first line in the old text, and its lines as (' ', '-', '+') with text."""

    start: int
    lines: tuple[tuple[str, str], ...]

    @property
    def old(self) -> list[str]:
        """The lines that must be there before."""
        return [text for sign, text in self.lines if sign != "+"]

    @property
    def new(self) -> list[str]:
        """The lines that are there after."""
        return [text for sign, text in self.lines if sign != "-"]


def check_text(text: str, limit: int, what: str) -> None:
    """Raise DiffRejected when `text` is over `limit` bytes or holds a character that can hide or mislead."""
    if len(text.encode("utf-8", "surrogatepass")) > limit:
        raise DiffRejected(f"{what} is larger than {limit} bytes")
    if char := forbidden_character(text, "\n\t"):
        raise DiffRejected(f"{what} contains the character {char}")
    if any(len(line) > MAX_LINE for line in text.split("\n")):
        raise DiffRejected(f"{what} has a line of more than {MAX_LINE} characters")


def check_program(text: str) -> None:
    """Raise DiffRejected when `text` cannot be the edited program: what would take those who read it too long."""
    what = "the edited program"
    check_text(text, MAX_SOURCE, what)
    lines = text.split("\n")
    if len(lines) > MAX_PROGRAM_LINES:
        raise DiffRejected(f"{what} has more than {MAX_PROGRAM_LINES} lines")
    for line in lines[:2]:
        if (cookie := _COOKIE.match(line)) and cookie[1].lower() != "utf-8":
            raise DiffRejected(f"{what} says that it is encoded in {cookie[1][:20]}")  # it would mean another in a file
    depths = itertools.accumulate(1 if mark in "([{" else -1 for mark in _BRACKET.findall(text))
    if max(depths, default=0) > MAX_NESTING:
        raise DiffRejected(f"{what} has more than {MAX_NESTING} brackets open at once")


def make_diff(old: str, new: str) -> str:
    """The canonical unified diff (3 lines of context) from `old` to `new`; DiffRejected when it breaks the policy."""
    check_program(new)
    if old == new:
        raise DiffRejected("the edit changes nothing")
    before, after = _lines(old), _lines(new)
    diff = "\n".join([f"--- a/{EDITABLE}", f"+++ b/{EDITABLE}", *_hunks(before, after)]) + "\n"
    parse_diff(diff)
    return diff


def git_patch(old: str, new: str) -> str:
    """The change as `git apply` takes it, of any size: unlike the canonical diff it knows no line after the last line
    break, and never fails; empty when nothing changes."""
    if old == new:
        return ""
    before, after = _file_lines(old), _file_lines(new)
    try:
        hunks = _hunks(before, after)
    except DiffRejected:  # too long to compare: one text in the place of the other
        head = f"@@ -{_range(0, len(before))} +{_range(0, len(after))} @@"
        hunks = [head, *("-" + line for line in before), *("+" + line for line in after)]
    return "\n".join([f"diff --git a/{EDITABLE} b/{EDITABLE}", f"--- a/{EDITABLE}", f"+++ b/{EDITABLE}", *hunks]) + "\n"


def _file_lines(text: str) -> list[str]:
    """The lines of a file; a last one without a line break carries git's note of that, and so differs from one with."""
    *lines, rest = text.split("\n")
    return [*lines, rest + "\n\\ No newline at end of file"] if rest else lines


def _hunks(before: Sequence[str], after: Sequence[str]) -> list[str]:
    out: list[str] = []
    for group in _Matcher(None, before, after).get_grouped_opcodes():
        (_, old_start, _, new_start, _), (_, _, old_end, _, new_end) = group[0], group[-1]
        out.append(f"@@ -{_range(old_start, old_end)} +{_range(new_start, new_end)} @@")
        for kind, i, j, k, n in group:
            out += [(" " if kind == "equal" else "-") + line for line in before[i:j]]
            out += ["+" + line for line in after[k:n] if kind != "equal"]
    return out


class _Matcher(difflib.SequenceMatcher[str]):
    """Counts its steps: on long repetitive texts they grow with the cube of the lines, which takes hours."""

    steps = 0
    a: Sequence[str]
    b2j: dict[str, list[int]]  # where each line stands in b

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        self.steps += sum(1 + len(self.b2j.get(line, ())) for line in self.a[alo:ahi])
        if self.steps > _MAX_STEPS:
            raise DiffRejected("the programs are too long and repetitive to be compared")
        return super().find_longest_match(alo, ahi, blo, bhi)


def _range(start: int, end: int) -> str:
    return f"{start + 1}" if end == start + 1 else f"{start + (end > start)},{end - start}"


def parse_diff(diff: str) -> tuple[Hunk, ...]:
    """The hunks of a diff that keeps the policy: one file, text only, bounded, well counted, in order."""
    check_text(diff, MAX_DIFF, "the diff")
    lines = diff.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if len(lines) > MAX_LINES:
        raise DiffRejected(f"the diff has more than {MAX_LINES} lines")
    if lines[:2] != [f"--- a/{EDITABLE}", f"+++ b/{EDITABLE}"]:
        raise DiffRejected(f"the diff does not edit {EDITABLE} alone")
    hunks: list[Hunk] = []
    at, last_end, shift = 2, 1, 0  # shift: how much further down than before the next line stands
    while at < len(lines):
        hunk, at, new_start = _parse_hunk(lines, at)
        if hunk.start < last_end:
            raise DiffRejected("hunks overlap, are out of order or begin before line 1")
        if new_start != hunk.start + shift:
            raise DiffRejected("a hunk's new place does not follow from its old one")
        if hunk.old == hunk.new:
            raise DiffRejected("a hunk changes nothing")
        last_end = hunk.start + len(hunk.old)
        shift += len(hunk.new) - len(hunk.old)
        hunks.append(hunk)
        if len(hunks) > MAX_HUNKS:
            raise DiffRejected(f"the diff has more than {MAX_HUNKS} hunks")
    if not hunks:
        raise DiffRejected("the diff has no hunk")
    return tuple(hunks)


def added_text(diff: str) -> str:
    """The lines that a diff adds, in their order."""
    return "\n".join(text for hunk in parse_diff(diff) for sign, text in hunk.lines if sign == "+")


def _parse_hunk(lines: list[str], at: int) -> tuple[Hunk, int, int]:
    """The hunk whose header is line `at`, where the next one begins, and its first line in the new text."""
    match = _HUNK.fullmatch(lines[at])
    if match is None:
        raise DiffRejected("malformed hunk header")
    start, old_count = int(match[1]), int(match[2] or 1)
    new_start, new_count = int(match[3]), int(match[4] or 1)
    body: list[tuple[str, str]] = []
    old = new = 0
    at += 1
    while old < old_count or new < new_count:
        if at >= len(lines):
            raise DiffRejected("a hunk is shorter than its header says")
        sign, text = lines[at][:1], lines[at][1:]
        if sign not in (" ", "-", "+"):
            raise DiffRejected("a hunk line starts with neither space, - nor +")
        old += sign != "+"
        new += sign != "-"
        body.append((sign, text))
        at += 1
    if old != old_count or new != new_count:
        raise DiffRejected("a hunk's counts do not match its header")
    first = start if old_count else start + 1  # "-7,0" inserts after line 7
    return Hunk(first, tuple(body)), at, new_start if new_count else new_start + 1


def apply_diff(source: str, diff: str, *, fuzzy: bool = False) -> str:
    """`source` with the diff applied; DiffRejected when a hunk's old lines are not where it says.

    fuzzy: also accept a hunk whose old lines stand exactly once elsewhere, so that a peer's idea can be
    tried on a program that is not its parent.
    """
    lines, out, position = _lines(source), list[str](), 0
    for hunk in parse_diff(diff):
        old = hunk.old
        start = hunk.start - 1
        if start < position or start > len(lines) or lines[start : start + len(old)] != old:
            start = _find(lines, old, position) if fuzzy else -1
        if start < 0:
            raise DiffRejected("the diff does not apply to this program")
        out += lines[position:start] + hunk.new
        position = start + len(old)
    result = "\n".join(out + lines[position:])
    check_program(result)
    return result


def _find(lines: list[str], old: list[str], position: int) -> int:
    """Where `old` stands, from line `position` on, when that is one place only; else -1."""
    if not any(text.strip() for text in old):
        return -1
    text, wanted = ("\n".join(["", *part, ""]) for part in (lines[position:], old))
    at = text.find(wanted)  # in linear time, unlike a comparison at every line
    return -1 if at < 0 or text.find(wanted, at + 1) >= 0 else position + text.count("\n", 0, at)


def _lines(text: str) -> list[str]:
    return text.split("\n")


def normalise(source: str) -> str:
    """The program's tokens without comments, docstrings and layout, joined by spaces.

    Programs with equal normal forms are the same experiment. Text that breaks the policy or does not tokenize is its
    own normal form.
    """
    try:
        check_program(source)
        return " ".join(_significant(source))
    except (DiffRejected, tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return source


@functools.lru_cache(maxsize=256)  # it takes up to a second, and the same programs are asked for again and again
def normal_digest(source: str) -> bytes:
    """32-byte digest of the normal form."""
    return digest(normalise(source).encode("utf-8", "surrogatepass"))


def _significant(source: str) -> list[str]:
    out: list[str] = []
    statement_start, docstring = True, ""  # docstring: a string at the start of a statement, dropped if nothing follows
    for kind, text in _tokens(source):
        if kind in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        if kind == tokenize.NEWLINE:
            if not docstring and out and out[-1] != ";":
                out.append(";")
            statement_start, docstring = True, ""
        elif kind in (tokenize.INDENT, tokenize.DEDENT):
            out.append("{" if kind == tokenize.INDENT else "}")
        elif statement_start and kind == tokenize.STRING:
            statement_start, docstring = False, text
        else:
            out += [docstring, text] if docstring else [text]
            statement_start, docstring = False, ""
    return out


def _tokens(source: str) -> Iterator[tuple[int, str]]:
    """Kind and text of each token. Python 3.12 cuts f-strings into parts; here they are one string, as before it."""
    starts, ends = (getattr(tokenize, name, -1) for name in ("FSTRING_START", "FSTRING_END"))
    lines = source.split("\n")
    opened: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == starts:
            opened.append(token.start)
        elif token.type == ends:
            (row, column), (last_row, last_column) = opened.pop(), token.end
            if not opened:
                text = "\n".join(lines[row - 1 : last_row])
                yield tokenize.STRING, text[column : len(text) - len(lines[last_row - 1]) + last_column]
        elif not opened:
            yield token.type, token.string
