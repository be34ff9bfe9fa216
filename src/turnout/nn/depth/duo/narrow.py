"""This module makes a narrow feed-forward of the same form as a given one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count


def narrow(mlp: nn.Module, *, divisor: int, std: float, generator: torch.Generator) -> nn.Module:
    """Return a new module like `mlp` whose inner width is divided by `divisor` (at least 1 remains).

    The form (activation, gating, fused projections, biases) is kept; weights are drawn from N(0, std^2),
    biases are 0, as in S22 (arXiv 2410.10846, section 3: inner 10240 and 640). The down projection is the
    last linear layer; every other one must lead from the model's width to a multiple of the inner width.
    Raises `InputError` for a feed-forward of another form, such as a mixture of experts.
    """
    check_count("duo: divisor", divisor)
    linears = [(name, child) for name, child in mlp.named_modules() if isinstance(child, nn.Linear)]
    inside = sum(p.numel() for _, linear in linears for p in linear.parameters())
    if len(linears) < 2 or inside != sum(p.numel() for p in mlp.parameters()):
        raise _refused(mlp, "parameters outside of plain linear layers, or fewer than two of those")
    inner, width = linears[-1][1].in_features, linears[-1][1].out_features
    for name, linear in linears[:-1]:
        if linear.in_features != width or linear.out_features % inner:
            raise _refused(mlp, f"{name}: {linear.in_features} to {linear.out_features}")
    small = copy.deepcopy(mlp)
    narrow_width = max(inner // divisor, 1)
    for name, linear in linears:
        is_last = name == linears[-1][0]
        in_features = narrow_width if is_last else width
        out_features = width if is_last else linear.out_features // inner * narrow_width
        owner = small.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], _linear(linear, in_features, out_features, std, generator))
    for name, value in vars(mlp).items():
        if name in ("intermediate_size", "ffn_dim") and value == inner:
            setattr(small, name, narrow_width)
    return small


def _linear(
    like: nn.Linear, in_features: int, out_features: int, std: float, generator: torch.Generator
) -> nn.Linear:
    # The layer's own first weights are overwritten; their draw must not move the global generator.
    with torch.random.fork_rng(devices=[]):
        made = nn.Linear(in_features, out_features, bias=like.bias is not None)
    with torch.no_grad():
        made.weight.normal_(0.0, std, generator=generator)
        if made.bias is not None:
            made.bias.zero_()
    return made.to(device=like.weight.device, dtype=like.weight.dtype)


def _refused(mlp: nn.Module, got: str) -> InputError:
    allowed = "linear layers from the width to the inner width, then one back as the last"
    return InputError(sentence(f"duo: {type(mlp).__name__} has no inner width", allowed=allowed, got=got))
