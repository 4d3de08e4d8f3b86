"""Reads an LLM's answer: a JSON header, then SEARCH/REPLACE blocks or a whole file. Refusals say what to do better."""

from __future__ import annotations

import difflib
import json
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ...protocols.errors import InvalidData
from ...protocols.tags import TAGS, Tag

MAX_ANSWER = 256 * 1024
_BLOCK = re.compile(
    r"^[ \t]*<{5,9} ?SEARCH[^\n]*\n(?P<old>.*?)^[ \t]*={5,9}[ \t]*\n(?P<new>.*?)^[ \t]*>{5,9} ?REPLACE[^\n]*$",
    re.M | re.S,
)
_FENCE = re.compile(r"^[ \t]*```(?P<kind>[A-Za-z]*)[ \t]*\n(?P<text>.*?)^[ \t]*```[ \t]*$", re.M | re.S)
_HEADER = re.compile(r"\{[^{}]*\"title\"[^{}]*\}", re.S)


class AnswerRefused(InvalidData):
    """The answer cannot become a program; the message is meant for the model that wrote it."""


class Header(BaseModel):
    """What the model says about its edit. Only the author's own screen and feed show these words."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: Annotated[str, StringConstraints(min_length=1, max_length=1000, strip_whitespace=True)]
    reason: Annotated[str, StringConstraints(max_length=4000)] = ""
    tags: Annotated[tuple[str, ...], Field(max_length=16)] = ()

    def known_tags(self) -> tuple[Tag, ...]:
        """The tags that the protocol has a word for; unknown ones become `other`."""
        words = {word.lower().strip() for word in self.tags}
        known: list[Tag] = [tag for tag in TAGS if tag in words]
        return tuple(known[:3] or ["other"])


def read_answer(answer: str, source: str) -> tuple[Header, str]:
    """The header and the whole edited program; AnswerRefused when there is no usable edit in `answer`."""
    if len(answer) > MAX_ANSWER:
        raise AnswerRefused(f"the answer is larger than {MAX_ANSWER} characters")
    answer = answer.replace("\r\n", "\n")
    header = _read_header(answer)
    blocks = [(match["old"], match["new"]) for match in _BLOCK.finditer(answer)]
    if blocks:
        edited = source
        for number, (old, new) in enumerate(blocks, 1):
            edited = _replace(edited, old, new, number)
    else:
        edited = _whole_file(answer)
    if edited == source:
        raise AnswerRefused("the edit changes nothing")
    return header, edited


def _read_header(answer: str) -> Header:
    found = _HEADER.search(answer)
    if found is None:
        raise AnswerRefused('there is no JSON object with a "title" in the answer')
    try:
        return Header.model_validate(json.loads(found[0], strict=False))
    except (json.JSONDecodeError, ValidationError, RecursionError) as error:
        raise AnswerRefused("the JSON object with the title is not valid", why=str(error).split("\n")[0]) from error


def _whole_file(answer: str) -> str:
    files = [match["text"] for match in _FENCE.finditer(answer) if match["kind"].lower() in ("python", "py")]
    files = [text for text in files if re.search(r"^def train\(", text, re.M)]
    if len(files) != 1:
        what = "neither a SEARCH/REPLACE block nor" if not files else "more than"
        raise AnswerRefused(f"there is {what} one whole file with train(ctx) in the answer")
    return files[0].strip("\n") + "\n"


def _replace(source: str, old: str, new: str, number: int) -> str:
    """`source` with the only occurrence of `old` replaced: exactly, else line by line without outer space."""
    if not old.strip():
        raise AnswerRefused(f"SEARCH block {number} is empty: copy the lines that are to be replaced")
    for end in ("", "\n"):  # without its line end, a block may also be a part of one line
        if source.count(old.removesuffix(end)) == 1:
            return source.replace(old.removesuffix(end), new.removesuffix(end))
    if (count := source.count(old.removesuffix("\n"))) > 1:
        raise AnswerRefused(f"SEARCH block {number} occurs {count} times: copy more lines around it")
    lines, wanted = source.split("\n"), old.rstrip("\n").split("\n")
    for same in (str.rstrip, str.strip):
        target = [same(line) for line in wanted]
        places = [
            at
            for at in range(len(lines) - len(wanted) + 1)
            if [same(line) for line in lines[at : at + len(wanted)]] == target
        ]
        if len(places) == 1:
            at = places[0]
            inserted = _indented(new.rstrip("\n"), wanted[0], lines[at]) if new.strip() else []
            return "\n".join(lines[:at] + inserted + lines[at + len(wanted) :])
        if len(places) > 1:
            raise AnswerRefused(f"SEARCH block {number} occurs {len(places)} times: copy more lines around it")
    near = difflib.get_close_matches(wanted[0].strip(), [line.strip() for line in lines], n=2, cutoff=0.5)
    raise AnswerRefused(
        f"SEARCH block {number} was not found", why=f"nearest lines: {near}" if near else "nothing similar"
    )


def _indented(new: str, wanted: str, found: str) -> list[str]:
    """The replacement, shifted by as much as the found line stands further in than the searched one."""
    shift = (len(found) - len(found.lstrip())) - (len(wanted) - len(wanted.lstrip()))
    lines = new.split("\n")
    if shift > 0:
        return [" " * shift + line if line.strip() else line for line in lines]
    return [line[-shift:] if line[:-shift].isspace() else line for line in lines] if shift < 0 else lines
