"""Edits of constants: each moves one dial from where it stands, so the search can go on for ever.

A dial whose constant another edit introduced (CLIP, WARMUP, …) can be moved as soon as it exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ...protocols.tags import Tag
from .catalogue import Edit, Shelf
from .edits import Draft, literal

shelf = Shelf()
# Edits that move one dial either way: what is worse the one way may be better the other.
WAYS: dict[str, tuple[str, int]] = {
    "shorter-and-more": ("BATCH by SEQ", 1), "longer-and-fewer": ("BATCH by SEQ", -1),
    "depth-+1": ("DEPTH", 1), "depth--1": ("DEPTH", -1),
    "width-times-2": ("WIDTH", 1), "width-times-1.5": ("WIDTH", 1),
    "width-times-0.667": ("WIDTH", -1), "width-times-0.5": ("WIDTH", -1),
}  # fmt: skip

# constant: (words, factors, lowest, highest, reason, tags)
_SCALED: dict[str, tuple[str, tuple[float, ...], float, float, str, tuple[Tag, ...]]] = {
    "LR": ("learning rate", (10, 3, 1.5), 1e-6, 10, "Too small wastes steps, too large diverges.", ("lr",)),
    "MATRIX_LR": ("learning rate of matrices", (3, 1.5), 1e-5, 1, "Muon's own step size.", ("lr", "optimizer")),
    "EMBED_LR": ("learning rate of embeddings", (3,), 0.01, 100, "Rare rows get few updates.", ("lr", "embedding")),
    "WEIGHT_DECAY": ("weight decay", (10, 3), 1e-5, 10, "Smaller weights generalise.", ("regularisation",)),
    "EMBED_STD": ("initial embeddings", (3, 1.5), 1e-4, 10, "Sets the scale of the input.", ("init", "embedding")),
    "LINEAR_STD": ("initial linear weights", (2,), 1e-4, 1, "Sets the scale of every layer.", ("init",)),
    "WARMUP": ("warmup", (2,), 0.005, 0.5, "Early gradients are noisy.", ("schedule",)),
    "WARMDOWN": ("linear decay", (2,), 0.05, 1, "How long to average out the noise.", ("schedule",)),
    "CLIP": ("gradient clipping", (3,), 0.01, 100, "Where to cut rare large gradients.", ("optimizer",)),
    "EPS": ("epsilon of Adam", (100,), 1e-14, 0.1, "Damps weights with tiny gradients.", ("optimizer",)),
    "DROPOUT": ("dropout", (2,), 0.01, 0.5, "Strength of the noise.", ("regularisation",)),
    "LABEL_SMOOTHING": ("label smoothing", (2,), 0.005, 0.3, "Strength of the smoothing.", ("loss",)),
    "Z_LOSS": ("z-loss", (10,), 1e-7, 0.1, "Strength of the pull.", ("loss",)),
    "SOFTCAP": ("softcap", (2,), 2, 120, "Where logits saturate.", ("head",)),
    "LOGIT_SCALE": ("scale of the logits", (2,), 1 / 16, 16, "How sharp the output starts.", ("head",)),
    "ATTENTION_SCALE": ("scale of attention scores", (2,), 1 / 16, 16, "How sharp attention is.", ("attention",)),
    "BRANCH_SCALE": ("initial scale of branches", (3,), 1e-3, 1, "How fast blocks come alive.", ("residual", "init")),
    "ROPE_BASE": ("base of rotary positions", (10,), 10, 1e6, "The longest wavelength.", ("position",)),
}  # fmt: skip


def _scale(name: str, factor: float, low: float, high: float) -> Callable[[Draft], str]:
    def change(draft: Draft) -> str:
        old = draft.value(name)
        draft.require(isinstance(old, int | float))
        new = type(old)(old * factor)
        draft.require(low <= new <= high and new != old, "at its limit")
        draft.set(name, new)
        return f"{literal(old)} → {literal(new)}"

    return change


for _name, (_words, _factors, _low, _high, _reason, _tags) in _SCALED.items():
    for _factor in _factors:
        _slug, _by = _name.lower().replace("_", "-"), f"{_factor:g}"
        shelf.add(Edit(f"{_slug}-times-{_by}", f"{_words} × {_by}", _reason, _tags,
                       _scale(_name, _factor, _low, _high)))  # fmt: skip
        shelf.add(Edit(f"{_slug}-over-{_by}", f"{_words} ÷ {_by}", _reason, _tags,
                       _scale(_name, 1 / _factor, _low, _high)))  # fmt: skip
        WAYS |= {f"{_slug}-times-{_by}": (_name, 1), f"{_slug}-over-{_by}": (_name, -1)}


# whole numbers: (constant, words, lowest, highest, reason, tags)
_COUNTS: tuple[tuple[str, str, int, int, str, tuple[Tag, ...]], ...] = (
    ("BATCH", "batch", 1, 256, "Fewer noisy steps or more of them.", ("batch",)),
    ("SEQ", "sequence length", 16, 1024, "Context costs time and positions to learn.", ("context", "batch")),
    ("MLP_RATIO", "MLP hidden size", 1, 16, "Where the parameters are.", ("mlp", "width")),
    ("HEADS", "attention heads", 1, 32, "More patterns or sharper ones.", ("attention",)),
    ("BIGRAMS", "bigram table", 256, 1 << 18, "Fewer collisions, rarer updates.", ("embedding",)),
)


def _resize(name: str, low: int, high: int, up: bool) -> Callable[[Draft], str]:
    def change(draft: Draft) -> str:
        old = draft.value(name)
        draft.require(isinstance(old, int) and (up or old % 2 == 0))
        new = old * 2 if up else old // 2
        draft.require(low <= new <= high, "at its limit")
        draft.set(name, new)
        if name == "HEADS":
            _require_heads_fit(draft, new, draft.value("WIDTH"))
        return f"{old} → {new}"

    return change


for _name, _words, _least, _most, _reason, _tags in _COUNTS:
    _slug = _name.lower().replace("_", "-")
    shelf.add(Edit(f"{_slug}-times-2", f"{_words} × 2", _reason, _tags, _resize(_name, _least, _most, True)))
    shelf.add(Edit(f"{_slug}-over-2", f"{_words} ÷ 2", _reason, _tags, _resize(_name, _least, _most, False)))
    WAYS |= {f"{_slug}-times-2": (_name, 1), f"{_slug}-over-2": (_name, -1)}


def _require_heads_fit(draft: Draft, heads: int, width: int) -> None:
    draft.require(width % heads == 0 and width // heads >= 8 and width // heads % 2 == 0, "heads do not divide width")


@shelf.edit("shorter-and-more", "half the sequence length, twice the batch", "Same bytes per step, less attention.",
            "context", "batch")  # fmt: skip
def _shorter_and_more(draft: Draft) -> None:
    draft.require(draft.value("SEQ") >= 32 and draft.value("SEQ") % 2 == 0)
    draft.set("SEQ", draft.value("SEQ") // 2)
    draft.set("BATCH", draft.value("BATCH") * 2)


@shelf.edit("longer-and-fewer", "twice the sequence length, half the batch", "Same bytes per step, more context.",
            "context", "batch")  # fmt: skip
def _longer_and_fewer(draft: Draft) -> None:
    draft.require(draft.value("SEQ") <= 512 and draft.value("BATCH") % 2 == 0)
    draft.set("SEQ", draft.value("SEQ") * 2)
    draft.set("BATCH", draft.value("BATCH") // 2)


@shelf.edit("depth-{:+d}", "depth {:+d}", "Deeper models compose more; each block costs steps.", "depth",
            values=(1, -1))  # fmt: skip
def _depth(draft: Draft, by: int) -> str:
    old = draft.value("DEPTH")
    draft.require(1 <= old + by <= 12)
    draft.set("DEPTH", old + by)
    return f"{old} → {old + by}"


@shelf.edit("width-times-{:.3g}", "width × {:.3g}", "Wider layers hold more; they cost steps.", "width",
            values=(2, 1.5, 2 / 3, 0.5))  # fmt: skip
def _width(draft: Draft, by: float) -> str:
    old = draft.value("WIDTH")
    new = round(old * by)
    draft.require(16 <= new <= 512 and new % 8 == 0)
    _require_heads_fit(draft, draft.value("HEADS"), new)
    draft.set("WIDTH", new)
    return f"{old} → {new}"


def _decay(constant: str, index: int | None, factor: float) -> Callable[[Draft], str]:
    """Move a decay by its distance from one: 0.9 × 2 is 0.8, so that each move doubles or halves the memory."""

    def change(draft: Draft) -> str:
        value = draft.value(constant)
        old = value if index is None else value[index]
        new = 1 - (1 - old) * factor
        draft.require(0 < new < 0.99999 and not math.isclose(new, old))
        draft.set(constant, new if index is None else tuple(new if i == index else v for i, v in enumerate(value)))
        return f"{literal(old)} → {literal(new)}"

    return change


for _constant, _index, _name, _words, _factor, _tag in (
    ("BETAS", 0, "beta1", "memory of the gradient", 2, "optimizer"),
    ("BETAS", 1, "beta2", "memory of the squared gradient", 5, "optimizer"),
    ("MOMENTUM", None, "momentum", "momentum", 2, "optimizer"),
    ("EMA_DECAY", None, "ema-decay", "memory of the averaged weights", 3, "averaging"),
):
    _typed: tuple[Tag, ...] = ("optimizer",) if _tag == "optimizer" else ("averaging",)
    _reason = "A longer memory is smoother, a shorter one reacts sooner."
    shelf.add(Edit(f"{_name}-shorter", f"{_words} ÷ {_factor}", _reason, _typed, _decay(_constant, _index, _factor)))
    shelf.add(Edit(f"{_name}-longer", f"{_words} × {_factor}", _reason, _typed, _decay(_constant, _index, 1 / _factor)))
    WAYS |= {f"{_name}-shorter": (_name, -1), f"{_name}-longer": (_name, 1)}


@shelf.edit("weight-decay-off", "no weight decay", "A short run has no time to overfit.", "regularisation", "simplify")
def _no_decay(draft: Draft) -> None:
    draft.require(draft.value("WEIGHT_DECAY") != 0)
    draft.set("WEIGHT_DECAY", 0.0)


@shelf.edit("weight-decay-on", "weight decay 0.1", "Smaller weights generalise.", "regularisation")
def _some_decay(draft: Draft) -> None:
    draft.require(draft.value("WEIGHT_DECAY") == 0)
    draft.set("WEIGHT_DECAY", 0.1)


# What the sweep knows of constants: where their values make sense, and what kind of change it is to move them.
LIMITS: dict[str, tuple[float, float]] = {
    **{name: (low, high) for name, (_, _, low, high, _, _) in _SCALED.items()},
    **{name: (low, high) for name, _, low, high, _, _ in _COUNTS},
    "DEPTH": (1, 12),
    "WIDTH": (16, 512),
}
KINDS: dict[str, tuple[Tag, ...]] = {
    **{name: tags for name, (_, _, _, _, _, tags) in _SCALED.items()},
    **{name: tags for name, _, _, _, _, tags in _COUNTS},
    "DEPTH": ("depth",),
    "WIDTH": ("width",),
    "BETAS": ("optimizer",),
    "MOMENTUM": ("optimizer",),
    "EMA_DECAY": ("averaging",),
}
