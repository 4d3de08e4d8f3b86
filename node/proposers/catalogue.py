"""What an entry of the offline catalogue is: one change to a program's source, with its name, title and reason.

The entries stand in catalogue_dials (constants), catalogue_model, catalogue_start (embeddings and initial weights)
and catalogue_training. They are a collection of published ideas, good and bad, each at the values that a person
would try first. None is marked as promising: which ones help on this task is what the swarm finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from ...protocols.tags import Tag
from .edits import Draft, NotApplicable

log = structlog.get_logger()
Change = Callable[..., str | None]


@dataclass(frozen=True)
class Candidate:
    """An edit applied to one program."""

    name: str
    title: str
    reason: str
    tags: tuple[Tag, ...]
    source: str


@dataclass(frozen=True)
class Edit:
    """One change, to be applied to any program that it fits."""

    name: str  # stable: histories refer to it
    title: str
    reason: str
    tags: tuple[Tag, ...]
    change: Callable[[Draft], str | None]  # may return a detail for the title

    def apply(self, source: str) -> Candidate | None:
        """The edited program, or None when the edit does not fit or changes nothing."""
        try:
            draft = Draft(source)
            detail = self.change(draft)
            edited = draft.result()
        except (NotApplicable, SyntaxError):
            return None
        except Exception as error:  # the program is anybody's; an edit that trips over it does not fit
            log.info("an edit does not understand this program", edit=self.name, error=repr(error))
            return None
        if edited == source:
            return None
        return Candidate(self.name, f"{self.title}: {detail}" if detail else self.title, self.reason, self.tags, edited)


class Shelf:
    """Collects the edits of one module."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []

    def edit(
        self, name: str, title: str, reason: str, *tags: Tag, values: Sequence[Any] = ()
    ) -> Callable[[Change], Change]:
        """Register a change; with `values`, one edit for each, put into the {} of name and title."""

        def register(change: Change) -> Change:
            if not values:
                self.add(Edit(name, title, reason, tags, change))
            for value in values:
                self.add(Edit(name.format(value), title.format(value), reason, tags, _with(change, value)))
            return change

        return register

    def add(self, edit: Edit) -> None:
        """Put an edit on the shelf."""
        self.edits.append(edit)


def _with(change: Change, value: Any) -> Callable[[Draft], str | None]:
    return lambda draft: change(draft, value)
