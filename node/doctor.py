"""`swarm-node doctor`: what this machine can do for a node, each thing with what was found and the fix."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from ..protocols.errors import IsolationError, MachineError, SwarmNodeError
from ..swarm.ledger import Ledger
from ..trainer.corpus import prepare
from ..trainer.hardware import detect
from ..trainer.sandbox.selftest import self_test
from ..trainer.worker import NO_SANDBOX
from .feed import json_line
from .home import Home

_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Check:
    """One thing looked at. `code`: of the errors, what `doctor` ends with because of it."""

    name: str
    state: Literal["ok", "note", "failed"]
    found: str
    fix: str = ""
    code: int = 0


def examine(home: Home) -> Iterator[Check]:
    """Every check, as it is made; the isolation's takes about a second."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for fact in detect().facts:
        yield Check(fact.name, "ok", f"{fact.value}   ({fact.reason})")
    yield from _home(home)
    if home.ledger.exists():
        try:
            with Ledger.open(home.ledger, read_only=True) as ledger:
                yield Check("ledger", "ok", f"{ledger.check()} records")
        except SwarmNodeError as error:
            yield failed("ledger", error)
    yield from _isolation(home)
    keyed = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    if keyed:
        yield Check("ideas", "ok", "a language model, as OPENAI_API_KEY or OPENAI_BASE_URL say")
    else:
        fix = "for a language model: export OPENAI_API_KEY=..., or OPENAI_BASE_URL=http://... for your own"
        yield Check("ideas", "note", "the built-in proposer", fix)


def _home(home: Home) -> Iterator[Check]:
    try:
        home.create()
    except MachineError as error:
        yield failed("home", error)
        return
    free = shutil.disk_usage(home.data).free
    found = f"{home.data}, {free >> 20} MiB free" + (", a node runs in it" if home.is_in_use() else "")
    if free < _FREE_BYTES:
        yield Check("home", "failed", found, "free some space, or choose another: --home DIR", MachineError.exit_code)
    else:
        yield Check("home", "ok", found)


def _isolation(home: Home) -> Iterator[Check]:
    """Each attack of the self-test by name. Held-out text is among what must not be read, so it is prepared first."""
    try:
        corpus = prepare(home.corpora)
    except SwarmNodeError as error:
        yield failed("corpus", error)
        return
    yield Check("corpus", "ok", corpus.reason)
    report = self_test(hidden=corpus.held_out_sources)
    if report.ok:
        yield Check("isolation", "ok", ", ".join(report.layers))
    else:
        fix = f"{NO_SANDBOX}; until then the node only observes"
        yield Check("isolation", "failed", report.reason, fix, IsolationError.exit_code)
    for name, stopped in report.tests:
        if stopped:
            yield Check("  attack", "ok", f"stopped: {name}")
        else:
            yield Check("  attack", "failed", f"NOT STOPPED: {name}", code=IsolationError.exit_code)


def failed(name: str, error: SwarmNodeError) -> Check:
    """What an error says, as a check."""
    return Check(
        name, "failed", f"{error.what} {f'({error.why})' if error.why else ''}".strip(), error.fix, error.exit_code
    )


def doctor(home: Home, as_json: bool) -> int:
    """Print every check; the exit code of the first that failed, else 0."""
    return tell(examine(home), as_json)


def tell(checks: Iterable[Check], as_json: bool) -> int:
    """Print checks as they are made; the exit code of the first that failed, else 0."""
    code = 0
    for check in checks:
        code = code or check.code
        if as_json:
            print(json_line(asdict(check)), flush=True)
            continue
        mark = {"ok": "ok", "note": "--", "failed": "NO"}[check.state]
        print(f"  {mark}  {check.name:<15} {check.found}", flush=True)
        if check.fix:
            print(f"      {'':<15} fix: {check.fix}" if check.state == "failed" else f"      {'':<15} {check.fix}")
    return code
