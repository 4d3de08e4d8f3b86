"""What a laboratory measures, how often, and the levels that it gives out: real runs, a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from swarm_node.node.laboratory import Laboratory, Measured
from swarm_node.protocols.diffs import EDITABLE
from swarm_node.protocols.errors import MachineError
from swarm_node.protocols.records import Result, sign_record
from swarm_node.protocols.task import program_digest
from swarm_node.trainer import decide, evidence
from swarm_node.trainer.cost import CHILD_SPREAD
from swarm_node.trainer.types import RunResult

from .conftest import CALM, KEY, STEPS, Site, promoted

T = TypeVar("T")


def use(site: Site, work: Callable[[Laboratory], Awaitable[T]]) -> T:
    """Something done by a node that was just started."""

    async def main(lab: Laboratory) -> T:
        return await work(lab)

    with site.opened() as lab:
        return asyncio.run(main(lab))


def unmeasured(site: Site, source: str) -> Measured:
    """A program of which nothing was measured."""
    with site.opened() as lab:
        return Measured(program_digest({EDITABLE: source}), source, lab.baseline.budget)


# ---- noise


def test_noise_is_measured_on_fresh_seeds_once(new_site: Site) -> None:
    """Two lanes that ask together, a third time and a restart cost two runs; more seeds cost what is missing."""
    first, second = use(new_site, lambda lab: asyncio.gather(*(lab.measure_noise(lab.baseline, 2) for _ in "ab")))
    assert first == second and first.n == 2 and first.sd > 0
    assert use(new_site, lambda lab: lab.measure_noise(lab.baseline, 2)) == first
    assert len(new_site.executor.runs) == 2
    assert use(new_site, lambda lab: lab.measure_noise(lab.baseline, 3)).n == 3
    assert len({spec.seed for spec in new_site.executor.runs}) == len(new_site.executor.runs) == 3


def test_a_seed_under_which_a_program_fails_is_replaced(new_site: Site) -> None:
    """The noise is of as many finished runs as were asked for."""
    with new_site.opened() as lab:
        first = lab.seed(lab.noise.key(b"p" * 32), "0")
    source = new_site.task.baseline.replace("def train(ctx):\n", f"def train(ctx):\n    assert ctx.seed != {first}\n")
    what = replace(unmeasured(new_site, source), program=b"p" * 32)
    assert use(new_site, lambda lab: lab.measure_noise(what, 2)).n == 2
    assert [spec.seed == first for spec in new_site.executor.runs] == [True, False, False]


def test_a_program_that_never_runs_here_is_the_machines_failure(new_site: Site) -> None:
    """After twice as many seeds as were wanted, with the program's own last words."""
    what = unmeasured(new_site, "print('no good here')\nraise SystemExit(3)\n")
    with pytest.raises(MachineError, match="does not run on this machine") as error:
        use(new_site, lambda lab: lab.measure_noise(what, 2))
    assert "SystemExit: 3" in error.value.why and "no good here" in error.value.fix
    assert len(new_site.executor.runs) == 4


def test_the_baselines_record_holds_its_runs(site: Site) -> None:
    """Mean and spread over five seeds, and the runs behind them; it fits the wire."""
    with site.opened() as lab:
        result, noise = lab.baseline_result("the plain baseline"), lab.noise.noise(site.task.spec.baseline)
    assert noise is not None and (result.score, result.noise) == (noise.mean, noise.sd)
    assert {(run.role, run.slice, run.steps) for run in result.runs} == {("noise", "screen", int(STEPS))}
    assert len({run.seed for run in result.runs}) == decide.PROMOTE_AFTER
    assert sign_record(KEY, epoch=0, seq=1, prev=None, time=0, body=result).body == result


# ---- budgets


@pytest.mark.long
def test_a_budget_is_measured_once_per_machine(new_site: Site) -> None:
    """A program whose steps cost about twice the baseline's gets about half the steps, also after a restart."""
    source = new_site.task.baseline.replace(
        "        opt.zero_grad()\n", "        loss.backward(retain_graph=True)\n" * 2
    )
    program = program_digest({EDITABLE: source})
    first = use(new_site, lambda lab: lab.measured(program, source, "twice"))
    assert isinstance(first, Measured) and 1.3 < first.budget.ratio < 4 and 0.005 < first.budget.error < 0.3
    assert first.budget.steps == decide.steps_for(int(STEPS), first.budget.ratio) < int(STEPS)
    assert use(new_site, lambda lab: lab.measured(program, source, "twice")) == first
    assert new_site.executor.measured == [(source, False)]


def test_the_baseline_has_the_tasks_budget(new_site: Site) -> None:
    """Nothing is measured for it."""
    spec = new_site.task.spec
    what = use(new_site, lambda lab: lab.measured(spec.baseline, new_site.task.baseline, ""))
    assert isinstance(what, Measured) and (what.budget.steps, what.budget.ratio) == (spec.steps, 1.0)
    assert new_site.executor.measured == []


def took(run: RunResult, *seconds: float) -> list[RunResult]:
    """Runs like this one that took so much CPU time."""
    return [replace(run, cpu_s=each) for each in seconds]


def test_only_what_this_machines_noise_cannot_explain_is_over_budget(site: Site) -> None:
    """A run alone is held against what runs took lately, of whatever program, and against its parent's while there are
    few; one of a pair against the other arm's. What was said once of a run stands."""
    site.weather(CALM)
    with site.opened() as lab:
        run, base = next(iter(lab.noise.results(site.task.spec.baseline).values())), lab.baseline
        other = replace(base, program=b"p" * 32)
        for seed in range(4):
            lab.noise.put(other.program, seed, took(run, 9 * run.cpu_s)[0])

        async def alone(step: str, times: float, parent: Measured = base) -> str:
            return await lab.too_slow("x-slow", step, took(run, times * run.cpu_s)[0], parent)

        async def judge() -> None:
            assert await alone("a", 1.4) == ""
            text = "took 60.0% more CPU time than its budget, where 50.0% may be this machine's noise"
            assert await alone("b", 1.6) == text
            assert await alone("c", 9.1, other) == ""
            for times in (8, 8, 8):  # the machine slows down
                lab.took(took(run, times * run.cpu_s)[0])
            assert await alone("d", 8.1) == "" != await alone("e", 13)
            assert await alone("b", 1.6) == text

        asyncio.run(judge())
        assert lab.over_budget(base, took(run, 9.0, 8.0), base, took(run, 9.0, 8.0)) == ""
        assert lab.over_budget(base, took(run, 9.0, 9.0), base, took(run, 8.0, 8.0)) != ""


def test_what_the_first_pairs_cost_corrects_a_budget_once(site: Site) -> None:
    """Either way, by how much more or less CPU time the runs took than those beside them; noise corrects nothing; what
    was decided stands, and is the program's budget when it is kept: nothing corrects that."""
    site.weather(CALM)
    source = site.task.baseline + "\nUNUSED = 1\n"
    site.know_cost(source, ratio=1.25)

    async def correct(lab: Laboratory, experiment: str, *seconds: float, what: Measured | None = None) -> Measured:
        known = what or await lab.measured(b"p" * 32, source, "")
        assert isinstance(known, Measured)
        run = next(iter(lab.noise.results(site.task.spec.baseline).values()))
        return await lab.fair(experiment, known, took(run, *seconds), lab.baseline, took(run, 2.0, 2.0))

    with site.opened() as lab:
        before = asyncio.run(correct(lab, "x-fair", 2.0, 2.1))
        assert before.budget.ratio == 1.25 and lab.decided("x-fair", before) == before
        found = asyncio.run(correct(lab, "x-less", 1.6, 1.6))
        assert found.budget.ratio == pytest.approx(0.8 * int(STEPS) / 8) and found.budget.steps == int(STEPS)
        assert found.budget.error == pytest.approx(CHILD_SPREAD) and lab.decided("x-less", before) == found
        assert asyncio.run(correct(lab, "x-more", 3.0, 3.0)).budget.steps < before.budget.steps
        assert asyncio.run(lab.measured(b"p" * 32, source, "")) == before and lab.decided("x-other", before) is None
        asyncio.run(lab.keep(found))
        assert asyncio.run(lab.measured(b"p" * 32, source, "")) == found
        assert asyncio.run(correct(lab, "x-kept", 3.0, 3.0)) == found
        assert asyncio.run(correct(lab, "x-base", 3.0, 3.0, what=lab.baseline)) == lab.baseline


# ---- levels


def earlier(site: Site, number: int, outcome: str = "discarded", **fields: Any) -> Result:
    """A record of an earlier experiment."""
    return promoted(site.task, outcome, bytes([number]) * 32, site.task.spec.baseline, **fields)


def levels(site: Site, *experiments: str) -> list[float]:
    """The levels of experiments that are promoted at the same time."""
    return use(site, lambda lab: asyncio.gather(*(lab.level(experiment) for experiment in experiments)))


def series(*places: tuple[int, int]) -> list[float]:
    """The levels after so many tested hypotheses with so many discoveries."""
    return [evidence.level(decide.ALPHA, tested, found) for tested, found in places]


def test_promotions_at_the_same_time_get_different_places(new_site: Site) -> None:
    """No level is given out twice, and together they stay below the share of luck that was promised."""
    given = levels(new_site, *"abcd")
    assert sorted(given, reverse=True) == series((0, 0), (1, 0), (2, 0), (3, 0))
    assert sum(given) < decide.ALPHA


def test_a_level_survives_a_restart(new_site: Site) -> None:
    """What was promised to an experiment stays; the next one gets the next place, and more after a discovery."""
    first = levels(new_site, "a")
    new_site.record(earlier(new_site, 1, "kept"))
    assert levels(new_site, "a") == first == series((0, 0))
    assert levels(new_site, "b") == series((1, 1))


def test_a_lost_journal_falls_back_on_the_own_records(new_site: Site) -> None:
    """Records that came back from peers tell how many were tested and found; unconfirmed ones and peers' do not."""
    own = earlier(new_site, 1, "kept"), earlier(new_site, 2), earlier(new_site, 3, evidence=None)
    new_site.record(*own)
    new_site.record(earlier(new_site, 4, "kept"), earlier(new_site, 5), key=b"p" * 32)
    assert levels(new_site, "a") == series((2, 1))


def test_places_after_a_lost_journal_differ_too(new_site: Site) -> None:
    """Two lanes promote at once on a node that has its records and no journal."""
    new_site.record(earlier(new_site, 1), earlier(new_site, 2))
    assert sorted(levels(new_site, "a", "b"), reverse=True) == series((2, 0), (3, 0))


# ---- runs


def test_seeds_are_reproducible_and_differ_by_purpose_and_node(new_site: Site) -> None:
    """Same experiment and purpose, same seed; 31 bits."""
    with new_site.opened() as lab, new_site.opened() as again:
        seeds = {lab.seed(experiment, label) for experiment in ("x", "y") for label in ("screen", "text-0")}
        assert len(seeds) == 4 and all(0 <= seed < 2**31 for seed in seeds)
        assert again.seed("x", "screen") in seeds
        again.frontier.own = b"o" * 32
        assert again.seed("x", "screen") not in seeds
