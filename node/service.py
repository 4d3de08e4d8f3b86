"""`swarm-node service print`: what a service manager needs to keep a node running for this user.

A node isolates each run by itself (Landlock, seccomp, resource limits, bubblewrap where it is there). What a service
manager would put around it is left out where it takes something away that this needs:

- NoNewPrivileges=, RestrictNamespaces=, RestrictSUIDSGID=   bubblewrap makes namespaces, and is setuid on some systems
- SystemCallFilter=, SystemCallArchitectures=                a list without Landlock's calls would stop every run
- PrivateTmp=, PrivateUsers=, ProtectSystem=, ProtectHome=   nodes of one user share locks for cores in /tmp; the home
                                                             lies in the user's
- MemoryDenyWriteExecute=                                    torch makes code while it runs
- ProtectProc=, ProcSubset=                                  CPU time of runs is read there
- RestrictAddressFamilies=, PrivateNetwork=                  peers, and pipes to the runs
"""

from __future__ import annotations

import plistlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..protocols.errors import (
    ConfigError,
    IsolationError,
    LLMError,
    UsageError,
)

NAME = "swarm-node"
LABEL = "io.github.swarm-node"
STOP_SECONDS = 30  # a node leaves within three; what runs then is dropped, and done again at the next start
PAUSE_SECONDS = 30
_FINAL = sorted(error.exit_code for error in (UsageError, ConfigError, IsolationError, LLMError))  # again is the same
_CTRL_C = 130  # the exit code after a polite end
_PLAIN = re.compile(r"[A-Za-z0-9_@=+,./:~-]+")


def command(role: str, flags: Sequence[str]) -> list[str]:
    """How to start this installation's node. `role`: join or bootstrap."""
    script = Path(sys.executable).parent / "swarm-node"
    start = [str(script)] if script.exists() else [sys.executable, "-m", "swarm_node.node.cli"]
    return [*start, role, *flags]


def systemd(words: Sequence[str]) -> str:
    """A unit for this user's systemd."""
    return f"""\
# {NAME}.service, for the user's own systemd. A key for a language model goes into the file that EnvironmentFile names
# (OPENAI_API_KEY=..., readable by you alone), not in here.
[Unit]
Description=swarm-node, research experiments in a peer-to-peer swarm

[Service]
Type=exec
ExecStart={" ".join(map(_quoted, words))}
EnvironmentFile=-%h/.config/{NAME}/environment
# As Ctrl-C: the node leaves politely, ends its runs itself, and says so with {_CTRL_C}.
KillSignal=SIGINT
KillMode=mixed
TimeoutStopSec={STOP_SECONDS}
SuccessExitStatus={_CTRL_C}
Restart=on-failure
RestartSec={PAUSE_SECONDS}
# Wrong flags or settings, no isolation, no language model though asked for: the next start would end as this one did.
RestartPreventExitStatus={" ".join(map(str, _FINAL))}
# A run that takes too much memory is a result; the node goes on.
OOMPolicy=continue
# No hardening here on purpose: the node isolates its runs itself, and needs what these options take away.

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """One word of a systemd command line: specifiers, variables and quotes lose their meaning."""
    word = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def launchd(words: Sequence[str]) -> str:
    """A property list for this user's launchd."""
    log = str(Path.home() / "Library" / "Logs" / f"{NAME}.log")
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(words),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": PAUSE_SECONDS,
            "ExitTimeOut": STOP_SECONDS,
            "StandardOutPath": log,
            "StandardErrorPath": log,
        },
        sort_keys=False,
    ).decode()


def how_to_install(kind: str, words: Sequence[str]) -> str:
    """What to do with it. `words`: after the kind, the home's flag among them, so that what is installed is what was
    shown."""
    again = shlex.join(["swarm-node", "service", "print", kind, *words])
    if kind == "launchd":
        return (
            f"install it:  {again} > ~/Library/LaunchAgents/{LABEL}.plist\n"
            f"start it:    launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/{LABEL}.plist\n"
            f"stop it:     launchctl bootout gui/$(id -u)/{LABEL}"
        )
    return (
        f"install it:  mkdir -p ~/.config/systemd/user && {again} > ~/.config/systemd/user/{NAME}.service\n"
        f"start it:    systemctl --user daemon-reload && systemctl --user enable --now {NAME}\n"
        f"keep it running while you are logged out:  loginctl enable-linger\n"
        f"watch it:    journalctl --user -u {NAME} -f, or swarm-node feed"
    )
