"""`swarm-node prompt`: the next LLM call's exact text, rebuilt from the ledger alone."""

from __future__ import annotations

from pathlib import Path

from ..protocols.signing import public_key
from ..swarm.frontier import Frontier
from ..swarm.identity import load
from ..swarm.ledger import Ledger
from ..trainer.hardware import detect
from .app import environment
from .home import Home
from .noise import NoiseBook
from .programs import Programs
from .prompt import Prompt, build_prompt
from .proposers.choose import secret_seed
from .proposers.llm import proposal_seed
from .situation import build
from .stagnation import course
from .tasks import current_task, quotable_names


def next_prompt(home: Home, ledger: Ledger, program: Path | None) -> Prompt:
    """System and user text as they would be sent."""
    task = current_task(ledger, program)
    key = load(home.key)
    author = public_key(key)
    frontier = Frontier(author, task.spec.id, task.spec.baseline, private=home.swarm_key.exists())
    for record in ledger.all_records():
        frontier.add(record)
    frontier.ban(frozenset(ledger.equivocators(-1)))
    programs = Programs(ledger, task.baseline)
    now = course(task.spec, frontier, programs.get)
    program_now = now.branch.program if now.branch else frontier.best_program
    parent = now.branch.source if now.branch else programs.get(frontier.best_program) or task.baseline
    noise = NoiseBook(ledger, task.spec.id).noise(program_now)
    hardware = detect()
    situation = build(
        task, hardware.profile(), frontier, parent, noise, programs.get,
        hardware=environment(hardware).hardware, course=now, journal=ledger.journal_of,
        track=quotable_names(ledger),
    )  # fmt: skip
    return build_prompt(situation, rng_seed=proposal_seed(secret_seed(key), situation))


def as_text(prompt: Prompt) -> str:
    """Both parts for a reader."""
    return f"--- system ---\n{prompt.system}\n--- user ---\n{prompt.user}"
