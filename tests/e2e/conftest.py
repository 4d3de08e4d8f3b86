"""Real swarm-node processes on loopback, each with a home of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TINY = "25"  # baseline steps: a run takes a second or two


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole nodes train on every core, and wait for one while others have it: they are tested one after the other."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("e2e"))


class NodeProcess:
    """One running node; its output is read by a thread, line by line, and waited for by condition."""

    def __init__(
        self,
        home: Path,
        args: list[str],
        env: dict[str, str] | None = None,
        launcher: tuple[str, ...] = (),
        inside: tuple[str, ...] = (),
    ) -> None:
        """`launcher`: what Python runs in place of the module. `inside`: what the whole command is given to."""
        self.home = home
        self.lines: list[str] = []
        self._new = threading.Condition()
        self.process = subprocess.Popen(
            [*inside, sys.executable, *launcher, "-m", "swarm_node.node.cli", *args, "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_env() | (env or {}),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._new:
                self.lines.append(line.rstrip("\n"))
                self._new.notify_all()
        with self._new:
            self._new.notify_all()

    def wait_for(self, pattern: str, seconds: float = 90, after: int = 0) -> re.Match[str]:
        """The first line from index `after` on that matches, waiting for it up to `seconds`."""
        deadline = time.monotonic() + seconds
        with self._new:
            while True:
                for line in self.lines[after:]:
                    if match := re.search(pattern, line):
                        return match
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None and not self._reader.is_alive()
                if left <= 0 or ended:
                    state = "ended" if ended else "silent"
                    raise AssertionError(f"no line matches {pattern!r} ({state}); output:\n" + "\n".join(self.lines))
                self._new.wait(min(left, 1.0))

    def stop(self, seconds: float = 20) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("did not stop on Ctrl-C; output:\n" + "\n".join(self.lines)) from None
        self._finish()
        return code

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait()
        self._finish()

    def _finish(self) -> None:
        self._reader.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    # ---- what a user would look up in a second terminal

    def command(self, *args: str) -> str:
        """Standard output of another swarm-node command on the same home."""
        return run_command([*args, "--home", str(self.home)]).stdout

    def records(self) -> list[dict[str, Any]]:
        """Every record that this node knows, from its feed."""
        return [json.loads(line) for line in self.command("feed", "--json", "--no-follow").splitlines()]

    def wait_for_records(
        self, enough: Callable[[list[dict[str, Any]]], bool], seconds: float = 120
    ) -> list[dict[str, Any]]:
        """The feed, followed live until `enough` says so."""
        follow = subprocess.Popen(
            [sys.executable, "-m", "swarm_node.node.cli", "feed", "--json", "--home", str(self.home)],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_env(),
        )
        timer = threading.Timer(seconds, follow.kill)
        timer.start()
        seen: list[dict[str, Any]] = []
        try:
            assert follow.stdout is not None
            for line in follow.stdout:
                seen.append(json.loads(line))
                if enough(seen):
                    return seen
            raise AssertionError(
                f"after {seconds} s the feed has {len(seen)} records; node says:\n" + "\n".join(self.lines)
            )
        finally:
            timer.cancel()
            follow.kill()
            follow.wait()
            if follow.stdout is not None:
                follow.stdout.close()


def clean_env() -> dict[str, str]:
    """This environment without what could change a node's mind."""
    drop = ("SWARM_NODE_", "OPENAI_")
    return {name: value for name, value in os.environ.items() if not name.startswith(drop)} | {
        "PYTHONUNBUFFERED": "1",
        "SWARM_NODE_LAN": "false",  # nodes of other tests run on this machine
    }


def run_command(
    args: list[str], env: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one swarm-node command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "swarm_node.node.cli", *args],
        capture_output=True,
        text=True,
        env=clean_env() | (env or {}),
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes and leaves none behind."""
    nodes: list[NodeProcess] = []

    def launch(name: str, *args: str, **how: Any) -> NodeProcess:
        node = NodeProcess(tmp_path / name, list(args), **how)
        nodes.append(node)
        return node

    yield launch
    for node in nodes:
        if node.process.poll() is None:
            node.kill()
        else:
            node._finish()
