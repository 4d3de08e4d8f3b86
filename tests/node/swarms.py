"""The ledger of a home in a small swarm, and the logs of the others in it, as signed records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from swarm_node.node.board import Board, board_text
from swarm_node.node.show import show
from swarm_node.node.tasks import known_tasks, remember, remember_heard
from swarm_node.protocols.records import Record
from swarm_node.protocols.task import task_bytes
from swarm_node.swarm.ledger import Ledger
from swarm_node.trainer import task as tasks

sys.path.insert(0, str(Path(__file__).parent.parent / "swarm"))
from logs import ENVIRONMENT, KEYS, Log, check, result

MINE, OTHERS = (tasks.load("gpt-cpu", size, bytes(32)).spec for size in ("short", "long"))
GPU = ENVIRONMENT.model_copy(update={"hardware": "cuda-sm90"})


class Swarm:
    """A home's ledger, and the logs of others in it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.me, self.ann, self.bob, self.cid = (Log(KEYS[number]) for number in range(4))
        remember(ledger, MINE)
        remember_heard(ledger, OTHERS.id, task_bytes(OTHERS))
        ledger.journal_put("node", "author", self.me.author.hex())

    def say(self, log: Log, outcome: str, program: int, parent: int | None = 0, **fields: Any) -> Record:
        """A result by somebody, on this home's task unless told otherwise."""
        body = result(outcome, program, parent, **({"task": MINE.id, "noise": 0.1} | fields))
        return self.add(log.say(body))

    def rerun(self, log: Log, win: Record, outcome: str, **fields: Any) -> Record:
        """Somebody's verification."""
        return self.add(log.say(check(win, outcome, **({"task": MINE.id} | fields))))

    def add(self, record: Record) -> Record:
        self.ledger.add(record, received_ms=1)
        return record

    @property
    def board(self) -> Board:
        return Board(self.ledger, known_tasks(self.ledger))

    def rows(self, track: int = 0) -> list[Record]:
        """The board's records of a track, in order."""
        board = self.board
        return [row.record for row in board.rows(board.tracks[track])]

    def lines(self) -> str:
        return "\n".join(board_text(self.board, 10))

    def shown(self, record: Record) -> str:
        return show(record, self.ledger, known_tasks(self.ledger))
