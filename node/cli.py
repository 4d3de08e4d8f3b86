"""The `swarm-node` command. Heavy modules are imported inside the commands, so that the first line comes at once."""

from __future__ import annotations

import difflib
import itertools
import sys
import time
import tomllib
import traceback
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts.config import Env, Toml
from rich.console import Console

from ..protocols.errors import ConfigError, MachineError, SwarmNodeError, UsageError, disk_full, first_of, is_full
from .home import Home

if TYPE_CHECKING:
    from ..protocols.task import TaskSpec
    from ..swarm.ledger import Ledger

app = App(
    name="swarm-node",
    help="Many machines, each with its own research agent, improving one training program together.",
    version_flags=["--version"],
)

HomeDir = Annotated[Path | None, Parameter(name="--home", help="Folder for key, ledger and cache [SWARM_NODE_HOME].")]
Disk = Annotated[float, Parameter(help="GiB of other people's records to keep at most.")]


Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="", help="Log to stderr too.")]


def _whole(_: object, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    try:
        return int(text)  # cyclopts would round 1.5
    except ValueError:
        raise ValueError(f"{text} is not a whole number.") from None


_WHOLE = Parameter(converter=_whole)


def _typed(default: object) -> Parameter:
    """Takes a flag from the command line alone: `host` and `port` of the config file are where the node listens."""

    def convert(kind: object, tokens: Sequence[Token]) -> object:
        if tokens[0].source != "cli":
            return default
        return tokens[0].value if kind is str else _whole(kind, tokens)

    return Parameter(converter=convert, show_env_var=False)


@app.command
def join(
    invite: Annotated[str | None, Parameter(help="An invite printed by another node; none: start alone.")] = None,
    *,
    task: Annotated[str | None, Parameter(help="Research task [the invite's, as before, or gpt-cpu].")] = None,
    size: Annotated[
        str | None,
        Parameter(help="short, standard, long, or a number of steps [the invite's, as before, or by calibration]."),
    ] = None,
    corpus: Annotated[Path | None, Parameter(help="Your own text: a file or a folder of text files.")] = None,
    program: Annotated[Path | None, Parameter(help="Your own brief in place of the task's program.md.")] = None,
    proposer: Annotated[str, Parameter(help="auto, llm or offline.")] = "auto",
    model: Annotated[str | None, Parameter(help="Model name at the OpenAI-compatible endpoint.")] = None,
    spend_limit: Annotated[float | None, Parameter(help="Dollars after which the LLM is not asked any more.")] = None,
    token_limit: Annotated[
        int | None, _WHOLE, Parameter(help="Tokens after which the LLM is not asked any more.")
    ] = None,
    price_in: Annotated[float | None, Parameter(help="Dollars per million input tokens.")] = None,
    price_out: Annotated[float | None, Parameter(help="Dollars per million output tokens.")] = None,
    llm_share: Annotated[float, Parameter(help="Share of the proposals that the LLM makes, 0 to 1.")] = 0.5,
    llm_timeout: Annotated[float, Parameter(help="Seconds to wait for one LLM answer.")] = 120.0,
    llm_pause: Annotated[float, Parameter(help="Seconds before a failed endpoint is asked again; doubles.")] = 30.0,
    proposer_seed: Annotated[
        int | None, _WHOLE, Parameter(help="Seed of the offline proposer [from the identity].")
    ] = None,
    experiments: Annotated[int | None, _WHOLE, Parameter(help="Stop after so many finished experiments.")] = None,
    for_: Annotated[str | None, Parameter(name="--for", help="Stop after a time: 90s, 30m, 2h.")] = None,
    cpus: Annotated[int | None, _WHOLE, Parameter(help="Runs at a time [cores - 1].")] = None,
    verify: Annotated[float, Parameter(help="Share of the time for re-running peers' claims, 0 to 1.")] = 0.2,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int | None, _WHOLE, Parameter(help="Port to listen on; 0: any free one [4001 or any].")] = None,
    disk: Disk = 8.0,
    solo: Annotated[bool, Parameter(negative="", help="No network at all.")] = False,
    home: HomeDir = None,
    verbose: Verbose = False,
) -> int:
    """Join a swarm (or start one), detect the hardware, and run experiments until Ctrl-C."""
    from .screen import Screen

    screen = Screen()
    screen.say(f"swarm-node {app.version}")
    _positive(
        experiments=experiments, cpus=cpus, spend_limit=spend_limit, token_limit=token_limit, llm_timeout=llm_timeout,
        disk=disk,
    )  # fmt: skip
    _port_in_range(port)
    _not_negative(price_in=price_in, price_out=price_out, llm_pause=llm_pause)
    _shares(verify=verify, llm_share=llm_share)
    seconds = _seconds(for_) if for_ is not None else None
    _log_to(Home.locate(home), verbose)
    from .app import Settings
    from .app import join as run
    from .loop import Limits
    from .proposers.choose import ProposerSettings

    settings = Settings(
        home=home, invite=invite, task=task, size=size, corpus=corpus, program=program, host=host, port=port,
        disk_gib=disk, solo=solo, cpus=cpus, verify=verify, limits=Limits(experiments, seconds),
        proposer=ProposerSettings(
            kind=proposer, model=model, spend_limit=spend_limit, token_limit=token_limit, price_in=price_in,
            price_out=price_out, timeout=llm_timeout, pause=llm_pause, seed=proposer_seed,
            llm_share=llm_share,
        ),
    )  # fmt: skip
    return _run(run(settings, screen))


@app.command
def bootstrap(
    *,
    invite: Annotated[str | None, Parameter(help="Join an existing swarm as one more bootstrap.")] = None,
    task: Annotated[str | None, Parameter(help="Research task [the invite's, as before, or gpt-cpu].")] = None,
    size: Annotated[
        str | None, Parameter(help="short, standard, long, or a number of steps [the invite's, as before, or short].")
    ] = None,
    corpus: Annotated[Path | None, Parameter(help="The swarm's own text, when it does not use the default.")] = None,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int | None, _WHOLE, Parameter(help="Port to listen on [4001 or any].")] = None,
    disk: Disk = 8.0,
    home: HomeDir = None,
    verbose: Verbose = False,
) -> int:
    """Be easy to find: keep the history, stay put, print the invite. Trains nothing."""
    from .screen import Screen

    screen = Screen()
    screen.say(f"swarm-node {app.version}  bootstrap")
    _positive(disk=disk)
    _port_in_range(port)
    _log_to(Home.locate(home), verbose)
    from .app import Settings
    from .app import bootstrap as run

    settings = Settings(
        home=home, invite=invite, task=task, size=size, corpus=corpus, host=host, port=port, disk_gib=disk
    )
    return _run(run(settings, screen))


@app.command
def feed(
    *,
    since: Annotated[str | None, Parameter(help="Only what arrived in the last 90s, 30m, 2h, 7d.")] = None,
    wins: Annotated[bool, Parameter(negative="", help="Only kept results and verifications.")] = False,
    follow: Annotated[bool, Parameter(help="Go on showing what arrives, until Ctrl-C.")] = True,
    json: Annotated[bool, Parameter(negative="", help="One record per line, as JSON.")] = False,
    home: HomeDir = None,
) -> int:
    """Every record this node knows, past ones first, then live. Reads only the ledger."""
    from ..protocols.records import Verification
    from .feed import Feed, as_json
    from .feed import follow as entries

    start_ms = int((time.time() - _seconds(since)) * 1000) if since else 0
    with _ledger(home) as ledger:
        view = Feed(ledger)
        try:
            for entry in entries(ledger, start_ms, follow):
                body = entry.record.body
                if wins and not (isinstance(body, Verification) or body.outcome == "kept"):
                    continue
                print(as_json(entry.record) if json else view.line(entry.record), flush=True)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            sys.stderr.close()  # the reader left (`| head`); nothing to say and nobody to say it to
    return 0


@app.command
def show(
    id: Annotated[str, Parameter(help="The start of a record's id, as the feed shows it.")],
    *,
    json: bool = False,
    home: HomeDir = None,
) -> int:
    """One experiment with its evidence and its diff."""
    from .feed import as_json
    from .show import show as render

    with _ledger(home) as ledger:
        record = ledger.find(id)
        print(as_json(record) if json else render(record, ledger, _known_tasks(ledger)))
    return 0


@app.command
def board(
    *,
    techniques: Annotated[
        bool, Parameter(negative="", help="What works where: each technique's tries, wins, re-runs and median gain.")
    ] = False,
    top: Annotated[int, _WHOLE, Parameter(help="Programs of each track to show.")] = 10,
    json: Annotated[bool, Parameter(negative="", help="One object per line, as JSON.")] = False,
    home: HomeDir = None,
) -> int:
    """The best kept results of each track (task and class of hardware). Reads only the ledger."""
    import gc

    from .board import Board, board_json, board_text
    from .techniques import techniques_json, techniques_text

    _positive(top=top)
    gc.disable()  # of half a million objects that live until the end: looking for garbage took half of the time
    with _ledger(home) as ledger:
        all_tracks = Board(ledger, _known_tasks(ledger))
    if techniques:
        lines = techniques_json(all_tracks) if json else techniques_text(all_tracks)
    else:
        lines = board_json(all_tracks, top) if json else board_text(all_tracks, top)
    try:
        for line in lines:
            print(line)
    except BrokenPipeError:
        sys.stderr.close()  # the reader left (`| head`)
    if not all_tracks.tracks:
        print("no results yet", file=sys.stderr)
    if all_tracks.hidden:
        print(f"left out: {all_tracks.hidden} results of quarantined authors", file=sys.stderr)
    return 0


@app.command
def dash(
    *,
    host: Annotated[
        str, _typed("127.0.0.1"), Parameter(help="Address to listen on; 0.0.0.0: all, and a token is asked for.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, _typed(None), Parameter(help="Port to listen on; 0: any free one [4080 or any].")
    ] = None,
    token: Annotated[str | None, Parameter(help="What viewers must know [made up, where one is needed].")] = None,
    home: HomeDir = None,
) -> int:
    """Serve a web page with progress, board, feed, lineage and peers. Reads only the ledger; prints its address."""
    _port_in_range(port)
    with _ledger(home) as ledger:
        from .dash.server import dash as serve

        return _run(serve(Home.locate(home), ledger, host, port, token))


@app.command
def replay(
    id: Annotated[str, Parameter(help="The start of a record's id, as the feed shows it.")],
    *,
    corpus: Annotated[Path | None, Parameter(help="The swarm's own text, when it does not use the default.")] = None,
    home: HomeDir = None,
) -> int:
    """Run a recorded experiment again and say whether this machine agrees (exit code 8 when it does not)."""
    from .replay import replay as run
    from .screen import Screen

    with _ledger(home):
        pass  # an error now, not after the corpus was prepared
    _log_to(Home.locate(home), verbose=False)
    return _run(run(Home.locate(home), id, corpus, Screen()))


@app.command
def prompt(*, program: Path | None = None, home: HomeDir = None) -> int:
    """The exact text that the next LLM call would get."""
    from .preview import next_prompt

    with _ledger(home) as ledger:
        print(next_prompt(Home.locate(home), ledger, program))
    return 0


@app.command
def invite(*, home: HomeDir = None) -> int:
    """The invite to the swarm of the node that runs in this home."""
    import json

    with _ledger(home) as ledger:
        status = json.loads(ledger.status() or "{}")
    if not status.get("invite") or not Home.locate(home).is_in_use():
        raise ConfigError("no node runs in this home, or it cannot be dialled", fix="start one: swarm-node join")
    print(status["invite"])
    return 0


@app.command
def doctor(
    *, json: Annotated[bool, Parameter(negative="", help="One check per line.")] = False, home: HomeDir = None
) -> int:
    """Look at what a node needs on this machine, attack the sandbox, and say how to fix what is wrong."""
    from .doctor import doctor as run

    return run(Home.locate(home), json)


def main() -> None:
    """Entry point: every error becomes a message with its fix and an exit code."""
    app.version = _version()
    home = Home.locate(_home_in_arguments())
    # One file serves all commands, so each finds settings of others in it; `_check_config` knows them all.
    file = Toml(home.config, must_exist=False, use_commands_as_keys=False, allow_unknown=True)
    app.config = [Env("SWARM_NODE_", command=False), file]
    try:
        _check_config(home.config)
        code = app(exit_on_error=False, error_console=Console(stderr=True))
    except CycloptsError:  # it has printed what is wrong, with a suggestion
        code = UsageError.exit_code
    except SwarmNodeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = _unforeseen(error, home)
    sys.exit(code or 0)


def _check_config(path: Path) -> None:
    """A config file that is not TOML, or has a setting that no command knows, is our error to explain."""
    if not path.exists():
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the config file {path}", why=str(error), fix="correct or delete it") from error
    known = {
        name.strip("_").replace("_", "-")
        for command in (join, bootstrap, feed, board, dash)
        for name in signature(command).parameters
    }
    for key in settings:
        if key.replace("_", "-") not in known:
            close = difflib.get_close_matches(key.replace("_", "-"), known, 1)
            why = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise ConfigError(
                f"the config file {path} has an unknown setting {key!r}", why=why, fix="correct or delete it"
            )


def _unforeseen(error: Exception, home: Home) -> int:
    """A full disk may fail any write; all else is a bug."""
    if isinstance(error, OSError) and is_full(error):
        print(f"error: {disk_full(error.filename or home.data, error)}", file=sys.stderr)
        return MachineError.exit_code
    return _bug(error)


def _bug(error: Exception) -> int:
    report = Home.locate(_home_in_arguments()).data / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    text = "".join(traceback.format_exception(error))
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text, encoding="utf-8")
        where = f"the report is in {report}"
    except OSError:
        where = text
    print(f"error: this is a bug in swarm-node: {type(error).__name__}: {error}\n  {where}", file=sys.stderr)
    return 1


def _home_in_arguments() -> Path | None:
    given = [value for flag, value in itertools.pairwise(sys.argv) if flag == "--home"]
    given += [word.removeprefix("--home=") for word in sys.argv if word.startswith("--home=")]
    return Path(given[-1]) if given else None


def _run(work: object) -> int:
    import uvloop

    try:
        return uvloop.run(work)  # type: ignore[arg-type]
    except BaseExceptionGroup as group:  # TaskGroups wrap; people want the error itself
        raise first_of(group) from group


def _version() -> str:
    from importlib.metadata import version

    return version("swarm-node")


def _ledger(home: Path | None) -> Ledger:
    from ..swarm.ledger import Ledger

    path = Home.locate(home).ledger
    if not path.exists():
        raise ConfigError(
            f"there is no ledger in {path.parent}", why="no node has run here", fix="start one: swarm-node join"
        )
    return Ledger.open(path, read_only=True)


def _known_tasks(ledger: Ledger) -> dict[bytes, TaskSpec]:
    from .tasks import known_tasks

    return known_tasks(ledger)


def _log_to(home: Home, verbose: bool) -> None:
    from .logs import log_to

    log_to(home, verbose)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise UsageError(f"{text!r} is not a time", why="a time is a number and a unit: 90s, 30m, 2h, 7d")
    return seconds


def _positive(**flags: float | None) -> None:
    for name, value in flags.items():
        if value is not None and not 0 < value < 1e12:
            raise _senseless(name, value, "it must be greater than zero")


def _not_negative(**flags: float | None) -> None:
    for name, value in flags.items():
        if value is not None and not 0 <= value < 1e12:
            raise _senseless(name, value, "it must be zero or more")


def _shares(**flags: float) -> None:
    for name, value in flags.items():
        if not 0 <= value <= 1:
            raise _senseless(name, value, "it is a share, from 0 to 1")


def _senseless(name: str, value: float, why: str) -> UsageError:
    flag = "--" + name.replace("_", "-")
    return UsageError(f"{flag} {value} makes no sense", why=why, fix=f"give another number, or leave out {flag}")


def _port_in_range(port: int | None) -> None:
    if port is not None and not 0 <= port <= 65535:
        raise _senseless("port", port, "a port is a number from 0 (any free one) to 65535")


if __name__ == "__main__":
    main()
