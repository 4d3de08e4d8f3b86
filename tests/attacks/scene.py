"""What there is to attack: a home with a key, a node with its evaluator and held-out text, another process, sockets.

Everything holds a canary that no attacker can guess, so whether an attack succeeded is seen from outside: a canary in
its output, a changed file, a message that arrived, a process that is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VICTIM = """
import ctypes, os, signal, sys
secret = ctypes.create_string_buffer(sys.argv[1].encode())
held = os.open(sys.argv[2], os.O_RDONLY)
print(ctypes.addressof(secret), flush=True)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
while True:
    signal.pause()
"""


SETTLED = b"settled"


@dataclass
class Scene:
    """One place; `reset` makes it whole again after an attack that succeeded."""

    root: Path
    canary: str = field(default_factory=lambda: f"canary-{secrets.token_hex(8)}")
    heard: list[bytes] = field(default_factory=list)  # what reached a socket

    def __post_init__(self) -> None:
        self.home, self.node, self.shared = self.root / "home", self.root / "node", self.root / "shared"
        self.text = self.shared / "train.bin"  # readable for the attacker
        self.other_run = self.root / "scratch" / "other-run"
        self._victim: subprocess.Popen[str] | None = None
        self._sockets: list[socket.socket] = []
        self._master, self.terminal = os.openpty()  # for an attacker's input
        for folder in (self.home / ".ssh", self.node / "site-packages", self.shared, self.other_run):
            folder.mkdir(parents=True)
        os.chmod(self.node, 0o700)
        self._listen()
        self.reset()

    def reset(self) -> None:
        """Every file as it was, every canary in its place, the victim alive and nothing heard."""
        for link in (self.node / "evaluator.py", self.home / "id"):
            link.unlink(missing_ok=True)
        (self.home / ".ssh" / "id").write_text(self.canary)
        (self.home / ".ssh").chmod(0o700)
        (self.home / ".bashrc").write_text("harmless\n")
        (self.node / "evaluator.py").write_text("trusted\n")
        os.utime(self.node / "evaluator.py", (1e9, 1e9))
        (self.node / "held.bin").write_text(self.canary + "." * 1000)
        (self.node / "held.bin").chmod(0o600)
        shutil.rmtree(self.node / "site-packages")
        (self.node / "site-packages").mkdir()
        (self.other_run / "model").write_text(self.canary)
        self.text.write_bytes(b"training text " * 4096)
        os.utime(self.text, (1e9, 1e9))
        self.heard.clear()
        if not self.victim_lives():
            self._start_victim()

    def close(self) -> None:
        """End the victim and the listeners."""
        if self._victim is not None:
            self._victim.kill()
            self._victim.communicate()
        for listener in self._sockets:
            listener.close()
        os.close(self._master)
        os.close(self.terminal)

    # ---- what an attacker is told

    def targets(self) -> dict[str, Any]:
        """Names that every attack may use."""
        assert self._victim is not None
        tcp, udp, *_ = self._sockets
        return {
            "home": str(self.home), "node": str(self.node), "text": str(self.text), "other_run": str(self.other_run),
            "key": str(self.home / ".ssh" / "id"), "held": str(self.node / "held.bin"),
            "evaluator": str(self.node / "evaluator.py"), "scratch": str(self.other_run.parent),
            "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1], "unix": str(self.root / "agent"),
            "datagram": str(self.root / "datagram"), "abstract": self.canary[::-1], "victim": self._victim.pid,
            "address": self._address, "marker": self.marker,
        }  # fmt: skip

    @property
    def marker(self) -> str:
        """At most 15 characters: the name by which a process that an attack leaves behind is found."""
        return self.canary[-14:]

    # ---- judging

    def victim_lives(self) -> bool:
        """Whether the victim runs: not dead, stopped or traced."""
        if self._victim is None or self._victim.poll() is not None:
            return False
        state = Path(f"/proc/{self._victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state not in "TtZX"

    def victim_memory(self) -> str:
        """What the victim's memory holds where its canary was."""
        with open(f"/proc/{self.targets()['victim']}/mem", "rb") as memory:
            memory.seek(self._address)
            return memory.read(len(self.canary)).decode(errors="replace")

    def leftovers(self) -> list[int]:
        """Processes that bear the marker."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "comm").read_text().strip() == self.marker:
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def lockable(self) -> bool:
        """Whether the held-out file can be locked by its owner."""
        with (self.node / "held.bin").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def settle(self) -> None:
        """Wait until every listener has taken what was sent before: a last word to each arrives behind it."""
        for listener in self._sockets:
            with socket.socket(listener.family, listener.type) as client:
                client.connect(listener.getsockname())
                client.send(SETTLED)
        deadline = time.monotonic() + 10
        while self.heard.count(SETTLED) < len(self._sockets):
            assert time.monotonic() < deadline, "a listener is stuck"
            time.sleep(0.001)

    # ---- making it

    def _start_victim(self) -> None:
        if self._victim is not None:
            self._victim.send_signal(signal.SIGCONT)
            self._victim.kill()
            self._victim.communicate()
        argv = [sys.executable, "-I", "-S", "-c", VICTIM, self.canary, str(self.node / "held.bin")]
        env = {"API_KEY": self.canary}
        self._victim = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
        assert self._victim.stdout is not None
        self._address = int(self._victim.stdout.readline())

    def _listen(self) -> None:
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        for family, kind, address in (
            (socket.AF_INET, stream, ("127.0.0.1", 0)),
            (socket.AF_INET, datagram, ("127.0.0.1", 0)),
            (socket.AF_UNIX, stream, str(self.root / "agent")),
            (socket.AF_UNIX, datagram, str(self.root / "datagram")),
            (socket.AF_UNIX, stream, "\0" + self.canary[::-1]),
        ):
            listener = socket.socket(family, kind)
            listener.bind(address)
            if kind == stream:
                listener.listen()
            self._sockets.append(listener)
            threading.Thread(target=self._serve, args=(listener, kind == stream), daemon=True).start()

    def _serve(self, listener: socket.socket, stream: bool) -> None:
        while True:
            try:
                if stream:
                    peer, _ = listener.accept()
                    with peer:
                        peer.settimeout(2)
                        self.heard.append(peer.recv(64))
                else:
                    self.heard.append(listener.recv(64))
            except TimeoutError:
                continue
            except OSError:
                return


def io_priority(pid: int) -> int:
    """The I/O scheduling class and level of a process, as the kernel encodes them."""
    number = {"x86_64": 252, "aarch64": 31}[os.uname().machine]
    return ctypes.CDLL(None).syscall(number, 1, pid)
