"""Admission: who may connect, and who goes when there are too many. trio side."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Container
from typing import Any

import multiaddr
import structlog
import trio
from libp2p.abc import IMuxedConn
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID

log = structlog.get_logger()

_HANDSHAKES = 32  # at once per address; one takes some 30 ms
_HANDSHAKE_SECONDS = 10.0


class Door:
    """Takes inbound connections in place of libp2p's own handler.

    That one keeps the place of every connection until the node ends: after 250 visits in its life nobody gets in. And
    400 connections that say nothing keep everybody out for 10 s; here the oldest of one address makes room.
    """

    def __init__(self, swarm: Swarm, most: int) -> None:
        self._swarm, self._most = swarm, most
        self._shaking: dict[str, list[trio.CancelScope]] = {}
        swarm._handle_inbound_connection = self._enter  # type: ignore[method-assign]

    async def _enter(self, stream: Any, address: multiaddr.Multiaddr) -> None:
        """Serve one connection to its end: the listener closes the socket when this returns."""
        raw = RawConnection(stream, False)
        try:
            connection = await self._upgrade(raw, address, (stream.get_remote_address() or ("", 0))[0])
            if connection is not None:
                await self._closed(connection)
        except Exception as error:
            log.debug("an inbound connection failed", error=f"{type(error).__name__}: {str(error)[:200]}")
        finally:
            with trio.move_on_after(1) as scope, contextlib.suppress(Exception):
                scope.shield = True
                await raw.close()

    async def _upgrade(self, raw: RawConnection, address: multiaddr.Multiaddr, ip: str) -> IMuxedConn | None:
        """Shake hands; None when it took too long or had to make room for newer ones."""
        waiting = self._shaking.setdefault(ip, [])
        if len(waiting) >= _HANDSHAKES:
            waiting[0].cancel()
        with trio.move_on_after(_HANDSHAKE_SECONDS) as scope:
            waiting.append(scope)
            try:
                return await self._swarm.upgrade_inbound_raw_conn(raw, address)
            finally:
                waiting.remove(scope)
                if not waiting and self._shaking.get(ip) is waiting:
                    del self._shaking[ip]
        return None

    async def _closed(self, muxed: IMuxedConn) -> None:
        for connection in self._swarm.get_connections(muxed.peer_id):
            if connection.muxed_conn is muxed:  # type: ignore[attr-defined]
                await connection.event_closed.wait()  # type: ignore[attr-defined]

    def one_too_many(self, connected: Container[ID], useful: Container[ID]) -> ID | None:
        """Whom to disconnect so that others find room: anyone of those who have never brought anything, if there are
        any. An attacker has to work for the swarm to stay."""
        peers = [peer for peer in self._swarm.get_connections_map() if peer in connected]
        if len(peers) <= self._most:
            return None
        return random.choice([peer for peer in peers if peer not in useful] or peers)
