"""The backends: where an attack runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from swarm_node.trainer.corpus import Corpus
from swarm_node.trainer.executor import Executor
from swarm_node.trainer.sandbox.policy import exec_policy, fork_server_policy
from swarm_node.trainer.sandbox.spawn import spawn
from swarm_node.trainer.types import RunSpec, Slice

from . import resources
from .attack import PRELUDE, Attack
from .scene import Scene

Backend = Callable[[Attack], str]  # run an attack; its output
# Root passes once, here, by the way candidates run; the unprivileged pass has the other ways too.
OTHERS = [pytest.mark.long] if os.geteuid() == 0 else []
MAX_OUTPUT = 4 << 20  # that this suite reads of a bare process


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("scene"))
    yield made
    made.close()


def source_of(attack: Attack, scene: Scene) -> str:
    """The attack as a program. A failure is told on its output."""
    return f"{PRELUDE}\nglobals().update({scene.targets()!r})\n{attack.code}\n"


@pytest.fixture(scope="session")
def bare(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """A plain subprocess of ours, as a tool without isolation would start it."""
    cwd = tmp_path_factory.mktemp("bare")

    def run(attack: Attack) -> str:
        secret = os.open(scene.home / ".ssh" / "id", os.O_RDONLY)
        try:
            done = subprocess.run(
                [sys.executable, "-B", "-c", source_of(attack, scene)], cwd=cwd, pass_fds=(secret,), timeout=60,
                stdin=scene.terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                env=dict(os.environ, API_KEY=scene.canary),
            )  # fmt: skip
        finally:
            os.close(secret)
            for made in cwd.iterdir():
                subprocess.run(["rm", "-rf", str(made)], check=True)
        return done.stdout[:MAX_OUTPUT].decode(errors="replace")

    return run


@pytest.fixture(
    scope="session",
    params=[
        pytest.param({}, id="run"),
        pytest.param({"force_abi": 1}, id="run-abi-1", marks=OTHERS),
        pytest.param({"bubblewrap": True}, id="run-bubblewrap", marks=OTHERS),
        pytest.param({"gpu": True}, id="run-gpu", marks=pytest.mark.long),
    ],
)
def candidate(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Backend]:
    """A candidate of the product: a forked run child of a warm fork server, watched by a worker."""
    held = {name: scene.node / "held.bin" for name in ("probe", "screen", "confirm", "audit")}
    corpus = Corpus("00" * 32, scene.text, held, (), scene.text.stat().st_size, "made for tests")
    executor = Executor(corpus, scene.other_run.parent, resources.MEMORY, **{"bubblewrap": False} | request.param)
    os.environ["API_KEY"] = scene.canary
    with executor:
        if "bubblewrap" in request.param and "bubblewrap" not in executor.start().layers:
            pytest.skip("bubblewrap is not installed or does not work here")

        def run(attack: Attack) -> str:
            source = source_of(attack, scene) + "\ndef train(ctx): raise SystemExit('the attack is over')\n"
            spec = RunSpec(source, 1, 4, (Slice("screen"),), wall_s=attack.wall)
            result = executor.run(spec, lambda _: None)
            return f"{result.status}: {result.reason}\n{result.log_tail}"

        yield run
    del os.environ["API_KEY"]


@pytest.fixture(
    scope="session",
    params=[pytest.param(None, id="exec", marks=OTHERS), pytest.param(1, id="exec-abi-1", marks=OTHERS)],
)
def launched(request: pytest.FixtureRequest, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """A program that the launcher confines and becomes, without a watchdog."""
    root = tmp_path_factory.mktemp("launched")
    server = fork_server_policy(
        root, scene.text, [scene.node], resources.MEMORY, force_abi=request.param, bubblewrap=False
    )

    def run(attack: Attack) -> str:
        own = root / "own"
        own.mkdir()
        secret = os.open(scene.home / ".ssh" / "id", os.O_RDONLY)
        os.set_inheritable(secret, True)
        argv = [sys.executable, "-I", "-S", "-B", "-c", source_of(attack, scene)]
        try:
            with spawn(exec_policy(server, own, 5), argv, stdin=scene.terminal, stderr=subprocess.STDOUT) as process:
                out, _ = process.communicate(timeout=30)
        finally:
            os.close(secret)
            subprocess.run(["rm", "-rf", str(own)], check=True)
        return out.decode(errors="replace")

    return run
