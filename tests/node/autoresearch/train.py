"""
Pretraining in a single file, written for tests in the style of autoresearch's train.py.
Usage: uv run train.py
"""

from __future__ import annotations

import os

os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"

import gc
import math
import time
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
import wandb

from kernels import get_kernel

cap = torch.cuda.get_device_capability()
# the first kernel is for one kind of GPU only
repo = "somebody/flash-attention" if cap == (9, 0) else "others/flash-attention"
fa3 = get_kernel(repo).flash_attn_interface

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb

# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------


@dataclass
class Config:
    sequence_len: int = 2048
    vocab_size: int = 8192
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 256
    window: int = 64


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x, cos_sin, window_size):
        B, T, C = x.size()
        q, k, v = (part.view(B, T, self.n_head, -1) for part in self.qkv(x).chunk(3, dim=-1))
        cos, sin = cos_sin
        q, k = norm(q * cos + q.roll(1, -1) * sin), norm(k * cos + k.roll(1, -1) * sin)
        y = fa3.flash_attn_func(q, k, v, causal=True, window_size=window_size)
        return self.proj(y.contiguous().view(B, T, -1))


class GPT(nn.Module):
    """Layers of attention and
    a hidden layer each."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.attn = nn.ModuleList([Attention(config) for _ in range(config.n_layer)])
        self.up = nn.ModuleList([nn.Linear(config.n_embd, 2 * config.n_embd) for _ in range(config.n_layer)])
        self.down = nn.ModuleList([nn.Linear(2 * config.n_embd, config.n_embd) for _ in range(config.n_layer)])
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        cos, sin = self._rotary(config.sequence_len * 10)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def init_weights(self):
        for p in self.parameters():
            torch.nn.init.normal_(p, std=0.05)
        self.cos, self.sin = self._rotary(self.config.sequence_len * 10)
        self.wte.to(dtype=torch.bfloat16)

    def _rotary(self, length):
        channels = self.config.n_embd // self.config.n_head
        t = torch.arange(length, dtype=torch.float32, device=self.wte.weight.device)
        freqs = torch.outer(t, 1.0 / (10000 ** torch.linspace(0, 1, channels, device=t.device)))
        cos, sin = freqs.cos().bfloat16(), freqs.sin().bfloat16()
        return cos[None, :, None, :], sin[None, :, None, :]

    def estimate_flops(self):
        return 6 * sum(p.numel() for p in self.parameters())

    def setup_optimizer(self, lr, weight_decay):
        print(f"learning rate {lr}")
        optimizer = Sign([dict(params=list(self.parameters()), lr=lr, momentum=0.9, weight_decay=weight_decay)])
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def forward(self, idx, targets=None, reduction="mean"):
        B, T = idx.size()
        cos_sin = self.cos[:, :T], self.sin[:, :T]
        x = norm(self.wte(idx))
        for attn, up, down in zip(self.attn, self.up, self.down):
            x = x + attn(norm(x), cos_sin, (self.config.window, 0))
            x = x + down(F.relu(up(norm(x))).square())
        logits = self.lm_head(norm(x)).float()
        if targets is not None:
            return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), reduction=reduction)
        return logits


# ---------------------------------------------------------------------------
# Optimizer
# ---------------------------------------------------------------------------


@torch.compile(dynamic=False, fullgraph=True)
def sign_step_fused(p, grad, buffer, lr_t, momentum, wd):
    buffer.lerp_(grad, 1 - momentum)
    p.sub_(lr_t * (buffer.sign() + wd * p))


class Sign(torch.optim.Optimizer):
    def __init__(self, param_groups):
        super().__init__(param_groups, defaults={})
        self._lr_t = torch.tensor(0.0, dtype=torch.float32, device="cpu")

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            self._lr_t.fill_(group["lr"])
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["buffer"] = torch.zeros_like(p)
                sign_step_fused(p, p.grad, state["buffer"], self._lr_t, group["momentum"], group["weight_decay"])


# ---------------------------------------------------------------------------
# Hyperparameters
# ---------------------------------------------------------------------------

ASPECT_RATIO = 16  # model_dim = depth * ASPECT_RATIO
HEAD_DIM = 16  # channels per head
TOTAL_BATCH_SIZE = 2**19  # tokens per optimizer step
LR = 0.003  # learning rate
WEIGHT_DECAY = 0.1
WARMDOWN_RATIO = 0.5  # fraction of time budget for LR warmdown
DEPTH = 8  # number of layers
DEVICE_BATCH_SIZE = 128  # per-device batch size (reduce if OOM)

# ---------------------------------------------------------------------------
# Setup
# ---------------------------------------------------------------------------

t_start = time.time()
torch.manual_seed(42)
torch.cuda.manual_seed(42)
torch.set_float32_matmul_precision("high")
device = torch.device("cuda")
autocast_ctx = torch.amp.autocast(device_type="cuda", dtype=torch.bfloat16)
PEAK_FLOPS = 989.5e12

tokenizer = Tokenizer.from_directory()
vocab_size = tokenizer.get_vocab_size()
print(f"Vocab size: {vocab_size:,}")


def build_config(depth):
    dim = depth * ASPECT_RATIO
    return Config(sequence_len=MAX_SEQ_LEN, vocab_size=vocab_size, n_layer=depth, n_head=dim // HEAD_DIM, n_embd=dim)


config = build_config(DEPTH)
print(f"Model config: {asdict(config)}")

with torch.device("meta"):
    model = GPT(config)
model.to_empty(device=device)
model.init_weights()

counts = {"total": sum(p.numel() for p in model.parameters())}
for key, value in counts.items():
    print(f"  {key:24s}: {value:,}")
num_flops_per_token = model.estimate_flops()

tokens_per_fwdbwd = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
assert TOTAL_BATCH_SIZE % tokens_per_fwdbwd == 0
grad_accum_steps = TOTAL_BATCH_SIZE // tokens_per_fwdbwd

optimizer = model.setup_optimizer(lr=LR, weight_decay=WEIGHT_DECAY)
model = torch.compile(model, dynamic=False)

train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)  # prefetch first batch

print(f"Time budget: {TIME_BUDGET}s")

# Schedules (all based on progress = training_time / TIME_BUDGET)


def get_lr_multiplier(progress):
    if progress < 1.0 - WARMDOWN_RATIO:
        return 1.0
    return (1.0 - progress) / WARMDOWN_RATIO


# ---------------------------------------------------------------------------
# Training loop
# ---------------------------------------------------------------------------

t_start_training = time.time()
smooth_train_loss = 0
total_training_time = 0
step = 0

while True:
    torch.cuda.synchronize()
    t0 = time.time()
    for micro_step in range(grad_accum_steps):
        with autocast_ctx:
            loss = model(x, y)
        train_loss = loss.detach()
        loss = loss / grad_accum_steps
        loss.backward()
        x, y, epoch = next(train_loader)

    # Progress and schedules
    progress = min(total_training_time / TIME_BUDGET, 1.0)
    lrm = get_lr_multiplier(progress)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lrm
    optimizer.step()
    model.zero_grad(set_to_none=True)

    train_loss_f = train_loss.item()

    # Fast fail: abort if loss is exploding or NaN
    if math.isnan(train_loss_f) or train_loss_f > 100:
        print("FAIL")
        exit(1)

    torch.cuda.synchronize()
    t1 = time.time()
    dt = t1 - t0
    if step > 10:
        total_training_time += dt

    # Logging
    ema_beta = 0.9
    smooth_train_loss = ema_beta * smooth_train_loss + (1 - ema_beta) * train_loss_f
    debiased_smooth_loss = smooth_train_loss / (1 - ema_beta ** (step + 1))
    pct_done = 100 * progress
    mfu = 100 * num_flops_per_token * TOTAL_BATCH_SIZE / dt / PEAK_FLOPS
    remaining = max(0, TIME_BUDGET - total_training_time)
    print(
        f"\rstep {step:05d} ({pct_done:.1f}%) | loss: {debiased_smooth_loss:.6f} | mfu: {mfu:.1f}% | epoch: {epoch} | "
        f"remaining: {remaining:.0f}s    ",
        end="",
        flush=True,
    )
    wandb.log({"loss": debiased_smooth_loss})

    # GC management (it would stall)
    if step == 0:
        gc.collect()
        gc.freeze()
        gc.disable()
    elif (step + 1) % 5000 == 0:
        gc.collect()

    step += 1

    # Time's up, but the first steps compile
    if step > 10 and total_training_time >= TIME_BUDGET:
        break

print()  # newline after \r training log

# Final eval
model.eval()
with autocast_ctx:
    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)

peak_vram_mb = torch.cuda.max_memory_allocated() / 1024 / 1024
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"peak_vram_mb:     {peak_vram_mb:.1f}")
print(f"num_steps:        {step}")
