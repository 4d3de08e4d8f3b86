"""Which characters may travel: none that hides, reorders or fakes what a person or a language model reads."""

from __future__ import annotations

import re
import unicodedata

# Control, format (bidi overrides, zero width, tag characters), private use, surrogates, line and paragraph separators.
_FORBIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
# Invisible too, though letters, marks or unassigned: fillers, variation selectors (256 of them carry any hidden bytes),
# the rest of what Unicode calls default-ignorable, and the characters that will never be any.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufdd0-\ufdef\ufff0-\ufff8"
    "\U000e0000-\U000e0fff" + "".join(f"{chr(last - 1)}{chr(last)}" for last in range(0xFFFF, 0x110000, 0x10000)) + "]"
)


def forbidden_character(text: str, allowed: str = "") -> str:
    """The first character by code point that may not travel, such as "U+202E"; empty when all may."""
    for char in sorted(set(text)):  # a program has 256 KiB of text and some hundred different characters
        if char not in allowed and (unicodedata.category(char) in _FORBIDDEN or _INVISIBLE.match(char)):
            return f"U+{ord(char):04X}"
    return ""


def printable(text: str, instead: str = " ") -> str:
    """`text` with `instead` in the place of every character that may not travel or does not print."""
    return "".join(char if char.isprintable() and not _INVISIBLE.match(char) else instead for char in text)
