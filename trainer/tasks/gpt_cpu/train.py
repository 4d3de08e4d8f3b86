"""
A byte-level GPT, trained on one CPU core. One file: constants, model, optimizer, loop. All of it is fair game.

The harness calls train(ctx) with the random seed set. It owns the text, the number of steps and the score:
    ctx.batch(B, T)        -> x, y: int64 [B, T], the training text and the bytes that come next
    ctx.step(model, loss)     once after each of the ctx.steps optimizer steps
    return model              a callable: ids, int64 [B, T] -> logits, float [B, T, ctx.vocab_size]
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

# ---------------------------------------------------------------------------
# Hyperparameters
# ---------------------------------------------------------------------------

# Model
DEPTH = 2  # transformer blocks
WIDTH = 64  # size of the residual stream
HEADS = 2  # attention heads per block
MLP_RATIO = 4  # hidden size of the MLP, in units of WIDTH

# Batch
BATCH = 8  # sequences per step
SEQ = 128  # bytes per sequence, in training and in the evaluation

# Optimizer
LR = 1e-3  # learning rate
BETAS = (0.9, 0.999)  # decay of Adam's averages of the gradient and of its square
WEIGHT_DECAY = 0.01  # times LR, taken from every weight on each step

# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)  # [B, HEADS, T, C / HEADS] each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(B, T, C)
        return self.proj(y)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, MLP_RATIO * WIDTH)
        self.down = nn.Linear(MLP_RATIO * WIDTH, WIDTH)

    def forward(self, x):
        h = F.gelu(self.up(x))
        return self.down(h)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = MLP()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class GPT(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.tok = nn.Embedding(vocab_size, WIDTH)
        self.pos = nn.Embedding(SEQ, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, vocab_size)

    def forward(self, ids):
        T = ids.shape[1]
        x = self.tok(ids)
        x = x + self.pos(torch.arange(T))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        logits = self.head(x)
        return logits


# ---------------------------------------------------------------------------
# Optimizer and loop
# ---------------------------------------------------------------------------


def train(ctx):
    model = GPT(ctx.vocab_size)
    opt = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    for step in range(ctx.steps):
        x, y = ctx.batch(BATCH, SEQ)
        logits = model(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
        ctx.step(model, loss)
    return model
