"""What several folders of tests use: the wheel as it is shipped."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)  # machines are shared: no test is about time
settings.register_profile("long", max_examples=100_000, deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("protocols", "trainer", "swarm", "node")


# What takes seconds to make, so that the tests that share it go to one process, which makes it once.
_COSTLY = {"executor", "scene", "wheel"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests together that share something costly."""
    for item in items:
        costly = _COSTLY & set(getattr(item, "fixturenames", ()))
        if costly and item.get_closest_marker("xdist_group") is None:
            shared = "wheel" if "wheel" in costly else item.path.parent.name
            item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once from a copy of what git would ship."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in shipped():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    done = subprocess.run([sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked, as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def shipped() -> list[Path]:
    """Every file of the four folders that a wheel must hold, and what building needs, relative to the root."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    files = [path.relative_to(ROOT) for path in inside if "__pycache__" not in path.parts]
    return [*files, Path("pyproject.toml"), Path("README.md"), Path("LICENSE")]
