"""What an attack is, and what every attack may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .scene import Scene

Judge = Callable[[Scene, str], bool]  # the place after the attack, and the attack's output: whether it succeeded

PRELUDE = """
import ctypes, errno, fcntl, glob, mmap, os, platform, resource, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), "refused")
    return result
def syscall(x86, arm, *arguments):
    return call("syscall", x86 if platform.machine() == "x86_64" else arm, *arguments)
def call(name, *arguments):
    return checked(getattr(libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
def say(*words): print("SAID", *words, flush=True)
def refused(work):
    try: work()
    except OSError: return True
"""


@dataclass(frozen=True)
class Attack:
    """`code` runs with PRELUDE and the scene's targets; `succeeded` looks at what became of the scene.

    bare: whether it is also run without a sandbox, where it has to succeed. "root": only as root it can. Empty: it
    would hurt the machine that tests. watched: it is a worker that stops it, not the confinement. torch: it needs
    torch. wall: seconds it may take in the sandbox.
    """

    code: str
    succeeded: Judge
    bare: str = "user"
    watched: bool = False
    torch: bool = False
    wall: float = 20.0


def said(word: str) -> Judge:
    """The attack told that it did what it came for."""
    return lambda _, output: re.search(rf"^SAID {word}", output, re.MULTILINE) is not None


def leaked(scene: Scene, output: str) -> bool:
    """The output holds a secret."""
    return scene.canary in output


def heard(word: str) -> Judge:
    """A message arrived at a socket."""

    def judge(scene: Scene, _: str) -> bool:
        scene.settle()
        return word.encode() in scene.heard

    return judge


def more_than(amount: int) -> Judge:
    """The attack got more than this of what it counted."""

    def judge(_: Scene, output: str) -> bool:
        counted = re.findall(r"^SAID (\d+)", output, re.MULTILINE)
        return bool(counted) and int(counted[-1]) > amount

    return judge
