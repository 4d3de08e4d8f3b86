"""The proposer that needs no key: a bandit over the catalogue's edits and over peers' wins.

What it believes of an edit is a Beta distribution of "share of a clear win", flat before any experiment. Results of
edits that share a tag move the prior, results of the edit itself are counted on top; a peer's count half, and every
result fades with each own win since, because effects depend on the base. The choice is Boltzmann exploration over
the means; in simulated searches over 100 edits it hardly matters between temperatures 0.02 and 0.08.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ...protocols.canonical import digest
from ...protocols.tags import Tag
from . import catalogue_dials, catalogue_model, catalogue_start, catalogue_training
from .base import Hypothesis, Idea, Situation, Trial
from .catalogue import Candidate, Edit

EDITS: tuple[Edit, ...] = (
    *catalogue_dials.shelf.edits,
    *catalogue_model.shelf.edits,
    *catalogue_start.shelf.edits,
    *catalogue_training.shelf.edits,
)

CLEAR_WIN = 6.0  # gain in standard deviations over seeds that counts as a whole win
PEER_WEIGHT = 0.5  # of a peer's result beside an own one: another machine, another base
FADE = 0.85  # of a result's weight with each own win since
PRIOR_WEIGHT = 2.0  # experiments that the tags' prior is worth; with rate 1/2 it is the flat Beta(1, 1)
TEMPERATURE = 0.04  # of the choice; means lie between 0 and 1
IDEA_SHARE = 0.5  # of the proposals that follow a peer's win while there are any
IDEA_WEIGHT = {"confirmed": 6.0, "claimed": 3.0}  # experiments that a peer's win is worth


def candidates(source: str) -> list[Candidate]:
    """Every edit of the catalogue that fits this program, applied."""
    return [candidate for edit in EDITS if (candidate := edit.apply(source)) is not None]


class OfflineProposer:
    """Proposes catalogue edits and peers' wins; equal seed and situation give an equal proposal."""

    name = "offline"

    def __init__(self, seed: int, edits: Sequence[Edit] = EDITS) -> None:
        self._seed = seed
        self._edits = edits

    async def propose(self, situation: Situation) -> Hypothesis | None:
        """The next hypothesis, or None when every edit that fits was tried on this program (0.5 s to find out)."""
        return await asyncio.to_thread(self.choose, situation)

    def choose(self, situation: Situation) -> Hypothesis | None:
        """`propose` for callers without an event loop."""
        place = digest(f"{self._seed}/{len(situation.trials)}/{situation.parent}".encode())
        chance = random.Random(place)
        ideas = _open_ideas(situation)
        if ideas and chance.random() < IDEA_SHARE:
            return _follow(self._best_idea(situation, ideas, chance))
        for edit in order(situation, self._edits, chance):
            candidate = edit.apply(situation.parent)
            if candidate is not None and not situation.tried(candidate.source):
                return Hypothesis(
                    candidate.source, candidate.title, candidate.reason, candidate.tags, self.name, candidate.name
                )
        return _follow(self._best_idea(situation, ideas, chance)) if ideas else None

    def _best_idea(self, situation: Situation, ideas: Sequence[Idea], chance: random.Random) -> Idea:
        sigma = _sigma(situation)
        priors = _tag_rates(situation)

        def mean(idea: Idea) -> float:
            weight = 1.0 if idea.other_task else IDEA_WEIGHT[idea.state]
            won = PRIOR_WEIGHT * _prior(priors, idea.tags) + weight * _share_of_win(idea.gain, sigma)
            return won / (PRIOR_WEIGHT + weight)

        return max(ideas, key=lambda idea: _noisy(mean(idea), chance))


def order(situation: Situation, edits: Sequence[Edit], chance: random.Random) -> list[Edit]:
    """The edits in the order in which to try them now: a Boltzmann choice without replacement."""
    means = believe(situation, edits)
    return sorted(edits, key=lambda edit: -_noisy(means[edit.name], chance))


def believe(situation: Situation, edits: Iterable[Edit]) -> dict[str, float]:
    """The mean belief (0 to 1) in each edit by name, from everything that was tried."""
    sigma = _sigma(situation)
    won: dict[str, float] = defaultdict(float)
    tried: dict[str, float] = defaultdict(float)
    for trial, weight in _weighted(situation.trials):
        won[trial.edit] += weight * _share_of_win(trial.gain, sigma)
        tried[trial.edit] += weight
    rates = _tag_rates(situation)
    return {
        edit.name: (PRIOR_WEIGHT * _prior(rates, edit.tags) + won[edit.name]) / (PRIOR_WEIGHT + tried[edit.name])
        for edit in edits
    }


def _tag_rates(situation: Situation) -> dict[Tag, float]:
    """How often edits with a tag won, from a flat prior."""
    sigma = _sigma(situation)
    won: dict[Tag, float] = defaultdict(lambda: 1.0)
    tried: dict[Tag, float] = defaultdict(lambda: 2.0)
    for trial, weight in _weighted(situation.trials):
        for tag in trial.tags:
            won[tag] += weight * _share_of_win(trial.gain, sigma)
            tried[tag] += weight
    return {tag: won[tag] / tried[tag] for tag in won}


def _prior(rates: dict[Tag, float], tags: Sequence[Tag]) -> float:
    return sum(rates.get(tag, 0.5) for tag in tags) / len(tags) if tags else 0.5


def _weighted(trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
    """Each trial with its weight: peers' count less, and all fade with the own wins after them."""
    weighted: list[tuple[Trial, float]] = []
    fade = 1.0
    for trial in reversed(trials):
        weighted.append((trial, fade * (1.0 if trial.own else PEER_WEIGHT)))
        if trial.own and trial.outcome == "kept":
            fade *= FADE
    return weighted


def _share_of_win(gain: float | None, sigma: float) -> float:
    return min(1.0, max(0.0, (gain or 0.0) / (CLEAR_WIN * sigma)))


def _sigma(situation: Situation) -> float:
    """The noise over seeds, at least 0.2 % of the score: two or three seeds can agree by luck."""
    floor = 0.002 * abs(situation.parent_score or 1.0)
    return max(situation.noise or 0.0, floor)


def _noisy(mean: float, chance: random.Random) -> float:
    """A mean with Gumbel noise: the largest of many is a Boltzmann choice among them."""
    return mean / TEMPERATURE - math.log(-math.log(chance.random() or 1e-12))


def _open_ideas(situation: Situation) -> list[Idea]:
    """Peers' wins that fit here and were not re-run here. (`tried` also knows what peers tried, so it cannot tell.)"""
    return [
        idea
        for idea in situation.ideas
        if idea.source is not None
        and idea.state in IDEA_WEIGHT
        and idea.source != situation.parent
        and not (idea.other_task and situation.tried(idea.source))
    ]


def _follow(idea: Idea) -> Hypothesis:
    """A peer's win as a hypothesis of our own; its title is made of tags, since peers' words do not travel further."""
    assert idea.source is not None
    words = ", ".join(idea.tags) or "untagged"
    where = f" on {idea.other_task}" if idea.other_task else ""
    return Hypothesis(
        source=idea.source,
        title=f"an own earlier win: {words}" if idea.own else f"a peer's {idea.state} win{where}: {words}",
        reason=f"It gained {idea.gain:.4f} where it was found.",
        tags=idea.tags,
        proposer=OfflineProposer.name,
        inspired_by=(idea.result,),
    )
