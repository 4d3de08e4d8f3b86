"""Every attack, in every place where code of strangers may run, and without the sandbox, where it has to succeed."""

from __future__ import annotations

import os
import time

import pytest

from . import files, kernel, network, processes, resources
from .attack import Attack
from .conftest import OTHERS, Backend
from .scene import Scene

ATTACKS: dict[str, Attack] = {
    **files.ATTACKS, **processes.ATTACKS, **network.ATTACKS, **kernel.ATTACKS, **resources.ATTACKS
}  # fmt: skip
every = pytest.mark.parametrize("name", ATTACKS)


def escapes(name: str, run: Backend, scene: Scene) -> tuple[bool, str]:
    scene.reset()
    output = run(ATTACKS[name])
    return ATTACKS[name].succeeded(scene, output), output[-2000:]


@every
def test_candidate_does_not_escape(name: str, candidate: Backend, scene: Scene, request: pytest.FixtureRequest) -> None:
    """As the product runs candidates: on this kernel's Landlock, on the oldest, in bubblewrap, with a GPU's rules."""
    if name == "map much memory" and "[run-gpu-" in request.node.name:
        pytest.skip("a GPU's driver reserves as much; what is touched is still counted")
    escaped, output = escapes(name, candidate, scene)
    assert not escaped, output
    deadline = time.monotonic() + 1.0
    while scene.leftovers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not scene.leftovers(), "a process is left one second after the end"
    assert sorted(os.listdir(scene.other_run.parent)) == ["other-run", "worker.log"], "files are left"


@every
def test_launched_program_does_not_escape(name: str, launched: Backend, scene: Scene) -> None:
    """As the fork server is started, narrowed to one run."""
    if ATTACKS[name].watched or ATTACKS[name].torch:
        pytest.skip("needs what only a worker's child has")
    escaped, output = escapes(name, launched, scene)
    assert not escaped, output


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=OTHERS if attack.bare == "user" else []) for name, attack in ATTACKS.items()]
)
def test_attack_succeeds_without_the_sandbox(name: str, bare: Backend, scene: Scene) -> None:
    """Only an attack that works shows that it was stopped."""
    needs = ATTACKS[name].bare
    if not needs or (needs == "root" and os.geteuid()):
        pytest.skip("would hurt this machine" if not needs else "only root can")
    escaped, output = escapes(name, bare, scene)
    assert escaped, output
