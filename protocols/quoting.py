"""What of a peer's diff may stand in another node's prompt: code, and no prose that rides along with it.

Comments, docstrings, long literals and lines that cannot be Python are cut. Not covered: words spelled as names,
calls or short literals; what a prompt quotes stays data by whoever else wrote it.
"""

from __future__ import annotations

import itertools
import keyword
import re

from .diffs import parse_diff
from .errors import DiffRejected

_LONGEST_LINE = 160
_LONGEST_LITERAL = 40
_TRIPLE = re.compile(r"\"\"\"|'''")
_WORD = re.compile(r"(?<!\w)[^\W\d]\w*")
_CUT = '"…"'


def strip_for_prompt(diff: str) -> str:
    """The diff without comments, docstrings, long literals and prose; empty when it breaks the diff policy."""
    try:
        hunks = parse_diff(diff)
    except DiffRejected:
        return ""
    out: list[str] = []
    for hunk in hunks:
        old, new = (_opened(side) for side in (hunk.old, hunk.new))
        shown: list[str] = []
        for sign, text in hunk.lines:
            if sign == "-":
                code, old = _code(text, old)
            else:
                code, new = _code(text, new)
                old = _code(text, old)[1] if sign == " " else old
            if code.strip() or not text.strip():
                shown.append(sign + (code if len(code) <= _LONGEST_LINE else code[:_LONGEST_LINE] + "…"))
        if any(line[0] != " " for line in shown):
            out += [f"@@ line {hunk.start} @@", *shown]
    return "\n".join(out)


def _opened(lines: list[str]) -> str:
    """The triple quote within which these lines begin, if any: the first one closes when their number is odd and it
    does not look like the opening of a string (which stands at the start of a line, or after an operator)."""
    text = "\n".join(lines)
    marks = list(_TRIPLE.finditer(text))
    if len(marks) % 2 == 0:
        return ""
    before = text[: marks[0].start()].rpartition("\n")[2].rstrip("rRbBfFuU").strip()
    after = text[marks[0].end() :].partition("\n")[0].strip()
    opens = (not before or before[-1] in "=([{,:+") and after
    return "" if opens else marks[0].group()


def _code(line: str, quote: str) -> tuple[str, str]:
    """The code in a line that begins within the triple `quote` ("": in code), and the quote within which it ends."""
    shown = skeleton = ""  # skeleton: without the content of literals
    at = 0
    while at < len(line):
        if quote:
            end = line.find(quote, at)
            if end < 0:
                break
            at, quote = end + 3, ""
        elif line[at] == "#":
            break
        elif mark := _TRIPLE.match(line, at):
            quote, at = mark.group(), at + 3
            shown, skeleton = shown + _CUT, skeleton + _CUT
        elif line[at] in "\"'":
            end = _end_of_literal(line, at)
            literal = line[at:end]
            shown += literal if len(literal) <= _LONGEST_LITERAL + 2 else _CUT
            skeleton, at = skeleton + _CUT, end
        else:
            shown, skeleton, at = shown + line[at], skeleton + line[at], at + 1
    return ("" if _is_prose(skeleton) else shown.rstrip()), quote


def _end_of_literal(line: str, at: int) -> int:
    quote, index = line[at], at + 1
    while index < len(line) and line[index] != quote:
        index += 2 if line[index] == "\\" else 1
    return min(index + 1, len(line))


def _is_prose(code: str) -> bool:
    """Whether two names stand side by side, which no Python statement has unless one of them is a keyword."""
    words = list(_WORD.finditer(code))
    for first, second in itertools.pairwise(words):
        between = code[first.end() : second.start()]
        names = (first.group(), second.group())
        if between.isspace() and not any(keyword.iskeyword(name) or keyword.issoftkeyword(name) for name in names):
            return True
    return False
