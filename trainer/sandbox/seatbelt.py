"""macOS: the profile that `sandbox-exec -p` would confine a run with. UNTESTED: written from documents, used nowhere.

A node on macOS observes until somebody has run the attack suite against this there. What it has to be measured against:
sandbox-exec is deprecated but what other agents use; RLIMIT_AS and RLIMIT_DATA are not enforced, so that memory needs a
watchdog over psutil; there is no subreaper and no fork server, so that every run is an exec and pays torch's import.
"""

from __future__ import annotations

import os

from .policy import Policy

_SYSTEM = ("/usr/lib", "/System/Library", "/Library/Apple/System/Library")


def profile(policy: Policy) -> str:
    """The Seatbelt profile for what `policy` allows: default deny, no network, no fork, no mach services, no devices
    but /dev/null and /dev/urandom. Raises ValueError on a path that cannot be quoted."""
    lines = ["(version 1)", "(deny default)", "(allow sysctl-read)", "(allow signal (target self))"]
    lines += [f"(allow process-exec {_literal(path)})" for path in policy.rx]
    readable = [*_SYSTEM, *policy.rx, *policy.ro]
    lines += [f"(allow file-read* {_subpath(path)})" for path in readable]
    lines += [f"(allow file-read-metadata {_literal(path)})" for path in policy.ls]
    lines += [f"(allow file-read* file-write-data file-write-create {_subpath(path)})" for path in policy.rw]
    lines += ['(allow file-read* (literal "/dev/urandom"))', '(allow file-read* file-write-data (literal "/dev/null"))']
    return "\n".join(lines) + "\n"


def _subpath(path: str) -> str:
    return f"(subpath {_quoted(path)})"


def _literal(path: str) -> str:
    return f"(literal {_quoted(path)})"


def _quoted(path: str) -> str:
    """The real path (rules are matched against /private/var, not /var) as a string of the profile's Scheme."""
    real = os.path.realpath(path)
    if not real.isprintable():
        raise ValueError(f"a path with a control character: {real!r}")
    return '"' + real.replace("\\", "\\\\").replace('"', '\\"') + '"'
