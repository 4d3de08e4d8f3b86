#!/usr/bin/env python3
"""How long the diff gate takes at worst: CPU seconds for the most expensive inputs that are known.

scripts/bench_gate.py
"""

import time
from collections.abc import Callable

from swarm_node.protocols.diffs import EDITABLE, MAX_PROGRAM_LINES, apply_diff, make_diff, normalise, parse_diff
from swarm_node.protocols.errors import InvalidData
from swarm_node.protocols.quoting import strip_for_prompt

HEAD = f"--- a/{EDITABLE}\n+++ b/{EDITABLE}\n"


def added(line: str, count: int) -> str:
    return f"{HEAD}@@ -1,0 +2,{count} @@\n" + f"+{line}\n" * count


def program(line: str) -> str:
    """As many such lines as a program may have."""
    return f"{line}\n" * min(MAX_PROGRAM_LINES - 2, 261_000 // (len(line.encode()) + 1))


def periodic(every: int) -> tuple[str, str]:
    """Two programs of few different lines, which difflib compares in cubic time."""
    lines = [str(n % 97) for n in range(MAX_PROGRAM_LINES)]
    return "\n".join(lines), "\n".join("x" if n % every == 0 else line for n, line in enumerate(lines))


FUZZY = f"{HEAD}@@ -1,1401 +1,1402 @@\n" + " a\n" * 1400 + " b\n+c\n"
LONG = "x = 1\n" * (MAX_PROGRAM_LINES - 1)
CASES: dict[str, Callable[[], object]] = {
    "parse: 1,400 lines": lambda: parse_diff(added("y = 1", 1400)),
    "parse: bytes without end": lambda: parse_diff(added("é", 1 << 20)),
    "apply: fuzzy, nearly everywhere": lambda: apply_diff("a\n" * (MAX_PROGRAM_LINES - 1), FUZZY, fuzzy=True),
    "make: every 13th of 10,000 lines": lambda: make_diff(*periodic(13)),
    "make: every 400th of 10,000 lines": lambda: make_diff(*periodic(400)),
    "make: nothing in common": lambda: make_diff(LONG, LONG.replace("x", "y")),
    "normalise: operators": lambda: normalise(program(";" * 999)),
    "normalise: operators, not ASCII": lambda: normalise(program("é;" * 333)),
    "normalise: names": lambda: normalise(program("a " * 499)),
    "normalise: errors": lambda: normalise(program("$ " * 499)),
    "normalise: literals": lambda: normalise(program("''" * 499)),
    "normalise: f-strings": lambda: normalise(program("f'{a}'" * 160)),
    "normalise: a string without end": lambda: normalise("'''\n" + program("a" * 25)),
    "normalise: one line": lambda: normalise("é;" * 80_000),
    "quote: code": lambda: strip_for_prompt(added("=" * 999, 31)),
    "quote: quotes": lambda: strip_for_prompt(added("'\\" * 499, 31)),
    "quote: words": lambda: strip_for_prompt(added("a " * 499, 31)),
}


def main() -> None:
    for name, case in CASES.items():
        begun = time.process_time()
        try:
            case()
            end = "passed"
        except InvalidData as error:
            end = error.what
        print(f"{name:<36} {time.process_time() - begun:6.2f} s   {end}")


if __name__ == "__main__":
    main()
