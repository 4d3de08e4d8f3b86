"""A swarm's own text by its digest: from several connected peers at once, checked piece by piece, and resumed after a
kill from what is on the disk. trio side."""

from __future__ import annotations

import os
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.peer.id import ID

from ..protocols import canonical
from ..protocols.errors import InvalidData, NetworkError, first_of, unwritable
from . import streams
from .gossip import Gossip
from .host import Host
from .types import Timing

log = structlog.get_logger()

PROTOCOL = "/swarm-node/corpus/1"
PIECE = 1 << 20
MAX_BYTES = 2 << 30  # of all slices together
_MAX_SLICES = 8
_DIGEST = 32
_TABLE = 128 << 10  # bytes of a table; one of 2 GiB has 64 KiB of digests
_NAME = re.compile("[a-z]{1,16}")
_GIVERS = 6  # asked at once
_ANSWERS = 8  # at once
_FROM_ONE = 2  # of them
_PIECE_SECONDS = 120.0
_NO_ROOM = "free some space there, or choose another home: --home DIR"


@dataclass(frozen=True)
class _Slice:
    name: str
    size: int
    digest: bytes
    pieces: tuple[bytes, ...]  # digest of each PIECE bytes

    def length(self, index: int) -> int:
        return min(PIECE, self.size - index * PIECE)


class Corpora:
    """Gives the text that this node shares, and fetches that of others."""

    def __init__(self, host: Host, gossip: Gossip, timing: Timing, shared: Mapping[str, Path]) -> None:
        """`shared`: the slices of a text by name; empty: none is given."""
        self._host, self._gossip, self._timing = host, gossip, timing
        self._shared = dict(shared)
        self._table = b""  # made when it is first asked for: it takes a second per GiB
        self._corpus = b""
        self._making = trio.Lock()
        self._answering: Counter[ID] = Counter()

    # ---- giving

    async def answer(self, stream: INetStream) -> None:
        """Stream handler: the table of the shared text, or one piece of it; size -1 when it is not here."""
        peer = stream.muxed_conn.peer_id
        busy = self._answering.total() >= _ANSWERS or self._answering[peer] >= _FROM_ONE
        if busy or self._gossip.is_banned(peer):
            await stream.reset()
            return
        self._answering[peer] += 1
        try:
            deadline = self._timing.stream
            asked = canonical.decode(await streams.read_frame(stream, streams.SMALL, deadline), streams.SMALL)
            await streams.answer(stream, await self._asked_for(asked), _PIECE_SECONDS)
        finally:
            self._answering[peer] -= 1
            if not self._answering[peer]:
                del self._answering[peer]

    async def _asked_for(self, asked: object) -> bytes | None:
        if not isinstance(asked, dict) or set(asked) != {"corpus", "slice", "piece"}:
            raise InvalidData("not a question for a text")
        corpus, name, piece = asked["corpus"], asked["slice"], asked["piece"]
        if not isinstance(name, str) or not isinstance(piece, int) or isinstance(piece, bool) or piece < 0:
            raise InvalidData("not a question for a text")
        if not self._shared:
            return None
        async with self._making:
            if not self._table:
                self._corpus, self._table = await trio.to_thread.run_sync(_table_of, self._shared)
        if corpus != self._corpus:
            return None
        if not name:
            return self._table
        path = self._shared.get(name)
        return await trio.to_thread.run_sync(_read_piece, path, piece) if path is not None else None

    # ---- fetching

    async def fetch(self, corpus: bytes, folder: Path, on_progress: Callable[[int, int], None]) -> dict[str, Path]:
        """The slices of the text with this digest, as files in `folder`, where an earlier attempt's pieces are used.
        `on_progress` hears bytes that are here, and of how many. NetworkError when no connected peer gives it whole;
        MachineError when it cannot be written."""
        tables = await self._tables(corpus)
        if not tables:
            raise NetworkError(
                f"no connected peer gives the text {corpus.hex()[:8]}",
                why=f"{len(self._host.connected())} were asked; who has it starts its node with --share-corpus",
                fix="ask for the text itself, and add --corpus PATH",
            )
        failed = NetworkError("what peers gave is not the text", why="its digest is another one")
        for slices, givers in sorted(tables.items(), key=lambda item: -len(item[1])):
            try:
                if await self._gather(corpus, slices, givers, folder, on_progress):
                    return {one.name: folder / one.name for one in slices}
            except NetworkError as error:  # others may tell of other pieces, and give them
                failed = error
                continue
            for peer in givers:  # pieces fit their table, the whole does not: the table was made up
                self._gossip.offence(peer, "the table of a text does not match its digest")
        raise failed

    async def _tables(self, corpus: bytes) -> dict[tuple[_Slice, ...], list[ID]]:
        """What peers say that the text consists of, with who says it."""
        found: dict[tuple[_Slice, ...], list[ID]] = {}

        async def ask(peer: ID) -> None:
            try:
                with trio.fail_after(self._timing.stream):
                    raw = await self._ask(peer, corpus, "", 0, _TABLE)
                if raw is not None:
                    found.setdefault(_parse_table(raw, corpus), []).append(peer)
            except Exception as error:
                log.debug("a text's table", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")

        async with trio.open_nursery() as nursery:
            for peer in self._host.connected():
                nursery.start_soon(ask, peer)
        return found

    async def _gather(
        self,
        corpus: bytes,
        slices: tuple[_Slice, ...],
        givers: list[ID],
        folder: Path,
        on_progress: Callable[[int, int], None],
    ) -> bool:
        """Fetch what is missing; whether the whole is what it should be. NetworkError when givers ran out."""
        missing = deque(await trio.to_thread.run_sync(_missing, slices, folder))
        total = sum(one.size for one in slices)
        here = total - sum(one.length(index) for one, index in missing)
        on_progress(here, total)
        random.shuffle(givers)
        left = list(givers)

        async def work(peer: ID) -> None:
            nonlocal here
            while missing:
                one, index = missing.popleft()
                try:
                    with trio.fail_after(_PIECE_SECONDS):
                        data = await self._ask(peer, corpus, one.name, index, PIECE)
                    if data is None:
                        raise NetworkError("it does not have it any more")
                    if canonical.digest(data) != one.pieces[index]:
                        self._gossip.offence(peer, "a piece of a text does not match its digest")
                        raise InvalidData("another piece")
                except Exception as error:
                    log.debug("a piece", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")
                    missing.append((one, index))
                    left.remove(peer)
                    return
                await trio.to_thread.run_sync(_write_piece, folder / one.name, index, data)
                here += len(data)
                on_progress(here, total)

        while missing and left:
            try:
                async with trio.open_nursery() as nursery:
                    for peer in left[:_GIVERS]:
                        nursery.start_soon(work, peer)
            except BaseExceptionGroup as group:
                raise first_of(group) from None
        if missing:
            raise NetworkError(
                "the text did not come whole",
                why=f"{here / 1e6:.1f} of {total / 1e6:.1f} MB are here, and nobody who has it is connected any more",
                fix="join again later: what is here is kept",
            )
        return await trio.to_thread.run_sync(_is_whole, slices, folder)

    async def _ask(self, peer: ID, corpus: bytes, name: str, piece: int, limit: int) -> bytes | None:
        """A peer's answer; None when it does not have it."""
        question: dict[str, object] = {"corpus": corpus, "slice": name, "piece": piece}
        got = bytearray()
        has = await streams.ask(self._host.libp2p, peer, PROTOCOL, question, got, limit, self._timing.stream)
        return bytes(got) if has else None


def _table_of(shared: Mapping[str, Path]) -> tuple[bytes, bytes]:
    """The digest of a text, and its table."""
    table: dict[str, object] = {}
    digests: dict[str, bytes] = {}
    for name, path in shared.items():
        digests[name], pieces = _digests(path)
        table[name] = {"size": path.stat().st_size, "digest": digests[name], "pieces": b"".join(pieces)}
    return canonical.digest(canonical.encode(digests)), canonical.encode(table)


def _parse_table(raw: bytes, corpus: bytes) -> tuple[_Slice, ...]:
    """InvalidData unless it is a table of this text; its pieces are the giver's word until the whole is there."""
    table = canonical.decode(raw, _TABLE)
    slices: list[_Slice] = []
    if not isinstance(table, dict) or len(table) > _MAX_SLICES:
        raise InvalidData("not a table")
    for name, entry in table.items():
        if not isinstance(entry, dict) or set(entry) != {"size", "digest", "pieces"} or not _NAME.fullmatch(name):
            raise InvalidData("not a table")
        size, its, pieces = entry["size"], entry["digest"], entry["pieces"]
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_BYTES:
            raise InvalidData("not a size")
        count = -(-size // PIECE)
        if not isinstance(its, bytes) or not isinstance(pieces, bytes) or len(pieces) != count * _DIGEST:
            raise InvalidData("not a table's digests")
        rows = tuple(pieces[at : at + _DIGEST] for at in range(0, len(pieces), _DIGEST))
        slices.append(_Slice(name, size, its, rows))
    if sum(one.size for one in slices) > MAX_BYTES:
        raise InvalidData("a text that is too large")
    if canonical.digest(canonical.encode({one.name: one.digest for one in slices})) != corpus:
        raise InvalidData("the table of another text")
    return tuple(slices)


def _missing(slices: tuple[_Slice, ...], folder: Path) -> list[tuple[_Slice, int]]:
    """What of them is not in the folder yet, in order; by looking at what is."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        out: list[tuple[_Slice, int]] = []
        for one in slices:
            with (folder / one.name).open("ab"):
                pass
            os.truncate(folder / one.name, one.size)
            out += [
                (one, index)
                for index, its in enumerate(one.pieces)
                if canonical.digest(_read_piece(folder / one.name, index)) != its
            ]
        return out
    except OSError as error:
        raise unwritable(folder, error, fix=_NO_ROOM) from error


def _is_whole(slices: tuple[_Slice, ...], folder: Path) -> bool:
    return all(_digests(folder / one.name)[0] == one.digest for one in slices)


def _digests(path: Path) -> tuple[bytes, list[bytes]]:
    """Of a file, and of each of its pieces."""
    whole, pieces = canonical.hasher(), list[bytes]()
    with path.open("rb") as file:
        while data := file.read(PIECE):
            whole.update(data)
            pieces.append(canonical.digest(data))
    return whole.digest(), pieces


def _read_piece(path: Path, index: int) -> bytes:
    with path.open("rb") as file:
        file.seek(index * PIECE)
        return file.read(PIECE)


def _write_piece(path: Path, index: int, data: bytes) -> None:
    try:
        with path.open("r+b") as file:
            file.seek(index * PIECE)
            file.write(data)
    except OSError as error:
        raise unwritable(path, error, fix=_NO_ROOM) from error
