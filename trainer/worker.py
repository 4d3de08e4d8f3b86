"""The trusted process between the daemon and a research core: supervisor and blind evaluator. No torch, one thread.

    python -I -m swarm_node.trainer.worker

Frames with the daemon on stdin and stdout, its log on stderr. When stdin ends the daemon is gone, and so is
everything here a moment later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..protocols.errors import SwarmNodeError
from . import cost, evaluator, locks
from .run import Run, Texts, result_of
from .runchild import RunChild, Stop, remove_scratch
from .sandbox.policy import fork_server_policy
from .sandbox.selftest import self_test
from .supervisor import DaemonGone, Supervisor
from .types import AuditQuery, RunSpec, SandboxUnavailable, Slice

NO_SANDBOX = "use a Linux kernel with Landlock (5.13 or newer), outside containers that forbid it"
COST_WALL_S = 60.0  # for measuring a cost ratio: one round, most of it two candidates' setup


class Worker:
    """Answers the daemon's requests, one at a time."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._turn = locks.Turn(None, None)  # until the daemon says where

    def serve(self) -> None:
        """Until the daemon is gone."""
        operations = {"start": self._start, "run": self._run, "cost": self._cost}
        while True:
            request = self._supervisor.next_request(self._idle)
            try:
                answer = operations[request["op"]](request)
            except SwarmNodeError as error:
                answer = {"error": {"kind": type(error).__name__} | vars(error)}
            self._supervisor.answer(answer)

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        config = request["config"]
        held = {name: Path(path) for name, path in config["held"].items()}
        scratch, train = Path(config["scratch"]), Path(config["train"])
        hidden = [*map(Path, config["hidden"]), *held.values()]
        self._supervisor.scratch_root = scratch
        for left_over in scratch.glob("run-*"):  # of a worker that was killed
            remove_scratch(left_over)
        layers = {name: config[name] for name in ("force_abi", "bubblewrap", "gpu")}
        self._policy = fork_server_policy(scratch, train, hidden, config["memory"], **layers)
        lock_dir = Path(config["lock_dir"]) if config["lock_dir"] else None
        self._turn = locks.Turn(config["cores"], lock_dir, config["lease_s"])
        if self._turn.take():
            self._supervisor.warm(self._policy)
        else:
            self._turn.leave()  # there is nothing to run yet
        report = self_test(self._policy, hidden)  # while torch is being imported
        if not report.ok:
            raise SandboxUnavailable("the sandbox does not hold here", why=report.reason, fix=NO_SANDBOX)
        if self._turn.held:
            self._supervisor.until_warm()
        self._memory: int = config["memory"]
        loaded = {name: evaluator.load(path) for name, path in held.items()}
        self._texts = Texts(train, evaluator.load(train), loaded)
        return {"report": asdict(report)}

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = request["spec"]
        audit = AuditQuery(**asked["audit"]) if asked["audit"] else None
        spec = RunSpec(**asked | {"slices": tuple(Slice(**part) for part in asked["slices"]), "audit": audit})
        run = Run(self._supervisor, spec, self._texts)
        try:
            with self._core() as core, self._child(core, spec.wall_s) as run.child:
                run.train_and_score()
        except Stop as stop:
            run.stopped = stop
        return {"result": asdict(run.result())}

    def _cost(self, request: dict[str, Any]) -> dict[str, Any]:
        """`children` are parent and candidate of the latest round, for whom a failure is reported."""
        children: dict[str, RunChild] = {}

        @contextmanager
        def fresh(swapped: bool) -> Iterator[tuple[cost.Side, cost.Side]]:
            with self._child(core, COST_WALL_S) as first, self._child(core, COST_WALL_S) as second:
                children.update(
                    zip(("source", "parent") if swapped else ("parent", "source"), (first, second), strict=True)
                )
                sides = {
                    name: cost.start(child, request[name], request["steps"], self._texts.train_path)
                    for name, child in children.items()
                }
                yield sides["parent"], sides["source"]

        try:
            with self._core() as core:
                rounds = cost.ROUGH_ROUNDS if request["rough"] else cost.ROUNDS
                self._supervisor.enter("calibrate", round(rounds * cost.ROUND_S * 10))
                ratio = cost.measure(fresh, lambda seconds: self._supervisor.at(round(seconds * 10)), rounds)
                return {"cost": asdict(ratio)}
        except Stop as stop:
            at_fault = stop.child or children.get("source")
            whose = "the parent: " if at_fault and at_fault is children.get("parent") else ""
            return {"result": asdict(result_of(at_fault, stop.status, whose + stop.reason))}

    @contextmanager
    def _child(self, core: int | None, wall_s: float) -> Iterator[RunChild]:
        """A new run child, ended and accounted for afterwards."""
        self._supervisor.limit(wall_s)
        child = RunChild(self._supervisor, core, self._memory, wall_s)
        try:
            yield child
        finally:
            child.end()

    @contextmanager
    def _core(self) -> Iterator[int | None]:
        """A core that no other worker has, with a warm fork server; both are kept until the turn is over."""
        self._supervisor.enter("wait", 0)
        try:
            while not self._turn.take():
                self._supervisor.sleep(locks.POLL_S)
            self._supervisor.warm(self._policy)
            self._supervisor.until_warm()
            yield self._turn.core
        finally:
            if not self._turn.held or self._turn.is_over():
                self._give_up()

    def _idle(self) -> None:
        if self._turn.held and self._turn.is_wanted():
            self._give_up()

    def _give_up(self) -> None:
        self._supervisor.cool()  # first: its 350 MB are the next one's
        self._turn.leave()


def main() -> None:
    """Serve the daemon on the other end of stdin and stdout, and leave no process behind."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but frames may reach the daemon
    supervisor = Supervisor(0, answers)
    try:
        Worker(supervisor).serve()
    except DaemonGone:
        pass
    finally:
        supervisor.close()


if __name__ == "__main__":
    main()
