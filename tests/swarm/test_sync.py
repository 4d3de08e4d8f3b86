"""Sync: late joiners, restarts, partitions and lost tails end with every record."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swarm_node.protocols.errors import InvalidData
from swarm_node.protocols.records import Record, Result, sign_record
from swarm_node.protocols.signing import public_key
from swarm_node.swarm import sync
from swarm_node.swarm.ledger import Added, Ledger
from swarm_node.swarm.net import Limits


def _first(seed: bytes, epoch: int, body: Result) -> Record:
    return sign_record(seed, epoch=epoch, seq=1, prev=None, time=1, body=body)


def test_late_joiner_gets_the_whole_history(world) -> None:
    """A node that joins late gets every record of everybody, absent authors included; gossip alone gave it 0."""

    async def story() -> None:
        first = await world.node(1, timing=world.quick)
        author = await world.node(2, first)
        records = [author.note() for _ in range(300)]
        await first.holds(*records, await author.write())
        await author.stop()
        records += [first.note() for _ in range(20)]
        late = await world.node(3, first)
        await late.holds(*records)
        await late.until(lambda: len(late.records) == 321, "was told of each once")
        assert len({record.id for record in late.records}) == 321
        assert late.network.statistics().invalid == ()

    world.run(story())


def test_one_answer_is_bounded_and_the_rest_follows(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history larger than one answer comes in several, each going on where the last one ended."""
    monkeypatch.setattr(sync, "_MAX_RECORDS", 25)

    async def story() -> None:
        first = await world.node(1)
        records = [first.note() for _ in range(110)]
        late = await world.node(2, first)
        assert await late.network.synced(20)
        await late.holds(*records)
        assert late.network.statistics().syncs == 1

    world.run(story())


def test_proofs_come_besides_a_full_answer(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of as many bytes as are allowed, with large proofs before it, is no offence."""
    monkeypatch.setattr(sync, "_MAX_BYTES", 200_000)

    async def story() -> None:
        first = await world.node(1)
        fat = [world.result(outcome="kept", diff="x" * 30_000) for _ in range(10)]
        for key in range(3):
            for body in fat[:2]:
                first.ledger.add(_first(bytes([key]) * 32, 0, body), received_ms=0)
        history = [first.note(body) for body in fat]
        late = await world.node(2, first)
        await late.holds(*history)
        assert len(late.ledger.equivocators(9)) == 3
        assert late.network.statistics().invalid == ()

    world.run(story())


def test_a_record_that_is_too_early_by_this_clock_holds_nothing_up(world) -> None:
    """A peer whose clock is ahead sends it in good faith: the rest of its answer is taken, and the record when it is
    time."""
    ahead = 0
    day = 86_400_000
    seeds = sorted((b"a" * 32, b"b" * 32), key=public_key)  # an answer is in the order of the keys

    async def story() -> None:
        nonlocal ahead
        early = sign_record(seeds[0], epoch=0, seq=1, prev=None, time=world.now_ms() + 2 * day, body=world.result())
        other = sign_record(seeds[1], epoch=0, seq=1, prev=None, time=world.now_ms(), body=world.result())
        first = await world.node(1)
        for one in (early, other):
            first.ledger.add(one, received_ms=1)
        late = await world.node(2, first, timing=world.quick, clock_ms=lambda: world.now_ms() + ahead)
        await late.holds(other)
        await late.until(lambda: late.network.statistics().syncs > 1, "asked again")
        assert late.network.statistics().invalid == ()
        assert late.ledger.get(early.id) is None
        ahead = day
        await late.holds(early)

    world.run(story())


def test_partition_heals_in_both_directions(world) -> None:
    """Nodes that worked apart end with each other's records soon after they meet again."""

    async def story() -> None:
        left = await world.node(1)
        right = await world.node(2, left)
        await right.meets(left)
        await right.stop()
        apart = [left.note() for _ in range(10)]
        await left.until(lambda: not left.peers, "parted")
        world.nodes.remove(right)
        with Ledger.open(right.path) as ledger:
            apart += [ledger.append(right.seed, world.result(), now_ms=world.now_ms()) for _ in range(10)]
        right = await world.node(2, left)
        await asyncio.gather(left.holds(*apart), right.holds(*apart))

    world.run(story())


def test_interval_sync_repairs_what_gossip_lost(world) -> None:
    """A record that nobody gossiped arrives with the next regular sync."""

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first, timing=world.quick)
        await last.meets(first)
        await last.network.synced(10)
        await last.holds(first.note())

    world.run(story())


def test_whoever_is_asked_learns_that_the_asker_knows_more(world) -> None:
    """A node that is asked by one that is ahead pulls in turn, without waiting for its own interval."""

    async def story() -> None:
        first = await world.node(1, timing=world.timing(sync=3600, sync_gap=0.05))
        last = await world.node(2, first, timing=world.quick)
        await asyncio.gather(first.network.synced(10), last.network.synced(10))
        await first.holds(last.note())

    world.run(story())


def test_gap_is_filled_without_waiting_for_the_interval(world) -> None:
    """A record whose predecessor is unknown makes the node ask for it at once, not a minute later."""

    async def story() -> None:
        first = await world.node(1)
        last = await world.node(2, first, timing=world.timing(sync=3600, sync_gap=0.05))
        await last.meets(first)
        await last.network.synced(10)
        unheard = first.note()
        heard = await first.write()
        await last.holds(unheard, heard)

    world.run(story())


def test_restored_backup_gets_its_tail_back(world) -> None:
    """A node that lost its newest records takes its own log from its peers and goes on after it."""

    async def story() -> None:
        first = await world.node(1)
        author = await world.node(2, first)
        await first.holds(await author.write())
        await author.stop()
        shutil.copy(author.path, world.folder / "backup")
        world.nodes.remove(author)
        author = await world.node(2, first)
        tail = [await author.write() for _ in range(5)]
        await first.holds(*tail)
        await author.stop()
        world.nodes.remove(author)
        shutil.copy(world.folder / "backup", author.path)
        for extra in ("-wal", "-shm"):
            author.path.with_name(author.path.name + extra).unlink(missing_ok=True)
        author = await world.node(2, first)
        assert await author.network.synced(20)
        await author.holds(*tail)
        later = await author.write()
        assert (later.epoch, later.seq) == (tail[-1].epoch, 7)
        await first.holds(later)

    world.run(story())


def test_own_log_that_differs_elsewhere_goes_on_in_a_new_epoch(world) -> None:
    """A node whose peers know other records in its name, from a lost tail, opens a new epoch."""

    async def story() -> None:
        first = await world.node(1)
        seed = (2).to_bytes(32, "big")
        path = world.folder / "2.ledger"
        with Ledger.open(path) as ledger:
            log = [ledger.append(seed, world.result(), now_ms=world.now_ms())]
        shutil.copy(path, world.folder / "backup")
        with Ledger.open(path) as ledger:
            log += [ledger.append(seed, world.result(), now_ms=world.now_ms()) for _ in range(3)]
        assert {first.ledger.add(record, received_ms=0) for record in log} == {Added.NEW}
        shutil.copy(world.folder / "backup", path)
        with Ledger.open(path) as restored:
            mine = restored.append(seed, world.result(), now_ms=world.now_ms())
        author = await world.node(2, first)
        assert await author.network.synced(20)
        later = author.note()
        assert (later.epoch, later.seq) == (mine.epoch + 1, 1)
        assert author.ledger.get(mine.id) == mine
        assert not author.ledger.quarantined(author.author)

    world.run(story())


def test_equivocation_met_in_sync_is_kept_and_quarantines(world) -> None:
    """When two nodes hold different records of one author for one place, sync finds out and the author is out."""

    async def story() -> None:
        seed = b"e" * 32
        first = await world.node(1)
        body = world.result()
        one = sign_record(seed, epoch=0, seq=1, prev=None, time=1, body=body)
        other = sign_record(seed, epoch=0, seq=1, prev=None, time=2, body=body)
        further = sign_record(seed, epoch=0, seq=2, prev=one.id, time=3, body=body)
        for record in (one, further):
            first.ledger.add(record, received_ms=0)
        with Ledger.open(world.folder / "2.ledger") as ledger:
            ledger.add(other, received_ms=0)
        last = await world.node(2, first)
        await last.until(lambda: last.network.statistics().equivocations == 1, "found out")
        assert last.ledger.quarantined(one.author)
        assert last.ledger.get(further.id) is None
        assert last.peers == {first.author}  # who passed the proof on did nothing wrong

    world.run(story())


def test_author_with_more_epochs_than_a_question_holds_holds_up_nobody(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that stored such a log when nothing forbade it level everything else, and none of them breaks a rule."""
    monkeypatch.setattr(sync, "_ROWS", 20)
    monkeypatch.setattr(sync, "_MAX_QUESTION", 20 * 80 + 1024)

    async def story() -> None:
        first = await world.node(1)
        many = [_first(bytes(32), epoch, world.result()) for epoch in range(80)]
        last = await world.node(2)
        for node in (first, last):
            for record in many:
                node.ledger.add(record, received_ms=0)
        known = {first: [], last: []}
        for key in range(16):  # some authors sort before that one, some after it
            record = _first(bytes([9 + key]) * 32, 0, world.result())
            node = (first, last)[key % 2]
            node.ledger.add(record, received_ms=0)
            known[node].append(record)
        assert await last.network.connect(first.address)
        await asyncio.gather(first.holds(*known[last]), last.holds(*known[first]))
        for node in (first, last):
            statistics = node.network.statistics()
            assert (statistics.invalid, statistics.refused, statistics.duplicates) == ((), 0, 0)

    world.run(story())


def test_late_joiner_is_offered_no_more_epochs_than_it_may_keep(world) -> None:
    """Of a log from before the quota the newest epochs are passed on: the others would be refused, and sent in vain."""

    async def story() -> None:
        limits = Limits(author_epochs=5)
        first = await world.node(1, limits=limits)
        many = [_first(b"m" * 32, epoch, world.result()) for epoch in range(9)]
        for record in many:
            first.ledger.add(record, received_ms=0)
        late = await world.node(2, first, limits=limits)
        assert await late.network.synced(20)
        assert {record.id for record in late.ledger.all_records()} == {record.id for record in many[-5:]}
        assert late.network.statistics().refused == 0

    world.run(story())


_STRANGERS = st.binary(min_size=32, max_size=32)
_AUTHORS = _STRANGERS | st.sampled_from([bytes(32), b"\xff" * 32])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_AUTHORS, st.integers(1, 12), max_size=20), _STRANGERS, st.integers(1, 7))
def test_questions_cover_every_author_once(epochs: dict[bytes, int], stranger: bytes, first: int) -> None:
    """However much is known, no question is too large, and exactly one covers each author, known or not, with all its
    epochs; none covers an author with more epochs than fit into half a question."""
    heads = {(author, epoch): (1, b"i" * 32) for author, count in epochs.items() for epoch in range(count)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "_ROWS", 7)
        pages = [sync._parse_question(sync._question(*page)) for page in sync._pages(heads, first)]
    assert all(len(rows) <= 7 for _, _, rows, _ in pages)
    for author in {stranger, *epochs}:
        about = [rows for low, high, rows, _ in pages if sync._within(author, low, high)]
        its = {key for key in heads if key[0] == author}
        assert [{key for key in rows if key[0] == author} for rows in about] == ([its] if len(its) <= 3 else [])
    assert sum(len(rows) for _, _, rows, _ in pages) == sum(count for count in epochs.values() if count <= 3)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_question_is_invalid_data(data: bytes) -> None:
    """Any bytes are a question or InvalidData."""
    try:
        sync._parse_question(data)
    except InvalidData:
        return
    assert data
