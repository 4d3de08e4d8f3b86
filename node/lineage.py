"""Which wins led to a program: a pure walk over kept results, from a program to its parent."""

from __future__ import annotations

from collections.abc import Iterator

from ..protocols.records import Record, Result
from ..swarm.frontier import Frontier, Win

_LONGEST = 1000  # steps of a walk: records are anybody's, and could lead in a circle


class Lineages:
    """The kept results of this task by the program that they made."""

    def __init__(self, frontier: Frontier) -> None:
        self._made: dict[bytes, tuple[Record, Result]] = {}
        by_normal: dict[bytes, bytes] = {}  # normal digest -> a peer's program: to know it again without its words
        for record in list(frontier.trials):
            body = record.body
            if isinstance(body, Result) and body.outcome == "kept":
                self._made.setdefault(body.program, (record, body))
                if record.author != frontier.own:
                    by_normal.setdefault(body.normal, body.program)
        self._confirmed = {win.id for win in frontier.peer_wins if win.state == "confirmed"}
        self._best = frontier.best_program
        self._own_programs = {self._best}
        self.contained: set[bytes] = set()  # results that the own best contains, by own lineage or whole adoption
        for record, body in self._walk(frontier.best_program):
            self._own_programs |= {body.program, body.parent or body.program}
            self.contained.add(record.id)
            whole = by_normal.get(body.normal)
            for ancestor, step in self._walk(whole) if whole is not None else ():
                self._own_programs.add(step.program)
                self.contained.add(ancestor.id)

    def confirmed_steps(self, win: Win) -> int:
        """How many wins of its lineage, itself included, are confirmed or contained in the own best."""
        return sum(record.id in self._confirmed | self.contained for record, _ in self._walk(win.result.program))

    def steps_ahead(self, win: Win) -> int:
        """How many wins of its lineage, itself included, the own best does not contain."""
        steps = 0
        for record, body in self._walk(win.result.program):
            if record.id in self.contained or body.program in self._own_programs:
                break
            steps += 1
        return steps

    def are_related(self, one: Win, other: Win) -> bool:
        """Whether one of two wins builds on the other."""
        return any(
            record.id == old.id
            for new, old in ((one, other), (other, one))
            for record, _ in self._walk(new.result.program)
        )

    def is_apart(self, program: bytes) -> bool:
        """Whether a program belongs to another lineage than the own best: no step towards it, nor on from it."""
        steps = {body.parent for _, body in self._walk(program)}
        return program not in self._own_programs and self._best not in steps

    def _walk(self, program: bytes) -> Iterator[tuple[Record, Result]]:
        """The kept results that led to a program, the last first."""
        for _ in range(_LONGEST):
            if program not in self._made:
                return
            record, body = self._made[program]
            yield record, body
            if body.parent is None:
                return
            program = body.parent
