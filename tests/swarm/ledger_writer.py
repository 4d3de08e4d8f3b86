"""Appends to a ledger for ever and prints each id once it is durable; the test kills it. Run as a program."""

import sys
from pathlib import Path

from swarm_node.protocols.records import Environment, Result
from swarm_node.swarm.ledger import Ledger

ENVIRONMENT = Environment(hardware="cpu", device="d", system="s", python="3", library="t")


def main() -> None:
    with Ledger.open(Path(sys.argv[1])) as ledger:
        number = 0
        while True:
            number += 1
            body = Result(
                task=b"t" * 32, outcome="discarded", program=b"p" * 32, parent=b"q" * 32, normal=b"n" * 32,
                title=f"number {number}", proposer="offline", environment=ENVIRONMENT,
            )  # fmt: skip
            record = ledger.append(bytes(range(32)), body, now_ms=1_790_000_000_000 + number)
            ledger.journal_put(f"x-{number}", "done", record.id.hex())
            print(record.id.hex(), flush=True)


if __name__ == "__main__":
    main()
