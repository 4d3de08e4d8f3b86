"""Multiaddrs as this network uses them: /ip4|ip6|dns*/HOST/tcp/PORT/p2p/ID, through a relay followed by
/p2p-circuit/p2p/ID. Pure but for the list of interfaces."""

from __future__ import annotations

import ipaddress
import re
import socket

import psutil

from ..protocols.names import author_of, peer_id

CIRCUIT = "p2p-circuit"
_ADDRESS = re.compile(
    r"/(ip4|ip6|dns|dns4|dns6)/([A-Za-z0-9.:_-]{1,200})/tcp/(\d{1,5})/p2p/(\w{40,80})(?:/p2p-circuit/p2p/(\w{40,80}))?"
)


def author_in(address: str) -> bytes | None:
    """The author that a dialable address names; None when it is not one that can be dialled."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[3]) < 65536:
        return None
    try:
        if match[1] in ("ip4", "ip6") and ipaddress.ip_address(match[2]).version != int(match[1][2]):
            return None
        authors = [author_of(name) for name in match.groups()[3:] if name is not None]
        return authors[-1] if len(set(authors)) == len(authors) else None  # nobody is behind itself
    except ValueError:
        return None


def through_relay(address: str) -> tuple[str, str] | None:
    """The relay's address and the peer id behind it; None for an address that needs no relay."""
    relay, found, target = address.partition(f"/{CIRCUIT}/p2p/")
    return (relay, target) if found else None


def host_of(address: str) -> str:
    """The host part of a multiaddr."""
    return [*address.split("/"), "", "", ""][2]


def is_loopback(address: str) -> bool:
    """Whether the address only means this machine."""
    try:
        return ipaddress.ip_address(host_of(address)).is_loopback
    except ValueError:
        return False


def is_global(address: str) -> bool:
    """Whether it is an address of the internet."""
    try:
        return ipaddress.ip_address(host_of(address)).is_global
    except ValueError:
        return False


def dialable(bound: list[tuple[str, int]], author: bytes) -> tuple[str, ...]:
    """The addresses at which others can dial sockets bound to these (ip, port) pairs, the most public first."""
    out: list[tuple[int, str]] = []
    for ip, port in bound:
        address = ipaddress.ip_address(ip)
        hosts = _interfaces(address.version) if address.is_unspecified else [address]
        for host in hosts:
            text = f"/ip{host.version}/{host}/tcp/{port}/p2p/{peer_id(author)}"
            out.append((0 if host.is_global else 2 if str(host).startswith("172.") else 1, text))
    return tuple(dict.fromkeys(text for _, text in sorted(out, key=lambda item: item[0])))


def _interfaces(version: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = [
        ipaddress.ip_address(entry.address.partition("%")[0])
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family == family
    ]
    return [address for address in found if not address.is_loopback and not address.is_link_local]
