"""How the trainer's processes talk: msgpack frames between daemon and worker, fixed structs with the run child.

The daemon and the worker trust each other, so their frames carry whole objects. What a run child sends is
untrusted: each of its frames is one byte of kind, four of length, and a struct that nothing but `struct` reads.
"""

from __future__ import annotations

import struct
from typing import IO, Any

import msgpack

MAX_FRAME = 16 << 20  # daemon <-> worker; a run's source and log are far below

HEAD = struct.Struct("<BI")  # kind, length of what follows
# run child -> worker
HELLO = 1  # I: its pid, sent before the candidate's source is read
TICK = 2  # Id: step, loss (NaN when none); the loss curve
BEAT = 3  # Id: the same, only to show progress
PAUSE = 4  # I: step; a gated child waits for GO
ASK = 5  # BI: 0 = half time, 1 = training is over; context length. The worker answers with BATCH... END
LOGITS = 6  # float32 [B, T, vocabulary]
FAILED = 7  # UTF-8: one sentence
# worker -> run child
START = 16  # JSON: the job with the candidate's source
GO = 17  # I: how many more steps a gated child may take
BATCH = 18  # II: B, T, then B*T bytes of token ids
END = 19  # no more batches

PID = struct.Struct("<I")
STEP = struct.Struct("<I")
LOSS = struct.Struct("<Id")
QUESTION = struct.Struct("<BI")
SHAPE = struct.Struct("<II")

SIZES = {HELLO: PID.size, TICK: LOSS.size, BEAT: LOSS.size, PAUSE: STEP.size, ASK: QUESTION.size}
MAX_REASON = 2_000  # bytes of a FAILED frame
VOCABULARY = 256  # byte-level; the harness owns the tokenizer
CONTEXT = (8, 1024)  # bounds of eval_context


def write(stream: IO[bytes], body: dict[str, Any]) -> None:
    """Send one msgpack frame: 4 bytes of big-endian length, then the map."""
    data: bytes = msgpack.packb(body)  # pyright: ignore[reportAssignmentType]
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def read(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next msgpack frame; None when the other side is gone. ValueError when it is no frame."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    size = struct.unpack(">I", head)[0]
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    data = stream.read(size)
    return msgpack.unpackb(data) if len(data) == size else None
