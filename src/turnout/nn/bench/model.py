"""This module holds the language model that gates are compared in: bytes in, bytes out, a few blocks.

Axes: B items, S positions, T = B * S, D width, H heads, E experts, V = 256 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.nn.gates.contract import GateContext
from turnout.nn.mixture import MoE
from turnout.nn.plan import Plan

VOCABULARY = 256


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of the model; `inner` is the dense feed-forward's, which every gate's active experts share."""

    width: int
    heads: int
    layers: int
    inner: int
    experts: int
    positions: int


class Dense(nn.Module):
    """SwiGLU, down(silu(gate x) * up x): the feed-forward without a gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Return the output in the shape of the input."""
        gate, up = self.up(x_BSD).chunk(2, dim=-1)
        y_BSD: Tensor = self.down(functional.silu(gate) * up)
        return y_BSD


class Attention(nn.Module):
    """Causal attention; gives its mean weights too where a gate asks for them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BSD: Tensor, *, needs_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return (B, S, D) and, where needed, the mean over heads of the weights (B, S, S)."""
        items, positions, width = x_BSD.shape
        qkv = self.qkv(x_BSD).view(items, positions, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights_BSS = None
        if needs_weights:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            is_later = torch.ones(positions, positions, dtype=torch.bool, device=x_BSD.device).triu(1)
            weights_BHSS = scores.masked_fill(is_later, -torch.inf).softmax(dim=-1)
            weights_BSS, mixed = weights_BHSS.mean(dim=1), weights_BHSS @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(items, positions, width)), weights_BSS


class Block(nn.Module):
    """Attention and a feed-forward, each behind a norm and beside a residual."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.attention = Attention(size.width, size.heads)
        self.feed: nn.Module = nn.Identity()

    def forward(self, x_BSD: Tensor, context: GateContext) -> tuple[Tensor, Tensor | None]:
        """Return the states, and what the gate leaves for the next layer."""
        needs = isinstance(self.feed, MoE) and "attention_BSS" in self.feed.gate.needs
        mixed_BSD, weights_BSS = self.attention(self.norm_1(x_BSD), needs_weights=needs)
        x_BSD = x_BSD + mixed_BSD
        if not isinstance(self.feed, MoE):
            return x_BSD + self.feed(self.norm_2(x_BSD)), None
        y_BSD = self.feed(self.norm_2(x_BSD), replace(context, attention_BSS=weights_BSS))
        plan = self.feed.plan
        return x_BSD + y_BSD, None if plan is None else plan.state


class ByteModel(nn.Module):
    """A decoder on bytes. What the gates do not touch is drawn first: it is the same for each contender."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.bytes = nn.Embedding(VOCABULARY, size.width)
        self.places = nn.Embedding(size.positions, size.width)
        for table in (self.bytes, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width)

    def equip(self, feeds: Sequence[nn.Module]) -> ByteModel:
        """Give each block its feed-forward."""
        for block, feed in zip(self.blocks, feeds, strict=True):
            assert isinstance(block, Block)
            block.feed = feed
        return self

    @property
    def plans(self) -> list[Plan]:
        """What the gates decided in the last forward pass, layer by layer."""
        feeds = [block.feed for block in self.blocks if isinstance(block, Block)]
        return [feed.plan for feed in feeds if isinstance(feed, MoE) and feed.plan is not None]

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Return logits (B, S, V) of the next byte."""
        positions = ids_BS.shape[1]
        x_BSD = self.bytes(ids_BS) + self.places.weight[:positions]
        context = GateContext(num_items=len(ids_BS), token_ids_BS=ids_BS, num_layers=self.size.layers)
        state = None
        for number, block in enumerate(self.blocks):
            x_BSD, state = block(x_BSD, replace(context, layer=number, state=state))
        logits_BSV: Tensor = functional.linear(self.norm(x_BSD), self.bytes.weight)
        return logits_BSV
