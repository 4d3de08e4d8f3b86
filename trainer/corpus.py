"""The text that a task trains and is scored on: the sources of the pinned sympy, or the user's own files.

sympy 1.14.0 is a pure-Python wheel that torch depends on, so every machine already holds the same 16 MB of
real text. The committed manifest (one line per file: slice, BLAKE2b-256, path; the order of its lines is the
order of the text) fixes which file is training text and which is held out; `scripts/make-manifest` wrote it
and says how it chose. A corpus is named by the digest of its slices, so equal text has one name everywhere.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..protocols.canonical import digest, encode
from ..protocols.errors import MachineError

HELD = ("probe", "screen", "confirm", "audit")
LENGTHS = {"probe": 32 << 10, "screen": 128 << 10, "audit": 1 << 20}  # bytes after trimming; confirm takes the rest
MANIFEST = Path(__file__).parent / "tasks" / "gpt_cpu" / "manifest.tsv"
SYMPY = "sympy==1.14.0"

MIN_OWN = 1 << 20  # less text than this cannot fill the slices
MAX_OWN = 1 << 30  # it is split in memory
COPIED = 64  # bytes in a row that an edit may not share with held-out text
_LETTERS, _PLACES = 10, 64  # different bytes that such a stretch has at least; places of a block that are looked at
CHUNK = 4 << 10  # bytes of own text that go to one slice together


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus on this machine's disk."""

    digest: str  # 64 hex digits over all slices
    train: Path  # raw bytes, may be readable in a sandbox
    held: dict[str, Path]  # slice name -> raw bytes that no sandbox may read
    held_out_sources: tuple[Path, ...]  # where the held-out text also lies on this machine; hide these too
    train_bytes: int
    reason: str
    is_built_in: bool = False  # every machine that has torch has it

    @property
    def slices(self) -> dict[str, Path]:
        """Every slice by name."""
        return {"train": self.train, **self.held}

    def remembered(self, text: str) -> int:
        """How long a stretch of COPIED bytes or more is that `text` shares with held-out text; 0 when there is none.

        Escaped line ends and quotes count as what they stand for. What is encoded in another way is not found here: it
        is paid for by its length, in the gain that is required of it (`decide.memory_of`).
        """
        plain = re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text)
        copies = {copy.encode("utf-8", "surrogatepass") for copy in (text, plain)}
        return max((_shared(data, path.read_bytes()) for path in self.held.values() for data in copies), default=0)


def prepare(cache_dir: Path, source: Path | None = None) -> Corpus:
    """Check every source file, split the text, and store the slices under `cache_dir/<digest>` unless they are there.

    `source` is the user's own text (a file, or a directory of text files) in place of sympy. Costs 0.2 s when
    stored already. Safe with several processes at once: a slice set appears by one rename, and damaged ones are
    replaced. Raises MachineError when the text cannot be read, is too small or not what the manifest says, or
    when the cache cannot be written.
    """
    if source is None:
        slices, hidden = _sympy()
        reason = f"source text of {SYMPY}, which torch already installs"
    else:
        slices, hidden = _own(source)
        reason = f"your own text, {source}"
    digests = {name: digest(data) for name, data in slices.items()}
    name = digest(encode(digests)).hex()
    home = cache_dir / name
    try:
        if not _is_intact(home, digests):
            _store(home, slices)
        if not _is_intact(home, digests):
            raise OSError("what was written does not read back the same")
    except OSError as error:
        raise MachineError(
            f"cannot store the corpus in {cache_dir}",
            why=str(error),
            fix="free some space there (18 MB are enough for the built-in corpus) or choose another --home",
        ) from error
    return _corpus(home, hidden, reason, is_built_in=source is None)


def stored(cache_dir: Path, name: str, reason: str) -> Corpus | None:
    """The corpus with this digest (64 hex digits), if it is here and whole, wherever its text came from."""
    home = cache_dir / name
    try:
        digests = {one: digest(_path(home, one).read_bytes()) for one in ("train", *HELD)}
    except OSError:
        return None
    return _corpus(home, (), reason) if digest(encode(digests)).hex() == name else None


def adopt(cache_dir: Path, name: str, files: dict[str, Path], reason: str) -> Corpus:
    """The corpus with this digest from its slices as files, which are moved; MachineError when that cannot be."""
    made = cache_dir / ".making"
    try:
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=cache_dir))
        (made / "held").mkdir(mode=0o700)
        made.chmod(0o755)
        for one, path in files.items():
            os.replace(path, _path(made, one))
            _path(made, one).chmod(0o644 if one == "train" else 0o600)
        shutil.rmtree(cache_dir / name, ignore_errors=True)
        os.rename(made, cache_dir / name)
    except OSError as error:
        raise MachineError(f"cannot store the corpus in {cache_dir}", why=str(error)) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    corpus = stored(cache_dir, name, reason)
    if corpus is None:
        raise MachineError("what peers gave is not a corpus", why="it has not the slices of one")
    return corpus


def _corpus(home: Path, hidden: tuple[Path, ...], reason: str, is_built_in: bool = False) -> Corpus:
    held = {one: _path(home, one) for one in HELD}
    train = _path(home, "train")
    return Corpus(home.name, train, held, hidden, train.stat().st_size, reason, is_built_in)


def _shared(data: bytes, held: bytes) -> int:
    """The length of a stretch of at least COPIED bytes that is in both, and is more than a ruler or blanks."""
    half = COPIED // 2  # a stretch of COPIED bytes holds a whole block of half of it, wherever it starts
    for at in range(0, len(data) - half + 1, half):
        found = held.find(data[at : at + half])
        for _ in range(_PLACES):
            if found < 0:
                break
            first, last, ahead = at, at + half, found - at
            while first > 0 and first + ahead > 0 and data[first - 1] == held[first + ahead - 1]:
                first -= 1
            while last < len(data) and last + ahead < len(held) and data[last] == held[last + ahead]:
                last += 1
            if last - first >= COPIED and len(set(data[first:last])) >= _LETTERS:
                return last - first
            found = held.find(data[at : at + half], found + 1)
    return 0


def sympy_root() -> Path | None:
    """The folder of the installed sympy, found without importing it (its import takes half a second)."""
    spec = importlib.util.find_spec("sympy")
    return Path(spec.origin).parent if spec and spec.origin else None


def read_manifest(path: Path = MANIFEST) -> list[tuple[str, str, str]]:
    """The manifest's (slice, digest as hex, path below sympy's folder), in the order of the text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(slice_name, hexed, name) for slice_name, hexed, name in (line.split("\t") for line in lines[1:])]


def compiled(source: Path) -> Iterator[Path]:
    """The .pyc files of a source file, which hold its docstrings."""
    yield from (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")


def _sympy() -> tuple[dict[str, bytes], tuple[Path, ...]]:
    """The slices of the built-in corpus, every file checked, and the files that hold held-out text."""
    root = sympy_root()
    if root is None:
        raise MachineError("the built-in corpus is missing", why="sympy is not installed", fix=f"pip install {SYMPY}")
    parts: dict[str, list[bytes]] = {name: [] for name in ("train", *HELD)}
    hidden: list[Path] = []
    for slice_name, hexed, name in read_manifest():
        path = root / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _wrong_sympy(f"{path} cannot be read: {error.strerror}") from error
        if digest(data).hex() != hexed:
            raise _wrong_sympy(f"{path} differs from {SYMPY}")
        if slice_name in parts:
            parts[slice_name].append(data)
        if slice_name in HELD:
            hidden += [path, *compiled(path)]
    return _trimmed({name: b"".join(texts) for name, texts in parts.items()}), tuple(hidden)


def _wrong_sympy(why: str) -> MachineError:
    return MachineError(
        "the built-in corpus is not the one that the swarm uses",
        why=why,
        fix=f"pip install --force-reinstall --no-deps {SYMPY}",
    )


def _own(source: Path) -> tuple[dict[str, bytes], tuple[Path, ...]]:
    """The slices of the user's own text: chunks fall into slices by the order of their digests.

    Equal chunks count once, so that no held-out chunk is also training text. The shares are 1/64 probe, 1/16
    screen, 1/16 audit (each at most its length for sympy) and 1/8 confirm (at most 8 MiB); training text keeps
    its order.
    """
    text = _read_own(source)
    chunks = {digest(chunk): chunk for chunk in _chunks(text)}
    total = sum(map(len, chunks.values()))
    if total < MIN_OWN:
        raise MachineError(
            f"{source} is too small to split into training and held-out text",
            why=f"{total:,} bytes of different text; {MIN_OWN:,} are needed",
            fix="give --corpus more text, or leave it out to use the built-in corpus",
        )
    wanted = {
        "probe": min(LENGTHS["probe"], total // 64),
        "screen": min(LENGTHS["screen"], total // 16),
        "audit": min(LENGTHS["audit"], total // 16),
        "confirm": min(8 << 20, total // 8),
    }
    shuffled = iter(sorted(chunks))
    slices = {name: b"" for name in wanted}
    held: set[bytes] = set()
    for name, length in wanted.items():
        parts: list[bytes] = []
        while sum(map(len, parts)) < length:
            key = next(shuffled)
            held.add(key)
            parts.append(chunks[key])
        slices[name] = b"".join(parts)[:length]
    slices["train"] = b"".join(chunk for key, chunk in chunks.items() if key not in held)
    return slices, (source.resolve(),)


def check_source(source: Path) -> None:
    """MachineError unless `source` can be a corpus as far as its kind tells: what it holds is not looked at."""
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise _unreadable(source, error) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise MachineError(
            f"{source} cannot be a corpus",
            why="it is a device, a pipe or a socket, which may have no end",
            fix="copy its text into a file, and give that to --corpus",
        )


def _read_own(source: Path) -> bytes:
    """All text of a file, or of a directory's files in path order (hidden and binary ones are skipped)."""
    check_source(source)
    try:
        if source.is_dir():
            paths = sorted(path for path in source.rglob("*") if path.is_file() and not _is_hidden(path, source))
        else:
            paths = [source]
        sizes = [path.stat().st_size for path in paths]
        if sum(sizes) > MAX_OWN:
            raise MachineError(
                f"{source} is too large for a corpus",
                why=f"{sum(sizes):,} bytes; at most {MAX_OWN:,} are split",
                fix="give --corpus a part of it",
            )
        texts = [data for data in map(_read, paths, sizes) if _is_text(data)]
    except OSError as error:
        raise _unreadable(source, error) from error
    if not texts:
        raise MachineError(
            f"{source} holds no text",
            why="no file in it is valid UTF-8 without NUL bytes",
            fix="give --corpus plain text (.txt, .md, source code)",
        )
    return b"".join(texts)


def _read(path: Path, size: int) -> bytes:
    """The first `size` bytes: a file that grows meanwhile is not followed."""
    with path.open("rb") as file:
        return file.read(size)


def _unreadable(source: Path, error: OSError) -> MachineError:
    return MachineError(
        f"cannot read the corpus {source}",
        why=error.strerror or str(error),
        fix="check the path and its permissions, or leave out --corpus to use the built-in corpus",
    )


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return bool(data)


def _chunks(text: bytes) -> Iterator[bytes]:
    """Pieces of about CHUNK bytes that end with a line where they can."""
    at = 0
    while at < len(text):
        line_end = text.find(b"\n", at + CHUNK, at + 2 * CHUNK)
        end = line_end + 1 if line_end >= 0 else at + CHUNK
        yield text[at:end]
        at = end


def _trimmed(slices: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data[: LENGTHS.get(name)] for name, data in slices.items()}


def _path(home: Path, slice_name: str) -> Path:
    return home / "train.bin" if slice_name == "train" else home / "held" / f"{slice_name}.bin"


def _is_intact(home: Path, digests: dict[str, bytes]) -> bool:
    """Whether every slice is stored and whole (16 MB hash in 20 ms, so this is checked on each start)."""
    try:
        return all(digest(_path(home, name).read_bytes()) == value for name, value in digests.items())
    except OSError:
        return False


def _store(home: Path, slices: dict[str, bytes]) -> None:
    """Write the slices beside `home` and rename them into place; whoever renames first wins."""
    home.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=home.parent))
    try:
        made.chmod(0o755)
        (made / "held").mkdir(mode=0o700)
        for name, data in slices.items():
            path = _path(made, name)
            path.touch(mode=0o644 if name == "train" else 0o600)
            path.write_bytes(data)
        if home.exists():  # damaged: move it away whole, so that nobody ever sees half of one
            try:
                os.rename(home, made / "damaged")
            except FileNotFoundError:
                pass  # another process did the same
        try:
            os.rename(made, home)
        except OSError:
            if not home.is_dir():  # else another process was faster; the caller checks what it made
                raise
        shutil.rmtree(home / "damaged", ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
