"""Length-prefixed frames over a libp2p stream, each with a limit and a deadline; answers of a told size. trio side."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from ..protocols import canonical
from ..protocols.errors import InvalidData
from . import traffic

SMALL = 256  # bytes of a question, and of the head of an answer
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


async def ask(
    host: IHost, peer: ID, protocol: str, question: dict[str, object], got: bytearray, limit: int, deadline: float
) -> bool:
    """Append to `got` what of a peer's answer is not in it yet: what came before a stream broke stays. False when the
    peer does not have it; InvalidData when it is larger than `limit`; `deadline`: seconds for every step."""
    async with open_stream(host, peer, protocol, deadline) as stream:
        await write_frame(stream, canonical.encode(question), deadline)
        head = canonical.decode(await read_frame(stream, SMALL, deadline), SMALL)
        size = head.get("size") if isinstance(head, dict) else None
        if not isinstance(size, int) or isinstance(size, bool) or size > limit:
            raise InvalidData("not the size of an answer")
        while len(got) < size:
            with trio.fail_after(deadline):
                chunk = await read_exactly(stream, min(_CHUNK, size - len(got)))
            got += chunk
            await traffic.current().got(len(chunk))
        return size >= 0


async def answer(stream: INetStream, data: bytes | None, deadline: float, start: int = 0) -> None:
    """What `ask` understands: how much there is (-1: nothing), then all from `start` on."""
    await write_frame(stream, canonical.encode({"size": -1 if data is None else len(data)}), deadline)
    for at in range(start, len(data or b""), _CHUNK):
        with trio.fail_after(deadline):
            await stream.write((data or b"")[at : at + _CHUNK])
    await stream.close()
