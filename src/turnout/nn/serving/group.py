"""This module decodes rows that were read together, one token at a time, and lets go of those that end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from turnout.nn.caches import cache_keyword
from turnout.nn.serving.row import Row


def can_pad(model: PreTrainedModel) -> bool:
    """Whether a prompt may be padded: not where layers keep a running state, which padding would go into."""
    return not any(hasattr(layer, "conv_states") for layer in DynamicCache(config=model.config).layers)


class Group:
    """Rows of one variant with one cache.

    Parameters
    ----------
    model:
        Runs under whatever variant its caller has switched on.
    rows:
        At least one; shorter prompts are padded on the left, and of one length where `can_pad` denies it.
    pad:
        Id of the padding token.
    """

    def __init__(self, *, model: PreTrainedModel, rows: Sequence[Row], pad: int) -> None:
        self.model = model
        self.rows = list(rows)
        self.cache = DynamicCache(config=model.config)
        self._has_read = False
        self._can_pad = can_pad(model)
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
            # Layers with a running state know no mask of what they have read, and there is no padding then.
            attention_mask=self._mask_RT if self._can_pad else None,
            position_ids=positions_RT,
            use_cache=True,
            logits_to_keep=1,
            **{cache_keyword(self.model): self.cache},
        ).logits[:, -1]
        self._has_read = True
        picked = [row.advance(logits_V) for row, logits_V in zip(self.rows, logits_RV, strict=True)]
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
            if self._has_read:
                # Not `batch_select_indices`, which leaves out the states of layers without attention.
                self.cache.reorder_cache(index_K)
