"""`swarm-node task`: what can be worked on, how it is, and how to make and check a task of one's own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ..protocols.errors import SwarmNodeError
from .flags import HomeDir, Json, print_json
from .home import Home

if TYPE_CHECKING:
    from ..swarm.ledger import Ledger

task = App(name="task", help="What can be improved: the tasks that there are, and making and checking one of your own.")
Which = Annotated[
    str, Parameter(name="TASK", help="A built-in task, one of your own that this home knows, or a folder.")
]


@task.command(name="list")
def list_(*, json: Json = False, home: HomeDir = None) -> int:
    """The built-in tasks, your own that this home knows, and what peers work on."""
    for found in _every(home):
        if json:
            print_json(found)
            continue
        sizes = ", ".join(f"{name} {steps:,}" for name, steps in found["sizes"].items())
        print(f"  {found['name']:<20} {found['from']}   {found['problem'] or (sizes and f'steps: {sizes}')}".rstrip())
        for one in found["known"]:
            state = "current" if one["current"] else "worked on" if one["worked"] else "heard of from peers"
            print(f"    {'*' if one['current'] else ' '} {one['size']:<16} {one['id'].hex()[:8]}   {state}")
    return 0


@task.command
def show(which: Which, *, json: Json = False, home: HomeDir = None) -> int:
    """What a task is: its metric, sizes, text and brief, and the ids that it has with them."""
    from ..protocols.diffs import EDITABLE
    from ..trainer import task as tasks
    from ..trainer.corpus import prepare

    name, folder = _place(which, home)
    place, definition = Home.locate(home), tasks.define(name, folder)
    place.create()
    corpus = prepare(place.corpora, definition.corpus)
    of_size = {size: tasks.load(name, size, bytes.fromhex(corpus.digest), folder=folder) for size in definition.sizes}
    first = next(iter(of_size.values()))
    metric = f"{first.spec.metric}, {first.spec.unit}; {first.spec.direction} is better, from {first.worthwhile} on"
    if json:
        ids = {size: {"steps": one.spec.steps, "id": one.spec.id} for size, one in of_size.items()}
        fields = {"name": name, "folder": str(folder) if folder else None, "title": definition.title, "sizes": ids}
        fields |= {"metric": first.spec.metric, "unit": first.spec.unit, "direction": first.spec.direction}
        print_json(fields | {"worthwhile": first.worthwhile, "corpus": corpus.reason, "brief": first.brief})
        return 0
    for word, text in (
        ("task", f"{name}   ({folder or 'built in'})"),
        ("title", definition.title),
        ("metric", metric),
        ("edited", f"{EDITABLE}, {first.baseline.count(chr(10))} lines"),
        ("corpus", f"{corpus.reason}, {corpus.train_bytes / 1e6:.1f} MB to train on"),
        *(
            ("size", f"{size:<16} {one.spec.steps:>10,} steps   id {one.spec.id.hex()[:8]}")
            for size, one in of_size.items()
        ),
        *(("brief" if line == 0 else "", text) for line, text in enumerate(first.brief.splitlines()[:8])),
    ):
        print(f"  {word:<10} {text}".rstrip())
    return 0


@task.command
def new(
    folder: Path,
    *,
    from_: Annotated[
        Path | None, Parameter(name="--from", help="An autoresearch directory; nothing of it is run.")
    ] = None,
) -> int:
    """Make the folder of a task of your own: like gpt-cpu, or out of an autoresearch directory."""
    from .task_new import make

    made = make(folder, from_)
    lines = [f"made  {made.folder}: task.toml, train.py, program.md", *(f"note  {remark}" for remark in made.remarks)]
    lines += [f"look  train.py, line {line}: {words}" for line, words in made.todo]
    print("\n".join(lines), file=sys.stderr)
    print(f"next  see whether it works: swarm-node task check {folder}", file=sys.stderr)
    return 0


@task.command
def check(which: Which, *, json: Json = False, home: HomeDir = None) -> int:
    """Train a task's baseline in the sandbox for some steps: does it run, repeat, look ahead, how long does it take?"""
    from .doctor import failed, tell
    from .task_check import examine

    try:
        name, folder = _place(which, home)
    except SwarmNodeError as error:
        return tell([failed("task", error)], json)
    code = tell(examine(Home.locate(home), name, folder), json)
    if code == 0 and not json:
        print(f"start it: swarm-node join --task {which}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _ledger(home: Path | None) -> Iterator[Ledger | None]:
    from ..swarm.ledger import Ledger

    path = Home.locate(home).ledger
    if not path.exists():
        yield None
        return
    with Ledger.open(path, read_only=True) as ledger:
        yield ledger


def _place(which: str, home: Path | None) -> tuple[str, Path | None]:
    from .choice import place
    from .tasks import own_folders

    with _ledger(home) as ledger:
        return place(which, own_folders(ledger) if ledger else {})


def _every(home: Path | None) -> Iterator[dict[str, Any]]:
    """Every name of a task that is known here, with what is known under it."""
    from ..trainer import task as tasks
    from .tasks import heard_tasks, last_task, own_folders, worked_tasks

    with _ledger(home) as ledger:
        own = own_folders(ledger) if ledger else {}
        worked, heard = (worked_tasks(ledger), heard_tasks(ledger)) if ledger else ({}, {})
        last = last_task(ledger) if ledger else None
    everything = sorted((heard | worked).values(), key=lambda spec: (spec.name, spec.steps))
    for name in dict.fromkeys((*tasks.TASKS, *own, *(spec.name for spec in everything))):
        here = name in tasks.TASKS or name in own
        sizes, problem = {}, ""
        if here:
            try:
                sizes = tasks.sizes(name, own.get(name))
            except SwarmNodeError as error:
                problem = error.what
        known = [
            {"size": spec.size, "steps": spec.steps, "id": spec.id, "worked": spec.id in worked,
             "current": spec == last} for spec in everything if spec.name == name
        ]  # fmt: skip
        where = str(own[name]) if name in own else "built in" if here else "peers"
        yield {"name": name, "from": where, "sizes": sizes, "problem": problem, "known": known}
