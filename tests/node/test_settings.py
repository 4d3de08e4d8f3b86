"""Where each setting comes from, and the service that starts a node with them."""

from __future__ import annotations

import json
import plistlib
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from swarm_node.node.home import Home
from swarm_node.node.service import systemd
from swarm_node.node.tasks import remember
from swarm_node.protocols.invites import Invite, encode_invite
from swarm_node.protocols.names import peer_id
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks

from .conftest import Command

ADDRESS = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(bytes(range(32)))}"
INVITE = encode_invite(Invite(addresses=(ADDRESS,), task="gpt-cpu/long", task_id=bytes(32)))


def shown(command: Command, *words: str) -> dict[str, tuple[object, str]]:
    """Value and source of each setting."""
    code, out, err = command("config", "show", "--json", *words)
    assert code == 0, err
    lines = map(json.loads, out.splitlines())
    return {line["name"]: (line["value"], line["source"]) for line in lines}


def test_each_setting_says_where_it_comes_from(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags win over the environment, that over the file, that over what is built in."""
    (tmp_path / "config.toml").write_text('model = "file"\nverify = 0.1\nfor = "2h"\nllm-share = 0.9\n')
    monkeypatch.setenv("SWARM_NODE_MODEL", "environment")
    monkeypatch.setenv("SWARM_NODE_VERIFY", "0.3")
    found = shown(command, "--model", "flag", "--solo", f"--home={tmp_path}")
    assert found["model"] == ("flag", "flag") and found["verify"] == (0.3, "SWARM_NODE_VERIFY")
    assert found["for"] == ("2h", "config.toml") and found["llm-share"] == (0.9, "config.toml")
    assert found["solo"] == (True, "flag") and found["disk"] == (8.0, "default")
    assert found["home"] == (str(tmp_path), "flag") and found["port"] == (None, "default")


def test_every_setting_of_join_is_there(command: Command) -> None:
    """With the number of runs at a time that this machine gets, and why."""
    from inspect import signature

    from swarm_node.node import cli

    names = {name.strip("_").replace("_", "-") for name in signature(cli.join).parameters}
    found = shown(command)
    assert names | {"OPENAI_API_KEY", "OPENAI_BASE_URL"} == set(found)
    assert isinstance(found["cpus"][0], int)
    assert "core" in next(line for line in command("config", "show")[1].splitlines() if line.startswith("  cpus "))


def test_the_invite_decides_the_task_unless_asked_otherwise(command: Command, tmp_path: Path) -> None:
    """And before both, what this home worked on; a damaged invite is an error here too."""
    found = shown(command, INVITE)
    assert found["task"] == ("gpt-cpu", "the invite's") and found["size"] == ("long", "the invite's")
    found = shown(command, INVITE, "--size", "short")
    assert found["size"] == ("short", "flag") and found["invite"] == (INVITE, "flag")
    home = Home.locate(tmp_path)
    home.create()
    with Ledger.open(home.ledger) as ledger:
        remember(ledger, tasks.load("gpt-cpu", "standard", bytes(32)).spec)
    assert shown(command, "--home", str(tmp_path))["size"] == ("standard", "as before")
    assert shown(command)["size"] == (None, "default")
    code, out, err = command("config", "show", INVITE[:-4])
    assert (code, out) == (3, "") and "damaged" in err


def test_secrets_are_not_shown(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that there is a key; of an address, not the password in it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@192.0.2.7:8000/v1")
    text = command("config", "show")[1] + command("config", "show", "--json")[1]
    assert "sk-secret" not in text and "me:" not in text and "192.0.2.7:8000/v1" in text
    assert shown(command)["OPENAI_API_KEY"] == ("set", "environment")


def test_the_config_file_has_a_place(command: Command, tmp_path: Path) -> None:
    """On stdout, for an editor; whether it is there is talk."""
    code, out, err = command("config", "path", "--home", str(tmp_path))
    assert (code, out) == (0, f"{tmp_path / 'config.toml'}\n") and "not there yet" in err
    (tmp_path / "config.toml").write_text("size = 'short'\n")
    assert json.loads(command("config", "path", "--json", "--home", str(tmp_path))[1])["exists"] is True


def started(unit: str) -> list[str]:
    """The command line of a unit, as systemd splits it."""
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line.removeprefix("ExecStart="))]


def test_a_unit_starts_the_node_as_asked(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With flags and this shell's environment as flags, and paths that hold in any folder; the config file, which the
    service reads itself, is not copied."""
    home = tmp_path / "config.toml"
    home.write_text('model = "file"\n')
    monkeypatch.setenv("SWARM_NODE_PORT", "4007")
    monkeypatch.chdir(tmp_path)
    where = ("--home", str(tmp_path))
    code, out, err = command("service", "print", "systemd", INVITE, "--corpus", "my text", "--solo", *where)
    words = started(out)
    assert code == 0 and words[words.index("join") + 1] == INVITE
    given = words[words.index(INVITE) + 1 :]
    assert given[given.index("--corpus") + 1] == str(tmp_path / "my text") and "--solo" in given
    assert given[given.index("--port") + 1] == "4007" and given[given.index("--home") + 1] == str(tmp_path)
    assert "--model" not in given and Path(words[0]).is_absolute()
    assert "systemctl --user" in err and shlex.quote("my text") in err and INVITE in err
    assert f"--home {tmp_path}" in err.splitlines()[0]  # or the line that installs it would install another node


def test_what_a_unit_leaves_out_was_not_asked_for(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to announce itself, and not to share a text, are flags too; a bootstrap has a unit of its own."""
    given = started(command("service", "print", "systemd", "--no-lan", "--no-share-corpus", "--private")[1])
    assert {"--no-lan", "--no-share-corpus", "--private"} <= set(given)
    monkeypatch.setenv("SWARM_NODE_LAN", "false")
    monkeypatch.setenv("SWARM_NODE_SOLO", "false")
    _, out, err = command("service", "print", "systemd", "bootstrap", "--port", "4001")
    assert started(out)[1:5] == ["bootstrap", "--port", "4001", "--no-lan"] and "--solo" not in out
    assert "service print systemd bootstrap --port 4001" in err


def test_a_unit_stops_as_ctrl_c_does(command: Command) -> None:
    """Its exit code is a good one; wrong flags are not tried again; nothing takes away what the sandbox needs."""
    unit = command("service", "print", "systemd")[1]
    lines = unit.splitlines()
    for line in ("KillSignal=SIGINT", "KillMode=mixed", "SuccessExitStatus=130", "Restart=on-failure",
                 "RestartPreventExitStatus=2 3 6 7", "OOMPolicy=continue"):  # fmt: skip
        assert line in lines
    for option in ("NoNewPrivileges", "RestrictNamespaces", "SystemCallFilter", "PrivateTmp", "MemoryDenyWrite"):
        assert option not in unit
    assert "sk-" not in unit


def test_a_flag_of_nobody_is_found_before_a_service_fails(command: Command) -> None:
    """As join would."""
    code, out, err = command("service", "print", "systemd", "--sise", "long")
    assert (code, out) == (2, "") and "--size" in err


@pytest.mark.parametrize("word", ["100%", "$HOME", 'a "b" c', "back\\slash", "plain"])
def test_words_mean_themselves_in_a_unit(word: str) -> None:
    """No specifier, variable or quote of systemd is in them."""
    assert started(systemd(["/bin/true", word])) == ["/bin/true", word]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_unit(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, though it names a folder with odd characters."""
    unit = tmp_path / "swarm-node.service"
    unit.write_text(command("service", "print", "systemd", "--corpus", str(tmp_path / "50% of $it"))[1])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    line = ["systemd-analyze", "verify", "--user", str(unit)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_launchd_gets_a_property_list(command: Command) -> None:
    """That its own format's parser reads."""
    code, out, err = command("service", "print", "launchd", "--size", "long")
    found = plistlib.loads(out.encode())
    assert code == 0 and found["ProgramArguments"][1:4] == ["join", "--size", "long"] and "launchctl bootstrap" in err
    assert found["KeepAlive"] == {"SuccessfulExit": False} and found["Label"] in err
