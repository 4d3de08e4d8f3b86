"""A swarm's own text, from several peers at once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from swarm_node.protocols.canonical import digest, encode
from swarm_node.protocols.errors import NetworkError
from swarm_node.swarm.corpora import PIECE

LIES = {"piece": "a piece of a text", "table": "the table of a text"}
SIZES = {"train": 7 * PIECE + 12_345, "probe": 1000, "empty": 0}


@pytest.fixture
def text(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "text"
    folder.mkdir()
    for name, size in SIZES.items():
        (folder / name).write_bytes(os.urandom(size))
    return {name: folder / name for name in SIZES}


def corpus(text: dict[str, Path]) -> bytes:
    return digest(encode({name: digest(path.read_bytes()) for name, path in text.items()}))


async def swarm(world: Any, givers: int, text: dict[str, Path], **fields: Any) -> tuple[Any, list[Any]]:
    """Somebody without the text, connected to who has it and to one who has not."""
    here = [await world.node(number, shared=text, **fields) for number in range(2, 2 + givers)]
    asker = await world.node(1, *here, await world.node(90))
    await asker.until(lambda: len(asker.peers) == givers + 1, "is connected to all")
    return asker, here


async def fetch(asker: Any, text: dict[str, Path], folder: Path) -> list[int]:
    """The progress that it made; what is there afterwards is the text."""
    progress: list[int] = []
    got = await asker.network.fetch_corpus(corpus(text), folder, lambda here, _: progress.append(here))
    assert {name: path.read_bytes() for name, path in got.items()} == {
        name: path.read_bytes() for name, path in text.items()
    }
    assert progress[-1] == sum(SIZES.values())
    return progress


def test_a_text_comes_from_several_peers_at_once(world, text: dict[str, Path], tmp_path: Path) -> None:
    """Each of them gives a part."""

    async def story() -> None:
        asker, givers = await swarm(world, 3, text)
        before = [giver.network.statistics().bytes_out for giver in givers]
        progress = await fetch(asker, text, tmp_path / "got")
        assert progress == sorted(progress) and progress[0] == 0
        gave = [giver.network.statistics().bytes_out - was for giver, was in zip(givers, before, strict=True)]
        assert all(bytes_out > PIECE for bytes_out in gave)

    world.run(story())


def test_what_is_here_is_not_fetched_again(world, text: dict[str, Path], tmp_path: Path) -> None:
    """Killed in the middle, with the last write half done; a damaged piece is seen."""

    async def story() -> None:
        asker, (giver,) = await swarm(world, 1, text)
        folder = tmp_path / "got"
        folder.mkdir()
        whole = text["train"].read_bytes()
        (folder / "train").write_bytes(
            whole[:PIECE] + b"!" + whole[PIECE + 1 : 4 * PIECE + 17]
        )  # 1 and 4 are not whole
        before = giver.network.statistics().bytes_out
        progress = await fetch(asker, text, folder)
        assert progress[0] == 3 * PIECE
        assert giver.network.statistics().bytes_out - before < sum(SIZES.values()) - 3 * PIECE + 100_000

    world.run(story())


def test_who_goes_away_is_replaced(world, text: dict[str, Path], tmp_path: Path) -> None:
    """One of two givers ends in the middle; when the last one does, what came is kept and said."""

    async def story() -> None:
        asker, givers = await swarm(world, 2, text, bytes_per_second=1_500_000)
        begun = asyncio.Event()
        folder = tmp_path / "got"
        progress: list[int] = []

        def heard(here: int, _: int) -> None:
            progress.append(here)
            if here:
                begun.set()

        fetching = asyncio.create_task(asker.network.fetch_corpus(corpus(text), folder, heard))
        await begun.wait()
        for giver in givers:
            world.nodes.remove(giver)
            await giver.stop()
        with pytest.raises(NetworkError, match="did not come whole") as failed:
            await fetching
        assert "join again" in failed.value.fix
        late = await world.node(50, asker, shared=text)
        await asker.meets(late)
        assert (await fetch(asker, text, folder))[0] == progress[-1] > 0

    world.run(story())


def test_nobody_gives_what_was_not_shared(world, text: dict[str, Path], tmp_path: Path) -> None:
    """Nor another text than what was asked for; the error says what those who have it would do."""

    async def story() -> None:
        asker, _ = await swarm(world, 1, text)
        with pytest.raises(NetworkError, match="no connected peer gives") as failed:
            await asker.network.fetch_corpus(b"x" * 32, tmp_path / "got", lambda *_: None)
        assert "--share-corpus" in failed.value.why and not (tmp_path / "got").exists()

    world.run(story())


@pytest.mark.parametrize("lie", list(LIES))
def test_a_liar_is_passed_over(world, text: dict[str, Path], tmp_path: Path, lie: str) -> None:
    """Who gives wrong pieces, and who makes up a table that its pieces fit, is caught by digests."""
    false = {name: tmp_path / f"false-{name}" for name in text}
    for name, path in text.items():
        false[name].write_bytes(bytes(path.stat().st_size))

    async def story() -> None:
        asker, givers = await swarm(world, 1, text)
        liar = await world.node(60, asker, shared=text)
        await asker.meets(liar)
        await fetch(asker, text, tmp_path / "first")  # everybody has made its table
        its = liar.network._overlay._corpora
        its._shared = false
        if lie == "table":
            its._table = encode(
                {
                    name: {
                        "size": SIZES[name],
                        "digest": digest(path.read_bytes()),
                        "pieces": digest(bytes(PIECE)) * (SIZES[name] // PIECE) + digest(bytes(SIZES[name] % PIECE))
                        if SIZES[name]
                        else b"",
                    }
                    for name, path in text.items()
                }
            )
            for giver in givers:  # and is the only one who answers at first
                giver.network._overlay._corpora._shared = {}
            with pytest.raises(NetworkError, match="not the text"):
                await asker.network.fetch_corpus(corpus(text), tmp_path / "got", lambda *_: None)
            for giver in givers:
                giver.network._overlay._corpora._shared = text
            its._shared = {}
        await fetch(asker, text, tmp_path / "got")
        (offence,) = dict(asker.network.statistics().invalid)
        assert offence == f"{LIES[lie]} does not match its digest"

    world.run(story())


def test_who_tells_of_a_text_and_gives_none_stops_nobody(world, text: dict[str, Path], tmp_path: Path) -> None:
    """Two with a table of their own are asked first, being more, and have no piece of it."""

    async def story() -> None:
        asker, _ = await swarm(world, 1, text)
        liars = [await world.node(number, asker, shared=text) for number in (60, 61)]
        await asker.meets(*liars)
        made_up = {
            name: {"size": path.stat().st_size, "digest": digest(path.read_bytes()), "pieces": pieces_of(path)}
            for name, path in text.items()
        }
        for liar in liars:
            its = liar.network._overlay._corpora
            its._corpus, its._table, its._shared = corpus(text), encode(made_up), {"other": text["train"]}
        await fetch(asker, text, tmp_path / "got")

    def pieces_of(path: Path) -> bytes:
        return os.urandom(32 * -(-path.stat().st_size // PIECE))

    world.run(story())
