"""What this node's own experiments made of what was won elsewhere."""

from __future__ import annotations

from collections import Counter

from ..protocols.records import Result
from ..swarm.frontier import Frontier


class Attempts:
    """Own experiments with one win, or several at once. What a language model made after it read of a win counts if it
    is that very program."""

    def __init__(self, frontier: Frontier) -> None:
        self.failures: Counter[tuple[bytes, ...]] = Counter()  # by the results that were tried together, sorted
        self.whole_failures: Counter[bytes] = Counter()  # by authors whose very programs came to nothing here
        self.strangers_failed = 0  # with one win of an author of whom nothing was found true here
        self.adopted: set[bytes] = set()
        self.stacks_kept = self.stacks_lost = 0  # of several wins at once
        self.lost_with: Counter[bytes] = Counter()  # such, by each of the results in them
        for record in list(frontier.trials):
            body = record.body
            if record.author != frontier.own or not isinstance(body, Result) or not body.inspired_by:
                continue
            first, *others = sorted(body.inspired_by)
            peer = frontier.peer_win(first)
            whole = peer is not None and not others and peer[1].normal == body.normal
            if not whole and body.proposer.partition(":")[0] != "offline":
                continue
            self.stacks_kept += bool(others) and body.outcome == "kept"
            self.stacks_lost += bool(others) and body.outcome != "kept"
            if body.outcome == "kept":
                self.adopted.update(() if others else (first,))  # `Lineages` knows of several whether the best has them
            else:
                self.failures[first, *others] += 1
                self.lost_with.update((first, *others) if others else ())
                chosen = ":" not in body.proposer  # else it is an own edit that a peer claims, or that was done again
                if peer is not None and not others and chosen and not frontier.is_known(peer[0]):
                    self.strangers_failed += 1
                if peer is not None and whole:
                    self.whole_failures[peer[0]] += 1
