"""Hidden files stay unreadable inside readable trees."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from swarm_node.trainer.sandbox.policy import exec_policy, fork_server_policy
from swarm_node.trainer.sandbox.readable import carve, readable_trees, site_directories

READ = """
import sys
for path in sys.argv[1:]:
    try: print(len(open(path, "rb").read()) > 0)
    except PermissionError: print("denied")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site directory with one package, of which held.py is hidden."""
    site = tmp_path / "venv" / "site-packages"
    for name in (
        "other/module.py",
        "pkg/__init__.py",
        "pkg/open.py",
        "pkg/held.py",
        "pkg/held_not.py",
        "pkg/__pycache__/open.cpython-311.pyc",
        "pkg/__pycache__/held.cpython-311.pyc",
        "pkg/__pycache__/held.cpython-313.opt-1.pyc",
        "pkg/__pycache__/held_not.cpython-311.pyc",
        "pkg/sub/module.py",
    ):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# text\n")
    return site


def names(paths: list[str], below: Path) -> list[str]:
    return [str(Path(path).relative_to(below)) for path in paths]


def test_tree_is_cut_only_along_the_way_to_what_is_hidden(site):
    """Siblings of a hidden file are allowed one by one, everything else as whole directories."""
    allowed, listed = carve([str(site)], [str(site / "pkg/held.py")])
    assert names(listed, site) == [".", "pkg", "pkg/__pycache__"]
    assert names(allowed, site) == [
        "other",
        "pkg/__init__.py",
        "pkg/__pycache__/held_not.cpython-311.pyc",
        "pkg/__pycache__/open.cpython-311.pyc",
        "pkg/held_not.py",
        "pkg/open.py",
        "pkg/sub",
    ]


def test_bytecode_compiled_later_is_hidden_too(site):
    """The cache directory of a hidden source is never allowed whole, even while it holds nothing hidden."""
    for path in (site / "pkg/__pycache__").glob("held.*"):
        path.unlink()
    allowed, listed = carve([str(site)], [str(site / "pkg/held.py")])
    assert str(site / "pkg/__pycache__") in listed and str(site / "pkg/__pycache__") not in allowed


def test_second_copy_of_a_partly_hidden_package_is_left_out(site, tmp_path):
    """Another site directory may hold the same package: all of that copy is hidden."""
    second = tmp_path / "base" / "dist-packages"
    for name in ("pkg/held.py", "more/module.py"):
        (second / name).parent.mkdir(parents=True, exist_ok=True)
        (second / name).write_text("# text\n")
    allowed, _ = carve([str(site), str(second)], [str(site / "pkg/held.py")])
    assert [path for path in allowed if path.startswith(str(second))] == [str(second / "more")]
    assert carve([str(second)], [])[0] == [str(second)]


def test_site_directory_inside_the_standard_library_is_left_out(tmp_path):
    """The base interpreter's packages are not readable only because its standard library is."""
    for name in ("site-packages/pkg/a.py", "json/decoder.py", "os.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# text\n")
    allowed, listed = carve([str(tmp_path)], [])
    assert (names(allowed, tmp_path), names(listed, tmp_path)) == (["json", "os.py"], ["."])
    trees = [str(tmp_path), str(tmp_path / "site-packages")]
    allowed, _ = carve(trees, [str(tmp_path / "site-packages/pkg/a.py")])
    assert names(allowed, tmp_path) == ["json", "os.py"]
    assert names(carve(trees, [])[0], tmp_path) == [".", "site-packages"]


def test_links_out_of_a_tree_are_not_followed(site, tmp_path):
    """A symbolic link beside something hidden gives no access to where it points."""
    (site / "pkg" / "link").symlink_to(tmp_path)
    allowed, _ = carve([str(site)], [str(site / "pkg/held.py")])
    assert not any(path.endswith("link") for path in allowed)


def test_kernel_denies_what_was_left_out(site, tmp_path, place, run):
    """In a real sandbox the hidden source and its bytecode cannot be opened by any name; their siblings can."""
    hidden = site / "pkg/held.py"
    (tmp_path / "by-link").symlink_to(hidden)
    ro, ls = carve([str(site)], [str(hidden)])
    server = fork_server_policy(place.root, place.text, [], 1 << 30)
    policy = exec_policy(replace(server, ro=(*server.ro, *ro), ls=(*server.ls, *ls)), place.own, 10)
    shown = [site / "pkg/open.py", site / "pkg/held_not.py", site / "pkg/sub/module.py", site / "other/module.py"]
    secret = [hidden, site / "pkg/__pycache__/held.cpython-311.pyc", site / "pkg/sub/../held.py", tmp_path / "by-link"]
    (site / "pkg/__pycache__/held.cpython-312.pyc").write_text("compiled after the policy was made")
    secret.append(site / "pkg/__pycache__/held.cpython-312.pyc")
    done = run(policy, READ, *map(str, shown), *map(str, secret))
    assert done.stdout.split() == ["True"] * len(shown) + ["denied"] * len(secret)


def test_policy_of_this_machine_reads_python_and_torch_but_no_home(server_policy, place, run):
    """The policy of this interpreter reads torch, and nothing else of the user's."""
    policy = exec_policy(server_policy, place.own, 10)
    torch = next(Path(site) / "torch" / "__init__.py" for site in site_directories() if (Path(site) / "torch").is_dir())
    outside = [Path(__file__), Path("/etc/passwd"), Path(sys.prefix, "bin", "activate"), place.hidden]
    done = run(policy, READ, str(torch), str(place.text), *map(str, outside))
    assert done.stdout.split() == ["True", "True", *["denied"] * len(outside)]
    assert not {"/", "/usr", "/usr/lib", "/home", str(Path.home()), sys.prefix} & set(readable_trees())
