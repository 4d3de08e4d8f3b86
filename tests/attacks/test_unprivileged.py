"""The whole suite as a user without any privilege, when it was root who started the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
UID = 54_321  # that no account has
NOT_OURS = shutil.ignore_patterns("swarm_node*", "__editable__*")


@pytest.fixture
def place(site: Path) -> Iterator[Path]:
    """An environment with the wheel, and this suite, that everybody may read and nobody else write."""
    root = Path(tempfile.mkdtemp(prefix="attacks-"))
    try:
        subprocess.run([_interpreter(), "-m", "venv", "--without-pip", root / "env"], check=True)
        (packages,) = (root / "env" / "lib").glob("python*/site-packages")
        for folder, ignore in ((Path(sysconfig.get_path("purelib")), NOT_OURS), (site, None)):
            shutil.copytree(folder, packages, copy_function=_link, ignore=ignore, dirs_exist_ok=True)
        shutil.copytree(HERE, root / "tests" / "attacks", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE.parents[1] / "pyproject.toml", root)
        (root / "own").mkdir()
        os.chown(root / "own", UID, UID)
        for made in (root, *root.rglob("*")):
            if not made.is_symlink():
                made.chmod(made.stat().st_mode | (0o555 if made.is_dir() else 0o444))
        yield root
    finally:
        shutil.rmtree(root)


def _link(source: str, destination: str) -> None:
    """A hard link where possible: torch is large."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def _interpreter() -> str:
    """A Python like this one that everybody may execute."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (os.path.realpath(sys.executable), *(f"{folder}/{name}" for folder in ("/usr/local/bin", "/usr/bin"))):
        command = [path, "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, user=UID, group=UID, extra_groups=[], cwd="/"
            )
        except OSError:
            continue
        if done.stdout.strip() == sysconfig.get_config_var("SOABI"):
            return path
    pytest.skip(f"no {name} that a user other than root may execute")


@pytest.mark.skipif(os.geteuid() != 0, reason="the suite itself runs unprivileged already")
@pytest.mark.long
def test_every_attack_is_stopped_for_an_unprivileged_user(place: Path) -> None:
    """No root powers hide a hole or help the sandbox; every attack that a user can make succeeds without it."""
    command = [
        place / "env/bin/python",
        "-m",
        "pytest",
        "-q",
        "-m",
        "not long",
        "-p",
        "no:cacheprovider",
        "tests/attacks",
    ]
    env = {
        "HOME": str(place / "own"),
        "TMPDIR": str(place / "own"),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        command, cwd=place, env=env, user=UID, group=UID, extra_groups=[], text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip
    print(done.stdout[-6000:])
    assert done.returncode == 0
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 500
