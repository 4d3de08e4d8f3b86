"""What Sybils do in a simulated swarm: lies, praise for them, slander, and true wins of others as their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scale_parts import GANG, GANG_SECONDS, LIE, START, Claim, Program
from scale_world import World


class Sybils:
    """All of them, in league."""

    def __init__(self, world: World) -> None:
        self._world, self._random = world, world.random

    def start(self) -> None:
        """They begin when all nodes are up; every claim that is heard is slandered from now on."""
        world = self._world
        for sybil in range(world.honest, world.size):
            world.at(START + self._pause(world.lies_per_hour), self._lie, sybil)
            world.at(START + self._pause(world.copies_per_hour), self._copy, sybil)
        world.hearing.append(self._doubt)

    def _pause(self, rate: float) -> float:
        return self._random.expovariate(rate / 3600) if rate else math.inf

    def _gang(self, claim: Claim) -> Sequence[int]:
        honest, size = self._world.honest, self._world.size
        chosen = self._random.sample(range(honest, size), min(GANG + 1, size - honest))
        return [number for number in chosen if number != claim.author][:GANG]

    def _soon(self) -> float:
        return self._world.now + self._random.uniform(0.0, GANG_SECONDS)

    def _lie(self, sybil: int) -> None:
        world = self._world
        parent = Program(0, 0.0, frozenset())  # an edit of somebody's better program would help who is behind
        edit = len(world.names)
        world.names.append(self._random.getrandbits(64))
        world.gains.append(LIE)
        world.first_lie.setdefault(world.keys[sybil], world.now)
        program = world.with_edit(parent, edit)
        record = world.record(sybil, world.result(parent, program, (), 20.0, True, 0.0))
        claim = world.claim(record, sybil, parent, program, edit, (), lie=True)
        world.sent["kept"] += 1
        for friend in self._gang(claim):
            world.at(1.0 + self._soon(), self._say, friend, claim, "confirmed")
        world.at(world.now + self._pause(world.lies_per_hour), self._lie, sybil)

    def _copy(self, sybil: int) -> None:
        """The newest win that honest nodes confirmed and that it did not copy yet, with a name changed, so that it is
        looked at as another: whoever does so finds it true, and believes this author."""
        world, had = self._world, {one.edit for one in self._world.by_author[self._world.keys[sybil]]}
        honest = (one for one in reversed(world.wins) if one.author < world.honest)
        true = (one for one in honest if one.edit is not None and one.edit not in had)
        claim = next((one for one in true if any(node.words[one] == "confirmed" for node in one.reran)), None)
        if claim is not None:
            program = replace(claim.program, name=claim.program.name ^ self._random.getrandbits(64))
            record = world.record(sybil, world.result(claim.parent, program, (), claim.gain, True, 0.0))
            world.claim(record, sybil, claim.parent, program, claim.edit, ())
            world.sent["kept"] += 1
        world.at(world.now + self._pause(world.copies_per_hour), self._copy, sybil)

    def _doubt(self, claim: Claim) -> None:
        if claim.author >= self._world.honest:
            return
        for sybil in self._gang(claim):
            # A third of them says that the author made it up, which needs no evidence at all.
            word = "fabricated" if self._random.random() < 1 / 3 else "refuted"
            self._world.at(self._soon(), self._say, sybil, claim, word)

    def _say(self, sybil: int, claim: Claim, outcome: str) -> None:
        good = outcome == "confirmed"
        record = self._world.word(sybil, claim, outcome, 1e6 if good else 0.0, 0.0 if good else 1e6)
        self._world.tell(record, self._world.hears_word, claim, record)
