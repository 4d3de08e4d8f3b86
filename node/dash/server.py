"""`dash`: serves the page and what it asks for. Reads only the ledger, so it works while the node runs and after it
stopped, and never slows it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ...protocols.errors import NetworkError, SwarmNodeError, UsageError, first_of
from ...swarm.ledger import Ledger
from ..feed import json_line
from ..format import clean
from ..home import Home
from ..screen import Screen
from ..signals import until_signalled
from .access import Access, Gate, checked_token, made_up_token
from .news import news
from .page import page
from .picture import Picture

PORT = 4080
_POLL = 0.5  # seconds; SQLite has no cross-process event, and one PRAGMA costs microseconds
_ALIVE = 5.0  # seconds for which an answer holds
_STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


async def dash(home: Home, ledger: Ledger, host: str, port: int | None, token: str | None) -> int:
    """Serve until Ctrl-C; its address is the first line on stdout. Returns the exit code."""
    token = checked_token(token) if token is not None else ""
    with _listening(host, port) as listener:
        address, number = listener.getsockname()[:2]
        is_local = ipaddress.ip_address(address).is_loopback
        if not is_local and not token:
            token = made_up_token(home.dash_token)
        print(_url(address, number, token), flush=True)
        print(f"  reads only {home.ledger}; Ctrl-C ends it", file=sys.stderr, flush=True)
        picture = Picture(ledger)
        app = application(picture, home, Access.to(address, number, is_local, token))
        return await until_signalled(Screen(), _serve(app, listener, picture))


async def _serve(app: ASGIApp, listener: socket.socket, picture: Picture) -> None:
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="off", log_config=None, log_level="warning", access_log=False,
        server_header=False, limit_concurrency=200, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = _Server(config)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(picture))
            group.create_task(server.serve(sockets=[listener]))
    except BaseExceptionGroup as group:  # TaskGroups wrap; people want the error itself
        raise first_of(group) from group
    finally:
        await server.shutdown(sockets=[listener])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C means here what it means everywhere: `until_signalled` hears it."""
        yield


async def follow(picture: Picture) -> None:
    """Take the ledger into account, then what is written to it, until cancelled. In worker threads, a page at a time:
    requests are answered in between."""
    while True:
        version = await asyncio.to_thread(picture.ledger.data_version)  # before: what is written meanwhile differs
        while await asyncio.to_thread(picture.advance):
            pass
        await asyncio.to_thread(picture.settle)
        while await asyncio.to_thread(picture.ledger.data_version) == version:  # noqa: ASYNC110  # nothing tells us
            await asyncio.sleep(_POLL)


# ---- what is served


def application(picture: Picture, home: Home, access: Access) -> ASGIApp:
    """The page, its parts, and its data as JSON."""
    here = Here(picture.ledger, home, tells_key=bool(access.token))

    def feed(request: Request) -> Any:
        after, before = (_number(request, name) for name in ("after", "before"))
        return news(picture, after, before) | {"node": here.told()}

    def record(request: Request) -> Any:
        found = picture.ledger.find(request.path_params["id"])
        with picture.lock:
            return page(found, picture)

    def of_track(view: Callable[[str], Any]) -> Callable[[Request], Any]:
        return lambda request: view(request.path_params["track"])

    routes = [
        Route("/api/news", _json(feed)),
        Route("/api/tracks", _json(lambda _: picture.tracks())),
        Route("/api/tracks/{track}/progress", _json(of_track(picture.progress))),
        Route("/api/tracks/{track}/board", _json(of_track(picture.board))),
        Route("/api/tracks/{track}/map", _json(of_track(picture.lanes))),
        Route("/api/nodes", _json(lambda _: picture.nodes() | {"node": here.told()})),
        Route("/api/records/{id}", _json(record)),
        Route("/", _static(_STATIC / "index.html")),
        *(Route(f"/{path.name}", _static(path)) for path in _STATIC.iterdir() if path.suffix in _TYPES),
    ]
    return Gate(Starlette(routes=routes), access)


def _static(path: Path) -> Callable[[Request], Any]:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return endpoint


def _json(view: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """An endpoint whose answer is made in a worker thread."""

    def answer(request: Request) -> tuple[int, Any]:
        try:
            return 200, view(request)
        except UsageError as error:
            return 404, {"error": clean(error.what), "why": clean(error.why, 400)}
        except SwarmNodeError as error:
            return 500, {"error": clean(error.what, 400), "why": clean(error.why, 400)}

    def encoded(request: Request) -> tuple[int, bytes]:
        status, value = answer(request)
        return status, json_line(value, (",", ":")).encode()

    async def endpoint(request: Request) -> Response:
        status, content = await asyncio.to_thread(encoded, request)
        return Response(content, status, media_type="application/json", headers={"cache-control": "no-store"})

    return endpoint


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise UsageError(f"{name} is not a row", why="a row is a number")
    return int(text)


class Here:
    """The node of this home, as it describes itself.

    The invite to a private swarm holds its key, for which this user alone may read the ledger; on loopback every user
    of the machine may ask. So it is told only where a token was asked for.
    """

    def __init__(self, ledger: Ledger, home: Home, *, tells_key: bool) -> None:
        self._ledger, self._home, self._tells_key = ledger, home, tells_key
        self._asked, self._text, self._is_running = 0.0, "", False

    def told(self) -> dict[str, Any]:
        """Its status; `running` False when it does not run now."""
        text, now = self._ledger.status(), time.monotonic()
        # Asked seldom, and only of a node that says that it runs: the question holds its lock for microseconds when it
        # was killed, and who starts it in just these is told to wait.
        if text != self._text or now > self._asked + _ALIVE:
            self._asked, self._text = now, text
            self._is_running = bool(text) and self._home.is_in_use()
        status = {**(json.loads(text) if text else {}), "running": self._is_running}
        if status.get("private") and not self._tells_key:
            status["invite"] = ""
        return status


# ---- where


@contextlib.contextmanager
def _listening(host: str, port: int | None) -> Iterator[socket.socket]:
    """A socket that listens; without a port 4080, or any free one when that is taken."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        fix = "leave out --host for this machine alone, or --host 0.0.0.0 for every address of it"
        raise UsageError(f"--host {host} makes no sense", why="it is not an IP address", fix=fix) from error
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    for number in (PORT, 0) if port is None else (port,):
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((str(address), number))
                listener.listen(128)
            except OSError as error:
                if port is None and number:
                    continue
                raise _refused(host, number, error) from error
            yield listener
            return


def _refused(host: str, port: int, error: OSError) -> NetworkError:
    what, fix = f"cannot listen on {host}, port {port}", "take any free port: swarm-node dash --port 0"
    if error.errno == errno.EADDRNOTAVAIL:
        what, fix = f"this machine has no address {host}", "leave out --host to be seen by this machine alone"
    elif error.errno == errno.EADDRINUSE:
        what = f"port {port} is in use"
    return NetworkError(what, why=error.strerror or str(error), fix=fix)


def _url(address: str, port: int, token: str) -> str:
    """What to open in a browser: an address that others can dial where it is for them."""
    if ipaddress.ip_address(address).is_unspecified:
        address = _outward(":" in address)
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


def _outward(is_v6: bool) -> str:
    """The address by which this machine would speak to others; nothing is sent to find out."""
    family, far = (socket.AF_INET6, "2001:db8::1") if is_v6 else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
            return probe.getsockname()[0]
        except OSError:
            return "::1" if is_v6 else "127.0.0.1"
