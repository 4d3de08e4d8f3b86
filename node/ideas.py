"""What was won elsewhere and could be tried on a program of this node: the ideas in a situation, of several kinds.

A pure function of records and program texts. Bounded: so many wins are looked at, the confirmed and the newest first,
and their merges are remembered, so that one proposal costs a few milliseconds and not seconds.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..protocols.diffs import apply_diff, normal_digest
from ..protocols.errors import DiffRejected
from ..protocols.quoting import without_words
from ..protocols.records import Result
from ..protocols.tags import Tag
from ..protocols.task import TaskSpec
from ..swarm.frontier import Frontier, Win
from .attempts import Attempts
from .lineage import Lineages
from .proposers.base import Idea, Mode
from .proposers.offline import candidates
from .rebase import rebase

MAX_IDEAS = 32  # wins of this task that are looked at
MAX_HINTS = 16  # of other tasks
MAX_OF_STRANGER = 4  # claims of one author of whom nothing was found true here
FREE_FOR_STRANGERS, SHARE_FOR_STRANGERS = 3, 0.25  # experiments with strangers' claims that may come to nothing
MAX_REFUTED = 20
MAX_CATCH_UPS = 3  # confirmed ones
MAX_CLAIMED_CATCH_UPS = 1  # at a time
MAX_STACKED = 8  # wins in one program
MAX_STACKS = 8  # such programs that are looked at
MAX_LOST_STACKS = 2  # more than were kept: then a claim is in none any more
MAX_LOST_WITH = 1  # such programs with a win in them: then it is in no new one with those that were in fewer
MAX_ABLATIONS = 12
MAX_ATTEMPTS = 2  # a win that came to nothing on two own programs is not offered on the third
MAX_ATTEMPTS_WIDENED = 4  # when the search stands still
Program = Callable[[bytes], str | None]  # source text by digest, as far as it is known here


@dataclass(frozen=True)
class Place:
    """The program that ideas are for."""

    parent: str  # source text
    score: float | None
    sigma: float | None  # noise over seeds
    mode: Mode = "search"


def ideas(
    spec: TaskSpec,
    frontier: Frontier,
    place: Place,
    program: Program,
    taken_here: Callable[[bytes], bool],
    track: Callable[[bytes], str],
) -> tuple[Idea, ...]:
    """Ideas for this program that were not tried on it: own wins beside it first, then peers', then whole programs,
    several wins at once, hints from other tasks; last, without any code, what re-runs refuted."""
    gather = _Gathering(spec, frontier, place, program, taken_here)
    wins = gather.wins()
    hints = gather.ranked(frontier.other_task_wins)[:MAX_HINTS]
    found = [
        *wins,
        *gather.catch_ups(),
        *gather.stacks(wins),
        *(gather.ablations() if place.mode == "simplify" else ()),
        *(gather.idea(win, track(win.result.task)) for win in hints),
    ]
    refuted = [win for win in frontier.peer_wins if win.state == "refuted"][-MAX_REFUTED:]
    kinds_only = (Idea(win.id, "refuted", "", win.result.gain or 0.0, win.result.tags, None) for win in refuted)
    return (*found, *kinds_only)


class _Gathering:
    """One pass over the records for one program."""

    def __init__(
        self, spec: TaskSpec, frontier: Frontier, place: Place, program: Program, taken_here: Callable[[bytes], bool]
    ) -> None:
        self._spec, self._frontier, self._place, self._program = spec, frontier, place, program
        self._taken_here = taken_here
        self._normal = normal_digest(place.parent)
        self._attempts = Attempts(frontier)
        self._lineages = Lineages(frontier, spec.id)
        self._known = _known(place.parent, program(spec.baseline) or "")
        self._limit = MAX_ATTEMPTS_WIDENED if place.mode == "widen" else MAX_ATTEMPTS
        self._offered = {self._normal}
        self._wins: dict[bytes, Win] = {}

    def wins(self) -> list[Idea]:
        """One win each, rebased; those that the program already contains, were adopted or failed often are left out."""
        contained = self._lineages.contained | self._attempts.adopted
        out: list[Idea] = []
        own = self._frontier.own_wins_aside[-MAX_IDEAS:]

        def left(wins: Sequence[Win]) -> list[Win]:
            return [one for one in wins if one.id not in contained and self._attempts.failures[one.id,] < self._limit]

        for win in itertools.islice((*left(own), *self.ranked(left(self._frontier.peer_wins))), MAX_IDEAS):
            idea = self.idea(win, "")
            if idea.found_here and self._place.mode == "branch":
                continue  # it leads on to a program that is known: another branch, no news for the own best
            if idea.source is None or self._is_new(idea.source):
                self._wins[win.id] = win
                out.append(idea)
        return out

    def ranked(self, wins: Sequence[Win]) -> list[Win]:
        """Those that stand: confirmed ones first, then claims by known authors, and among equals what arrived last.
        (Authors' clocks are anybody's.) Of a stranger only a few claims, else one identity had all turns."""
        stands = filter(self._may_try, reversed(wins))
        out, seen = list[Win](), Counter[bytes]()
        for win in sorted(stands, key=lambda win: (win.state != "confirmed", self._new(win))):
            is_strange = win.state != "confirmed" and self._new(win)
            seen[win.record.author] += is_strange
            if not is_strange or seen[win.record.author] <= MAX_OF_STRANGER:
                out.append(win)
        return out

    def _new(self, win: Win) -> bool:
        return not self._frontier.is_known(win.record.author)

    def _may_try(self, win: Win) -> bool:
        """Whether a win may be built upon: it is not refuted and does not build on what is; and a claim comes from
        somebody of whose claims more were found true here than not, or from a stranger while what strangers claimed has
        not taken too many experiments for nothing."""
        if win.state == "refuted" or win.flagged:
            return False
        its = self._frontier.standings.get(win.record.author)
        if win.state == "confirmed" or self._frontier.private:
            return True
        if its is not None and its.refuted + its.fabricated > its.confirmed:
            return False
        spent = self._attempts.strangers_failed
        return not self._new(win) or spent <= FREE_FOR_STRANGERS + SHARE_FOR_STRANGERS * self._frontier.own_experiments

    def catch_ups(self) -> Iterable[Idea]:
        """Peers' whole programs that are better than this one by more than the noise; of the best few confirmed ones,
        the one with the longest confirmed lineage first, and of claims a stranger's last: any score costs its author
        nothing. Scores are of other machines: it is for the run to tell."""
        score = self._place.score
        if score is None or self._place.mode == "branch":
            return
        better: list[tuple[float, Win]] = []
        for win in self._frontier.peer_wins:
            result = win.result
            sigma = max(self._place.sigma or result.noise or 0.0, 0.002 * abs(score))
            ahead = self._spec.better_by(result.score, score) if result.score is not None else 0.0
            if ahead > sigma and self._may_try(win):
                better.append((ahead, win))
        better.sort(key=lambda one: (one[1].state != "confirmed" and self._new(one[1]), -one[0]))
        for state, most in (("confirmed", MAX_CATCH_UPS), ("claimed", MAX_CLAIMED_CATCH_UPS)):
            found = itertools.islice(self._whole(one for one in better if one[1].state == state), most)
            for ahead, win, source in sorted(found, key=lambda one: -self._lineages.confirmed_steps(one[1])):
                idea = replace(self._described(win), gain=ahead, source=source)
                failed = self._attempts.whole_failures[win.record.author]
                yield replace(idea, kind="catch-up", ahead=self._lineages.steps_ahead(win), failed=failed)

    def _whole(self, better: Iterable[tuple[float, Win]]) -> Iterator[tuple[float, Win, str]]:
        """Those whose programs can be tried, with them: the best one of each author."""
        seen: set[bytes] = set()
        for ahead, win in better:
            source = self._program(win.result.program) if win.record.author not in seen else None
            if source is not None and self._is_new(source := _without_words(source, self._known)):
                seen.add(win.record.author)
                yield ahead, win, source

    def stacks(self, wins: Sequence[Idea]) -> Iterator[Idea]:
        """As many wins at once as go together, since a confirmation costs the same however many are in it; then only
        the confirmed ones, and the halves of those that came to nothing here.

        A claim is among them when its author was found right here, and nobody who was disagrees: to wait until it is
        confirmed takes most of a night, and what is measured is the program as a whole. It could ride along with true
        ones, so none is as soon as that seldom comes to anything. Members of a private swarm are no strangers."""
        attempts = self._attempts
        may_claim = attempts.stacks_lost <= attempts.stacks_kept + MAX_LOST_STACKS
        fitting = [
            one for one in wins if not one.failed and (one.state == "confirmed" or (may_claim and self._vouched(one)))
        ]
        fitting.sort(key=lambda one: (one.state != "confirmed", -one.gain))
        sure = [one for one in fitting if one.state == "confirmed"]
        # One that does harm would otherwise be in every program to which a new win comes.
        clean = [one for one in fitting if attempts.lost_with[one.result] <= MAX_LOST_WITH]
        todo = list[list[Idea]]()
        for some in (clean, fitting, sure):
            todo += [some[:MAX_STACKED]] if some[:MAX_STACKED] not in todo else []
        for _ in range(MAX_STACKS):
            source, members = self._stacked(todo.pop(0) if todo else ())
            if len(members) < 2:
                continue
            together = tuple(sorted(one.result for one in members))
            if attempts.failures[together] or normal_digest(source) in self._frontier.own_tried:
                half = len(members) // 2
                todo += [members[:half], members[half:]]
            elif self._is_new(source):
                yield _together(source, members)

    def _vouched(self, idea: Idea) -> bool:
        win, is_known = self._wins[idea.result], self._frontier.is_known
        return is_known(win.record.author) and not any(map(is_known, win.opinion.refuted))

    def _stacked(self, ideas: Sequence[Idea]) -> tuple[str, list[Idea]]:
        """The program with these wins, one after the other, and those that fitted: what builds on another one does so
        after it."""
        source, members, left = self._place.parent, list[Idea](), list(ideas)
        for _ in range(2):
            waiting = list[Idea]()
            for idea in left:
                made = self._rebased(self._wins[idea.result], source)
                if made is None:
                    waiting.append(idea)
                elif normal_digest(made) != normal_digest(source):
                    source = made
                    members.append(idea)
            left = waiting
        return source, members

    def ablations(self) -> Iterable[Idea]:
        """The program without one of the own wins that led to it, by merging that win backwards."""
        steps = [record for record in self._frontier.trials if record.id in self._frontier.lineage][-MAX_ABLATIONS:]
        for record in steps:
            body = record.body
            assert isinstance(body, Result)
            before, after = self._program(body.parent or b""), self._program(body.program)
            if before is None or after is None or self._attempts.failures[record.id,] >= self._limit:
                continue
            source = rebase(self._place.parent, after, before, "")
            if source is not None and self._is_new(source):
                gain = body.gain or 0.0
                yield Idea(record.id, "confirmed", "", gain, body.tags, source, own=True, kind="ablate")

    def idea(self, win: Win, other_task: str) -> Idea:
        """A win as an idea for this program, rebased where it can be."""
        base = self._program(win.result.parent) if win.result.parent is not None else None
        found_here = base is not None and normal_digest(base) == self._normal
        word = self._frontier.word(win.id)
        return replace(
            self._described(win),
            source=self._rebased(win, self._place.parent),
            other_task=other_task,
            found_here=found_here,
            checked=found_here and word is not None and word.outcome == "confirmed",
        )

    def _described(self, win: Win) -> Idea:
        result = win.result
        proposer, _, edit = result.proposer.partition(":")
        return Idea(
            win.id, win.state, result.diff or "", result.gain or 0.0, result.tags, None,
            own=win.record.author == self._frontier.own, edit=edit if proposer == "offline" else "",
            failed=self._attempts.failures[win.id,],
        )  # fmt: skip

    def _rebased(self, win: Win, onto: str) -> str | None:
        own = win.record.author == self._frontier.own
        return brought(onto, win.result, own, self._program, self._program(self._spec.baseline) or "")

    def _is_new(self, source: str) -> bool:
        """Whether nothing else offers this program, and it was not tried here and is not being tried."""
        normal = normal_digest(source)
        if normal in self._offered or normal in self._frontier.own_tried or self._taken_here(normal):
            return False
        self._offered.add(normal)
        return True


def brought(onto: str, result: Result, own: bool, program: Program, baseline: str) -> str | None:
    """`onto` with what a result changed, or None where that conflicts; a peer's words are taken out of both sides, so
    that they do not conflict with an adopted program, from which they were taken too."""
    base = program(result.parent) if result.parent is not None else None
    theirs = program(result.program) or _applied(base, result.diff)
    if own:
        return rebase(onto, base, theirs, result.diff or "")
    known = _known(onto, baseline)
    base, theirs = (_without_words(text, known) if text is not None else None for text in (base, theirs))
    source = rebase(onto, base, theirs, result.diff or "")
    return _without_words(source, known) if source is not None else None


def _known(source: str, baseline: str) -> str:
    """Words that need not be taken out of a peer's program."""
    return f"{source}\n{_our_comments(baseline)}"


def _together(source: str, ideas: Sequence[Idea]) -> Idea:
    """Several ideas as one."""
    first, *others = ideas
    tags: dict[Tag, None] = {tag: None for one in ideas for tag in one.tags}
    return Idea(
        first.result, "confirmed" if all(one.state == "confirmed" for one in ideas) else "claimed", first.diff,
        sum(one.gain for one in ideas), tuple(tags)[:8], source, kind="combine",
        also=tuple(one.result for one in others), found_here=all(one.found_here for one in ideas),
    )  # fmt: skip


@functools.lru_cache(maxsize=512)  # it takes some milliseconds, and the same programs come up on every proposal
def _without_words(source: str, known: str) -> str:
    return without_words(source, known)


@functools.lru_cache(maxsize=4)
def _our_comments(baseline: str) -> str:
    """The comments that the built-in catalogue writes. They are this package's words, though a peer's program brings
    them, and a program that keeps them is the same for everybody, by its digest too."""
    lines = {line for made in candidates(baseline) for line in made.source.splitlines() if "#" in line}
    return "\n".join(sorted(line[line.index("#") :] for line in lines - set(baseline.splitlines())))


def _applied(base: str | None, diff: str | None) -> str | None:
    try:
        return apply_diff(base, diff) if base is not None and diff else None
    except DiffRejected:
        return None
