from __future__ import annotations

import math
import random
from collections.abc import Callable
from importlib import resources

import pytest
import torch
from swarm_node.node.proposers.catalogue import Edit
from swarm_node.node.proposers.edits import Draft
from swarm_node.node.proposers.offline import EDITS, candidates
from swarm_node.protocols.diffs import apply_diff, make_diff, normal_digest
from swarm_node.protocols.tags import TAGS

torch.set_num_threads(1)
BASELINE = resources.files("swarm_node.trainer.tasks.gpt_cpu").joinpath("train.py").read_text(encoding="utf-8")
BY_NAME = {edit.name: edit for edit in EDITS}

# Edits that the baseline does not admit, by the start of their name, and an edit that makes room for them.
NEEDS = {
    "matrix-lr-": "optimizer-muon", "embed-lr-": "lr-embedding-3.0", "embed-std-": "init-embedding-std-0.1",
    "linear-std-": "init-linear-std-0.05", "warmup-": "schedule-warmup", "warmdown-": "schedule-linear-0.5",
    "clip-": "gradient-clip", "eps-": "optimizer-eps-1e-06", "dropout-times": "dropout",
    "dropout-over": "dropout", "label-smoothing-": "loss-smoothing", "z-loss-": "loss-z",
    "softcap-": "head-softcap-30.0", "logit-scale-": "head-scale-0.5", "attention-scale-times": "attention-scale-0.5",
    "attention-scale-over": "attention-scale-0.5", "branch-scale-": "block-scale-0.1",
    "rope-base-": "position-rotary", "bigrams-": "embedding-bigram-8192",
    "width-times-0.667": "width-times-1.5", "momentum-": "optimizer-sgd", "ema-decay-": "average-weights",
    "weight-decay-on": "weight-decay-off", "norm-layer": "norm-rms", "norm-gain": "norm-no-gain",
    "position-learned": "position-none", "activation-gelu": "activation-relu",
    "precision-float32": "precision-bfloat16",
    "bias-on": "bias-off", "embedding-untied": "embedding-tied", "optimizer-adamw": "optimizer-sgd",
}  # fmt: skip


class Context:
    """A context over random bytes, with the harness's interface."""

    vocab_size = 256
    device = "cpu"

    def __init__(self, steps: int = 2, seed: int = 0) -> None:
        self.steps, self.seed, self.ticks = steps, seed, 0
        self.losses: list[float] = []
        self.length = 0
        self._generator = torch.Generator().manual_seed(seed)

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.length = length
        text = torch.randint(0, 256, (rows, length + 1), generator=self._generator)
        return text[:, :-1], text[:, 1:]

    def step(self, model: Callable[[torch.Tensor], torch.Tensor], loss: torch.Tensor) -> None:
        assert callable(model)
        self.ticks += 1
        self.losses.append(loss.item())


def base_for(edit: Edit) -> str:
    """The baseline, or the baseline after the edit that this one needs."""
    need = next((BY_NAME[need] for start, need in NEEDS.items() if edit.name.startswith(start)), None)
    if need is None:
        return BASELINE
    ready = need.apply(BASELINE)
    assert ready is not None
    return ready.source


def check_trains(source: str) -> None:
    """The program trains two steps with finite loss, answers logits, and never looks ahead."""
    space: dict[str, Callable[[Context], torch.nn.Module]] = {}
    exec(compile(source, "train.py", "exec"), space)
    torch.manual_seed(0)
    context = Context()
    model = space["train"](context).eval()
    assert context.ticks == context.steps
    assert all(math.isfinite(loss) and loss < 2000 for loss in context.losses), context.losses
    ids = torch.randint(0, 256, (3, context.length))
    changed = ids.clone()
    changed[:, context.length // 2 :] = torch.randint(0, 256, changed[:, context.length // 2 :].shape)
    with torch.no_grad():
        logits, others = model(ids), model(changed)
    assert logits.shape == (3, context.length, 256) and logits.isfinite().all()
    half = slice(0, context.length // 2)
    torch.testing.assert_close(logits[:, half], others[:, half], rtol=1e-3, atol=1e-3)


def compositions(count: int, depth: int) -> list[tuple[list[str], str]]:
    """Programs after `depth` random edits, with the edits' names."""
    chance = random.Random(20)
    made: list[tuple[list[str], str]] = []
    while len(made) < count:
        names, source = chain([], BASELINE, depth - 1, chance)
        made += [chain(names, source, depth, chance) for _ in range(4)]  # branches of one chain: three times faster
    return made


def chain(names: list[str], source: str, depth: int, chance: random.Random) -> tuple[list[str], str]:
    """The program after random edits until there are `depth`."""
    names = list(names)
    while len(names) < depth:
        edit = chance.choice(EDITS)
        if (candidate := edit.apply(source)) is not None:
            source = candidate.source
            names.append(edit.name)
    return names, source


def test_catalogue_is_wide() -> None:
    """Over a hundred edits fit the plain baseline, under different names, with known tags."""
    assert len(BY_NAME) == len(EDITS)
    assert len(candidates(BASELINE)) > 100
    assert all(edit.tags and set(edit.tags) <= set(TAGS) and edit.reason for edit in EDITS)
    used = {tag for edit in EDITS for tag in edit.tags}
    assert set(TAGS) - used == {"other"}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_every_edit_is_a_program_that_trains(edit: Edit) -> None:
    """Each edit fits the baseline or the base it needs, gives another program by a lawful diff, and trains."""
    base = base_for(edit)
    assert base == BASELINE or edit.apply(BASELINE) is None, "it needs no other base"
    candidate = edit.apply(base)
    assert candidate is not None
    assert normal_digest(candidate.source) != normal_digest(base)
    assert len(candidate.title) <= 120
    diff = make_diff(base, candidate.source)
    assert apply_diff(base, diff) == candidate.source
    check_trains(candidate.source)


def test_edits_compose() -> None:
    """Two hundred random chains of six edits compile, and a sample of them trains."""
    made = compositions(200, 6)
    assert len({normal_digest(source) for _, source in made}) >= 195  # two branches may draw the same edit
    for names, source in made[::20]:
        try:
            check_trains(source)
        except Exception as error:
            raise AssertionError(f"{names} fail together") from error


def test_dials_go_on() -> None:
    """A dial can be moved again and again until its limit, and back."""
    source = BASELINE
    moved = 0
    while (candidate := BY_NAME["lr-times-3"].apply(source)) is not None:
        source, moved = candidate.source, moved + 1
    assert moved == 8  # 1e-3 to 6.6
    back = BY_NAME["depth--1"].apply(BY_NAME["depth-+1"].apply(BASELINE).source)  # type: ignore[union-attr]
    assert back is not None and back.source == BASELINE


def test_swapping_back_leaves_nothing_behind() -> None:
    """An optimizer, a position scheme and a precision that are replaced leave no dead code."""
    source = BASELINE
    there_and_back = "precision-bfloat16", "precision-float32"
    for name in ("optimizer-muon", "position-rotary", "optimizer-adamw", "position-learned", *there_and_back):
        candidate = BY_NAME[name].apply(source)
        assert candidate is not None, name
        source = candidate.source
    assert normal_digest(source) == normal_digest(BASELINE)


def test_a_foreign_program_is_left_alone() -> None:
    """On a program of another structure structural edits do not fit; nothing raises."""
    foreign = "import torch\n\nRATE = 0.1\n\n\ndef train(ctx):\n    return lambda ids: ids\n"
    assert candidates(foreign) == []
    assert all(edit.apply("def broken(:\n") is None for edit in EDITS)


def test_titles_say_the_numbers() -> None:
    """A dial's title tells where it stood and where it goes."""
    candidate = BY_NAME["lr-times-3"].apply(BASELINE)
    assert candidate is not None and candidate.title == "learning rate × 3: 1e-3 → 3e-3"
    assert Draft(candidate.source).value("LR") == 3e-3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.LayerNorm(WIDTH)", "nn.LayerNorm(normalized_shape=WIDTH)"),
        ("self.attn(self.norm1(x))", "self.attn(x=self.norm1(x))"),
        ("LR = 1e-3", "LR = (1e-3, 1e-4)"),
        ("BATCH = 8", "BATCH = [8, 16]"),
        ("BETAS = (0.9, 0.999)", "BETAS = 0.9"),
    ],
)
def test_programs_of_another_shape_trip_no_edit(old: str, new: str) -> None:
    """A program is anybody's: an edit that does not understand it does not fit, and the others still do."""
    assert old in BASELINE
    made = [edit.apply(BASELINE.replace(old, new)) for edit in EDITS]
    assert sum(candidate is not None for candidate in made) > 50
