"""The border: the node's asyncio side on this side, libp2p's trio in a thread of its own on the other.

Nothing of trio leaves, nothing of asyncio enters. `import libp2p` takes 0.85 s and happens inside the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from ..protocols.errors import NetworkError, SwarmNodeError, first_of
from ..protocols.records import Hello, Lead, Notice, Record
from .ledger import Ledger
from .types import Limits, NetworkConfig, NetworkStatistics, Peer, Timing

if TYPE_CHECKING:
    import trio

    from .overlay import Overlay

__all__ = ["Limits", "Network", "NetworkConfig", "NetworkStatistics", "Peer", "Timing"]

log = structlog.get_logger()

_STOP_SECONDS = 3.0


class Network:
    """The swarm as the rest of the node sees it. All methods belong to the loop that called `start`.

    Callbacks run on that loop: `on_record` after a record is valid and in the ledger for the first time, `on_notice`
    for each fresh notice of somebody else, `on_peers` when a peer came or left. `crashed` resolves with the reason
    when the libp2p thread ended unasked; a new Network can then be started on the same ledger.
    """

    crashed: asyncio.Future[BaseException | None]

    def __init__(
        self,
        config: NetworkConfig,
        ledger: Ledger,
        *,
        on_record: Callable[[Record], None],
        on_notice: Callable[[Notice], None],
        on_peers: Callable[[], None],
    ) -> None:
        self._config, self._ledger = config, ledger
        self._on_record, self._on_notice, self._on_peers = on_record, on_notice, on_peers
        self._thread: threading.Thread | None = None
        self._overlay: Overlay | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._calls: set[asyncio.Future[Any]] = set()
        self._stopping = False

    # ---- this side: asyncio

    async def start(self) -> None:
        """Start the thread and listen; NetworkError when a port is taken or libp2p does not start."""
        self._loop = asyncio.get_running_loop()
        self.crashed = self._loop.create_future()
        self._ready = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="libp2p", daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def publish(self, record: Record) -> None:
        """Gossip a record of this node on the topics it belongs to."""
        await self._call("publish", record)

    async def announce(self, body: Hello | Lead) -> None:
        """Sign a notice and gossip it; the last hello is said again whenever a peer connects."""
        await self._call("announce", body)

    async def fetch(self, digest: bytes) -> bytes:
        """The program with this digest, verified; NetworkError when no connected peer has it."""
        return await self._call("fetch", digest)

    async def fetch_corpus(
        self, digest: bytes, folder: Path, on_progress: Callable[[int, int], None]
    ) -> dict[str, Path]:
        """The slices of the text with this digest as files in `folder`, verified; what is there of an earlier attempt
        is used. `on_progress` hears how many bytes are here, and of how many. NetworkError when no peer gives it."""
        heard = lambda here, total: self._tell(on_progress, here, total)  # noqa: E731
        return await self._call("fetch_corpus", digest, folder, heard)

    async def connect(self, address: str) -> bool:
        """Dial a multiaddr with /p2p/<peer id>; whether it is connected now. Lasting when it worked."""
        return await self._call("connect", address)

    async def suggest(self, author: bytes, addresses: tuple[str, ...]) -> None:
        """Somebody may be there: dialled a few times, while this node has few connections."""
        await self._call("suggest", author, addresses)

    async def synced(self, seconds: float) -> bool:
        """Wait until the history of one peer is here, at most `seconds`; whether it is.

        A node that restored a backup should wait before it writes: what it finds here may be its own lost tail.
        """
        return await self._call("synced", seconds)

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs at which others can dial this node, the most public first; empty when there is none."""
        return self._overlay.addresses if self._overlay else ()

    def peers(self) -> tuple[Peer, ...]:
        """Connected peers, the longest connected first."""
        return self._overlay.peers if self._overlay else ()

    def present(self, seconds: float) -> tuple[tuple[bytes, Hello], ...]:
        """Authors who said hello within the last `seconds`, connected to this node or not, with what they said."""
        return self._overlay.present(seconds) if self._overlay else ()

    def statistics(self) -> NetworkStatistics:
        """Counters since the start."""
        return self._overlay.counts.frozen() if self._overlay else NetworkStatistics()

    async def stop(self) -> None:
        """Leave politely within 3 seconds. Safe to call twice, and after a crash."""
        self._stopping = True
        thread = self._thread
        if thread is None:
            return
        for leave in (self._leave_politely, self._leave_now):
            if not self._ended.done():
                leave()
                await asyncio.wait([self._ended], timeout=_STOP_SECONDS / 2)
        if self._ended.done():
            thread.join(1.0)  # it has nothing left to do
            self._thread = None
        else:
            log.error("the network thread does not end; it is left behind")

    async def _call(self, method: str, *args: object) -> Any:
        """Run a coroutine method of the overlay on the trio thread; its result or its error."""
        token = self._token
        if token is None or self._ended.done() or self._stopping:
            raise NetworkError("the network is not running")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        try:
            token.run_sync_soon(self._begin, method, args, future)
        except RuntimeError as error:  # trio.RunFinishedError: it ended between the two lines
            raise NetworkError("the network is not running") from error
        return await future

    def _settle(self, future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _finish(self, error: BaseException | None) -> None:
        """The thread has ended."""
        for future in list(self._calls):
            self._settle(future, None, NetworkError("the network stopped"))
        if not self._ready.done():
            known = error if isinstance(error, SwarmNodeError) else None
            reason = f"{type(error).__name__}: {error}" if error else "it was told to stop"
            self._ready.set_exception(known or NetworkError("the network did not start", why=reason))
            self._ready.exception()  # seen by whoever awaits start(); nobody does after a cancellation
        elif not self._stopping and not self.crashed.done():
            self.crashed.set_result(error)
        self._ended.set_result(None)

    # ---- the other side: trio

    def _run(self) -> None:
        error: BaseException | None = None
        trace = ""
        try:
            import trio

            trio.run(self._main)
        except BaseException as caught:
            error = first_of(caught) if isinstance(caught, BaseExceptionGroup) else caught
            trace = traceback.format_exc()
        self._tell(self._finish, error)
        if trace:  # as text: rendering it with the locals of every frame took half a minute
            log.debug("the libp2p thread ended", error=repr(error), exception=trace)

    async def _main(self) -> None:
        import trio

        from .overlay import Listeners, Overlay

        listeners = Listeners(
            on_record=lambda record: self._tell(self._on_record, record),
            on_notice=lambda notice: self._tell(self._on_notice, notice),
            on_peers=lambda: self._tell(self._on_peers),
        )
        self._overlay = Overlay(self._config, self._ledger, listeners)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._token = trio.lowlevel.current_trio_token()
            if not self._stopping:
                await self._overlay.run(lambda: self._tell(self._settle, self._ready, None, None))
            nursery.cancel_scope.cancel()

    def _leave_politely(self) -> None:
        if self._token is not None and self._overlay is not None:
            with contextlib.suppress(RuntimeError):  # trio.RunFinishedError: it has ended already
                self._token.run_sync_soon(self._overlay.stop)

    def _leave_now(self) -> None:
        if self._token is not None and self._nursery is not None:
            with contextlib.suppress(RuntimeError):
                self._token.run_sync_soon(self._nursery.cancel_scope.cancel)

    def _begin(self, method: str, args: tuple[object, ...], future: asyncio.Future[Any]) -> None:
        nursery = self._nursery
        if nursery is not None and self._overlay is not None and not nursery.cancel_scope.cancel_called:
            with contextlib.suppress(RuntimeError):  # the nursery has closed: _finish settles the future
                nursery.start_soon(self._do, getattr(self._overlay, method), args, future)

    async def _do(
        self, work: Callable[..., Awaitable[object]], args: tuple[object, ...], future: asyncio.Future[Any]
    ) -> None:
        try:
            result, error = await work(*args), None
        except SwarmNodeError as known:
            result, error = None, known.with_traceback(None)
        except Exception as unknown:
            result, error = (
                None,
                NetworkError("the network could not do it", why=f"{type(unknown).__name__}: {unknown}"),
            )
        self._tell(self._settle, future, result, error)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        """Run `callback` on the asyncio loop soon."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(callback, *args)
