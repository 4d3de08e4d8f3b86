"""The numbers at the top of a program, read and compared as text.

No parser of Python sees a stranger's program here: a constant is a line `NAME = number` or `NAME = (numbers)`. The
members of a tuple have names of their own, such as BETAS.0.
"""

from __future__ import annotations

import ast
import functools
import math
import re

Moves = tuple[tuple[str, float], ...]  # what was set to what, in the order of names

MAX_MOVES = 8
_LINE = re.compile(r"^([A-Z][A-Z0-9_]{0,23})( = )([-+0-9.e(), ]{1,60}?)(?=[ \t]*(?:#|$))", re.ASCII | re.MULTILINE)
_MOVE = re.compile(r"([A-Z][A-Z0-9_]{0,23}(?:\.[0-9])?)=(-?[0-9]{1,12}(?:\.[0-9]{1,12})?(?:e-?[0-9]{1,2})?)", re.ASCII)


@functools.lru_cache(maxsize=512)
def constants(source: str) -> dict[str, float]:
    """Every number that a module-level constant holds, by name; the first assignment counts."""
    found: dict[str, float] = {}
    for match in _LINE.finditer(source):
        name = match[1]
        try:
            value = ast.literal_eval(match[3].strip())
        except (SyntaxError, ValueError):
            continue
        members = {f"{name}.{index}": one for index, one in enumerate(value)} if isinstance(value, tuple) else {}
        for key, number in (members or {name: value}).items():
            if isinstance(number, int | float) and abs(number) < 1e12 and math.isfinite(number):
                found.setdefault(key, number)
    return found


def moves(before: str, after: str) -> Moves:
    """The constants in which two programs differ, with their values in `after`; nothing when they differ elsewhere."""
    if _skeleton(before) != _skeleton(after):
        return ()
    old, new = constants(before), constants(after)
    return tuple(sorted((name, float(new[name])) for name in new if new[name] != old.get(name)))[:MAX_MOVES]


def encode(moved: Moves, limit: int) -> str:
    """`LR=0.003,WIDTH=96`: as a record names a sweep's experiment; as many as fit."""
    text = ""
    for name, value in moved:
        number = f"{value:.5g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
        longer = f"{text},{name}={number}" if text else f"{name}={number}"
        if len(longer) > limit:
            break
        text = longer
    return text


def decode(text: str) -> Moves:
    """The moves that a record names; nothing when it holds anything else."""
    found: dict[str, float] = {}
    for part in text.split(",")[:MAX_MOVES]:
        match = _MOVE.fullmatch(part)
        if match is None:
            return ()
        found[match[1]] = float(match[2])
    return tuple(sorted(found.items()))


def _skeleton(source: str) -> str:
    """The program without the values of its constants and without what stands behind them."""
    return re.sub(r"(?m)^([A-Z][A-Z0-9_]{0,23} = ).*$", r"\1_", source)
