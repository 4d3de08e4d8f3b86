"""What the built-in proposer believes: how much of a clear win each edit, and each idea, is worth now.

The belief in an edit is a Beta distribution of "share of a clear win". Results of edits that share a tag move its
prior, which starts from how often anything won at all; results of the edit itself are counted on top. A peer's result
counts half, and not at all where it keeps again what was found elsewhere: that says nothing new of a kind, and eight
nodes that adopt one find must not look like eight finds. Every result fades with each own win since, because effects
depend on the base. A dial that is worse one way is no reason against its kind: the other way may be better.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ...protocols.tags import Tag
from .base import Idea, Situation, Trial
from .catalogue import Edit
from .catalogue_dials import WAYS

CLEAR_WIN = 6.0  # gain in standard deviations over seeds that counts as a whole win
PEER_WEIGHT = 0.5  # of a peer's result beside an own one: another machine, another base
FADE = 0.85  # of a result's weight with each own win since
FADE_WIDENED = 0.5  # the same when the search stands still: what failed on older programs is worth another try
PRIOR_WEIGHT = 2.0  # experiments that the tags' prior is worth
TAG_WEIGHT = 2.0  # experiments that the overall rate is worth in the rate of a tag
FIRST_RATE = 0.3  # share of a clear win that an edit is expected to be worth before any experiment
FIRST_WEIGHT = 4.0  # experiments that this expectation is worth in the overall rate
LEAN = 1.05  # of the prior of an edit of the kinds that this machine is good for; it excludes nothing
_SMALL: tuple[Tag, ...] = ("init", "norm", "optimizer", "lr", "embedding", "activation", "position", "residual")
_LARGE: tuple[Tag, ...] = ("attention", "mixing", "mlp", "width", "depth", "context", "batch", "head")
STATE_WEIGHT = {"confirmed": 6.0, "claimed": 3.0}  # experiments that what a peer reports is worth
CLAIM = 0.7  # of a claim's gain that is believed
ELSEWHERE = 0.5  # of the gain that a win had on another program: a guess; 4 of 15 held in two nights of four nodes
TOGETHER = 0.8  # of the gains of several wins that is expected of all at once
UNTRIED = 0.3  # of belief for an edit that nobody tried: a screening costs a tenth of what a confirmation does
SAME_DIAL = 0.5  # of a result's weight for other edits of that dial
TURNED = 0.5  # share of a clear win that one way is expected to be worth when the other was clearly worse
OTHER_TASK_WEIGHT = 1.0
LARGER = 0.03  # of belief with each doubling of a gain over a clear win
MOST_LARGER = 4.0  # doublings: a score is its author's word


def believe(situation: Situation, edits: Iterable[Edit]) -> dict[str, float]:
    """The mean belief (0 to 1) in each edit by name, from everything that was tried."""
    sigma = noise_floor(situation)
    won: dict[str, float] = defaultdict(float)
    tried: dict[str, float] = defaultdict(float)
    for trial, weight in _weighted(situation):
        share = _share_of_win(trial.gain, sigma)
        won[trial.edit] += weight * share
        tried[trial.edit] += weight
        for other, turned in _same_dial(trial.edit):
            if not turned or _is_worse(trial, sigma):
                won[other] += SAME_DIAL * weight * (TURNED if turned else share)
                tried[other] += SAME_DIAL * weight
    prior = _Prior(situation)
    return {
        edit.name: (PRIOR_WEIGHT * prior.of(edit.tags) + won[edit.name]) / (PRIOR_WEIGHT + tried[edit.name])
        for edit in edits
    }


def interest(situation: Situation, edits: Sequence[Edit]) -> dict[str, float]:
    """How much each edit, by name, is worth trying now: the belief in it, and more where nobody knows.

    In simulated searches of eight nodes (gains as in real nights, at their places or shuffled) this found larger gains
    than belief alone, and a swarm, which forgets less of what it tried, gained more by it than nodes alone.
    """
    known = {trial.edit for trial in situation.trials}
    return {name: mean + UNTRIED * (name not in known) for name, mean in believe(situation, edits).items()}


def believe_ideas(situation: Situation, ideas: Sequence[Idea]) -> list[float]:
    """The same for ideas: what was found elsewhere counts as experiments, own failures with it against them."""
    sigma = noise_floor(situation)
    prior = _Prior(situation)

    def mean(idea: Idea) -> float:
        weight = OTHER_TASK_WEIGHT if idea.other_task else STATE_WEIGHT[idea.state]
        gain = expected_gain(idea)
        share = _share_of_win(gain, sigma)
        if share == 1.0 and not idea.other_task:
            share += LARGER * min(MOST_LARGER, math.log2(gain / (CLEAR_WIN * sigma)))
        return (PRIOR_WEIGHT * prior.of(idea.tags) + weight * share) / (PRIOR_WEIGHT + weight + 2 * idea.failed)

    return [mean(idea) for idea in ideas]


def expected_gain(idea: Idea) -> float:
    """Of what was gained elsewhere, in the task's unit, how much is expected here."""
    gain = idea.gain * (CLAIM if idea.state == "claimed" else 1.0) * (TOGETHER if idea.kind == "combine" else 1.0)
    as_it_was = idea.kind in ("catch-up", "ablate") or idea.found_here or idea.other_task
    return gain if as_it_was else gain * ELSEWHERE  # another task's word has its own, small weight


def noise_floor(situation: Situation) -> float:
    """The noise over seeds, at least 0.2 % of the score: two or three seeds can agree by luck."""
    floor = 0.002 * abs(situation.parent_score or 1.0)
    return max(situation.noise or 0.0, floor)


class _Prior:
    """How often edits with a tag won, from how often anything did, leaning to what this machine is good for."""

    def __init__(self, situation: Situation) -> None:
        sigma = noise_floor(situation)
        won: dict[Tag, float] = defaultdict(float)
        tried: dict[Tag, float] = defaultdict(float)
        all_won, all_tried = FIRST_RATE * FIRST_WEIGHT, FIRST_WEIGHT
        for trial, weight in _weighted(situation):
            share = weight * _share_of_win(trial.gain, sigma)
            all_won, all_tried = all_won + share, all_tried + weight
            one_way = trial.edit in WAYS or bool(trial.moved)
            for tag in () if one_way and _is_worse(trial, sigma) else trial.tags:
                won[tag] += share
                tried[tag] += weight
        self.overall = all_won / all_tried
        self._rates = {tag: (TAG_WEIGHT * self.overall + won[tag]) / (TAG_WEIGHT + tried[tag]) for tag in tried}
        self._favoured = _SMALL if situation.hardware == "cpu" else _LARGE

    def of(self, tags: Sequence[Tag]) -> float:
        """The prior of an edit with these tags."""
        if not tags:
            return self.overall
        rates = [self._rates.get(tag, self.overall) * (LEAN if tag in self._favoured else 1.0) for tag in tags]
        return min(1.0, sum(rates) / len(rates))


def _weighted(situation: Situation) -> list[tuple[Trial, float]]:
    """Each trial that says something new, with its weight: peers' count less, all fade with the own wins after them."""
    weighted: list[tuple[Trial, float]] = []
    fade, by = 1.0, FADE_WIDENED if situation.mode == "widen" else FADE
    for trial in reversed(situation.trials):
        if trial.again and not trial.own and trial.outcome == "kept":
            continue
        weighted.append((trial, fade * (1.0 if trial.own else PEER_WEIGHT)))
        if trial.own and trial.outcome == "kept":
            fade *= by
    return weighted


@functools.lru_cache(maxsize=256)  # asked for every trial; a peer's record can name anything
def _same_dial(name: str) -> list[tuple[str, bool]]:
    """The other edits of the dial that an edit moves, and whether they turn it the other way."""
    dial, way = WAYS.get(name, ("", 0))
    return [(other, its_way != way) for other, (its, its_way) in WAYS.items() if its == dial and other != name]


def _is_worse(trial: Trial, sigma: float) -> bool:
    """Whether it was clearly worse than its parent; one that was killed on the way was."""
    return trial.outcome == "discarded" and (trial.gain is None or trial.gain < -sigma)


def _share_of_win(gain: float | None, sigma: float) -> float:
    return min(1.0, max(0.0, (gain or 0.0) / (CLEAR_WIN * sigma)))
