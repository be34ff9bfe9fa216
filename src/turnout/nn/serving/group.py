"""This module decodes rows that were read together, one token at a time, and lets go of those that end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from turnout.nn.caches import cache_keyword
from turnout.nn.serving.row import Row


class Group:
    """Rows of one variant with one cache.

    Parameters
    ----------
    model:
        Runs under whatever variant its caller has switched on.
    rows:
        At least one; shorter prompts are padded on the left.
    pad:
        Id of the padding token.
    """

    def __init__(self, *, model: PreTrainedModel, rows: Sequence[Row], pad: int) -> None:
        self.model = model
        self.rows = list(rows)
        self.cache = DynamicCache()
        length = max(len(row.ids) for row in rows)
        device = model.device
        self._ids_RT = torch.tensor([[pad] * (length - len(r.ids)) + r.ids for r in rows], device=device)
        self._mask_RT = torch.tensor(
            [[0] * (length - len(r.ids)) + [1] * len(r.ids) for r in rows], device=device
        )

    @property
    def is_over(self) -> bool:
        """Whether no row is left."""
        return not self.rows

    @torch.no_grad()
    def step(self) -> None:
        """Give every row one more token; the first step reads the prompts."""
        self.leave()
        if not self.rows:
            return
        tokens = self._ids_RT.shape[1]
        positions_RT = (self._mask_RT.cumsum(-1) - 1).clamp(min=0)[:, -tokens:]
        logits_RV = self.model(
            input_ids=self._ids_RT,
            attention_mask=self._mask_RT,
            position_ids=positions_RT,
            use_cache=True,
            logits_to_keep=1,
            **{cache_keyword(self.model): self.cache},
        ).logits[:, -1]
        picked = [row.pick(logits_V) for row, logits_V in zip(self.rows, logits_RV, strict=True)]
        for row, token in zip(self.rows, picked, strict=True):
            row.take(token)
        self._ids_RT = torch.tensor(picked, device=self._ids_RT.device)[:, None]
        self._mask_RT = torch.cat([self._mask_RT, torch.ones_like(self._ids_RT)], dim=1)

    def leave(self) -> None:
        """Drop the rows that are over or cancelled, with their part of the cache."""
        kept = [i for i, row in enumerate(self.rows) if not (row.is_over or row.is_cancelled)]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        if kept:
            index_K = torch.tensor(kept, device=self._ids_RT.device)
            self._ids_RT, self._mask_RT = self._ids_RT[index_K], self._mask_RT[index_K]
            if self.cache.get_seq_length():
                self._select(index_K)

    def _select(self, index_K: Tensor) -> None:
        self.cache.batch_select_indices(index_K)
