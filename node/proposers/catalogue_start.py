"""Edits of where training starts: embeddings of the input, and the initial weights."""

from __future__ import annotations

from .catalogue import Shelf
from .edits import Draft

shelf = Shelf()


# -- embeddings ----------------------------------------------------------------------------------------------


def _add_table(draft: Draft, name: str, rows: str, index: str) -> None:
    """Another embedding table `self.name`, looked up with the ids that the expression `index` makes."""
    draft.require(not draft.has("GPT.forward", f"self.{name}(_index)"))
    draft.after(draft.find("GPT.__init__", "self.tok = _table").node, f"self.{name} = nn.Embedding({rows}, WIDTH)")
    draft.after(draft.find("GPT.forward", "x = self.tok(ids)").node, f"x = x + self.{name}({index})")


@shelf.edit("embedding-previous", "embed the byte before as well", "The last two bytes from the start.", "embedding",
            "mixing")  # fmt: skip
def _previous(draft: Draft) -> None:
    _add_table(draft, "previous", "vocab_size", "F.pad(ids, (1, 0))[:, :-1]")


@shelf.edit("embedding-bigram-{}", "a hashed embedding of the last two bytes, {} rows", "Pairs without attention.",
            "embedding", values=(8192, 65536))  # fmt: skip
def _bigram(draft: Draft, rows: int) -> None:
    _add_table(draft, "bigram", "BIGRAMS", "(ids + 36313 * F.pad(ids, (1, 0))[:, :-1]) % BIGRAMS")
    draft.define("BIGRAMS", rows, "rows of the table of byte pairs", after="MLP_RATIO")


@shelf.edit("embedding-tied", "output layer shares the byte embedding", "Fewer weights, each with more gradient.",
            "embedding", "head")  # fmt: skip
def _tie(draft: Draft) -> None:
    draft.require(not draft.has("GPT.__init__", "self.head.weight = self.tok.weight"))
    draft.after(draft.find("GPT.__init__", "self.head = _head").node, "self.head.weight = self.tok.weight")


@shelf.edit("embedding-untied", "output layer has its own weights", "Input and output are different things.",
            "embedding", "head")  # fmt: skip
def _untie(draft: Draft) -> None:
    draft.delete(draft.find("GPT.__init__", "self.head.weight = self.tok.weight").node)


# -- initial weights -----------------------------------------------------------------------------------------

_LINEARS = "if isinstance(module, nn.Linear):\n    _init"
_SCHEMES = {
    "xavier": "nn.init.xavier_uniform_(module.weight)",
    "kaiming": "nn.init.kaiming_normal_(module.weight)",
    "orthogonal": "nn.init.orthogonal_(module.weight)",
    "lecun": "nn.init.normal_(module.weight, std=module.in_features**-0.5)",
}


def _at_end(draft: Draft, *lines: str) -> None:
    """Add statements at the end of GPT.__init__, once."""
    draft.require(lines[0] not in draft.source or lines[-1].strip() not in draft.source, "already there")
    draft.after(draft.definition("GPT.__init__").body[-1], *lines)


def _set_linears(draft: Draft, statement: str) -> None:
    """Initialise every linear layer by `statement`, before anything else that touches weights."""
    if draft.has("GPT.__init__", _LINEARS):
        draft.replace(draft.find("GPT.__init__", _LINEARS).bound["_init"], statement)
        return
    draft.after(
        draft.find("GPT.__init__", "self.head = _head").node,
        "for module in self.modules():",
        "    if isinstance(module, nn.Linear):",
        f"        {statement}",
    )


@shelf.edit("init-linear-{}", "linear layers start {}", "The scale at which signals and gradients travel.", "init",
            values=tuple(_SCHEMES))  # fmt: skip
def _scheme(draft: Draft, name: str) -> None:
    _set_linears(draft, _SCHEMES[name])


@shelf.edit("init-linear-std-{}", "linear layers start at std {}", "One scale for every layer.", "init",
            values=(0.02, 0.05, 0.1))  # fmt: skip
def _linear_std(draft: Draft, std: float) -> None:
    draft.require("LINEAR_STD" not in draft.constants())
    _set_linears(draft, "nn.init.normal_(module.weight, std=LINEAR_STD)")
    draft.define("LINEAR_STD", std, "of the initial weights of linear layers", after="MLP_RATIO")


@shelf.edit("init-embedding-std-{}", "embeddings start at std {}", "The scale of what enters the stream.", "init",
            "embedding", values=(3.0, 0.3, 0.1, 0.02))  # fmt: skip
def _embedding_std(draft: Draft, std: float) -> None:
    draft.require("EMBED_STD" not in draft.constants())
    _at_end(
        draft,
        "for module in self.modules():",
        "    if isinstance(module, nn.Embedding):",
        "        nn.init.normal_(module.weight, std=EMBED_STD)",
    )
    draft.define("EMBED_STD", std, "of the initial embeddings", after="MLP_RATIO")


@shelf.edit("init-residual-scaled", "branches start smaller with depth", "Keeps the stream's variance (GPT-2).", "init",
            "residual")  # fmt: skip
def _scaled_residual(draft: Draft) -> None:
    _at_end(
        draft,
        "for block in self.blocks:",
        "    block.attn.proj.weight.data *= (2 * DEPTH) ** -0.5",
        "    block.mlp.down.weight.data *= (2 * DEPTH) ** -0.5",
    )


@shelf.edit("init-residual-zero", "branches start at zero", "Each block starts as the identity.", "init", "residual")
def _zero_residual(draft: Draft) -> None:
    _at_end(
        draft,
        "for block in self.blocks:",
        "    nn.init.zeros_(block.attn.proj.weight)",
        "    nn.init.zeros_(block.mlp.down.weight)",
    )


@shelf.edit("init-head-zero", "output layer starts at zero", "The first prediction is uniform.", "init", "head")
def _zero_head(draft: Draft) -> None:
    _at_end(draft, "nn.init.zeros_(self.head.weight)")


@shelf.edit("init-head-frequencies", "output bias starts at the bytes' log frequencies",
            "What costs the first steps to learn is known after one look.", "init", "head")  # fmt: skip
def _frequencies(draft: Draft) -> None:
    draft.require(not draft.has("train", "model.head.bias.data.copy_(_bias)"))
    draft.require(draft.has("GPT.__init__", "self.head = nn.Linear(WIDTH, vocab_size)"))
    draft.after(
        draft.find("train", "model = GPT(_size)").node,
        "counts = torch.bincount(ctx.batch(64, SEQ)[0].flatten(), minlength=ctx.vocab_size)",
        "model.head.bias.data.copy_(torch.log((counts + 0.1) / counts.sum()))",
    )
