#!/usr/bin/python3
"""One of cotrain's workloads as PyTorch trains it: prints one JSON object.

usage: torch_gpt.py WORKLOAD fp32|bf16 SECONDS [--no-foreach]

GPT-2 with learned positions, LayerNorm, GELU and a tied head; random tokens; a step is forward,
backward, clip at norm 1, AdamW. bf16 is torch.autocast with weights in binary32, which is what
bf16-1 does. The environment decides about threads and malloc (tests/bench/torch_step).

Written for PyTorch 1.13 at its fastest on a CPU, each choice the better one when measured: GELU in
its erf form (the tanh form, which GPT-2 has, takes five times as long in bf16), softmax and the
loss in binary32 (slower in bf16 here), the mask added, the scale on the queries, the
foreach form of AdamW.
"""
import json
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

# layers, width, heads, context, vocabulary, batch: as `cotrain bench step` has them.
WORKLOADS = {
    "tiny": (2, 32, 2, 24, 61, 4),
    "T": (4, 256, 4, 256, 256, 8),
    "S": (6, 384, 6, 256, 50257, 4),
    "M": (12, 768, 12, 256, 50257, 2),
}


class Block(nn.Module):
    def __init__(self, width, heads, context):
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.fc_projection = nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.full((context, context), float("-inf")).triu(1))

    def attention(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).split(width, dim=2)
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (t.view(shape).transpose(1, 2) for t in (q, k, v))
        scores = (q * (shape[3] ** -0.5)) @ k.transpose(-2, -1)
        scores = scores + self.mask[:length, :length].to(scores.dtype)
        out = F.softmax(scores.float(), dim=-1) @ v
        return self.projection(out.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x):
        x = x + self.attention(self.ln_1(x))
        return x + self.fc_projection(F.gelu(self.fc(self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self, layers, width, heads, context, vocab):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, context) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1))


def main():
    workload, numerics, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    layers, width, heads, context, vocab, batch = WORKLOADS[workload]
    torch.manual_seed(1)
    model = GPT(layers, width, heads, context, vocab)
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
         {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}],
        lr=1e-4, betas=(0.9, 0.95), eps=1e-8, foreach="--no-foreach" not in sys.argv)
    tokens = torch.randint(vocab, (batch, context + 1))
    bf16 = numerics == "bf16"

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    loss = step()
    step()
    turns = []
    end = time.monotonic() + seconds
    while len(turns) < 3 or time.monotonic() < end:
        start = time.monotonic()
        step()
        turns.append(time.monotonic() - start)
    print(json.dumps({
        "workload": workload, "numerics": numerics, "threads": torch.get_num_threads(),
        "loss": loss, "steps": len(turns), "ms": statistics.median(turns) * 1e3,
        "tokens_per_s": batch * context / statistics.median(turns),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


main()
