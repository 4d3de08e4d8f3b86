from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from swarm_node.node.proposers.offline import EDITS
from swarm_node.protocols.diffs import added_text, make_diff
from swarm_node.protocols.errors import MachineError
from swarm_node.trainer import corpus
from swarm_node.trainer.corpus import HELD, LENGTHS, Corpus, prepare

TRAIN_ONCE = """
import sys, torch, torch._dynamo, torch.fx.experimental.symbolic_shapes
layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
for kind in (torch.optim.AdamW, torch.optim.NAdam, torch.optim.SGD):
    optimizer = kind(layer.parameters(), lr=1e-3)
    layer(torch.randn(2, 8, 16)).square().mean().backward()
    optimizer.step()
print(*(getattr(module, "__file__", None) for module in list(sys.modules.values())), sep="\\n")
"""


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(tmp_path_factory.mktemp("corpora"))


def own_text(size: int, seed: int = 0) -> bytes:
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghij", k=5)) for _ in range(2000)]
    lines = (" ".join(chance.choices(words, k=12)) for _ in range(size // 72 + 1))
    return "\n".join(lines).encode()[:size]


def test_built_in_digest(built_in: Corpus) -> None:
    """The built-in corpus has the same digest on every machine."""
    assert built_in.digest == "887b77fac634b6f6a30278ff0bc0cce73cb2bd90c825b959dc238fc816285709"
    assert built_in.train_bytes == built_in.train.stat().st_size > 10_000_000


def test_slice_sizes(built_in: Corpus) -> None:
    """Probe, screen and audit have their exact lengths and the confirmation pool holds megabytes."""
    sizes = {name: path.stat().st_size for name, path in built_in.held.items()}
    assert set(sizes) == set(HELD)
    assert {name: sizes[name] for name in LENGTHS} == LENGTHS
    assert sizes["confirm"] > 3 << 20


def test_held_out_is_private(built_in: Corpus) -> None:
    """Held-out slices lie in files and a folder that only the owner can read."""
    for path in built_in.held.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("start", [0, 1, 31, 4099])
def test_copied_held_out_text_is_found(built_in: Corpus, name: str, start: int) -> None:
    """Wherever it starts, in a raw or an escaped literal; neither training text nor a ruler is held against an edit."""
    held = built_in.held[name].read_text(encoding="utf-8", errors="replace")[5000 + start :][:200]
    for literal in (f'TEXT = """{held}"""', f"TEXT = {held!r}"):
        assert built_in.remembered("x = 1\n" * (start % 64) + literal) >= 64
    assert not built_in.remembered(f'TEXT = """{held[:40]}"""\n{held[50:90][::-1]}')
    assert not built_in.remembered("#" + "-" * 100 + "\n" + " " * 100)


def test_honest_programs_hold_no_held_out_text(built_in: Corpus) -> None:
    """The task's own program and what every edit of the catalogue adds to it."""
    source = (Path(corpus.__file__).parent / "tasks/gpt_cpu/train.py").read_text()
    made = [one.source for edit in EDITS if (one := edit.apply(source)) is not None]
    assert len(made) > 80
    assert not built_in.remembered("\n".join([source, *(added_text(make_diff(source, one)) for one in made)]))


@pytest.mark.long
def test_torch_needs_no_held_out_file(built_in: Corpus) -> None:
    """Importing torch and training with several optimizers opens no held-out source file."""
    done = subprocess.run([sys.executable, "-c", TRAIN_ONCE], capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines())
    assert sum("sympy" in name for name in imported) > 300, "the check must see sympy's modules"
    assert imported.isdisjoint(map(str, built_in.held_out_sources))


def test_held_out_sources_cover_the_text(built_in: Corpus) -> None:
    """Every held-out slice is made of files that are to be hidden, and no training file is."""
    hidden = {path for path in built_in.held_out_sources if path.suffix == ".py"}
    for name in HELD:
        text = built_in.held[name].read_bytes()
        sources = [path for path in hidden if path.stat().st_size > 2000 and path.read_bytes()[:2000] in text]
        assert sum(min(path.stat().st_size, len(text)) for path in sources) > 0.8 * len(text)
    train = built_in.train.read_bytes()
    assert not any(path.read_bytes() in train for path in hidden if path.stat().st_size > 2000)


def test_held_out_text_is_new(built_in: Corpus) -> None:
    """Less than 3 % of the 64-byte windows of each held-out slice also stand in the training text."""
    train = built_in.train.read_bytes()
    chance = random.Random(7)
    for name in HELD:
        text = built_in.held[name].read_bytes()
        starts = [chance.randrange(len(text) - 64) for _ in range(200)]
        assert sum(text[at : at + 64] in train for at in starts) < 0.03 * 200, name


def test_truncated_cache_is_rebuilt(tmp_path: Path, built_in: Corpus) -> None:
    """A slice that lost its tail is noticed and replaced."""
    first = prepare(tmp_path)
    for path in (first.train, first.held["screen"]):
        path.write_bytes(path.read_bytes()[:-1])
        again = prepare(tmp_path)
        assert again.digest == built_in.digest
        assert path.read_bytes() == (built_in.train if path == first.train else built_in.held["screen"]).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [first.digest], "nothing half made is left behind"


def test_two_processes_at_once(tmp_path: Path, built_in: Corpus) -> None:
    """Processes that prepare the same corpus at the same moment all get it whole."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(prepare, [tmp_path] * 3))
    assert {one.digest for one in made} == {built_in.digest}
    assert made[0].train.read_bytes() == built_in.train.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [built_in.digest]


def test_other_sympy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sympy file with other bytes stops with the command that repairs it."""
    rows = corpus.read_manifest()
    monkeypatch.setattr(corpus, "read_manifest", lambda: [*rows[:-1], (rows[-1][0], "00" * 32, rows[-1][2])])
    with pytest.raises(MachineError, match=r"force-reinstall.*sympy==1\.14\.0"):
        prepare(tmp_path / "cache")
    monkeypatch.setattr(corpus, "sympy_root", lambda: tmp_path / "nowhere")
    with pytest.raises(MachineError, match="cannot be read"):
        prepare(tmp_path / "cache")


def test_unwritable_cache(tmp_path: Path) -> None:
    """A cache that cannot be written is one clear error."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match="cannot store the corpus"):
        prepare(tmp_path / "file")


def test_own_text(tmp_path: Path) -> None:
    """Own text is split in proportion, whole, without overlap, and is itself what must be hidden."""
    source = tmp_path / "text.txt"
    source.write_bytes(own_text(2 << 20))
    mine = prepare(tmp_path / "cache", source)
    total = source.stat().st_size
    assert mine.held["screen"].stat().st_size == total // 16
    assert mine.held["confirm"].stat().st_size == total // 8
    assert mine.train_bytes > 0.7 * total
    assert mine.held_out_sources == (source,)
    train = mine.train.read_bytes()
    for path in mine.held.values():
        text = path.read_bytes()
        assert text[100:164] not in train and text[100:164] in source.read_bytes()


def test_own_text_digest_is_of_content(tmp_path: Path) -> None:
    """The same text under another name has the same digest; one changed byte gives another."""
    text = own_text(2 << 20)
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_bytes(text)
    (tmp_path / "folder" / ".hidden").write_bytes(b"not read")
    (tmp_path / "folder" / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "c.txt").write_bytes(text.replace(text[-9:], b"different"))
    one, same, other = (prepare(tmp_path / "cache", tmp_path / name).digest for name in ("a.txt", "folder", "c.txt"))
    assert one == same != other


def test_repeated_text_counts_once(tmp_path: Path) -> None:
    """Text that repeats a short passage is too small, however long the file is."""
    (tmp_path / "same.txt").write_bytes(b"the same line again and again, every time the same\n" * 60_000)
    with pytest.raises(MachineError, match="too small"):
        prepare(tmp_path / "cache", tmp_path / "same.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the corpus"), (b"short", "too small"), (b"\0" * (2 << 20), "holds no text")],
)
def test_bad_own_text(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Text that is missing, too small or binary is one error that says how to go on."""
    source = tmp_path / "text.txt"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(MachineError, match=message) as caught:
        prepare(tmp_path / "cache", source)
    assert caught.value.fix and caught.value.exit_code == 4


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_has_no_end_is_no_corpus(tmp_path: Path, kind: str) -> None:
    """A device or a pipe is refused without a look into it, given by its name or found in a folder."""
    endless = tmp_path / "folder" / "endless"
    endless.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(endless)
    else:
        endless.symlink_to("/dev/zero")
    with pytest.raises(MachineError, match="cannot be a corpus") as caught:
        prepare(tmp_path / "cache", endless)
    assert "into a file" in caught.value.fix
    with pytest.raises(MachineError, match="holds no text"):
        prepare(tmp_path / "cache", endless.parent)
