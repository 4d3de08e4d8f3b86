"""Lineage: who built on what, read from kept results alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from ..protocols.records import Record, Result


class Lineage:
    """Kept results by the program that they made; programs are the links, since equal finds are one program."""

    def __init__(self) -> None:
        self._makers: dict[bytes, list[Record]] = {}
        self._children: dict[bytes, list[Record]] = {}
        self._inspired: dict[bytes, list[Record]] = {}

    def add(self, record: Record) -> None:
        """Take one kept result into account."""
        assert isinstance(record.body, Result)
        self._makers.setdefault(record.body.program, []).append(record)
        if record.body.parent is not None:
            self._children.setdefault(record.body.parent, []).append(record)
        for source in record.body.inspired_by:
            self._inspired.setdefault(source, []).append(record)

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

    def is_tainted(
        self, record: Record, is_bad: Callable[[Record], bool], known: dict[tuple[bytes, bytes], bool] | None = None
    ) -> bool:
        """Whether a program on the way to `record` was made by bad results only. `known`: what was found of others with
        the same `is_bad`, by result and author; ways have most stations in common."""
        assert isinstance(record.body, Result)
        known = {} if known is None else known
        found, passed = False, list[tuple[bytes, bytes]]()
        for ancestor in self.walk(record.body.parent, record.body.task, record.author):
            assert isinstance(ancestor.body, Result)
            key = ancestor.id, record.author
            if key in known:
                found = known[key]
                break
            passed.append(key)
            if found := all(is_bad(maker) for maker in self.makers(ancestor.body.program, ancestor.body.task)):
                break
        known.update(dict.fromkeys(passed, found))
        return found

    def builders(self, record: Record) -> Iterable[Record]:
        """The kept results made from the program of `record`, or inspired by it."""
        assert isinstance(record.body, Result)
        found = self._children.get(record.body.program, []) + self._inspired.get(record.id, [])
        return {one.id: one for one in found}.values()

    def descendants(self, record: Record) -> list[Record]:
        """The kept results in whose program the idea of `record` is: those that adopted it, and all that was built on
        them. What a language model was merely shown does not count."""
        out: dict[bytes, Record] = {}
        brings = {record.id: True}  # whether its own change has the idea in it, so that who merges it has that too
        todo = [record]
        while todo:
            one = todo.pop()
            for other in self.builders(one):
                has = _is_same(other, one) or (brings[one.id] and _merged(other, one))
                if brings.get(other.id, False) < has or (other.id not in brings and self._continues(other, one)):
                    brings[other.id] = has
                    out[other.id] = other
                    todo.append(other)
        return list(out.values())

    def adopters(self, record: Record) -> list[tuple[bytes, int]]:
        """Who else built on a kept result and when first: (author, their clock in Unix ms), in that order."""
        first: dict[bytes, int] = {}
        for other in self.descendants(record):
            if other.author != record.author:
                first[other.author] = min(other.time, first.get(other.author, other.time))
        return sorted(first.items(), key=lambda item: item[1])

    def _continues(self, later: Record, earlier: Record) -> bool:
        """Whether `later` was made from the program of `earlier`, as its author has it."""
        assert isinstance(later.body, Result)
        parents = itertools.islice(self.walk(later.body.parent, later.body.task, later.author), 1)
        return any(parent.id == earlier.id for parent in parents)


def _is_same(later: Record, earlier: Record) -> bool:
    """Whether `later` is the very program of `earlier`, adopted."""
    assert isinstance(later.body, Result) and isinstance(earlier.body, Result)
    return earlier.id in later.body.inspired_by and earlier.body.normal == later.body.normal


def _merged(later: Record, earlier: Record) -> bool:
    """Whether `later` took the one idea of `earlier` over."""
    assert isinstance(later.body, Result)
    return earlier.id in later.body.inspired_by and not later.body.proposer.startswith("llm")


def adoptions(records: Iterable[Record]) -> dict[bytes, list[tuple[bytes, int]]]:
    """For each kept result that somebody else built on: by whom and when first, as `Lineage.adopters` tells."""
    lineage = Lineage()
    kept = [record for record in records if isinstance(record.body, Result) and record.body.outcome == "kept"]
    for record in kept:
        lineage.add(record)
    found = {record.id: lineage.adopters(record) for record in kept}
    return {source: adopters for source, adopters in found.items() if adopters}
