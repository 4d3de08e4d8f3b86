"""Which claim this node re-runs next.

Rendezvous hashing names the verifiers of a claim among the nodes that are here, so that the work per node stays
constant while the swarm grows. A bounded share of the node's time goes there, and all claims by authors of whom nothing
was found true here yet share a slice of it, so that inventing identities wastes a bounded budget. Both are counted in
CPU time and by the clock: a program that sleeps, or a claim that cannot be fetched, costs a lane and no CPU time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from ..swarm.frontier import Find, Frontier, Win
from ..swarm.verifiers import VERIFIERS, is_chosen

SHARE = 0.2  # of this node's time for re-running others' claims
NEWCOMERS = 0.5  # of that share, for claims by authors of whom nothing was found true here yet
PATIENCE_RUNS = 40.0  # a claim without a verdict gets one more verifier each time that so many runs could be done
TRANSFER_VERIFIERS = 1
RESEARCH = "research"
Setting = Literal["same", "wider"]


@dataclass(frozen=True)
class Job:
    """A re-run that this node is to do."""

    win: Win
    setting: Setting

    @property
    def name(self) -> str:
        """Of its journal. An adoption of the same program from the same parent goes on with the same pairs."""
        return rerun_name(self.win.id) if self.setting == "same" else f"w-{self.win.id.hex()}"


def rerun_name(result: bytes) -> str:
    """The journal entry of this node's own re-run of a result."""
    return f"v-{result.hex()}"


class Queue:
    """Which claim this node re-runs next, as a function of the records, of who is here, and of its own time so far."""

    def __init__(self, frontier: Frontier, hardware: str, share: float, run_seconds: Callable[[], float]) -> None:
        """`hardware`: class of this machine's runs. `run_seconds`: what one run takes here by now, waiting included:
        who shares its cores with many must not think that others are late."""
        self._frontier, self._hardware, self._share = frontier, hardware, share
        self._run_seconds = run_seconds
        self._heard: dict[bytes, float] = {}  # when a claim came, by a clock that nobody else sets
        self._postponed: dict[bytes, float] = {}  # claims whose programs nobody had, until when
        self._begun: dict[str, float] = {}  # jobs that run, and what they take at least
        self.clock: dict[str, float] = {}  # seconds that lanes were busy: by name of the job, and with RESEARCH

    def heard(self, result: bytes, at: float) -> None:
        """A claim came."""
        self._heard.setdefault(result, at)

    def postpone(self, job: Job, now: float, for_good: bool = False) -> None:
        """It cannot be done now: its programs are not to be had, or it failed here. `for_good`: not until a restart."""
        self._postponed[job.win.id] = math.inf if for_good else now + self._patience()

    def begin(self, job: Job) -> None:
        """It runs from now on, and takes one run's time at least: or every lane would begin one before any has paid."""
        self._begun[job.name] = self._run_seconds()

    def end(self, job: Job) -> None:
        """It is over, whatever came of it."""
        self._begun.pop(job.name, None)

    def took(self, name: str, seconds: float) -> None:
        """A lane was busy so long, by the clock, with this job, or with RESEARCH."""
        self.clock[name] = self.clock.get(name, 0.0) + seconds

    def _patience(self) -> float:
        return PATIENCE_RUNS * self._run_seconds()

    def next(self, present: Collection[tuple[bytes, str]], taken: Collection[str], now: float) -> Job | None:
        """The next re-run, or None when there is none to do or no time left for it.

        present: authors who do research on this task now, with the hardware class of their runs. taken: names of jobs
        that run already.
        """
        if not self._share or not self._has_time():
            return None
        jobs = [job for job in self._due(present, now) if job.name not in taken]
        return min(jobs, key=self._order) if jobs else None

    def _has_time(self, newcomers: bool = False) -> bool:
        """Whether the share, or newcomers' part of it, is not used up: neither in CPU time nor by the clock."""
        frontier, share = self._frontier, self._share * (NEWCOMERS if newcomers else 1.0)
        cpu = frontier.own_seconds
        total, here = sum(cpu.values()), frontier.newcomer_seconds if newcomers else cpu["verify"]
        jobs = [(name, seconds) for name, seconds in (*self.clock.items(), *self._begun.items()) if name != RESEARCH]
        by_clock = sum(seconds for _, seconds in jobs)
        total_by_clock = by_clock + self.clock.get(RESEARCH, 0.0)
        if newcomers:
            by_clock = frontier.on_newcomers(
                (bytes.fromhex(name[2:]), seconds) for name, seconds in jobs if name.startswith("v-")
            )
        return here <= share * total and by_clock <= share * total_by_clock

    def _due(self, present: Collection[tuple[bytes, str]], now: float) -> list[Job]:
        frontier = self._frontier
        # Own results that others refute: above all.
        jobs = [Job(win, "same") for win in frontier.doubted if self._postponed.get(win.id, 0.0) <= now]
        newcomers = self._has_time(newcomers=True)
        first: dict[Find, Win] = {}
        denied: dict[Find, Win] = {}
        for wins, found in ((frontier.claims, first), (frontier.denied, denied)):
            for win in wins:  # a re-run of one is about all equal ones
                may = (newcomers or not self._is_new(win)) and self._postponed.get(win.id, 0.0) <= now
                if may and frontier.word(win.id) is None:
                    found.setdefault(win.find, win)
        jobs += [Job(win, "same") for win in first.values() if self._is_chosen(win, present, now)]
        jobs += [Job(win, "same") for win in denied.values() if self._is_named(win, present, now)]
        for win in frontier.confirmed:
            if win.record.author != frontier.own and self._may_widen(win, now) and self._is_widener(win, present, now):
                jobs.append(Job(win, "wider"))
        return jobs

    def _is_chosen(self, win: Win, present: Collection[tuple[bytes, str]], now: float) -> bool:
        """Verifiers are of the author's hardware class; one of each other class says whether it transfers there."""
        here = win.result.environment.hardware == self._hardware
        said = () if here else tuple(one.voice for one in win.opinion.transfers if one.where == self._hardware)
        return not any(said) and self._ranks(win, present, now, VERIFIERS if here else TRANSFER_VERIFIERS, not said)

    def _is_named(self, win: Win, present: Collection[tuple[bytes, str]], now: float) -> bool:
        """Whether the hash names this node first: then no word of others keeps it from finding out who lies."""
        here = win.result.environment.hardware == self._hardware
        return here and self._ranks(win, present, now, VERIFIERS, waits=False)

    def _may_widen(self, win: Win, now: float) -> bool:
        mine = self._frontier.word(win.id, "wider") is not None
        return not mine and win.result.aim == "gain" and self._postponed.get(win.id, 0.0) <= now

    def _is_widener(self, win: Win, present: Collection[tuple[bytes, str]], now: float) -> bool:
        here = win.result.environment.hardware == self._hardware
        said = tuple(one.voice for one in win.opinion.transfers if one.where == "wider")
        return here and not any(said) and self._ranks(win, present, now, TRANSFER_VERIFIERS, not said, b"wider")

    def _ranks(
        self,
        win: Win,
        present: Collection[tuple[bytes, str]],
        now: float,
        verifiers: int,
        waits: bool = True,
        purpose: bytes = b"",
    ) -> bool:
        """`waits`: nobody has said anything. Else who comes first looks itself, and nobody else has to."""
        others = [author for author, hardware in present if hardware == self._hardware and author != win.record.author]
        age = max(0.0, now - self._heard.setdefault(win.id, now)) if waits else 0.0
        return is_chosen(
            self._frontier.own, win.id, others, age=age, patience=self._patience(), verifiers=verifiers, purpose=purpose
        )

    def _is_new(self, win: Win) -> bool:
        standing = self._frontier.standings.get(win.record.author)
        return standing is None or not standing.established

    def _order(self, job: Job) -> tuple[float, ...]:
        """Own doubted results first, then claims: those by established authors, of these and of the others those of
        which nobody who is known said anything, whatever strangers say, and among equals by how well their authors
        stand; then whether things transfer."""
        win, standings = job.win, self._frontier.standings
        if win.record.author == self._frontier.own:
            return (0.0,)
        standing = standings.get(win.record.author)
        score = (standing.confirmed - standing.refuted - standing.disagreed) if standing else 0
        said = sum(map(self._frontier.is_known, (*win.opinion.confirmed, *win.opinion.refuted)))
        return 1.0 + (job.setting != "same"), self._is_new(win), said, -score, self._heard.get(win.id, 0.0)
