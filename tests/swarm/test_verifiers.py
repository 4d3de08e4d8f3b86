"""Who re-runs what."""

from __future__ import annotations

from collections import Counter

from swarm_node.protocols.canonical import digest
from swarm_node.swarm.verifiers import is_chosen, ranked

NODES = [digest(b"node%d" % number) for number in range(50)]
CLAIMS = [digest(b"claim%d" % number) for number in range(500)]


def test_all_nodes_agree_on_the_order_whatever_they_list_first() -> None:
    """It depends on names alone."""
    assert ranked(CLAIMS[0], NODES) == ranked(CLAIMS[0], list(reversed(NODES)))
    assert ranked(CLAIMS[0], NODES) != ranked(CLAIMS[1], NODES) != ranked(CLAIMS[1], NODES, b"wider")


def test_two_verifiers_a_claim_and_the_load_is_even() -> None:
    """1,000 re-runs over 50 nodes: 20 each, give or take."""
    load = Counter(node for claim in CLAIMS for node in NODES if is_chosen(node, claim, NODES, age=0.0, patience=60.0))
    assert sum(load.values()) == 1000
    assert min(load[node] for node in NODES) >= 5 and max(load.values()) <= 45


def test_a_node_that_leaves_moves_its_own_work_only() -> None:
    """Everybody else keeps theirs."""
    gone, rest = NODES[0], NODES[1:]
    for claim in CLAIMS[:100]:
        before = [node for node in ranked(claim, NODES)[:2] if node != gone]
        assert before == ranked(claim, rest)[: len(before)]


def test_waiting_widens_the_circle_one_by_one() -> None:
    """Verifiers that never answer do not stop a claim."""

    def chosen(age: float) -> int:
        return sum(is_chosen(node, CLAIMS[0], NODES, age=age, patience=60.0) for node in NODES)

    assert [chosen(age) for age in (0.0, 59.0, 61.0, 125.0, 1e9)] == [2, 2, 3, 4, 50]


def test_a_node_counts_itself() -> None:
    """Alone with a claim it is the verifier, though it never hears its own hello."""
    assert is_chosen(NODES[0], CLAIMS[0], [], age=0.0, patience=60.0)
