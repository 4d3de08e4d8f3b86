"""The ledger: a real SQLite file that survives everything."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from swarm_node.protocols.errors import ConfigError, MachineError, UsageError
from swarm_node.protocols.records import Environment, Record, Result, sign_record
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.ledger import Added, Ledger
from swarm_node.swarm.schema import SCHEMA_VERSION, translated

from .logs import KEYS, Log, check, result

SEED, OTHER = bytes(range(32)), bytes(32)
OWN, AUTHOR = public_key(SEED), public_key(OTHER)
NOW = 1_790_000_000_000
ENVIRONMENT = Environment(hardware="cpu", device="d", system="s", python="3", library="t")


def body(title: str = "title", **fields: Any) -> Result:
    base: dict[str, Any] = {
        "task": b"t" * 32, "outcome": "discarded", "program": b"p" * 32, "parent": b"q" * 32, "normal": b"n" * 32,
        "title": title, "proposer": "offline", "environment": ENVIRONMENT,
    }  # fmt: skip
    return Result(**(base | fields))


def chain(length: int, seed: bytes = OTHER, epoch: int = 0) -> list[Record]:
    """An author's log."""
    out: list[Record] = []
    for seq in range(1, length + 1):
        prev = out[-1].id if out else None
        out.append(sign_record(seed, epoch=epoch, seq=seq, prev=prev, time=NOW + seq, body=body(f"n {seq}")))
    return out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def test_appends_chain_and_survive_reopening(path: Path) -> None:
    """Own records are numbered from 1 without gaps, each naming the one before, also across restarts."""
    made: list[Record] = []
    for _ in range(3):
        with Ledger.open(path) as ledger:
            made += [ledger.append(SEED, body(str(number)), now_ms=NOW) for number in range(2)]
    assert [record.seq for record in made] == [1, 2, 3, 4, 5, 6]
    assert [record.prev for record in made] == [None, *(record.id for record in made[:-1])]
    with Ledger.open(path, read_only=True) as ledger:
        assert list(ledger.all_records()) == made
        assert ledger.heads()[OWN][0].seq == 6 and ledger.get(made[2].id) == made[2]


def test_kill_at_random_moments_loses_nothing_acknowledged(path: Path) -> None:
    """A writer is SIGKILLed over and over: the file stays sound, every printed id is there, no number is used twice."""
    chance = random.Random(5)
    acknowledged: list[str] = []
    for _ in range(8):
        writer = Path(__file__).parent / "ledger_writer.py"
        with subprocess.Popen([sys.executable, str(writer), str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 40)):
                acknowledged.append(process.stdout.readline().strip())
            process.kill()
            acknowledged += [line for line in process.stdout.read().splitlines() if len(line) == 64]
    with Ledger.open(path) as ledger:
        records = list(ledger.all_records())
        assert {record.id.hex() for record in records} >= set(acknowledged)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert ledger.heads()[OWN][0].seq == len(records)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_out_of_order_records_heal(path: Path) -> None:
    """Heads are contiguous: a gap holds them back until it is filled, in whatever order."""
    log = chain(5)
    with Ledger.open(path) as ledger:
        for index, head in ((4, None), (0, 1), (2, 1), (3, 1), (1, 5)):
            assert ledger.add(log[index], received_ms=NOW) is Added.NEW
            known = ledger.heads().get(AUTHOR, ())
            assert (known[0].seq if known else None) == head
        assert ledger.add(log[0], received_ms=NOW) is Added.KNOWN
        assert ledger.after(AUTHOR, 0, 2, 2) == [log[2].to_bytes(), log[3].to_bytes()]


def test_two_records_for_one_place_quarantine_the_author(path: Path) -> None:
    """Equivocation is kept as proof; the author's later records are refused, also after a restart."""
    log = chain(3)
    twin = sign_record(OTHER, epoch=0, seq=2, prev=log[0].id, time=NOW, body=body("another story"))
    with Ledger.open(path) as ledger:
        ledger.add(log[0], received_ms=NOW)
        ledger.add(log[1], received_ms=NOW)
        assert ledger.add(twin, received_ms=NOW) is Added.EQUIVOCATION
    with Ledger.open(path) as ledger:
        assert ledger.quarantined(AUTHOR) and not ledger.quarantined(OWN)
        assert ledger.add(log[2], received_ms=NOW) is Added.QUARANTINED
        assert ledger.add(log[1], received_ms=NOW) is Added.KNOWN
        proof = sqlite3.connect(path).execute("SELECT wire FROM equivocations").fetchall()
        assert proof == [(twin.to_bytes(),)]


def test_proofs_are_chosen_among_all_and_few_are_read(path: Path) -> None:
    """Whoever is not known to the asker may come next; thousands of large proofs are not read to give two."""
    seeds = [bytes([number]) * 32 for number in range(60)]
    fat = [body(title, outcome="inconclusive", diff="x" * 30_000) for title in ("one", "other")]
    with Ledger.open(path) as ledger:
        pairs = [[sign_record(seed, epoch=0, seq=1, prev=None, time=NOW, body=one) for one in fat] for seed in seeds]
        for number, record in enumerate(itertools.chain(*pairs)):
            ledger.add(record, received_ms=NOW + number)
        authors = [one.author for one, _ in pairs]
        assert ledger.equivocators(3) == authors[:-4:-1]
        known = set(authors[5:])
        seen = {wires for _ in range(200) for wires in ledger.proofs(known, 2)}
        assert seen == {(one.to_bytes(), other.to_bytes()) for one, other in pairs[:5]}
        assert len(ledger.proofs(known, 9)) == 5 and ledger.proofs(set(authors), 9) == []
        tracemalloc.start()
        try:
            assert len(ledger.proofs(set(), 2)) == 2
            assert tracemalloc.get_traced_memory()[1] < 400_000
        finally:
            tracemalloc.stop()


def test_a_broken_chain_is_refused(path: Path) -> None:
    """A record whose predecessor is known under another id does not enter, before or after it."""
    log = chain(3)
    stranger = sign_record(OTHER, epoch=0, seq=2, prev=b"x" * 32, time=NOW, body=body())
    with Ledger.open(path) as ledger:
        ledger.add(log[0], received_ms=NOW)
        assert ledger.add(stranger, received_ms=NOW) is Added.DISCONTINUOUS
        ledger.add(log[2], received_ms=NOW)
        assert ledger.add(log[1], received_ms=NOW) is Added.NEW


def test_a_lost_tail_comes_back_from_peers(tmp_path: Path) -> None:
    """A restored backup takes its own missing records back and goes on after them."""
    with Ledger.open(tmp_path / "full") as full:
        tail = [full.append(SEED, body(str(number)), now_ms=NOW) for number in range(5)]
    with Ledger.open(tmp_path / "backup") as backup:
        for record in tail:
            assert backup.add(record, received_ms=NOW) is Added.NEW
        assert backup.append(SEED, body("next"), now_ms=NOW).seq == 6


def test_a_new_epoch_starts_at_one_and_stays(path: Path) -> None:
    """After new_epoch, numbers start again in the next epoch, and a restart remembers it."""
    with Ledger.open(path) as ledger:
        ledger.append(SEED, body(), now_ms=NOW)
        assert ledger.new_epoch(OWN) == NOW // 1000 + 1
    with Ledger.open(path) as ledger:
        first = ledger.append(SEED, body(), now_ms=NOW)
        assert (first.epoch, first.seq, first.prev) == (NOW // 1000 + 1, 1, None)
        assert [(head.epoch, head.seq) for head in ledger.heads()[OWN]] == [(NOW // 1000, 1), (NOW // 1000 + 1, 1)]


def test_find_by_prefix(path: Path) -> None:
    """A unique prefix finds its record; short, foreign and ambiguous ones say so."""
    with Ledger.open(path) as ledger:
        record = ledger.append(SEED, body(), now_ms=NOW)
        assert ledger.find(record.id.hex()[:8].upper()) == record
        for wrong in ("abc", "xyzw", "0" * 65, "0000" if record.id.hex()[0] != "0" else "ffff"):
            with pytest.raises(UsageError):
                ledger.find(wrong)


def test_journal_status_blobs_and_peers(path: Path) -> None:
    """Local notes survive; an experiment is open from its plan to its end; blobs are addressed by content."""
    with Ledger.open(path) as ledger:
        for name in ("a", "b"):
            ledger.journal_put(name, "plan", "{}")
        ledger.journal_put("c", "run", "not a plan")
        ledger.journal_put("a", "screen", "1")
        ledger.journal_put("a", "screen", "2")
        ledger.journal_put("a", "done", "x")
        digest = ledger.put_blob(b"data")
        ledger.put_blob(b"data")
        ledger.set_status("running")
        ledger.remember_peer("/ip4/192.0.2.1/tcp/1", 5, reached=True)
        ledger.remember_peer("/ip4/192.0.2.2/tcp/1", 6, reached=True)
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.open_experiments() == ["b"]
        assert ledger.journal("a") == {"plan": "{}", "screen": "2", "done": "x"}
        assert ledger.get_blob(digest) == b"data" and ledger.get_blob(bytes(32)) is None
        assert ledger.status() == "running"
        assert ledger.remembered_peers(1) == ["/ip4/192.0.2.2/tcp/1"]


def at(host: int, peer: str, port: int = 1) -> str:
    return f"/ip4/192.0.2.{host}/tcp/{port}/p2p/{peer}"


def test_nobody_takes_the_place_of_remembered_peers(path: Path) -> None:
    """Of a peer that tells ever new addresses two are remembered; those that were reached come first, each with
    where it says that it is now."""
    with Ledger.open(path) as ledger:
        ledger.remember_peer(at(1, "ann"), 1, reached=True)
        ledger.remember_peer(at(2, "bob"), 2, reached=True)
        ledger.remember_peer(at(3, "eve"), 3, reached=True)
        for port in range(10, 30):
            ledger.remember_peer(at(3, "eve", port), port, reached=False)
        ledger.remember_peer(at(4, "dan"), 40, reached=False)
        ledger.remember_peer(at(1, "ann"), 41, reached=False)  # tells where it was reached once
        expected = [at(3, "eve"), at(3, "eve", 29), at(2, "bob"), at(1, "ann"), at(4, "dan")]
        assert ledger.remembered_peers(16) == expected
        assert ledger.remembered_peers(2) == expected[:2]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT COUNT(*) FROM peers").fetchone() == (5,)


def test_remembered_peers_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many identities tell where they listen, those that were reached stay."""
    monkeypatch.setattr("swarm_node.swarm.ledger._PEERS", 20)
    with Ledger.open(path) as ledger:
        for number in range(10):
            ledger.remember_peer(at(1, f"reached{number}"), 1 + number, reached=True)
        for number in range(50):
            ledger.remember_peer(at(2, f"told{number}"), 100 + number, reached=False)
        reached = [at(1, f"reached{number}") for number in range(9, -1, -1)]
        told = [at(2, f"told{number}") for number in range(49, 39, -1)]
        assert ledger.remembered_peers(99) == [*reached, *told]


def test_peers_of_an_earlier_version_are_remembered(path: Path) -> None:
    """A ledger that does not know who was reached opens with all its peers, the latest first."""
    with Ledger.open(path) as ledger:
        record = ledger.append(SEED, body(), now_ms=NOW)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript("ALTER TABLE peers DROP COLUMN reached_ms; PRAGMA user_version = 4;")
        rows = [(at(1, "ann"), 1), (at(2, "bob"), 2), *((at(3, "eve", port), port) for port in range(10, 30))]
        db.executemany("INSERT INTO peers VALUES (?, ?)", rows)
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.get(record.id) is not None
    for _ in range(2):
        with Ledger.open(path) as ledger:
            assert ledger.get(record.id) is not None
            assert ledger.remembered_peers(16) == [at(3, "eve", 29), at(3, "eve", 28), at(2, "bob"), at(1, "ann")]


def test_readers_see_what_a_writer_commits(path: Path) -> None:
    """A second connection notices the change and reads it while the writer goes on."""
    with Ledger.open(path) as writer:
        writer.append(SEED, body(), now_ms=NOW)
        with Ledger.open(path, read_only=True) as reader:
            version = reader.data_version()
            assert reader.count() == 1
            writer.append(SEED, body(), now_ms=NOW)
            assert reader.data_version() != version and reader.count() == 2
            with pytest.raises(MachineError):
                reader.append(SEED, body(), now_ms=NOW)


def test_threads_share_one_ledger(path: Path) -> None:
    """Appends from four threads get distinct, contiguous numbers."""
    with Ledger.open(path) as ledger:
        seqs: list[int] = []
        work = [
            threading.Thread(target=lambda: seqs.extend(ledger.append(SEED, body(), now_ms=NOW).seq for _ in range(20)))
            for _ in range(4)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
    assert sorted(seqs) == list(range(1, 81))


@pytest.mark.parametrize("content", [b"not a database at all" * 50, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_damaged_files_are_named_and_left_alone(path: Path, content: bytes) -> None:
    """What is not a sound database is one error with a way out."""
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="ledger") as caught:
        Ledger.open(path)
    assert "mv " in caught.value.fix and path.read_bytes() == content


def test_damage_inside_the_file_is_noticed_at_open(path: Path) -> None:
    """A page overwritten in the middle is found before anything is written."""
    with Ledger.open(path) as ledger:
        for number in range(200):
            ledger.append(SEED, body(str(number)), now_ms=NOW)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xaa" * 8192
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        Ledger.open(path)
    with Ledger.open(path, read_only=True) as ledger, pytest.raises(ConfigError, match="damaged"):
        ledger.check()


def test_check_finds_a_record_that_was_changed(path: Path) -> None:
    """Sound pages with a record that its author did not sign are damage too, in a file that is only read."""
    with Ledger.open(path) as ledger:
        ledger.append(SEED, body("one"), now_ms=NOW)
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.check() == 1
    with sqlite3.connect(path) as db:
        db.execute("UPDATE records SET wire = CAST(substr(wire, 1, length(wire) - 1) || x'00' AS BLOB)")
    with Ledger.open(path, read_only=True) as ledger, pytest.raises(ConfigError, match="damaged"):
        ledger.check()


def test_foreign_and_newer_files_are_refused(path: Path) -> None:
    """Other people's databases and later versions are not touched."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ConfigError, match="not a ledger"):
        Ledger.open(path)
    path.unlink()
    Ledger.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="newer"):
        Ledger.open(path)


@pytest.mark.parametrize(("free", "said"), [(0, "is full"), (1 << 30, "cannot write")])
def test_io_error_on_a_full_disk_says_full(path: Path, monkeypatch: pytest.MonkeyPatch, free: int, said: str) -> None:
    """Shared memory that does not fit on the disk is an I/O error to SQLite."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(MachineError, match=said), translated(path):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_SHMSIZE"
        raise error


def test_a_full_disk_loses_nothing(path: Path) -> None:
    """When there is no room the append fails with the reason, and everything before it stays readable."""
    with Ledger.open(path) as ledger:
        ledger.append(SEED, body(), now_ms=NOW)
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        ledger._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(MachineError, match="full"):
            for _ in range(1000):
                ledger.append(SEED, body(), now_ms=NOW)
        kept = ledger.count()
    with Ledger.open(path) as ledger:
        assert [record.seq for record in ledger.all_records()] == list(range(1, kept + 1))
        assert ledger.append(SEED, body(), now_ms=NOW).seq == kept + 1


def test_result_verification_and_the_end_of_the_experiment_are_one(path: Path) -> None:
    """All records of an experiment and its "done" are written together or not at all."""
    with Ledger.open(path) as ledger:
        ledger.journal_put("x-1", "plan", "{}")
        unsignable = body().model_copy(update={"title": "\x00"})
        with pytest.raises(ValueError):
            ledger.append_all(SEED, [body(), unsignable], now_ms=NOW, done="x-1")
        assert (ledger.count(), ledger.open_experiments()) == (0, ["x-1"])
        first, second = ledger.append_all(SEED, [body(), body()], now_ms=NOW, done="x-1")
        assert (second.seq, second.prev) == (2, first.id)
        assert ledger.open_experiments() == []
        assert ledger.journal_of(first.id) == {"plan": "{}", "done": first.id.hex()}
        assert ledger.journal_of(second.id) == {}


@pytest.mark.parametrize("lost", ["DROP TABLE borrowed", "ALTER TABLE peers DROP COLUMN reached_ms"])
def test_either_half_of_version_5_is_completed(path: Path, lost: str) -> None:
    """For a while two changes had one number."""
    with Ledger.open(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"{lost}; PRAGMA user_version = 5;")
    with Ledger.open(path) as ledger:
        assert ledger.has_blob(ledger.borrow_blob(b"theirs")) and ledger.remembered_peers(9) == []


def test_what_was_borrowed_can_be_dropped_and_nothing_else(tmp_path: Path) -> None:
    """What the node made stays, whoever has it too and in whatever order it came; so does all that an earlier version
    stored, which did not tell the one from the other."""
    path = tmp_path / "ledger"
    with Ledger.open(path) as ledger:
        old = ledger.put_blob(b"old")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE borrowed; PRAGMA user_version = 4;")
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.has_blob(old)
    with Ledger.open(path) as ledger:
        own, theirs, both, kept, late = (
            ledger.put_blob(b"own"), *(ledger.borrow_blob(data) for data in (b"theirs", b"both", b"kept", b"late")),
        )  # fmt: skip
        ledger.borrow_blob(b"old")
        ledger.borrow_blob(b"own")
        ledger.borrow_blob(b"late")
        ledger.put_blob(b"both")
        ledger.keep_blobs([kept, own, bytes(32)])
        assert ledger.borrowed() == [(theirs, 6), (late, 4)] and ledger.borrowed_bytes() == 10
    with Ledger.open(path) as ledger:
        ledger.drop_blobs([old, own, theirs, both, kept, bytes(32)])
        assert [ledger.has_blob(name) for name in (old, own, theirs, both, kept, late)] == [1, 1, 0, 1, 1, 1]
        assert ledger.borrowed_bytes() == 4


OLD = {
    1: "DROP TABLE facts; DROP TABLE inspirations;",
    2: "DROP INDEX facts_by_doubt; ALTER TABLE facts DROP COLUMN doubts; ALTER TABLE facts DROP COLUMN made_ms;",
    3: "ALTER TABLE facts DROP COLUMN made_ms;",
}


@pytest.mark.parametrize("old", OLD)
def test_a_ledger_of_an_earlier_version_is_read_as_it_is_and_brought_up_by_its_node(tmp_path: Path, old: int) -> None:
    """Its facts beside the records are missing or too few: a reader makes them for itself, a node for good."""
    path = tmp_path / "ledger"
    ann, bob = Log(KEYS[0]), Log(KEYS[1])
    win = ann.say(result("kept", 1))
    on_it = bob.say(result("kept", 2, parent=1, inspired_by=(win.id,)))
    checked = bob.say(check(win, "confirmed"))
    denied = ann.say(check(on_it, "refuted"))
    lost = ann.say(result("discarded", 3))
    with Ledger.open(path) as ledger:
        for record in (win, on_it, checked, denied, lost):
            ledger.add(record, received_ms=2)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"{OLD[old]} ALTER TABLE peers DROP COLUMN reached_ms; PRAGMA user_version = {old};")

    def answers(ledger: Ledger) -> None:
        assert [one.id for one in ledger.index.reruns_of(win.id)] == [checked.id]
        assert [one.id for one in ledger.index.children(win.body.program)] == [on_it.id]
        assert [one.id for one in ledger.index.inspired(win.id)] == [on_it.id]
        assert ledger.index.tracks(()) == [(win.body.task, "cpu", 3, 2)]
        assert ledger.index.doubted() == {on_it.id}
        seen = ledger.index.glances(after_row=1, limit=9)
        assert [(one.row, one.id, one.author, one.outcome) for one in seen] == [
            (2, on_it.id, on_it.author, "kept"), (3, checked.id, checked.author, "confirmed"),
            (4, denied.id, denied.author, "refuted"), (5, lost.id, lost.author, "discarded"),
        ]  # fmt: skip
        assert [one.when for one in seen] == [1, 2, 2, 2], "a clock that is ahead is not believed"
        assert [one.record and one.record.id for one in seen] == [on_it.id, checked.id, denied.id, None]
        assert seen[0].score == on_it.body.score

    def late() -> None:
        """A node of the earlier version goes on writing: it makes no facts that this one would read."""
        wire = ann.say(result("discarded", 4))
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            values = (wire.id, wire.author, wire.epoch, wire.seq, wire.prev, "result", 9, wire.to_bytes())
            columns = "id, author, epoch, seq, prev, kind, received_ms, wire"
            db.execute(f"INSERT INTO records ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    with Ledger.open(path, read_only=True) as ledger:
        late()
        (seen,) = ledger.index.glances(after_row=5, limit=9)
        assert (seen.row, seen.author, seen.outcome, seen.record) == (6, ann.author, "discarded", None)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM records WHERE row = 6")
    for read_only, version in ((True, old), (False, SCHEMA_VERSION), (True, SCHEMA_VERSION)):
        with Ledger.open(path, read_only=read_only) as ledger:
            answers(ledger)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (version,)
