"""`swarm-node export`: the results of a track as a table or a picture, or every record as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..protocols.errors import unwritable
from ..protocols.records import Result
from ..swarm.ledger import Ledger
from .board import Board, Results
from .feed import as_json
from .format import clean

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")  # results.tsv of karpathy/autoresearch


def tsv(board: Board, its: Results) -> Iterator[str]:
    """A track as the results.tsv of autoresearch, in the order of their authors' clocks.

    `commit` is the start of the record's id. `status`: a win that was refuted was none; an experiment without a
    verdict was not kept. A crash scores 0.000000, as there; what was stopped early has no score. Records do not carry
    memory, and 0.0 is what it has for none.
    """
    yield "\t".join(COLUMNS)
    for record in sorted(its.records(), key=lambda one: one.time):
        body = record.body
        assert isinstance(body, Result)
        refuted = body.outcome == "kept" and board.views.opinion(record).state == "refuted"
        status = {"kept": "keep", "baseline": "keep", "crashed": "crash"}.get(body.outcome, "discard")
        score = "0.000000" if status == "crash" else "" if body.score is None else f"{body.score:.6f}"
        title = clean(body.title) + (f" ({board.views.state(record)})" if refuted else "")
        yield "\t".join((record.id.hex()[:7], score, "0.0", "discard" if refuted else status, title))


def jsonl(ledger: Ledger, its: Results | None) -> Iterator[str]:
    """Every record as the feed has it, of all tracks or of one."""
    for record in ledger.all_records():
        track = (record.body.task, record.body.environment.hardware)
        if its is None or track == its.track:
            yield as_json(record)


def save(lines: Iterable[str], out: Path | None) -> None:
    """Write lines to a file, all of them or none, or to stdout."""
    if out is None or str(out) == "-":
        for line in lines:
            print(line)
        return
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.is_symlink() or (out.exists() and not out.is_file()):  # as links, pipes and devices: never replaced
            with out.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(f"{line}\n" for line in lines)
            return
        try:
            with fresh.open("x", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for line in lines)
            fresh.replace(out)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(out, error, fix="choose another file: --out PATH") from error
    print(f"written: {out}", file=sys.stderr)
