"""The file under the ledger: opening it soundly, and what its errors mean to a person."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ..protocols.errors import ConfigError, MachineError, disk_full
from ..protocols.records import Record, Result, recall_record
from .verdicts import doubts

# 2: facts beside the records; 3: which re-runs speak against what; 4: and when; 6: which blobs are borrowed, and
# where peers were reached; 5: one of these two
SCHEMA_VERSION = 6
_FACTS_VERSION = 4  # since when the facts are as they are
_NO_ROOM = 1 << 18  # bytes; beside the file lie a log and 32 KiB of shared memory
_APPLICATION_ID = 0x5357_4E44  # "SWND": tells our files from other people's SQLite files
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
CREATE TABLE peers (
    address TEXT PRIMARY KEY, seen_ms INTEGER NOT NULL, reached_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE journal (
    row INTEGER PRIMARY KEY, experiment TEXT NOT NULL, step TEXT NOT NULL, text TEXT NOT NULL,
    UNIQUE (experiment, step)
) STRICT;
CREATE TABLE status (only INTEGER PRIMARY KEY CHECK (only = 1), text TEXT NOT NULL) STRICT;
"""
# Which blobs are others', the oldest first; a ledger of an earlier version holds none of which that is known.
_BORROWED = """
CREATE TABLE IF NOT EXISTS borrowed (row INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, size INTEGER NOT NULL) STRICT
"""
# The few fields of records that questions about histories of any length are about (index.py).
_FACTS = """
CREATE {temp} TABLE facts (
    row INTEGER PRIMARY KEY, author BLOB NOT NULL, task BLOB NOT NULL, hardware TEXT NOT NULL, outcome TEXT NOT NULL,
    made_ms INTEGER NOT NULL, program BLOB, parent BLOB, score REAL, subject BLOB, doubts INTEGER
) STRICT;
CREATE INDEX {where}facts_by_track ON facts (task, hardware, outcome, author) WHERE subject IS NULL;
CREATE INDEX {where}facts_by_program ON facts (program) WHERE outcome = 'kept';
CREATE INDEX {where}facts_by_parent ON facts (parent) WHERE outcome = 'kept';
CREATE INDEX {where}facts_by_subject ON facts (subject) WHERE subject IS NOT NULL;
CREATE INDEX {where}facts_by_judge ON facts (author) WHERE subject IS NOT NULL;
CREATE INDEX {where}facts_by_doubt ON facts (subject) WHERE doubts;
CREATE INDEX {where}fabrications ON facts (subject) WHERE outcome = 'fabricated';
CREATE {temp} TABLE inspirations (source BLOB NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (source, row)) STRICT;
"""
_PAGE = 1000


def connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """A connection to the sound ledger file at `path`, which is created when it is not there and may be written.

    Raises ConfigError and MachineError as Ledger.open says.
    """
    with translated(path):
        if not read_only:
            with contextlib.suppress(OSError):  # which SQLite meets, too, and explains
                path.touch(mode=0o600)  # the invite to a private swarm is in it
            return _opened(path, "mode=rwc")
        try:
            return _opened(path, "mode=ro")
        except sqlite3.OperationalError:
            # WAL readers create a -shm file. Where they may not, a file whose log is merged needs none.
            log = path.with_name(path.name + "-wal")
            if not path.exists() or (log.exists() and log.stat().st_size):
                raise
            return _opened(path, "immutable=1")


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite on the file at `path` as errors for a person; those of our own making as they are."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a bug, such as use after close: nothing is wrong with the file
    except sqlite3.Error as error:
        raise _explained(error, path) from error


def _opened(path: Path, how: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=10)
    with contextlib.ExitStack() as on_error:
        on_error.callback(connection.close)
        _check(connection, path, read_only=how != "mode=rwc")
        on_error.pop_all()
    return connection


def _check(db: sqlite3.Connection, path: Path, read_only: bool) -> None:
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
        if version < _FACTS_VERSION:
            db.execute("BEGIN")
            _add_facts(db, path, temporary=True)
            db.execute("COMMIT")
        return
    check_pages(db)
    db.execute("PRAGMA journal_mode = WAL")
    if empty or version < SCHEMA_VERSION:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";") if empty else ():
            if statement.strip():
                db.execute(statement)
        if "reached_ms" not in {column[1] for column in db.execute("PRAGMA table_info(peers)")}:
            db.execute("ALTER TABLE peers ADD COLUMN reached_ms INTEGER NOT NULL DEFAULT 0")
        if version < _FACTS_VERSION:
            _add_facts(db, path, temporary=False)
        db.execute(_BORROWED)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")


def _add_facts(db: sqlite3.Connection, path: Path, *, temporary: bool) -> None:
    """Make the tables, and fill them with what a ledger of an earlier version holds. One that may not be written to is
    left as it is: the tables are this connection's own."""
    words = {"temp": "TEMP", "where": "temp."} if temporary else {"temp": "", "where": ""}
    if not temporary:  # those of an earlier version lack columns
        db.execute("DROP TABLE IF EXISTS facts")
        db.execute("DROP TABLE IF EXISTS inspirations")
    for statement in _FACTS.format_map(words).split(";"):
        if statement.strip():
            db.execute(statement)
    last = 0
    query = "SELECT row, id, wire FROM records WHERE row > ? ORDER BY row LIMIT ?"
    while page := db.execute(query, (last, _PAGE)).fetchall():
        last = page[-1][0]
        for row, identity, wire in page:
            add_facts(db, row, recalled(path, identity, wire))


def recalled(path: Path, identity: bytes, wire: bytes) -> Record:
    """A stored record as `recall_record` reads it; ConfigError when it is damaged."""
    try:
        return recall_record(wire, identity)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"a stored record does not decode: {error!r}") from error


def add_facts(db: sqlite3.Connection, row: int, record: Record) -> None:
    """Note what is asked about the record in `row`."""
    body = record.body
    made = (
        (body.program, body.parent, body.score, None, None)
        if isinstance(body, Result)
        else (None, None, None, body.result, doubts(body))
    )
    start = (row, record.author, body.task, body.environment.hardware, body.outcome, record.time)
    db.execute("INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*start, *made))
    if isinstance(body, Result) and body.outcome == "kept":
        pairs = ((source, row) for source in set(body.inspired_by))
        db.executemany("INSERT INTO inspirations VALUES (?, ?)", pairs)


def check_pages(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError when a page of the file is damaged."""
    if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check found damaged pages")


def _explained(error: sqlite3.Error, path: Path) -> ConfigError | MachineError:
    code, why = getattr(error, "sqlite_errorname", "") or "", str(error)
    if code == "SQLITE_FULL" or (code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and _has_no_room(path)):
        return disk_full(path, error)
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")):
        return MachineError(f"cannot write to {path}", why=why, fix="make it writable, or choose another --home DIR")
    if code.startswith("SQLITE_CANTOPEN"):
        return MachineError(f"cannot open {path}", why=why, fix="check its folder, or choose another --home DIR")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return MachineError(f"{path} is locked by another program", why=why, fix="stop that program")
    return damaged(path, why)


def _has_no_room(path: Path) -> bool:
    """Whether the disk is full: SQLite calls it an I/O error when its shared memory does not fit."""
    try:
        return shutil.disk_usage(path.parent).free < _NO_ROOM
    except OSError:
        return False


def damaged(path: Path, why: str) -> ConfigError:
    """The error for a file that is not a sound ledger; the way out keeps everything that may still be rescued."""
    aside = shlex.quote(str(path.with_name(f"damaged-{int(time.time())}")))
    fix = f"mkdir {aside} && mv {shlex.quote(str(path))}* {aside}/"  # with the -wal file: the last records may be there
    why = f"{why}; a new ledger fills itself from peers, own records included"
    return ConfigError(f"the ledger {path} is damaged or not a ledger", why=why, fix=fix)
