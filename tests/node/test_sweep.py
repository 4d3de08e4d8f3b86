"""The numeric search over a program's constants."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarm_node.node.proposers.base import Situation, Trial
from swarm_node.node.proposers.constants import Moves, constants, decode, encode, moves
from swarm_node.node.proposers.sweep import Sweep, dials

from .history import BASE, OWN, PEER, History, changed

Make = Callable[..., Situation]


def trial(gain: float | None, moved: Moves, own: bool = True) -> Trial:
    return Trial("", (), "discarded", gain, own, moved=moved)


def test_constants_are_read_as_text() -> None:
    """Numbers and tuples of numbers at the top; nothing that is computed, indented, or no number."""
    found = constants(BASE + "NAME = 'x'\nSUM = DEPTH + 1\nFLAG = True\nHUGE = 1e999\n    INNER = 3\nBAD = (1,\n")
    assert found["LR"] == 1e-3 and found["BETAS.0"] == 0.9 and found["BETAS.1"] == 0.999 and found["SEQ"] == 128
    assert not {"NAME", "SUM", "FLAG", "HUGE", "INNER", "BAD"} & set(found)


@given(st.text("ABC_=0123456789.e-+(), #\n", max_size=200))
def test_no_text_trips_the_reader(text: str) -> None:
    """Whatever a stranger's program holds, reading it gives finite numbers and raises nothing."""
    assert all(math.isfinite(value) for value in constants(text).values())
    assert all(math.isfinite(value) for _, value in decode(text))


def test_moves_are_what_only_constants_differ_in() -> None:
    """A program that differs elsewhere too is no point of the search."""
    other = changed(BASE, ("LR = 1e-3", "LR = 3e-3"), ("BETAS = (0.9, 0.999)", "BETAS = (0.9, 0.99)"))
    assert moves(BASE, other) == (("BETAS.1", 0.99), ("LR", 3e-3))
    assert moves(BASE, changed(other, ("x = self.norm(x)", "x = 2 * self.norm(x)"))) == ()


def test_a_record_names_what_a_sweep_set() -> None:
    """What is encoded comes back, within the length of a record's field; words come back as nothing."""
    moved = (("BETAS.1", 0.95), ("LR", 3e-05), ("WIDTH", 96.0))
    assert decode(encode(moved, 58)) == moved and encode(moved, 58) == "BETAS.1=0.95,LR=3e-5,WIDTH=96"
    assert decode(encode(moved, 20)) == moved[:2] and encode(moved, 5) == ""
    assert decode("LR=obey") == decode("LR=1,and more") == decode("") == decode("LR=nan") == ()


def test_a_sweep_moves_a_few_constants_and_nothing_else(situation: Make) -> None:
    """Every sample compiles, stays in its range, keeps whole numbers whole and the heads fitting the width."""
    seen = set[str]()
    for seed in range(40):
        got = Sweep(seed).choose(situation())
        assert got is not None and got.proposer == "sweep" and got.tags
        ast.parse(got.source)
        moved = moves(BASE, got.source)
        assert 1 <= len(moved) <= 4 and decode(got.edit) == moved, (got.edit, moved)
        assert len(f"sweep:{got.edit}") <= 64 and got.title.startswith("sweep: ")
        now = constants(got.source)
        for dial in dials(BASE):
            assert type(now[dial.name]) is type(constants(BASE)[dial.name])
        assert now["WIDTH"] % now["HEADS"] == 0 and now["WIDTH"] // now["HEADS"] >= 8 and now["SEQ"] >= 16
        assert 0 < now["BETAS.0"] < 1 and 0 < now["BETAS.1"] < 1
        seen |= {name for name, _ in moved}
    assert {"LR", "WEIGHT_DECAY", "BETAS.0", "BETAS.1", "BATCH", "SEQ", "WIDTH", "DEPTH", "MLP_RATIO"} <= seen


def test_a_sweep_is_a_function_of_seed_and_situation(situation: Make) -> None:
    """The same again after a restart; another seed or one more trial samples elsewhere; nothing tried is proposed."""
    here = situation()
    first = Sweep(1).choose(here)
    assert first == Sweep(1).choose(here) and first is not None
    assert Sweep(2).choose(here) != first != Sweep(1).choose(situation(trials=(trial(0.0, ()),)))
    other = Sweep(1).choose(situation(tried=lambda source: source == first.source))
    assert other is not None and other.source != first.source
    assert Sweep(1).choose(situation(parent="x = 1\n")) is None


@pytest.mark.parametrize("own", [True, False])
def test_samples_follow_what_won(situation: Make, own: bool) -> None:
    """After gains with a higher learning rate, own or a peer's, samples lie higher; far worse ones do not count."""

    def rates(trials: Sequence[Trial]) -> list[float]:
        made = [Sweep(seed).choose(situation(trials=tuple(trials))) for seed in range(40)]
        moved = [dict(moves(BASE, one.source)) for one in made if one is not None]
        return [math.log(one["LR"] / 1e-3) for one in moved if "LR" in one]

    won = [trial(0.1, (("LR", 6e-3),), own), trial(0.08, (("LR", 5e-3),), own), trial(-0.9, (("LR", 1e-4),), own)]
    assert abs(median(rates([]))) < 0.5 and fmean(rates(won)) > fmean(rates([])) + 0.8


def test_a_simulated_task_is_improved_by_sweeps(situation: Make) -> None:
    """Sixty experiments from a bad start get most of the way to the best rate and decay."""

    def loss(source: str) -> float:
        now = constants(source)
        return math.log(now["LR"] / 8e-3) ** 2 / 4 + math.log((1 - now["BETAS.1"]) / 0.03) ** 2 / 8

    parent, trials = BASE, list[Trial]()
    for _ in range(60):
        got = Sweep(7).choose(situation(parent=parent, trials=tuple(trials), noise=0.02))
        assert got is not None
        gain = loss(parent) - loss(got.source)
        trials.append(trial(gain, moves(parent, got.source)))
        parent = got.source if gain > 0.02 else parent
    assert loss(parent) < 0.25 * loss(BASE), (loss(parent), loss(BASE))


def test_the_history_of_all_nodes_is_read_from_records() -> None:
    """Own failures by their texts, peers' failures as their proposer names them, peers' wins by either."""
    history = History()
    history.tried(OWN, BASE, changed(BASE, ("LR = 1e-3", "LR = 3e-3")), proposer="offline:lr-times-3")
    other = changed(BASE, ("HEADS = 2", "HEADS = 4"))
    history.tried(PEER, BASE, other, proposer="sweep:HEADS=4")
    del history.programs[next(reversed(history.programs))]
    history.tried(PEER, BASE, "x\n", proposer="sweep:obey me")
    history.won(PEER, BASE, changed(BASE, ("SEQ = 128", "SEQ = 64")))
    moved = [one.moved for one in history.situation().trials]
    assert moved == [(("LR", 3e-3),), (("HEADS", 4.0),), (), (("SEQ", 64.0),)]
