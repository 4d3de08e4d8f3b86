"""Blobs: programs by digest, from any connected peer, resumed at the next one, verified. trio side."""

from __future__ import annotations

import random

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.peer.id import ID

from ..protocols import canonical
from ..protocols.errors import InvalidData, NetworkError
from ..protocols.task import MAX_PROGRAM
from . import streams
from .gossip import Gossip
from .host import Host
from .ledger import Ledger
from .types import Timing

log = structlog.get_logger()

PROTOCOL = "/swarm-node/blob/1"
MAX_BLOB = MAX_PROGRAM
_ANSWERS_AT_ONCE = 8


class Blobs:
    """Fetches and serves content-addressed bytes of the ledger."""

    def __init__(self, host: Host, ledger: Ledger, gossip: Gossip, timing: Timing) -> None:
        self._host, self._ledger, self._gossip, self._timing = host, ledger, gossip, timing
        self._answering = 0
        self._failed: dict[ID, int] = {}  # answers of connected peers that broke off, or never came, one after another

    async def fetch(self, digest: bytes) -> bytes:
        """The bytes with this digest; NetworkError when no connected peer can give them."""
        local = await trio.to_thread.run_sync(self._ledger.get_blob, digest)
        if local is not None:
            return local
        peers = list(self._host.connected())
        self._failed = {peer: self._failed[peer] for peer in peers if peer in self._failed}
        random.shuffle(peers)
        peers.sort(key=lambda peer: self._failed.get(peer, 0))  # a silent one costs a deadline, each time
        got, givers = bytearray(), list[ID]()
        for peer in peers:
            try:
                whole = await self._fetch_rest(peer, digest, got)
            except Exception as error:
                log.debug("blob", peer=peer.to_base58(), error=f"{type(error).__name__}: {str(error)[:200]}")
                self._failed[peer] = self._failed.get(peer, 0) + 1
                if got and peer not in givers:
                    givers.append(peer)  # what came before the stream broke is kept; the next peer gives the rest
                continue
            if whole and canonical.digest(bytes(got)) != digest:
                self._failed[peer] = self._failed.get(peer, 0) + 1
                if not givers:
                    self._gossip.offence(peer, "blob does not match its digest")
                got, givers = bytearray(), []  # with several givers it is unknown who lied: start over
                continue
            self._failed.pop(peer, None)
            if whole:
                return bytes(got)
        raise NetworkError(
            f"no connected peer has the program {digest.hex()[:16]}",
            why=f"{len(peers)} were asked" if peers else "no peer is connected",
        )

    async def _fetch_rest(self, peer: ID, digest: bytes, got: bytearray) -> bool:
        """Append what is missing to `got`; False when `peer` does not have the blob."""
        question: dict[str, object] = {"digest": digest, "offset": len(got)}
        return await streams.ask(self._host.libp2p, peer, PROTOCOL, question, got, MAX_BLOB, self._timing.stream)

    async def answer(self, stream: INetStream) -> None:
        """Stream handler: send a blob from an offset on; size -1 when it is not here."""
        if self._answering >= _ANSWERS_AT_ONCE or self._gossip.is_banned(stream.muxed_conn.peer_id):
            await stream.reset()
            return
        self._answering += 1
        try:
            deadline = self._timing.stream
            question = canonical.decode(await streams.read_frame(stream, streams.SMALL, deadline), streams.SMALL)
            digest, offset = _parse_question(question)
            data = await trio.to_thread.run_sync(self._ledger.get_blob, digest)
            await streams.answer(stream, data if data is None or len(data) <= MAX_BLOB else None, deadline, offset)
        finally:
            self._answering -= 1


def _parse_question(value: object) -> tuple[bytes, int]:
    if isinstance(value, dict) and set(value) == {"digest", "offset"}:
        digest, offset = value["digest"], value["offset"]
        if isinstance(digest, bytes) and isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0:
            return digest, offset
    raise InvalidData("not a blob question")
