"""The commands that look at this home and take things out of it. They read the ledger alone: they work while the node
runs and after it stopped, and never slow it."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..protocols.errors import ConfigError, UsageError
from .flags import (
    TRACK,
    WHOLE,
    HomeDir,
    Json,
    RecordId,
    known_tasks,
    ledger_of,
    port_in_range,
    positive,
    print_json,
)
from .home import Home

Track = Annotated[str | None, Parameter(help=TRACK)]


def show(id: RecordId, *, json: Json = False, home: HomeDir = None) -> int:
    """One experiment with its evidence and its diff."""
    from .feed import as_json
    from .show import show as render

    with ledger_of(home) as ledger:
        record = ledger.find(id)
        print(as_json(record) if json else render(record, ledger, known_tasks(ledger)))
    return 0


def board(
    *,
    techniques: Annotated[
        bool, Parameter(negative="", help="What works where: each technique's tries, wins, re-runs and median gain.")
    ] = False,
    top: Annotated[int, WHOLE, Parameter(help="Programs of each track to show.")] = 10,
    json: Json = False,
    home: HomeDir = None,
) -> int:
    """The best kept results of each track (task and class of hardware)."""
    from .board import Board, board_json, board_text
    from .techniques import techniques_json, techniques_text

    positive(top=top)
    with ledger_of(home) as ledger:
        all_tracks = Board(ledger, known_tasks(ledger))
        if techniques:
            lines = techniques_json(all_tracks) if json else techniques_text(all_tracks)
        else:
            lines = board_json(all_tracks, top) if json else board_text(all_tracks, top)
        for line in lines:
            print(line)
    if not all_tracks.tracks:
        print("no results yet", file=sys.stderr)
    if all_tracks.hidden:
        print(f"left out: {all_tracks.hidden} results of quarantined authors", file=sys.stderr)
    return 0


def status(*, json: Json = False, home: HomeDir = None) -> int:
    """What the node of this home does now, and the best that is known."""
    from .status import Status

    with ledger_of(home) as ledger:
        found = Status.read(Home.locate(home), ledger, known_tasks(ledger))
    if json:
        print_json({"running": found.node is not None, **asdict(found)})
    else:
        print("\n".join(found.lines()))
    return 0


def peers(*, json: Json = False, home: HomeDir = None) -> int:
    """Everybody whose records are here or who is connected now, with what became of their claims."""
    from .board import Board
    from .status import Running, peer_lines
    from .status import peers as everybody

    with ledger_of(home) as ledger:
        running = Running.of(Home.locate(home), ledger)
        found = everybody(Board(ledger, known_tasks(ledger)), running)
    if json:
        for who in found:
            print_json(asdict(who))
    else:
        print("\n".join(peer_lines(found, int(time.time() * 1000))))
    if running is None:
        print("no node runs in this home: nobody is connected", file=sys.stderr)
    return 0


def apply(
    id: RecordId,
    *,
    to: Annotated[Path | None, Parameter(help="Folder for train.py [the current one].")] = None,
    patch: Annotated[bool, Parameter(negative="", help="Print a patch for `git apply` instead.")] = False,
    against: Annotated[
        Literal["baseline", "parent"] | None, Parameter(help="What the patch starts from [baseline].")
    ] = None,
    force: Annotated[bool, Parameter(negative="", help="Replace a train.py that differs.")] = False,
    json: Json = False,
    home: HomeDir = None,
) -> int:
    """Write the program of a result to train.py, or print it as a patch. Nothing of it is run."""
    from .apply import caution, find, write
    from .apply import patch as patch_of

    if against is not None and not patch:
        raise UsageError("--against is for a patch", fix="add --patch, or leave out --against")
    if patch and (to is not None or force):
        raise UsageError("a patch goes to stdout", fix="leave out --to and --force: swarm-node apply ID --patch > FILE")
    with ledger_of(home) as ledger:
        found = find(ledger, id)
    print("\n".join(caution(found)), file=sys.stderr, flush=True)
    text = patch_of(found, against or "baseline") if patch else None
    path, is_new = write(found, to or Path(), force) if text is None else (None, False)
    if json:
        body = found.body
        fields = {"id": found.record.id, "author": found.record.author, "task": body.task, "program": body.program}
        fields |= {"title": body.title, "outcome": body.outcome, "state": found.state, "patch": text}
        print_json(fields | {"path": str(path.absolute()) if path is not None else None, "written": is_new})
    elif text is not None:
        print(text, end="")
    else:
        print(f"{'written' if is_new else 'there already'}: {path}", file=sys.stderr)
    return 0


def replay(
    id: RecordId,
    *,
    corpus: Annotated[Path | None, Parameter(help="The swarm's own text, when it does not use the default.")] = None,
    json: Json = False,
    home: HomeDir = None,
) -> int:
    """Run a recorded experiment again and say whether this machine agrees (exit code 8 when it does not)."""
    from .logs import log_to
    from .replay import replay as run
    from .screen import Screen
    from .signals import run_to_end

    with ledger_of(home):
        pass  # an error now, not after the corpus was prepared
    log_to(Home.locate(home), verbose=False)
    return run_to_end(run(Home.locate(home), id, corpus, Screen(quiet=json), print_json if json else None))


def export(
    *,
    format: Annotated[
        Literal["tsv", "jsonl", "png"],
        Parameter(help="tsv: a track as results.tsv of autoresearch; jsonl: every record; png: the running best."),
    ] = "tsv",
    out: Annotated[Path | None, Parameter(help="File to write; -: stdout [stdout; of png, progress.png].")] = None,
    track: Track = None,
    home: HomeDir = None,
) -> int:
    """The results of a track as a table or a picture, or every record (of one track, if given) as JSON."""
    from .board import Board
    from .export import jsonl, save, tsv
    from .plot import progress

    with ledger_of(home) as ledger:
        if format == "jsonl" and track is None:
            save(jsonl(ledger, None), out)
            return 0
        found = Board(ledger, known_tasks(ledger))
        its = found.track(track)
        if format == "jsonl":
            save(jsonl(ledger, its), out)
        elif format == "tsv":
            save(tsv(found, its), out)
        else:
            progress(found, its, out or Path("progress.png"))
    others = len(found.tracks) - 1
    if others and track is None:
        print(f"this is {its.name}; there are {others} more tracks: swarm-node board", file=sys.stderr)
    if found.hidden and format != "jsonl":
        print(f"left out: {found.hidden} results of quarantined authors", file=sys.stderr)
    return 0


def prompt(
    *,
    program: Annotated[Path | None, Parameter(help="Your own brief in place of the task's program.md.")] = None,
    json: Json = False,
    home: HomeDir = None,
) -> int:
    """The exact text that the next LLM call would get."""
    from .preview import as_text, next_prompt

    with ledger_of(home) as ledger:
        found = next_prompt(Home.locate(home), ledger, program)
    if json:
        print_json(asdict(found))
    else:
        print(as_text(found))
    return 0


def invite(
    *,
    qr: Annotated[bool, Parameter(negative="", help="As a QR code, for a camera.")] = False,
    json: Json = False,
    home: HomeDir = None,
) -> int:
    """The invite to the swarm of the node that runs in this home."""
    from .status import Running

    with ledger_of(home) as ledger:
        running = Running.of(Home.locate(home), ledger)
    if running is None or not running.invite:
        raise ConfigError("no node runs in this home, or it cannot be dialled", fix="start one: swarm-node join")
    if json:
        print_json({"invite": running.invite, "task": running.task})
    elif qr:
        import segno

        code = segno.make(running.invite.upper(), error="l", boost_error=False)  # capitals make a smaller code
        code.terminal(border=2, compact=True)
    else:
        print(running.invite)
    return 0


def doctor(
    *, json: Annotated[bool, Parameter(negative="", help="One check per line, as JSON.")] = False, home: HomeDir = None
) -> int:
    """Look at what a node needs on this machine, attack the sandbox, and say how to fix what is wrong."""
    from .doctor import doctor as run

    return run(Home.locate(home), json)


def metrics(
    *,
    serve: Annotated[bool, Parameter(negative="", help="Answer scrapes until Ctrl-C instead.")] = False,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, WHOLE, Parameter(help="Port to listen on.")] = 4081,
    home: HomeDir = None,
) -> int:
    """This home's node in figures for Prometheus: once, for the textfile collector, or at each scrape (--serve)."""
    from importlib.metadata import version

    from .metrics import exposition
    from .metrics import serve as run

    port_in_range(port)
    with ledger_of(home) as ledger:
        if serve:
            run(Home.locate(home), ledger, version("swarm-node"), host, port)
        else:
            print(exposition(Home.locate(home), ledger, version("swarm-node")), end="")
    return 0


def dash(
    *,
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0: all, and a token is asked for.")] = "127.0.0.1",
    port: Annotated[int | None, WHOLE, Parameter(help="Port to listen on; 0: any free one [4080 or any].")] = None,
    token: Annotated[str | None, Parameter(help="What viewers must know [made up, where one is needed].")] = None,
    home: HomeDir = None,
) -> int:
    """Serve a web page with progress, board, feed, lineage and peers. Reads only the ledger; prints its address."""
    from .signals import run_to_end

    port_in_range(port)
    with ledger_of(home) as ledger:
        from .dash.server import dash as serve

        return run_to_end(serve(Home.locate(home), ledger, host, port, token))
