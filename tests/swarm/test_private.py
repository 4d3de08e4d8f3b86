"""Private swarms: who lacks the key cannot connect, and what a home holds behind a key stays there."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.private import name_of, swarm_key
from swarm_node.protocols.errors import ConfigError, UsageError
from swarm_node.protocols.invites import Invite, decode_invite, encode_invite
from swarm_node.swarm import sync

from .attacker import attack

KEY = b"k" * 32
ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWJjdiqm2bog52J91QdKEN3Sb52kqWv63Qpe6MQrrWsReE"


def invite(key: bytes | None) -> Invite:
    return Invite(addresses=(ADDRESS,), task="gpt-cpu/short", task_id=b"t" * 32, key=key)


def test_nodes_with_the_key_share_everything_and_others_nothing(world) -> None:
    """A node without it, one with another one, and a stock host get no connection, however they ask."""

    async def story() -> None:
        timing = world.timing(dial=2.0)
        one = await world.node(1, timing=timing, key=KEY)
        two = await world.node(2, one, timing=timing, key=KEY)
        await one.meets(two)
        first = await one.write()
        await two.holds(first)
        bare = await world.node(3, one, timing=timing)
        other = await world.node(4, one, timing=timing, key=b"o" * 32)

        async def ask(host: Any, peer: Any) -> None:
            await host.new_stream(peer, [sync.PROTOCOL])

        with pytest.raises(BaseException):  # noqa: B017  # a deadline or a reset, however trio puts it
            await asyncio.to_thread(attack, one.address, ask, seconds=4.0)
        for node in (bare, other):
            assert not await node.network.connect(one.address)
            assert not node.peers and node.ledger.count() == 0
        assert one.peers == {two.author}
        second = await two.write()  # strangers at the door hold nobody up
        await one.holds(second)

    world.run(story(), 90)


def test_the_key_is_in_the_invite_and_nowhere_else_in_it() -> None:
    """An open swarm's invite is what it was before there were keys."""
    private = decode_invite(encode_invite(invite(KEY)), now=0)
    assert private.key == KEY and KEY.hex() not in repr(private)
    assert decode_invite(encode_invite(invite(None)), now=0).key is None
    assert len(encode_invite(invite(None))) < len(encode_invite(invite(KEY)))


def test_a_home_keeps_its_key(tmp_path: Path) -> None:
    """From an invite or made anew; only for this user; found again without an invite."""
    made = swarm_key(tmp_path / "a", None, True)
    assert made is not None and len(made) == 32 and made != swarm_key(tmp_path / "b", None, True)
    assert swarm_key(tmp_path / "a", None, False) == swarm_key(tmp_path / "a", invite(made), False) == made
    assert swarm_key(tmp_path / "c", invite(KEY), False) == KEY
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o600
    assert swarm_key(tmp_path / "d", None, False) is None and not (tmp_path / "d").exists()


def test_a_home_does_not_leave_its_swarm(tmp_path: Path) -> None:
    """Not for an open one and not for another private one; and a damaged key is not replaced."""
    path = tmp_path / "swarm.key"
    swarm_key(path, invite(KEY), False)
    for other in (None, secrets.token_bytes(32)):
        with pytest.raises(ConfigError, match="--home"):
            swarm_key(path, invite(other), False)
    with pytest.raises(UsageError, match="open one"):
        swarm_key(tmp_path / "new", invite(None), True)
    was = name_of(KEY)
    path.rename(tmp_path / "kept elsewhere")
    for wrong in (None, invite(None), invite(secrets.token_bytes(32))):
        with pytest.raises(ConfigError, match="is gone"):
            swarm_key(path, wrong, wrong is None, was)
    assert not path.exists() and swarm_key(path, invite(KEY), False, was) == KEY
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match="cannot be read"):
        swarm_key(path, None, False)
