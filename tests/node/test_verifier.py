"""Re-runs of claims: which one is next, and what comes out, with real runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from swarm_node.node.laboratory import Laboratory
from swarm_node.node.queue import RESEARCH, Job, Queue, rerun_name
from swarm_node.node.trace import reported
from swarm_node.node.verifier import Verifier, widened
from swarm_node.protocols.diffs import make_diff
from swarm_node.protocols.records import (
    DECISIVE,
    Cost,
    Environment,
    Evidence,
    Record,
    Result,
    Run,
    Verification,
    sign_record,
)
from swarm_node.protocols.signing import public_key
from swarm_node.swarm.frontier import fold
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import decide, evidence

from .conftest import ENVIRONMENT, KEY, PEER, STORMY, WINDY, Site, claim, faster, same

OWN, HERE = public_key(KEY), ((public_key(b"q" * 32), "cpu"),)


@pytest.fixture(autouse=True)
def first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs of a claim the candidate's first is repeated: only that one is real here."""
    monkeypatch.setattr("swarm_node.node.verifier.secrets.randbits", lambda bits: 0)


def peeking(source: str) -> str:
    """A program that answers with the byte that it was not asked for."""
    return source.replace("    return model\n", "    return lambda x: model(x) + 9 * F.one_hot(x.roll(-1, 1), 256)\n")


def rerun(site: Site, record: Record, setting: str = "same", **environment: str) -> Verification:
    """What this node says of it."""
    site.executor.forget()

    async def main(lab: Laboratory) -> Verification | None:
        lab.environment = lab.environment.model_copy(update=environment)
        job = Job(lab.frontier.win(record, record.body), setting)  # type: ignore[arg-type]
        return await Verifier(lab, lab.programs).conduct(job, None)

    with site.opened() as lab:
        found = asyncio.run(main(lab))
    assert found is not None
    return found


@pytest.mark.long
def test_a_real_gain_is_confirmed_with_runs_of_ones_own(site: Site) -> None:
    """The claim's run comes out the same, then fresh pairs decide; the record holds all of them."""
    win = claim(site, faster(site.task.baseline), gain=2.0)
    found = rerun(site, win)
    assert (found.outcome, found.setting, found.result) == ("confirmed", "same", win.id)
    assert found.evidence is not None and found.evidence.e_value >= DECISIVE > found.evidence.against
    assert found.gain is not None and found.gain > 1.0 and found.cost.seconds > 0
    repeat, *pairs = found.runs
    assert (repeat.role, repeat.seed) == ("replay", 5)
    assert (
        len(pairs) == 3 * found.evidence.pairs and len({run.seed for run in found.runs}) == 1 + 2 * found.evidence.pairs
    )
    assert {run.slice for run in pairs if run.draw is None} == {"screen"}  # what its score would be here


def test_a_gain_that_is_not_there_is_refuted(site: Site) -> None:
    """Its run is honest and was lucky: no fabrication, no gain. It could have been adopted with these pairs, so that
    it had a place among the hypotheses of this node."""
    first = evidence.level(decide.ALPHA, 0, 0)
    found = rerun(site, claim(site, same(site.task.baseline), gain=2.0))
    with site.opened() as lab:
        assert asyncio.run(lab.level("x-next")) == evidence.level(decide.ALPHA, 1, 0) < first
    assert found.outcome == "refuted"
    assert found.evidence is not None and found.evidence.against >= DECISIVE > found.evidence.e_value


@pytest.mark.parametrize(
    ("device", "gain"),
    [
        ("another processor", 0.02),
        pytest.param("another processor", 9.0, marks=pytest.mark.long),
        pytest.param("", 0.02, marks=pytest.mark.long),
    ],
)
def test_what_costs_more_here_is_not_refuted_for_that(site: Site, device: str, gain: float) -> None:
    """A step of it costs what one of the baseline does on its author's machine, as in bfloat16 where a processor
    knows it; on this one it gets a few. With all of them it could have what it claims, but nothing so large."""
    baseline = site.task.baseline
    source = baseline.replace("        loss.backward()\n", "        [model(x) for _ in range(9)]; loss.backward()\n")
    assert source != baseline
    made_on = ENVIRONMENT.model_copy(update={"device": device or ENVIRONMENT.device})
    found = rerun(site, claim(site, source, gain, fields={"environment": made_on}))
    if device and gain < 1.0:
        assert (found.outcome, found.evidence) == ("inconclusive", None)
        assert found.cause.startswith("it costs more here: it got ") and "another processor" in found.cause
        assert found.gain is not None and found.gain < 0
    else:
        assert found.outcome == "refuted" and found.evidence is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"score": 1.0}, "made up"), ({"digest": b"d" * 32}, "another model"), ({"seed": 6}, "another model")],
)
def test_a_run_that_its_program_never_made_is_a_fabrication(site: Site, changes: dict[str, Any], words: str) -> None:
    """One repeated run shows it, and no pair is run."""
    found = rerun(site, claim(site, faster(site.task.baseline), 2.0, **changes))
    assert (found.outcome, found.evidence) == ("fabricated", None) and words in found.cause
    assert len(site.executor.runs) == 1


@pytest.mark.parametrize("name", ["gain", "score", "e-value", "twice", "beyond"])
def test_numbers_that_do_not_follow_from_their_runs_are_made_up(site: Site, name: str) -> None:
    """The run is real, and what is made of it is not: no pair is run. Nor is a run counted twice."""
    source = faster(site.task.baseline)
    honest = claim(site, source, 2.0)
    assert isinstance(honest.body, Result) and honest.body.evidence is not None
    fields: dict[str, Any] = {
        "gain": {"gain": 2.5}, "score": {"score": 0.5},
        "e-value": {"evidence": honest.body.evidence.model_copy(update={"e_value": 999.0})},
        "twice": doubled(honest.body), "beyond": doubled(honest.body, seed=50, draw=51, score=1.7e308),
    }[name]  # fmt: skip
    found = rerun(site, claim(site, source, 2.0, fields=fields))
    assert (found.outcome, found.evidence) == ("fabricated", None)
    said = {"twice": "it reports runs twice", "beyond": "its numbers are no numbers"}
    assert found.cause == said.get(name, f"its {name} is not that of the runs that it reports")
    assert len(site.executor.runs) == 1


def rerun_with(site: Site, record: Record, choice: int) -> Verification:
    """With another run repeated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swarm_node.node.verifier.secrets.randbits", lambda bits: choice)
        return rerun(site, record)


def doubled(body: Result, score: float | None = None, **fields: Any) -> dict[str, Any]:
    """The pair once more; `fields`: of both of its runs, the seed that of the first; `score`: of both parents."""
    assert body.evidence is not None
    mine, theirs, screen = body.runs
    theirs = theirs.model_copy(update={"score": score} if score else {})
    seeds = [{"seed": fields["seed"] + number} if fields else {} for number in range(2)]
    again = [run.model_copy(update=fields | its) for run, its in zip((mine, theirs), seeds, strict=True)]
    return {
        "runs": (mine, theirs, screen, *again, screen.model_copy(update={"seed": again[0].seed})),
        "evidence": body.evidence.model_copy(update={"pairs": 2}),
    }


def test_a_score_without_runs_is_not_confirmed(site: Site) -> None:
    """As of nodes before they reported them: no offence, but for a run that was made up, and refuted all the same."""
    win = claim(site, faster(site.task.baseline), 2.0)
    assert isinstance(win.body, Result)
    runs = tuple(run for run in win.body.runs if run.draw is not None)
    found = rerun(site, win.model_copy(update={"body": win.body.model_copy(update={"runs": runs})}))
    assert (found.outcome, found.cause) == ("inconclusive", "it reports no runs with its score")
    assert found.evidence is not None and found.evidence.e_value >= DECISIVE
    made_up = win.body.model_copy(update={"runs": (runs[0].model_copy(update={"score": 1.0}), *runs[1:])})
    assert rerun(site, win.model_copy(update={"body": made_up})).outcome == "fabricated"


def test_which_run_is_repeated_its_author_cannot_know(site: Site) -> None:
    """Else the others could be made up: chance decides, and each run of the pairs is some verifier's turn."""
    win = claim(site, faster(site.task.baseline), 2.0)
    assert isinstance(win.body, Result)
    mine, theirs, _ = win.body.runs
    runs = [run.model_copy(update={"seed": n, "draw": n}) for n in range(9) for run in (theirs, mine)]
    body = win.body.model_copy(update={"runs": tuple(runs)})
    chosen = [(run.arm, run.seed) for choice in range(99) if (run := reported(body, choice)) is not None]
    assert len(set(chosen)) == 18 and chosen[0] == ("candidate", 0)
    liar = rerun_with(site, win, choice=1)  # whose parent's run is made up
    assert liar.outcome == "fabricated" and [run.arm for run in liar.runs] == ["parent"]


@pytest.mark.parametrize("made_up", [False, True])
def test_who_adopts_a_claim_repeats_one_of_its_runs(site: Site, made_up: bool) -> None:
    """Before it calls it confirmed, as in a re-run: the program may be good and the record no more than invented."""
    win = claim(site, faster(site.task.baseline), 2.0, **({"score": 1.0} if made_up else {}))
    assert isinstance(win.body, Result) and win.body.evidence is not None
    found = win.body.evidence.model_copy(update={"e_value": 2 * DECISIVE})
    adopted = win.body.model_copy(update={"evidence": found, "inspired_by": (win.id,)})
    site.executor.forget()
    with site.opened() as lab:
        word = asyncio.run(Verifier(lab, lab.programs).word([win], adopted))
    assert word is not None and (word.result, word.outcome) == (win.id, "fabricated" if made_up else "confirmed")
    assert word.cost.seconds > 0 and len(site.executor.runs) == 1
    assert [run.role for run in word.runs] == (["replay"] if made_up else [run.role for run in adopted.runs])
    if not made_up:  # and whose score nobody can repeat is not called confirmed either
        runs = tuple(run for run in win.body.runs if run.draw is not None)
        bare = claim(site, faster(site.task.baseline), 2.0, key=b"r" * 32, fields={"runs": runs})
        with site.opened() as lab:
            again = adopted.model_copy(update={"inspired_by": (bare.id,)})
            assert asyncio.run(Verifier(lab, lab.programs).word([bare], again)) is None


@pytest.mark.parametrize("device", ["another processor", ""])
def test_who_tries_a_claim_that_costs_more_here_does_not_refute_it(site: Site, device: str) -> None:
    """As in a re-run: its own pairs had a third of the steps that the claim reports."""
    made_on = ENVIRONMENT.model_copy(update={"device": device or ENVIRONMENT.device})
    win = claim(site, faster(site.task.baseline), 0.02, fields={"environment": made_on})
    assert isinstance(win.body, Result) and win.body.evidence is not None
    mine, theirs, _ = win.body.runs
    pairs = [
        (
            mine.model_copy(update={"seed": n, "draw": n, "steps": mine.steps // 3, "score": 5.0 + n / 100}),
            theirs.model_copy(update={"seed": 50 + n, "draw": n, "score": 4.0}),
        )
        for n in range(12)
    ]  # fmt: skip
    found = win.body.evidence.model_copy(update={"pairs": 12, "e_value": 0.01})
    tried = win.body.model_copy(
        update={
            "outcome": "discarded",
            "diff": None,
            "evidence": found,
            "runs": tuple(run for two in pairs for run in two),
        }
    )
    site.executor.forget()
    with site.opened() as lab:
        word = asyncio.run(Verifier(lab, lab.programs).word([win], tried))
    assert word is not None
    if device:
        assert (word.outcome, word.evidence, len(site.executor.runs)) == ("inconclusive", None, 1)
        assert word.cause.startswith("it costs more here: it got ")
    else:
        assert word.outcome == "refuted" and site.executor.runs == []


def test_a_simplification_has_to_be_one_and_to_name_what_it_was_compared_with(site: Site) -> None:
    """Else whatever is not worse than the baseline would be confirmed as one, on any parent."""
    baseline = site.task.baseline
    longer = claim(site, faster(baseline), 2.0, fields={"aim": "simpler"})
    found = rerun(site, longer)
    assert (found.outcome, found.cause) == ("inconclusive", "it is no simpler than its parent")
    before, after = faster(baseline) + "x = 1\n" * 60, same(baseline)
    gain = claim(site, before, 2.0)
    assert isinstance(gain.body, Result)
    shorter = {"aim": "simpler", "parent": gain.body.program, "anchor": site.task.spec.baseline}
    shorter["diff"] = make_diff(before, after)
    with site.opened() as lab:
        lab.programs.store(before)
    found = rerun(site, claim(site, after, 2.0, fields=shorter))
    assert found.outcome in ("inconclusive", "refuted")
    if found.outcome == "inconclusive" and found.evidence is not None and found.evidence.e_value >= DECISIVE:
        assert found.cause == "it was not compared with the last gain that is known to have led to it"


@pytest.mark.long
def test_a_program_that_looks_ahead_is_no_win_though_it_wins_every_pair(site: Site) -> None:
    """What is confirmed is audited like what is kept: its author cannot have kept it honestly."""
    source = peeking(site.task.baseline)
    site.know_cost(source)
    found = rerun(site, claim(site, source, 3.0))
    assert found.outcome == "fabricated" and found.evidence is None
    assert found.cause.startswith("audit: answers change by up to ")
    assert site.executor.runs[-1].audit is not None and site.executor.runs[-1].audit.truncated


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"slice": "audit"}, {}), ({"slice": "nowhere"}, {}), ({"slice": "confirm", "draw": None}, {}),
        ({"steps": 2**50}, {}), ({}, {"runs": ()}),
    ],
)  # fmt: skip
def test_a_record_cannot_ask_for_any_work(site: Site, changes: dict[str, Any], fields: dict[str, Any]) -> None:
    """Runs on text that nobody scores, of endless steps, or none: no verdict, and nothing is run."""
    if fields:  # such a record is refused on the wire; a body is made without its checks here
        record = claim(site, faster(site.task.baseline), 2.0)
        record = record.model_copy(update={"body": record.body.model_copy(update=fields)})
    else:
        record = claim(site, faster(site.task.baseline), 2.0, **changes)
    found = rerun(site, record)
    assert (found.outcome, found.runs, site.executor.runs) == ("inconclusive", (), [])
    assert found.cause == "it reports no run that could be repeated"


@pytest.mark.long
def test_absurd_numbers_of_a_claim_are_no_numbers_of_ours(site: Site) -> None:
    """Neither its gain nor its noise moves what is required: a gain is judged by runs of this node. What is claimed
    beyond twice of it is refuted, though there is one."""
    win = claim(site, faster(site.task.baseline), 1e100, fields={"noise": 1e300, "parent_score": -1e300})
    found = rerun(site, win)
    assert found.outcome == "refuted" and found.evidence is not None
    assert found.evidence.pairs <= 4 and found.evidence.against >= DECISIVE


def test_a_program_that_is_its_own_parent_costs_nothing(site: Site) -> None:
    """A win of nothing over itself: said so, instead of failing again and again."""
    win = claim(site, faster(site.task.baseline), 2.0)
    assert isinstance(win.body, Result)
    itself = win.model_copy(update={"body": win.body.model_copy(update={"anchor": win.body.program, "aim": "simpler"})})
    found = rerun(site, itself)
    assert found.outcome == "inconclusive" and "changes nothing" in found.cause and site.executor.runs == []


@pytest.mark.long
def test_another_version_of_torch_convicts_nobody(site: Site) -> None:
    """Its random numbers are others: the pairs decide."""
    win = claim(site, faster(site.task.baseline), 2.0, losses=(9.0,) * 10, digest=b"d" * 32)
    assert rerun(site, win, library="torch 2.4.0 AVX2").outcome == "confirmed"
    assert rerun(site, win, device="another processor").outcome == "fabricated"


@pytest.mark.long
def test_a_node_that_is_killed_goes_on_with_its_runs(site: Site) -> None:
    """What finished is not run again, and the verdict is the same."""
    win = claim(site, faster(site.task.baseline), 2.0)

    async def main(lab: Laboratory) -> None:
        loop = asyncio.get_running_loop()
        job = Job(lab.frontier.win(win, win.body), "same")  # type: ignore[arg-type]
        work = asyncio.ensure_future(Verifier(lab, lab.programs).conduct(job, None))
        site.executor.before = lambda number: number == 4 and bool(loop.call_soon_threadsafe(work.cancel))
        with pytest.raises(asyncio.CancelledError):
            await work

    site.executor.forget()
    with site.opened() as lab:
        asyncio.run(main(lab))
    found = rerun(site, win)
    assert found.outcome == "confirmed" and len(site.executor.runs) <= len(found.runs) - 2
    with Ledger.open(site.path) as ledger:
        steps = ledger.journal(rerun_name(win.id))
    assert {f"trace-5-{site.task.spec.steps}-77", "candidate-0", "parent-0"} <= set(steps)


@pytest.mark.long
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_an_adoption_goes_on_with_the_pairs_of_the_re_run(site: Site, ratio: float) -> None:
    """The same program from the same parent, but for the peer's words: its screening run is new, its first pairs are
    those that were run, with as many steps; measured anew it could get others, and fail its audit. So it is when the
    re-run found that its steps cost half of what was measured."""
    source = faster(site.task.baseline)
    site.weather(STORMY if ratio == 1.0 else WINDY)
    site.know_cost(source, ratio=ratio)
    found = rerun(site, claim(site, source + "# believe me\n", 2.0))
    site.executor.forget()
    win = found.result
    plan = replace(site.plan("adopt", source), id=rerun_name(win))
    result = site.conduct(plan)
    assert result.outcome == "kept" and result.evidence is not None and found.evidence is not None
    seeds = {run.seed for run in result.runs}
    again = seeds & {run.seed for run in found.runs}
    steps = {run.steps for run in found.runs if (run.arm, run.role) == ("candidate", "confirm")}
    assert steps == {result.steps} and (ratio == 1.0) == (steps == {site.task.spec.steps} and result.cost_ratio == 1.0)
    assert len(again) == 2 * found.evidence.pairs
    assert site.executor.measured == []
    new = len(seeds) - len(again)
    assert new <= len(site.executor.runs) <= new + 1  # with more pairs, another one may be audited


@pytest.mark.long
def test_twice_the_width_is_both_programs_at_twice_the_width(site: Site) -> None:
    """And the record says so; a program that does not name its width is left alone."""
    baseline = site.task.baseline
    wide = widened(baseline)
    assert wide is not None and wide.replace("WIDTH = 128 ", "WIDTH = 64 ") == baseline
    assert widened("x = 1\n") is None and widened("WIDTH = 400\n") is None and widened("WIDTH = 8\nWIDTH = 9\n") is None
    found = rerun(site, claim(site, faster(baseline), 2.0), "wider")
    assert found.setting == "wider" and found.outcome == "confirmed"
    assert all("WIDTH = 128 " in spec.source for spec in site.executor.runs)
    assert not [run for run in found.runs if run.role == "replay"]


# ---- which claim is next


def kept(number: int, key: bytes = PEER, environment: Environment = ENVIRONMENT, **fields: Any) -> Record:
    """A claim that nobody needs to run."""
    run = Run(arm="candidate", role="confirm", slice="s", seed=1, steps=1, score=3.0, seconds=1.0, digest=b"d" * 32)
    found = Evidence(pairs=4, required=0.0, low=0.1, high=0.2, e_value=99.0, level=0.05)
    base: dict[str, Any] = {
        "task": b"t" * 32, "outcome": "kept", "program": b"%32d" % number, "parent": b"b" * 32, "title": "t",
        "normal": b"%32d" % number, "proposer": "offline", "environment": environment, "diff": "--- a/train.py\n",
        "score": 3.0, "gain": 0.1, "runs": (run,), "evidence": found,
    }  # fmt: skip
    body = Result.model_validate(base | fields)
    return sign_record(key, epoch=number, seq=1, prev=None, time=number, body=body)


def said(record: Record, outcome: str, key: bytes = KEY, seconds: float = 0.0, **fields: Any) -> Record:
    """A re-run."""
    numbers = {"confirmed": (99.0, 0.01), "refuted": (0.01, 99.0), "inconclusive": (1.0, 1.0)}[outcome]
    found = Evidence(pairs=4, required=0.0, low=0.1, high=0.2, e_value=numbers[0], against=numbers[1], level=0.05)
    body = Verification(
        task=b"t" * 32, result=record.id, outcome=outcome, evidence=found, environment=ENVIRONMENT,  # type: ignore[arg-type]
        cost=Cost(seconds=seconds), **fields,
    )  # fmt: skip
    return sign_record(key, epoch=1000 + record.epoch, seq=1, prev=None, time=1, body=body)


def work(seconds: float) -> Record:
    """Research of this node."""
    return kept(900, KEY, outcome="discarded", diff=None, evidence=None, cost=Cost(seconds=seconds))


def queue(*records: Record, share: float = 0.2, hardware: str = "cpu") -> Queue:
    frontier = fold(records, OWN, b"t" * 32, b"b" * 32)
    return Queue(frontier, hardware, share, run_seconds=lambda: 10.0)


def next_claim(
    found: Queue, now: float = 0.0, present: tuple[tuple[bytes, str], ...] = (), taken: tuple[str, ...] = ()
) -> Any:
    job = found.next(present, taken, now)
    return None if job is None else (job.win.id, job.setting)


def test_the_share_of_time_is_kept() -> None:
    """A claim waits until there was enough research; with a share of nothing it waits for ever."""
    win = kept(1)
    earlier = said(kept(2), "confirmed", seconds=30.0)
    assert next_claim(queue(win)) == (win.id, "same")  # the first one needs no credit
    assert next_claim(queue(win, earlier, work(100.0))) is None
    assert next_claim(queue(win, earlier, work(121.0))) == (win.id, "same")
    assert next_claim(queue(win, work(1e6), share=0.0)) is None


def test_all_newcomers_together_have_a_slice() -> None:
    """Forty identities with a claim each take no more of this node's time than one."""
    crowd = [kept(number, bytes([number]) * 32) for number in range(1, 41)]
    known = kept(50, b"z" * 32)
    little, much = (said(crowd[0], "inconclusive", seconds=seconds) for seconds in (99.0, 112.0))
    assert next_claim(queue(*crowd, known, work(1000.0), little)) == (crowd[1].id, "same")  # of 220 s, half is theirs
    assert next_claim(queue(*crowd, known, work(1000.0), much)) is None  # after a restart as well
    established = kept(51, b"z" * 32), said(kept(51, b"z" * 32), "confirmed")
    assert next_claim(queue(*crowd, known, *established, work(1000.0), much)) == (known.id, "same")


def test_the_share_is_kept_by_the_clock_too() -> None:
    """What sleeps, or cannot be fetched, takes lanes and no CPU time; the larger share counts, and newcomers' slice."""
    first, second = kept(1), kept(2, b"y" * 32)
    established = kept(51, b"z" * 32), said(kept(51, b"z" * 32), "confirmed"), kept(52, b"z" * 32)
    found = queue(first, second, *established, work(1e6))
    found.took(RESEARCH, 1000.0)
    found.took(rerun_name(first.id), 112.0)  # of 222 s, half is theirs
    assert next_claim(found, taken=(rerun_name(first.id),)) == (established[2].id, "same")
    assert next_claim(found, taken=(rerun_name(established[2].id),)) == (established[0].id, "wider")
    found.took(f"w-{first.id.hex()}", 150.0)
    assert next_claim(found) is None
    found.took(RESEARCH, 50.0)
    assert next_claim(found) is not None
    assert next_claim(queue(first, said(second, "inconclusive", seconds=30.0), work(100.0))) is None


def test_lanes_do_not_all_begin_a_re_run_before_any_has_paid() -> None:
    """One that runs counts as a run's time, from its beginning to its end."""
    wins = [kept(number, bytes([number]) * 32) for number in range(1, 9)]
    found, running = queue(*wins, work(1e6)), list[Job]()
    found.took(RESEARCH, 150.0)  # newcomers may have a tenth: of 170 s, 17
    while (job := found.next((), [one.name for one in running], 0.0)) is not None:
        found.begin(job)
        running.append(job)
    assert len(running) == 2
    found.end(running[0])
    assert found.next((), (running[1].name,), 0.0) is not None


def test_time_on_another_task_is_no_time_on_this_one() -> None:
    """A home that moves to another task does not begin with a debt."""
    win, elsewhere = kept(1), said(kept(2), "confirmed", seconds=1e4)
    assert next_claim(queue(win, elsewhere, work(100.0))) is None
    moved = sign_record(
        KEY, epoch=5, seq=1, prev=None, time=1, body=elsewhere.body.model_copy(update={"task": b"o" * 32})
    )
    assert next_claim(queue(win, moved, work(100.0))) == (win.id, "same")


def test_two_of_many_re_run_a_claim_and_time_widens_the_circle() -> None:
    """Whom the hash does not name stays out until the claim has waited."""
    crowd = tuple((public_key(bytes([number]) * 32), "cpu") for number in range(1, 30))
    wins = [kept(number) for number in range(1, 30)]
    found = queue(*wins)
    chosen = [win for win in wins if next_claim(queue(win), present=crowd) is not None]
    assert 0 < len(chosen) < 10
    waiting = next(win for win in wins if win not in chosen)
    found = queue(waiting)
    found.heard(waiting.id, 0.0)
    assert next_claim(found, present=crowd) is None
    assert next_claim(found, now=1e6, present=crowd) == (waiting.id, "same")


def test_what_has_a_verdict_or_an_own_word_is_not_run_again() -> None:
    """Nor what runs on another lane, nor what could not be done, for a while."""
    win = kept(1)
    assert next_claim(queue(win, said(win, "confirmed"))) == (win.id, "wider")
    assert next_claim(queue(win, said(win, "inconclusive"))) is None
    assert next_claim(queue(win), taken=(rerun_name(win.id),)) is None
    found = queue(win)
    job = found.next((), (), 0.0)
    assert job is not None
    found.postpone(job, 0.0)
    assert next_claim(found, now=399.0) is None and next_claim(found, now=401.0) == (win.id, "same")


def test_of_equal_finds_the_first_is_re_run() -> None:
    """And the next one when its programs are not to be had, or its own run said nothing; none when one has a verdict
    here."""
    same: dict[str, Any] = {"program": b"p" * 32, "normal": b"n" * 32}
    first, again = kept(1, **same), kept(2, b"y" * 32, **same)
    found = queue(first, again)
    job = found.next((), (), 0.0)
    assert job is not None and job.win.id == first.id
    assert next_claim(found, taken=(rerun_name(first.id),)) is None
    found.postpone(job, 0.0)
    assert next_claim(found) == (again.id, "same")
    assert next_claim(queue(first, again, said(first, "inconclusive"))) == (again.id, "same")
    assert next_claim(queue(first, again, said(first, "confirmed"))) == (first.id, "wider")
    other = kept(3, b"y" * 32, **same | {"parent": b"c" * 32})
    assert next_claim(queue(first, other), taken=(rerun_name(first.id),)) == (other.id, "same")
    known = [kept(51, b"y" * 32), said(kept(51, b"y" * 32), "confirmed")]
    spent = kept(52, b"s" * 32), said(kept(52, b"s" * 32), "inconclusive", seconds=120.0)
    found = queue(first, again, *known, *spent, work(1000.0))
    assert next_claim(found) == (again.id, "same"), "while newcomers have had their share, a known author's"


def test_strangers_words_move_no_claim() -> None:
    """Else who slanders all true ones had lies re-run first. What an author claims of whom nothing is known comes after
    what a known one does."""
    first, second = kept(1), kept(2, b"y" * 32)
    words = [said(first, outcome, key * 32) for outcome, key in (("refuted", b"v"), ("confirmed", b"u"))]
    assert next_claim(queue(first, second)) == next_claim(queue(first, second, *words)) == (first.id, "same")
    known = [kept(50, b"z" * 32), said(kept(50, b"z" * 32), "confirmed"), kept(51, b"z" * 32)]
    seen = said(known[2], "confirmed", b"v" * 32)
    assert next_claim(queue(second, *known, seen, work(1e6))) == (known[2].id, "same")


def test_a_doubted_win_of_ones_own_comes_first() -> None:
    """Others refute it: this node looks again before anything else."""
    mine, peer, known = kept(1, KEY), kept(2), kept(3, b"v" * 32)
    refuted = said(mine, "refuted", b"v" * 32)
    assert next_claim(queue(mine, peer, refuted)) == (peer.id, "same")  # a stranger's word
    asked = queue(mine, peer, refuted, known, said(known, "confirmed"))
    assert next_claim(asked) == (mine.id, "same")
    asked.postpone(Job(asked._frontier.doubted[0], "same"), 0.0)  # what it needs is not to be had now
    assert next_claim(asked) == (peer.id, "same")


def test_what_only_others_refute_is_looked_at_by_whom_the_hash_names() -> None:
    """Else who was right once could have any claim refuted, and nobody would find out; all others save their time."""
    win, known = kept(1), kept(50, b"v" * 32)
    voice = [known, said(known, "confirmed"), said(known, "confirmed", setting="wider"), work(1e6)]
    refuted = said(win, "refuted", b"v" * 32)
    assert next_claim(queue(win, refuted, *voice)) == (win.id, "same")
    assert next_claim(queue(win, refuted, *voice), taken=(rerun_name(win.id),)) is None
    assert next_claim(queue(win, refuted, *voice, said(win, "refuted"))) is None
    crowd = tuple((public_key(bytes([number]) * 32), "cpu") for number in range(1, 30))
    wins = [kept(number) for number in range(1, 30)]
    found = [queue(win, said(win, "refuted", b"v" * 32), *voice) for win in wins]
    named = [one for one in found if next_claim(one, now=1e6, present=crowd) is not None]
    assert 0 < len(named) < 10


def test_confirmed_wins_are_tried_at_twice_the_width_once() -> None:
    """By one node, after the claims; when somebody known has done it nobody does it again, when a stranger says so only
    who comes first."""
    win, open_claim = kept(1), kept(2, b"y" * 32)
    confirmed = said(win, "confirmed")
    assert next_claim(queue(win, confirmed, open_claim)) == (open_claim.id, "same")
    assert next_claim(queue(win, confirmed)) == (win.id, "wider")
    wider = said(win, "refuted", b"v" * 32, setting="wider")
    assert next_claim(queue(win, confirmed, wider)) == (win.id, "wider")
    crowd = tuple((public_key(bytes([number]) * 32), "cpu") for number in range(1, 30))
    assert next_claim(queue(win, confirmed, wider), now=1e6, present=crowd) is None
    known = kept(3, b"v" * 32)
    voice = [known, said(known, "confirmed"), said(known, "confirmed", setting="wider")]
    assert next_claim(queue(win, confirmed, wider, *voice)) is None


def test_another_hardware_class_looks_whether_it_transfers() -> None:
    """One node of it does, since it decides nothing about the claim."""
    gpu = ENVIRONMENT.model_copy(update={"hardware": "cuda-sm90"})
    win = kept(1, environment=gpu)
    assert next_claim(queue(win)) == (win.id, "same")
    crowd = tuple((public_key(bytes([number]) * 32), "cpu") for number in range(1, 30))
    told = queue(win, said(win, "refuted", b"v" * 32))
    assert (
        next_claim(told) == (win.id, "same") and next_claim(told, now=1e6, present=crowd) is None
    )  # a stranger says so
