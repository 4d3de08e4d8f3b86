"""Edits of the model: normalization, positions, attention, MLP, blocks, mixing of neighbouring bytes, output."""

from __future__ import annotations

import ast

from .catalogue import Shelf
from .edits import Draft, Match

shelf = Shelf()

_SPLIT = "q, k, v = _split"  # where Attention.forward has its heads
_ATTEND = "F.scaled_dot_product_attention"


def _norm(draft: Draft) -> str:
    """The text that makes a norm in this program's blocks."""
    return draft.text(draft.find("Block.__init__", "self.norm1 = _norm").bound["_norm"])


def _blocks_loop(draft: Draft) -> ast.stmt:
    """The statement of GPT.forward that runs the blocks."""
    call = draft.calls("block", "GPT.forward")[0]
    loops = [one for one in ast.walk(draft.definition("GPT.forward")) if isinstance(one, ast.For)]
    found = [one for one in loops if any(node is call for node in ast.walk(one))]
    draft.require(len(found) == 1)
    return found[0]


def _branch(draft: Draft, callee: str) -> tuple[Match, ast.Call]:
    """The residual statement `x = x + …` of Block.forward that calls `callee`, and that call."""
    call = draft.calls(callee, "Block.forward")[0]
    for match in draft.matches("Block.forward", "x = x + _branch"):
        if any(node is call for node in ast.walk(match.bound["_branch"])):
            return match, call
    draft.require(False, f"{callee} is not a branch of its own")
    raise AssertionError


# -- normalization -------------------------------------------------------------------------------------------


@shelf.edit("norm-rms", "RMSNorm instead of LayerNorm", "Centering may not be needed.", "norm")
def _rms(draft: Draft) -> None:
    for call in draft.calls("nn.LayerNorm"):
        draft.replace(call.func, "nn.RMSNorm")


@shelf.edit("norm-layer", "LayerNorm instead of RMSNorm", "Centering may help after all.", "norm")
def _layer(draft: Draft) -> None:
    for call in draft.calls("nn.RMSNorm"):
        draft.replace(call.func, "nn.LayerNorm")


@shelf.edit("norm-no-gain", "norms without gain and bias", "The next layer can learn the scale.", "norm", "simplify")
def _no_gain(draft: Draft) -> None:
    for call in draft.calls(_norm(draft).split("(")[0]):
        if not call.keywords:
            draft.argument(call, "elementwise_affine=False")


@shelf.edit("norm-gain", "norms with gain and bias", "A learned scale per feature.", "norm")
def _gain(draft: Draft) -> None:
    for call in draft.calls(_norm(draft).split("(")[0]):
        draft.replace(call, f"{ast.unparse(call.func)}({draft.text(call.args[0])})")


@shelf.edit("norm-post", "norm after the residual sum", "The original transformer; bounds the stream.", "norm")
def _post_norm(draft: Draft) -> None:
    for callee, norm in (("self.attn", "self.norm1"), ("self.mlp", "self.norm2")):
        match, call = _branch(draft, callee)
        inside = draft.find("Block.forward", f"{norm}(_x)")
        draft.require(call.args[0] is inside.node)
        branch = draft.text(match.bound["_branch"]).replace(draft.text(inside.node), "x", 1)
        draft.replace(match.node, f"x = {norm}(x + {branch})")


@shelf.edit("norm-final-off", "no norm before the output layer", "One operation less.", "norm", "simplify")
def _no_final_norm(draft: Draft) -> None:
    draft.delete(draft.find("GPT.forward", "x = self.norm(x)").node)


@shelf.edit("norm-embedding", "norm right after the embeddings", "Blocks see inputs of one scale from the start.",
            "norm", "embedding")  # fmt: skip
def _embedding_norm(draft: Draft) -> None:
    draft.require(not draft.has("GPT.forward", "x = self.norm0(x)"))
    draft.before(_blocks_loop(draft), "x = self.norm0(x)")
    draft.before(draft.find("GPT.__init__", "self.blocks = _blocks").node, f"self.norm0 = {_norm(draft)}")


@shelf.edit("norm-qk", "normalise queries and keys", "Attention scores cannot grow without bound.", "norm", "attention")
def _qk_norm(draft: Draft) -> None:
    draft.require(not draft.has("Attention.forward", "F.rms_norm(q, _shape)"))
    draft.after(
        draft.find("Attention.forward", _SPLIT).node,
        "q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])",
    )


# -- positions -----------------------------------------------------------------------------------------------

_ROTATE = '''
def rotate(x):
    """Turn pairs of features of [B, HEADS, T, D] by angles that grow with the position (RoPE)."""
    T, D = x.shape[-2:]
    angles = torch.arange(T)[:, None] * ROPE_BASE ** (-torch.arange(0, D, 2) / D)
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
'''
_WAVES = '''
def waves(T):
    """Sines and cosines of each position at WIDTH / 2 wavelengths: [T, WIDTH]."""
    angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
'''
_DISTANCE = '''
def distance_penalty(T):
    """Attention scores fall with the distance, at another rate in each head (ALiBi): [HEADS, T, T]."""
    distance = torch.arange(T)[:, None] - torch.arange(T)
    slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)
    return (-slopes[:, None, None] * distance).masked_fill(distance < 0, float("-inf"))
'''


def _remove_positions(draft: Draft) -> set[str]:
    """Take out whatever tells the model about order; the names of what was there."""
    removed: set[str] = set()
    for kind, where, pattern in (
        ("learned", "GPT.forward", "x = x + self.pos(_positions)"),
        ("sinusoidal", "GPT.forward", "x = x + waves(_length)"),
        ("rotary", "Attention.forward", "q, k = rotate(q), rotate(k)"),
    ):
        for match in draft.matches(where, pattern):
            draft.delete(match.node)
            removed.add(kind)
    for keyword in draft.calls(_ATTEND, "Attention.forward")[0].keywords:
        if keyword.arg == "attn_mask" and "distance_penalty" in draft.text(keyword):
            draft.replace(keyword, "is_causal=True")
            removed.add("distance")
    return removed


@shelf.edit("position-rotary", "rotary positions", "Order as relative angles, in every layer.", "position")
def _rotary(draft: Draft) -> None:
    draft.require("rotary" not in _remove_positions(draft))
    draft.add_definition(_ROTATE, before="Attention")
    draft.after(draft.find("Attention.forward", _SPLIT).node, "q, k = rotate(q), rotate(k)")
    draft.define("ROPE_BASE", 10000.0, "wavelength of the slowest rotary feature, in positions / 2π", after="MLP_RATIO")


@shelf.edit("position-sinusoidal", "sinusoidal positions", "Nothing to learn, smooth over distance.", "position")
def _sinusoidal(draft: Draft) -> None:
    draft.require("sinusoidal" not in _remove_positions(draft))
    draft.add_definition(_WAVES, before="Attention")
    draft.after(draft.find("GPT.forward", "x = self.tok(ids)").node, "x = x + waves(T)")


@shelf.edit("position-distance", "attention falls with distance", "Near bytes matter most (ALiBi).", "position",
            "attention")  # fmt: skip
def _distance(draft: Draft) -> None:
    draft.require("distance" not in _remove_positions(draft))
    draft.add_definition(_DISTANCE, before="Attention")
    causal = [one for one in draft.calls(_ATTEND, "Attention.forward")[0].keywords if one.arg == "is_causal"]
    draft.require(len(causal) == 1)
    draft.replace(causal[0], "attn_mask=distance_penalty(T)")


@shelf.edit("position-learned", "learned positions", "Any function of the position.", "position")
def _learned(draft: Draft) -> None:
    draft.require("learned" not in _remove_positions(draft))
    token = draft.find("GPT.__init__", "self.tok = _table").node
    draft.after(token, "self.pos = nn.Embedding(SEQ, WIDTH)")
    draft.after(draft.find("GPT.forward", "x = self.tok(ids)").node, "x = x + self.pos(torch.arange(T))")


@shelf.edit("position-none", "no positions", "The causal mask alone already gives order away.", "position", "simplify")
def _no_positions(draft: Draft) -> None:
    draft.require(bool(_remove_positions(draft)))


# -- attention -----------------------------------------------------------------------------------------------


@shelf.edit("attention-gate", "gate the output of attention", "A byte can ignore what was found.", "attention")
def _attention_gate(draft: Draft) -> None:
    draft.require(not draft.has("Attention.forward", "self.gate(x)"))
    draft.before(draft.find("Attention.forward", "return self.proj(y)").node, "y = y * torch.sigmoid(self.gate(x))")
    draft.after(draft.find("Attention.__init__", "self.proj = _proj").node, "self.gate = nn.Linear(WIDTH, WIDTH)")


@shelf.edit("attention-scale-{}", "attention scores × {}", "Sharper or softer attention.", "attention",
            values=(0.5, 2.0))  # fmt: skip
def _attention_scale(draft: Draft, scale: float) -> None:
    call = draft.calls(_ATTEND, "Attention.forward")[0]
    draft.require(all(one.arg != "scale" for one in call.keywords))
    draft.argument(call, "scale=ATTENTION_SCALE * (C // HEADS) ** -0.5")
    draft.define("ATTENTION_SCALE", scale, "attention scores, in units of the usual 1/√d", after="HEADS")


@shelf.edit("attention-values", "a second byte embedding straight into the values",
            "What a byte says need not come through the residual stream.", "attention", "embedding")  # fmt: skip
def _value_embeddings(draft: Draft) -> None:
    draft.require(not draft.has("GPT.forward", "self.values(_ids)"))
    draft.after(draft.find("GPT.__init__", "self.tok = _table").node, "self.values = nn.Embedding(vocab_size, WIDTH)")
    draft.before(_blocks_loop(draft), "values = self.values(ids)")
    draft.argument(draft.calls("block", "GPT.forward")[0], "values")
    draft.parameter("Block.forward", "values")
    draft.argument(draft.calls("self.attn", "Block.forward")[0], "values")
    draft.parameter("Attention.forward", "values")
    draft.after(
        draft.find("Attention.forward", _SPLIT).node, "v = v + values.view(B, T, HEADS, C // HEADS).transpose(1, 2)"
    )


# -- MLP -----------------------------------------------------------------------------------------------------

_ACTIVATIONS = {
    "gelu": "F.gelu({})",
    "relu": "F.relu({})",
    "relu-squared": "F.relu({}).square()",
    "silu": "F.silu({})",
    "mish": "F.mish({})",
    "tanh": "torch.tanh({})",
    "leaky-relu": "F.leaky_relu({})",
    "elu": "F.elu({})",
}


@shelf.edit("activation-{}", "activation {}", "Another non-linearity.", "activation", "mlp", values=tuple(_ACTIVATIONS))
def _activation(draft: Draft, name: str) -> None:
    now = draft.find("MLP.forward", *(f"h = {call.format('self.up(_x)')}" for call in _ACTIVATIONS.values()))
    inside = draft.text(draft.calls("self.up", "MLP.forward")[0])
    draft.replace(now.node, f"h = {_ACTIVATIONS[name].format(inside)}")


@shelf.edit("mlp-gate", "gated MLP", "Products of features, as in SwiGLU.", "mlp", "activation")
def _gated(draft: Draft) -> None:
    draft.require(not draft.has("MLP.forward", "self.gate(x)"))
    draft.before(draft.find("MLP.forward", "return self.down(h)").node, "h = h * self.gate(x)")
    draft.after(draft.find("MLP.__init__", "self.up = _up").node, "self.gate = nn.Linear(WIDTH, MLP_RATIO * WIDTH)")


# -- blocks --------------------------------------------------------------------------------------------------


@shelf.edit("block-parallel", "attention and MLP side by side", "Both read the same stream (GPT-J).", "residual")
def _parallel(draft: Draft) -> None:
    (attn, _), (mlp, _) = _branch(draft, "self.attn"), _branch(draft, "self.mlp")
    first, second = (draft.text(one.bound["_branch"]) for one in (attn, mlp))
    draft.replace(attn.node, f"x = x + {first} + {second}")
    draft.delete(mlp.node)


@shelf.edit("block-scale-{}", "branches start at scale {}", "Blocks start near the identity (LayerScale).", "residual",
            "init", values=(0.1, 0.3))  # fmt: skip
def _layer_scale(draft: Draft, scale: float) -> None:
    for callee, name in (("self.attn", "scale1"), ("self.mlp", "scale2")):
        branch = _branch(draft, callee)[0].bound["_branch"]
        draft.require(f"self.{name}" not in draft.text(branch))
        draft.replace(branch, f"self.{name} * {draft.text(branch)}")
        draft.after(
            draft.definition("Block.__init__").body[-1],
            f"self.{name} = nn.Parameter(torch.full((WIDTH,), BRANCH_SCALE))",
        )
    draft.define("BRANCH_SCALE", scale, "what each branch is multiplied with at the start", after="MLP_RATIO")


@shelf.edit("block-input-skip", "blocks also see the embeddings", "Later blocks need not carry the input.", "residual")
def _input_skip(draft: Draft) -> None:
    draft.require(not draft.has("GPT.forward", "x0 = x"))
    draft.before(_blocks_loop(draft), "x0 = x")
    draft.before(draft.calls("block", "GPT.forward")[0], "x = self.keep * x + self.skip * x0")
    draft.after(
        draft.find("GPT.__init__", "self.blocks = _blocks").node,
        "self.keep = nn.Parameter(torch.ones(WIDTH))",
        "self.skip = nn.Parameter(torch.zeros(WIDTH))",
    )


@shelf.edit("bias-off", "linear layers without bias", "Fewer operations.", "simplify", "mlp", "attention")
def _no_bias(draft: Draft) -> None:
    for call in draft.calls("nn.Linear"):
        if not call.keywords:
            draft.argument(call, "bias=False")


@shelf.edit("bias-on", "linear layers with bias", "A free offset per feature.", "mlp", "attention")
def _bias(draft: Draft) -> None:
    for match in draft.matches(None, "nn.Linear(_in, _out, bias=False)"):
        sizes = (draft.text(match.bound[name]) for name in ("_in", "_out"))
        draft.replace(match.node, f"nn.Linear({', '.join(sizes)})")


# -- mixing of neighbouring bytes ----------------------------------------------------------------------------

_SHIFT = '''
def shift(x):
    """[B, T, WIDTH] whose first half of features comes from the byte before."""
    half = x.shape[-1] // 2
    return torch.cat((F.pad(x[:, :-1, :half], (0, 0, 1, 0)), x[..., half:]), dim=-1)
'''


@shelf.edit("shift-{}", "half of the input of {} comes from the byte before", "Local patterns without attention.",
            "mixing", values=("attn", "mlp"))  # fmt: skip
def _token_shift(draft: Draft, part: str) -> None:
    given = draft.calls(f"self.{part}", "Block.forward")[0].args[0]
    draft.require("shift(" not in draft.text(given))
    draft.replace(given, f"shift({draft.text(given)})")
    draft.add_definition(_SHIFT, before="Attention")


@shelf.edit("mix-conv", "a causal convolution over 4 bytes before each block", "Learned local patterns.", "mixing")
def _convolution(draft: Draft) -> None:
    draft.require(not draft.has("Block.forward", "self.conv(_x)"))
    draft.before(
        draft.definition("Block.forward").body[0],
        "x = x + self.conv(F.pad(x.transpose(1, 2), (3, 0))).transpose(1, 2)",
    )
    draft.after(draft.definition("Block.__init__").body[-1], "self.conv = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH)")


# -- output --------------------------------------------------------------------------------------------------


@shelf.edit("head-softcap-{}", "logits saturate at ±{}", "No byte is ever ruled out.", "head", values=(15.0, 30.0))
def _softcap(draft: Draft, cap: float) -> None:
    draft.require(not draft.has("GPT.forward", "torch.tanh(_x)"))
    draft.before(draft.find("GPT.forward", "return logits").node, "logits = SOFTCAP * torch.tanh(logits / SOFTCAP)")
    draft.define("SOFTCAP", cap, "the largest logit", after="MLP_RATIO")


@shelf.edit("head-scale-{}", "logits × {}", "A softer or sharper start.", "head", values=(0.5, 2.0))
def _logit_scale(draft: Draft, scale: float) -> None:
    draft.require(not draft.has("GPT.forward", "LOGIT_SCALE"))
    draft.after(draft.find("GPT.forward", "logits = self.head(x)").node, "logits = LOGIT_SCALE * logits")
    draft.define("LOGIT_SCALE", scale, "what the output layer's logits are multiplied with", after="MLP_RATIO")
