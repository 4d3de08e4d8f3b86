"""Others' programs: how many are asked for, how many are kept, and which of them go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.app import Settings
from swarm_node.node.fetcher import AT_ONCE, WAITING, Fetcher, restore
from swarm_node.node.programs import Programs
from swarm_node.node.tasks import remember
from swarm_node.protocols.diffs import EDITABLE
from swarm_node.protocols.records import Record, Result
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_bytes
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Network, NetworkConfig

from .history import BASE, OTHER, OWN, PEER, TASK, History, digest


def edited(number: int) -> str:
    """A program like no other."""
    return f"{BASE}\nX = {number}\n"


def size(source: str) -> int:
    return len(program_bytes({EDITABLE: source}))


def body(record: Record) -> Result:
    assert isinstance(record.body, Result)
    return record.body


def strange(history: History, key: bytes, number: int, **fields: Any) -> Record:
    """A win over a program that nobody has: what it made can only be fetched."""
    made = body(History().won(key, BASE, edited(number)))
    return history.add(key, made.model_copy(update={"parent": number.to_bytes(32, "big")} | fields))


def starting(ledger: Ledger, seed: bytes, came: Callable[[], None], *dial: str) -> Network:
    config = NetworkConfig(seed=seed, listen=("/ip4/127.0.0.1/tcp/0",), dial=dial, task=TASK.spec.id)
    return Network(config, ledger, on_record=lambda _: None, on_notice=lambda _: None, on_peers=came)


class Counted:
    """The real network, and how many programs are asked of it: at once, and in all."""

    def __init__(self, network: Network) -> None:
        self._network, self.now, self.most, self.asked = network, 0, 0, list[bytes]()

    async def fetch(self, name: bytes) -> bytes:
        self.asked.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._network.fetch(name)
        finally:
            self.now -= 1


def test_a_flood_is_fetched_a_few_at_a_time_and_what_falls_out_when_it_is_needed(tmp_path: Path) -> None:
    """Of other tasks, and of authors in quarantine, nothing at all is; a hint's program is when it is looked at."""
    history, flood = History(), 3 * WAITING
    wins = [strange(history, PEER, number) for number in range(flood)]
    elsewhere = strange(history, PEER, flood, task=b"e" * 32)
    liar = strange(history, OTHER, flood + 1)
    frontier = history.frontier()
    frontier.ban(frozenset({liar.author}))

    async def story(here: Ledger, there: Ledger) -> None:
        met = asyncio.Event()
        giver = starting(there, PEER, lambda: None)
        await giver.start()
        taker = starting(here, OWN, met.set, giver.addresses()[0])
        await taker.start()
        try:
            await met.wait()
            network, news = Counted(taker), asyncio.Event()
            programs = Programs(here, BASE)
            fetcher = Fetcher(programs, frontier, TASK.spec.id, lambda: network, news.set)  # type: ignore[arg-type]
            for win in (liar, elsewhere, *wins):
                fetcher.heard(win)
            working = asyncio.create_task(fetcher.run())

            async def until(*sources: str) -> None:
                while not all(programs.has(digest(source)) for source in sources):
                    news.clear()
                    await news.wait()

            await until(*map(edited, range(WAITING - 1)))
            assert network.most == AT_ONCE and len(network.asked) <= 2 * WAITING
            assert not programs.has(digest(edited(flood - 1)))
            fetcher.wanted({digest(edited(flood - 1)), elsewhere.body.program, liar.body.program, b"?" * 32})
            await until(edited(flood - 1), edited(flood))
            assert liar.body.program not in network.asked and b"?" * 32 not in network.asked
            asked = len(network.asked)
            fetcher.wanted({body(wins[0]).parent or b""})  # which nobody had a moment ago
            assert not fetcher._waiting and len(network.asked) == asked
            working.cancel()
        finally:
            await asyncio.gather(taker.stop(), giver.stop())

    with Ledger.open(tmp_path / "here") as here, Ledger.open(tmp_path / "there") as there:
        for number in range(flood + 2):
            there.put_blob(program_bytes({EDITABLE: edited(number)}))
        asyncio.run(asyncio.wait_for(story(here, there), 60))


def test_own_wins_that_come_back_are_got_first_and_stay(tmp_path: Path) -> None:
    """However long the list is. A node whose ledger was lost has its records from peers."""
    history = History()
    wins = [strange(history, PEER, number) for number in range(WAITING)]
    mine = history.won(OWN, BASE, edited(WAITING))
    with Ledger.open(tmp_path / "ledger") as ledger:
        programs, came = Programs(ledger, BASE), asyncio.Event()
        fetcher = Fetcher(programs, history.frontier(), TASK.spec.id, lambda: None, came.set)
        for win in (*wins, mine):
            fetcher.heard(win)

        async def story() -> None:
            working = asyncio.create_task(fetcher.run())
            await came.wait()
            working.cancel()

        asyncio.run(story())
        assert programs.get(body(mine).program) == edited(WAITING) and ledger.borrowed() == []


def test_the_oldest_programs_of_others_go_and_own_ones_never_do(tmp_path: Path) -> None:
    """Those that ideas are made of go last; nothing makes them more than they may be."""
    history = History()
    wins = [history.won(PEER, BASE, edited(number)) for number in range(40)]
    needed, mine = set[bytes](), edited(100)
    most = 10 * size(edited(10))
    with Ledger.open(tmp_path / "ledger") as ledger:
        programs = Programs(ledger, BASE, most=most, needed=lambda: needed)
        programs.store(mine)
        for win in wins[:5]:
            assert programs.rebuild(body(win)) is not None
        programs.store(edited(1))  # tried here
        adopted = body(history.won(OWN, BASE, edited(2)))
        programs.keep(adopted)
        needed.add(digest(edited(3)))
        for win in wins[5:]:
            assert programs.rebuild(body(win)) is not None
            assert ledger.borrowed_bytes() <= most and programs.has(body(win).program)
        here = [number for number in range(40) if programs.has(digest(edited(number)))]
        assert programs.has(digest(mine)) and here[:3] == [1, 2, 3] and here[3:] == list(range(here[3], 40))
        assert most / 2 < ledger.borrowed_bytes()
        needed.update(digest(edited(number)) for number in range(40))
        assert programs.rebuild(body(wins[0])) is not None and ledger.borrowed_bytes() <= most
    with Ledger.open(tmp_path / "ledger") as ledger:
        small = Programs(ledger, BASE, most=size(edited(10)) - 1)
        assert not small.has_room
        assert small.rebuild(body(history.won(PEER, BASE, edited(50)))) == edited(50)
        assert not small.has(digest(edited(50))) and small.has(digest(mine))


def test_what_ideas_are_made_of_is_what_stands(tmp_path: Path) -> None:
    """A stranger's claim is no reason to keep its program; what is confirmed is, and who was found right here."""
    history = History()
    confirmed, claimed = history.won(PEER, BASE, edited(1)), history.won(OTHER, edited(1), edited(2))
    assert history.frontier().programs_of_ideas == set()
    history.judged(confirmed, key=OWN)
    assert history.frontier().programs_of_ideas == {digest(BASE), digest(edited(1))}
    later = history.won(PEER, edited(1), edited(3))
    assert history.frontier().programs_of_ideas == {digest(BASE), digest(edited(1)), digest(edited(3))}
    frontier = history.frontier()
    assert frontier.wins_naming({digest(edited(3)), b"?" * 32}) == [later]
    assert frontier.wins_naming({digest(edited(1))}) == [confirmed]
    frontier.ban(frozenset({public_key(PEER)}))
    assert frontier.wins_naming({digest(edited(1))}) == [claimed], "it was made from it"


def test_a_start_makes_programs_beside_the_event_loop(tmp_path: Path) -> None:
    """And ends when it is told to: of the own task, as far as there is room, and own ones for good."""
    history = History()
    mine = history.won(OWN, BASE, edited(0))
    for number in range(1, 400):
        history.won(PEER, BASE, edited(number))
    other = history.won(PEER, BASE, edited(500), task=b"e" * 32)
    liar = history.won(OTHER, BASE, edited(501))
    frontier = history.frontier()
    frontier.ban(frozenset({liar.author}))

    async def stopped(programs: Programs, ledger: Ledger) -> None:
        starting = asyncio.create_task(restore(programs, frontier))
        while not ledger.borrowed():  # noqa: ASYNC110
            await asyncio.sleep(0)  # nothing tells us
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    with Ledger.open(tmp_path / "ledger") as ledger:
        programs = Programs(ledger, BASE)
        asyncio.run(stopped(programs, ledger))
        assert 0 < len(ledger.borrowed()) < 399
        asyncio.run(restore(programs, frontier))
        assert len(ledger.borrowed()) == 399 and programs.has(body(mine).program)
        assert not programs.has(body(other).program) and not programs.has(body(liar).program)
    with Ledger.open(tmp_path / "small") as ledger:
        programs = Programs(ledger, BASE, most=(1 << 18) + 3 * size(edited(100)))
        for _ in range(2):  # the next start does not make what there was no room for, nor drop anything
            asyncio.run(restore(programs, frontier))
            assert 3 <= len(ledger.borrowed()) <= 4 and programs.has(body(mine).program)


def test_a_task_that_is_called_a_program_is_none(tmp_path: Path) -> None:
    """Its bytes are in the ledger under that name, and a record can name anything."""
    history = History()
    with Ledger.open(tmp_path / "ledger") as ledger:
        remember(ledger, TASK.spec)
        win = strange(history, PEER, 1, parent=TASK.spec.id, program=TASK.spec.id)
        assert Programs(ledger, BASE).rebuild(body(win)) is None


def test_programs_and_records_of_others_share_what_the_disk_may_give() -> None:
    """Neither has a cap of its own beside it."""
    settings = Settings(disk_gib=8.0)
    assert settings.program_bytes == 1 << 30 and settings.program_bytes + settings.record_bytes == 8 << 30


def test_what_nobody_has_takes_no_place_from_what_somebody_may_have(tmp_path: Path) -> None:
    """Of more missing programs than fit on the list, those that were asked for just now leave it to the others; and
    the more often nobody had one, the later it is asked for again."""
    history = History()
    wins = [strange(history, PEER, number) for number in range(WAITING + 5)]
    with Ledger.open(tmp_path / "here") as ledger:
        programs = Programs(ledger, BASE)
        fetcher = Fetcher(programs, history.frontier(), TASK.spec.id, lambda: None, lambda: None)
        fetcher.wanted({body(win).program for win in wins})
        assert sorted(fetcher._waiting) == sorted(win.id for win in wins[5:])
        fetcher._waiting.clear()
        fetcher._asked.update({win.id: (time.monotonic(), 1) for win in wins[5:]})
        fetcher.wanted({body(win).program for win in wins})
        assert sorted(fetcher._waiting) == sorted(win.id for win in wins[:5])
        fetcher._asked[wins[0].id], fetcher._asked[wins[1].id] = (0.0, 1), (0.0, 3)
        assert fetcher._not_before(wins[1]) == 4 * fetcher._not_before(wins[0]) > 0
