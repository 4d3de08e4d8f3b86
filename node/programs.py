"""Source text of programs by digest: the baseline, what this node stored, and what peers hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ..protocols.diffs import EDITABLE, apply_diff
from ..protocols.errors import ConfigError, DiffRejected, InvalidData, NetworkError
from ..protocols.names import nickname
from ..protocols.records import Record, Result
from ..protocols.task import MAX_PROGRAM, parse_program, program_bytes, program_digest
from ..swarm.index import StoredLineage
from ..swarm.ledger import Ledger

if TYPE_CHECKING:
    from ..swarm.net import Network


_LEFT = 16  # when room is made, one part of so many is free then: whom to drop is found out seldom


class Programs:
    """Programs are one editable file each; bytes live in the ledger as content-addressed blobs.

    Own ones stay. Others', which cost their authors next to nothing, have a place of bounded size: peers have them
    still, and what is dropped is got again when it is needed.
    """

    def __init__(
        self,
        ledger: Ledger,
        baseline: str,
        *,
        read_only: bool = False,
        most: int = 1 << 30,
        needed: Callable[[], Collection[bytes]] = frozenset,
    ) -> None:
        """`read_only`: nothing is written to the ledger; what is stored is here while this object lives. `most`: bytes
        of others' programs. `needed`: those of them that are dropped last."""
        self._ledger = ledger
        self._most, self._needed = most, needed
        self._making_room = threading.Lock()
        self._read_only = read_only
        self._stored: dict[bytes, str] = {}  # of a ledger that is not written to
        self._baseline = baseline
        self._baseline_digest = program_digest({EDITABLE: baseline})

    def store(self, source: str) -> bytes:
        """Keep an own program; its digest."""
        if self._read_only:
            name = program_digest({EDITABLE: source})
            self._stored[name] = source
            return name
        return self._ledger.put_blob(program_bytes({EDITABLE: source}))

    def get(self, digest: bytes) -> str | None:
        """The program's text when this machine has it. Records of peers name what they like: no program, no text."""
        if digest == self._baseline_digest:
            return self._baseline
        if digest in self._stored:
            return self._stored[digest]
        data = self._ledger.get_blob(digest)
        return source_in(data) if data is not None else None

    def has(self, digest: bytes) -> bool:
        """Whether this machine has the program."""
        return digest == self._baseline_digest or digest in self._stored or self._ledger.has_blob(digest)

    @property
    def has_room(self) -> bool:
        """Whether one more of others' programs fits without one being dropped for it."""
        return self._ledger.borrowed_bytes() + MAX_PROGRAM <= self._most

    def keep(self, result: Result) -> None:
        """What an own result is about is never dropped."""
        named = (result.program, result.parent, result.anchor)
        self._ledger.keep_blobs([one for one in named if one is not None])

    def _borrow(self, data: bytes) -> None:
        """Store a program of somebody else's, and drop the oldest ones when there are too many."""
        if len(data) > self._most:
            return
        with self._making_room:
            over = self._ledger.borrowed_bytes() + len(data) - self._most
            if over > 0:
                self._make_room(over + self._most // _LEFT)
            self._ledger.borrow_blob(data)

    def _make_room(self, size: int) -> None:
        needed, dropped = self._needed(), list[bytes]()
        for name, its in sorted(self._ledger.borrowed(), key=lambda one: one[0] in needed):
            if size <= 0:
                break
            size -= its
            dropped.append(name)
        self._ledger.drop_blobs(dropped)

    def rebuild(self, result: Result) -> str | None:
        """The program of a kept result, made from its parent and its diff where they are here, and stored among those
        of others."""
        known = self.get(result.program)
        if known is not None or result.parent is None or not result.diff:
            return known
        parent = self.get(result.parent)
        try:
            source = apply_diff(parent, result.diff) if parent is not None else None
        except DiffRejected:
            return None
        if source is None or program_digest({EDITABLE: source}) != result.program:
            return None
        if self._read_only:
            self.store(source)
        else:
            self._borrow(program_bytes({EDITABLE: source}))
        return source

    def made_anew(self, record: Record) -> str:
        """The program of a result: as it is stored, else made anew from the wins that led to it, as for a node that
        does not research and stores none. ConfigError names what is missing."""
        body = record.body
        assert isinstance(body, Result)
        source = self.get(body.program)
        if source is not None:
            return source
        what = f"the program of {record.id.hex()[:8]} is not here"
        if body.diff is None:
            why = "peers send what was kept or is undecided; of what was discarded, only its author has it"
            raise ConfigError(what, why=why, fix=f"ask {nickname(record.author)}, or take a win: swarm-node board")
        line = [record, *StoredLineage(self._ledger.index).ancestors(record)]
        start = next((number for number, one in enumerate(line) if self._has_parent(one)), None)
        fix = "swarm-node join, and try again: peers send the records and programs that this home lacks"
        if start is None:
            first = line[-1]
            assert isinstance(first.body, Result)
            lost = first.body.parent.hex()[:8] if first.body.parent else "?"
            of = f"{first.id.hex()[:8]} by {nickname(first.author)}"
            raise ConfigError(what, why=f"it goes back to {of}, whose parent, program {lost}, is missing", fix=fix)
        for one in reversed(line[: start + 1]):
            assert isinstance(one.body, Result)
            source = self.rebuild(one.body)
            if source is None:
                of = f"{one.id.hex()[:8]} by {nickname(one.author)}"
                raise ConfigError(what, why=f"the diff of {of} does not make the program that it names", fix=fix)
        assert source is not None
        return source

    def _has_parent(self, record: Record) -> bool:
        assert isinstance(record.body, Result)
        return record.body.parent is not None and self.get(record.body.parent) is not None

    async def obtain(self, result: Result, network: Network | None, *, own: bool = False) -> str | None:
        """The program of a kept result: from here, from its diff, or from a connected peer. `own`: it is this node's,
        and stays.

        Its parent comes too: with it the program can be rebuilt, and its change merged into others.
        """
        if result.parent is not None:
            await self.fetch(result.parent, network)
        source = await asyncio.to_thread(self.rebuild, result)
        if source is None:
            source = await self.fetch(result.program, network)
        if own:
            await asyncio.to_thread(self.keep, result)
        return source

    async def fetch(self, digest: bytes, network: Network | None) -> str | None:
        """The program's text from here or from a connected peer; None when nobody has it now."""
        source = await asyncio.to_thread(self.get, digest)
        if source is not None or network is None:
            return source
        try:
            data = await network.fetch(digest)
        except NetworkError:
            return None
        source = source_in(data)  # the digest was checked on arrival
        if source is not None:
            await asyncio.to_thread(self._borrow, data)
        return source


def source_in(data: bytes) -> str | None:
    """The text in an encoded program; None when it is no program, as a task's specification is not."""
    try:
        return parse_program(data).get(EDITABLE)
    except InvalidData:
        return None
