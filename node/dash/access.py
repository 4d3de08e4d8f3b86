"""Who may look: the rules of tokens and host names, and the headers of every answer.

On loopback the Host header must name this machine, so that no page of another site reaches the dashboard by a name
that it points here (DNS rebinding). Anywhere else a token is asked for. The page itself says nothing of anybody and is
given to everyone; the data behind it is guarded. So a link that is clicked in a chat works: browsers hold a Strict
cookie back until the page asks for data itself.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...protocols.errors import UsageError, unwritable

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_LOCAL = {"127.0.0.1", "localhost", "[::1]"}
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,128}")


@dataclass(frozen=True)
class Access:
    """token: what is asked for; empty: nothing. hosts: names that requests may give; empty: any."""

    token: str = ""
    hosts: frozenset[str] = frozenset()
    cookie: str = "swarm-node"

    @classmethod
    def to(cls, host: str, port: int, is_local: bool, token: str) -> Access:
        """The rules for a dashboard at an address. Cookies do not tell ports apart, so their names do."""
        bracketed = f"[{host}]" if ":" in host else host
        return cls(token, frozenset({*_LOCAL, bracketed}) if is_local else frozenset(), f"swarm-node-{port}")

    def refusal(self, request: Request) -> Response | None:
        """What is answered instead of what was asked for, if anything."""
        name = re.sub(r":\d*$", "", request.headers.get("host", "").lower())
        if self.hosts and name not in self.hosts:
            return _no("this dashboard answers under the address that `swarm-node dash` printed, and no other name")
        if not self.token:
            return None
        given = request.query_params.get("token")
        if given is not None:
            if not self._is_right(given):
                return _no("wrong token: open the address that `swarm-node dash` printed")
            moved = RedirectResponse("/", status_code=303, headers={"cache-control": "no-store"})
            moved.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            return moved
        if request.url.path.startswith("/api/") and not self._is_right(request.cookies.get(self.cookie, "")):
            return _no("no token: open the address that `swarm-node dash` printed")
        return None

    def _is_right(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _no(why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=403, headers={"cache-control": "no-store"})


class Gate:
    """Lets through what the rules allow, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._access.refusal(Request(scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, guarded)


def checked_token(token: str) -> str:
    """A token of the user's own; UsageError when it is easy to guess or does not fit into an address."""
    if not _TOKEN.fullmatch(token):
        why = "it has 16 to 128 letters, digits, or . _ ~ -"
        raise UsageError("--token makes no sense", why=why, fix="leave it out, and one is made up")
    return token


def made_up_token(path: Path) -> str:
    """The token kept at `path`, which is made when it is not there; only this user may read it."""
    try:
        kept = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if _TOKEN.fullmatch(kept):
            path.chmod(0o600)
            return kept
        token = secrets.token_urlsafe(24)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
        return token
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise unwritable(path, error, fix="give one yourself: swarm-node dash --token TEXT") from error
        raise UsageError(f"{path} holds no token", why=str(error), fix=f"rm {path}") from error
