"""Every command in the documentation is run, and every flag, link and picture in it exists.

How a fenced block of README.md and docs/*.md is tried stands in its own first line:

    ```console                      each line that begins with `$ ` is run, in order, on a home with real results
    ```console until=REGEX          the last command does not end: Ctrl-C when a line of it matches
    ```console needs=node           on the home of a node that runs
    ```sh not-run=WHY               cannot run here (NOT_RUN): its swarm-node commands are parsed, its scripts exist
    ```text, toml, python           no commands

Anything else fails. The quick, reading ones run in the default tier too, on a ledger that is written here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cyclopts import App
from swarm_node.node import cli
from swarm_node.node.home import Home
from swarm_node.node.programs import Programs
from swarm_node.node.tasks import remember
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.identity import load_or_create
from swarm_node.swarm.ledger import Ledger

from .conftest import ROOT
from .e2e.conftest import TINY, NodeProcess, clean_env
from .fake_openai import FakeOpenAI, Reply
from .node.history import BASE, PEER, TASK, History, changed

NOT_RUN = {
    "docker": "needs a Docker daemon and pulls images",
    "ollama": "needs Ollama and a model of some GB; the node's part is run against a server that speaks its protocol",
    "vllm": "needs a GPU and a model of some GB; as above",
    "home": "names the folder of whoever follows the page",
    "root": "changes this machine's firewall",
    "checkout": "sets up this checkout, or runs what runs this test",
    "transcript": "half an hour of two nodes, as it was; its commands are run on other pages",
}
INDENTED = {  # of the README, by their first words
    "scripts/join": "checkout",
    "scripts/test": "checkout",
    "$ swarm-node join swarm1": "transcript",
    "$ swarm-node feed --wins": "transcript",
}
FOREIGN = {  # flags of other programs
    "--nodes": "scripts/bench night", "--reps": "as above", "--arms": "as above", "--budget": "as above",
    "--hours": "scripts/bench scale", "--sybils": "as above", "--sybil-nodes": "as above", "--seed": "as above",
    "--copies": "as above", "--rule": "as above",
    "--index-url": "pip", "--hypothesis-profile": "pytest", "--max-model-len": "vllm", "--count": "wandb",
}  # fmt: skip
PLACEHOLDERS = {
    "[INVITE]": "swarm1x",
    "INVITE": "swarm1x",
    "ID": "abcd",
    "SHELL": "bash",
    "DIR": "folder",
    "COMMAND": "join",
}
QUICK = {"feed", "show", "board", "status", "peers", "prompt", "export", "metrics", "config", "service", "apply"}
ENDPOINTS = ("http://127.0.0.1:11434/v1", "http://127.0.0.1:8000/v1")
SECONDS = 600.0  # machines are shared

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
READ = [*PAGES, ROOT / "SECURITY.md"]


@dataclass(frozen=True)
class Block:
    """One block of code on a page."""

    page: str
    line: int
    kind: str
    options: dict[str, str]
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its command lines."""
        lines = [line.strip() for line in self.text.splitlines()]
        if self.kind == "console" or any(line.startswith("$ ") for line in lines):
            return [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line and line[0] != "#"] if self.kind == "sh" else []

    def check(self) -> None:
        """AssertionError unless it says how it is to be tried."""
        if self.kind == "console":
            assert self.options.keys() <= {"until", "needs"} and self.commands, self.name
            assert self.options.get("needs", "node") in ("node", "own-text"), self.name
        elif self.kind == "sh":
            assert self.options.keys() == {"not-run"} and self.options["not-run"] in NOT_RUN, self.name
        else:
            assert self.kind in ("text", "toml", "python") and not self.options, f"{self.name}: what is {self.kind!r}?"
            assert not re.search(r"^\s*(\$ |swarm-node )", self.text, re.MULTILINE), f"{self.name} has commands"


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced and indented blocks of a page."""
    found: list[Block] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        body: list[str] = []
        if line.startswith("```"):
            for _, inside in lines:
                if inside.startswith("```"):
                    break
                body.append(inside)
            start, _, until = line[3:].partition(" until=")
            kind, *words = start.split() or [""]
            options = dict(word.split("=", 1) for word in words) | ({"until": until} if until else {})
            found.append(Block(page, number, kind, options, "\n".join(body)))
        elif line.startswith("    ") and line.strip():
            body.append(line)
            for _, inside in lines:
                if not inside.startswith("    "):
                    break
                body.append(inside)
            why = [why for words, why in INDENTED.items() if line.strip().startswith(words)]
            found.append(Block(page, number, "sh", {"not-run": why[0] if why else "?"}, "\n".join(body)))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page.name, page.read_text(encoding="utf-8"))]
RUN = [block for block in BLOCKS if block.kind == "console"]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def own_commands(line: str) -> list[list[str]]:
    """The words after `swarm-node` of each such command in a command line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    for word in lexer:
        if re.fullmatch(r"[|&;<>()]+", word):
            simple.append([])
        else:
            simple[-1].append(word)
    return [words[words.index("swarm-node") + 1 :] for words in simple if "swarm-node" in words]


def parse(words: list[str]) -> None:
    """CycloptsError unless the command line takes these."""
    cli.app.parse_args(words, exit_on_error=False, print_error=False)
    if words[:2] in (["config", "show"], ["service", "print"]):  # they take the flags of another command
        rest = [word for word in words[2:] if word not in ("systemd", "launchd", "--json")]
        cli.app.parse_args(["join", *rest], exit_on_error=False, print_error=False)


def flags_of(app: App) -> Iterator[str]:
    """Every flag of every command."""
    for name in app:
        if name.startswith("-"):
            yield name
        elif isinstance(command := app[name], App):
            yield from flags_of(command)
            if command.default_command is not None:
                for argument in command.assemble_argument_collection():
                    yield from (*argument.names, *argument.negatives)


# ---- what is written


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_each_block_says_how_it_is_tried(block: Block) -> None:
    """By its first line; commands of this program are ones that it has, scripts are there."""
    block.check()
    for line in block.commands:
        for words in own_commands(line):
            parse(words)
        first = line.split()[0]
        assert not first.startswith("scripts/") or (ROOT / first).exists(), line


@pytest.mark.parametrize(
    "text",
    [
        "```\nswarm-node join\n```", "```bash\nswarm-node join\n```", "```sh\nswarm-node join\n```",
        "```sh not-run=laziness\nswarm-node join\n```", "```console when=later\n$ swarm-node join\n```",
        "```console\nswarm-node join\n```", "```text\n$ swarm-node join\n```", "\n    swarm-node join\n",
        "```console needs=luck\n$ swarm-node invite\n```",
    ],
)  # fmt: skip
def test_a_block_that_says_nothing_fails(text: str) -> None:
    """So that no page has a command that nobody tries."""
    (block,) = blocks_of("page.md", text)
    with pytest.raises(AssertionError):
        block.check()


@pytest.mark.parametrize(
    "line", ["swarm-node jion", "swarm-node join --sise 3", "true | swarm-node show", "swarm-node dash --port x"]
)
def test_a_command_that_is_none_fails(line: str) -> None:
    """Though it cannot be run."""
    (words,) = own_commands(line)
    with pytest.raises(Exception, match=r"."):
        parse(words)


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_commands_within_sentences_are_real(page: Path) -> None:
    """`swarm-node …` in a line of text takes these words."""
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page)):
        if code.startswith("swarm-node ") and "…" not in code:
            words = [PLACEHOLDERS.get(word, word) for word in code.split()[1:]]
            parse([re.sub(r"^N$", "1", word) for word in words])
        elif code.startswith(("scripts/", "tests/", "docs/", "protocols/", "node/", "trainer/", "swarm/")):
            first = code.split()[0]
            assert list(ROOT.glob(first.removesuffix("/"))), f"{page.name}: {code}"


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_flags_are_real(page: Path) -> None:
    """Every `--flag` is one of this program, or of another that is named here."""
    known = {*flags_of(cli.app), *FOREIGN}
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", page.read_text(encoding="utf-8")))
    assert found <= known, found - known


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    """Files, folders and headings that a page points to."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_the_index_has_every_page() -> None:
    """And the README leads to it."""
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
    assert "(docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


# ---- what is quick


def is_quick(block: Block) -> bool:
    """Whether all of its commands only read a ledger, and need no shell."""
    if set(block.options) & {"until", "needs"}:
        return False
    simple = all(line.startswith("swarm-node ") and not re.search(r"[|&;<>$]", line) for line in block.commands)
    return simple and all(line.split()[1] in QUICK for line in block.commands)


@pytest.mark.parametrize("block", [one for one in RUN if is_quick(one)], ids=lambda block: block.name)
def test_reading_commands_read(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ledger with a peer's win, in this process."""
    home = Home.locate(tmp_path / "home")
    home.create()
    own, history = load_or_create(home.key), History()
    win = history.won(PEER, BASE, changed(BASE, ("HEADS = 2 ", "HEADS = 4 ")))
    with Ledger.open(home.ledger) as ledger:
        remember(ledger, TASK.spec)
        ledger.journal_put("node", "author", public_key(own).hex())
        for source in history.programs.values():
            Programs(ledger, BASE).store(source)
        for record in history.records:
            ledger.add(record, received_ms=1)
    for name in [name for name in os.environ if name.startswith(("SWARM_NODE_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SWARM_NODE_HOME", str(home.data))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-brief.md").write_text("Look at initial weights first.\n")
    usual = cli.app.config
    try:
        for line in block.commands:
            words = [
                win.id.hex()[:8] if word == "ID" else "swarm1x" if word == "INVITE" else word for word in line.split()
            ]
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                cli.main()
            said = capsys.readouterr()
            assert not ended.value.code and said.out + said.err, (line, said.err)
    finally:
        cli.app.config = usual


# ---- everything, for real


@dataclass
class Guide:
    """Does what a reader would do, in an empty folder with a text and a brief of one's own."""

    home: Path  # with real results; only copies of it are used
    result: str
    folder: Path
    nodes: list[NodeProcess] = field(default_factory=list)
    _swarms: dict[bool, NodeProcess] = field(default_factory=dict)

    def swarm(self, own_text: bool) -> NodeProcess:
        """A bootstrap on the default text, or on one's own."""
        if own_text not in self._swarms:
            flags = ["--corpus", str(self.folder / "my-text"), "--share-corpus"] if own_text else []
            where = self.folder / f"bootstrap-{own_text}"
            node = NodeProcess(where, ["bootstrap", "--host", "127.0.0.1", "--port", "0", "--size", TINY, *flags])
            self.nodes.append(node)
            self._swarms[own_text] = node
        return self._swarms[own_text]

    def invite(self, own_text: bool) -> str:
        return self.swarm(own_text).wait_for(r"swarm-node join (swarm1\S+)", SECONDS)[1]

    def follow(self, block: Block, folder: Path, endpoint: str) -> None:
        """Run a block's commands; AssertionError when one fails."""
        home = folder / "home"
        shutil.copytree(self.home, home, ignore=shutil.ignore_patterns("cache"))
        (home / "cache").symlink_to(self.home / "cache")  # 18 MB that nobody changes
        here = {"SWARM_NODE_HOME": str(home), "SWARM_NODE_SIZE": TINY, "SWARM_NODE_HOST": "127.0.0.1"}
        if block.options.get("needs") == "node":
            self.invite(own_text=False)  # it is up
            here["SWARM_NODE_HOME"] = str(self.swarm(own_text=False).home)
        commands = block.commands
        for number, line in enumerate(commands, 1):
            command = self._filled(line, endpoint, block.options.get("needs") == "own-text")
            if given := re.fullmatch(r"export (\w+)=(\S+)", command):
                here[given[1]] = given[2]
            elif number == len(commands) and "until" in block.options:
                self._until(command, folder, here, block.options["until"])
            else:
                path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
                done = subprocess.run(
                    ["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True,
                    env=clean_env() | here | {"PATH": path}, timeout=SECONDS, check=False,
                )  # fmt: skip
                assert done.returncode == 0, (line, done.stdout, done.stderr)

    def _filled(self, line: str, endpoint: str, own_text: bool) -> str:
        for address in ENDPOINTS:
            line = line.replace(address, endpoint)
        if re.search(r"\bINVITE\b", line):
            line = re.sub(r"\bINVITE\b", self.invite(own_text), line)
        for name in ("my-text", "my-brief.md", "autoresearch"):
            line = re.sub(rf"(?<=\s){name}\b", str(self.folder / name), line)
        return re.sub(r"\bID\b", self.result, line)

    def _until(self, command: str, folder: Path, env: dict[str, str], pattern: str) -> None:
        """Ctrl-C when it has said what the page says."""
        program, *words = shlex.split(command)
        assert program == "swarm-node"
        fresh = words[0] in ("join", "bootstrap")  # of one identity there must not be two
        home = folder / "fresh" if fresh else Path(env["SWARM_NODE_HOME"])
        if "--home" in words:
            at = words.index("--home")
            home = folder / words[at + 1]
            del words[at : at + 2]
        node = NodeProcess(home, words, env)
        self.nodes.append(node)
        node.wait_for(pattern, SECONDS)
        assert node.stop(60) in (0, 130), node.lines


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    """A home in which a real node kept something."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "my-text").mkdir()
    words = "".join(f"line {number} is about {number * 7919 % 1009}.\n" for number in range(60_000))
    (folder / "my-text" / "all.txt").write_text(words)
    shutil.copytree(ROOT / "tests" / "node" / "autoresearch", folder / "autoresearch")
    (folder / "my-brief.md").write_text("Look at initial weights first.\n")
    node = NodeProcess(
        folder / "home", ["join", "--solo", "--size", TINY, "--experiments", "1", "--proposer-seed", "339"]
    )
    found = Guide(folder / "home", "", folder, [node])
    try:
        assert node.process.wait(600) == 0, node.lines
        kept = [one["id"] for one in node.records() if one["body"]["outcome"] in ("kept", "baseline")]
        found.result = kept[-1][:8]
        yield found
    finally:
        for one in found.nodes:
            if one.process.poll() is None:
                one.stop()
            one._finish()


@pytest.mark.long
@pytest.mark.xdist_group("e2e")
@pytest.mark.parametrize("block", RUN, ids=lambda block: block.name)
def test_each_command_does_what_the_page_says(
    block: Block, guide: Guide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a reader would type it."""
    monkeypatch.chdir(tmp_path)
    with FakeOpenAI([Reply("no idea today")]) as server:
        guide.follow(block, tmp_path, server.url)
