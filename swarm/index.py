"""What views ask of a ledger of any length: who re-ran, made or built on what, without reading every record."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..protocols.records import Record, Result
from .lineage import Lineage, Made, enter
from .schema import recalled

_PAGE = 1000
_REMEMBERED = 20_000  # records, of about 2 KB
Rows = Callable[..., list[tuple[Any, ...]]]


class Glance(NamedTuple):
    """What is told of a record without decoding it."""

    row: int
    id: bytes
    author: bytes
    task: bytes
    hardware: str
    outcome: str
    score: float | None
    when: int  # Unix ms by its author's clock, but not after this node had it: clocks that are ahead tell the future
    record: Record | None  # of kept results, baselines and verifications


class Index:
    """Questions and their answers, in the order in which this node learned of the records."""

    def __init__(self, rows: Rows, path: Path) -> None:
        self._rows, self._path = rows, path
        self._recent: dict[int, Record] = {}  # lineages ask for the same ones again and again

    def glances(self, after_row: int, limit: int) -> list[Glance]:
        """The records after a row."""
        query = """
            SELECT row, id, received_ms, facts.author, task, hardware, outcome, score, made_ms,
                CASE WHEN outcome IS NULL OR outcome IN ('kept', 'baseline') OR subject IS NOT NULL THEN wire END
            FROM records LEFT JOIN facts USING (row) WHERE row > ? ORDER BY row LIMIT ?
        """
        return [self._glance(*found) for found in self._rows(query, (after_row, limit))]

    def _glance(self, row: int, identity: bytes, received_ms: int, *facts: Any) -> Glance:
        author, task, hardware, outcome, score, made_ms, wire = facts
        record = recalled(self._path, identity, wire) if wire is not None else None
        if author is None:  # written since this was opened, by a node of an earlier version
            assert record is not None
            body, author, made_ms = record.body, record.author, record.time
            task, hardware, outcome = body.task, body.environment.hardware, body.outcome
            score = body.score if isinstance(body, Result) else None
            record = record if outcome in ("kept", "baseline") or not isinstance(body, Result) else None
        return Glance(row, identity, author, task, hardware, outcome, score, min(made_ms, received_ms), record)

    def reruns_of(self, result: bytes) -> list[Record]:
        """The verifications of a result."""
        return self._records("subject = ?", (result,))

    def judged_by(self, author: bytes) -> list[bytes]:
        """Results that this author re-ran, and those that anybody calls fabricated."""
        query = """
            SELECT subject FROM facts WHERE subject IS NOT NULL AND author = ?
            UNION SELECT subject FROM facts WHERE outcome = 'fabricated'
        """
        return [row[0] for row in self._rows(query, (author,))]

    def doubted(self) -> set[bytes]:
        """Results against which any re-run speaks."""
        return {subject for (subject,) in self._rows("SELECT DISTINCT subject FROM facts WHERE doubts")}

    def makers(self, program: bytes) -> list[Record]:
        """The kept results whose program this is."""
        return self._records("outcome = 'kept' AND program = ?", (program,))

    def children(self, program: bytes, author: bytes | None = None) -> list[Record]:
        """The kept results made from this program, if given those of one author."""
        if author is None:
            return self._records("outcome = 'kept' AND parent = ?", (program,))
        return self._records("outcome = 'kept' AND parent = ? AND +author = ?", (program, author))

    def inspired(self, result: bytes) -> list[Record]:
        """The kept results inspired by this result."""
        return self._records("outcome = 'kept' AND row IN (SELECT row FROM inspirations WHERE source = ?)", (result,))

    def results(self, task: bytes, hardware: str, outcome: str | None = None) -> Iterator[Record]:
        """The results of a track, if given those with one outcome."""
        plus = "" if outcome else "+"  # all results: page by page along the rows; by the index each page would sort all
        query = f"""
            SELECT facts.row, id, wire FROM facts JOIN records ON records.row = facts.row
            WHERE subject IS NULL AND {plus}task = ? AND {plus}hardware = ? AND facts.row > ?
            {"AND outcome = ?" if outcome else ""}
            ORDER BY facts.row LIMIT {_PAGE}
        """
        last = 0
        while page := self._rows(query, (task, hardware, last, *((outcome,) if outcome else ()))):
            last = page[-1][0]
            yield from (recalled(self._path, identity, wire) for _, identity, wire in page)

    def tracks(self, without: Collection[bytes]) -> list[tuple[bytes, str, int, int]]:
        """(task, hardware, results, authors) of every track, without some authors."""
        query = """
            SELECT task, hardware, author, COUNT(*) FROM facts WHERE subject IS NULL
            GROUP BY task, hardware, outcome, author
        """  # along the index; counting authors in SQL would sort all rows
        totals, authors = Counter[tuple[bytes, str]](), defaultdict[tuple[bytes, str], set[bytes]](set)
        for task, hardware, author, count in self._rows(query):
            if author not in without:
                totals[task, hardware] += count
                authors[task, hardware].add(author)
        return [(*track, total, len(authors[track])) for track, total in totals.items()]

    def tasks_of_wins(self) -> list[bytes]:
        """The tasks on which anything was kept, that which was heard of first at the front."""
        query = "SELECT task FROM facts WHERE outcome = 'kept' AND subject IS NULL GROUP BY task ORDER BY MIN(row)"
        return [row[0] for row in self._rows(query)]

    def count_by(self, authors: Collection[bytes]) -> int:
        """How many results these authors have."""
        query = f"SELECT COUNT(*) FROM facts WHERE subject IS NULL AND author IN ({_marks(authors)})"
        return self._rows(query, tuple(authors))[0][0]

    def counts(self) -> list[tuple[bytes, str, str, int]]:
        """(author, kind, outcome, how many) of all records."""
        kind = "CASE WHEN subject IS NULL THEN 'result' ELSE 'verification' END"
        return self._rows(f"SELECT author, {kind}, outcome, COUNT(*) FROM facts GROUP BY 1, 2, 3")

    def latest(self) -> list[Record]:
        """Of each author, the record that this node learned of last."""
        return self.at([row for (row,) in self._rows("SELECT MAX(row) FROM facts GROUP BY author")])

    def all_kept(self) -> list[Record]:
        """The kept results of all tracks."""
        return self._records("subject IS NULL AND outcome = 'kept'", ())

    def kept(self, task: bytes, hardware: str) -> list[tuple[int, bytes, bytes, float]]:
        """(row, author, program, score) of the kept results of a track."""
        query = """
            SELECT row, author, program, score FROM facts
            WHERE subject IS NULL AND task = ? AND hardware = ? AND outcome = 'kept' ORDER BY row
        """
        return self._rows(query, (task, hardware))

    def row_at(self, received_ms: int) -> int:
        """The row before the first record that came at this time (Unix ms) or later; times grow with rows."""
        low, high = 0, self._rows("SELECT COALESCE(MAX(row), 0) FROM records")[0][0]
        while low < high:
            middle = (low + high) // 2
            query = "SELECT received_ms FROM records WHERE row > ? ORDER BY row LIMIT 1"
            if self._rows(query, (middle,))[0][0] < received_ms:
                low = middle + 1
            else:
                high = middle
        return low

    def row_before_last(self, count: int, wins: bool) -> int:
        """The row after which `count` records follow; of kept results and verifications only, when `wins`."""
        where = "WHERE outcome = 'kept' OR subject IS NOT NULL" if wins else ""
        found = self._rows(f"SELECT row FROM facts {where} ORDER BY row DESC LIMIT 1 OFFSET ?", (count,))
        return found[0][0] if found else 0

    def at(self, rows: Collection[int]) -> list[Record]:
        """The records in these rows."""
        return self._records(f"row IN ({_marks(rows)})", tuple(rows))

    def _records(self, where: str, values: tuple[object, ...]) -> list[Record]:
        query = f"SELECT row FROM facts WHERE {where} ORDER BY row"
        return [self._record(row) for (row,) in self._rows(query, values)]

    def _record(self, row: int) -> Record:
        if row not in self._recent:
            if len(self._recent) >= _REMEMBERED:
                self._recent.clear()
            self._recent[row] = recalled(
                self._path, *self._rows("SELECT id, wire FROM records WHERE row = ?", (row,))[0]
            )
        return self._recent[row]


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


class StoredLineage(Lineage):
    """The lineage in a ledger, of which only what is asked for is read. `add` is for what came since."""

    def __init__(self, index: Index) -> None:
        super().__init__()
        self._index = index

    def add(self, record: Record) -> None:
        """Forget what this changes: it is read again."""
        assert isinstance(record.body, Result)
        self._made.pop(record.body.program, None)

    def made(self, program: bytes, task: bytes) -> Made | None:
        if program not in self._made:
            tasks: dict[bytes, Made] = {}
            for record in self._index.makers(program):
                enter(tasks, record)
            self._made[program] = tasks
        return super().made(program, task)

    def children(self, program: bytes, author: bytes | None = None) -> list[Record]:
        return self._index.children(program, author)

    def inspired(self, result: bytes) -> list[Record]:
        return self._index.inspired(result)
