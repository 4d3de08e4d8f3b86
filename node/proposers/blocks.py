"""Reads an LLM's answer: a JSON header, then SEARCH/REPLACE blocks or a whole file. Refusals say what to do better.

The answer may come from a captured model: every scan here is linear in its length, since a regular expression over
blocks that never end took minutes on an answer of 30 KB.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ...protocols.diffs import EDITABLE, MAX_HUNKS, MAX_LINES
from ...protocols.errors import InvalidData
from ...protocols.tags import TAGS, Tag

MAX_ANSWER = 256 * 1024
_HEADER_TRIES = 50  # objects looked at for a title
_SEARCH = re.compile(r"\s*<{5,9}\s*SEARCH\b")
_MIDDLE = re.compile(r"\s*={5,9}\s*")
_REPLACE = re.compile(r"\s*>{5,9}\s*REPLACE\b")
_OBJECT = re.compile(r"\{\s*\"")


class AnswerRefused(InvalidData):
    """The answer cannot become a program; the message is meant for the model that wrote it."""


def _words(value: Any) -> list[str]:
    """Tags as they come: a list, one string with commas, or nothing."""
    words = value.split(",") if isinstance(value, str) else value
    return [str(word) for word in words[:16]] if isinstance(words, list) else []


class Header(BaseModel):
    """What the model says about its edit. For people; these words never enter another node's prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: Annotated[str, StringConstraints(min_length=1, max_length=1000, strip_whitespace=True)]
    reason: Annotated[str | None, Field(max_length=4000)] = None
    tags: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()

    def known_tags(self) -> tuple[Tag, ...]:
        """At most three tags that the protocol has a word for; `other` when there is none."""
        words = {word.lower().strip() for word in self.tags}
        known: list[Tag] = [tag for tag in TAGS if tag in words]
        return tuple(known[:3] or ["other"])


def read_answer(answer: str, source: str) -> tuple[Header, str]:
    """The header and the whole edited program; AnswerRefused when there is no usable edit in `answer`."""
    if len(answer) > MAX_ANSWER:
        raise AnswerRefused(f"the answer is larger than {MAX_ANSWER} characters")
    answer = answer.replace("\r\n", "\n").rpartition("</think>")[2]  # drafts of local reasoning models
    if not answer.strip():
        raise AnswerRefused("the answer is empty")
    blocks, prose = _blocks(answer.split("\n"))
    header = _read_header("\n".join(prose))
    if len(blocks) > MAX_HUNKS:
        raise AnswerRefused(f"there are more than {MAX_HUNKS} SEARCH blocks")
    edited = source
    for number, (old, new) in enumerate(blocks, 1):
        edited = _replace(edited, old, new, number)
    if not blocks:
        edited = _whole_file(prose)
    if edited == source:
        raise AnswerRefused("the edit changes nothing")
    return header, edited


def _blocks(lines: list[str]) -> tuple[list[tuple[list[str], list[str]]], list[str]]:
    """Every SEARCH/REPLACE block as (old lines, new lines), and the lines outside of them."""
    blocks: list[tuple[list[str], list[str]]] = []
    prose: list[str] = []
    old: list[str] = []
    into = prose
    for line in lines:
        if _SEARCH.match(line) and into is prose:
            into = old = []
        elif _MIDDLE.fullmatch(line) and into is old:
            into = []
        elif _REPLACE.match(line) and into is not prose and into is not old:
            blocks.append((_unfenced(old), _unfenced(into)))
            into = prose
        elif into is not prose and (_SEARCH.match(line) or _REPLACE.match(line)):
            break
        else:
            into.append(line)
    if into is not prose:
        raise AnswerRefused(f"SEARCH block {len(blocks) + 1} is not complete: it needs ======= and >>>>>>> REPLACE")
    return blocks, prose


def _unfenced(lines: list[str]) -> list[str]:
    """Without a code fence around all of them."""
    fenced = len(lines) > 1 and lines[0].startswith("```") and lines[-1].strip() == "```"
    return lines[1:-1] if fenced else lines


def _read_header(prose: str) -> Header:
    why = ""
    for _, found in zip(range(_HEADER_TRIES), _OBJECT.finditer(prose), strict=False):
        try:
            value, _ = json.JSONDecoder(strict=False).raw_decode(prose, found.start())
            if "title" in value:
                return Header.model_validate(value)
        except (ValueError, RecursionError) as error:  # ValueError: of JSON and of pydantic
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            why = why or detail
    if '"title"' in prose:
        raise AnswerRefused("the JSON object with the title is not valid", why=why)
    raise AnswerRefused('there is no JSON object with a "title" in the answer')


def _whole_file(prose: list[str]) -> str:
    files: list[list[str]] = []
    fence: str | None = None  # the line's indentation and backticks, which also end it
    for line in prose:
        start, ticks, kind = line.partition("```")
        if fence is None and ticks and not start.strip():
            fence = start + ticks
            files.append([kind])
        elif fence is not None and line.rstrip() == fence:
            fence = None
        elif fence is not None:
            files[-1].append(line)
    programs = [lines[1:] for lines in files if lines[0].strip().lower().startswith("py")]
    programs = [lines for lines in programs if any(line.startswith("def train(") for line in lines)]
    if len(programs) != 1:
        what = "neither a SEARCH/REPLACE block nor" if not programs else "more than"
        raise AnswerRefused(f"there is {what} one whole {EDITABLE} with train(ctx) in a ```python fence")
    if fence is not None and programs[0] == files[-1][1:]:
        raise AnswerRefused(f"the end of {EDITABLE} is missing: answer with SEARCH/REPLACE blocks")
    return "\n".join(programs[0]).strip("\n") + "\n"


def _replace(source: str, old: list[str], new: list[str], number: int) -> str:
    """`source` with the only occurrence of `old` replaced.

    Whole lines first, then a part of a line, then lines that differ in trailing or in common leading space.
    """
    while old and not old[-1].strip() and new and not new[-1].strip():  # a blank line that both end with
        old, new = old[:-1], new[:-1]
    if not any(line.strip() for line in old):
        raise AnswerRefused(f"SEARCH block {number} is empty: copy the lines that are to be replaced")
    if len(old) > MAX_LINES:
        raise AnswerRefused(f"SEARCH block {number} has more than {MAX_LINES} lines: split it")
    lines = source.split("\n")
    if places := _places(lines, old):
        at = _only(places, number)
        return "\n".join(lines[:at] + new + lines[at + len(old) :])
    if parts := _parts(source, "\n".join(old)):
        at = _only(parts, number)
        return source[:at] + "\n".join(new) + source[at + len("\n".join(old)) :]
    old = "\n".join(old).rstrip().split("\n")
    wanted, stripped = [line.strip() for line in old], [line.strip() for line in lines]
    places = [at for at in _places(stripped, wanted) if _shift(old, lines[at:]) is not None]
    if places:
        at = _only(places, number)
        moved = _moved(new, _shift(old, lines[at:]) or 0)
        return "\n".join(lines[:at] + moved + lines[at + len(old) :])
    first = next(line for line in wanted if line)[:200]
    near = difflib.get_close_matches(first, [line[:200] for line in stripped[:5000]], n=3, cutoff=0.5)
    raise AnswerRefused(
        f"SEARCH block {number} was not found", why=f"nearest lines are: {near}" if near else "no line is similar"
    )


def _only(places: list[int], number: int) -> int:
    if len(places) > 1:
        raise AnswerRefused(f"SEARCH block {number} occurs more than once: copy more lines around it")
    return places[0]


def _places(lines: list[str], wanted: list[str]) -> list[int]:
    """Where `wanted` stands in `lines`."""
    last = len(lines) - len(wanted)
    return [
        at
        for at, line in enumerate(lines[: last + 1] if last >= 0 else [])
        if line == wanted[0] and lines[at : at + len(wanted)] == wanted
    ]


def _parts(source: str, text: str) -> list[int]:
    """Where `text` stands as a part of a line without cutting a name or a number ("LR = 1" is not in "LR = 1e-3")."""
    before = r"(?<![\w.])" if re.match(r"\w", text) else ""
    after = r"(?![\w.])" if re.search(r"\w\Z", text) else ""
    return [match.start() for match in re.finditer(before + re.escape(text) + after, source)]


def _shift(old: list[str], found: list[str]) -> int | None:
    """How much further in the found lines stand, when that is the same for all of them."""
    shifts = {_indent(there) - _indent(line) for line, there in zip(old, found, strict=False) if line.strip()}
    return shifts.pop() if len(shifts) == 1 else None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _moved(lines: list[str], shift: int) -> list[str]:
    """The lines, further in by `shift` spaces, or further out where they have that many."""
    if shift >= 0:
        return [" " * shift + line if line.strip() else line for line in lines]
    return [line[-shift:] if line[:-shift].isspace() else line for line in lines]
