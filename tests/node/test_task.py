"""A task of one's own: a folder that is made, checked, worked on and found again; or refused with a reason."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from swarm_node.node import task_check
from swarm_node.node.app import Node, Settings
from swarm_node.node.choice import BEFORE, Choice, choose_task
from swarm_node.node.convert import MARK, constants_of, convert, notes
from swarm_node.node.home import Home
from swarm_node.node.screen import Screen
from swarm_node.node.tasks import corpus_of, current_task, load_known, own_folders, quotable_names, remember
from swarm_node.protocols.errors import ConfigError, UsageError
from swarm_node.protocols.invites import Invite, encode_invite
from swarm_node.protocols.names import peer_id
from swarm_node.protocols.task import TaskSpec
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks
from swarm_node.trainer.corpus import Corpus

THEIRS = Path(__file__).parent / "autoresearch"
UPSTREAM = (THEIRS / "train.py").read_text()
PREPARED = constants_of((THEIRS / "prepare.py").read_text())
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(command: Command, tmp_path: Path) -> Path:
    """A new task called mine, like gpt-cpu."""
    command("task", "new", str(tmp_path / "mine"))
    return tmp_path / "mine"


def spec_of(folder: Path, size: str = "short", data: bytes = bytes(32)) -> TaskSpec:
    return tasks.load(folder.name, size, data, folder=folder).spec


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- out of autoresearch


def in_main(text: str) -> str:
    """The whole setup and loop within main(), as some forks have it."""
    head, run = text.split("t_start = time.time()\n", 1)
    body = "".join(f"    {line}" if line.strip() else line for line in run.splitlines(keepends=True))
    return f'{head}def main():\n{body}\n\nif __name__ == "__main__":\n    main()\n'


MAC = (
    ("import wandb\n", "import sys\n"),
    ("    wandb.log", "    print"),
    (
        "\nfrom prepare",
        '\ndef verify():\n    if sys.platform != "darwin":\n        raise RuntimeError\n\nverify()\nfrom prepare',
    ),
    (
        'device = torch.device("cuda")\n',
        'device_type = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"\n'
        "device = torch.device(device_type)\n",
    ),
    (
        "while True:\n    torch.cuda.synchronize()\n",
        'def sync(kind):\n    if kind == "mps":\n        torch.mps.synchronize()\n\n'
        "while True:\n    sync(device_type)\n",
    ),
    ("model = torch.compile", 'if device_type == "cuda":\n    model = torch.compile'),
)
IF_KERNELS = (
    ("from kernels", "SDPA = False\nif os.name != 'nt':\n    from kernels"),
    ("cap =", "    cap ="),
    ("repo =", "    repo ="),
    ("fa3 =", "    fa3 ="),
)


SAMPLE = """def sample(model):
    with open("out.txt") as file:
        return tokenizer.decode(model)
"""


def replaced(*pairs: tuple[str, str]) -> str:
    text = UPSTREAM
    for old, new in pairs:
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize(
    "source",
    [
        UPSTREAM,
        in_main(UPSTREAM),
        replaced(*MAC),
        replaced(*IF_KERNELS),
        replaced(("while True:", "for step in range(500):"), ("    step += 1\n", "")),
        replaced(("DEVICE_BATCH_SIZE, MAX_SEQ_LEN, ", "B=DEVICE_BATCH_SIZE, T=MAX_SEQ_LEN, split=")),
    ],
    ids=["upstream", "main()", "mac", "kernels behind an if", "for", "keywords"],
)  # fmt: skip
def test_what_upstream_and_its_forks_have_in_common_is_converted(source: str) -> None:
    """To a train(ctx) that takes exactly its steps by the schedule, and returns a model that answers."""
    import torch

    text = convert(source, PREPARED)
    assert {words for _, words in notes(text)} == {f"was {number}, for a GPU" for number in (2**19, 8, 128)}
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert not names & {
        "TIME_BUDGET",
        "tokenizer",
        "Tokenizer",
        "epoch",
        "wandb",
        "fa3",
        "get_kernel",
        "PEAK_FLOPS",
        "dt",
    }
    assert "synchronize" not in text and "bfloat16" not in text
    module: dict[str, Any] = {"__name__": "builtins"}  # any that is imported
    exec(compile(text, "train.py", "exec", dont_inherit=True), module)
    losses: list[float] = []
    ctx = SimpleNamespace(
        steps=3, vocab_size=256, batch=lambda rows, length: torch.randint(256, (2, rows, length)).unbind(),
        step=lambda model, loss: losses.append(float(loss)),
    )  # fmt: skip
    model = module["train"](ctx)
    assert len(losses) == 3 and 4 < losses[0] < 8
    assert model(torch.zeros(2, 16, dtype=torch.int64)).shape == (2, 16, 256)


def test_what_no_rule_decides_is_marked_at_its_line() -> None:
    """And said with the number that the line has in the new file."""
    source = replaced(
        ("config = build", f"{SAMPLE}\nconfig = build"),
        ("LR = 0.003", "LR = 0.003 if torch.cuda.get_device_capability() else VAL_SHARD"),
        ("evaluate_bpb\n", "evaluate_bpb, ROWS\nHALF = ROWS // 2\nassert HALF\n"),
        ("# Final eval\n", "model.load_state_dict(ema)\n"),
    )  # fmt: skip
    text = convert(source, PREPARED)
    ast.parse(text)
    found = dict(notes(text))
    lines = text.splitlines()
    for words, line in (
        ("open()", "with open"),
        ("tokenizer", "return tokenizer.decode"),
        ("ROWS comes", "ROWS = None"),
    ):
        number = next(number for number, said in found.items() if words in said)
        assert line in lines[number], (words, lines[number])
    assert any("what followed the loop" in said for said in found.values())


def test_a_file_without_a_loop_says_so_and_is_no_task_yet(command: Command, tmp_path: Path) -> None:
    """Nothing is made up; the check fails with what is missing."""
    theirs = tmp_path / "theirs"
    shutil.copytree(THEIRS, theirs)
    (theirs / "train.py").write_text("import torch\nprint('hello')\n")
    code, out, err = command("task", "new", str(tmp_path / "odd"), "--from", str(theirs))
    assert (code, out) == (0, "") and "train.py, line 1: no training loop" in err
    assert err.splitlines()[-1].startswith("next  see whether it works: swarm-node task check")


def test_a_new_task_out_of_autoresearch(command: Command, tmp_path: Path) -> None:
    """Their brief stays as it is, with our contract behind it; prepare.py, which would raise, is only read."""
    text = tmp_path / "theirs" / "data" / "book.txt"
    shutil.copytree(THEIRS, tmp_path / "theirs")
    text.parent.mkdir()
    text.write_text("x" * 100)
    edit(tmp_path / "theirs" / "prepare.py", 'os.path.join(CACHE_DIR, "data")', '"data"')
    code, out, err = command("task", "new", str(tmp_path / "mine"), "--from", str(tmp_path / "theirs"))
    assert (code, out) == (0, "") and "was 8, for a GPU" in err and "a run had 300 s" in err
    found = tasks.define("mine", tmp_path / "mine")
    assert found.corpus == text.parent and list(found.sizes) == ["short", "standard", "long"]
    brief = (tmp_path / "mine" / "program.md").read_text()
    ours = tasks.define("gpt-cpu").read("program.md", tasks.MAX_BRIEF)
    contract = "`ctx.step(model, loss)` is called exactly `ctx.steps` times"
    assert brief.startswith((THEIRS / "program.md").read_text().rstrip()) and contract in brief and contract in ours


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("train.py", "def (", "is not Python"),
        ("prepare.py", "x =", "is not Python"),
        ("program.md", "a" * 16000, "too long"),
    ],
)
def test_an_autoresearch_directory_that_cannot_be_read(
    command: Command, tmp_path: Path, file: str, text: str, words: str
) -> None:
    """Nothing is left half made."""
    shutil.copytree(THEIRS, tmp_path / "theirs")
    (tmp_path / "theirs" / file).write_text(text)
    code, _, err = command("task", "new", str(tmp_path / "mine"), "--from", str(tmp_path / "theirs"))
    assert code == 3 and words in err and "fix:" in err and not (tmp_path / "mine").exists()
    code, _, err = command("task", "new", str(tmp_path / "mine"), "--from", str(tmp_path))
    assert code == 2 and "there is no" in err and "fix:" in err


# ---- the folder


def test_a_new_task_is_a_copy_of_ours_under_its_own_name(folder: Path) -> None:
    """With an id of its own, which changes with train.py and not with the brief."""
    ours = tasks.load("gpt-cpu", "short", bytes(32))
    mine = tasks.load("mine", "short", bytes(32), folder=folder)
    assert mine.baseline == ours.baseline and mine.brief.startswith("# mine\n") and mine.scored == ours.scored
    assert (mine.spec.metric, mine.spec.evaluator, mine.worthwhile) == (
        ours.spec.metric,
        ours.spec.evaluator,
        ours.worthwhile,
    )
    assert mine.spec.id != ours.spec.id and mine.spec.id == spec_of(folder).id
    edit(folder / "program.md", "# mine", "# other")
    assert mine.spec.id == spec_of(folder).id
    edit(folder / "train.py", "DEPTH = 2", "DEPTH = 1")
    assert mine.spec.id != spec_of(folder).id


@pytest.mark.parametrize("name", ["gpt-cpu", "Mine", "my_task", "-mine", "m" * 33, "mi ne"])
def test_names_that_cannot_be_a_task(command: Command, tmp_path: Path, folder: Path, name: str) -> None:
    """When it is made, and when a folder is renamed to that."""
    code, _, err = command("task", "new", str(tmp_path / "new" / name))
    assert code == 3 and "cannot be called" in err and "fix:" in err
    code, _, err = command("join", "--solo", "--task", str(folder.rename(tmp_path / name)))
    assert code == 3 and "cannot be called" in err and not (tmp_path / "default" / "identity.key").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("task.toml", "title =", "evaluator = 9\ntitle =", "unknown key 'evaluator'"),
        ("task.toml", 'title = "mine"', "", "no title"),
        ("task.toml", 'title = "mine"', "title = 1", "no title"),
        ("task.toml", '# corpus = "PATH"', "corpus = 1", "is no path"),
        ("task.toml", "[sizes]", "[steps]", "unknown key 'steps'"),
        ("task.toml", "short = 1_300", "short = 0", "short = 0 is no size"),
        ("task.toml", "short = 1_300", "7 = 1", "7 = 1 is no size"),
        ("task.toml", "short = 1_300", "short = true", "short = True is no size"),
        ("task.toml", "[sizes]", "[sizes", "is not TOML"),
        ("train.py", "DEPTH = 2", "DEPTH = 2  # \u202e", "contains the character U+202E"),
        ("task.toml", None, None, "cannot read"),
        ("train.py", None, None, "cannot read"),
        ("program.md", None, None, "cannot read"),
    ],
)
def test_each_mistake_in_a_folder_is_one_clear_error(
    command: Command, folder: Path, file: str, old: str | None, new: str, words: str
) -> None:
    """Of join, before it makes anything, and of the check; exit code 3."""
    if old is None:
        (folder / file).unlink()
    else:
        edit(folder / file, old, new)
    for words_given in (("join", "--solo", "--task", str(folder)), ("task", "check", str(folder))):
        code, out, err = command(*words_given)
        assert code == 3 and words in out + err and "fix:" in out + err, out + err


def test_what_a_task_is_not(command: Command, folder: Path, tmp_path: Path) -> None:
    """A folder that is not there, a word that nobody knows, a folder that has something in it."""
    code, _, err = command("task", "show", "./nowhere")
    assert code == 3 and "is not there" in err and "--task FOLDER" in err
    code, _, err = command("task", "show", "nothing")
    assert code == 2 and "there is no task nothing" in err and "task new" in err
    code, _, err = command("task", "new", str(folder))
    assert code == 2 and "is there already" in err


def test_its_text_is_relative_to_the_folder_and_looked_at_first(command: Command, folder: Path) -> None:
    """--corpus goes before it."""
    edit(folder / "task.toml", '# corpus = "PATH"', 'corpus = "book.txt"')
    assert corpus_of("mine", {"mine": folder}) == folder / "book.txt"
    code, _, err = command("join", "--solo", "--task", str(folder))
    assert code == 4 and f"cannot read the corpus {folder / 'book.txt'}" in err


# ---- the choice, and what a home remembers


def invite(task: str, task_id: bytes = bytes(32)) -> Invite:
    address = f"/ip4/192.0.2.7/tcp/4001/p2p/{peer_id(bytes(range(32)))}"
    return Invite(addresses=(address,), task=task, task_id=task_id)


def test_a_folder_is_chosen_by_path_and_later_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an invite for it is followed by who has it."""
    own = {"mine": folder}
    assert choose_task(str(folder), None, None, None) == Choice("mine", None, folder=folder)
    assert choose_task("mine", "5", None, None, own) == Choice("mine", "5", "as asked", folder=folder)
    assert choose_task(None, None, None, spec_of(folder, "7"), own) == Choice("mine", "7", BEFORE, folder=folder)
    followed = Choice("mine", "7", "from the invite", folder=folder)
    assert choose_task(None, None, invite("mine/7"), None, own) == followed
    assert choose_task(str(folder), None, invite("mine/7"), None) == followed
    other = Choice("mine", None, "as asked", "gpt-cpu/7", folder)
    assert choose_task(str(folder), None, invite("gpt-cpu/7"), None) == other
    monkeypatch.chdir(folder.parent)
    assert choose_task("mine", None, None, None).folder == folder


def test_an_invite_to_somebodys_own_task_says_what_is_needed() -> None:
    """Without the folder there is nothing to train."""
    with pytest.raises(UsageError, match="the invite is for task theirs") as caught:
        choose_task(None, None, invite("theirs/short"), None)
    assert "a folder with train.py" in caught.value.why and "--task FOLDER" in caught.value.fix


def test_a_copy_that_differs_is_not_the_invited_task(folder: Path, tmp_path: Path) -> None:
    """By its id, which covers train.py, steps and text."""
    text = Corpus("00" * 32, Path(), {}, (), 0, "")
    good, bad = (encode_invite(invite("mine/short", of)) for of in (spec_of(folder).id, bytes(32)))
    for name, words in (("a", good), ("b", bad)):
        home = Home.locate(tmp_path / name)
        home.create()
        node = Node(Settings(invite=words, task=str(folder)), home, Screen(quiet=True), "research")
        if words is good:
            assert node.load_task("short", text).spec == spec_of(folder)
        else:
            with pytest.raises(UsageError, match="cannot rebuild the swarm's task mine/short") as caught:
                node.load_task("short", text)
            assert str(folder) in caught.value.why and "inviter's folder" in caught.value.fix
        node.ledger.close()


def test_a_home_finds_its_task_again_or_says_what_changed(folder: Path, tmp_path: Path) -> None:
    """Without flags; begun anew by --task FOLDER."""
    home = Home.locate(tmp_path / "home")
    home.create()
    before, text = spec_of(folder), Corpus("00" * 32, Path(), {}, (), 0, "")
    with Ledger.open(home.ledger) as ledger:
        remember(ledger, before, folder)
        assert own_folders(ledger) == {"mine": folder} and current_task(ledger).spec == before
        assert load_known({before.id: before}, before.id, before.data, own_folders(ledger)).spec == before
        stranger = TaskSpec.model_validate(before.model_dump() | {"name": "theirs"})
        remember(ledger, stranger)
        remember(ledger, before)
        name = quotable_names(ledger)
        assert (name(before.id), name(stranger.id)) == ("mine/short", stranger.id.hex()[:8])
        with pytest.raises(ConfigError, match="cannot be rebuilt") as caught:
            load_known({stranger.id: stranger}, stranger.id, stranger.data, own_folders(ledger))
        assert "--task FOLDER" in caught.value.fix

    def again(**flags: Any) -> TaskSpec:
        node = Node(Settings(home=home.data, **flags), home, Screen(quiet=True), "research")
        try:
            return node.load_task(node.choice.start, text).spec
        finally:
            node.ledger.close()

    assert again() == before
    edit(folder / "train.py", "DEPTH = 2", "DEPTH = 1")
    with pytest.raises(ConfigError, match=r"train\.py changed") as caught:
        again()
    assert str(folder) in caught.value.fix and before.id.hex()[:8] in caught.value.why
    with Ledger.open(home.ledger) as ledger, pytest.raises(ConfigError, match=r"train\.py changed"):
        current_task(ledger)
    assert again(task=str(folder)) == spec_of(folder) != before
    edit(folder / "train.py", "DEPTH = 1", "DEPTH = 2")
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not there") as caught:
        again()
    assert "--task FOLDER" in caught.value.fix
    (tmp_path / "here").mkdir()
    assert again(task=str(moved.rename(tmp_path / "here" / "mine"))) == before


def test_list_and_show(command: Command, folder: Path, tmp_path: Path) -> None:
    """What is built in, one's own, and heard of; the current one is marked."""
    home = Home.locate(tmp_path / "default")
    home.create()
    current = spec_of(folder)
    with Ledger.open(home.ledger) as ledger:
        remember(ledger, TaskSpec.model_validate(current.model_dump() | {"name": "theirs"}))
        remember(ledger, current, folder)
    found = {one["name"]: one for one in map(json.loads, command("task", "list", "--json")[1].splitlines())}
    assert {name: one["from"] for name, one in found.items()} == {
        "gpt-cpu": "built in", "mine": str(folder), "theirs": "peers",
    }  # fmt: skip
    assert [(one["id"], one["current"]) for one in found["mine"]["known"]] == [(current.id.hex(), True)]
    assert f"* short            {current.id.hex()[:8]}   current" in command("task", "list")[1]
    moved = folder.rename(tmp_path / "moved")
    assert f"the folder of task mine is not there: {folder}" in command("task", "list")[1]
    moved.rename(folder)
    shown = json.loads(command("task", "show", "mine", "--json")[1])
    assert shown["sizes"]["short"]["steps"] == 1300 and shown["folder"] == str(folder)
    assert "lower is better" in command("task", "show", "gpt-cpu")[1]
    assert f"--task {folder}" in command("service", "print", "systemd", "--task", str(folder))[1]


# ---- the check


@pytest.mark.parametrize(
    ("old", "new", "name", "words"),
    [
        ("opt.step()", "opt.stop()", "trains", "train.py, line 1"),
        (
            "opt.step()",
            "model.tok.weight.data += __import__('time').time_ns() % 997 * 1e-6",
            "repeats",
            "another model",
        ),
        ("is_causal=True", "is_causal=False", "looks ahead", "audit: answers change"),
    ],
)
def test_what_peers_would_reject_is_found(
    executor: Any, folder: Path, old: str, new: str, name: str, words: str
) -> None:
    """In the sandbox, with the end of the program's own output where it fails."""
    edit(folder / "train.py", old, new)
    checks = list(
        task_check.train(executor, tasks.load("mine", "5", bytes(32), folder=folder), tasks.define("mine", folder))
    )
    assert (checks[-1].name, checks[-1].state, checks[-1].code) == (name, "failed", 3)
    assert words in checks[-1].found and checks[-1].fix
    assert name != "trains" or "AttributeError" in checks[-1].found.splitlines()[-1]


@pytest.mark.long
def test_a_converted_task_passes_in_the_sandbox(executor: Any, command: Command, tmp_path: Path) -> None:
    """It trains, repeats bit for bit and does not look ahead; how long its sizes take is said."""
    folder = tmp_path / "mine"
    command("task", "new", str(folder), "--from", str(THEIRS))
    assert MARK in (folder / "train.py").read_text()
    task = tasks.load("mine", "5", bytes(32), folder=folder)
    checks = list(task_check.train(executor, task, tasks.define("mine", folder)))
    assert [one.name for one in checks] == ["trains", "repeats", "looks ahead", "speed", "size", "size", "size"]
    assert {one.state for one in checks} <= {"ok", "note"}


@pytest.mark.long
def test_from_autoresearch_to_an_experiment(command: Command, tmp_path: Path) -> None:
    """As a person would do it, and on without flags."""
    folder = str(tmp_path / "mine")
    command("task", "new", folder, "--from", str(THEIRS))
    code, out, err = command("task", "check", folder, "--json")
    checks = {one["name"]: one for one in map(json.loads, out.splitlines())}
    assert code == 0 and {one["state"] for one in checks.values()} <= {"ok", "note"}, out + err
    assert {"corpus", "brief", "isolation", "trains", "repeats", "looks ahead", "speed", "size"} <= set(checks)
    flags = ("--solo", "--experiments", "1", "--cpus", "1", "--proposer", "offline")
    code, out, err = command("join", *flags, "--task", folder, "--size", "10")
    assert code == 0 and "mine, 10: 10 steps" in out + err and "  #1 " in out + err, out + err
    code, out, err = command("join", *flags)
    assert code == 0 and "(as before)" in out + err and "  #2 " in out + err, out + err
    assert "mine/10 on cpu" in command("board")[1]
    assert "## In a swarm" in command("prompt")[1]
