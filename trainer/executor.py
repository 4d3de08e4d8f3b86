"""The daemon's side of the trainer: one worker process, one call at a time. Imports neither torch nor numpy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..protocols.errors import IsolationError
from . import frames, hardware
from .locks import LEASE_S
from .sandbox.selftest import SandboxReport
from .types import CostRatio, DiskFull, OnProgress, Progress, RunResult, RunSpec, SandboxUnavailable, WorkerDied

if TYPE_CHECKING:
    from .corpus import Corpus

GIB = 1 << 30
INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")  # API keys stay in the daemon


class Executor:
    """Runs candidates in sandboxed processes of this machine.

    Synchronous: call it from a thread. `cancel` may be called from any other thread. A worker that dies raises
    WorkerDied for the current call and is started again by the next one.
    """

    def __init__(
        self,
        corpus: Corpus,
        scratch_root: Path,
        memory_bytes: int = 2 * GIB,
        cores: Sequence[int] | None = None,
        lock_dir: Path | None = None,
        force_abi: int | None = None,
        bubblewrap: bool = True,
        gpu: bool = False,
        lease_s: float = LEASE_S,
    ) -> None:
        """`scratch_root` belongs to this executor alone.

        `cores` are the ones that runs may be pinned to (all when None); `lock_dir` holds one lock file per core,
        shared by every node of the machine, and a core is kept for `lease_s` while others wait for it.
        `force_abi`: pretend to an older Landlock (tests). `bubblewrap`: put it around the sandbox where it works.
        `gpu`: let runs use the NVIDIA driver; untested on one.
        """
        self._config: dict[str, Any] = {
            "train": str(corpus.train),
            "held": {name: str(path) for name, path in corpus.held.items()},
            "hidden": [str(path) for path in corpus.held_out_sources],
            "scratch": str(scratch_root),
            "memory": memory_bytes,
            "cores": sorted(cores) if cores is not None else None,
            "lock_dir": str(lock_dir) if lock_dir is not None else None,
            "force_abi": force_abi,
            "bubblewrap": bubblewrap,
            "gpu": gpu,
            "lease_s": lease_s,
        }
        self._log = scratch_root / "worker.log"
        self._worker: subprocess.Popen[bytes] | None = None
        self._report: SandboxReport | None = None
        self._job = self._cancelled = 0
        self._call = threading.RLock()  # one call at a time
        self._write = threading.Lock()  # cancel() writes while run() waits

    def __enter__(self) -> Executor:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def start(self) -> SandboxReport:
        """Start the worker, with a warm fork server if a core is free, and run the sandbox's self-test.

        Raises SandboxUnavailable when a layer is missing or an attack succeeded.
        """
        with self._call:
            return self._ensure()

    def run(self, spec: RunSpec, on_progress: OnProgress) -> RunResult:
        """Train and score one candidate. Raises WorkerDied, DiskFull, SandboxUnavailable: never its fault."""
        answer = self._ask({"op": "run", "spec": asdict(spec)}, on_progress)
        return _result(answer["result"])

    def cost_ratio(
        self, parent_source: str, source: str, steps: int, on_progress: OnProgress, rough: bool = False
    ) -> CostRatio | RunResult:
        """Measure CPU seconds per step of a candidate relative to its parent; a RunResult when one of them crashes.

        rough: in a quarter of the time, and known half as well.
        """
        body = {"op": "cost", "parent": parent_source, "source": source, "steps": steps, "rough": rough}
        answer = self._ask(body, on_progress)
        return _result(answer["result"]) if "result" in answer else CostRatio(**answer["cost"])

    def cancel(self) -> None:
        """Kill the run that is in progress, if any; its call returns status "killed", reason "cancelled"."""
        self._cancelled = self._job  # first: a call that has not sent its request yet looks here when it has
        worker = self._worker
        if worker is not None and worker.poll() is None:
            self._send_cancel(worker, self._cancelled)

    def close(self) -> None:
        """Stop the worker and everything below it. Safe to call twice, and from another thread during a call."""
        worker, self._worker, self._report = self._worker, None, None
        if worker is None:
            return
        with self._write:
            try:
                if worker.stdin:
                    worker.stdin.close()  # the worker's sign to kill its children and leave
            except OSError:
                pass
        try:
            worker.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        if worker.stdout and self._call.acquire(timeout=10):
            worker.stdout.close()
            self._call.release()

    # ---------------------------------------------------------------------------------------------------------------

    def _ensure(self) -> SandboxReport:
        if self._worker is not None and self._report is not None and self._worker.poll() is None:
            return self._report
        self.close()  # what is left of one that died
        if not sys.platform.startswith("linux"):
            raise SandboxUnavailable(
                "candidates cannot be isolated on this system",
                why=f"the sandbox needs Linux, this is {sys.platform}",
                fix="run the node in a Linux container or virtual machine, or let it only observe",
            )
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        environ = {name: os.environ[name] for name in INHERITED if name in os.environ}
        if kernels := hardware.kernel_choice():
            environ[hardware.KERNELS] = kernels
        with self._log.open("wb") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-I", "-B", "-m", "swarm_node.trainer.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C at the terminal is the daemon's to handle
            )
        # Job 0 is never cancelled: starting goes on, and the call that waits for it is cancelled after it.
        answer = self._talk(self._worker, {"op": "start", "job": 0, "config": self._config}, lambda _: None)
        report = dict(answer["report"])
        report["layers"] = tuple(report["layers"])
        report["tests"] = tuple((name, stopped) for name, stopped in report["tests"])
        self._report = SandboxReport(**report)
        return self._report

    def _ask(self, body: dict[str, Any], on_progress: OnProgress) -> dict[str, Any]:
        with self._call:
            self._job += 1  # before a worker is started, so that a cancellation meanwhile names this call
            self._ensure()
            assert self._worker is not None
            return self._talk(self._worker, body | {"job": self._job}, on_progress)

    def _talk(self, worker: subprocess.Popen[bytes], body: dict[str, Any], on_progress: OnProgress) -> dict[str, Any]:
        assert worker.stdout is not None
        try:
            self._send(worker, body)
            if self._cancelled == body["job"] != 0:
                self._send_cancel(worker, body["job"])
            while True:
                answer = frames.read(worker.stdout)
                if answer is None:
                    raise EOFError
                if "progress" not in answer:
                    break
                on_progress(Progress(**answer["progress"]))
        except (OSError, ValueError, EOFError):
            raise self._died(worker) from None
        except BaseException:
            self.close()  # its next frames would answer a question that nobody asked
            raise
        if "error" in answer:
            if body["op"] == "start":
                self.close()
            raise self._error(answer["error"])
        return answer

    def _send(self, worker: subprocess.Popen[bytes], body: dict[str, Any]) -> None:
        assert worker.stdin is not None
        with self._write:
            frames.write(worker.stdin, body)

    def _send_cancel(self, worker: subprocess.Popen[bytes], job: int) -> None:
        try:
            self._send(worker, {"op": "cancel", "job": job})
        except (OSError, ValueError):
            pass  # it ended meanwhile; the call in progress says so

    def _died(self, worker: subprocess.Popen[bytes]) -> WorkerDied:
        self.close()
        try:
            tail = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        except OSError:
            tail = []
        why = f"exit status {worker.returncode}" + "".join(f"; its last words: {line}" for line in tail)
        return WorkerDied("the training worker ended in the middle of a call", why=why, fix="nothing: it is restarted")

    def _error(self, error: dict[str, str]) -> Exception:
        kinds = {"SandboxUnavailable": SandboxUnavailable, "DiskFull": DiskFull, "IsolationError": IsolationError}
        kind = kinds.get(error["kind"], WorkerDied)
        return kind(error["what"], why=error["why"], fix=error["fix"])


def _result(wire: dict[str, Any]) -> RunResult:
    curve = tuple((step, loss) for step, loss in wire["loss_curve"])
    tuples = {"loss_curve": curve, "first_losses": tuple(wire["first_losses"]), "audit": tuple(wire["audit"])}
    return RunResult(**wire | tuples)
