"""Many connections, many identities and slow peers: honest ones are still served."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise


async def visits(address: str, count: int, stay: float, host_of_each: Any = None) -> None:
    """Connect `count` strangers, one identity each, who then stay for `stay` seconds and say nothing."""
    info = info_from_p2p_addr(multiaddr.Multiaddr(address))

    async def visit() -> None:
        keys = create_new_key_pair(os.urandom(32))
        noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
        host = new_host(key_pair=keys, sec_opt={NOISE: noise})
        with contextlib.suppress(Exception):
            async with host.run(listen_addrs=[]):
                with contextlib.suppress(Exception), trio.fail_after(20):
                    await host.connect(info)
                await trio.sleep(stay)
                with trio.CancelScope(shield=True):
                    await host.close()

    gate = trio.CapacityLimiter(20)
    async with trio.open_nursery() as nursery:
        for _ in range(count):

            async def one() -> None:
                async with gate:
                    await visit()

            nursery.start_soon(one)


def test_node_lets_others_in_after_hundreds_of_visits(world) -> None:
    """Connections that came and went take no place; py-libp2p is deaf after 250 of them."""

    async def story() -> None:
        victim = await world.node(1)
        await asyncio.to_thread(trio.run, visits, victim.address, 260, 0.0)
        friend = await world.node(2, victim)
        await victim.meets(friend)

    world.run(story())
