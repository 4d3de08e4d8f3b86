"""Two proposers by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from swarm_node.node.proposers.base import Hypothesis, Situation, Trial
from swarm_node.node.proposers.choose import ProposerSettings, choose
from swarm_node.node.proposers.hybrid import HybridProposer
from swarm_node.protocols.errors import UsageError
from swarm_node.protocols.records import Cost

Make = Callable[..., Situation]


class Named:
    """Proposes its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def propose(self, situation: Situation) -> Hypothesis:
        return Hypothesis("x", self.name, "", (), self.name)


def turns(make: Make, share: float, seed: int, count: int = 40) -> list[str]:
    """Who proposes, experiment by experiment, each time as by a node that was just started."""
    told: list[str] = []
    for number in range(count):
        both = HybridProposer(Named("llm"), Named("offline"), told.append, share, seed)
        trials = (Trial("", (), "discarded", 0.0, True),) * number + (Trial("", (), "discarded", 0.0, False),) * 7
        got = asyncio.run(both.propose(make(trials=trials)))
        assert isinstance(got, Hypothesis)
        told.append(got.title)
    return told


@pytest.mark.parametrize(("share", "models"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_the_model_gets_its_share(situation: Make, share: float, models: int) -> None:
    """Exactly so many of the proposals, spread evenly, counted by own experiments alone."""
    for seed in range(5):
        told = turns(situation, share, seed)
        assert told.count("llm") == models
        assert all(abs(told[:n].count("llm") - n * share) <= 1 for n in range(40))
    assert len({tuple(turns(situation, 0.25, seed, 8)) for seed in range(9)}) > 1 or share != 0.25


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    """Anything else is the user's mistake, and said so."""
    with pytest.raises(UsageError, match="--llm-share"):
        choose(ProposerSettings(llm_share=share), bytes(32), lambda line: None, Cost())
