"""The `swarm-node` command. Heavy modules are imported inside the commands, so that the first line comes at once."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from ..protocols.errors import ConfigError, MachineError, SwarmNodeError, UsageError, disk_full, is_full
from .commands import apply, board, dash, doctor, export, invite, metrics, peers, prompt, replay, show, status
from .flags import (
    WHOLE,
    Bandwidth,
    Disk,
    HomeDir,
    Json,
    Lan,
    Private,
    ShareCorpus,
    Verbose,
    enough,
    not_negative,
    port_in_range,
    positive,
    shares,
)  # fmt: skip
from .flags import ledger_of as _ledger
from .flags import seconds as _seconds
from .home import Home
from .settings import PREFIX, sources
from .task_commands import task as task_app

START = Group("Learn these three first", sort_key=0)
LOOK = Group("See what was found", sort_key=1)
TAKE = Group("Take it out, check it, invite others", sort_key=2)
SET_UP = Group("Set up", sort_key=3)

app = App(
    name="swarm-node",
    help="Many machines, each with its own research agent, improving one training program together.",
    help_format="plaintext",  # Markdown would cost a tenth of a second
    result_action="return_value",
    version=lambda: _version(),
    version_flags=["--version"],
)

_SCREENFUL = 100  # records of the past that a terminal shows


@app.command(group=START, sort_key=0)
def join(
    invite: Annotated[str | None, Parameter(help="An invite printed by another node; none: start alone.")] = None,
    *,
    task: Annotated[
        str | None, Parameter(help="Research task, or the folder of your own [the invite's, as before, or gpt-cpu].")
    ] = None,
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
        int | None, WHOLE, Parameter(help="Tokens after which the LLM is not asked any more.")
    ] = None,
    price_in: Annotated[float | None, Parameter(help="Dollars per million input tokens.")] = None,
    price_out: Annotated[float | None, Parameter(help="Dollars per million output tokens.")] = None,
    llm_share: Annotated[float, Parameter(help="Share of the proposals that the LLM makes, 0 to 1.")] = 0.5,
    llm_timeout: Annotated[float, Parameter(help="Seconds to wait for one LLM answer.")] = 120.0,
    llm_pause: Annotated[float, Parameter(help="Seconds before a failed endpoint is asked again; doubles.")] = 30.0,
    proposer_seed: Annotated[
        int | None, WHOLE, Parameter(help="Seed of the offline proposer [from the identity].")
    ] = None,
    experiments: Annotated[int | None, WHOLE, Parameter(help="Stop after so many finished experiments.")] = None,
    for_: Annotated[str | None, Parameter(name="--for", help="Stop after a time: 90s, 30m, 2h.")] = None,
    cpus: Annotated[int | None, WHOLE, Parameter(help="Runs at a time [cores - 1].")] = None,
    verify: Annotated[float, Parameter(help="Share of the time for re-running peers' claims, 0 to 1.")] = 0.2,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int | None, WHOLE, Parameter(help="Port to listen on; 0: any free one [4001 or any].")] = None,
    disk: Disk = 8.0,
    bandwidth: Bandwidth = None,
    private: Private = False,
    share_corpus: ShareCorpus = None,
    lan: Lan = True,
    solo: Annotated[bool, Parameter(negative="", help="No network at all.")] = False,
    home: HomeDir = None,
    verbose: Verbose = False,
) -> int:
    """Join a swarm (or start one), detect the hardware, and run experiments until Ctrl-C."""
    from .screen import Screen

    screen = Screen()
    screen.say(f"swarm-node {_version()}")
    positive(
        experiments=experiments, cpus=cpus, spend_limit=spend_limit, token_limit=token_limit, llm_timeout=llm_timeout,
        disk=disk,
    )  # fmt: skip
    port_in_range(port)
    enough(bandwidth)
    not_negative(price_in=price_in, price_out=price_out, llm_pause=llm_pause)
    shares(verify=verify, llm_share=llm_share)
    seconds = _seconds(for_) if for_ is not None else None
    from .logs import log_to

    log_to(Home.locate(home), verbose)
    from .app import Settings
    from .app import join as run
    from .loop import Limits
    from .proposers.choose import ProposerSettings

    settings = Settings(
        home=home, invite=invite, task=task, size=size, corpus=corpus, program=program, host=host, port=port,
        disk_gib=disk, bandwidth=bandwidth, solo=solo, private=private, share_corpus=share_corpus, lan=lan,
        cpus=cpus, verify=verify,
        limits=Limits(experiments, seconds),
        proposer=ProposerSettings(
            kind=proposer, model=model, spend_limit=spend_limit, token_limit=token_limit, price_in=price_in,
            price_out=price_out, timeout=llm_timeout, pause=llm_pause, seed=proposer_seed,
            llm_share=llm_share,
        ),
    )  # fmt: skip
    from .signals import run_to_end

    return run_to_end(run(settings, screen))


@app.command(group=START, sort_key=1)
def bootstrap(
    *,
    invite: Annotated[str | None, Parameter(help="Join an existing swarm as one more bootstrap.")] = None,
    task: Annotated[
        str | None, Parameter(help="Research task, or the folder of your own [the invite's, as before, or gpt-cpu].")
    ] = None,
    size: Annotated[
        str | None, Parameter(help="short, standard, long, or a number of steps [the invite's, as before, or short].")
    ] = None,
    corpus: Annotated[Path | None, Parameter(help="The swarm's own text, when it does not use the default.")] = None,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int | None, WHOLE, Parameter(help="Port to listen on [4001 or any].")] = None,
    disk: Disk = 8.0,
    bandwidth: Bandwidth = None,
    private: Private = False,
    share_corpus: ShareCorpus = None,
    lan: Lan = True,
    home: HomeDir = None,
    verbose: Verbose = False,
) -> int:
    """Be easy to find: keep the history, stay put, print the invite. Trains nothing."""
    from .screen import Screen

    screen = Screen()
    screen.say(f"swarm-node {_version()}  bootstrap")
    positive(disk=disk)
    port_in_range(port)
    enough(bandwidth)
    from .logs import log_to

    log_to(Home.locate(home), verbose)
    from .app import Settings
    from .app import bootstrap as run

    settings = Settings(
        home=home,
        invite=invite,
        task=task,
        size=size,
        corpus=corpus,
        host=host,
        port=port,
        disk_gib=disk,
        bandwidth=bandwidth,
        lan=lan,
        private=private,
        share_corpus=share_corpus,
    )
    from .signals import run_to_end

    return run_to_end(run(settings, screen))


@app.command(group=START, sort_key=2)
def feed(
    *,
    since: Annotated[str | None, Parameter(help="Only what arrived in the last 90s, 30m, 2h, 7d.")] = None,
    last: Annotated[
        int | None, WHOLE, Parameter(help="Of the past, so many records [100 in a terminal, else all].")
    ] = None,
    wins: Annotated[bool, Parameter(negative="", help="Only kept results and verifications.")] = False,
    follow: Annotated[bool, Parameter(help="Go on showing what arrives, until Ctrl-C.")] = True,
    json: Annotated[bool, Parameter(negative="", help="One record per line, as JSON.")] = False,
    home: HomeDir = None,
) -> int:
    """What this node knows, past records first, then live, with what it is doing now. Reads only the ledger."""
    from .feed import POLL, Feed, as_json, entries

    positive(last=last)
    start_ms = int((time.time() - _seconds(since)) * 1000) if since else 0
    live = not json and sys.stdout.isatty()
    if live and last is None and not since:
        last = _SCREENFUL
    with _ledger(home) as ledger:
        found = entries(ledger, since_ms=start_ms, last=last, wins=wins, forever=follow, whole=json)
        try:
            if live:
                from .live import watch

                watch(Home.locate(home), ledger, found, follow)
                return 0
            view = Feed(ledger)
            for entry in found:
                if entry is not None:
                    print(as_json(entry.record) if json else view.line(entry.record), flush=True)
                else:
                    time.sleep(POLL)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            sys.stderr.close()  # the reader left (`| head`); nothing to say and nobody to say it to
    return 0


Flags = Annotated[
    str, Parameter(name="FLAGS", allow_leading_hyphen=True, help="What you would give to join: an invite and flags.")
]
config = App(name="config", help="The settings of join and where each comes from.", group=SET_UP)
service = App(name="service", help="Keep a node running: what systemd or launchd needs.", group=SET_UP)


@config.command(name="show")
def config_show(*flags: Flags, json: Json = False, home: HomeDir = None) -> int:
    """Every setting of join with its value and where it comes from: flag, environment, config file, invite, default."""
    from dataclasses import asdict

    from .flags import print_json
    from .settings import lines, read, resolve
    from .tasks import last_task, own_folders

    place = Home.locate(home)
    last, own = None, {}
    if place.ledger.exists():
        with _ledger(home) as ledger:
            last, own = last_task(ledger), own_folders(ledger)
    words = [*flags, *(("--home", str(home)) if _home_in_arguments() is not None else ())]
    found = list(resolve(read(app, words), place, last, own))
    if json:
        for one in found:
            print_json({name: value for name, value in asdict(one).items() if name != "is_path"})
    else:
        print("\n".join(lines(found)))
    return 0


@config.command(name="path")
def config_path(*, json: Json = False, home: HomeDir = None) -> int:
    """Where the config file is, or would be."""
    from .flags import print_json

    path = Home.locate(home).config
    if json:
        print_json({"path": str(path), "exists": path.exists()})
        return 0
    print(path)
    if not path.exists():
        print('it is not there yet; a line of it: size = "short"', file=sys.stderr)
    return 0


@service.command(name="print")
def service_print(*flags: Flags, home: HomeDir = None) -> int:
    """Print a unit for systemd, or a property list for launchd (`print launchd`), with join's flags; for a bootstrap:
    `print bootstrap` and its flags."""
    from .service import command, how_to_install, launchd, systemd
    from .settings import as_flags, read

    words = list(flags)
    kind = words.pop(0) if words and words[0] in ("systemd", "launchd") else None
    role = words.pop(0) if words and words[0] in ("join", "bootstrap") else "join"
    words += ("--home", str(home)) if home is not None else ()
    kind = kind or ("launchd" if sys.platform == "darwin" else "systemd")
    start = command(role, as_flags(read(app, words, role)))
    print(launchd(start) if kind == "launchd" else systemd(start), end="")
    print(how_to_install(kind, words if role == "join" else [role, *words]), file=sys.stderr)
    return 0


def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print what makes a shell complete commands and flags."""
    lines = {
        "bash": "swarm-node completion bash > ~/.local/share/bash-completion/completions/swarm-node",
        "zsh": "swarm-node completion zsh > ~/.zsh/completions/_swarm-node   (a folder in $fpath, before compinit)",
        "fish": "swarm-node completion fish > ~/.config/fish/completions/swarm-node.fish",
    }
    print(app.generate_completion(shell=shell), end="")
    print(f"install it:  {lines[shell]}", file=sys.stderr)
    return 0


for group, commands in {
    LOOK: (board, show, status, peers),
    TAKE: (apply, replay, export, invite, prompt),
    SET_UP: (doctor, completion),
}.items():
    for command in commands:
        app.command(command, group=group)
for command, group in ((metrics, SET_UP), (dash, LOOK)):  # their --port and --host are not the ones of join
    app.command(command, group=group, config=lambda *_: None)
task_app.group = (SET_UP,)
app.command(task_app)
app.command(config)
app.command(service)


def overview(groups: Sequence[Group]) -> str:
    """The commands of some groups, each in a sentence. As `--help` of cyclopts, in a third of the time: nothing is
    drawn."""
    width = min(100, shutil.get_terminal_size().columns)
    lines = [*textwrap.wrap(app.help, width), ""]
    for group in groups:
        lines.append(f"{group.name}:")
        for command in (app[name] for name in app if group in _groups(app[name])):
            name, sentence = command.name[0], command.help.split("\n\n")[0]
            indent = f"  {name:<11} "
            lines += textwrap.wrap(sentence, width, initial_indent=indent, subsequent_indent=" " * len(indent))
        lines.append("")
    return "\n".join(lines)


def _groups(command: App) -> tuple[object, ...]:
    return command.group if isinstance(command.group, tuple) else (command.group,)


def main() -> None:
    """Entry point: every error becomes a message with its fix and an exit code."""
    if sys.argv[1:] in ([], ["--help"], ["-h"]):
        print(overview([START] if len(sys.argv) == 1 else [START, LOOK, TAKE, SET_UP]))
        more = (
            "all commands: swarm-node --help"
            if len(sys.argv) == 1
            else "flags of one: swarm-node COMMAND --help; the version: swarm-node --version"
        )
        print(more)
        sys.exit(0)
    home = Home.locate(_home_in_arguments())
    try:
        _check_settings(home.config)
        app.config = sources(home.config)
        code = app(sys.argv[1:], exit_on_error=False, print_error=False)
        print(end="", flush=True)  # what cannot be written is an error of ours, not of the interpreter's end
    except CycloptsError as error:
        print(f"error: {_explained(error)}", file=sys.stderr)
        code = UsageError.exit_code
    except SwarmNodeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader left (`| head`); nothing to say and nobody to say it to
        _forget_output()
        code = 0
    except Exception as error:
        code = _unforeseen(error, home)
    sys.exit(code or 0)


def _explained(error: CycloptsError) -> str:
    """What is wrong with a command line, which command is meant where that can be guessed, and how to go on."""
    words = " ".join(("swarm-node", *(error.command_chain or ())))
    return f"{error}\n  fix: see what there is: {words} --help"


def _check_settings(path: Path) -> None:
    """A config file that is not TOML, or a setting that no command knows there or in the environment, is our error to
    explain: a misspelt limit is no limit."""
    variables = [key for key in os.environ if key.startswith(PREFIX)]
    in_file: list[str] = []
    if path.exists():
        import tomllib

        try:
            in_file = list(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            fix = "correct or delete it"
            raise ConfigError(f"cannot read the config file {path}", why=str(error), fix=fix) from error
    if not variables and not in_file:
        return
    import difflib
    from inspect import signature

    known = {name.strip("_").replace("_", "-") for command in _functions(app) for name in signature(command).parameters}
    for key in (*variables, *in_file):
        name = (key.removeprefix(PREFIX).lower() if key in variables else key).replace("_", "-")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = [PREFIX + one.replace("-", "_").upper() if key in variables else one for one in close]
            why = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(sorted(known))}"
            what = "the environment" if key in variables else f"the config file {path}"
            raise ConfigError(f"{what} has an unknown setting {key!r}", why=why, fix="correct or delete it")


def _functions(group: App) -> Iterator[Callable[..., object]]:
    """What its commands call, those of its subcommands too."""
    for name in group:
        if not name.startswith("-"):
            if (function := group[name].default_command) is not None:
                yield function
            yield from _functions(group[name])


def _unforeseen(error: Exception, home: Home) -> int:
    """A full disk may fail any write; all else is a bug."""
    if isinstance(error, OSError) and is_full(error):
        if error.filename is None:  # as of stdout
            _forget_output()
        print(f"error: {disk_full(error.filename or home.data, error)}", file=sys.stderr)
        return MachineError.exit_code
    return _bug(error)


def _forget_output() -> None:
    """What waits to be written to stdout, and cannot be, is not tried again at the end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttributeError, ValueError):
        pass  # it is closed, or no file


def _bug(error: Exception) -> int:
    import traceback

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


def _version() -> str:
    from importlib.metadata import version

    return version("swarm-node")


if __name__ == "__main__":
    main()
