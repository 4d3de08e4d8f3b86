"""Lineage: who built on what, read from kept results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..protocols.records import Record, Result


@dataclass(frozen=True)
class Made:
    """The kept results of one task that made one program. One author may sign any number of them, so nobody looks
    through them for those of an author."""

    records: list[Record] = field(default_factory=list)
    firsts: dict[bytes, Record] = field(default_factory=dict)  # of each author

    def add(self, record: Record) -> None:
        """One more."""
        self.firsts.setdefault(record.author, record)
        self.records.append(record)

    def as_seen_by(self, author: bytes) -> Record:
        """The author's own, else that which was known first."""
        return self.firsts.get(author, self.records[0])


@dataclass(frozen=True)
class Taints:
    """What was found with one `is_bad`, so that nothing is looked at twice."""

    ways: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)  # by result and author
    made: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)  # by bad results only; by program and task


def enter(tasks: dict[bytes, Made], record: Record) -> None:
    """Add a maker of a program to those of its task."""
    assert isinstance(record.body, Result)
    made = tasks.get(record.body.task) or Made()
    made.add(record)
    tasks[record.body.task] = made  # with something in it: another thread may be reading


class Lineage:
    """Kept results by the program that they made; programs are the links, since equal finds are one program."""

    def __init__(self) -> None:
        self._made: dict[bytes, dict[bytes, Made]] = {}  # by program and task
        self._children: dict[bytes, dict[bytes, list[Record]]] = {}  # by program and author
        self._inspired: dict[bytes, list[Record]] = {}

    def add(self, record: Record) -> None:
        """Take one kept result into account."""
        assert isinstance(record.body, Result)
        enter(self._made.setdefault(record.body.program, {}), record)
        if record.body.parent is not None:
            self._children.setdefault(record.body.parent, {}).setdefault(record.author, []).append(record)
        for source in record.body.inspired_by:
            self._inspired.setdefault(source, []).append(record)

    def made(self, program: bytes, task: bytes) -> Made | None:
        """The kept results of a task that made a program, None when there are none."""
        return self._made.get(program, {}).get(task)

    def makers(self, program: bytes, task: bytes) -> Sequence[Record]:
        """The same in a row, as they became known."""
        made = self.made(program, task)
        return made.records if made is not None else ()

    def children(self, program: bytes, author: bytes | None = None) -> list[Record]:
        """The kept results made from a program, if given those of one author."""
        by_author = self._children.get(program, {})
        if author is not None:
            return by_author.get(author, [])
        return [record for records in list(by_author.values()) for record in records]

    def inspired(self, result: bytes) -> list[Record]:
        """The kept results that name this one as a source."""
        return self._inspired.get(result, [])

    def walk(self, program: bytes | None, task: bytes, author: bytes = b"") -> Iterator[Record]:
        """The kept results of a task that led to a program, the last first; of equal finds that of `author`."""
        seen: set[bytes] = set()  # records are anybody's, and could lead in a circle
        while program is not None and program not in seen and (made := self.made(program, task)) is not None:
            seen.add(program)
            maker = made.as_seen_by(author)
            yield maker
            assert isinstance(maker.body, Result)
            program = maker.body.parent

    def ancestors(self, record: Record) -> list[Record]:
        """The kept results that led to the parent of `record`, the nearest first; of equal finds the own author's."""
        assert isinstance(record.body, Result)
        return list(self.walk(record.body.parent, record.body.task, record.author))

    def is_tainted(self, record: Record, is_bad: Callable[[Record], bool], known: Taints | None = None) -> bool:
        """Whether a program on the way to `record` was made by bad results only. `known`: what was found of others with
        the same `is_bad`; ways have most stations in common."""
        assert isinstance(record.body, Result)
        known = known or Taints()
        found, passed = False, list[tuple[bytes, bytes]]()
        for ancestor in self.walk(record.body.parent, record.body.task, record.author):
            assert isinstance(ancestor.body, Result)
            key = ancestor.id, record.author
            if key in known.ways:
                found = known.ways[key]
                break
            passed.append(key)
            station = ancestor.body.program, ancestor.body.task
            if station not in known.made:
                known.made[station] = all(is_bad(maker) for maker in self.makers(*station))
            if found := known.made[station]:
                break
        known.ways.update(dict.fromkeys(passed, found))
        return found

    def descendants(self, record: Record) -> list[Record]:
        """The kept results in whose program the idea of `record` is: those that adopted it, and all that was built on
        them. What a language model was merely shown does not count."""
        out: dict[bytes, Record] = {}
        brings = {record.id: True}  # whether its own change has the idea in it, so that who merges it has that too
        todo = [record]
        while todo:
            one = todo.pop()
            for other in self.inspired(one.id):
                has = _is_same(other, one) or (brings[one.id] and _merged(other, one))
                if brings.get(other.id, False) < has:
                    brings[other.id] = has
                    out[other.id] = other
                    todo.append(other)
            for other in self._continuing(one):
                if other.id not in brings:
                    brings[other.id] = False
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

    def _continuing(self, record: Record) -> Iterable[Record]:
        """The kept results made from the program of `record`, as their authors have it. Of equal finds each looks only
        at what can be its own, else they would all look at everything that was built on any of them."""
        assert isinstance(record.body, Result)
        made = self.made(record.body.program, record.body.task)
        if made is None or made.as_seen_by(record.author).id != record.id:
            return
        is_first = made.records[0].id == record.id  # whose program is it to those who did not find it themselves
        for child in self.children(record.body.program, None if is_first else record.author):
            if child.body.task == record.body.task and made.as_seen_by(child.author).id == record.id:
                yield child


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
