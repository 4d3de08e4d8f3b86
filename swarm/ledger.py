"""The ledger: one SQLite file with every record this node made or accepted, and what it needs to resume.

Append-only for records. What this node made is durable before anybody hears of it: one transaction with
synchronous=FULL, so that `kill -9` or a power cut loses no acknowledged record and no sequence number is used twice.
What peers said survives `kill -9` too; a power cut may cost its last seconds, which sync brings again. Writers share
one connection behind a lock; other processes read the same file (WAL) at any time.
"""

from __future__ import annotations

import contextlib
import enum
import random
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..protocols.canonical import digest
from ..protocols.errors import InvalidData, UsageError
from ..protocols.records import Body, Kind, Record, parse_record, sign_record
from ..protocols.signing import public_key
from .index import Index
from .schema import add_facts, check_pages, connect, damaged, recalled, translated

_FAR_FUTURE_MS = 2**53  # stored records were checked when they came; the clock may have moved since
_PEERS = 512  # addresses of peers that are remembered
# Two addresses of each peer, so that nobody takes the place of others by telling many: where it was reached last, and
# the last one told, as networks change. Whoever was reached comes before those who only told where they listen.
_REMEMBERED = """
    WITH known AS (SELECT *, SUBSTR(address, INSTR(address, '/p2p/')) AS peer FROM peers), placed AS (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY peer ORDER BY reached_ms DESC, seen_ms DESC) AS place FROM known
    ), ranked AS (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY peer ORDER BY place > 1, seen_ms DESC) AS rank FROM placed
    )
    SELECT address FROM ranked WHERE rank <= 2 ORDER BY
        MAX(reached_ms) OVER (PARTITION BY peer) DESC, MAX(seen_ms) OVER (PARTITION BY peer) DESC, peer, rank LIMIT ?
"""


class Added(enum.Enum):
    """What became of a record that was offered to the ledger."""

    NEW = "new"
    KNOWN = "known"
    EQUIVOCATION = "equivocation"  # another record has this author, epoch and seq: both are kept as proof
    DISCONTINUOUS = "discontinuous"  # its neighbour in the log names another predecessor
    QUARANTINED = "quarantined"  # its author equivocated before


@dataclass(frozen=True)
class Head:
    """How far an author's log is known without a gap in one epoch."""

    epoch: int
    seq: int
    id: bytes


@dataclass(frozen=True)
class Entry:
    """A record with the order and time in which this node learned of it."""

    row: int
    received_ms: int
    record: Record


class Ledger:
    """Thread-safe; blocks for milliseconds. See the module docstring for what it promises."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        self._lock = threading.RLock()
        self._heads: dict[tuple[bytes, int], Head] | None = None  # None: to be read again
        self._heads_version = -1
        self.index = Index(self._rows, path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Ledger:
        """Open or create the ledger at `path`.

        ConfigError: the file is not a ledger, is damaged, or was written by a newer version.
        MachineError: the disk is full or read-only. A reader needs no right to write, not even to the folder.
        """
        return cls(connect(path, read_only), path)

    def check(self) -> int:
        """Look at every page and every record, as a node does when it starts; ConfigError when one is damaged.

        How many records there are. Costs a second for 10,000 of them.
        """
        with self._lock, translated(self._path):
            check_pages(self._db)
        return sum(1 for _ in self.all_entries())

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._lock:
            self._db.close()

    # ---- records

    def append(self, seed: bytes, body: Body, *, now_ms: int) -> Record:
        """Sign `body` as the next record of the log of `seed`'s key and store it durably."""
        return self.append_all(seed, [body], now_ms=now_ms)[0]

    def append_all(self, seed: bytes, bodies: Sequence[Body], *, now_ms: int, done: str | None = None) -> list[Record]:
        """Sign and store several records, all or none, and note in the journal that experiment `done` is over.

        A log that starts here starts in an epoch of its own, the time in seconds: a ledger that was lost, and whose
        records peers still have, is not contradicted by the one that follows it.
        """
        author = public_key(seed)
        records: list[Record] = []
        with self._transaction() as db:
            epoch = self._own_epoch(author)
            if epoch is None:
                epoch = now_ms // 1000
            last = db.execute(
                "SELECT seq, id FROM records WHERE author = ? AND epoch = ? ORDER BY seq DESC LIMIT 1", (author, epoch)
            ).fetchone()
            seq, prev = last or (0, None)
            for body in bodies:
                seq += 1
                record = sign_record(seed, epoch=epoch, seq=seq, prev=prev, time=now_ms, body=body)
                self._insert(record, now_ms)
                records.append(record)
                prev = record.id
            if done is not None:
                _note(db, done, "done", records[0].id.hex())
        return records

    def add(self, record: Record, *, received_ms: int, wire: bytes | None = None) -> Added:
        """Store somebody's record, already validated. Out of order is fine: gaps heal by sync. wire: its bytes, where
        they are at hand."""
        with self._transaction(durable=False) as db:
            same_place = db.execute(
                "SELECT id FROM records WHERE author = ? AND epoch = ? AND seq = ?",
                (record.author, record.epoch, record.seq),
            ).fetchone()
            if same_place and same_place[0] == record.id:
                return Added.KNOWN
            if self.quarantined(record.author):
                return Added.QUARANTINED
            if same_place:
                db.execute(
                    "INSERT OR IGNORE INTO equivocations VALUES (?, ?, ?, ?, ?)",
                    (record.author, same_place[0], record.id, record.to_bytes(), received_ms),
                )
                return Added.EQUIVOCATION
            if not self._continuous(record):
                return Added.DISCONTINUOUS
            self._insert(record, received_ms, wire)
            return Added.NEW

    def new_epoch(self, author: bytes) -> int:
        """Continue the own log in a fresh epoch, because its old tail is known elsewhere and lost here."""
        with self._transaction() as db:
            epoch = (self._own_epoch(author) or 0) + 1
            db.execute(
                "INSERT OR REPLACE INTO journal (experiment, step, text) VALUES ('node', 'epoch', ?)", (str(epoch),)
            )
        return epoch

    def heads(self) -> dict[bytes, tuple[Head, ...]]:
        """For every author and epoch whose first record is here, the last one up to which there is no gap."""
        with self._lock, translated(self._path):
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if self._heads is None or version != self._heads_version:  # another connection may have written
                self._heads, self._heads_version = self._read_heads(), version
            out = defaultdict[bytes, list[Head]](list)
            for (author, _), head in sorted(self._heads.items()):
                out[author].append(head)
            return {author: tuple(heads) for author, heads in out.items()}

    def after(self, author: bytes, epoch: int, seq: int, limit: int) -> list[bytes]:
        """Wire bytes of the author's records in `epoch` after `seq`, in order, at most `limit`."""
        query = "SELECT wire FROM records WHERE author = ? AND epoch = ? AND seq > ? ORDER BY seq LIMIT ?"
        return [row[0] for row in self._rows(query, (author, epoch, seq, limit))]

    def get(self, id_: bytes) -> Record | None:
        """The record with this id."""
        rows = self._rows("SELECT wire FROM records WHERE id = ?", (id_,))
        return self._parse(rows[0][0]) if rows else None

    def recall(self, id_: bytes) -> Record | None:
        """As `get`, but without runs and costs, and without checking again what was checked when it came."""
        rows = self._rows("SELECT wire FROM records WHERE id = ?", (id_,))
        return recalled(self._path, id_, rows[0][0]) if rows else None

    def find(self, prefix: str) -> Record:
        """The one record whose id starts with this hex; UsageError when there is none or more than one."""
        text = prefix.lower()
        if len(text) < 4 or len(text) > 64 or any(char not in "0123456789abcdef" for char in text):
            raise UsageError(
                f"{prefix!r} is not a record id", why="an id is at least 4 hex digits", fix="swarm-node feed"
            )
        low, high = bytes.fromhex(text.ljust(64, "0")), bytes.fromhex(text.ljust(64, "f"))
        rows = self._rows("SELECT wire FROM records WHERE id BETWEEN ? AND ? LIMIT 3", (low, high))
        if not rows:
            raise UsageError(
                f"no record starts with {text}", why="this node has not heard of it", fix="swarm-node feed"
            )
        if len(rows) > 1:
            ids = ", ".join(self._parse(row[0]).id.hex()[:16] for row in rows)
            raise UsageError(f"several records start with {text}", why=ids, fix="give more digits")
        return self._parse(rows[0][0])

    def entries(self, after_row: int = 0, limit: int = 1000, kind: Kind | None = None) -> list[Entry]:
        """Records (of one kind, if given) in the order this node learned of them, after row `after_row`."""
        where = "row > ?" if kind is None else "row > ? AND kind = ?"
        query = f"SELECT row, received_ms, wire FROM records WHERE {where} ORDER BY row LIMIT ?"
        rows = self._rows(query, (after_row, *((kind,) if kind else ()), limit))
        return [Entry(row, received_ms, self._parse(wire)) for row, received_ms, wire in rows]

    def all_entries(self, kind: Kind | None = None) -> Iterator[Entry]:
        """Every entry (of one kind, if given), page by page, in the order this node learned of them."""
        row = 0
        while page := self.entries(row, kind=kind):
            yield from page
            row = page[-1].row

    def all_records(self, kind: Kind | None = None) -> Iterator[Record]:
        """Every record (of one kind, if given) in the order this node learned of them."""
        return (entry.record for entry in self.all_entries(kind))

    def recalled(self, after_row: int, limit: int = 1000) -> list[Entry]:
        """As `entries`, but without runs and costs, and without checking again what was checked when it came."""
        query = "SELECT row, received_ms, id, wire FROM records WHERE row > ? ORDER BY row LIMIT ?"
        rows = self._rows(query, (after_row, limit))
        return [Entry(row, received_ms, recalled(self._path, name, wire)) for row, received_ms, name, wire in rows]

    def last_row(self) -> int:
        """The row of the newest record; 0 when there is none."""
        return self._rows("SELECT MAX(row) FROM records")[0][0] or 0

    def author(self, id_: bytes) -> bytes | None:
        """Whose record this is."""
        rows = self._rows("SELECT author FROM records WHERE id = ?", (id_,))
        return rows[0][0] if rows else None

    def count(self) -> int:
        """How many records there are."""
        return self._rows("SELECT COUNT(*) FROM records")[0][0]

    def data_version(self) -> int:
        """A number that changes when another connection wrote: cheap to ask for."""
        return self._rows("PRAGMA data_version")[0][0]

    def quarantined(self, author: bytes) -> bool:
        """Whether this author signed two records for one place in its log."""
        return bool(self._rows("SELECT 1 FROM equivocations WHERE author = ? LIMIT 1", (author,)))

    def proofs(self, known: set[bytes], limit: int) -> list[tuple[bytes, bytes]]:
        """Wire bytes of two records for one place, of at most `limit` authors who signed such and are not `known`.

        Which of them is left to chance: who asks cannot name all that it knows, and always the same would keep the
        others from it.
        """
        authors = self._rows("SELECT author, MIN(rowid) FROM equivocations GROUP BY author")  # from its index alone
        unknown = [row for author, row in authors if author not in known]
        query = """
            SELECT r.wire, e.wire FROM equivocations AS e JOIN records AS r ON r.id = e.first WHERE e.rowid = ?
        """
        chosen = random.sample(unknown, min(limit, len(unknown)))
        return [(first, second) for row in chosen for first, second in self._rows(query, (row,))]

    def equivocators(self, limit: int) -> list[bytes]:
        """Authors who signed two records for one place, the latest found first."""
        query = "SELECT author FROM equivocations GROUP BY author ORDER BY MAX(rowid) DESC LIMIT ?"
        return [row[0] for row in self._rows(query, (limit,))]

    def stored_by_author(self) -> dict[bytes, tuple[int, int, int]]:
        """For each author: when the first record came (Unix ms), how many there are, and their bytes."""
        query = "SELECT author, MIN(received_ms), COUNT(*), SUM(LENGTH(wire)) FROM records GROUP BY author"
        return {author: (since, count, size) for author, since, count, size in self._rows(query)}

    def epochs_by_author(self) -> dict[bytes, set[int]]:
        """For each author the epochs of which there are records, also those whose beginning is not here."""
        out: dict[bytes, set[int]] = {}
        for author, epoch in self._rows("SELECT DISTINCT author, epoch FROM records"):
            out.setdefault(author, set()).add(epoch)
        return out

    # ---- blobs and peers

    def put_blob(self, data: bytes) -> bytes:
        """Store content for good; its 32-byte address."""
        name = digest(data)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (name, data))
            db.execute("DELETE FROM borrowed WHERE digest = ?", (name,))
        return name

    def borrow_blob(self, data: bytes) -> bytes:
        """Store content that came from others, who have it still: it may be dropped. What is here for good stays so."""
        name = digest(data)
        with self._transaction(durable=False) as db:
            if db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (name, data)).rowcount:
                db.execute("INSERT INTO borrowed (digest, size) VALUES (?, ?)", (name, len(data)))
        return name

    def borrowed(self) -> list[tuple[bytes, int]]:
        """Addresses and sizes of what was borrowed, the oldest first."""
        return self._rows("SELECT digest, size FROM borrowed ORDER BY row")

    def borrowed_bytes(self) -> int:
        """How much of it there is."""
        return self._rows("SELECT COALESCE(SUM(size), 0) FROM borrowed")[0][0]

    def keep_blobs(self, names: Sequence[bytes]) -> None:
        """Those of these that were borrowed stay for good."""
        if any(self._rows("SELECT 1 FROM borrowed WHERE digest = ?", (name,)) for name in names):
            with self._transaction() as db:
                db.executemany("DELETE FROM borrowed WHERE digest = ?", [(name,) for name in names])

    def drop_blobs(self, names: Sequence[bytes]) -> None:
        """Drop those of these that are still borrowed."""
        with self._transaction(durable=False) as db:
            for name in names:
                if db.execute("DELETE FROM borrowed WHERE digest = ?", (name,)).rowcount:
                    db.execute("DELETE FROM blobs WHERE digest = ?", (name,))

    def has_blob(self, name: bytes) -> bool:
        """Whether the content with this address is here."""
        return bool(self._rows("SELECT 1 FROM blobs WHERE digest = ?", (name,)))

    def get_blob(self, name: bytes) -> bytes | None:
        """The content with this address."""
        rows = self._rows("SELECT data FROM blobs WHERE digest = ?", (name,))
        return rows[0][0] if rows else None

    def remember_peer(self, address: str, now_ms: int, *, reached: bool) -> None:
        """A dialable multiaddr of a peer: at which it was reached, or says that it listens."""
        query = """
            INSERT INTO peers (address, seen_ms, reached_ms) VALUES (?, ?, ?) ON CONFLICT (address) DO UPDATE
            SET seen_ms = excluded.seen_ms, reached_ms = MAX(reached_ms, excluded.reached_ms)
        """
        with self._transaction(durable=False) as db:
            db.execute(query, (address, now_ms, now_ms if reached else 0))
            db.execute(f"DELETE FROM peers WHERE address NOT IN ({_REMEMBERED})", (_PEERS,))

    def remembered_peers(self, limit: int) -> list[str]:
        """Addresses of peers, at most two of each, those of peers that were reached first, by when that was."""
        return [row[0] for row in self._rows(_REMEMBERED, (limit,))]

    # ---- local journal and status

    def journal_put(self, experiment: str, step: str, text: str) -> None:
        """Note a finished step of local work, durably. Never leaves this machine."""
        with self._transaction() as db:
            _note(db, experiment, step, text)

    def journal(self, experiment: str) -> dict[str, str]:
        """The finished steps of one piece of local work, in order."""
        return dict(self._rows("SELECT step, text FROM journal WHERE experiment = ? ORDER BY row", (experiment,)))

    def journal_of(self, record: bytes) -> dict[str, str]:
        """The finished steps of the experiment that became this record; empty when it was not made here."""
        query = "SELECT experiment FROM journal WHERE step = 'done' AND text = ?"
        rows = self._rows(query, (record.hex(),))
        return self.journal(rows[0][0]) if rows else {}

    def open_experiments(self) -> list[str]:
        """Experiments that have a plan and are not done, the oldest first."""
        query = """
            SELECT experiment FROM journal WHERE step = 'plan'
            AND experiment NOT IN (SELECT experiment FROM journal WHERE step = 'done') ORDER BY row
        """
        return [row[0] for row in self._rows(query)]

    def set_status(self, text: str) -> None:
        """What other processes should know of the running node."""
        with self._transaction(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO status VALUES (1, ?)", (text,))

    def status(self) -> str:
        """What the running node says of itself; empty when none runs."""
        rows = self._rows("SELECT text FROM status")
        return rows[0][0] if rows else ""

    # ---- inside

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, translated(self._path):
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction; `durable`: on the disk, with all before it, when it returns (an fsync: milliseconds)."""
        with self._lock, translated(self._path):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._heads = None
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _insert(self, record: Record, received_ms: int, wire: bytes | None = None) -> None:
        place = (record.id, record.author, record.epoch, record.seq, record.prev)
        done = self._db.execute(
            "INSERT INTO records (id, author, epoch, seq, prev, kind, received_ms, wire) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*place, record.kind, received_ms, wire or record.to_bytes()),
        )
        assert done.lastrowid is not None
        add_facts(self._db, done.lastrowid, record)
        if self._heads is not None:
            self._advance(self._heads, record)

    def _advance(self, heads: dict[tuple[bytes, int], Head], record: Record) -> None:
        """Move the author's head over the new record and over those after it that were waiting for it."""
        place = (record.author, record.epoch)
        next_seq = heads[place].seq + 1 if place in heads else 1
        if record.seq != next_seq:
            return
        query = "SELECT seq, id FROM records WHERE author = ? AND epoch = ? AND seq >= ? ORDER BY seq"
        for seq, id_ in self._db.execute(query, (*place, next_seq)):
            if seq != next_seq:
                break
            heads[place] = Head(record.epoch, seq, id_)
            next_seq += 1

    def _read_heads(self) -> dict[tuple[bytes, int], Head]:
        query = """
            SELECT author, epoch, MAX(seq), id FROM (
                SELECT author, epoch, seq, id, seq - ROW_NUMBER() OVER (PARTITION BY author, epoch ORDER BY seq) AS gap
                FROM records
            ) WHERE gap = 0 GROUP BY author, epoch
        """  # SQLite takes `id` from the row of the maximum: https://www.sqlite.org/lang_select.html#bareagg
        rows = self._db.execute(query)
        return {(author, epoch): Head(epoch, seq, id_) for author, epoch, seq, id_ in rows}

    def _own_epoch(self, author: bytes) -> int | None:
        """The epoch in which the own log goes on; None when there is no log yet."""
        query = """
            SELECT MAX(epoch) FROM (
                SELECT MAX(epoch) AS epoch FROM records WHERE author = ?
                UNION ALL SELECT CAST(text AS INTEGER) FROM journal WHERE experiment = 'node' AND step = 'epoch'
            )
        """
        return self._db.execute(query, (author,)).fetchone()[0]

    def _continuous(self, record: Record) -> bool:
        """Whether the known neighbours in the log, if any, chain with the record by `prev`."""
        query = "SELECT seq, id, prev FROM records WHERE author = ? AND epoch = ? AND seq IN (?, ?)"
        place = (record.author, record.epoch, record.seq - 1, record.seq + 1)
        for seq, id_, prev in self._db.execute(query, place):
            if (seq < record.seq and record.prev != id_) or (seq > record.seq and prev != record.id):
                return False
        return True

    def _parse(self, wire: bytes) -> Record:
        try:
            return parse_record(wire, now_ms=_FAR_FUTURE_MS)
        except InvalidData as error:
            raise damaged(self._path, f"a stored record does not verify: {error.what}") from error


def _note(db: sqlite3.Connection, experiment: str, step: str, text: str) -> None:
    query = """
        INSERT INTO journal (experiment, step, text) VALUES (?, ?, ?)
        ON CONFLICT (experiment, step) DO UPDATE SET text = excluded.text
    """
    db.execute(query, (experiment, step, text))
