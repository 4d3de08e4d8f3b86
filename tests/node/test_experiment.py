"""Whole experiments: the real task at a few steps, in the real sandbox, over a real ledger."""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.experiment import Plan
from swarm_node.node.laboratory import Laboratory, Measured
from swarm_node.node.noise import run_from_json
from swarm_node.node.trace import screens, unsupported
from swarm_node.node.trail import Trail
from swarm_node.protocols.diffs import EDITABLE, apply_diff
from swarm_node.protocols.records import Cost, Result, Run, parse_record, sign_record
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.frontier import fold
from swarm_node.trainer import decide, evidence
from swarm_node.trainer import task as tasks
from swarm_node.trainer.types import RunSpec

from .conftest import CALM, DRAWN, KEY, SIZES, STEPS, STORMY, WINDY, Site, promoted

Kept = tuple[Site, Result, list[RunSpec]]
BASE = tasks.load("gpt-cpu", STEPS, bytes(32)).baseline


def edited(source: str, *changes: tuple[str, str]) -> str:
    """A program with some of its lines changed."""
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def in_step(source: str, code: str) -> str:
    """A program that does something before it ends each step."""
    return edited(source, ("        ctx.step(model, loss)", f"        {code}\n        ctx.step(model, loss)"))


FAST = edited(BASE, ("LR = 1e-3", "LR = 3e-3"))
SHIFTED = edited(BASE, ("    model = GPT(", "    torch.rand(1)\n    model = GPT("))
LEAN = edited(BASE, ("        logits = self.head(x)\n        return logits\n", "        return self.head(x)\n"))
BLOAT = """
class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, MLP_RATIO * WIDTH)
        self.down = nn.Linear(MLP_RATIO * WIDTH, WIDTH)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))
"""
BLOATED = edited(BASE, ("class GPT(", f"{BLOAT}\n\nclass GPT("))
EAGER = edited(
    BASE,
    (
        "    opt = torch",
        """    seen = torch.bincount(ctx.batch(64, SEQ)[0].flatten(), minlength=256)
    with torch.no_grad():
        model.head.bias += (seen + 0.1).log()
    opt = torch""",
    ),
)  # scores 4 after any number of steps
PEEKING = edited(
    BASE,
    (
        "def train(",
        "def peek(model):\n    return lambda x: model(x) + 9 * F.one_hot(x.roll(-1, 1), 256)\n\n\ndef train(",
    ),
    ("    return model\n", "    return peek(model)\n"),
)
UNREPEATABLE = edited(
    FAST,
    ("    model = GPT(", "    import os\n\n    torch.manual_seed(int.from_bytes(os.urandom(4)))\n    model = GPT("),
)


def lucky(site: Site, name: str, source: str) -> str:
    """A program that is good under the seed of its screening run alone."""
    return edited(source, ("lr=LR", f"lr=3e-3 if ctx.seed == {site.seed(name, 'screen')} else LR"))


def untimed(result: Result) -> dict[str, Any]:
    """A result without the CPU time that it took."""
    fields = result.model_dump(exclude={"cost"})
    return fields | {"runs": [run.model_dump(exclude={"seconds"}) for run in result.runs]}


def finished(site: Site, source: str, parent: str, aim: str = "gain") -> Result:
    """What the node's log says of a program that was kept."""
    program, before = (program_digest({EDITABLE: text}) for text in (source, parent))
    return promoted(site.task, "kept", program, before, aim=aim)


@pytest.fixture(scope="module")
def kept(measured: Site, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """An experiment that certainly helps: the node that conducted it, its result, and the runs that it took."""
    site = measured.copy(tmp_path_factory.mktemp("kept") / "ledger")
    site.weather(STORMY)  # what else this machine does now decides nothing
    site.know_cost(FAST)
    site.executor.forget()
    return site, site.conduct(site.plan("gain", FAST)), [*site.executor.runs]  # tests of other files use it, too


@pytest.fixture(scope="module")
def bloated(measured: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A node that has measured the noise of a program with useless code in it, and would give up a bit for less."""
    site = measured.copy(tmp_path_factory.mktemp("bloated") / "ledger")
    site.know_cost(BLOATED)
    site.task = replace(site.task, worthwhile=1.0)

    async def measure(lab: Laboratory) -> None:
        parent = await lab.measured(site.plan("any", BLOATED).program, BLOATED, "")
        assert isinstance(parent, Measured)
        await lab.measure_noise(parent, decide.PROMOTE_AFTER)

    with site.opened() as lab:
        asyncio.run(measure(lab))
    return site


@pytest.fixture
def simpler(bloated: Site, tmp_path: Path) -> Site:
    """A copy of it."""
    bloated.executor.forget()
    return bloated.copy(tmp_path / "simpler")


# ---- a gain


def test_a_clear_gain_is_kept_with_its_evidence(kept: Kept) -> None:
    """Pairs until the evidence passes the level, an audit, and a diff that makes the program from its parent."""
    site, result, _ = kept
    assert (result.outcome, result.aim, result.anchor, result.cause) == ("kept", "gain", None, "")
    assert result.diff is not None and apply_diff(BASE, result.diff) == FAST
    found = result.evidence
    assert found is not None and found.audit is not None and result.gain is not None and result.score is not None
    assert found.level == evidence.level(decide.ALPHA, 0, 0) and found.e_value >= 1 / found.level
    assert site.task.worthwhile < found.required < found.low < result.gain < found.high
    assert found.audit.positions == DRAWN // 128 and abs(found.audit.worst) < 1e-4
    pairs = [of_pairs(result, arm) for arm in ("candidate", "parent")]
    assert len(pairs[0]) == len(pairs[1]) == found.pairs
    gains = [theirs.score - mine.score for mine, theirs in zip(*pairs, strict=True)]
    assert found.e_value == evidence.e_value([gain - found.required for gain in gains])
    assert result.gain == pytest.approx(statistics.fmean(gains)) and unsupported(result, site.task.spec) == ""
    assert result.gain_error == pytest.approx(statistics.stdev(gains) / len(gains) ** 0.5)


def of_pairs(result: Result, arm: str) -> list[Run]:
    """The runs of an arm, on the text that was drawn for each pair."""
    return [run for run in result.runs if run.role == "confirm" and run.arm == arm and run.draw is not None]


def test_runs_are_recorded_so_that_others_can_repeat_them(kept: Kept) -> None:
    """Fresh seeds everywhere, one text per pair, steps by budget, first losses and digests; and what the score is the
    mean of."""
    site, result, specs = kept
    first = result.runs[0]
    assert (first.arm, first.role, first.slice, first.draw) == ("candidate", "screen", "screen", None)
    mine, theirs = (of_pairs(result, arm) for arm in ("candidate", "parent"))
    runs, shared = (first, *mine, *theirs), screens(result)
    assert {*runs, *shared} == {*result.runs} and [run.seed for run in shared] == [run.seed for run in mine]
    assert result.score == statistics.fmean(run.score or 0.0 for run in shared)
    assert [run.draw for run in mine] == [run.draw for run in theirs] and len({run.draw for run in mine}) == len(mine)
    with site.opened() as lab:
        noise = lab.noise.results(site.task.spec.baseline)
    seeds = [run.seed for run in runs]
    assert len({*seeds, *noise}) == len(seeds) + decide.PROMOTE_AFTER
    assert {run.steps for run in (first, *mine)} == {result.steps} == {int(STEPS)}
    assert {run.steps for run in theirs} == {int(STEPS)} and result.cost_ratio == 1.0
    assert all(len(run.losses) == 10 and run.seconds > 0 for run in runs)
    assert len({run.digest for run in runs if len(run.digest) == 32}) == len(runs)
    *shown, audit = specs
    assert sorted(seeds) == sorted(spec.seed for spec in shown)
    again = next(spec for spec in shown if spec.seed == audit.seed)
    assert audit.audit is not None and again.audit is not None
    assert audit == replace(again, audit=replace(again.audit, truncated=True)) and audit.source == FAST


def test_the_score_shown_is_not_the_lucky_one_of_the_screening(kept: Kept) -> None:
    """It is the mean over the confirmation runs, on the slice that every program is scored on."""
    site, result, _ = kept
    assert result.evidence is not None
    runs = [run_from_json(site.journal("gain")[f"candidate-{pair}"]) for pair in range(result.evidence.pairs)]
    assert result.score == statistics.fmean(run.scores["screen"] for run in runs) != result.runs[0].score


def test_the_record_fits_the_wire_and_moves_the_frontier(kept: Kept) -> None:
    """Signed, parsed, and folded: the program is the own best, and the anchor of simplifications to come."""
    site, result, _ = kept
    record = sign_record(KEY, epoch=0, seq=1, prev=None, time=0, body=result)
    assert parse_record(record.to_bytes(), now_ms=0) == record
    spec = site.task.spec
    frontier = fold([record], record.author, spec.id, spec.baseline)
    assert (
        frontier.best_program
        == program_digest({EDITABLE: FAST})
        == frontier.anchor_of(frontier.best_program, frontier.own)
    )
    assert (frontier.own_promoted, frontier.own_kept) == (1, 1)


def test_a_plan_is_the_same_after_the_journal(site: Site) -> None:
    """Every field, the inspiration and the cost included."""
    plan = site.plan("plan", FAST)
    hypothesis = replace(
        plan.hypothesis, inspired_by=(b"i" * 32,), tags=("optimizer",), cost=Cost(tokens_in=3), edit="lr"
    )
    plan = replace(plan, hypothesis=hypothesis)
    assert Plan.from_json(plan.id, plan.to_json()) == plan


# ---- no gain


def test_what_does_not_help_costs_one_run(site: Site) -> None:
    """A shifted stream of random numbers is no gain of a standard deviation: discarded after its screening."""
    site.know_cost(SHIFTED)
    result = site.conduct(site.plan("null", SHIFTED))
    assert (result.outcome, result.cause, result.evidence, result.diff) == ("discarded", "", None, None)
    assert [run.role for run in result.runs] == ["screen"] and len(site.executor.runs) == 1 and not site.told
    assert result.gain is not None and result.noise is not None and result.gain < result.noise
    assert result.parent_score == pytest.approx(result.score + result.gain)


def test_a_small_gain_waits_for_others(site: Site) -> None:
    """Two or three standard deviations are a promise that pairs of its own could hardly prove: none are run."""
    source = edited(BASE, ("LR = 1e-3", "LR = 1.2e-3"))
    site.know_cost(source)
    result = site.conduct(site.plan("small", source))
    assert result.is_waiting and result.cause.endswith("σ in one run: to be confirmed with others")
    assert result.diff is not None and apply_diff(BASE, result.diff) == source, "for peers, who may confirm it"
    assert result.gain is not None and result.noise is not None and 1 < result.gain / result.noise < decide.WAIT_SIGMAS
    assert [run.role for run in result.runs] == ["screen"] and not site.told
    adopted = site.plan("small", source)
    adopted = replace(adopted, hypothesis=replace(adopted.hypothesis, inspired_by=(b"w" * 32,)))
    result = site.conduct(adopted)
    assert result.evidence is not None, "what a peer claims is looked at by itself"


def test_a_clear_loss_waits_for_no_more_seeds_of_the_parent(new_site: Site) -> None:
    """Two of them and the screening: the first verdict of a new node."""
    source = edited(BASE, ("    return model\n", "    return GPT(ctx.vocab_size)\n"))
    with new_site.opened() as lab:
        asyncio.run(lab.measure_noise(lab.baseline, decide.SCREEN_AFTER))
    new_site.weather((STORMY[0], STORMY[-1]))
    new_site.know_cost(source)
    result = new_site.conduct(new_site.plan("lost", source))
    assert (result.outcome, result.cause) == ("discarded", "")
    assert [spec.source == source for spec in new_site.executor.runs] == [False, False, True] and not new_site.told
    assert result.gain is not None and result.gain < -decide.LOST_WORTHWHILE * new_site.task.worthwhile
    assert result.parent_score == pytest.approx(result.score + result.gain)


def test_seeds_of_the_parent_that_could_not_change_the_verdict_are_not_waited_for(new_site: Site) -> None:
    """They come one by one, each with a look whether the others still matter."""
    with new_site.opened() as lab:
        asyncio.run(lab.measure_noise(lab.baseline, decide.SCREEN_AFTER))
    new_site.weather((STORMY[0], STORMY[-1]))
    new_site.know_cost(SHIFTED)
    result = new_site.conduct(new_site.plan("null", SHIFTED))
    assert (result.outcome, result.cause, result.evidence) == ("discarded", "", None)
    with new_site.opened() as lab:
        scores = [run.scores["screen"] for run in lab.noise.results(lab.task.spec.baseline).values()]
    assert result.score is not None and decide.SCREEN_AFTER < len(scores) < decide.PROMOTE_AFTER
    *looks, last = [decide.noise_of(scores[:count]) for count in range(decide.SCREEN_AFTER, len(scores) + 1)]
    lost = [decide.is_lost(noise.mean - result.score, noise, new_site.task.worthwhile) for noise in looks if noise]
    assert not any(lost) and last is not None
    assert (result.parent_score, result.noise) == (pytest.approx(last.mean), pytest.approx(last.sd))
    assert decide.is_lost(last.mean - result.score, last, new_site.task.worthwhile)
    assert [(*what, noise.n) for *what, noise in new_site.told] == [("screened", result.score, decide.SCREEN_AFTER)]


def test_less_code_is_judged_by_all_seeds_of_the_parent(new_site: Site) -> None:
    """It may lose what five seeds call noise, which two of them can take for a clear loss."""
    source = edited(LEAN, ("    return model\n", "    return GPT(ctx.vocab_size)\n"))
    with new_site.opened() as lab:
        asyncio.run(lab.measure_noise(lab.baseline, decide.SCREEN_AFTER))
    new_site.weather((STORMY[0], STORMY[-1]))
    new_site.know_cost(BLOATED, source)
    result = new_site.conduct(new_site.plan("less", source, BLOATED))
    assert (result.outcome, result.cause) == ("discarded", "")
    assert sum(spec.source == BLOATED for spec in new_site.executor.runs) == decide.PROMOTE_AFTER
    assert [(*what, noise.n) for *what, noise in new_site.told] == [("screened", result.score, decide.SCREEN_AFTER)]


def test_what_decides_has_a_budget_measured_anew(site: Site) -> None:
    """The screening has the steps of a rough one, the pairs those of a better one, also after a restart."""
    site.weather(STORMY)
    site.know_cost(FAST, ratio=1.25, how="rough")
    plan = site.plan("rough", FAST)
    site.interrupt(plan, at=2)
    result = site.conduct(plan)
    assert site.executor.measured == [], "it was, before the restart"
    screen, *pairs = [run.steps for run in result.runs if run.arm == "candidate"]
    assert screen == decide.steps_for(int(STEPS), 1.25) < result.steps and set(pairs) == {result.steps}
    assert result.cost_ratio is not None and 0.7 < result.cost_ratio < 1.2


def test_a_promotion_is_told(kept: Kept) -> None:
    """Before the pairs: who looks on has a first number minutes before the verdict."""
    site, result, _ = kept
    said = [(*what, noise.n) for *what, noise in site.told]
    assert said == [("promoted", result.runs[0].score, decide.PROMOTE_AFTER)]


@pytest.fixture(scope="module")
def luck(measured: Site, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What becomes of a program that shines under the seed of its screening alone."""
    site = measured.copy(tmp_path_factory.mktemp("luck") / "ledger")
    source = lucky(site, "luck", BASE)
    site.know_cost(source)
    return site.conduct(site.plan("luck", source))


def test_luck_in_the_screening_is_not_counted_again(luck: Result) -> None:
    """It is promoted, and two pairs of fresh runs are the end of it."""
    assert luck.outcome == "discarded" and luck.cause.startswith("gain ")
    assert luck.evidence is not None and luck.evidence.pairs == 2 and luck.evidence.audit is None
    assert luck.parent_score - luck.runs[0].score > 1.5 > 0.5 > abs(luck.gain)
    assert luck.score == pytest.approx(luck.parent_score, abs=0.3)


def test_text_in_the_edit_raises_what_is_required(site: Site, luck: Result) -> None:
    """3,000 bytes that cannot be compressed could hold 3,000 bytes of the pool: so much more must be gained."""
    known = (f'KNOWN_{n} = "{random.Random(n).randbytes(375).hex()}"\n' for n in range(8))
    source = lucky(site, "luck", BASE + "".join(known))
    site.know_cost(source)
    result = site.conduct(site.plan("luck", source))
    assert result.evidence is not None and luck.evidence is not None and result.gain == luck.gain
    more = result.evidence.required - luck.evidence.required
    assert 8 * 3000 / SIZES["confirm"] <= more < 8 * 3700 / SIZES["confirm"]


# ---- crashes


def test_a_program_that_does_not_start_is_a_crash(site: Site) -> None:
    """It fails where its cost is measured, and is never run."""
    result = site.conduct(site.plan("start", "raise RuntimeError('no such luck')\n" + BASE))
    assert (result.outcome, result.cause) == ("crashed", "RuntimeError: no such luck (train.py, line 1)")
    assert result.runs == () and site.executor.runs == []
    assert run_from_json(site.journal("start")["calibration"]).status == "crashed"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (in_step(BASE, "assert step < 5, 'halfway'"), "AssertionError: halfway (train.py, line"),
        (edited(BASE, ("    return model\n", "    return lambda ids: model(ids) / 0\n")), "the logits are not finite"),
    ],
    ids=["in training", "in the evaluation"],
)
def test_a_program_that_fails_later_is_a_crash(site: Site, source: str, cause: str) -> None:
    """The run that shows it is in the record, without a score."""
    site.know_cost(source)
    result = site.conduct(site.plan("later", source))
    assert result.outcome == "crashed" and result.cause.startswith(cause)
    (run,) = result.runs
    assert run.score is None and run.digest == b"" and len(run.losses) >= 4
    assert "Error" in run_from_json(site.journal("later")["screen"]).log_tail or "finite" in cause


def test_a_failure_in_confirmation_is_a_crash(new_site: Site) -> None:
    """A candidate that runs under one seed only is no win, and five seeds of its parent came before it was promoted."""
    site = new_site
    good = site.seed("fragile", "screen")
    source = in_step(EAGER, f"assert ctx.seed == {good}, 'another seed'")
    site.know_cost(source, ratio=4.0)  # far below the budget, however busy this machine is
    result = site.conduct(site.plan("fragile", source))
    assert result.outcome == "crashed"
    assert result.cause.startswith("confirmation run of the candidate: AssertionError: another seed")
    assert [(run.arm, run.score is None) for run in result.runs] == [
        ("candidate", False), ("candidate", True), ("parent", False)
    ]  # fmt: skip
    order = ["candidate" if spec.source == source else "parent" for spec in site.executor.runs]
    assert order[:6] == ["parent", "parent", "candidate", "parent", "parent", "parent"] and len(order) == 8


# ---- compute


SLOW_LATER = "for _ in range(14 * (step >= 4 and ctx.steps < 100)):\n            model(x)"
LATE = in_step(EAGER, SLOW_LATER)
AT_THE_END = in_step(EAGER, "for _ in range(60 * (step == ctx.steps - 1)):\n            model(x)")
LAZY = edited(
    BASE,
    (
        "    return model\n",
        """    rest = [ctx.batch(BATCH, SEQ) for _ in range(40)]

    def answer(ids):
        with torch.enable_grad():
            while rest:
                x, y = rest.pop()
                F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
                opt.step()
                opt.zero_grad(set_to_none=True)
        return model(ids)

    return answer
""",
    ),
)
UNWATCHED = edited(
    BASE,
    (
        "        opt.step()\n",
        """        opt.step()
        for _ in range(0 if ctx._gated else 3):
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
            opt.step()
""",
    ),
)


def screened_twice(result: Result) -> tuple[Run, Run]:
    """The screening that took too long, and the one after it."""
    first, second, *rest = result.runs
    assert first.role == second.role == "screen" and all(run.role == "confirm" for run in rest)
    assert result.steps == second.steps < first.steps and first.seed != second.seed
    return first, second


@pytest.mark.long
def test_a_program_that_gets_slow_is_judged_by_the_steps_that_it_can_afford(site: Site) -> None:
    """Its first steps promised more than the whole run held: one more screening with fewer; and with what the first two
    pairs cost, these once more."""
    site.weather(WINDY)
    allowed = baseline_step(site)
    result = site.conduct(site.plan("slow", LATE))
    first, second, *pairs = result.runs
    assert first.role == second.role == "screen" and {run.role for run in pairs} == {"confirm"}
    assert first.score is not None and first.seed != second.seed
    assert second.steps == decide.steps_for(int(STEPS), first.seconds / first.steps / allowed) < first.steps
    assert site.executor.measured == [(LATE, True), (LATE, False)]
    assert result.outcome == "kept" and result.evidence is not None
    assert result.steps == decide.steps_for(int(STEPS), result.cost_ratio or 0.0) < first.steps
    assert {run.steps for run in pairs if run.arm == "candidate"} == {result.steps}
    assert len(site.executor.runs) == 2 + decide.FIRST_LOOK + 2 * result.evidence.pairs + 1


def test_a_budget_that_was_too_small_is_made_up_for_before_pairs_decide(site: Site, tmp_path: Path) -> None:
    """Two pairs show that steps take half of what was measured: the candidate's runs are made anew with as many as it
    may have, the parent's are not; after a restart as without one."""
    site.weather(WINDY)
    site.know_cost(FAST, ratio=2.0)
    plan, stopped = site.plan("short", FAST), site.copy(tmp_path / "stopped")
    result = site.conduct(plan)
    assert result.outcome == "kept" and result.evidence is not None and unsupported(result, site.task.spec) == ""
    assert int(STEPS) / 2 < result.steps == decide.steps_for(int(STEPS), result.cost_ratio or 0.0)
    assert {run.steps for run in of_pairs(result, "candidate")} == {result.steps}
    made = 1 + decide.FIRST_LOOK + 2 * result.evidence.pairs + 1
    assert len(site.executor.runs) == made
    specs = [spec.steps for spec in site.executor.runs if spec.source == FAST]
    assert specs[: 1 + decide.FIRST_LOOK] == [5] * (1 + decide.FIRST_LOOK) and 5 not in specs[1 + decide.FIRST_LOOK :]
    site.executor.forget()
    stopped.interrupt(plan, at=7)  # five were made with the budget that was too small, and one with the right one
    again = stopped.conduct(plan)
    assert again.outcome == "kept" and again.evidence is not None
    assert len(site.executor.runs) == 1 + decide.FIRST_LOOK + 2 * again.evidence.pairs + 1 - 6
    for one, where in ((result, site), (again, stopped)):  # what was made in vain is counted, and nothing twice
        runs = [run_from_json(text) for text in where.journal("short").values() if '"eval_cpu_s"' in text]
        assert len(runs) == made and one.cost.seconds == pytest.approx(sum(run.cpu_s + run.eval_cpu_s for run in runs))


def test_a_pair_that_the_journal_has_with_other_steps_is_run_again(site: Site) -> None:
    """A run is reported with the steps that it took: else whoever repeats it finds another model, and calls it made
    up."""

    async def pairs(lab: Laboratory) -> None:
        trail, base = Trail(lab, "x-steps", ""), lab.baseline
        await trail.pair(base, base, 0)
        fewer = replace(base, budget=replace(base.budget, steps=base.budget.steps - 1))
        mine, _ = await trail.pair(fewer, base, 0)
        assert mine.steps_done == base.budget.steps - 1
        told = [(run.arm, run.steps) for run in trail.runs[3:] if run.draw is not None]
        assert sorted(told) == [("candidate", int(STEPS) - 1), ("parent", int(STEPS))]

    with site.opened() as lab:
        asyncio.run(pairs(lab))
    assert len(site.executor.runs) == 3


def test_a_program_that_fewer_steps_do_not_make_affordable_is_over_budget(site: Site) -> None:
    """There is one repeat and no more; the cause says what it took."""
    site.weather(CALM)
    site.know_cost(AT_THE_END)
    result = site.conduct(site.plan("end", AT_THE_END))
    _, second = screened_twice(result)
    excess = second.seconds / (baseline_step(site) * int(STEPS)) - 1
    noise = f"more CPU time than its budget, where {decide.APART_TOLERANCE:.1%} may be this machine's noise"
    assert (result.outcome, result.cause) == ("discarded", f"took {excess:.1%} {noise}")
    assert len(result.runs) == len(site.executor.runs) == 2 and result.score is None


def test_who_trains_on_while_it_answers_has_trained(site: Site) -> None:
    """Its second instance does the same, so that no audit sees it, and whoever re-ran it would find the gain too. It
    gets the fewest steps that there are, which do not make it affordable."""
    site.weather(CALM)
    site.know_cost(LAZY)
    result = site.conduct(site.plan("lazy", LAZY))
    assert (result.outcome, result.steps) == ("discarded", 1) and result.gain > 0.5
    assert result.evidence is not None and result.evidence.audit is None and result.evidence.required > result.gain


@pytest.mark.long
def test_work_hidden_from_the_measurement_of_costs_buys_nothing(site: Site) -> None:
    """Four optimizer steps for one, when nobody measures, are paid with the number of steps."""
    site.weather(CALM)
    result = site.conduct(site.plan("unwatched", UNWATCHED))
    first, second = screened_twice(result)
    assert first.score < result.parent_score - 1 and second.steps <= first.steps / 2
    assert result.outcome == "discarded" and result.evidence is None


@pytest.mark.long
def test_work_hidden_from_the_screening_is_over_budget(site: Site) -> None:
    """A program that takes long in its last step wins its pairs, which fewer steps do not make affordable, and is not
    kept for what they took."""
    site.weather(CALM)
    good = site.seed("hidden", "screen")
    late = f"for _ in range(100 * (ctx.seed != {good} and step == ctx.steps - 1)):\n            model(x)"
    source = in_step(EAGER, late)
    site.know_cost(source, ratio=4.0)  # few steps, so that the screening is far below its budget
    result = site.conduct(site.plan("hidden", source))
    assert result.outcome == "discarded" and result.cause.startswith("took ")
    assert [run.role for run in result.runs[:2]] == ["screen", "confirm"]
    assert result.evidence is not None and result.evidence.e_value >= 1 / result.evidence.level
    assert result.evidence.audit is None
    assert len({run.seed for run in result.runs}) == len(site.executor.runs) - decide.FIRST_LOOK


def baseline_step(site: Site) -> float:
    """CPU seconds of a step of the baseline, on this site."""
    with site.opened() as lab:
        runs = lab.noise.results(site.task.spec.baseline).values()
    return statistics.fmean(run.cpu_s for run in runs) / int(STEPS)


# ---- less code


@pytest.mark.long
def test_less_code_at_the_same_score_is_kept(simpler: Site) -> None:
    """Useless code goes: not worse by the margin than the program that was last kept for a gain, here its parent."""
    simpler.record(finished(simpler, BLOATED, BASE))
    simpler.know_cost(LEAN)
    result = simpler.conduct(simpler.plan("shorter", LEAN, BLOATED))
    assert (result.outcome, result.aim, result.anchor, result.cause) == ("kept", "simpler", None, "")
    assert result.evidence is not None and result.evidence.required < -0.5
    assert result.gain < result.noise and result.evidence.low > result.evidence.required
    assert {spec.source for spec in simpler.executor.runs} == {LEAN, BLOATED}
    simpler.record(result)
    with simpler.opened() as lab:
        assert lab.frontier.best_program == result.program
        assert lab.frontier.anchor_of(result.program, lab.frontier.own) == result.parent


def test_losses_do_not_creep_from_one_simplification_to_the_next(simpler: Site) -> None:
    """Less code than a parent of the same score, but far worse than what was last kept for a gain: discarded."""
    simpler.record(finished(simpler, FAST, BASE), finished(simpler, BLOATED, FAST, "simpler"))
    simpler.know_cost(FAST, LEAN)
    with simpler.opened() as lab:
        lab.programs.store(FAST)
    result = simpler.conduct(simpler.plan("slope", LEAN, BLOATED))
    assert (result.outcome, result.aim, result.anchor) == ("discarded", "simpler", program_digest({EDITABLE: FAST}))
    assert result.evidence is not None and result.gain < result.evidence.required < 0
    assert {spec.source for spec in simpler.executor.runs} == {LEAN, FAST}


def test_less_code_that_screens_far_worse_is_not_confirmed(simpler: Site) -> None:
    """Returning another model than the trained one is less code than the parent's, and more than the margin worse."""
    source = edited(LEAN, ("    return model\n", "    return GPT(ctx.vocab_size)\n"))
    simpler.know_cost(source)
    result = simpler.conduct(simpler.plan("less", source, BLOATED))
    assert (result.outcome, result.aim, result.cause, len(result.runs)) == ("discarded", "gain", "", 1)
    assert result.gain < -1.5 * simpler.task.worthwhile


def test_a_clear_loss_ends_at_half_time(site: Site) -> None:
    """A program that does not train is stopped halfway, and why is said."""
    source = edited(BASE, ("        opt.step()\n", ""))
    site.know_cost(source)
    result = site.conduct(site.plan("still", source))
    assert result.outcome == "discarded" and result.cause.startswith("killed at half time: ")
    (run,) = result.runs
    assert run.score is None and result.score is None and result.parent_score is not None


# ---- what must not be kept


@pytest.mark.long
def test_a_program_that_looks_ahead_fails_its_audit(site: Site) -> None:
    """It gains whole bits, honestly measured; a second instance without the text behind the positions shows why."""
    site.know_cost(PEEKING)
    result = site.conduct(site.plan("peek", PEEKING))
    assert result.outcome == "discarded" and result.diff is None
    assert result.cause.startswith("audit: answers change by up to ")
    assert result.gain > 3 and result.evidence is not None and result.evidence.audit is not None
    assert result.evidence.audit.worst > 1 and result.evidence.e_value >= 1 / result.evidence.level


@pytest.mark.long
def test_a_program_that_nobody_can_repeat_fails_its_audit(site: Site) -> None:
    """A gain as clear as any, under seeds of the program's own: the second instance is another model."""
    site.know_cost(UNREPEATABLE)
    result = site.conduct(site.plan("random", UNREPEATABLE))
    assert result.outcome == "discarded" and result.cause.startswith(
        "audit: the same seed and steps gave another model"
    )
    assert result.gain > 1 and result.evidence is not None and result.evidence.audit is None


# ---- restarts


@pytest.fixture(scope="module")
def resumed(measured: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[RunSpec]]:
    """The experiment of `kept` on a node that was stopped in the second pair, and the runs after its restart."""
    site = measured.copy(tmp_path_factory.mktemp("resumed") / "ledger")
    site.weather(STORMY)
    site.know_cost(FAST)
    site.executor.forget()
    plan = site.plan("gain", FAST)
    site.interrupt(plan, at=5)
    return site.conduct(plan), [*site.executor.runs]


def test_a_restart_repeats_no_run_and_ends_alike(kept: Kept, resumed: tuple[Result, list[RunSpec]]) -> None:
    """Four runs were finished: they are not run again, and every other one is, to the same verdict."""
    _, whole, specs = kept
    result, again = resumed
    assert again == specs[4:]
    alike = "outcome", "cause", "runs", "score", "gain", "gain_error", "evidence", "steps", "diff"
    assert {name: untimed(result)[name] for name in alike} == {name: untimed(whole)[name] for name in alike}


def test_a_restart_changes_nothing_that_was_decided_before_it(
    kept: Kept, resumed: tuple[Result, list[RunSpec]]
) -> None:
    """The noise by which it was promoted is the noise of its record."""
    assert untimed(resumed[0]) == untimed(kept[1])


def test_a_restart_after_a_correction_keeps_the_corrected_steps(site: Site) -> None:
    """The screening that took too long is recorded with its own steps, and corrects the budget once."""
    site.weather(CALM)
    source = in_step(BASE, SLOW_LATER)
    site.know_cost(source)
    plan = site.plan("twice", source)
    site.interrupt(plan, at=2)
    with site.opened() as lab:
        corrected = asyncio.run(lab.measured(plan.program, source, "", rough=True))
    assert isinstance(corrected, Measured) and corrected.budget.steps < int(STEPS)
    result = site.conduct(plan)
    assert [spec.steps for spec in site.executor.runs] == [corrected.budget.steps]
    assert [run.steps for run in result.runs] == [int(STEPS), corrected.budget.steps]
    assert (result.steps, result.cost_ratio) == (corrected.budget.steps, corrected.budget.ratio)
