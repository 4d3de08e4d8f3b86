"""Length-prefixed frames over a libp2p stream, each with a limit and a deadline. trio side."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from ..protocols.errors import InvalidData

_LENGTH = struct.Struct("!I")
_CHUNK = 65536


async def read_exactly(stream: INetStream, count: int) -> bytes:
    """`count` bytes; EOFError when the stream ends before."""
    out = bytearray()
    while len(out) < count:
        chunk = await stream.read(min(_CHUNK, count - len(out)))
        if not chunk:
            raise EOFError(f"stream ended after {len(out)} of {count} bytes")
        out += chunk
    return bytes(out)


async def read_frame(stream: INetStream, limit: int, deadline: float) -> bytes:
    """The next frame; InvalidData when it claims more than `limit` bytes, TooSlowError after `deadline` seconds."""
    with trio.fail_after(deadline):
        (length,) = _LENGTH.unpack(await read_exactly(stream, _LENGTH.size))
        if length > limit:
            raise InvalidData(f"a frame of {length} bytes where {limit} are allowed")
        return await read_exactly(stream, length)


async def write_frame(stream: INetStream, data: bytes, deadline: float) -> None:
    """Send one frame; TooSlowError when the peer does not take it within `deadline` seconds."""
    with trio.fail_after(deadline):
        await stream.write(_LENGTH.pack(len(data)) + data)


@contextlib.asynccontextmanager
async def open_stream(host: IHost, peer: ID, protocol: str, deadline: float) -> AsyncIterator[INetStream]:
    """A new stream to `peer`, closed at the end and reset on any error."""
    with trio.fail_after(deadline):
        stream = await host.new_stream(peer, [TProtocol(protocol)])
    try:
        yield stream
    except BaseException:
        with trio.move_on_after(1) as scope, contextlib.suppress(Exception):
            scope.shield = True
            await stream.reset()
        raise
    with trio.move_on_after(deadline), contextlib.suppress(Exception):
        await stream.close()
