"""Small gains are confirmed together.

A gain of two standard deviations takes ten pairs of runs to prove, and five such gains in one program take half. So an
edit that promised in one run, but not so much that a few pairs would show it, waits until several go into one program:
own ones, and those of peers. The more nodes look, the sooner it is full. Which of them it was that helped stays open;
that the program as a whole is better is tested like any other.

Nobody re-runs what is undecided, and one edit that harms is enough for a group to fail. So edits of strangers, of whom
this node did not find more true than not, only join others, at most as many as those are; they take most of the blame
when such a group fails; and they are in none while groups with such fail more often than others are made.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection

from ..protocols.diffs import EDITABLE, normal_digest
from ..protocols.records import Record, Result
from ..protocols.tags import Tag
from ..protocols.task import program_digest
from ..swarm.frontier import Frontier
from ..trainer.decide import WAIT_SIGMAS
from .ideas import Program, brought
from .proposers.base import Hypothesis
from .proposers.belief import FADE

NAME = "group"
ENOUGH = 4  # that go together before they are tried
MOST = 6
MAX_LOST = 1  # groups without success after which an edit is in none any more
MAX_OF_PEER, MAX_MERGES = 6, 24  # edits that are looked at, of one peer and of all
MAX_OF_STRANGER, MAX_OF_STRANGERS = 2, 8  # edits that are looked at, of one stranger and of all
NEWEST_OF_STRANGERS = 64  # of which those are the most promising
FREE_FOR_STRANGERS = 1  # groups with strangers' edits that may fail, more than were made without, of the last ones
RECENT = 8  # own groups that this looks back on
BLAME_BESIDE_STRANGERS = 0.5  # of a failure, for the other edits
MAX_ROUNDS = 3  # groups that are looked at
MAX_NAMED = 16  # results that a record can name


def may_wait(hypothesis: Hypothesis) -> bool:
    """Whether a hypothesis is a new edit. A group, and what was won elsewhere, is confirmed at once."""
    return hypothesis.proposer != NAME and _is_new(hypothesis.proposer, hypothesis.inspired_by)


def waiting(frontier: Frontier) -> list[Record]:
    """Undecided edits that no group has settled here, the most promising first, strangers' last: by their gain in
    standard deviations. Gains fade with the own wins since they became known, and with every group that failed with
    them. Strangers' are among them while groups with such did not fail too often.

    An own edit is given up for own groups only: else two records by one peer would be enough to have it forgotten.
    """
    settled, lost = set[bytes](), defaultdict[bytes, float](float)  # by own groups
    failed: dict[bytes, set[bytes]] = defaultdict(set)  # known peers whose groups with an edit failed
    groups, strange = list[Result](), set[bytes]()  # own groups; strangers' edits
    found, strangers = list[tuple[Record, int]](), deque[tuple[Record, int]](maxlen=NEWEST_OF_STRANGERS)
    wins, gone = 0, frontier.quarantined
    heard = functools.cache(lambda author: author == frontier.own or (frontier.is_known(author) and author not in gone))
    for record in list(frontier.trials):
        body, own = record.body, record.author == frontier.own
        if not isinstance(body, Result):
            continue
        if body.proposer == NAME and own:
            groups.append(body)
        elif body.proposer == NAME and body.outcome != "kept" and body.score is not None:
            for edit in body.inspired_by if heard(record.author) else ():
                failed[edit].add(record.author)
        elif body.is_undecided and (own or body.diff) and _is_new(body.proposer, body.inspired_by):
            if heard(record.author):
                found.append((record, wins))
            else:
                strange.add(record.id)  # also of those in quarantine: what failed with them did
                if record.author not in gone:
                    strangers.append((record, wins))
        wins += own and body.outcome == "kept"
    for body in groups:
        if body.outcome == "kept":
            settled.update(body.inspired_by)
            continue
        guests = strange.intersection(body.inspired_by)
        for edit in body.inspired_by:
            lost[edit] += BLAME_BESIDE_STRANGERS if guests and edit not in guests else 1.0
    lately = groups[-RECENT:]
    with_strange = [body for body in lately if not strange.isdisjoint(body.inspired_by)]
    if sum(body.outcome != "kept" for body in with_strange) <= len(lately) - len(with_strange) + FREE_FOR_STRANGERS:
        known = {(body.parent, body.normal) for one, _ in found if isinstance(body := one.body, Result)}
        found += [one for one in strangers if (one[0].body.parent, one[0].body.normal) not in known]  # type: ignore[union-attr]

    def failures(record: Record) -> float:
        return lost[record.id] + (len(failed[record.id]) if record.author != frontier.own else 0)

    left = [(one, then) for one, then in found if one.id not in settled and failures(one) <= MAX_LOST]
    worth = {one.id: _promise(one) * FADE ** (wins - then) * 0.5 ** failures(one) for one, then in left}
    promising = (one for one, _ in left if worth[one.id] > 0)
    return sorted(promising, key=lambda one: (one.id in strange, -worth[one.id]))


def together(
    frontier: Frontier,
    parent: str,
    baseline: str,
    program: Program,
    busy: Collection[bytes],
    taken: Callable[[bytes], bool],
    least: int = ENOUGH,
) -> Hypothesis | None:
    """`parent` with the most promising undecided edits that go together, when there are `least` or more; without those
    of a group that somebody runs, has run, or kept on this program.

    program: source text by digest, as far as it is known here. busy: results that are in a group which is being tried.
    taken: whether somebody runs or this node refused a program, by its normal digest.
    """
    beaten = program_digest({EDITABLE: parent})

    def is_done(normal: bytes) -> bool:
        return taken(normal) or frontier.same_find(beaten, normal) is not None

    def bring(onto: str, edit: Record) -> str | None:
        assert isinstance(edit.body, Result)
        return brought(onto, edit.body, edit.author == frontier.own, program, baseline)

    edits = _few_of_each(frontier, [one for one in waiting(frontier) if one.id not in busy])
    for _ in range(MAX_ROUNDS):
        source, members, same, done = parent, list[Record](), list[Record](), False
        strangers = 0
        for edit in edits:
            strange = _is_strange(frontier, edit)
            if strange and strangers >= len(members) - strangers:
                continue
            made = bring(source, edit)
            if made is None:
                continue
            if normal_digest(made) == normal_digest(source):
                same.append(edit)  # as another one, or as what the parent has
                continue
            source = made
            members.append(edit)
            strangers += strange
            done = len(members) >= ENOUGH and is_done(normal_digest(source))
            if done or len(members) == MOST:
                break
        if len(members) < max(2, least):
            return None
        normal = normal_digest(source)
        if not done and not is_done(normal) and not frontier.is_tried(normal):
            mine = (one for one in same if not _is_strange(frontier, one))  # a stranger's copy would take the blame
            again = [one for one in mine if normal_digest(bring(parent, one) or parent) != normal_digest(parent)]
            return _hypothesis(source, members, again)
        # What is done with strangers may not be done without.
        gone = {one.id for one in members if _is_strange(frontier, one)} or {one.id for one in members}
        edits = [one for one in edits if one.id not in gone]
    return None


def _few_of_each(frontier: Frontier, edits: list[Record]) -> list[Record]:
    """Not all of them one peer's, nor strangers'."""
    seen, out, strangers = Counter[bytes](), list[Record](), 0
    for edit in edits:
        strange = _is_strange(frontier, edit)
        seen[edit.author] += edit.author != frontier.own
        if seen[edit.author] <= (MAX_OF_STRANGER if strange else MAX_OF_PEER) and strangers < MAX_OF_STRANGERS:
            strangers += strange
            out.append(edit)
    return out[:MAX_MERGES]


def _is_strange(frontier: Frontier, edit: Record) -> bool:
    return edit.author != frontier.own and not frontier.is_known(edit.author)


def _hypothesis(source: str, members: list[Record], again: list[Record]) -> Hypothesis:
    """`again`: edits that are members too, made by somebody else."""
    tags: dict[Tag, None] = {tag: None for one in members if isinstance(one.body, Result) for tag in one.body.tags}
    return Hypothesis(
        source=source,
        title=f"{len(members)} promising edits at once: {', '.join(tags) or 'untagged'}"[:120],
        reason="Each promised in one run, and none so much that a few pairs would show it.",
        tags=tuple(tags)[:8],
        proposer=NAME,
        inspired_by=tuple(one.id for one in (*members, *again))[:MAX_NAMED],
    )


def _promise(record: Record) -> float:
    """Standard deviations; no word is worth more than those that wait by right."""
    body = record.body
    assert isinstance(body, Result)
    return min((body.gain or 0.0) / body.noise, WAIT_SIGMAS) if body.noise else 0.0


def _is_new(proposer: str, inspired_by: Collection[bytes]) -> bool:
    return not inspired_by or proposer.startswith("llm")  # a model names all that it was shown
