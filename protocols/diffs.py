"""Diff policy: what an edit of a program may look like, and how it is made, applied and compared.

A gate, not a sandbox: what passes still runs only inside one. All work is on text in memory, bounded in
size; no parser of Python runs here, since parsing hostile source can exhaust the stack or memory.
"""

from __future__ import annotations

import difflib
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from .canonical import digest
from .errors import DiffRejected
from .records import MAX_DIFF
from .task import MAX_SOURCE
from .text import forbidden_character

MAX_LINES = 1500
MAX_HUNKS = 64
EDITABLE = "train.py"
_HUNK = re.compile(
    r"@@ -(\d{1,6})(?:,(\d{1,6}))? \+(\d{1,6})(?:,(\d{1,6}))? @@", re.ASCII
)  # not the digits of all scripts


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


def make_diff(old: str, new: str) -> str:
    """The canonical unified diff (3 lines of context) from `old` to `new`; DiffRejected when it breaks the policy."""
    check_text(new, MAX_SOURCE, "the edited program")
    lines = difflib.unified_diff(_lines(old), _lines(new), f"a/{EDITABLE}", f"b/{EDITABLE}", lineterm="")
    diff = "\n".join(lines) + "\n"
    if diff == "\n":
        raise DiffRejected("the edit changes nothing")
    parse_diff(diff)
    return diff


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
    at, last_end = 2, 0
    while at < len(lines):
        hunk, at, end = _parse_hunk(lines, at)
        if hunk.start < last_end:
            raise DiffRejected("hunks overlap or are out of order")
        last_end = end
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
    match = _HUNK.fullmatch(lines[at])
    if match is None:
        raise DiffRejected("malformed hunk header")
    start, old_count = int(match[1]), int(match[2] or 1)
    new_count = int(match[4] or 1)
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
    return Hunk(first, tuple(body)), at, first + old_count


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
    check_text(result, MAX_SOURCE, "the edited program")
    return result


def _find(lines: list[str], old: list[str], position: int) -> int:
    if not any(text.strip() for text in old):
        return -1
    found = [at for at in range(position, len(lines) - len(old) + 1) if lines[at : at + len(old)] == old]
    return found[0] if len(found) == 1 else -1


def _lines(text: str) -> list[str]:
    return text.split("\n")


def normalise(source: str) -> str:
    """The program's tokens without comments, docstrings and layout, joined by spaces.

    Programs with equal normal forms are the same experiment. Text that does not tokenize is its own normal form.
    """
    try:
        return " ".join(_significant(source))
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return source


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
