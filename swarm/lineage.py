"""Lineage: who built on what, read from kept results alone."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from ..protocols.records import Record, Result


class Lineage:
    """Kept results by the program that they made; programs are the links, since equal finds are one program."""

    def __init__(self) -> None:
        self._makers: dict[bytes, list[Record]] = defaultdict(list)
        self._by_id: dict[bytes, Record] = {}

    def add(self, record: Record) -> None:
        """Take one kept result into account."""
        assert isinstance(record.body, Result)
        self._makers[record.body.program].append(record)
        self._by_id[record.id] = record

    def makers(self, program: bytes, task: bytes) -> list[Record]:
        """The kept results of a task that made a program."""
        return [record for record in self._makers.get(program, ()) if record.body.task == task]

    def walk(self, program: bytes | None, task: bytes, author: bytes = b"") -> Iterator[Record]:
        """The kept results of a task that led to a program, the last first; of equal finds that of `author`."""
        seen: set[bytes] = set()  # records are anybody's, and could lead in a circle
        while program is not None and program not in seen and (makers := self.makers(program, task)):
            seen.add(program)
            maker = next((one for one in makers if one.author == author), makers[0])
            yield maker
            assert isinstance(maker.body, Result)
            program = maker.body.parent

    def ancestors(self, record: Record) -> list[Record]:
        """The kept results that led to the parent of `record`, the nearest first; of equal finds the own author's."""
        assert isinstance(record.body, Result)
        return list(self.walk(record.body.parent, record.body.task, record.author))

    def is_tainted(self, record: Record, is_bad: Callable[[Record], bool]) -> bool:
        """Whether a program on the way to `record` was made by bad results only."""
        for ancestor in self.ancestors(record):
            assert isinstance(ancestor.body, Result)
            if all(is_bad(maker) for maker in self.makers(ancestor.body.program, ancestor.body.task)):
                return True
        return False

    def contained(self, record: Record) -> set[bytes]:
        """The kept results, by id, whose idea is in the program of `record`: its own, those that it adopted, and all
        of its parent's. What a language model was merely shown does not count."""
        out: set[bytes] = set()
        todo = [record]
        while todo:
            one = todo.pop()
            if one.id in out:
                continue
            out.add(one.id)
            assert isinstance(one.body, Result)
            todo += itertools.islice(self.walk(one.body.parent, one.body.task, one.author), 1)
            for source in (self._by_id[name] for name in one.body.inspired_by if name in self._by_id):
                assert isinstance(source.body, Result)
                if source.body.normal == one.body.normal:  # adopted as a whole, with all that it was built on
                    todo.append(source)
                elif not one.body.proposer.startswith("llm"):
                    out.add(source.id)
        return out


def adoptions(records: Iterable[Record]) -> dict[bytes, list[tuple[bytes, int]]]:
    """For each kept result, who else built on it and when first: (author, their clock in Unix ms), in that order."""
    lineage = Lineage()
    kept = [record for record in records if isinstance(record.body, Result) and record.body.outcome == "kept"]
    for record in kept:
        lineage.add(record)
    by_id = {record.id: record for record in kept}
    first: dict[bytes, dict[bytes, int]] = defaultdict(dict)
    for record in sorted(kept, key=lambda one: one.time):
        for source in lineage.contained(record) - {record.id}:
            if by_id[source].author != record.author:
                first[source].setdefault(record.author, record.time)
    return {source: sorted(found.items(), key=lambda item: item[1]) for source, found in first.items()}
