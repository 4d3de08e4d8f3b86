"""Which directories a Python with torch needs to read on this machine, and how to leave files out of them.

Landlock allows whole trees and cannot subtract, so a tree that contains something hidden is allowed entry by entry
along the paths to it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Sequence

_LIBRARY_ROOTS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_SITE = ("site-packages", "dist-packages")


def readable_trees() -> list[str]:
    """Existing files and directories, resolved: shared libraries, the standard library, installed packages."""
    base = sys.base_prefix
    paths = ["/etc/ld.so.cache", f"{sys.prefix}/pyvenv.cfg", *_shared_libraries((*_LIBRARY_ROOTS, f"{base}/lib"))]
    paths += [sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED") or "", *site_directories()]
    return list(dict.fromkeys(os.path.realpath(path) for path in paths if path and os.path.exists(path)))


def site_directories() -> list[str]:
    """Where this interpreter finds installed packages, torch's own place included."""
    found = [path for path in sys.path if os.path.basename(path) in _SITE and os.path.isdir(path)]
    torch = importlib.util.find_spec("torch")
    if torch and torch.origin:
        found.append(os.path.dirname(os.path.dirname(torch.origin)))
    return list(dict.fromkeys(map(os.path.realpath, found)))


def _shared_libraries(roots: Sequence[str]) -> list[str]:
    """Library files right in the roots, and Debian's directory per architecture; not the applications beside them."""
    found = []
    for root in dict.fromkeys(map(os.path.realpath, roots)):
        if os.path.isdir(root):
            found.append(f"{root}/{platform.machine()}-linux-gnu")
            found += [e.path for e in os.scandir(root) if ".so" in e.name and e.is_file(follow_symlinks=False)]
    return found


def carve(trees: Sequence[str], hidden: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split trees into (paths to allow whole, directories to allow only listing of), leaving `hidden` out.

    All paths resolved. Hidden sources take their bytecode with them, also what is compiled later. A package with
    something hidden in it is left out altogether of other site directories, which may hold a second copy; so are site
    directories that are not trees of their own. Symbolic links are not followed.
    """
    hide = set(hidden)
    packages = {_package(path, trees) for path in hidden} - {""}
    for tree in trees:
        if os.path.basename(tree) in _SITE:
            copies = (f"{tree}/{package}" for package in packages)
            hide.update(copy for copy in copies if not any(path.startswith(copy + "/") for path in hidden))
        sites = (f"{tree}/{name}" for name in _SITE)
        hide.update(site for site in sites if site not in trees and os.path.isdir(site))
    bytecode = {_bytecode(path) for path in hidden if path.endswith(".py")}
    ancestors = {parent for path in (*hide, *bytecode) for parent in _parents(path)}

    allowed: list[str] = []
    listed: list[str] = []

    def walk(path: str) -> None:
        directory, name = os.path.split(path)
        if path in hide or f"{directory}/{name.partition('.')[0]}" in bytecode:
            return
        if path not in ancestors:
            allowed.append(path)
        elif os.path.isdir(path):
            listed.append(path)
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
                if not entry.is_symlink() and entry.path not in trees:
                    walk(entry.path)

    for tree in trees:
        walk(tree)
    return allowed, listed


def _package(path: str, trees: Sequence[str]) -> str:
    for tree in trees:
        if os.path.basename(tree) in _SITE and path.startswith(tree + "/"):
            return path[len(tree) + 1 :].split("/")[0]
    return ""


def _bytecode(source: str) -> str:
    """The start of the names that Python gives to the compiled forms of a source: without ".cpython-311.pyc"."""
    directory, name = os.path.split(source)
    return f"{directory}/__pycache__/{name[:-3]}"


def _parents(path: str) -> list[str]:
    found = []
    while (parent := os.path.dirname(path)) != path:
        found.append(parent)
        path = parent
    return found
