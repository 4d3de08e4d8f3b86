"""Small gains are confirmed together.

A gain of two standard deviations takes ten pairs of runs to prove, and five such gains in one program take half. So an
edit that promised in one run, but not so much that a few pairs would show it, waits until several go into one program:
own ones, and those of peers of whom this node found more true than not, so that four nodes fill it four times as fast.
Which of them it was that helped stays open; that the program as a whole is better is tested like any other.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection

from ..protocols.diffs import normal_digest
from ..protocols.records import Record, Result
from ..protocols.tags import Tag
from ..swarm.frontier import Frontier
from ..trainer.decide import WAIT_SIGMAS
from .ideas import Program, brought
from .proposers.base import Hypothesis
from .proposers.belief import FADE

NAME = "group"
ENOUGH = 4  # that go together before they are tried
MOST = 6
MAX_LOST = 1  # groups without success, here or at a known peer, after which an edit is in none any more
MAX_MERGES = 24  # of the most promising edits: a peer's may not apply here


def may_wait(hypothesis: Hypothesis) -> bool:
    """Whether a hypothesis is a new edit. A group, and what was won elsewhere, is confirmed at once."""
    return hypothesis.proposer != NAME and _is_new(hypothesis.proposer, hypothesis.inspired_by)


def waiting(frontier: Frontier) -> list[Record]:
    """Undecided edits that no group has settled here, the most promising first: by their gain in standard deviations.
    Gains fade with the own wins since they became known."""
    settled, lost = set[bytes](), Counter[bytes]()
    found: list[tuple[Record, float, int]] = []
    wins, gone = 0, frontier.quarantined
    heard = functools.cache(lambda author: author == frontier.own or (frontier.is_known(author) and author not in gone))
    for record in list(frontier.trials):
        body, own = record.body, record.author == frontier.own
        if not isinstance(body, Result) or not heard(record.author):
            continue
        if body.proposer == NAME:
            settled.update(body.inspired_by if own and body.outcome == "kept" else ())
            lost.update(body.inspired_by if body.outcome != "kept" else ())
        elif body.is_undecided and (own or body.diff) and _is_new(body.proposer, body.inspired_by):
            found.append((record, _promise(body), wins))
        wins += own and body.outcome == "kept"
    left = [one for one in found if one[0].id not in settled and lost[one[0].id] <= MAX_LOST]
    return [record for record, _, _ in sorted(left, key=lambda one: -one[1] * FADE ** (wins - one[2]))]


def together(
    frontier: Frontier,
    parent: str,
    baseline: str,
    program: Program,
    busy: Collection[bytes],
    taken: Callable[[bytes], bool],
    least: int = ENOUGH,
) -> Hypothesis | None:
    """`parent` with the most promising undecided edits that go together, when there are `least` or more.

    program: source text by digest, as far as it is known here. busy: results that are in a group which is being tried.
    taken: whether somebody runs or this node refused a program, by its normal digest.
    """
    source, members, tags = parent, list[bytes](), dict[Tag, None]()
    for record in [one for one in waiting(frontier) if one.id not in busy][:MAX_MERGES]:
        body = record.body
        assert isinstance(body, Result)
        made = brought(source, body, record.author == frontier.own, program, baseline)
        if made is not None and normal_digest(made) != normal_digest(source):
            source = made
            members.append(record.id)
            tags |= dict.fromkeys(body.tags)
        if len(members) == MOST:
            break
    normal = normal_digest(source)
    if len(members) < max(2, least) or frontier.is_tried(normal) or taken(normal):
        return None
    return Hypothesis(
        source=source,
        title=f"{len(members)} promising edits at once: {', '.join(tags) or 'untagged'}"[:120],
        reason="Each promised in one run, and none so much that a few pairs would show it.",
        tags=tuple(tags)[:8],
        proposer=NAME,
        inspired_by=tuple(members),
    )


def _promise(body: Result) -> float:
    """Standard deviations; no word is worth more than those that wait by right."""
    return min((body.gain or 0.0) / body.noise, WAIT_SIGMAS) if body.noise else 0.0


def _is_new(proposer: str, inspired_by: Collection[bytes]) -> bool:
    return not inspired_by or proposer.startswith("llm")  # a model names all that it was shown
