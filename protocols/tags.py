"""Technique tags: the only words about an idea that travel from one node's record into another's prompt."""

from __future__ import annotations

from typing import Literal, get_args

Tag = Literal[
    "init", "norm", "position", "attention", "activation", "mlp", "embedding", "head", "mixing",
    "residual", "optimizer", "lr", "schedule", "batch", "context", "width", "depth",
    "regularisation", "loss", "averaging", "precision", "speed", "simplify", "other",
]  # fmt: skip
TAGS: tuple[Tag, ...] = get_args(Tag)
