"""This module names the weights of a base, so that what was trained on it is put on no other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

SAMPLED = 4096
"""Numbers of each weight that go into a fingerprint."""


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return sixteen hex digits that name weights by path, shape and value.

    `SAMPLED` evenly spaced numbers of each are hashed as bfloat16, so that float32 and bfloat16 loadings of
    one checkpoint agree.
    """
    digest = hashlib.sha256()
    for path, weight in sorted(weights.items()):
        flat = weight.detach().reshape(-1)
        step = max(flat.numel() // SAMPLED, 1)
        sample = flat[::step].to(device="cpu", dtype=torch.bfloat16).contiguous()
        digest.update(f"{path}{tuple(weight.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
