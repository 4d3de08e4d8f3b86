"""The composition root: builds a node from its settings and runs it until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog

from ..protocols.errors import IsolationError, MachineError, UsageError, first_of
from ..protocols.invites import decode_invite
from ..protocols.names import nickname, peer_id
from ..protocols.records import Cost, Environment, Hello, Lead, Notice, Record, Result
from ..protocols.signing import public_key
from ..protocols.task import TaskSpec
from ..swarm.frontier import Frontier
from ..swarm.identity import load_or_create
from ..swarm.ledger import Ledger
from ..swarm.types import wall_clock_ms
from ..trainer import task as tasks
from ..trainer.corpus import Corpus
from ..trainer.hardware import Hardware, detect
from ..trainer.types import CostRatio
from .arguments import check
from .bench import Bench, opened
from .choice import BEFORE, Choice, choose_task
from .egress import Egress
from .fetcher import restore
from .format import counted
from .home import Home
from .laboratory import Laboratory
from .loop import Limits, Researcher
from .noise import NoiseBook
from .presence import Listeners, Presence
from .private import name_of, swarm_key
from .programs import Programs
from .proposers.base import Proposer
from .proposers.choose import ProposerSettings, choose
from .proposers.llm import api_settings
from .queue import SHARE, Queue
from .screen import Screen
from .signals import until_signalled
from .supervision import Supervision
from .tasks import check_unchanged, is_other_text, last_task, own_folders, remember
from .text import Texts

if TYPE_CHECKING:
    from ..swarm.net import Network

log = structlog.get_logger()

SCREEN_SECONDS = 45.0  # the longest screening run that calibration may choose
_STATUS_SECONDS = 1.0
_PROGRAMS = 1 / 8  # of the disk that others' data may take, for their programs; the rest is for their records
Role = Literal["research", "bootstrap", "observe"]


@dataclass(frozen=True)
class Settings:
    """What the command line, the environment and the config file said."""

    home: Path | None = None
    invite: str | None = None
    task: str | None = None
    size: str | None = None
    corpus: Path | None = None
    program: Path | None = None
    host: str = "0.0.0.0"
    port: int | None = None
    disk_gib: float = 8.0  # for other people's records and programs
    bandwidth: float | None = None  # megabits per second each way
    share_corpus: bool | None = None  # whether others may fetch the text; None: in a private swarm
    solo: bool = False
    private: bool = False  # start a swarm of which only who has an invite can be part
    lan: bool = True  # whether nodes of one local network find each other
    cpus: int | None = None
    verify: float = SHARE  # of this node's time for re-running others' claims
    limits: Limits = field(default_factory=Limits)
    proposer: ProposerSettings = field(default_factory=ProposerSettings)

    @property
    def program_bytes(self) -> int:
        """What other people's programs may take of the disk."""
        return int(_PROGRAMS * self.disk_gib * 2**30)

    @property
    def record_bytes(self) -> int:
        """What other people's records may take of it."""
        return int(self.disk_gib * 2**30) - self.program_bytes


def version() -> str:
    """The installed version of swarm-node."""
    return importlib.metadata.version("swarm-node")


class Node:
    """What `join` and `bootstrap` have in common: home, identity, ledger, network, and the screen."""

    def __init__(self, settings: Settings, home: Home, screen: Screen, role: Role) -> None:
        self.settings, self.home, self.screen = settings, home, screen
        self.role: Role = role
        self.supervision = Supervision(screen)
        self.seed = load_or_create(home.key)
        self.author = public_key(self.seed)
        self.ledger = Ledger.open(home.ledger)
        before = self.ledger.journal("node")
        if before.get("author") != self.author.hex():  # for commands that read the ledger only
            self.ledger.journal_put("node", "author", self.author.hex())
        self.spec: TaskSpec | None = None  # of the task that it is about
        self.researcher: Researcher | None = None
        self.hardware: Hardware = detect()
        self.invite = decode_invite(settings.invite, now=time.time()) if settings.invite else None
        last = last_task(self.ledger)
        self.choice: Choice = choose_task(settings.task, settings.size, self.invite, last, own_folders(self.ledger))
        self._last = last if settings.task is None and self.choice.reason == BEFORE else None
        self.key = swarm_key(home.swarm_key, self.invite, settings.private, before.get("swarm", ""))
        if name_of(self.key) != before.get("swarm", ""):
            self.ledger.journal_put("node", "swarm", name_of(self.key))
        self._texts = Texts(home.corpora, self.ledger, screen, settings.program)
        told = Listeners(self._on_record, self._on_notice, self._on_network, self._hello)
        self.presence = Presence(
            settings, self.seed, self.invite, self.key, self.ledger, screen, told, hub=role == "bootstrap"
        )
        self.ideas = ""  # where they come from, in words
        self._started_ms = wall_clock_ms()

    # ---- the task

    async def corpus(self) -> Corpus:
        """The prepared text; asked of the swarm when the invite's task is on one that is not here."""
        choice = self.choice
        source = self.settings.corpus or tasks.define(choice.task, choice.folder).corpus
        invited = self.invite.task_id if self.invite is not None and not choice.invited else None
        corpus = await self._texts.find(source, choice, self._last, invited)
        if invited is None or source is not None or self.settings.solo:
            return corpus
        data = bytes.fromhex(corpus.digest)
        if tasks.load(choice.task, choice.start, data, self.settings.program, choice.folder).spec.id == invited:
            return corpus
        return await self._texts.fetch(self.presence, choice, invited) or corpus

    def show_text(self, corpus: Corpus) -> None:
        """The corpus line."""
        shared = "; others may fetch it" if self.shared(corpus) and not self.settings.solo else ""
        self.screen.item("corpus", f"{corpus.reason}, {corpus.train_bytes / 1e6:.1f} MB to train on{shared}")

    def shared(self, corpus: Corpus) -> Mapping[str, Path]:
        """What of it others may fetch: nothing of the user's own text, unless that was said, or all are invited; what
        came from the swarm it may have back."""
        asked = self.settings.share_corpus
        share = asked if asked is not None else self.key is not None or self._texts.is_fetched(corpus)
        return corpus.slices if share and not corpus.is_built_in else {}

    def load_task(self, size: str, corpus: Corpus) -> tasks.Task:
        """The task at `size`; where the invite chose it, exactly the invited one."""
        folder = self.choice.folder
        task = tasks.load(self.choice.task, size, bytes.fromhex(corpus.digest), self.settings.program, folder)
        if folder is not None and self._last is not None and self.settings.corpus is None:
            check_unchanged(self._last, task.spec, folder)
        if self.invite is not None and not self.choice.invited and task.spec.id != self.invite.task_id:
            other, fix = "other version or text", "install the inviter's version of swarm-node"
            if folder is not None:
                other, fix = f"other files in {folder}, or other text", "get the inviter's folder as it is"
            raise UsageError(
                f"this machine cannot rebuild the swarm's task {self.invite.task}",
                why=f"its id is {self.invite.task_id.hex()[:9]}, ours {task.spec.id.hex()[:9]}: {other}",
                fix=f"{fix}; for a swarm on its own text add --corpus PATH",
            )
        return task

    def show_choice(self) -> None:
        """Say it first when this node is to work on another task than the one it was invited to."""
        if self.choice.invited:
            asked = f"{self.choice.task}/{self.choice.size}" if self.choice.size else self.choice.task
            self.screen.item("swarm", f"invited to {self.choice.invited}; as asked, this node works on {asked}")
            self.screen.item("", "wins cross between tasks as hints; scores never do")

    # ---- the network

    def _on_record(self, record: Record) -> None:
        if self.researcher is not None:
            self.researcher.heard(record)

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice.body, Lead) and self.researcher is not None and notice.author != self.author:
            self.researcher.lead(notice.body, notice.author)

    def _on_network(self, network: Network | None) -> None:
        if self.researcher is not None:
            self.researcher.network = network

    def _hello(self, addresses: tuple[str, ...]) -> Hello:
        assert self.spec is not None
        return Hello(
            agent=f"swarm-node {version()}",
            task=self.spec.id,
            hardware=environment(self.hardware).hardware,  # of the runs, as records say it
            device=self.hardware.device[:80],
            role=self.role,
            addresses=addresses,
        )

    # ---- background duties

    async def duties(self) -> None:
        """Status for other commands, and the network where there is one, until cancelled. Each fails alone."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervision.keep("status", self._write_status))
            if self.researcher is not None:
                group.create_task(self.supervision.keep("programs", self.researcher.fetcher.run))
            if self.presence.network is not None:
                group.create_task(self.presence.run(self.supervision))

    async def _write_status(self) -> None:
        last = ""
        while True:
            network = self.presence.network
            peers = network.peers() if network else ()
            statistics = network.statistics() if network else None
            status = {
                "pid": os.getpid(),
                "started_ms": self._started_ms,
                "name": nickname(self.author),
                "role": self.role,
                "task": f"{self.spec.name}/{self.spec.size}" if self.spec else "",
                "ideas": self.ideas,
                "peers": [nickname(peer.author) for peer in peers],
                "reached": statistics.reached if statistics else 0,
                "sent": statistics.bytes_out if statistics else 0,
                "received": statistics.bytes_in if statistics else 0,
                "addresses": list(network.addresses()) if network else [],
                "private": self.key is not None,
                "connected": [{"author": one.author.hex(), "name": one.name, "address": one.address} for one in peers],
                "invite": self.presence.invite(),
                "finished": self.researcher.finished if self.researcher else 0,
                "verified": self.researcher.verified if self.researcher else 0,
                "avoided": len(self.researcher.planner.avoided) if self.researcher else 0,
                "crashes": dict(self.supervision.crashes),
                "running": self.screen.activities(),
            }
            text = json.dumps(status)
            if text != last:
                await asyncio.to_thread(self.ledger.set_status, text)
                last = text
            await asyncio.sleep(_STATUS_SECONDS)

    def say_what_was_found(self) -> None:
        """The last words of a node that did research."""
        if self.researcher is None:
            return
        best = self.researcher.frontier.best_score
        what = f"own best {best:.4f}" if best is not None else "no baseline yet"
        done = counted(self.researcher.finished, "experiment")
        self.screen.item(
            "so far", f"{done} in this session, {what}   (see more: swarm-node board; go on: swarm-node join)"
        )

    async def close(self) -> None:
        """Leave politely: the network first, the ledger last."""
        await self.presence.stop()
        with contextlib.suppress(Exception):
            self.ledger.set_status("")
        self.ledger.close()


async def join(settings: Settings, screen: Screen) -> int:
    """Run a researching node. Returns the exit code."""
    home = Home.locate(settings.home)
    home.create()
    with home.locked():
        check(settings, home)
        node = Node(settings, home, screen, "research")
        try:
            async with screen.ticking():
                what = ": what runs now is dropped and resumed next time"
                code = await until_signalled(screen, _research(node), what)
                node.say_what_was_found()
                return code
        finally:
            await node.close()


async def bootstrap(settings: Settings, screen: Screen) -> int:
    """Run a node that trains nothing: keeps history, stays put, is easy to find."""
    home = Home.locate(settings.home)
    home.create()
    with home.locked():
        check(settings, home)
        node = Node(settings, home, screen, "bootstrap")
        try:
            async with screen.ticking():
                return await until_signalled(screen, _serve(node))
        finally:
            await node.close()


async def _serve(node: Node) -> None:
    node.screen.item("node", f"{nickname(node.author)}   {peer_id(node.author)}")
    node.show_choice()
    await _listen(node, await node.corpus())


async def _listen(node: Node, corpus: Corpus) -> None:
    """Be part of the swarm and train nothing."""
    task = node.load_task(node.choice.start, corpus)
    node.screen.item("task", f"{task.spec.name}, {task.spec.size}   (the swarm's; this node trains nothing)")
    if not corpus.is_built_in:
        node.show_text(corpus)
    remember(node.ledger, task.spec, node.choice.folder)
    node.spec = task.spec
    if node.presence.network is None:
        await node.presence.start(task.spec, node.shared(corpus))
    assert node.presence.network is not None
    for address in node.presence.network.addresses():
        node.screen.item("listening", address)
    node.screen.item("history", f"{node.ledger.count()} records   (see them: swarm-node feed)")
    node.screen.say("  Ctrl-C to stop")
    await node.duties()


async def _research(node: Node) -> None:
    settings, screen, hardware = node.settings, node.screen, node.hardware
    screen.item("node", f"{nickname(node.author)}   {peer_id(node.author)}")
    screen.item("machine", hardware.summary)
    node.show_choice()
    if hardware.gpu:
        screen.item("", "the GPU task is still to come: this task runs on the CPU of this machine")
    corpus = await node.corpus()
    unsafe: IsolationError | None = None
    try:
        await _experiment(node, corpus)
    except* IsolationError as group:
        unsafe = first_of(group)
    if unsafe is None:
        return
    if settings.solo:
        raise unsafe
    screen.warn(f"  isolation  {unsafe.what} ({unsafe.why}): nobody's code runs on this machine")
    screen.item("observing", f"what peers find is checked, stored and shown   (to take part: {unsafe.fix})")
    node.role, node.researcher = "observe", None
    await _listen(node, corpus)


async def _experiment(node: Node, corpus: Corpus) -> None:
    """Research until the limits are reached; IsolationError when the sandbox does not hold, or not any more."""
    settings, screen, hardware = node.settings, node.screen, node.hardware
    draft = node.load_task(node.choice.start, corpus)
    proposer, described = choose(settings.proposer, node.seed, screen.say, await asyncio.to_thread(_spent, node))
    lanes = settings.cpus or hardware.research_cores
    async with opened(corpus, node.home.scratch, lanes, screen) as bench:
        size, seconds, reason = await _pick_size(node, bench, draft)
        task = node.load_task(size, corpus)
        other_text = is_other_text(node.ledger, task.spec)
        await asyncio.to_thread(remember, node.ledger, task.spec, node.choice.folder)
        screen.item("task", f"{task.spec.name}, {size}: {task.spec.steps} steps, ~{seconds:.0f} s per run   ({reason})")
        node.show_text(corpus)
        if other_text:
            screen.item("", "other text than this home had before: a new start")
        screen.item("ideas", described)
        node.ideas = described
        node.researcher = await _researcher(node, task, corpus, bench, seconds, proposer)
        node.spec = task.spec
        if not settings.solo:
            await node.presence.start(task.spec, node.shared(corpus))
        duties = asyncio.create_task(node.duties())
        work = asyncio.create_task(node.researcher.run())
        try:
            await asyncio.wait([duties, work], return_when=asyncio.FIRST_COMPLETED)
            if duties.done():
                await duties
            await work
        finally:
            for task_ in (work, duties):
                task_.cancel()
            await asyncio.gather(work, duties, return_exceptions=True)


def _spent(node: Node) -> Cost:
    """What the own records say that language models were asked and answered."""
    own = [record.body.cost for record in node.ledger.all_records("result") if record.author == node.author]
    return Cost(tokens_in=sum(cost.tokens_in for cost in own), tokens_out=sum(cost.tokens_out for cost in own))


async def _researcher(
    node: Node, task: tasks.Task, corpus: Corpus, bench: Bench, seconds: float, proposer: Proposer
) -> Researcher:
    frontier = Frontier(node.author, task.spec.id, task.spec.baseline, private=node.key is not None)
    programs = Programs(
        node.ledger, task.baseline, most=node.settings.program_bytes, needed=lambda: frontier.programs_of_ideas
    )
    programs.store(task.baseline)
    hardware = environment(node.hardware)
    verify = Queue(frontier, hardware.hardware, node.settings.verify, lambda: max(seconds, bench.run_seconds))
    row = 0
    while page := await asyncio.to_thread(node.ledger.entries, row):  # Ctrl-C is heard in between
        for entry in page:
            row, record = entry.row, entry.record
            frontier.add(record)
            if isinstance(record.body, Result) and record.body.outcome == "kept":
                verify.heard(record.id, entry.received_ms / 1000)
    frontier.ban(frozenset(await asyncio.to_thread(node.ledger.equivocators, -1)))
    await restore(programs, frontier)
    # Four times the expected time, because other programs of the user may share the core.
    lab = Laboratory(
        task, bench, node.ledger, frontier, programs, hardware, wall_s=4 * seconds + 120,
        pool_bytes=corpus.held["confirm"].stat().st_size,
    )  # fmt: skip
    return Researcher(
        lab, corpus, node.ledger, node.seed, frontier, programs, proposer, node.screen, node.supervision,
        node.hardware.profile(), bench.lanes, node.settings.limits, wall_clock_ms, Egress(api_settings()[0]), verify,
    )  # fmt: skip


async def _pick_size(node: Node, bench: Bench, draft: tasks.Task) -> tuple[str, float, str]:
    """The task's size, the expected seconds of a run, and why."""
    choice, named = node.choice, tasks.sizes(node.choice.task, node.choice.folder)
    smallest = next(iter(named))
    runs = NoiseBook(node.ledger, draft.spec.id).results(draft.spec.baseline).values()
    before = [run.cpu_s for run in runs if run.status == "ok"]
    if choice.size is not None and before:  # this home has run it
        return choice.size, statistics.fmean(before), choice.reason
    label = "a 3-second calibration"
    measured = await bench.cost_ratio(draft.baseline, draft.baseline, draft.spec.steps, label)
    if not isinstance(measured, CostRatio):
        fix = f"its last output:\n{measured.log_tail}" if measured.log_tail else "try again with less running beside it"
        raise MachineError("the baseline does not run on this machine", why=measured.reason, fix=fix)
    cost = measured.base_s_per_step
    if choice.size is not None:
        reason, seconds = choice.reason, draft.spec.steps * cost
        invited = node.invite is not None and not choice.invited
        if invited and seconds > 2 * SCREEN_SECONDS and named.get(choice.size) == named[smallest]:
            reason += f"; this machine is slower than most: runs take {seconds:.0f} s and their wall cap is scaled"
        return choice.size, seconds, reason
    fitting = [name for name, steps in named.items() if steps * cost <= SCREEN_SECONDS]
    size = fitting[-1] if fitting else smallest
    why = (
        "no GPU" if node.hardware.hardware_class == "cpu" else "the GPU task is still to come, so this runs on the CPU"
    )
    return size, named[size] * cost, f"picked: {why}, {1e3 * cost:.0f} ms a step here"


def environment(hardware: Hardware) -> Environment:
    """Where this machine's runs happen; equal environments must reproduce runs bit for bit."""
    torch = importlib.metadata.version("torch")
    return Environment(
        hardware="cpu",
        device=hardware.device[:80],
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        library=f"torch {torch} {hardware.instruction_set}".strip()[:80],
    )
