"""`swarm-node config show`: every setting of `join`, with its value and where that comes from."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App
from cyclopts.config import Env, Toml

from .home import Home

if TYPE_CHECKING:
    from cyclopts import ArgumentCollection

    from ..protocols.task import TaskSpec

PREFIX = "SWARM_NODE_"


@dataclass(frozen=True)
class Setting:
    """One setting. `value` is None when it is left to the node; `reason` says what the node does then, or why."""

    name: str  # of the flag, without dashes
    value: bool | int | float | str | None
    source: str  # flag, SWARM_NODE_PORT, config.toml, the invite, as before, default
    reason: str = ""
    is_path: bool = False
    has_no: bool = False  # there is a --no-NAME


def sources(path: Path) -> list[Any]:
    """Where settings come from besides flags, those that win first. One file serves all commands, so each finds
    settings of others in it."""
    file = Toml(path, must_exist=False, use_commands_as_keys=False, allow_unknown=True)
    return [Env(PREFIX, command=False), file]


def read(app: App, flags: Sequence[str], command: str = "join") -> list[Setting]:
    """What `join`, or `bootstrap`, would be told: flag > environment > config file > default. What is wrong with the
    flags is raised as it would."""
    heard: list[ArgumentCollection] = []
    usual = app.config
    app.config = [*(usual or ()), lambda _app, _commands, arguments: heard.append(arguments)]
    try:
        _, bound, _ = app.parse_args([command, *flags], print_error=False, exit_on_error=False)
    finally:
        app.config = usual
    found: list[Setting] = []
    for argument in heard[-1]:
        field = argument.field_info
        value = bound.arguments.get(field.name, field.default)
        token = argument.tokens[0] if argument.tokens else None
        source = "default" if token is None else {"cli": "flag", "env": token.keyword or ""}.get(token.source)
        hint = re.search(r"\[(.+)]\.$", argument.parameter.help or "") if value is None else None
        is_path = isinstance(value, Path)
        found.append(
            Setting(
                argument.name.lstrip("-"), str(value) if is_path else value, source or "config.toml",
                hint[1] if hint else "", is_path, any(name.startswith("--no-") for name in argument.names),
            )
        )  # fmt: skip
    return found


def resolve(
    settings: Sequence[Setting], home: Home, last: TaskSpec | None, own: Mapping[str, Path]
) -> Iterator[Setting]:
    """The settings with what a node finds out by itself in their place, and the secrets by whether they are set.
    `last`: what this home worked on before; `own`: the folders of the user's own tasks."""
    from ..protocols.invites import decode_invite
    from ..trainer.hardware import detect
    from .choice import choose_task
    from .proposers.endpoint import Endpoint
    from .proposers.llm import api_settings

    by_name = {one.name: one.value for one in settings}
    text = by_name["invite"]
    invite = decode_invite(str(text), now=time.time()) if text else None
    asked = [None if by_name[name] is None else str(by_name[name]) for name in ("task", "size")]
    choice = choose_task(asked[0], asked[1], invite, last, own)
    whose = "the invite's" if invite and not choice.invited else "as before" if last and not invite else "default"
    for one in settings:
        if one.name == "task" and one.value is None:
            yield Setting("task", choice.task, whose)
        elif one.name == "size" and one.value is None and choice.size is not None:
            yield Setting("size", choice.size, whose)
        elif one.name == "cpus" and one.value is None:
            hardware = detect()
            reason = next(fact.reason for fact in hardware.facts if fact.name == "runs at a time")
            yield Setting("cpus", hardware.research_cores, "default", reason)
        elif one.name == "home" and one.value is None:
            yield Setting("home", str(home.data), "default")
        else:
            yield one
    key, address = api_settings()
    yield Setting(
        "OPENAI_API_KEY", "set" if key else None, "environment" if key else "default", "" if key else "not set"
    )
    where = Endpoint(api_key=key, base_url=address, model="").where if address else None
    yield Setting("OPENAI_BASE_URL", where, "environment" if address else "default", "" if address else "not set")


def lines(settings: Sequence[Setting]) -> Iterator[str]:
    """For a reader."""
    for one in settings:
        value = "-" if one.value is None else str(one.value).lower() if isinstance(one.value, bool) else str(one.value)
        reason = f"   ({one.reason})" if one.reason else ""
        yield f"  {one.name:<16} {value:<24} {one.source}{reason}"


def as_flags(settings: Sequence[Setting]) -> list[str]:
    """The command line that gives what flags and the environment give now, with paths that are good in any folder:
    for a service, which starts elsewhere and without this shell's environment."""
    from ..trainer.task import TASKS

    words: list[str] = []
    for one in settings:
        if one.source != "flag" and not one.source.startswith(PREFIX):
            continue
        is_folder = one.name == "task" and Path(str(one.value)).expanduser().is_dir()
        is_path = one.is_path or (is_folder and one.value not in TASKS)
        value = os.path.abspath(Path(str(one.value)).expanduser()) if is_path else str(one.value)
        if one.name == "invite":
            words.insert(0, value)
        elif isinstance(one.value, bool):
            words += [f"--{one.name}"] if one.value else [f"--no-{one.name}"] if one.has_no else []
        else:
            words += [f"--{one.name}", value]
    return words
