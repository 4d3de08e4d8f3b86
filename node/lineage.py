"""Which wins led to a program, and which of them the own best contains."""

from __future__ import annotations

from ..protocols.records import Record, Result
from ..swarm.frontier import Frontier, Win


class Lineages:
    """The lines of kept results of this task, beside that of the own best."""

    def __init__(self, frontier: Frontier, task: bytes) -> None:
        self._kept, self._task = frontier.kept, task
        self._confirmed = {win.id for win in frontier.peer_wins if win.state == "confirmed"}
        self._best = frontier.best_program
        self._own_programs = {self._best}
        self.contained: set[bytes] = set()  # results that the own best contains, by own lineage or whole adoption
        by_normal: dict[bytes, bytes] = {}  # normal digest -> a peer's program: to know it again without its words
        for record in list(frontier.trials):
            if isinstance(record.body, Result) and record.body.outcome == "kept" and record.author != frontier.own:
                by_normal.setdefault(record.body.normal, record.body.program)
        merged = set[bytes]()  # only what own records name, and what that was made of: a peer could name anything
        for record in self._walk(self._best, frontier.own):
            self._take(record)
            todo = [record.body]
            while todo:
                made = todo.pop()
                if not isinstance(made, Result) or made.proposer.startswith("llm"):  # a model names all that it read
                    continue
                new = set(made.inspired_by) - merged
                merged |= new
                todo += [found[1] for name in new if (found := frontier.peer_win(name)) is not None]
            body = record.body
            assert isinstance(body, Result)
            self._own_programs.add(body.parent or body.program)
            for ancestor in self._walk(by_normal[body.normal]) if body.normal in by_normal else ():
                self._take(ancestor)

        self.contained |= merged

    def confirmed_steps(self, win: Win) -> int:
        """How many wins of its lineage, itself included, are confirmed or contained in the own best."""
        return sum(record.id in self._confirmed | self.contained for record in self._walk(win.result.program))

    def steps_ahead(self, win: Win) -> int:
        """How many wins of its lineage, itself included, the own best does not contain."""
        steps = 0
        for record in self._walk(win.result.program):
            assert isinstance(record.body, Result)
            if record.id in self.contained or record.body.program in self._own_programs:
                break
            steps += 1
        return steps

    def is_apart(self, program: bytes) -> bool:
        """Whether a program belongs to another lineage than the own best: no step towards it, nor on from it."""
        steps = {record.body.parent for record in self._walk(program) if isinstance(record.body, Result)}
        return program not in self._own_programs and self._best not in steps

    def _take(self, record: Record) -> None:
        assert isinstance(record.body, Result)
        self._own_programs.add(record.body.program)
        self.contained.add(record.id)

    def _walk(self, program: bytes, author: bytes = b"") -> list[Record]:
        return list(self._kept.walk(program, self._task, author))
