"""What of a peer's diff may stand in another node's prompt: code, and no prose that rides along with it.

Comments, docstrings, literals that are long or hold a space, and lines that cannot be Python are cut. Not covered:
words spelled as names, calls or single words; what a prompt quotes stays data by whoever else wrote it.
"""

from __future__ import annotations

import io
import itertools
import keyword
import re
import tokenize

from .diffs import parse_diff
from .errors import DiffRejected

_LONGEST_LINE = 160
_LONGEST_LITERAL = 40
_TRIPLE = re.compile(r"\"\"\"|'''")
_WORD = re.compile(r"(?<!\w)[^\W\d]\w*")
_CUT = '"…"'
_STARTS = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
_FSTRING_TEXT = getattr(tokenize, "FSTRING_MIDDLE", -1)  # Python 3.12 cuts f-strings into parts


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


def without_words(source: str, known: str) -> str:
    """The program without the comments and docstrings that `known` does not hold: the same experiment.

    A peer's program that is adopted is shown to the language model in full from then on, as the text to edit.
    """
    return _edited(source, known, prose_only=True)


def cut_literals(source: str, known: str) -> str:
    """The program with every literal cut that is long or holds a space, and that `known` does not hold: to be read,
    not run."""
    return _edited(source, known, prose_only=False)


def _edited(source: str, known: str, *, prose_only: bool) -> str:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return source  # does not run either
    lines = source.split("\n")
    before = tokenize.NEWLINE
    cuts: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    following = [token.type for token in tokens if token.type != tokenize.COMMENT]
    at = -1
    for token in tokens:
        at += token.type != tokenize.COMMENT
        alone = before in _STARTS and following[at + 1 : at + 2] == [tokenize.NEWLINE]  # a statement of its own
        if prose_only and token.type == tokenize.COMMENT and token.string not in known:
            cuts.append((token.start, token.end, "#"))  # nothing would not do after a backslash
        elif token.type in (tokenize.STRING, _FSTRING_TEXT) and token.string not in known:
            if prose_only and alone and token.type == tokenize.STRING:
                cuts.append((token.start, token.end, '""'))
            elif not prose_only and _says(token.string):
                cuts.append((token.start, token.end, "…" if token.type == _FSTRING_TEXT else _CUT))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    for (row, column), (last_row, last_column), instead in reversed(cuts):
        text = lines[row - 1][:column] + instead + lines[last_row - 1][last_column:]
        lines[row - 1 : last_row] = [text.rstrip()]
    return "\n".join(lines)


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
            shown += _CUT if _says(literal) else literal
            skeleton, at = skeleton + _CUT, end
        else:
            shown, skeleton, at = shown + line[at], skeleton + line[at], at + 1
    return ("" if _is_prose(skeleton) else shown.rstrip()), quote


def _end_of_literal(line: str, at: int) -> int:
    quote, index = line[at], at + 1
    while index < len(line) and line[index] != quote:
        index += 2 if line[index] == "\\" else 1
    return min(index + 1, len(line))


def _says(literal: str) -> bool:
    """Whether a string literal may be more than a name or a format."""
    return len(literal) > _LONGEST_LITERAL + 2 or any(char.isspace() for char in literal)


def _is_prose(code: str) -> bool:
    """Whether two names stand side by side, which no Python statement has unless one of them is a keyword."""
    words = list(_WORD.finditer(code))
    for first, second in itertools.pairwise(words):
        between = code[first.end() : second.start()]
        names = (first.group(), second.group())
        if between.isspace() and not any(keyword.iskeyword(name) or keyword.issoftkeyword(name) for name in names):
            return True
    return False
