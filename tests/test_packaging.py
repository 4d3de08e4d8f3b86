"""What is shipped: the wheel, the package list, the Docker image's context."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from .conftest import FOLDERS, ROOT, shipped

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_package_list_is_the_tree() -> None:
    """Every folder with an __init__.py is in pyproject's package list, and nothing else is."""
    tree = {
        "swarm_node." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == tree


def test_wheel_holds_every_file(wheel: Path) -> None:
    """Each module and data file of the tree is in the wheel under swarm_node, and no other top-level name is."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    packed = {name for name in names if ".dist-info/" not in name}
    expected = {f"swarm_node/{path.as_posix()}" for path in shipped() if path.parts[0] in FOLDERS}
    assert packed == expected
    assert {Path(name).suffix for name in packed} >= {".py", ".json", ".md", ".toml", ".tsv"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_wheel_takes_no_common_name(site: Path) -> None:
    """Nobody's `import node`, `trainer`, `swarm` or `protocols` finds ours, and swarm_node itself imports."""
    code = (
        "import importlib.util, sys; site = sys.argv[1]; sys.path.insert(0, site);"
        "import swarm_node.protocols.canonical as ours; assert ours.__file__.startswith(site), ours.__file__;"
        "found = [importlib.util.find_spec(name) for name in sys.argv[2:]];"
        "print([spec.name for spec in found if spec and str(spec.origin).startswith(site)])"
    )
    done = _python("-c", code, str(site), *FOLDERS)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_command_works_from_the_wheel(wheel: Path, site: Path) -> None:
    """The command that the wheel declares says its version without the repository."""
    entry = (next(site.glob("*.dist-info")) / "entry_points.txt").read_text()
    match = re.search(r"swarm-node = ([\w.]+):(\w+)", entry)
    assert match
    code = f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv = ['swarm-node', '--version']; "
    code += f"from {match[1]} import {match[2]} as main; import swarm_node.node.cli as c; "
    code += f"assert c.__file__.startswith({str(site)!r}), c.__file__; main()"
    done = _python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, PROJECT["project"]["version"]), done.stderr


def test_daemon_imports_no_torch() -> None:
    """Importing everything the daemon consists of leaves torch unimported: only workers load it."""
    code = "import sys, swarm_node.node.app, swarm_node.node.cli, swarm_node.swarm.net; print('torch' in sys.modules)"
    done = _python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_docker_image_copies_what_exists() -> None:
    """Every file that the Dockerfile copies exists, passes the ignore file, and all four folders are among them."""
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    let_in = (ROOT / "docker/Dockerfile.dockerignore").read_text().split()
    assert set(FOLDERS) <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_in


def test_scripts_are_runnable_and_short() -> None:
    """The shell scripts parse, are executable, and stay short enough to read at a glance."""
    for name in ("scripts/setup", "scripts/join", "scripts/test", "scripts/test-long", "scripts/check", ".ci/run"):
        path = ROOT / name
        assert path.stat().st_mode & 0o111, name
        assert len(path.read_text().splitlines()) <= 20, name
        assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0, name


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python outside the repository; -P keeps the current folder off the path."""
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=120)
