"""Source text of programs by digest: the baseline, what this node stored, and what peers hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..protocols.diffs import EDITABLE, apply_diff
from ..protocols.errors import ConfigError, DiffRejected, InvalidData, NetworkError
from ..protocols.names import nickname
from ..protocols.records import Record, Result
from ..protocols.task import parse_program, program_bytes, program_digest
from ..swarm.index import StoredLineage
from ..swarm.ledger import Ledger

if TYPE_CHECKING:
    from ..swarm.net import Network


class Programs:
    """Programs are one editable file each; bytes live in the ledger as content-addressed blobs."""

    def __init__(self, ledger: Ledger, baseline: str, *, read_only: bool = False) -> None:
        """`read_only`: nothing is written to the ledger; what is stored is here while this object lives."""
        self._ledger = ledger
        self._read_only = read_only
        self._stored: dict[bytes, str] = {}  # of a ledger that is not written to
        self._baseline = baseline
        self._baseline_digest = program_digest({EDITABLE: baseline})

    def store(self, source: str) -> bytes:
        """Keep a program; its digest."""
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

    def rebuild(self, result: Result) -> str | None:
        """The program of a kept result, made from its parent and its diff where they are here, and stored."""
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
        self.store(source)
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

    async def obtain(self, result: Result, network: Network | None) -> str | None:
        """The program of a peer's kept result: from here, from its diff, or from a connected peer.

        Its parent comes too: with it the program can be rebuilt, and its change merged into others.
        """
        if result.parent is not None:
            await self.fetch(result.parent, network)
        source = await asyncio.to_thread(self.rebuild, result)
        return source if source is not None else await self.fetch(result.program, network)

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
            await asyncio.to_thread(self._ledger.put_blob, data)
        return source


def source_in(data: bytes) -> str | None:
    """The text in an encoded program; None when it is no program, as a task's specification is not."""
    try:
        return parse_program(data).get(EDITABLE)
    except InvalidData:
        return None
