"""What the flags of several commands have in common: their types, checks of their values, and the ledger they read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token

from ..protocols.errors import ConfigError, UsageError
from .home import Home

if TYPE_CHECKING:
    from ..protocols.task import TaskSpec
    from ..swarm.ledger import Ledger

HomeDir = Annotated[Path | None, Parameter(name="--home", help="Folder for key, ledger and cache [SWARM_NODE_HOME].")]
Disk = Annotated[float, Parameter(help="GiB of other people's records and programs to keep at most.")]
Bandwidth = Annotated[float | None, Parameter(help="Megabits per second to send, and to receive, at most [no cap].")]
ShareCorpus = Annotated[
    bool | None,
    Parameter(help="Let other nodes fetch the text [in a private swarm, or one that came from the swarm]."),
]
Private = Annotated[bool, Parameter(negative="", help="Start a swarm that nobody can connect to without its invite.")]
Lan = Annotated[bool, Parameter(help="Find nodes on the local network, and be found there.")]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="", help="Log to stderr too.")]
Json = Annotated[bool, Parameter(negative="", help="As JSON, for programs.")]
RecordId = Annotated[str, Parameter(help="The start of a record's id, as the feed shows it.")]
TRACK = "A track, as `board` names it, or the start of its name or task id [this home's]."


def _whole(_: object, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    try:
        return int(text)  # cyclopts would round 1.5
    except ValueError:
        raise ValueError(f"{text} is not a whole number.") from None


WHOLE = Parameter(converter=_whole)


def ledger_of(home: Path | None) -> Ledger:
    """The ledger of a home, to read from; ConfigError when there is none."""
    from ..swarm.ledger import Ledger

    path = Home.locate(home).ledger
    if not path.exists():
        raise ConfigError(
            f"there is no ledger in {path.parent}", why="no node has run here", fix="start one: swarm-node join"
        )
    return Ledger.open(path, read_only=True)


def known_tasks(ledger: Ledger) -> dict[bytes, TaskSpec]:
    """Every task whose name is known here, by id."""
    from .tasks import known_tasks

    return known_tasks(ledger)


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON on stdout; digests and keys are hex."""
    from .feed import json_line

    print(json_line(value), flush=True)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """How long 90s, 30m, 2h or 7d are; UsageError for anything else."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        found = float(number) * _UNITS[unit]
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise UsageError(f"{text!r} is not a time", why="a time is a number and a unit: 90s, 30m, 2h, 7d")
    return found


def positive(**flags: float | None) -> None:
    """UsageError unless each is greater than zero, or not given."""
    for name, value in flags.items():
        if value is not None and not 0 < value < 1e12:
            raise _senseless(name, value, "it must be greater than zero")


def enough(bandwidth: float | None) -> None:
    """UsageError for a cap under which connections would not live: one frame would hold up the next ping."""
    if bandwidth is not None and not 1 <= bandwidth < 1e6:
        raise _senseless("bandwidth", bandwidth, "it must be at least 1 megabit per second")


def not_negative(**flags: float | None) -> None:
    """UsageError unless each is zero or more, or not given."""
    for name, value in flags.items():
        if value is not None and not 0 <= value < 1e12:
            raise _senseless(name, value, "it must be zero or more")


def shares(**flags: float) -> None:
    """UsageError unless each is from 0 to 1."""
    for name, value in flags.items():
        if not 0 <= value <= 1:
            raise _senseless(name, value, "it is a share, from 0 to 1")


def port_in_range(port: int | None) -> None:
    """UsageError when it cannot be a port."""
    if port is not None and not 0 <= port <= 65535:
        raise _senseless("port", port, "a port is a number from 0 (any free one) to 65535")


def _senseless(name: str, value: float, why: str) -> UsageError:
    flag = "--" + name.replace("_", "-")
    return UsageError(f"{flag} {value} makes no sense", why=why, fix=f"give another number, or leave out {flag}")
