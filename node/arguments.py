"""What the command line said, looked at before anything is made or started."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from typing import TYPE_CHECKING

from ..protocols.errors import NetworkError, UsageError
from ..protocols.invites import decode_invite
from ..trainer import task as tasks
from ..trainer.corpus import check_source
from .choice import choose_task
from .home import Home

if TYPE_CHECKING:
    from .app import Settings


def check(settings: Settings, home: Home) -> None:
    """An error for what can be found wrong at once. What needs the whole text or the past of this home is not looked
    at: the node finds it when it reads them."""
    if not settings.solo:
        check_address(settings.host, settings.port or 0)
    if settings.corpus is not None:
        check_source(settings.corpus)
    if not home.ledger.exists():  # else the task may be the one that was worked on before
        invite = decode_invite(settings.invite, now=time.time()) if settings.invite else None
        choice = choose_task(settings.task, settings.size, invite, None)
        task = tasks.load(choice.task, choice.start, bytes(32), settings.program, choice.folder)
        if settings.corpus is None and (corpus := tasks.define(task.spec.name, choice.folder).corpus):
            check_source(corpus)


def check_address(host: str, port: int) -> None:
    """UsageError or NetworkError unless a node can listen there now. `port` 0: any free one."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError as error:
        fix = "--host 127.0.0.1 for this machine alone; without --host a node listens on all of its addresses"
        raise UsageError(
            f"--host {host} makes no sense", why="it is not an IPv4 address, such as 192.0.2.7", fix=fix
        ) from error
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                what, fix = f"this machine has no address {host}", "leave out --host to listen on all that it has"
            elif error.errno == errno.EADDRINUSE:
                what, fix = f"port {port} is in use", "take any free port: swarm-node join --port 0"
            else:
                what, fix = f"cannot listen on {host}, port {port}", "take any free port: swarm-node join --port 0"
            raise NetworkError(what, why=error.strerror or str(error), fix=fix) from error
