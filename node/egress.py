"""The last look at what leaves this machine: nothing that holds the API key, as it is or in a common disguise.

Whoever answers at the endpoint knows the key, and a captured model writes what strangers will read. Not covered: a key
that is cut in pieces with other letters between them, or encoded in any other way.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

_SHORTEST = 12  # letters and digits; what local servers take for a key ("ollama") is a word and no secret


class Egress:
    """Knows the key by its disguises, compared without case and without what is neither letter nor digit."""

    def __init__(self, key: str) -> None:
        raw = key.encode()
        forms = {key, key[::-1], raw.hex(), base64.b32encode(raw).decode(), quote(key, safe="")}
        for before in range(3):  # base64 takes three bytes at a time, and the key may begin at any of them
            after = -(before + len(raw)) % 3
            text = base64.b64encode(bytes(before) + raw + bytes(after)).decode()
            forms.add(text[before and before + 1 : len(text) - (after and after + 1)])
        self._forms = {_plain(form) for form in forms} if len(_plain(key)) >= _SHORTEST else set[str]()

    def holds_key(self, text: str) -> bool:
        """Whether the key is in `text`."""
        plain = _plain(text)
        return any(form in plain for form in self._forms)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
