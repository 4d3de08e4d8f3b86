"""What this machine measured of a program over seeds, kept run by run in the local journal."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ..swarm.ledger import Ledger
from ..trainer.decide import Noise, kill_above, noise_of
from ..trainer.types import RunResult


class NoiseBook:
    """Fresh-seed scores of programs on the fixed `screen` slice. Screening runs that earned promotion never enter."""

    def __init__(self, ledger: Ledger, task: bytes) -> None:
        self._ledger = ledger
        self._prefix = f"noise-{task.hex()[:16]}-"

    def key(self, program: bytes) -> str:
        """The journal entry that holds the program's runs."""
        return self._prefix + program.hex()

    def results(self, program: bytes) -> dict[int, RunResult]:
        """Finished runs by seed."""
        saved = self._ledger.journal(self.key(program))
        return {int(seed): run_from_json(text) for seed, text in saved.items() if seed.isdecimal()}

    def put(self, program: bytes, seed: int, result: RunResult) -> None:
        """Remember a finished run."""
        self._ledger.journal_put(self.key(program), str(seed), run_to_json(result))

    def noise(self, program: bytes) -> Noise | None:
        """Mean and spread over seeds on `screen`; None before two seeds."""
        return noise_of([run.scores["screen"] for run in self.results(program).values() if "screen" in run.scores])

    def kill_above(self, program: bytes) -> float | None:
        """`decide.kill_above` of the program's own runs."""
        return kill_above([run.probe for run in self.results(program).values() if run.probe is not None])


def run_to_json(result: RunResult) -> str:
    """A finished run as journal text."""
    return json.dumps(asdict(result))


def run_from_json(text: str) -> RunResult:
    """The run that `run_to_json` wrote."""
    value: dict[str, Any] = json.loads(text)
    value["loss_curve"] = tuple((int(step), float(loss)) for step, loss in value["loss_curve"])
    value["first_losses"], value["audit"] = tuple(value["first_losses"]), tuple(value["audit"])
    return RunResult(**value)
