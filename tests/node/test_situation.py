"""What proposers are told of the frontier, and what may be tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.noise import run_to_json
from swarm_node.node.programs import Programs
from swarm_node.node.replay import _subject
from swarm_node.node.show import diff_text
from swarm_node.node.situation import MAX_CURVES, MAX_OF_STRANGER, build
from swarm_node.node.tasks import remember
from swarm_node.protocols.diffs import EDITABLE, make_diff, normal_digest
from swarm_node.protocols.records import Environment, Evidence, Record, Result, Run, Verification, sign_record
from swarm_node.protocols.signing import public_key
from swarm_node.protocols.task import program_digest
from swarm_node.swarm.frontier import Frontier
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks
from swarm_node.trainer.types import RunResult

from .history import BASE, ENVIRONMENT, History

OWN, PEER = b"o" * 32, b"p" * 32
TASK = tasks.load("gpt-cpu", "short", bytes(32))
FASTER = TASK.baseline.replace("LR = 1e-3", "LR = 3e-3")
WIDER = TASK.baseline.replace("WIDTH = 64", "WIDTH = 96")
RUN = Run(
    arm="candidate", role="confirm", slice="confirm", draw=1, seed=1, steps=9, score=3.0, seconds=1.0, digest=bytes(32)
)

EVIDENCE = Evidence(pairs=4, required=0.0, low=0.1, high=0.2, e_value=99.0, level=0.05)


def win(key: bytes, seq: int, parent: str, source: str, prev: Record | None = None) -> Record:
    fields: dict[str, Any] = {
        "task": TASK.spec.id, "outcome": "kept", "program": program_digest({EDITABLE: source}),
        "parent": program_digest({EDITABLE: parent}), "normal": normal_digest(source),
        "diff": make_diff(parent, source),
        "title": "t", "score": 3.0, "gain": 0.1, "runs": (RUN,), "evidence": EVIDENCE, "proposer": "llm",
        "environment": Environment(hardware="cpu", device="d", system="s", python="3", library="t"),
    }  # fmt: skip
    body = Result.model_validate(fields)
    return sign_record(key, epoch=0, seq=seq, prev=prev.id if prev else None, time=1, body=body)


def situation(records: list[Record], programs: dict[str, str] | None = None, **taken: Any) -> Any:
    frontier = Frontier(public_key(OWN), TASK.spec.id, TASK.spec.baseline)
    for record in records:
        frontier.add(record)
    sources = {program_digest({EDITABLE: source}): source for source in (TASK.baseline, FASTER, WIDER)}
    return build(TASK, "m", frontier, sources[frontier.best_program], None, lambda digest: None, **taken)


def test_a_peers_lead_does_not_hide_its_win() -> None:
    """What a peer announced and then won with is to be re-run here at once; what runs here already is not."""
    records = [win(PEER, 1, TASK.baseline, FASTER)]
    (idea,) = situation(records, taken=lambda normal: True).ideas
    assert idea.source == FASTER and not idea.own
    assert situation(records, taken_here=lambda normal: normal == normal_digest(FASTER)).ideas == ()


def test_an_own_win_beside_the_best_is_offered_on_top_of_it() -> None:
    """Two lanes won from one parent: the second win becomes an idea for the program that contains the first."""
    first = win(OWN, 1, TASK.baseline, FASTER)
    (idea,) = situation([first, win(OWN, 2, TASK.baseline, WIDER, first)]).ideas
    assert idea.own and idea.source == FASTER.replace("WIDTH = 64", "WIDTH = 96")


def test_a_win_that_failed_twice_here_is_not_offered_a_third_time() -> None:
    """Each own win makes a peer's idea a new program; two failures are enough of it."""
    won = win(PEER, 1, TASK.baseline, FASTER)
    body = won.body.model_copy(
        update={
            "outcome": "discarded",
            "diff": None,
            "inspired_by": (won.id,),
            "normal": b"n" * 32,
            "proposer": "offline",
        }
    )
    first = sign_record(OWN, epoch=0, seq=1, prev=None, time=1, body=body)
    second = sign_record(OWN, epoch=0, seq=2, prev=first.id, time=1, body=body)
    assert len(situation([won, first]).ideas) == 1
    assert situation([won, first, second]).ideas == ()


def test_curves_come_from_the_journal_for_the_newest_own_experiments() -> None:
    """Half time and end of the screening run, the repeated one where there was one; of twenty experiments at most."""
    history = History()
    records = [history.tried(OWN, TASK.baseline, f"x = {n}\n") for n in range(MAX_CURVES + 5)]
    history.tried(PEER, TASK.baseline, "x = 0.5\n")
    asked: list[bytes] = []

    def journal(record: bytes) -> dict[str, str]:
        asked.append(record)
        run = RunResult("ok", "", {"screen": 3.2, "probe": 3.3}, 3.5, 9, 1.0, 1.0, 0.1, 1, (), (), "", "")
        again = replace(run, probe=3.4, scores={"screen": 3.2, "probe": 3.1})
        both = {"screen": run_to_json(run), "screen-again": run_to_json(again)}
        killed = {"screen": run_to_json(replace(run, status="killed", scores={}))}
        return killed if record == records[-1].id else both if record == records[-2].id else {"screen": both["screen"]}

    trials = history.situation(journal=journal).trials
    assert asked == [record.id for record in records[5:]]
    assert [trial.curve for trial in trials[:5]] == [None] * 5 and trials[5].curve == (3.5, 3.3)
    assert [trial.curve for trial in trials[-3:]] == [(3.4, 3.1), None, None]


@pytest.mark.parametrize("parent_is_here", [True, False])
def test_programs_are_rebuilt_from_their_diffs(tmp_path: Path, parent_is_here: bool) -> None:
    """A kept result whose parent is here gives back its program, which then lies in the ledger."""
    middle, last = win(PEER, 1, TASK.baseline, FASTER), win(PEER, 2, FASTER, FASTER + "\nX = 1\n")
    assert isinstance(middle.body, Result) and isinstance(last.body, Result)
    with Ledger.open(tmp_path / "ledger") as ledger:
        programs = Programs(ledger, TASK.baseline)
        if parent_is_here:
            assert programs.rebuild(middle.body) == FASTER
        assert programs.rebuild(last.body) == (FASTER + "\nX = 1\n" if parent_is_here else None)
        assert (programs.get(last.body.program) is not None) == parent_is_here


@pytest.mark.parametrize("where", ["program", "parent"])
def test_a_record_may_name_what_is_no_program(tmp_path: Path, where: str) -> None:
    """As a peer's that names the task, which everybody holds: it stopped all research, and every start after it."""
    with Ledger.open(tmp_path / "ledger") as ledger:
        remember(ledger, TASK.spec)
        programs = Programs(ledger, TASK.baseline)
        kept = win(PEER, 1, TASK.baseline, FASTER).body.model_copy(update={where: TASK.spec.id})
        assert isinstance(kept, Result) and programs.rebuild(kept) is None and programs.get(TASK.spec.id) is None
        assert diff_text(kept.model_copy(update={"diff": None}), ledger).startswith("(the diff")


@pytest.mark.parametrize("stored", [0, 1, 2])
def test_replay_makes_programs_anew_without_storing_them(tmp_path: Path, stored: int) -> None:
    """A node that only listens has the records of a peer's two wins; its ledger is opened for reading alone."""
    first = win(PEER, 1, TASK.baseline, FASTER)
    sources = (FASTER, FASTER + "\nX = 1\n")
    second = win(PEER, 2, *sources, first)
    with Ledger.open(tmp_path / "ledger") as ledger:
        for record in (first, second):
            ledger.add(record, received_ms=1)
        for source in sources[:stored]:
            Programs(ledger, TASK.baseline).store(source)
    with Ledger.open(tmp_path / "ledger", read_only=True) as ledger:
        subject = _subject(second, ledger, TASK)
        assert (subject.beaten, subject.source) == sources
        assert isinstance(second.body, Result)
        assert (ledger.get_blob(second.body.program) is not None) == (stored == 2)


def test_of_a_stranger_only_the_newest_experiments_are_learned_from() -> None:
    """Else one identity could outweigh everybody: not so who was found right here, nor anybody in quarantine at all."""
    history = History()
    for number in range(MAX_OF_STRANGER + 20):
        history.tried(PEER, BASE, f"A = {number}\n")
    history.tried(OWN, BASE, "B = 1\n")
    told = history.situation().trials
    assert sum(not trial.own for trial in told) == MAX_OF_STRANGER and told[-1].own
    win = history.won(PEER, BASE, FASTER)
    history.judged(win, key=OWN)
    assert sum(not trial.own for trial in history.situation().trials) == MAX_OF_STRANGER + 21
    made_up = history.won(PEER, BASE, WIDER)
    history.add(
        OWN,
        Verification(
            task=TASK.spec.id, result=made_up.id, outcome="fabricated", environment=ENVIRONMENT,
            runs=(RUN.model_copy(update={"role": "replay"}),),
        ),
    )  # fmt: skip
    assert [trial.own for trial in history.situation().trials] == [True]
