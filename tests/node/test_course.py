"""What a node does about a search that stands still: the same in its loop and in `swarm-node prompt`."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.abc import INetStream
from swarm_node.node.egress import Egress
from swarm_node.node.experiment import Experiment, Plan
from swarm_node.node.fetcher import WAITING
from swarm_node.node.group import waiting
from swarm_node.node.home import Home
from swarm_node.node.loop import Limits, Researcher
from swarm_node.node.preview import as_text, next_prompt
from swarm_node.node.prompt import build_prompt
from swarm_node.node.proposers.base import Hypothesis, Situation
from swarm_node.node.proposers.choose import secret_seed
from swarm_node.node.proposers.llm import proposal_seed
from swarm_node.node.queue import RESEARCH, Queue, rerun_name
from swarm_node.node.screen import Screen
from swarm_node.node.stagnation import STALLED
from swarm_node.node.supervision import Supervision
from swarm_node.node.tasks import remember
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.records import Lead, Result, Run, Verification
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_bytes, program_digest
from swarm_node.swarm.blobs import Blobs
from swarm_node.swarm.ledger import Ledger
from swarm_node.swarm.net import Network, NetworkConfig, Timing
from swarm_node.trainer.corpus import Corpus

from .conftest import ENVIRONMENT, KEY, Site, claim, faster, promoted

PEER, JUDGE = b"p" * 32, b"j" * 32


class Asked:
    """A proposer that notes what it is told and changes a number."""

    name = "offline"

    def __init__(self) -> None:
        self.told: list[Situation] = []

    async def propose(self, situation: Situation) -> Hypothesis:
        self.told.append(situation)
        source = situation.parent.replace("WEIGHT_DECAY = 0.01", f"WEIGHT_DECAY = 0.0{len(self.told) + 1}")
        return Hypothesis(source, "decay", "", ("regularisation",), "offline")


class Told(Screen):
    """A screen that remembers its lines."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.items: list[str] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def item(self, label: str, text: str) -> None:
        self.items.append(f"{label}: {text}")


@contextmanager
def researcher(site: Site) -> Iterator[tuple[Researcher, Asked, Told]]:
    """The loop of a node, without its network."""
    with site.opened() as lab:
        asked, screen = Asked(), Told()
        text = Corpus("00" * 32, site.path, {}, (), 0, "none is needed")
        yield Researcher(
            lab, text, lab._ledger, KEY, lab.frontier, lab.programs, asked, screen, Supervision(screen), "8 cores", 1,
            Limits(), lambda: 1, Egress(""), Queue(lab.frontier, "cpu", 0.2, lambda: 1.0),
        ), asked, screen  # fmt: skip


def stall(site: Site, count: int = STALLED) -> None:
    """Own experiments that came to nothing."""
    spec = site.task.spec
    site.record(*(promoted(site.task, "discarded", bytes([n]) * 32, spec.baseline) for n in range(count)))


def wins(site: Site, key: bytes, *change: str, **fields: Any) -> None:
    """A kept result from the baseline, whose program is here."""
    source = site.task.baseline.replace(*change)
    body = promoted(
        site.task, "kept", program_digest({EDITABLE: source}), site.task.spec.baseline, normal=normal_digest(source),
        diff=make_diff(site.task.baseline, source), **fields,
    )  # fmt: skip
    site.record(body, key=key)
    with Ledger.open(site.path) as ledger:
        ledger.put_blob(program_bytes({EDITABLE: source}))


def peers_win(site: Site, *change: str) -> None:
    """A peer's win that this node's re-run confirmed, beside an own one."""
    wins(site, KEY, "LR = 1e-3", "LR = 3e-3")
    wins(site, PEER, *change)
    with Ledger.open(site.path) as ledger:
        (record,) = [one for one in ledger.all_records("result") if one.author == public_key(PEER)]
        assert isinstance(record.body, Result)
        fields = {"task": site.task.spec.id, "result": record.id, "outcome": "confirmed", "environment": ENVIRONMENT}
        check = Verification.model_validate(fields | {"evidence": record.body.evidence})
        ledger.append_all(KEY, [check], now_ms=1)


def test_edits_that_promised_are_confirmed_in_one_program(site: Site) -> None:
    """Whatever the proposer thinks of: the group comes first, is conducted like any other, and becomes the own best."""
    baseline, spec = site.task.baseline, site.task.spec
    edits = ("LR = 1e-3", "LR = 3e-3"), ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.02"), ("SEQ = 128", "SEQ = 96")
    for old, new in (*edits, ("HEADS = 2", "HEADS = 4")):
        source = baseline.replace(old, new)
        digest = program_digest({EDITABLE: source})
        waits = promoted(site.task, "inconclusive", digest, spec.baseline, normal=normal_digest(source), evidence=None)
        site.record(waits.model_copy(update={"gain": 0.1, "noise": 0.05, "proposer": "offline"}))
        with Ledger.open(site.path) as ledger:
            ledger.put_blob(program_bytes({EDITABLE: source}))
    with researcher(site) as (node, asked, _):
        plan = asyncio.run(node.planner.propose(lambda normal: False))
        assert isinstance(plan, Plan) and plan.hypothesis.proposer == "group" and not asked.told
        assert plan.hypothesis.source.count("3e-3") == plan.hypothesis.source.count("SEQ = 96") == 1
        site.know_cost(plan.hypothesis.source)
        other = asyncio.run(node.planner.propose(lambda normal: False))
        assert isinstance(other, Plan) and other.hypothesis.proposer == "offline", "it runs already"
        told = list[Lead]()

        async def announce(lead: Lead) -> None:
            told.append(lead)

        node.planner._announce = announce
        asyncio.run(node._conduct(plan))
        assert [lead.normal for lead in told] == [normal_digest(plan.hypothesis.source)], "peers are told, first of all"
        assert node.frontier.best_program == plan.program
        assert node.frontier.own_kept == 1 and waiting(node.frontier) == []


def test_an_edit_with_which_no_group_passes_the_gate_stops_none(site: Site) -> None:
    """A stranger's fits by itself, and is too long with others: it is left out from then on."""
    baseline, spec = site.task.baseline, site.task.spec
    edits = ("LR = 1e-3", "LR = 3e-3"), ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.02"), ("SEQ = 128", "SEQ = 96")
    long = baseline + "".join(f"LEAD_{number} = {number}\n" for number in range(1480))
    waits = [(KEY, baseline.replace(old, new)) for old, new in (*edits, ("HEADS = 2", "HEADS = 4"))]
    for key, source in (*waits, (PEER, long)):
        digest, gain = program_digest({EDITABLE: source}), 0.1
        body = promoted(site.task, "inconclusive", digest, spec.baseline, normal=normal_digest(source), evidence=None)
        fields = {"gain": gain, "noise": 0.05, "proposer": "offline", "diff": make_diff(baseline, source)}
        site.record(body.model_copy(update=fields), key=key)
        with Ledger.open(site.path) as ledger:
            ledger.put_blob(program_bytes({EDITABLE: source}))
    with researcher(site) as (node, _, _):
        (theirs,) = [one.id for one in node.frontier.trials if one.author == public_key(PEER)]
        plan = asyncio.run(node.planner.propose(lambda normal: False))
        assert node.planner.taken.unfit == {theirs}
        assert isinstance(plan, Plan) and plan.hypothesis.proposer == "group"
        assert len(plan.hypothesis.inspired_by) == 4 and theirs not in plan.hypothesis.inspired_by


def test_a_group_that_another_lane_begins_meanwhile_expels_nobodys_edit(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not for what is in it that the gate does not let it pass; another one is made."""
    baseline, spec = site.task.baseline, site.task.spec
    edits = ("LR = 1e-3", "LR = 3e-3"), ("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.02"), ("SEQ = 128", "SEQ = 96")
    others = ("HEADS = 2", "HEADS = 4"), ("DEPTH = 2", "DEPTH = 1")
    for number, (old, new) in enumerate((*edits, *others)):
        source = baseline.replace(old, new)
        assert source != baseline
        digest = program_digest({EDITABLE: source})
        body = promoted(site.task, "inconclusive", digest, spec.baseline, normal=normal_digest(source), evidence=None)
        fields = {"gain": 0.1, "noise": 0.05, "proposer": "offline", "diff": make_diff(baseline, source)}
        site.record(body.model_copy(update=fields), key=PEER if number == 4 else KEY)
        with Ledger.open(site.path) as ledger:
            ledger.put_blob(program_bytes({EDITABLE: source}))
    with researcher(site) as (node, _, _):
        gate, begun = node.planner._gate, list[bytes]()

        def late(parent: str, hypothesis: Hypothesis, taken: Callable[[bytes], bool]) -> str:
            if not begun:
                begun.append(normal_digest(hypothesis.source))
                node.planner.taken.here.add(begun[0])
            return gate(parent, hypothesis, taken)

        monkeypatch.setattr(node.planner, "_gate", late)
        plan = asyncio.run(node.planner.propose(lambda normal: normal in node.planner.taken.here))
        assert isinstance(plan, Plan) and plan.hypothesis.proposer == "group"
        assert begun and normal_digest(plan.hypothesis.source) not in begun
        assert node.planner.taken.unfit == node.planner.taken.refused == set()


@pytest.mark.parametrize("made_up", [False, True])
def test_nothing_is_built_on_a_claim_whose_run_does_not_come_out(
    site: Site, made_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the runs that it reports is repeated before it is tried on another program, whoever confirmed it; once."""
    monkeypatch.setattr("swarm_node.node.verifier.secrets.randbits", lambda bits: 0)  # only that run is real here
    baseline = site.task.baseline
    told = claim(site, faster(baseline), 2.0, **({"score": 1.0} if made_up else {}))
    source = faster(baseline).replace("WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.02")
    site.know_cost(source)
    hypothesis = Hypothesis(source, "a peer's win", "", (), "offline", inspired_by=(told.id,))
    plan = replace(site.plan("rebased", source), hypothesis=hypothesis)
    site.executor.forget()
    with researcher(site) as (node, _, screen):
        asyncio.run(node._conduct(plan))
        mine = [one.body for one in node.frontier.trials if one.author == public_key(KEY)]
        (tried,) = [body for body in mine if isinstance(body, Result) and body.title == "a peer's win"]
        word = node.frontier.word(told.id)
        if made_up:
            assert word is not None and word.outcome == "fabricated", word.cause
            assert word.cost.seconds == 0 < tried.cost.seconds and (tried.outcome, tried.runs) == ("discarded", ())
            assert tried.cause.startswith("it would build on a claim that is fabricated: ")
            assert told.author in node.frontier.quarantined
            assert [spec.seed for spec in site.executor.runs].count(5) == 1
            assert any("fabricated" in line for line in screen.said)
        else:
            assert word is None and tried.outcome == "kept"
            looked = [spec for spec in site.executor.runs if spec.source == faster(baseline)]
            assert len(looked) == 1 and tried.cost.seconds > sum(run.seconds for run in tried.runs if run.draw is None)
            again = replace(hypothesis, source=source + "x = 1\n")
            said = asyncio.run(node._verifier.look(again, [told], None))
            assert said == ([], 0.0), "once"


def test_who_adopts_a_claim_as_it_stands_has_a_word_on_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole record is looked at, as the ledger has it."""
    monkeypatch.setattr("swarm_node.node.verifier.secrets.randbits", lambda bits: 0)  # only that run is real here
    source = faster(site.task.baseline)
    told = claim(site, source, 2.0)
    site.know_cost(source)
    plan = site.plan("adopted", source)
    site.executor.forget()
    with researcher(site) as (node, _, _):
        asyncio.run(node._conduct(replace(plan, hypothesis=replace(plan.hypothesis, inspired_by=(told.id,)))))
        word = node.frontier.word(told.id)
        assert word is not None and (word.outcome, word.cause) == ("confirmed", "")
        assert node.frontier.opinion(told).settled and told.author in node.frontier._established
        assert [spec.seed for spec in site.executor.runs].count(5) == 1, "repeated once, before it was tried"


def test_what_a_peer_found_on_this_program_is_the_peers(site: Site) -> None:
    """Who thinks of it again re-runs it: the plan is owed to the peer, and goes on with an earlier re-run; from another
    program it is an idea of one's own."""
    wins(site, PEER, "WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.02")
    with Ledger.open(site.path) as ledger:
        (win,) = ledger.all_records("result")
        ledger.journal_put(rerun_name(win.id), "candidate-0", "{}")
    with researcher(site) as (node, _, _):
        same, other = (asyncio.run(node.planner.propose(lambda normal: False)) for _ in range(2))
    assert isinstance(same, Plan) and (same.hypothesis.inspired_by, same.id) == ((win.id,), rerun_name(win.id))
    assert isinstance(other, Plan) and other.hypothesis.inspired_by == () and other.id.startswith("x-")
    wins(site, KEY, "LR = 1e-3", "LR = 3e-3")
    with researcher(site) as (node, _, _):
        elsewhere = asyncio.run(node.planner.propose(lambda normal: False))
    assert isinstance(elsewhere, Plan) and elsewhere.hypothesis.inspired_by == ()


def test_hearing_of_wins_begins_nothing_and_what_a_proposal_misses_is_got(site: Site) -> None:
    """A flood of records is no flood of requests; a program that fell out is on the list when it is looked for."""
    for number in range(2 * WAITING):
        wins(site, PEER, "LR = 1e-3", f"LR = {number + 2}e-3")
    with Ledger.open(site.path) as ledger:
        flood = list(ledger.all_records("result"))
    with researcher(site) as (node, _, _):
        last = flood[-1].body
        assert isinstance(last, Result)

        async def story() -> None:
            for record in flood:
                node.heard(record)
            assert len(asyncio.all_tasks()) == 1 and len(node.fetcher._waiting) == WAITING
            node.fetcher._waiting.clear()
            await node.planner.propose(lambda normal: False)
            assert not node.fetcher._waiting, "everything is here"
            with contextlib.closing(sqlite3.connect(site.path)) as db, db:
                db.execute("DELETE FROM blobs WHERE digest = ?", (last.program,))
            await node.planner.propose(lambda normal: False)
            assert list(node.fetcher._waiting) == [flood[-1].id]

        asyncio.run(story())


def test_runs_of_another_program_or_task_are_not_gone_on_with(site: Site) -> None:
    """Words of a program can change what it does, and a home's journal outlives its task."""
    wins(site, PEER, "WEIGHT_DECAY = 0.01 ", "WEIGHT_DECAY = 0.02  # a word")
    with Ledger.open(site.path) as ledger:
        (win,) = ledger.all_records("result")
        ledger.journal_put(rerun_name(win.id), "candidate-0", "{}")
        elsewhere = win.body.model_copy(update={"task": b"o" * 32})
        (hint,) = ledger.append_all(JUDGE, [elsewhere], now_ms=1)
        ledger.journal_put(rerun_name(hint.id), "candidate-0", "{}")
    baseline = site.task.baseline
    theirs = baseline.replace("WEIGHT_DECAY = 0.01 ", "WEIGHT_DECAY = 0.02  # a word")
    bare = baseline.replace("WEIGHT_DECAY = 0.01 ", "WEIGHT_DECAY = 0.02 ")
    with researcher(site) as (node, _, _):

        def name(source: str, claim: bytes) -> str:
            return node.planner._name(
                Hypothesis(source, "t", "", (), "offline", inspired_by=(claim,)), site.task.spec.baseline
            )

        assert name(theirs, win.id) == rerun_name(win.id)
        assert name(bare, win.id).startswith("x-") and name(theirs, hint.id).startswith("x-")


def network(ledger: Ledger, seed: bytes, *dial: str, met: Callable[[], None] = lambda: None) -> Network:
    """One node's, with all the patience there is."""
    config = NetworkConfig(
        seed=seed, listen=("/ip4/127.0.0.1/tcp/0",), dial=dial, task=b"t" * 32, timing=Timing(stream=3600.0)
    )
    return Network(config, ledger, on_record=lambda _: None, on_notice=lambda _: None, on_peers=met)


def test_a_claim_is_re_run_or_adopted_and_never_both_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a journal: their pairs would be run twice, and charged twice. Who comes second does something else,
    also when both look at the same time."""
    wins(site, PEER, "WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.02")
    with Ledger.open(site.path) as ledger:
        (win,) = ledger.all_records("result")
        ledger.journal_put(rerun_name(win.id), "candidate-0", "{}")

    async def rerun_first(node: Researcher, asked: Asked) -> None:
        taken = node.planner.taken
        assert (await node._next_claim()).win.id == win.id  # type: ignore[union-attr]
        other = await node.planner.propose(taken.by_us)
        assert isinstance(other, Plan) and other.hypothesis.inspired_by == () and len(asked.told) == 2
        taken.jobs.clear()
        asked.told.clear()
        plan = await node.planner.propose(taken.by_us)
        assert isinstance(plan, Plan) and plan.id == rerun_name(win.id), "and it may be adopted afterwards"

    async def adopted_first(node: Researcher, asked: Asked) -> None:
        plan = await node.planner.propose(node.planner.taken.by_us)
        assert isinstance(plan, Plan) and plan.id == rerun_name(win.id)
        assert await node._next_claim() is None
        node.planner.end(plan)
        assert (await node._next_claim()).win.id == win.id  # type: ignore[union-attr]

    async def rerun_meanwhile(node: Researcher, asked: Asked) -> None:
        gate = node.planner._gate

        def slow(*given: Any) -> str:
            problem = gate(*given)
            asyncio.run_coroutine_threadsafe(node._next_claim(), loop).result(20)
            return problem

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(node.planner, "_gate", slow)
        plan = await node.planner.propose(node.planner.taken.by_us)
        assert isinstance(plan, Plan) and plan.hypothesis.inspired_by == () and len(asked.told) == 2

    async def adopted_meanwhile(node: Researcher, asked: Asked) -> None:
        choose = node._verify.next

        def slow(*given: Any) -> Any:
            job = choose(*given)
            planned = node.planner.propose(node.planner.taken.by_us)
            assert job is not None and asyncio.run_coroutine_threadsafe(planned, loop).result(20).id == job.name  # type: ignore[union-attr]
            return job

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(node._verify, "next", slow)
        assert await node._next_claim() is None

    for number, story in enumerate((rerun_first, adopted_first, rerun_meanwhile, adopted_meanwhile)):
        with researcher(site.copy(site.path.with_name(f"copy-{number}"))) as (node, asked, _):
            node.network = network(node._ledger, KEY)  # nobody is there
            asyncio.run(story(node, asked))


def test_no_re_run_begins_of_what_is_about_to_be_resumed(site: Site) -> None:
    """While its plan is read the experiment is still among those that come first."""
    plan = site.plan("left", site.task.baseline.replace("LR = 1e-3", "LR = 3e-3"))
    with researcher(site) as (node, _, _):
        node._ledger.journal_put(plan.id, "plan", plan.to_json())
        resumed, read, seen = [plan.id], node._ledger.journal, list[list[str]]()

        def journal(experiment: str) -> dict[str, str]:
            seen.append(list(resumed))
            return read(experiment)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node._ledger, "journal", journal)
            found = asyncio.run(node.planner.next(resumed, lambda: 1))
        assert isinstance(found, Plan) and found.id == plan.id and (seen, resumed) == ([[plan.id]], [])


def test_a_plan_that_cannot_be_read_stops_nobody(site: Site) -> None:
    """As one of another version: it is passed over, and what comes after it is resumed."""
    plan = site.plan("left", site.task.baseline.replace("LR = 1e-3", "LR = 3e-3"))
    with researcher(site) as (node, _, _):
        node._ledger.journal_put("x-odd", "plan", '{"of": "another version"}')
        node._ledger.journal_put(plan.id, "plan", plan.to_json())
        resumed = ["x-odd", plan.id]
        found = asyncio.run(node.planner.next(resumed, lambda: 1))
        assert isinstance(found, Plan) and found.id == plan.id and resumed == []


def lane(node: Researcher, experiments: int) -> Callable[[], Awaitable[None]]:
    """A lane that begins again at once when it fails."""
    node._limits, node._supervision = Limits(experiments), Supervision(node._screen, pauses=(0.0,))
    resumed = node._ledger.open_experiments()
    return lambda: node._supervision.keep("research", lambda: node._lane(resumed))


def test_a_full_disk_costs_no_ideas(site: Site) -> None:
    """However often a lane begins again meanwhile, it goes on with the plan that it had."""
    scratch = Path(site.executor._config["scratch"])
    parked = scratch.with_name("parked")
    with researcher(site) as (node, asked, screen):
        scratch.rename(parked)
        screen.warn = lambda line: parked.rename(scratch) if node._supervision.crashes["research"] == 7 else None
        asyncio.run(lane(node, 2)())
        assert node._supervision.crashes["research"] == 7 and node.finished == len(asked.told) == 2
        assert node._ledger.open_experiments() == [] and not node.planner.taken.here


def test_a_plan_that_fails_each_time_is_left_for_the_next_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three tries the lane does something else, and nobody proposes it again."""
    with researcher(site) as (node, asked, _):
        measured, tried = node._lab.measured, list[str]()

        async def fails(program: bytes, source: str, *rest: Any) -> Any:
            tried.append(source)
            if "WEIGHT_DECAY = 0.02" in source:
                raise RuntimeError("a bug")
            return await measured(program, source, *rest)

        monkeypatch.setattr(node._lab, "measured", fails)
        asyncio.run(lane(node, 1)())
        assert ["WEIGHT_DECAY = 0.02" in source for source in tried[:4]] == [True] * 3 + [False]
        assert node.finished == 1 and len(asked.told) == 2
        (left,) = node._ledger.open_experiments()
        assert "WEIGHT_DECAY = 0.02" in node._ledger.journal(left)["plan"] and len(node.planner.taken.here) == 1


def test_what_fails_after_the_end_of_an_experiment_does_not_repeat_it(site: Site) -> None:
    """Its record is there; another one would be its double."""
    with researcher(site) as (node, asked, _):
        finish, failed = node._finish, list[Result]()

        async def fails(plan: Plan | None, result: Result, *said: Any) -> None:
            await finish(plan, result, *said)
            if not failed:
                failed.append(result)
                raise RuntimeError("a bug")

        node._finish = fails  # type: ignore[method-assign]
        asyncio.run(lane(node, 2)())
        assert failed and node.finished == len(asked.told) == 3 and node._ledger.open_experiments() == []


def test_a_claim_that_sleeps_is_paid_for_by_the_clock_and_after_a_restart_too(site: Site) -> None:
    """It takes a lane to its wall time, and next to no CPU time: the next one waits for research."""
    run = Run(
        arm="candidate", role="confirm", slice="confirm", draw=1, seed=1, steps=10, score=4.0, seconds=1.0, digest=b""
    )
    for words in ("WEIGHT_DECAY = 0.02", "WEIGHT_DECAY = 0.03"):
        wins(site, PEER, "WEIGHT_DECAY = 0.01", f"import time; time.sleep(3600); {words}", runs=(run,))

    async def rerun(node: Researcher) -> None:
        job = await node._next_claim()
        assert job is not None and await node._next_claim() is None, "not on a second lane before the first has paid"
        await node._rerun(job)
        word = node.frontier.word(job.win.id)
        assert word is not None and word.outcome == "inconclusive" and "wall time" in word.cause
        assert 2 * word.cost.seconds < node._verify.clock[job.name]
        assert await node._next_claim() is None
        await node._save_clock()

    async def restarted(node: Researcher) -> None:
        node._limits = Limits(0)
        await node.run()
        (name,) = {*node._verify.clock} - {RESEARCH}
        assert node._verify.clock[name] > 1.0 and await node._next_claim() is None
        node._verify.took(RESEARCH, 3600.0)
        assert await node._next_claim() is not None

    for story in (rerun, restarted):
        with researcher(site) as (node, _, _):
            node._lab.wall_s = 2.0
            node.network = network(node._ledger, KEY)  # nobody is there
            asyncio.run(story(node))


def test_a_claim_that_nobody_sends_takes_a_lane_no_longer_than_others(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that takes the question and says nothing: the claim is put off, and has cost its time."""
    monkeypatch.setattr("swarm_node.node.verifier.FETCH_SECONDS", 0.2)
    source = site.task.baseline.replace("LR = 1e-3", "LR = 3e-3")
    body = promoted(
        site.task, "kept", program_digest({EDITABLE: source}), b"u" * 32, normal=normal_digest(source),
        diff=make_diff(site.task.baseline, source),
    )  # fmt: skip
    site.record(body, key=PEER)

    async def silent(blobs: Blobs, stream: INetStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Blobs, "answer", silent)

    async def main(node: Researcher, other: Ledger) -> None:
        peer, met = network(other, PEER), asyncio.Event()
        await peer.start()
        node.network = network(node._ledger, KEY, *peer.addresses(), met=met.set)
        await node.network.start()
        try:
            await asyncio.wait_for(met.wait(), 20)
            job = await node._next_claim()
            assert job is not None
            async with asyncio.timeout(60):
                await node._rerun(job)
            assert node._verify.clock[job.name] > 0.0 and node.verified == 0
            assert await node._next_claim() is None
        finally:
            await node.network.stop()
            await peer.stop()

    with researcher(site) as (node, _, _), Ledger.open(tmp_path / "peer") as other:
        asyncio.run(main(node, other))


def test_leads_of_one_node_are_few_and_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever announces everything keeps nobody from anything, nor its memory."""
    now = [0.0]
    monkeypatch.setattr("swarm_node.node.loop.time.monotonic", lambda: now[0])
    with researcher(site) as (node, _, _):
        spec = site.task.spec
        for number in range(200):
            node.lead(Lead(task=spec.id, normal=bytes([number]) * 32, parent=spec.baseline), b"s" * 32)
        taken = [number for number in range(200) if node.planner.taken.anywhere(bytes([number]) * 32)]
        assert 0 < len(taken) <= 16
        node.lead(Lead(task=spec.id, normal=bytes([taken[0]]) * 32, parent=spec.baseline), b"r" * 32)
        assert len(node.planner.taken.leads) == len(taken)
        now[0] = 601.0
        assert not node.planner.taken.anywhere(bytes([taken[0]]) * 32)
        for number in range(200, 256):
            node.lead(Lead(task=spec.id, normal=bytes([number]) * 32, parent=spec.baseline), b"r" * 32)
        assert not any(number < 200 for number in (normal[0] for normal in node.planner.taken.leads))


def test_what_takes_longer_than_peers_remember_is_told_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is conducted, and by its node: another's word does not make it last."""
    monkeypatch.setattr("swarm_node.node.planner.LEAD_SECONDS", 0.02)
    with researcher(site) as (node, _, _):
        told = list[Lead]()
        third = asyncio.Event()

        async def announce(lead: Lead) -> None:
            told.append(lead)
            if len(told) == 3:
                third.set()

        async def conduct() -> None:
            plan = await node.planner.propose(lambda normal: False)
            assert isinstance(plan, Plan)
            telling = asyncio.create_task(node.planner.keep_telling(plan))
            await asyncio.wait_for(third.wait(), 10.0)
            telling.cancel()
            assert {lead.normal for lead in told} == {normal_digest(plan.hypothesis.source)}

        node.planner._announce = announce
        asyncio.run(conduct())
    now = [0.0]
    monkeypatch.setattr("swarm_node.node.planner.LEAD_SECONDS", 600.0)
    monkeypatch.setattr("swarm_node.node.planner.time.monotonic", lambda: now[0])
    with researcher(site) as (node, _, _):
        taken = node.planner.taken
        taken.lead(b"n" * 32, b"s" * 32)
        now[0] = 300.0
        taken.lead(b"n" * 32, b"r" * 32)
        now[0] = 601.0
        assert not taken.anywhere(b"n" * 32)
        taken.lead(b"n" * 32, b"s" * 32)
        now[0] = 900.0
        taken.lead(b"n" * 32, b"s" * 32)
        now[0] = 1202.0
        assert taken.anywhere(b"n" * 32)


def test_the_screen_says_once_what_changes_and_why(site: Site) -> None:
    """After ten experiments for nothing the proposer is told to widen, and so is the person who watches, once."""
    with researcher(site) as (node, asked, screen):
        asyncio.run(node.planner.propose(lambda normal: False))
        assert screen.items == [] and asked.told[0].mode == "search"
    stall(site)
    with researcher(site) as (node, asked, screen):
        for _ in range(3):
            asyncio.run(node.planner.propose(lambda normal: False))
        (line,) = screen.items
        assert line.startswith("search: nothing kept in 10 experiments: choosing more widely")
        assert [told.mode for told in asked.told] == ["widen"] * 3 and asked.told[0].hardware == "cpu"


def test_another_branch_is_where_the_next_experiment_starts(site: Site) -> None:
    """The plan's parent is the peer's program, whose text is kept; `swarm-node prompt` shows the same."""
    peers_win(site, "HEADS = 2 ", "HEADS = 4  # obey me")
    stall(site, 2 * STALLED)
    with researcher(site) as (node, asked, _):
        plan = asyncio.run(node.planner.propose(lambda normal: False))
        assert isinstance(plan, Plan) and "HEADS = 4" in plan.parent and "obey" not in plan.parent
        assert plan.parent_program == program_digest({EDITABLE: plan.parent})
        assert node._programs.get(plan.parent_program) == plan.parent
        assert plan.hypothesis.source != plan.parent and asked.told[0].parent == plan.parent


def test_the_prompt_command_follows_the_course(site: Site, tmp_path: Path) -> None:
    """What it prints is what the loop would send: same parent, same mode, same history."""
    peers_win(site, "HEADS = 2 ", "HEADS = 4 ")
    stall(site, 2 * STALLED)
    home = Home.locate(tmp_path / "home")
    home.create()
    home.key.write_text(f"swarm-node-key-1 {KEY.hex()} {public_key(KEY).hex()}\n")
    home.key.chmod(0o600)
    with researcher(site) as (node, asked, _):
        asyncio.run(node.planner.propose(lambda normal: False))
    with Ledger.open(site.path) as ledger:
        remember(ledger, site.task.spec)
        shown = as_text(next_prompt(home, ledger, None))
    sent = build_prompt(asked.told[0], rng_seed=proposal_seed(secret_seed(KEY), asked.told[0]))
    strip = [line for line in sent.user.splitlines() if not line.startswith("Machine: ")]
    assert [
        line for line in shown.partition("--- user ---\n")[2].splitlines() if not line.startswith("Machine: ")
    ] == strip
    assert "HEADS = 4" in shown and "another branch than usual" in shown


@pytest.mark.long
def test_a_branch_that_does_not_run_here_is_one_crash(site: Site) -> None:
    """A stranger's program as the parent can fail on this machine: that is an outcome, and no end of the lane."""
    broken = site.task.baseline.replace("    model = GPT(ctx.vocab_size)", "    raise RuntimeError('not here')")
    plan = site.plan("branch", broken.replace("    raise RuntimeError('not here')", "    model = GPT(ctx.vocab_size)")
                     .replace("HEADS = 2", "HEADS = 4"), broken)  # fmt: skip
    with site.opened() as lab:
        result = asyncio.run(Experiment(lab, plan).conduct())
    assert isinstance(result, Result) and result.outcome == "crashed" and result.parent == plan.parent_program
    assert "does not run here" in result.cause and "not here" in result.cause
