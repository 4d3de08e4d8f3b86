"""What a node sends and receives: counted, and kept below a cap. trio side."""

from __future__ import annotations

import trio
from libp2p.io.trio import TrioTCPStream

from .counts import Counts

_SMALL = 1024  # bytes: what keeps connections alive, and opens and closes streams, does not wait
_AT_ONCE = 0.5  # seconds' worth after a pause


class Traffic:
    """Counts every byte over TCP. What is sent in bulk, and what this node asked for, waits for its turn."""

    def __init__(self, counts: Counts, per_second: float | None = None) -> None:
        """`per_second`: bytes, each way; None: no cap."""
        self.counts = counts
        self._per_second = per_second
        self._out = self._in = 0.0  # when what was let through is through, at the cap

    async def may_send(self, size: int) -> None:
        """Wait until `size` more bytes may go out."""
        if self._per_second is not None:
            self._out = max(self._out, trio.current_time() - _AT_ONCE) + size / self._per_second
            if size > _SMALL:
                await trio.sleep_until(self._out)

    async def got(self, size: int) -> None:
        """Wait until `size` bytes that came in would have, at the cap; who waits asks for no more."""
        if self._per_second is not None:
            self._in = max(self._in, trio.current_time() - _AT_ONCE) + size / self._per_second
            await trio.sleep_until(self._in)


_current: trio.lowlevel.RunVar[Traffic] = trio.lowlevel.RunVar("traffic", Traffic(Counts()))


def use(traffic: Traffic) -> None:
    """Of this thread's network from now on."""
    _current.set(traffic)


def current() -> Traffic:
    """Of this thread's network."""
    return _current.get()


_read, _write = TrioTCPStream.read, TrioTCPStream.write


async def _counted_read(self: TrioTCPStream, n: int | None = None) -> bytes:
    data = await _read(self, n)
    current().counts.bytes_in += len(data)
    return data


async def _counted_write(self: TrioTCPStream, data: bytes) -> None:
    current().counts.bytes_out += len(data)
    await _write(self, data)


TrioTCPStream.read = _counted_read  # type: ignore[method-assign]
TrioTCPStream.write = _counted_write  # type: ignore[method-assign]
