"""The ledger: one SQLite file with every record this node made or accepted, and what it needs to resume.

Append-only for records. A record is durable before anybody hears of it: own appends are one transaction with
synchronous=FULL, so that `kill -9` or a power cut loses no acknowledged record and no sequence number is used
twice. Writers share one connection behind a lock; other processes read the same file (WAL) at any time.
"""

from __future__ import annotations

import contextlib
import enum
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..protocols.canonical import digest
from ..protocols.errors import ConfigError, InvalidData, MachineError, UsageError
from ..protocols.records import Body, Kind, Record, parse_record, sign_record
from ..protocols.signing import public_key

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x5357_4E44  # "SWND": tells our files from other people's SQLite files
_FAR_FUTURE_MS = 2**53  # stored records were checked when they came; the clock may have moved since

_SCHEMA = """
CREATE TABLE records (
    row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, author BLOB NOT NULL, epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL, prev BLOB, kind TEXT NOT NULL, received_ms INTEGER NOT NULL, wire BLOB NOT NULL,
    UNIQUE (author, epoch, seq)
) STRICT;
CREATE INDEX records_by_kind ON records (kind, row);
CREATE TABLE equivocations (
    author BLOB NOT NULL, first BLOB NOT NULL, second BLOB NOT NULL, wire BLOB NOT NULL, received_ms INTEGER NOT NULL,
    PRIMARY KEY (author, second)
) STRICT;
CREATE TABLE blobs (digest BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE peers (address TEXT PRIMARY KEY, seen_ms INTEGER NOT NULL) STRICT;
CREATE TABLE journal (
    row INTEGER PRIMARY KEY, experiment TEXT NOT NULL, step TEXT NOT NULL, text TEXT NOT NULL,
    UNIQUE (experiment, step)
) STRICT;
CREATE TABLE status (only INTEGER PRIMARY KEY CHECK (only = 1), text TEXT NOT NULL) STRICT;
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

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Ledger:
        """Open or create the ledger at `path`.

        ConfigError: the file is not a ledger, is damaged, or was written by a newer version.
        MachineError: the disk is full or read-only.
        """
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=10)
            with contextlib.ExitStack() as on_error:
                on_error.callback(connection.close)
                _prepare(connection, path, read_only)
                on_error.pop_all()
        except sqlite3.Error as error:
            raise _explained(error, path) from error
        return cls(connection, path)

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
        author = public_key(seed)
        with self._transaction() as db:
            epoch = self._own_epoch(author)
            last = db.execute(
                "SELECT seq, id FROM records WHERE author = ? AND epoch = ? ORDER BY seq DESC LIMIT 1", (author, epoch)
            ).fetchone()
            seq, prev = (last[0] + 1, last[1]) if last else (1, None)
            record = sign_record(seed, epoch=epoch, seq=seq, prev=prev, time=now_ms, body=body)
            self._insert(record, now_ms)
        return record

    def add(self, record: Record, *, received_ms: int) -> Added:
        """Store somebody's record, already validated. Out of order is fine: gaps heal by sync."""
        with self._transaction() as db:
            same_place = db.execute(
                "SELECT id FROM records WHERE author = ? AND epoch = ? AND seq = ?",
                (record.author, record.epoch, record.seq),
            ).fetchone()
            if same_place and same_place[0] == record.id:
                return Added.KNOWN
            if self._quarantined(record.author):
                return Added.QUARANTINED
            if same_place:
                db.execute(
                    "INSERT OR IGNORE INTO equivocations VALUES (?, ?, ?, ?, ?)",
                    (record.author, same_place[0], record.id, record.to_bytes(), received_ms),
                )
                return Added.EQUIVOCATION
            if not self._continuous(record):
                return Added.DISCONTINUOUS
            self._insert(record, received_ms)
            return Added.NEW

    def new_epoch(self, author: bytes) -> int:
        """Continue the own log in a fresh epoch, because its old tail is known elsewhere and lost here."""
        with self._transaction() as db:
            epoch = self._own_epoch(author) + 1
            db.execute(
                "INSERT OR REPLACE INTO journal (experiment, step, text) VALUES ('node', 'epoch', ?)", (str(epoch),)
            )
        return epoch

    def heads(self) -> dict[bytes, tuple[Head, ...]]:
        """For every author and epoch the last record up to which there is no gap (seq 0: the first is missing)."""
        query = """
            SELECT author, epoch, seq, id FROM (
                SELECT author, epoch, seq, id, seq - ROW_NUMBER() OVER (PARTITION BY author, epoch ORDER BY seq) AS gap
                FROM records
            ) WHERE gap = 0 ORDER BY author, epoch, seq
        """
        last: dict[tuple[bytes, int], Head] = {}
        with self._lock:
            for author, epoch, seq, id_ in self._db.execute(query):
                last[author, epoch] = Head(epoch, seq, id_)
        out: dict[bytes, tuple[Head, ...]] = {}
        for (author, _), head in last.items():
            out[author] = (*out.get(author, ()), head)
        return out

    def after(self, author: bytes, epoch: int, seq: int, limit: int) -> list[bytes]:
        """Wire bytes of the author's records in `epoch` after `seq`, in order, at most `limit`."""
        query = "SELECT wire FROM records WHERE author = ? AND epoch = ? AND seq > ? ORDER BY seq LIMIT ?"
        with self._lock:
            return [row[0] for row in self._db.execute(query, (author, epoch, seq, limit))]

    def get(self, id_: bytes) -> Record | None:
        """The record with this id."""
        with self._lock:
            row = self._db.execute("SELECT wire FROM records WHERE id = ?", (id_,)).fetchone()
        return _parse(row[0]) if row else None

    def find(self, prefix: str) -> Record:
        """The one record whose id starts with this hex; UsageError when there is none or more than one."""
        text = prefix.lower()
        if len(text) < 4 or len(text) > 64 or any(char not in "0123456789abcdef" for char in text):
            raise UsageError(
                f"{prefix!r} is not a record id", why="an id is at least 4 hex digits", fix="swarm-node feed"
            )
        low, high = bytes.fromhex(text.ljust(64, "0")), bytes.fromhex(text.ljust(64, "f"))
        with self._lock:
            rows = self._db.execute("SELECT wire FROM records WHERE id BETWEEN ? AND ? LIMIT 3", (low, high)).fetchall()
        if not rows:
            raise UsageError(
                f"no record starts with {text}", why="this node has not heard of it", fix="swarm-node feed"
            )
        if len(rows) > 1:
            ids = ", ".join(_parse(row[0]).id.hex()[:16] for row in rows)
            raise UsageError(f"several records start with {text}", why=ids, fix="give more digits")
        return _parse(rows[0][0])

    def entries(self, after_row: int = 0, limit: int = 1000, kind: Kind | None = None) -> list[Entry]:
        """Records (of one kind, if given) in the order this node learned of them, after row `after_row`."""
        where = "row > ?" if kind is None else "row > ? AND kind = ?"
        query = f"SELECT row, received_ms, wire FROM records WHERE {where} ORDER BY row LIMIT ?"
        with self._lock:
            rows = self._db.execute(query, (after_row, *((kind,) if kind else ()), limit)).fetchall()
        return [Entry(row, received_ms, _parse(wire)) for row, received_ms, wire in rows]

    def all_records(self, kind: Kind | None = None) -> Iterator[Record]:
        """Every record (of one kind, if given), page by page, in the order this node learned of them."""
        row = 0
        while page := self.entries(row, kind=kind):
            yield from (entry.record for entry in page)
            row = page[-1].row

    def count(self) -> int:
        """How many records there are."""
        with self._lock:
            return self._db.execute("SELECT COUNT(*) FROM records").fetchone()[0]

    def data_version(self) -> int:
        """A number that changes when another connection wrote: cheap to ask for."""
        with self._lock:
            return self._db.execute("PRAGMA data_version").fetchone()[0]

    def quarantined(self, author: bytes) -> bool:
        """Whether this author signed two records for one place in its log."""
        with self._lock:
            return self._quarantined(author)

    # ---- blobs and peers

    def put_blob(self, data: bytes) -> bytes:
        """Store content; its 32-byte address."""
        name = digest(data)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (name, data))
        return name

    def get_blob(self, name: bytes) -> bytes | None:
        """The content with this address."""
        with self._lock:
            row = self._db.execute("SELECT data FROM blobs WHERE digest = ?", (name,)).fetchone()
        return row[0] if row else None

    def remember_peer(self, address: str, now_ms: int) -> None:
        """A dialable multiaddr at which a peer was reached."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO peers VALUES (?, ?)", (address, now_ms))

    def remembered_peers(self, limit: int) -> list[str]:
        """Addresses by which peers were reached, the latest first."""
        with self._lock:
            rows = self._db.execute("SELECT address FROM peers ORDER BY seen_ms DESC LIMIT ?", (limit,)).fetchall()
        return [row[0] for row in rows]

    # ---- local journal and status

    def journal_put(self, experiment: str, step: str, text: str) -> None:
        """Note a finished step of local work, durably. Never leaves this machine."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO journal (experiment, step, text) VALUES (?, ?, ?) "
                "ON CONFLICT (experiment, step) DO UPDATE SET text = excluded.text",
                (experiment, step, text),
            )

    def journal(self, experiment: str) -> dict[str, str]:
        """The finished steps of one piece of local work, in order."""
        with self._lock:
            rows = self._db.execute("SELECT step, text FROM journal WHERE experiment = ? ORDER BY row", (experiment,))
            return dict(rows.fetchall())

    def open_experiments(self) -> list[str]:
        """Experiments that have a plan and are not done, the oldest first."""
        query = """
            SELECT experiment FROM journal WHERE step = 'plan'
            AND experiment NOT IN (SELECT experiment FROM journal WHERE step = 'done') ORDER BY row
        """
        with self._lock:
            return [row[0] for row in self._db.execute(query)]

    def set_status(self, text: str) -> None:
        """What other processes should know of the running node."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO status VALUES (1, ?)", (text,))

    def status(self) -> str:
        """What the running node says of itself; empty when none runs."""
        with self._lock:
            row = self._db.execute("SELECT text FROM status").fetchone()
        return row[0] if row else ""

    # ---- inside

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise _explained(error, self._path) from error

    def _insert(self, record: Record, received_ms: int) -> None:
        self._db.execute(
            "INSERT INTO records (id, author, epoch, seq, prev, kind, received_ms, wire) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                record.author,
                record.epoch,
                record.seq,
                record.prev,
                record.kind,
                received_ms,
                record.to_bytes(),
            ),
        )

    def _own_epoch(self, author: bytes) -> int:
        opened = self._db.execute("SELECT text FROM journal WHERE experiment = 'node' AND step = 'epoch'").fetchone()
        known = self._db.execute("SELECT MAX(epoch) FROM records WHERE author = ?", (author,)).fetchone()[0]
        return max(int(opened[0]) if opened else 0, known or 0)

    def _quarantined(self, author: bytes) -> bool:
        query = "SELECT 1 FROM equivocations WHERE author = ? LIMIT 1"
        return self._db.execute(query, (author,)).fetchone() is not None

    def _continuous(self, record: Record) -> bool:
        """Whether the known neighbours in the log, if any, chain with the record by `prev`."""
        query = "SELECT seq, id, prev FROM records WHERE author = ? AND epoch = ? AND seq IN (?, ?)"
        place = (record.author, record.epoch, record.seq - 1, record.seq + 1)
        for seq, id_, prev in self._db.execute(query, place):
            if (seq < record.seq and record.prev != id_) or (seq > record.seq and prev != record.id):
                return False
        return True


def _prepare(db: sqlite3.Connection, path: Path, read_only: bool) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    empty = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty and application != _APPLICATION_ID:
        raise ConfigError(f"{path} is not a ledger of swarm-node", fix="move it away, or choose another --home DIR")
    if version > SCHEMA_VERSION:
        raise ConfigError(f"{path} was written by a newer swarm-node", fix="pip install -U swarm-node")
    if read_only:
        if empty:
            raise ConfigError(f"{path} is empty", why="no node has run here", fix="swarm-node join")
        return
    if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check found damaged pages")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # an append costs one fsync (ms); experiments take minutes
    if empty:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")


def _parse(wire: bytes) -> Record:
    try:
        return parse_record(wire, now_ms=_FAR_FUTURE_MS)
    except InvalidData as error:
        why = f"a stored record does not verify: {error.what}"
        raise ConfigError("the ledger is damaged", why=why, fix="restore a backup; peers will send the rest") from error


def _explained(error: sqlite3.Error, path: Path) -> ConfigError | MachineError:
    code = getattr(error, "sqlite_errorname", "") or ""
    if code in ("SQLITE_FULL",):
        return MachineError(
            f"the disk that holds {path} is full", why=str(error), fix="free some space, then start again"
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")):
        return MachineError(
            f"cannot write to {path}", why=str(error), fix="make it writable, or choose another --home DIR"
        )
    if code.startswith("SQLITE_CANTOPEN"):
        return MachineError(f"cannot open {path}", why=str(error), fix="check its folder, or choose another --home DIR")
    if code.startswith("SQLITE_BUSY"):
        return MachineError(f"{path} is locked by another program", why=str(error), fix="stop that program")
    moved = path.with_suffix(f".damaged-{int(time.time())}")
    fix = f"mv {path} {moved}; a new ledger fills itself from peers, own records included"
    return ConfigError(f"the ledger {path} is damaged or not a ledger", why=str(error), fix=fix)
