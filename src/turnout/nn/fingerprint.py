"""This module names the weights of a base, so that what was trained on it is put on no other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

SAMPLED = 4096
"""Numbers of each weight that go into a fingerprint."""

FORM = "2-"
"""How a fingerprint begins; one without it is of the first form, which files of before hold."""


def fingerprint(weights: Mapping[str, Tensor], *, like: object = None) -> str:
    """Return `FORM` and sixteen hex digits, which name weights by path, shape and value.

    `SAMPLED` evenly spaced numbers of each are hashed as bfloat16, so that float32 and bfloat16 loadings of
    one checkpoint agree. They are spread over all rows and columns. A fingerprint `like` one of the first
    form, which took a single column of a large square matrix, is of that form, so that the two compare.
    """
    is_first = isinstance(like, str) and not like.startswith(FORM)
    digest = hashlib.sha256()
    for path, weight in sorted(weights.items()):
        flat = weight.detach().reshape(-1)
        step = max(flat.numel() // SAMPLED, 1)
        sample = flat[:: step if is_first else _spread(step, flat.numel())]
        sample = sample.to(device="cpu", dtype=torch.bfloat16).contiguous()
        digest.update(f"{path}{tuple(weight.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return ("" if is_first else FORM) + digest.hexdigest()[:16]


def stored_weights(module: nn.Module, *, like: object = None) -> dict[str, Tensor]:
    """Return what a checkpoint of `module` holds, by path: parameters and kept buffers, such as gate biases.

    For a fingerprint `like` one of the first form, the parameters alone.
    """
    found: dict[str, Tensor] = dict(module.named_parameters())
    if isinstance(like, str) and not like.startswith(FORM):
        return found
    for path, part in module.named_modules():
        kept = part._buffers.keys() - part._non_persistent_buffers_set
        buffers = {f"{path}.{name}" if path else name: part._buffers[name] for name in kept}
        found |= {name: buffer for name, buffer in buffers.items() if buffer is not None}
    return found


def _spread(step: int, numbers: int) -> int:
    """Return the first step from `step` on without a factor of `numbers`, so that no column is missed."""
    while math.gcd(step, numbers) > 1 and step > 1:
        step += 1
    return step
