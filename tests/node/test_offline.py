from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from statistics import fmean

from swarm_node.node.proposers.base import Idea, Situation, Trial
from swarm_node.node.proposers.catalogue import Edit
from swarm_node.node.proposers.offline import EDITS, OfflineProposer, believe, order
from swarm_node.protocols.diffs import make_diff
from swarm_node.protocols.task import TaskSpec

BASELINE = resources.files("swarm_node.trainer.tasks.gpt_cpu").joinpath("train.py").read_text(encoding="utf-8")
BY_NAME = {edit.name: edit for edit in EDITS}
FITTING = [edit for edit in EDITS if edit.apply(BASELINE) is not None]
TASK = TaskSpec(
    name="gpt-cpu", size="short", steps=1300, metric="bpb", unit="bits per byte", direction="lower",
    baseline=bytes(32), data=bytes(32), evaluator=1,
)  # fmt: skip


def situation(
    trials: Sequence[Trial] = (),
    ideas: Sequence[Idea] = (),
    tried: Callable[[str], bool] = lambda source: False,
    parent: str = BASELINE,
) -> Situation:
    return Situation(TASK, "", "", parent, 3.2, 0.01, tuple(trials), tuple(ideas), tried)


def trial(edit: Edit, gain: float | None, own: bool = True) -> Trial:
    outcome = "crashed" if gain is None else "kept" if gain > 0.02 else "discarded"
    return Trial("", edit.tags, outcome, gain, own, edit.name)


def idea(edit: str, state: str = "confirmed", gain: float = 0.3, **more: str) -> Idea:
    candidate = BY_NAME[edit].apply(BASELINE)
    assert candidate is not None
    diff = make_diff(BASELINE, candidate.source)
    return Idea(edit.encode(), state, diff, gain, candidate.tags, candidate.source, **more)  # type: ignore[arg-type]


def test_same_seed_same_proposal() -> None:
    """A seed and a history fix the proposal; another seed or one more trial gives others."""
    trials = [trial(BY_NAME["norm-rms"], -0.01)]
    here = situation(trials)
    first = asyncio.run(OfflineProposer(1).propose(here))
    assert first == OfflineProposer(1).choose(here)
    assert len({OfflineProposer(seed).choose(here) for seed in range(12)}) > 8
    longer = [situation(trials * count) for count in range(1, 9)]
    assert len({OfflineProposer(1).choose(one) for one in longer}) > 4


def test_nothing_is_proposed_twice() -> None:
    """Every edit that fits is proposed exactly once, then nothing."""
    done: set[str] = set()
    here = situation(tried=lambda source: source in done)
    few = OfflineProposer(3, [edit for edit in EDITS if edit.name.startswith(("norm-", "init-"))])
    names: list[str] = []
    while (proposal := few.choose(here)) is not None:
        assert proposal.source not in done and proposal.source != BASELINE
        done.add(proposal.source)
        names.append(proposal.edit)
    assert len(names) == len(set(names)) > 12


def test_no_edit_is_favoured_at_the_start() -> None:
    """Before any experiment every edit is believed in equally."""
    assert set(believe(situation(), EDITS).values()) == {0.5}


def test_results_move_belief() -> None:
    """Wins raise and failures lower belief in an edit, and less so in its relatives; peers' results count less."""
    lr, cousin, stranger = BY_NAME["lr-times-3"], BY_NAME["lr-over-1.5"], BY_NAME["norm-rms"]
    won = believe(situation([trial(lr, 0.5)]), EDITS)
    assert won[lr.name] > won[cousin.name] > won[stranger.name] == 0.5
    lost = believe(situation([trial(lr, -0.5)]), EDITS)
    assert lost[lr.name] < lost[cousin.name] < lost[stranger.name]
    crashed = believe(situation([trial(lr, None)]), EDITS)
    assert crashed[lr.name] == lost[lr.name]
    heard = believe(situation([trial(lr, 0.5, own=False)]), EDITS)
    assert 0.5 < heard[lr.name] < won[lr.name]


def test_old_failures_fade() -> None:
    """A failure weighs less after own wins, because it happened on another base."""
    failed, other = trial(BY_NAME["norm-qk"], -0.1), trial(BY_NAME["lr-times-3"], 0.3)
    fresh = believe(situation([failed]), EDITS)["norm-qk"]
    old = believe(situation([failed, other, other, other]), EDITS)["norm-qk"]
    assert fresh < old < 0.5


def test_peers_wins_are_followed() -> None:
    """A confirmed win of a peer is tried soon, with its evidence named and none of the peer's words."""
    here = situation(ideas=[idea("position-rotary")])
    made = [OfflineProposer(seed).choose(here) for seed in range(20)]
    followed = [one for one in made if one and one.inspired_by]
    assert 5 <= len(followed) <= 15, "about half, so that own ideas go on"
    assert followed[0].source == here.ideas[0].source and followed[0].inspired_by == (b"position-rotary",)
    assert followed[0].title == "a peer's confirmed win: position" and followed[0].edit == ""


def test_confirmed_before_claimed() -> None:
    """Of two wins of equal size the confirmed one is followed more often; a refuted one never."""
    ideas = [idea("position-rotary", "claimed"), idea("optimizer-muon"), idea("norm-rms", "refuted")]
    made = [OfflineProposer(seed).choose(situation(ideas=ideas)) for seed in range(60)]
    followed = [one.inspired_by[0].decode() for one in made if one and one.inspired_by]
    assert followed.count("optimizer-muon") > followed.count("position-rotary") > 0
    assert "norm-rms" not in followed


def test_ideas_that_cannot_be_tried_are_passed_over() -> None:
    """An idea that does not apply here, or was tried from another task, is never proposed."""
    there = idea("norm-rms", other_task="gpt-cpu/long")
    ideas = [replace(idea("optimizer-muon"), source=None), there]
    here = situation(ideas=ideas, tried=lambda source: source == there.source)
    assert not any(one.inspired_by for seed in range(30) if (one := OfflineProposer(seed).choose(here)))


class World:
    """A simulated task: each edit has a fixed effect, and tags say something about it, as in real research."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        good = {tag: chance.random() < 0.3 for edit in EDITS for tag in edit.tags}
        self.edits = FITTING
        self.effects: dict[str, float] = {}
        for edit in self.edits:
            share = sum(good[tag] for tag in edit.tags) / len(edit.tags)
            wins = chance.random() < 0.04 + 0.3 * share
            self.effects[edit.name] = chance.choice((0.03, 0.06, 0.15, 0.4)) if wins else -0.2 * chance.random()

    def experiments(self, target: float, pick: Callable[[Sequence[Trial], list[Edit]], Edit]) -> int:
        """How many experiments it takes to gain `target` in total, keeping what gains more than 0.02."""
        gained, trials, failed, used = 0.0, list[Trial](), set[str](), set[str]()
        while gained < target and len(trials) < 400:
            arms = [edit for edit in self.edits if edit.name not in failed | used]
            edit = pick(trials, arms)
            gain = self.effects[edit.name]
            trials.append(trial(edit, gain))
            failed.add(edit.name)
            if gain > 0.02:
                gained += gain
                used.add(edit.name)
                failed.clear()  # another base: what failed may be tried again
        return len(trials)


def test_the_bandit_beats_random_order() -> None:
    """Over 30 simulated tasks the bandit needs at most 85 % of the experiments that random order needs."""
    bandit, chance = list[int](), list[int]()
    for seed in range(30):
        world = World(seed)
        if sum(max(0.0, effect) for effect in world.effects.values()) < 1.2:
            continue
        dice = random.Random(seed)

        def learned(trials: Sequence[Trial], arms: list[Edit], dice: random.Random = dice) -> Edit:
            return order(situation(trials), arms, dice)[0]

        def blind(trials: Sequence[Trial], arms: list[Edit], dice: random.Random = dice) -> Edit:
            return dice.choice(arms)

        bandit += [world.experiments(1.0, learned) for _ in range(3)]
        chance += [world.experiments(1.0, blind) for _ in range(3)]
    assert len(bandit) > 60
    assert fmean(bandit) < 0.85 * fmean(chance), (fmean(bandit), fmean(chance))
