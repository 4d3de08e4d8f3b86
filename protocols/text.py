"""Which characters may travel: none that hides, reorders or fakes what a person or a language model reads."""

from __future__ import annotations

import unicodedata

# Control, format (bidi overrides, zero width, tag characters), private use, surrogates, line and paragraph separators.
_FORBIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


def forbidden_character(text: str, allowed: str = "") -> str:
    """The first character by code point that may not travel, such as "U+202E"; empty when all may."""
    for char in sorted(set(text)):  # a program has 256 KiB of text and some hundred different characters
        if char not in allowed and unicodedata.category(char) in _FORBIDDEN:
            return f"U+{ord(char):04X}"
    return ""
