"""Nodes on one local network find each other by themselves: DNS service discovery over multicast (RFC 6762, RFC 6763).

What is found is only a hint where to dial: anybody on the network can announce anything, and who answers there proves
its identity before a word is believed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from zeroconf import InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from ..protocols.canonical import digest
from ..protocols.names import peer_id
from .addresses import author_in, host_of, is_global, is_loopback

SERVICE = "_swarm-node._tcp.local."
_AGAIN = (20.0, 40.0)  # seconds until what is on the network is suggested again, in case it could not be dialled
_MOST = 64  # nodes of a network that are remembered: announcing costs nothing
_ASK_MS = 3000
_SWARM = b"swarm"  # key of the text record

Found = Callable[[bytes, tuple[str, ...]], Awaitable[None]]


async def discover(addresses: Sequence[str], found: Found, key: bytes | None = None) -> None:
    """Announce a node that listens at `addresses` (multiaddrs, one or more, without relays) and tell `found` of others
    of its swarm, author and addresses, again and again while they are there, until cancelled. `key`: of a private
    swarm.

    OSError where the network allows no multicast.
    """
    own = author_in(addresses[0])
    assert own is not None
    alone = all(is_loopback(address) for address in addresses)
    port = int(addresses[0].split("/")[4])
    info = AsyncServiceInfo(
        SERVICE, f"{peer_id(own)}.{SERVICE}", port=port, server=f"swarm-node-{own.hex()[:16]}.local.",
        properties={_SWARM: _tag(key)},
        parsed_addresses=[host_of(address) for address in addresses if address.startswith("/ip4/")],
    )  # fmt: skip
    async with AsyncZeroconf(interfaces=["127.0.0.1"] if alone else InterfaceChoice.All) as zeroconf:
        here: dict[str, tuple[bytes, tuple[str, ...]] | None] = {}  # None: it has not said yet where
        changed = asyncio.Event()

        def on_change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            if state_change is ServiceStateChange.Removed:
                here.pop(name, None)
            else:
                if len(here) >= _MOST and name not in here:
                    del here[random.choice(list(here))]  # a new one is told of at least once
                here[name] = None
                changed.set()

        # An instance is named by its key: a second one of that name is this node, or a liar who wants it to be silent.
        announced = await zeroconf.async_register_service(info, cooperating_responders=True)
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[on_change])
        try:
            while True:
                new = [name for name, where in here.items() if where is None]
                answers = await asyncio.gather(*(_ask(zeroconf.zeroconf, name, alone, key) for name in new))
                for name, where in zip(new, answers, strict=True):
                    if name in here and (where is None or where[0] == own):
                        del here[name]
                    elif name in here:
                        here[name] = where
                for where in list(here.values()):
                    if where is not None:
                        await found(*where)
                try:
                    await asyncio.wait_for(changed.wait(), random.uniform(*_AGAIN))
                except TimeoutError:
                    pass
                changed.clear()
        finally:
            await browser.async_cancel()
            await announced
            await zeroconf.async_unregister_service(info)


def _tag(key: bytes | None) -> bytes:
    """Tells swarms apart; nothing about the key can be learned from it."""
    return digest(b"swarm-node lan" + key)[:8].hex().encode() if key is not None else b""


async def _ask(zeroconf: Zeroconf, name: str, alone: bool, key: bytes | None) -> tuple[bytes, tuple[str, ...]] | None:
    """Who announces `name`, and where on this network it can be dialled; None for those of another swarm."""
    info = AsyncServiceInfo(SERVICE, name)
    if not await info.async_request(zeroconf, _ASK_MS) or not info.port:
        return None
    if (info.properties.get(_SWARM) or b"") != _tag(key):
        return None
    identity = name.removesuffix(f".{SERVICE}")
    every = [f"/ip4/{host}/tcp/{info.port}/p2p/{identity}" for host in info.parsed_addresses() if ":" not in host]
    dialable = near(every, alone)
    author = author_in(dialable[0]) if dialable else None
    return (author, dialable[:3]) if author is not None else None


def near(addresses: Sequence[str], alone: bool) -> tuple[str, ...]:
    """Those that can be on this network: nobody on it has to send us to the internet, nor to ourselves, unless this
    node itself listens for this machine `alone`."""
    return tuple(one for one in addresses if not is_global(one) and is_loopback(one) == alone)
