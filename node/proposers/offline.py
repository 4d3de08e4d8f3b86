"""The proposer that needs no key: a bandit over the catalogue's edits, samples of the constants, and peers' wins.

Half of the proposals are this node's own edits, so that a swarm does not end up copying itself. In the other half
everything is ranked together, after a confirmed whole program that is far ahead, and several confirmed wins at once:
what is found on a program that is left behind helps nobody. A single win mostly waits for company, since to adopt it
costs as much as to confirm an own one, and who adopts each win of everybody searches where everybody does. The choice
is Boltzmann exploration; in simulated searches over 100 edits it hardly matters between temperatures 0.02 and 0.08.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...protocols.canonical import digest
from . import catalogue_dials, catalogue_model, catalogue_start, catalogue_training
from .base import Hypothesis, Idea, Situation
from .belief import CLEAR_WIN, STATE_WEIGHT, believe_ideas, expected_gain, interest, noise_floor
from .catalogue import Candidate, Edit
from .sweep import Sweep

EDITS: tuple[Edit, ...] = (
    *catalogue_dials.shelf.edits,
    *catalogue_model.shelf.edits,
    *catalogue_start.shelf.edits,
    *catalogue_training.shelf.edits,
)

TEMPERATURE = 0.04  # of the choice; means lie between 0 and 1
TEMPERATURE_WIDENED = 0.2  # when the search stands still
IDEA_SHARE = 0.5  # of the proposals in which ideas compete with own edits while there are any
LONE_SHARE = 0.3  # of these, in which a peer's single win takes part
LARGE = 2.0  # clear wins: a single one that is expected to gain as much always does
SWEEP_SHARE = 0.2  # of the own edits that are samples of the constants, on a CPU
SWEEP_SHARE_GPU = 0.7
_Arm = tuple[float, Callable[[], Hypothesis | None]]


def candidates(source: str) -> list[Candidate]:
    """Every edit of the catalogue that fits this program, applied."""
    return [candidate for edit in EDITS if (candidate := edit.apply(source)) is not None]


class OfflineProposer:
    """Proposes catalogue edits, samples and wins; equal seed and situation give an equal proposal."""

    name = "offline"

    def __init__(self, seed: int, edits: Sequence[Edit] = EDITS, sweep: Sweep | None = None) -> None:
        """`sweep`: what samples the constants; without it only the catalogue is used."""
        self._seed = seed
        self._edits = edits
        self._sweep = sweep

    async def propose(self, situation: Situation) -> Hypothesis | None:
        """The next hypothesis, or None when everything that fits was tried on this program (0.5 s to find out)."""
        return await asyncio.to_thread(self.choose, situation)

    def choose(self, situation: Situation) -> Hypothesis | None:
        """`propose` for callers without an event loop."""
        place = digest(f"{self._seed}/{len(situation.trials)}/{situation.parent}".encode())
        chance = random.Random(place)
        with_ideas = chance.random() < IDEA_SHARE
        sweeps = chance.random() < (SWEEP_SHARE if situation.hardware == "cpu" else SWEEP_SHARE_GPU)
        if situation.mode == "simplify" and (proposal := _first(self._simpler(situation, chance))) is not None:
            return proposal
        if (proposal := _checked(situation)) is not None:
            return proposal
        if with_ideas and (proposal := _far_ahead(situation)) is not None:
            return proposal
        if not with_ideas and sweeps and self._sweep and (proposal := self._sweep.choose(situation)) is not None:
            return proposal
        everything = self._ideas(situation, situation.ideas, chance)
        own = self._own(situation, self._edits, chance)
        if with_ideas:
            lone = chance.random() < LONE_SHARE
            now = [idea for idea in situation.ideas if lone or not _is_lone(situation, idea)]
            proposal = _first([*own, *self._ideas(situation, now, chance)]) or _first(everything)
        else:
            proposal = _first(own) or _first(everything)
        return proposal or (self._sweep.choose(situation) if self._sweep else None)

    def _own(self, situation: Situation, edits: Sequence[Edit], chance: random.Random) -> list[_Arm]:
        def arm(edit: Edit) -> Callable[[], Hypothesis | None]:
            return lambda: _edited(situation, edit)

        worth = interest(situation, edits)
        return [(_noisy(worth[edit.name], chance, situation), arm(edit)) for edit in edits]

    def _ideas(self, situation: Situation, among: Sequence[Idea], chance: random.Random) -> list[_Arm]:
        by_name = {edit.name: edit for edit in self._edits}

        def arm(idea: Idea) -> Callable[[], Hypothesis | None]:
            return lambda: _adopted(situation, idea, by_name.get(idea.edit))

        ideas = [idea for idea in among if idea.kind != "ablate" and idea.state in STATE_WEIGHT]
        means = believe_ideas(situation, ideas)
        return [(_noisy(mean, chance, situation), arm(idea)) for idea, mean in zip(ideas, means, strict=True)]

    def _simpler(self, situation: Situation, chance: random.Random) -> list[_Arm]:
        """One of the own wins taken back out, or an edit that makes the program shorter."""

        def arm(idea: Idea) -> Callable[[], Hypothesis | None]:
            return lambda: _adopted(situation, idea, None)

        without = [idea for idea in situation.ideas if idea.kind == "ablate"]
        means = believe_ideas(situation, without)  # what it gained is what may be lost: small gains go first
        arms = [(_noisy(1 - mean, chance, situation), arm(idea)) for idea, mean in zip(without, means, strict=True)]
        return arms + self._own(situation, [edit for edit in self._edits if "simplify" in edit.tags], chance)


def _first(arms: list[_Arm]) -> Hypothesis | None:
    """The proposal of the best arm that has one."""
    made = (make() for _, make in sorted(arms, key=lambda arm: -arm[0]))
    return next((one for one in made if one is not None), None)


def _noisy(mean: float, chance: random.Random, situation: Situation) -> float:
    """A mean with Gumbel noise: the largest of many is a Boltzmann choice among them."""
    temperature = TEMPERATURE_WIDENED if situation.mode == "widen" else TEMPERATURE
    return mean / temperature - math.log(-math.log(chance.random() or 1e-12))


def _edited(situation: Situation, edit: Edit) -> Hypothesis | None:
    made = edit.apply(situation.parent)
    if made is None or situation.tried(made.source):
        return None
    return Hypothesis(made.source, made.title, made.reason, made.tags, OfflineProposer.name, made.name)


def _checked(situation: Situation) -> Hypothesis | None:
    """A win that this node's own re-run confirmed on this very program: most of what it takes is done."""
    found = [idea for idea in situation.ideas if idea.checked and idea.source is not None and idea.state == "confirmed"]
    made = (_adopted(situation, idea, None) for idea in sorted(found, key=lambda idea: -idea.gain))
    return next((one for one in made if one is not None), None)


def _far_ahead(situation: Situation) -> Hypothesis | None:
    """The first confirmed whole program that is at least a clear win ahead, by an author of whom none came to nothing
    here, since scores are their authors' words; or several confirmed wins at once, if more is expected of them."""
    confirmed = [idea for idea in situation.ideas if idea.state == "confirmed" and not idea.failed]
    ahead = CLEAR_WIN * noise_floor(situation)
    whole = [idea for idea in confirmed if idea.kind == "catch-up" and idea.gain >= ahead][:1]
    stacks = [idea for idea in confirmed if idea.kind == "combine"][:1]
    made = (_adopted(situation, idea, None) for idea in sorted([*whole, *stacks], key=expected_gain, reverse=True))
    return next((one for one in made if one is not None), None)


def _is_lone(situation: Situation, idea: Idea) -> bool:
    """Whether it is a peer's single win on this task that is not expected to be large."""
    lone = idea.kind == "rebase" and not idea.own and not idea.other_task
    return lone and expected_gain(idea) < LARGE * CLEAR_WIN * noise_floor(situation)


def _adopted(situation: Situation, idea: Idea, edit: Edit | None) -> Hypothesis | None:
    """An idea as a hypothesis of our own: as it stands, or where it does not apply, as the catalogue would do it again.

    Its title is made of tags and of the catalogue's words, since peers' words do not travel further. That peers tried
    the same says nothing, unless it is no win on this task.
    """
    if idea.source is None:
        again = _edited(situation, edit) if edit is not None else None
        return replace(again, title=f"{_origin(idea)}, done again: {again.title}"[:120],
                       inspired_by=idea.inspired_by) if again is not None else None  # fmt: skip
    if idea.source == situation.parent or (idea.other_task and situation.tried(idea.source)):
        return None
    words = f"+{idea.ahead} win{'s' * (idea.ahead != 1)}" if idea.kind == "catch-up" else _words(idea)
    return Hypothesis(
        source=idea.source,
        title=f"{_origin(idea)}: {words}",
        reason=f"It gained {idea.gain:.4f} where it was found."
        if idea.kind != "ablate"
        else "The search stands still.",
        tags=idea.tags,
        proposer=OfflineProposer.name,
        inspired_by=idea.inspired_by,
    )


def _words(idea: Idea) -> str:
    return ", ".join(idea.tags) or "untagged"


def _origin(idea: Idea) -> str:
    if idea.kind == "catch-up":
        return "a peer's whole best program"
    if idea.kind == "combine":
        return f"{len(idea.inspired_by)} wins at once"
    if idea.kind == "ablate":
        return "without an own earlier win"
    if idea.own:
        return "an own earlier win"
    return f"a peer's {idea.state} win" + (f" on {idea.other_task}" if idea.other_task else "")
