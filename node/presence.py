"""A node's place in the swarm: where it listens and invites to, how others find it, and who comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..protocols.errors import NetworkError
from ..protocols.invites import Invite, encode_invite
from ..protocols.names import nickname
from ..protocols.records import Hello, Notice, Record
from ..protocols.task import TaskSpec
from ..swarm.addresses import through_relay
from ..swarm.ledger import Ledger
from .arguments import check_address
from .loop import hello_seconds
from .names import Names
from .screen import Screen
from .supervision import Supervision

if TYPE_CHECKING:
    from ..swarm.net import Network, NetworkConfig
    from .app import Settings

_DEFAULT_PORT = 4001
VISIT_SECONDS = 20.0
_ALONE_SECONDS = 20.0
_ADDRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Listeners:
    """Who is told what the network brings, and asked what this node says of itself."""

    record: Callable[[Record], None]
    notice: Callable[[Notice], None]
    network: Callable[[Network | None], None]  # another one, or none while it begins again
    hello: Callable[[tuple[str, ...]], Hello]  # with the addresses that it is to tell


class Presence:
    """The network of a node, started and kept; everything that the screen says of it."""

    def __init__(
        self,
        settings: Settings,
        seed: bytes,
        invite: Invite | None,
        key: bytes | None,
        ledger: Ledger,
        screen: Screen,
        told: Listeners,
        *,
        hub: bool,
    ) -> None:
        """`seed`: of the identity. `key`: of a private swarm. `hub`: whether it keeps history and relays."""
        self._settings, self._seed, self._invite, self._key = settings, seed, invite, key
        self._ledger, self._screen, self._told, self._hub = ledger, screen, told, hub
        self.network: Network | None = None
        self._spec: TaskSpec | None = None
        self._shared: Mapping[str, Path] = {}
        self._names = Names(ledger)
        self._known: set[bytes] = set()
        self._dialled = 0

    async def start(self, spec: TaskSpec, shared: Mapping[str, Path]) -> None:
        """Listen, and dial invited and remembered peers in the background. `shared`: slices of the text that others
        may fetch."""
        self._spec, self._shared = spec, shared
        config = self._config(spec.id, shared)
        self._use(await self._started(config, self._on_record, self._told.notice, self._on_peers))
        network = self.network
        assert network is not None
        port = _port_of(network.addresses())
        if port:
            self._ledger.journal_put("node", "port", str(port))
        self._dialled = len(config.dial)
        self._show()

    @contextlib.asynccontextmanager
    async def visit(self, task: bytes) -> AsyncIterator[Network]:
        """The swarm of the task with this id, to ask it something before this node takes part; NetworkError when
        nobody answers."""
        came = asyncio.Event()
        nothing = lambda _: None  # noqa: E731
        network = await self._started(self._config(task, {}), nothing, nothing, came.set)
        try:
            self._screen.busy(-1, "dialling the swarm")
            try:
                await asyncio.wait_for(came.wait(), VISIT_SECONDS)
            except TimeoutError as error:
                why = "nobody whom the invite names answers"
                fix = "try again when a node of it runs; or get the text itself, and add --corpus PATH"
                what = "the swarm's task cannot be rebuilt here, and nobody can be asked for its text"
                raise NetworkError(what, why=why, fix=fix) from error
            yield network
        finally:
            self._screen.idle(-1)
            await network.stop()

    def _config(self, task: bytes, shared: Mapping[str, Path]) -> NetworkConfig:
        from ..swarm.net import Limits, NetworkConfig

        cap = self._settings.bandwidth
        dial = [*(self._invite.addresses if self._invite else ()), *self._ledger.remembered_peers(32)]
        return NetworkConfig(
            seed=self._seed,
            listen=(f"/ip4/{self._settings.host}/tcp/{self._port()}",),
            dial=tuple(dict.fromkeys(dial)),
            task=task,
            shared=shared,
            key=self._key,
            hub=self._hub,
            bytes_per_second=cap * 1e6 / 8 if cap is not None else None,
            limits=Limits(stored_bytes=self._settings.record_bytes),
        )

    async def _started(
        self,
        config: NetworkConfig,
        on_record: Callable[[Record], None],
        on_notice: Callable[[Notice], None],
        on_peers: Callable[[], None],
    ) -> Network:
        from ..swarm.net import Network

        network = Network(config, self._ledger, on_record=on_record, on_notice=on_notice, on_peers=on_peers)
        self._screen.busy(-1, "starting libp2p")
        try:
            await network.start()
        finally:
            self._screen.idle(-1)
        return network

    async def stop(self) -> None:
        """Leave politely."""
        if self.network is not None:
            with contextlib.suppress(Exception):
                await self.network.stop()

    async def run(self, supervision: Supervision) -> None:
        """Be there, until cancelled; each duty fails and begins again alone. For one that was started."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervision.keep("hello", self._say_hello))
            group.create_task(self._tell_when_alone())
            group.create_task(supervision.keep("names", lambda: self._names.run(lambda: self.network)))
            group.create_task(supervision.keep("network", self._keep))
            if self._settings.lan:
                group.create_task(supervision.keep("local network", self._look_around))

    def invite(self) -> str:
        """The invite to this node's swarm; nothing when there is no way to it."""
        addresses = self._to_tell(3)
        if self._spec is None or not addresses:
            return ""
        task = f"{self._spec.name}/{self._spec.size}"
        return encode_invite(Invite(addresses=addresses, task=task, task_id=self._spec.id, key=self._key))

    def _use(self, network: Network | None) -> None:
        self.network = network
        self._told.network(network)

    def _port(self) -> int:
        """The port asked for, else the one used last time, else 4001 or any free one."""
        if self._settings.port is not None:
            return self._settings.port
        remembered = self._ledger.journal("node").get("port")
        for port in (*((int(remembered),) if remembered else ()), _DEFAULT_PORT):
            try:
                check_address(self._settings.host, port)
                return port
            except NetworkError:
                pass  # the next one
        return 0

    def _show(self) -> None:
        """The peers line and the invite."""
        known = self._dialled
        alone = "working alone, nothing is lost" if known == 0 else "dialling them"
        self._screen.item("peers", f"{known} invited or remembered: {alone}")
        if self._settings.lan:
            self._screen.item("", "looking for others on this network   (--no-lan: do not)")
        text = self.invite()
        if not text:
            self._screen.item("", "this machine has no address that others could dial")
            return
        if self._key is not None:
            self._screen.item(
                "", "a private swarm: who has an invite can join and read everything; nobody else can connect"
            )
        self._screen.item("", f"invite others:  swarm-node join {text}")

    def _on_record(self, record: Record) -> None:
        self._names.heard(record)
        self._told.record(record)

    def _on_peers(self) -> None:
        if self.network is None:
            return
        peers = {peer.author for peer in self.network.peers()}
        for author in sorted(peers - self._known):
            self._screen.item("peers", f"+ {nickname(author)} connected ({len(peers)} now)")
        for author in sorted(self._known - peers):
            self._screen.item("peers", f"- {nickname(author)} left ({len(peers)} now)")
        self._known = peers

    # ---- duties

    async def _say_hello(self) -> None:
        while True:
            network = self.network
            if network is not None:
                with contextlib.suppress(Exception):  # a hello is a courtesy; the next one comes soon
                    await network.announce(self._told.hello(self._to_tell(6)))
            await asyncio.sleep(hello_seconds(network) if network is not None else 1.0)

    async def _tell_when_alone(self) -> None:
        """Say once when peers were to be dialled and none answered for a while."""
        await asyncio.sleep(_ALONE_SECONDS)
        if self._dialled and not self._known:
            self._screen.item("peers", f"none of {self._dialled} answers yet: working alone, dialling goes on")

    async def _keep(self) -> None:
        """Until the libp2p thread ends unasked."""
        if self.network is None:
            assert self._spec is not None
            await self.start(self._spec, self._shared)
        assert self.network is not None
        error = await self.network.crashed
        self._use(None)
        raise NetworkError("the network crashed", why=repr(error)) from error

    async def _look_around(self) -> None:
        """Find nodes on the local network, and be found; anew when this machine's addresses have changed."""
        from ..swarm.lan import discover

        async def found(author: bytes, where: tuple[str, ...]) -> None:
            if self.network is not None:
                with contextlib.suppress(NetworkError):  # it is being restarted
                    await self.network.suggest(author, where)

        told = False
        while True:
            addresses = self._direct()
            looking = asyncio.create_task(discover(addresses, found, self._key)) if addresses else None
            try:
                while looking is None or not looking.done():
                    await asyncio.sleep(_ADDRESS_SECONDS)
                    if self._direct() != addresses:
                        break
                else:
                    await looking
            except OSError as error:  # no network yet, or one without multicast: tried again when it changes
                if not told:
                    self._screen.item("peers", f"nodes on this network cannot be found: {error.strerror or error}")
                told = True
                while self._direct() == addresses:  # noqa: ASYNC110  # nothing tells us
                    await asyncio.sleep(_ADDRESS_SECONDS)
            finally:
                if looking is not None:
                    looking.cancel()
                    await asyncio.wait([looking])

    # ---- addresses

    def _direct(self) -> tuple[str, ...]:
        """Where this node can be dialled without a relay."""
        addresses = self.network.addresses() if self.network is not None else ()
        return tuple(address for address in addresses if through_relay(address) is None)

    def _to_tell(self, direct: int) -> tuple[str, ...]:
        """Some of each kind, for an invite or a hello."""
        addresses = self.network.addresses() if self.network is not None else ()
        relayed = [address for address in addresses if through_relay(address) is not None]
        return (*self._direct()[:direct], *relayed[:2])


def _port_of(addresses: Sequence[str]) -> int | None:
    for address in addresses:
        parts = address.split("/")
        if "tcp" in parts:
            return int(parts[parts.index("tcp") + 1])
    return None
