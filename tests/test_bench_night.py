"""What scripts/bench_night.py works out of records and samples."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sys
from pathlib import Path
from statistics import fmean
from typing import cast

import pytest
from swarm_node.node.trace import unsupported
from swarm_node.protocols.diffs import EDITABLE
from swarm_node.protocols.errors import NetworkError
from swarm_node.protocols.records import Cost, Record, Result, Verification, parse_record
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.ledger import Entry, Ledger
from swarm_node.swarm.net import Network
from swarm_node.trainer import task as tasks

from .swarm.logs import BASELINE, KEYS, TASK, Log, check, result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import bench_liar
import night_arms
import night_measures as measures
import night_nodes
import night_report


def entries(*records: Record, late: int = 0) -> list[Entry]:
    """The ledger of a node that heard of each record `late` ms after it was signed."""
    return [Entry(row, record.time + late, record) for row, record in enumerate(records, 1)]


# ---- numbers


def test_a_mean_has_its_interval_by_students_t() -> None:
    found = measures.mean_of([1.0, 2.0, 3.0])
    assert found.value == 2.0 and found.half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert math.isnan(measures.mean_of([1.0]).half) and str(measures.mean_of([1.0])) == "1.0000"
    assert measures.mean_of([]).n == 0


def test_a_centile_is_a_value_that_was_seen() -> None:
    assert [measures.centile([4.0, 1.0, 3.0, 2.0], share) for share in (0.25, 0.5, 0.99)] == [1.0, 2.0, 4.0]
    assert math.isnan(measures.centile([], 0.5))


# ---- compute


def test_compute_between_samples_is_in_proportion_and_ends_with_the_last() -> None:
    times, spent = [1000, 2000, 4000], [0.0, 10.0, 30.0]
    assert [measures.compute_at(ms, times, spent) for ms in (0, 1000, 1500, 3000, 9000)] == [0.0, 0.0, 5.0, 20.0, 30.0]


def test_the_curve_is_the_lowest_own_best_of_all_nodes() -> None:
    """It rises again when the node that had it takes its best back."""
    bests = [[(0, 3.0), (2000, 2.5), (4000, 2.9)], [(1000, 3.1), (3000, 2.7)]]
    curve = measures.best_curve(bests, [0, 10_000], [0.0, 100.0])
    assert curve == [(0.0, 3.0), (20.0, 2.5), (40.0, 2.7)]


def test_compute_to_an_equal_score_is_to_the_best_that_both_reach() -> None:
    one: measures.Curve = [(10.0, 3.0), (50.0, 2.5), (90.0, 2.0)]
    other: measures.Curve = [(5.0, 3.0), (80.0, 2.4)]
    assert measures.compute_to(one, 2.6) == 50.0 and measures.compute_to(other, 2.0) is None
    assert measures.equal_score(one, other) == (2.4, 90.0, 80.0)
    assert measures.equal_score(one, []) is None
    assert measures.value_at(one, 60.0) == 2.5 and measures.value_at(one, 5.0) is None


def test_an_own_best_follows_own_records_only() -> None:
    """A peer's win is a claim; an own win that is refuted here leaves the best."""
    ann, bob = Log(KEYS[0]), Log(KEYS[1])
    base = ann.say(result("discarded", 0).model_copy(update={"outcome": "baseline", "parent": None, "score": 3.5}))
    win = ann.say(result("kept", 1, score=3.1))
    claim = bob.say(result("kept", 2, score=1.0))
    back = ann.say(check(win, "refuted"))
    found = measures.own_bests(entries(base, claim, win, back), ann.author, TASK, BASELINE)
    assert found == [(1, 3.5), (2, 3.1), (3, 3.5)]


def test_a_run_is_accounted_for_once_though_it_is_journaled_twice() -> None:
    """Pairs are noise too; a measurement of a step's cost takes what it takes; a plan is no run."""
    run, other = (json.dumps({"status": "ok", "cpu_s": cpu, "eval_cpu_s": 0.5}) for cpu in (2.0, 3.0))
    account = night_nodes.Account()
    account.take([(1, "x-1", "plan", '{"cpu_s": 9}'), (2, "x-1", "candidate-0", run), (3, "noise-t-p", "17", run)])
    account.take([(4, "noise-t-p", "18", other), (5, "cost-aa", "cost", "{}"), (6, "x-1", "done", "ff")])
    account.take([(7, "cost-bb", "rough", "{}"), (8, "cost-bb", "screened", "{}")])
    assert (account.runs, account.runs_s, account.calibrations) == (2, 6.0, 2)
    assert account.cpu_s == 6.0 + 5 * 0.6


def test_an_account_is_read_from_a_ledger_while_it_grows(tmp_path: Path) -> None:
    account, path = night_nodes.Account(), tmp_path / "ledger.sqlite3"
    with Ledger.open(path) as ledger:
        for cpu in (1.0, 2.0):
            ledger.journal_put(f"x-{cpu}", "screen", json.dumps({"status": "ok", "cpu_s": cpu}))
            account.read(path)
    assert account.cpu_s == 3.0


# ---- counts


def test_counts_tell_honest_work_from_lies() -> None:
    ann, bob, lia = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    bob.seq, lia.seq = 10, 20
    win = ann.say(result("kept", 1, cost=Cost(seconds=5.0)))
    ann.say(result("discarded", 4))
    twice = bob.say(result("discarded", 4, cost=Cost(seconds=2.0)))
    rerun = bob.say(check(win, "confirmed", cost=Cost(seconds=3.0)))
    adopted = bob.say(result("kept", 1, inspired_by=(win.id,), cost=Cost(seconds=4.0)))
    lie = lia.say(result("kept", 9))
    false = lia.say(check(win, "fabricated"))
    caught = bob.say(check(lie, "fabricated", cost=Cost(seconds=1.0)))
    first = ann.say(result("discarded", 5))
    records = [win, twice, rerun, adopted, lie, false, caught, first, Log(KEYS[0]).say(result("discarded", 4))]
    found = measures.count(records, {ann.author, bob.author})
    assert found["experiments"] == 5 and found["kept"] == 2 and found["duplicates"] == 1
    assert found["verification_cpu_s"] == 4.0 and found["lies_checked_cpu_s"] == 1.0
    assert found["adoption_tries"] == 1 and found["adoption_cpu_s"] == 4.0
    assert found["rerun_confirmed"] == 1 and found["lies_refuted"] == 1 and found["lies_fabricated"] == 1
    assert measures.built_on(records, {ann.author, bob.author}) == 0


def test_a_result_on_top_of_a_lie_contains_it() -> None:
    ann, lia = Log(KEYS[0]), Log(KEYS[2])
    lie = lia.say(result("kept", 9))
    fooled = ann.say(result("kept", 9, inspired_by=(lie.id,)))
    assert measures.built_on([lie, fooled], {ann.author}) == 1


# ---- how things spread


def test_delays_are_of_others_records_and_only_where_a_node_was_up() -> None:
    ann, bob, lia = Log(KEYS[0]), Log(KEYS[1]), Log(KEYS[2])
    one, two, lie = ann.say(result("discarded", 1)), ann.say(result("discarded", 2)), lia.say(result("discarded", 3))
    ledgers = {ann.author: entries(one, two, lie), bob.author: entries(one, two, lie, late=7)}
    honest = {ann.author, bob.author}
    assert measures.delays(ledgers, {ann.author: 0, bob.author: 0}, honest) == [7, 7]
    assert measures.delays(ledgers, {ann.author: 0, bob.author: 2}, honest) == [7]


def test_ledgers_have_converged_when_none_lacks_what_was_signed_until_then() -> None:
    ann, bob = Log(KEYS[0]), Log(KEYS[1])
    one, two = ann.say(result("discarded", 1)), ann.say(result("discarded", 2))
    ledgers = {ann.author: entries(one, two), bob.author: entries(one)}
    assert measures.missing(ledgers, 1) == {ann.author: 0, bob.author: 0}
    assert measures.missing(ledgers, 2) == {ann.author: 0, bob.author: 1}


def test_adoption_times_run_from_the_first_record_of_a_program() -> None:
    logs = [Log(KEYS[number]) for number in range(5)]
    logs[0].seq = 999
    win = logs[0].say(result("kept", 1))
    checked = logs[1].say(check(win, "confirmed"))
    for number, log in enumerate(logs[1:4], 1):
        log.seq = 1000 + 1000 * number
    adopted = [log.say(result("kept", 1, inspired_by=(win.id,))) for log in logs[1:4]]
    (spread,) = measures.spreads([*adopted, checked, win], {log.author for log in logs})
    assert spread.result == win.id and spread.state == "confirmed" and spread.others == 4
    assert spread.adopted == (1.001, 2.001, 3.001)
    assert spread.until(0.5) == 2.001 and spread.until(0.9) is None


# ---- the staircase


def test_what_survives_is_the_real_gain_over_the_claimed_one() -> None:
    found = measures.survival(0.4, [3.0, 3.2], [2.9, 2.9])
    assert found.real == pytest.approx(0.2) and found.share == pytest.approx(0.5)
    assert found.error == pytest.approx(0.1)
    assert measures.surviving_steps([[3.0], [2.8, 3.0], [2.95]]) == (1, 2)
    assert measures.surviving_steps([[3.0]]) == (0, 0)


# ---- the folder and the liar


def test_other_settings_do_not_mix_with_what_is_there(tmp_path: Path) -> None:
    plan = night_arms.Plan(tmp_path, "compare", {"size": "25"}, "bpb")
    plan.write({"arm": "solo"})
    assert night_arms.Plan(tmp_path, "compare", {"size": "25"}, "bpb").done() == [{"arm": "solo"}]
    with pytest.raises(SystemExit, match="size"):
        night_arms.Plan(tmp_path, "compare", {"size": "60"}, "bpb")
    assert night_report.report(tmp_path / "x").endswith("no finished arm")


def test_the_report_says_what_a_member_gets(tmp_path: Path) -> None:
    """Of real nights: the mean of every node's own best, and the difference in pairs; a dash where nobody asked."""
    nights = Path(__file__).resolve().parent.parent / "docs" / "nights"
    for name in ("n8-members", "n8"):
        shutil.copytree(nights / name, tmp_path / name)
    lines = [json.loads(line) for line in (tmp_path / "n8-members" / "compare.jsonl").read_text().splitlines()]
    members = [(one["arm"], fmean(one["members"].values())) for one in lines]
    solo, private = (fmean(value for arm, value in members if arm == which) for which in ("solo", "private"))
    text = night_report.report(tmp_path / "n8-members")
    assert f"| {solo:.4f} ±" in text and f"| {private - solo:+.4f} ±" in text
    assert "| swarm | 2 | -0.0684 ± 1.5309 | – |" in night_report.report(tmp_path / "n8")


def test_a_lie_is_a_program_of_its_own_that_does_the_same() -> None:
    source = "DEPTH = 2\nLR = 1e-3  # rate\nx = LR\n"
    lie = bench_liar.harmless(source, "A_1")
    assert "UNUSED_A_1 = 0" in lie and lie.replace("UNUSED_A_1 = 0\n", "") == source
    assert program_digest({EDITABLE: lie}) != program_digest({EDITABLE: source})


def test_liars_deny_honest_wins_claim_their_own_and_confirm_each_other(tmp_path: Path) -> None:
    """All of it in records that honest nodes accept."""
    work, now = tasks.load("gpt-cpu", "25", bytes(32)), 10**12
    honest = Log(KEYS[0]).say(result("kept", 1))
    with Ledger.open(tmp_path / "one") as one, Ledger.open(tmp_path / "two") as two:
        liar, friend = (bench_liar.Liar(index, 2, "g", work, ledger) for index, ledger in enumerate((one, two)))
        network = cast(Network, NoPeers())
        lie = lambda who: asyncio.run(who.lie(network))  # noqa: E731
        assert lie(liar) is None  # nobody to imitate yet
        liar.heard(honest)
        denial = lie(liar)
        assert isinstance(denial, Verification) and denial.result == honest.id
        assert denial.outcome in ("refuted", "fabricated")
        claim = lie(liar)
        assert isinstance(claim, Result) and claim.outcome == "kept" and claim.environment.hardware == "cpu"
        assert unsupported(claim, work.spec) == ""  # its numbers follow from its runs
        assert lie(liar) is None  # no more than an honest node says
        records = one.append_all(liar.seed, [denial, claim], now_ms=now)
        assert [parse_record(record.to_bytes(), now_ms=now) for record in records] == records
        friend.heard(honest)
        friend.heard(records[1])
        said = [lie(friend) for _ in range(2)]
        assert isinstance(said[1], Verification) and said[1].outcome == "confirmed" and said[1].result == records[1].id


def test_a_liar_is_as_good_as_the_program_that_all_start_from(tmp_path: Path) -> None:
    """Before anybody won: what it claims is better than the baseline is by a few percent, as a real win would be."""
    work = tasks.load("gpt-cpu", "25", bytes(32))
    baseline = Log(KEYS[0]).say(result("baseline", 0, None, score=2.9))
    assert isinstance(baseline.body, Result) and baseline.body.score is not None
    with Ledger.open(tmp_path / "one") as ledger:
        liar = bench_liar.Liar(0, 1, "g", work, ledger)
        liar.heard(baseline)
        claim = asyncio.run(liar.lie(cast(Network, NoPeers())))
    assert isinstance(claim, Result) and claim.parent_score == pytest.approx(baseline.body.score, rel=0.01)
    assert 0 < baseline.body.score - (claim.score or 0) < 0.08 * baseline.body.score


class NoPeers:
    """A network without anybody who could have a program."""

    async def fetch(self, digest: bytes) -> bytes:
        raise NetworkError("no peer has it")
