"""What this node's own experiments made of what was won elsewhere."""

from __future__ import annotations

from collections import Counter

from ..protocols.records import Result
from ..swarm.frontier import Frontier


class Attempts:
    """Own experiments that tried one win, or two at once; those of a language model that read many are not counted."""

    def __init__(self, frontier: Frontier) -> None:
        self.failures: Counter[tuple[bytes, ...]] = Counter()  # by the results that were tried together, sorted
        self.whole_failures: Counter[bytes] = Counter()  # by authors whose very programs came to nothing here
        self.adopted: set[bytes] = set()
        for record in list(frontier.trials):
            body = record.body
            if record.author != frontier.own or not isinstance(body, Result) or not body.inspired_by:
                continue
            built_in = body.proposer.partition(":")[0] == "offline"
            if len(body.inspired_by) > (2 if built_in else 1):
                continue
            if body.outcome == "kept":
                self.adopted.update(body.inspired_by)
            else:
                self.failures[tuple(sorted(body.inspired_by))] += 1
                peer = frontier.peer_win(body.inspired_by[0])
                if peer is not None and len(body.inspired_by) == 1 and peer[1].normal == body.normal:
                    self.whole_failures[peer[0]] += 1
