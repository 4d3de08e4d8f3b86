"""Real hosts behind real NAT: network namespaces, two routers that masquerade, and a hub on the open side."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from .conftest import TINY, NodeProcess

ROUTER = """
table ip nat {
 chain leaving {
  type nat hook postrouting priority 100;
  oifname "outside" masquerade
 }
}
table ip filter {
 chain through {
  type filter hook forward priority 0; policy drop;
  iifname "inside" accept
  ct state established,related accept
 }
}
"""
HUB = "203.0.113.10"


class Lab:
    """A switch with a hub, and homes behind routers of their own."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def host(self, name: str) -> str:
        """A new host without links; the name of its namespace."""
        space = f"swarm-{os.getpid()}-{name}"
        do("ip", "netns", "add", space)
        self.names.append(space)
        do("ip", "-n", space, "link", "set", "lo", "up")
        return space

    def link(self, one: str, its: str, other: str, theirs: str) -> None:
        """A cable between two hosts."""
        do("ip", "link", "add", its, "netns", one, "type", "veth", "peer", "name", theirs, "netns", other)
        for space, device in ((one, its), (other, theirs)):
            do("ip", "-n", space, "link", "set", device, "up")

    def plug(self, space: str, switch: str, address: str) -> None:
        """Connect a host to the open network."""
        port = f"p{len(self.names)}"
        self.link(space, "outside", switch, port)
        do("ip", "-n", switch, "link", "set", port, "master", "switch")
        do("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "outside")

    def close(self) -> None:
        for space in self.names:
            subprocess.run(["ip", "netns", "del", space], check=False)


def do(*command: str, say: str | None = None) -> None:
    done = subprocess.run(command, input=say, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


@pytest.fixture
def homes() -> Iterator[dict[str, str]]:
    """Namespaces: `hub`, and `one` and `two` behind a router each, which nobody outside can reach."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
        pytest.skip("needs root, iproute2 and nftables (Debian, Ubuntu: apt install iproute2 nftables)")
    lab = Lab()
    try:
        try:
            switch = lab.host("switch")
        except AssertionError as error:
            pytest.skip(f"no network namespaces here: {error}")
        do("ip", "-n", switch, "link", "add", "switch", "type", "bridge")
        do("ip", "-n", switch, "link", "set", "switch", "up")
        found = {"hub": lab.host("hub")}
        lab.plug(found["hub"], switch, HUB)
        for number, name in enumerate(("one", "two"), 1):
            router, host = lab.host(f"router{number}"), lab.host(name)
            lab.plug(router, switch, f"203.0.113.{number}")
            lab.link(router, "inside", host, "lan")
            do("ip", "-n", router, "addr", "add", f"10.0.{number}.1/24", "dev", "inside")
            do("ip", "-n", host, "addr", "add", f"10.0.{number}.2/24", "dev", "lan")
            do("ip", "-n", host, "route", "add", "default", "via", f"10.0.{number}.1")
            do("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            do("ip", "netns", "exec", router, "nft", "-f", "-", say=ROUTER)
            found[name] = host
        yield found
    finally:
        lab.close()


def says(node: NodeProcess, command: str, words: str) -> None:
    """A command that looks at a node's home says this, once the node has written it there (each second)."""
    for _ in range(20):
        if words in (said := node.command(command)):
            return
    raise AssertionError((words, said, node.lines))


@pytest.mark.long
def test_nodes_behind_nat_meet_through_the_hub(start: Callable[..., NodeProcess], homes: dict[str, str]) -> None:
    """Both can only dial out. They connect to each other by relay, say so, and come back after the hub was killed."""

    def node(name: str, *args: str) -> NodeProcess:
        inside = ("ip", "netns", "exec", homes[name])
        return start(name, "bootstrap", "--size", TINY, "--port", "4001", *args, inside=inside)

    hub = node("hub")
    invite = hub.wait_for(r"swarm-node join (swarm1\S+)")[1]
    name = hub.wait_for(r"^ +node +(\S+)")[1]
    one, two = node("one", "--invite", invite), node("two", "--invite", invite)
    for each in (one, two):
        each.wait_for(r"\+ \S+ connected \(2 now\)", 120)
        says(each, "peers", f"through {name}")
        says(each, "status", f"by nobody yet, and through {name}")
    says(hub, "status", "yes, by ")
    hub.kill()
    marks = [len(one.lines), len(two.lines)]
    again = node("hub")
    again.wait_for("Ctrl-C to stop")
    for each, mark in zip((one, two), marks, strict=True):
        each.wait_for(r"\+ \S+ connected \(2 now\)", 120, after=mark)
