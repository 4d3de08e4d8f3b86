"""Edits of how the model is trained: optimizer, schedule, loss, regularisation, averaging, precision."""

from __future__ import annotations

import ast

from .catalogue import Shelf
from .edits import Draft

shelf = Shelf()


# -- optimizers ----------------------------------------------------------------------------------------------

_LION = '''
class Lion(torch.optim.Optimizer):
    """Steps of one size along the sign of the momentum (Chen et al. 2023)."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (fast, slow) = group["lr"], group["betas"]
            for p in group["params"]:
                if p.grad is not None:
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    p.mul_(1 - lr * group["weight_decay"])
                    p.add_(momentum.lerp(p.grad, 1 - fast).sign(), alpha=-lr)
                    momentum.lerp_(p.grad, 1 - slow)
'''
_MUON = '''
class Muon(torch.optim.AdamW):
    """Orthogonalised momentum for the matrices in the blocks, AdamW for everything else (Jordan 2024)."""

    def __init__(self, model, matrix_lr, momentum, **settings):
        matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        super().__init__([{"params": others}, {"params": matrices, "lr": matrix_lr}], **settings)
        self.momentum = momentum

    @torch.no_grad()
    def step(self):
        group = self.param_groups[1]
        for p in group["params"]:
            if p.grad is not None:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - self.momentum)
                update = orthogonalize(p.grad.lerp(average, self.momentum))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
                p.grad = None  # so that AdamW leaves it alone
        super().step()
'''
_ORTHOGONALIZE = '''
def orthogonalize(matrix):
    """Move all singular values of a matrix towards 1, by five Newton-Schulz iterations."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
'''

_ADAM = "lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY"
# name: (call, learning rate beside AdamW's, where each optimizer usually is at home)
_OPTIMIZERS = {
    "adamw": ("torch.optim.AdamW({}, " + _ADAM + ", fused=True)", 1.0),
    "nadam": ("torch.optim.NAdam({}, " + _ADAM + ", decoupled_weight_decay=True)", 1.0),
    "rmsprop": ("torch.optim.RMSprop({}, lr=LR, momentum=MOMENTUM)", 0.1),
    "adagrad": ("torch.optim.Adagrad({}, lr=LR)", 10.0),
    "sgd": ("torch.optim.SGD({}, lr=LR, momentum=MOMENTUM, nesterov=True)", 100.0),
    "lion": ("Lion({}, " + _ADAM + ")", 0.2),
    "muon": ("Muon(model, matrix_lr=MATRIX_LR, momentum=MOMENTUM, " + _ADAM + ", fused=True)", 1.0),
}
_CONSTANTS = {
    "BETAS": ((0.9, 0.999), "decay of the averages of the gradient and of its square"),
    "WEIGHT_DECAY": (0.01, "times LR, taken from every weight on each step"),
    "MOMENTUM": (0.9, "decay of the average of the gradient"),
    "MATRIX_LR": (0.02, "learning rate of the matrices in the blocks"),
}


@shelf.edit("optimizer-{}", "optimizer {}", "Another way from gradients to steps.", "optimizer",
            values=tuple(_OPTIMIZERS))  # fmt: skip
def _optimizer(draft: Draft, name: str) -> None:
    made = draft.find("train", "opt = _made")
    call = made.bound["_made"]
    draft.require(isinstance(call, ast.Call) and bool(call.args))
    assert isinstance(call, ast.Call)
    now = ast.unparse(call.func).split(".")[-1].lower()
    draft.require(now in _OPTIMIZERS and now != name)
    weights = "model.parameters()" if now == "muon" else draft.text(call.args[0])
    text, rate = _OPTIMIZERS[name]
    draft.replace(call, text.format(weights))
    draft.set("LR", draft.value("LR") * rate / _OPTIMIZERS[now][1])
    for constant, (value, comment) in _CONSTANTS.items():
        if constant in text and constant not in draft.constants():
            draft.define(constant, value, comment, after="LR")
    for code in {"lion": (_LION,), "muon": (_ORTHOGONALIZE, _MUON)}.get(name, ()):
        draft.add_definition(code, before="train")


@shelf.edit("optimizer-eps-{}", "epsilon of Adam {}", "How weights with tiny gradients move.", "optimizer",
            values=(1e-6, 1e-4))  # fmt: skip
def _epsilon(draft: Draft, eps: float) -> None:
    draft.require("EPS" not in draft.constants())
    draft.argument(draft.calls("torch.optim.AdamW", "train")[0], "eps=EPS")
    draft.define("EPS", eps, "added to the root of the squared gradient", after="LR")


_GROUPS = '''
def groups(model):
    """Another learning rate for the embedding tables."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    embeddings = [p for p in model.parameters() if id(p) in tables]
    others = [p for p in model.parameters() if id(p) not in tables]
    return [{"params": embeddings, "lr": LR * EMBED_LR}, {"params": others}]
'''


@shelf.edit("lr-embedding-{}", "embeddings learn at {} × the rate", "Rare rows get few updates.", "lr", "embedding",
            values=(0.3, 3.0))  # fmt: skip
def _embedding_rate(draft: Draft, rate: float) -> None:
    draft.replace(draft.find("train", "model.parameters()").node, "groups(model)")
    draft.add_definition(_GROUPS, before="train")
    draft.define("EMBED_LR", rate, "learning rate of embeddings, in units of LR", after="LR")


@shelf.edit("gradient-clip", "clip the gradient at norm 1", "Rare large gradients undo progress.", "optimizer")
def _clip(draft: Draft) -> None:
    draft.require("CLIP" not in draft.constants())
    step = draft.find("train", "opt.step()").node
    draft.before(step, "nn.utils.clip_grad_norm_(model.parameters(), CLIP)")
    draft.define("CLIP", 1.0, "largest norm of the gradient", after="LR")


# -- schedule ------------------------------------------------------------------------------------------------

_PLAN = '''
def plan(progress):
    """The learning rate, in units of its peak, after a share of the steps."""
    scale = 1.0
    {}
    return scale
'''


def _schedule(draft: Draft, line: str) -> None:
    """Multiply the learning rate by a function of the progress (0 < progress <= 1)."""
    if draft.has("train", "plan(_progress)"):
        draft.before(draft.find("plan", "return scale").node, line)
        return
    draft.add_definition(_PLAN.format(line), before="train")
    draft.before(
        draft.find("train", "x, y = ctx.batch(_rows, _length)").node,
        "for group in opt.param_groups:",
        '    group["lr"] = group.setdefault("peak", group["lr"]) * plan((step + 1) / ctx.steps)',
    )


@shelf.edit("schedule-warmup", "learning rate warms up over 5 % of the steps", "Early gradients are noisy.", "schedule")
def _warmup(draft: Draft) -> None:
    draft.require("WARMUP" not in draft.constants())
    _schedule(draft, "scale *= min(1.0, progress / WARMUP)")
    draft.define("WARMUP", 0.05, "share of the steps over which the learning rate rises", after="LR")


@shelf.edit("schedule-linear-{}", "learning rate falls to zero over the last {} of the steps",
            "Late small steps average out noise.", "schedule", values=(0.5, 1.0))  # fmt: skip
def _warmdown(draft: Draft, share: float) -> None:
    draft.require("WARMDOWN" not in draft.constants())
    _schedule(draft, "scale *= min(1.0, (1.0 - progress) / WARMDOWN)")
    draft.define("WARMDOWN", share, "share of the steps over which the learning rate falls to zero", after="LR")


@shelf.edit("schedule-cosine", "learning rate follows a cosine to zero", "Smooth decay.", "schedule")
def _cosine(draft: Draft) -> None:
    draft.require("math.cos" not in draft.source)
    draft.add_import("math")
    _schedule(draft, "scale *= 0.5 + 0.5 * math.cos(math.pi * progress)")


# -- loss and regularisation ---------------------------------------------------------------------------------


@shelf.edit("loss-smoothing", "label smoothing 0.02", "Less confident early on.", "loss", "regularisation")
def _smoothing(draft: Draft) -> None:
    draft.require("LABEL_SMOOTHING" not in draft.constants())
    draft.argument(draft.calls("F.cross_entropy", "train")[0], "label_smoothing=LABEL_SMOOTHING")
    draft.define("LABEL_SMOOTHING", 0.02, "share of the target that is spread over all bytes", after="SEQ")


@shelf.edit("loss-z", "z-loss: pull the logits' normaliser towards zero", "Keeps logits from drifting (PaLM).", "loss")
def _z_loss(draft: Draft) -> None:
    draft.require("Z_LOSS" not in draft.constants())
    draft.after(draft.find("train", "loss = _loss").node, "loss = loss + Z_LOSS * logits.logsumexp(-1).square().mean()")
    draft.define("Z_LOSS", 1e-4, "weight of the squared normaliser in the loss", after="SEQ")


@shelf.edit("dropout", "dropout in the MLP", "Features must not rely on each other.", "regularisation", "mlp")
def _dropout(draft: Draft) -> None:
    draft.require("DROPOUT" not in draft.constants())
    draft.before(draft.find("MLP.forward", "return self.down(h)").node, "h = F.dropout(h, DROPOUT, self.training)")
    draft.define("DROPOUT", 0.05, "share of the features that is zeroed in training", after="MLP_RATIO")


# -- averaging and precision ---------------------------------------------------------------------------------


@shelf.edit("average-weights", "answer with an average of the weights", "Averages out the noise of the last steps.",
            "averaging")  # fmt: skip
def _average(draft: Draft) -> None:
    draft.require("EMA_DECAY" not in draft.constants())
    draft.before(
        draft.find("train", "opt = _made").node,
        "average = torch.optim.swa_utils.AveragedModel(",
        "    model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)",
        ")",
    )
    draft.after(draft.find("train", "opt.step()").node, "average.update_parameters(model)")
    draft.replace(draft.find("train", "ctx.step(model, _loss)").node, "ctx.step(average, loss)")
    draft.replace(draft.find("train", "return model").node, "return average")
    draft.define("EMA_DECAY", 0.97, "share of the averaged weights that stays at each step", after="LR")


@shelf.edit("precision-bfloat16", "matrix products in bfloat16", "Half the memory traffic where the CPU knows it.",
            "precision", "speed")  # fmt: skip
def _bfloat16(draft: Draft) -> None:
    draft.require("autocast" not in draft.source)
    called = draft.find("train", "logits = model(x)")
    draft.replace(
        called.node,
        'with torch.autocast("cpu", torch.bfloat16):\n            logits = model(x)\n        logits = logits.float()',
    )


@shelf.edit("precision-float32", "matrix products in float32 again",
            "Where the CPU does not know bfloat16, it takes several times as long.", "precision", "speed")  # fmt: skip
def _float32(draft: Draft) -> None:
    blocks = [node for node in ast.walk(draft.definition("train")) if isinstance(node, ast.With)]
    lower = [node for node in blocks if "autocast" in ast.unparse(node.items[0]) and len(node.body) == 1]
    draft.require(len(lower) == 1)
    draft.replace(lower[0], draft.text(lower[0].body[0]))
    for back in draft.matches("train", "logits = logits.float()"):
        draft.delete(back.node)
