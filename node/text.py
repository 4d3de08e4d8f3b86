"""Which text a node works on: its user's, the swarm's own, the one that this home had before, or the built-in one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from ..protocols.errors import InvalidData, NetworkError, UsageError
from ..protocols.task import TaskSpec, parse_task
from ..swarm.ledger import Ledger
from ..trainer import task as tasks
from ..trainer.corpus import Corpus, adopt, prepare, stored
from .choice import Choice
from .presence import Presence
from .screen import Screen

_FETCHED = "fetched texts"


class Texts:
    """The texts that this home has, and those that its swarm gives."""

    def __init__(self, folder: Path, ledger: Ledger, screen: Screen, program: Path | None) -> None:
        """`folder`: of prepared texts. `program`: the brief that replaces a task's own."""
        self._folder, self._ledger, self._screen, self._program = folder, ledger, screen, program

    async def find(self, source: Path | None, choice: Choice, last: TaskSpec | None, invited: bytes | None) -> Corpus:
        """The prepared text of `source`, else the one that the task of the invite (`invited`: its id), or else the
        `last` task, was on; else the built-in one. What is not here is `fetch`'s."""
        self._screen.busy(-1, "preparing the corpus")
        try:
            corpus = await asyncio.to_thread(prepare, self._folder, source)
            if source is not None:
                return corpus
            spec = self._known(invited) if invited is not None else last
            if spec is None or spec.data.hex() == corpus.digest or not self._differs_in_text(spec, choice):
                return corpus
            reason = "the text that this home had before   (another: --corpus PATH)"
            return await asyncio.to_thread(stored, self._folder, spec.data.hex(), reason) or corpus
        finally:
            self._screen.idle(-1)

    async def fetch(self, presence: Presence, choice: Choice, task: bytes) -> Corpus | None:
        """The text of the swarm's task, from who shares it; None when it is not the text that this machine lacks.
        NetworkError when nobody answers or shares it; what came is kept for the next time."""
        self._screen.item("swarm", "not on the built-in text, as it seems: asking its nodes for theirs")
        async with presence.visit(task) as network:
            try:
                spec = parse_task(await network.fetch(task), task)
            except InvalidData as error:
                raise NetworkError("the swarm does not say what its task is", why=error.what) from error
            if not self._differs_in_text(spec, choice):
                return None
            name = spec.data.hex()
            parts = self._folder / f".fetching-{name}"
            try:
                files = await network.fetch_corpus(spec.data, parts, self._progress())
            finally:
                self._screen.idle(-1)
        corpus = await asyncio.to_thread(adopt, self._folder, name, files, "the swarm's own text, from its nodes")
        await asyncio.to_thread(shutil.rmtree, parts, ignore_errors=True)
        await asyncio.to_thread(self._ledger.journal_put, _FETCHED, name, "")
        return corpus

    def is_fetched(self, corpus: Corpus) -> bool:
        """Whether it came from the swarm, which may have it back."""
        return corpus.digest in self._ledger.journal(_FETCHED)

    def _progress(self) -> Callable[[int, int], None]:
        def show(here: int, total: int) -> None:
            self._screen.busy(-1, f"fetching {total / 1e6:.1f} MB of text", here / total if total else 1.0)

        return show

    def _known(self, task: bytes) -> TaskSpec | None:
        data = self._ledger.get_blob(task)
        try:
            return parse_task(data, task) if data is not None else None
        except InvalidData:
            return None

    def _differs_in_text(self, spec: TaskSpec, choice: Choice) -> bool:
        """Whether this version makes the same task of the other text."""
        try:
            return tasks.load(choice.task, choice.start, spec.data, self._program, choice.folder).spec.id == spec.id
        except UsageError:  # a task or a size that only others have
            return False
