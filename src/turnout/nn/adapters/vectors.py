"""This module takes global vectors from any encoder: arrays, tensors or lists."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.adapters.contract import Context


def as_vectors(what: str, values: object) -> Tensor:
    """Return vectors (N, G) in float32; raises `InputError` for another shape or what is not finite."""
    try:
        if isinstance(values, list | tuple):
            rows = torch.stack([torch.as_tensor(value) for value in values])
        else:
            rows = torch.as_tensor(values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(sentence(what, allowed="vectors of one width", got=str(error))) from error
    if rows.dim() != 2 or not rows.numel() or not rows.isfinite().all():
        raise InputError(sentence(what, allowed="finite vectors of shape (N, G)", got=tuple(rows.shape)))
    return rows.detach().to(torch.float32)


def check_queries(queries: object, context: Context) -> Tensor:
    """Return the queries' vectors (B, G); raises `InputError` for another width than the adapters'."""
    queries_BG = as_vectors("AdapterPool.routed: queries", queries)
    width = queries_BG.shape[1] if context.vectors_EG is None else context.vectors_EG.shape[1]
    if queries_BG.shape[1] != width:
        raise InputError(
            sentence("AdapterPool.routed: width of a query's vector", allowed=width, got=queries_BG.shape[1])
        )
    return queries_BG
