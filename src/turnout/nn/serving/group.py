"""This module decodes rows that were read together, one token at a time, and lets go of those that end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from turnout.nn.caches import cache_keyword
from turnout.nn.serving.row import Row

PROMPT, PADS = (1, 0, 1), 5
"""What padding is tried with: the ids of a prompt, and how much stands before them."""

APART = 0.03
"""Share of the logits' norm by which those of half precision may be apart and be the same."""


def keeps_keys_alone(model: PreTrainedModel) -> bool:
    """Whether no layer keeps a running state, which padding would go into."""
    return not any(hasattr(layer, "conv_states") for layer in DynamicCache(config=model.config).layers)


def can_pad(model: PreTrainedModel) -> bool:
    """Whether a prompt may be padded on the left: where that changes its logits by rounding alone.

    Families such as BART count padding as positions, whatever they are told; two short passes show it.
    """
    if not keeps_keys_alone(model):
        return False
    alone_V, padded_V = _last_logits(model, 0), _last_logits(model, PADS)
    apart = float((padded_V - alone_V).norm() / alone_V.norm())
    return bool(apart <= min(torch.finfo(model.dtype).eps ** 0.5, APART))


@torch.no_grad()
def _last_logits(model: PreTrainedModel, pads: int) -> Tensor:
    mask_1T = torch.tensor([[0] * pads + [1] * len(PROMPT)], device=model.device)
    logits_1TV: Tensor = model(
        input_ids=torch.tensor([[0] * pads + [*PROMPT]], device=model.device),
        attention_mask=mask_1T,
        position_ids=positions(mask_1T),
        use_cache=False,
    ).logits
    return logits_1TV[0, -1].double()


def positions(mask_RT: Tensor) -> Tensor:
    """Return the place of each token among those of its row that are no padding."""
    return (mask_RT.cumsum(-1) - 1).clamp(min=0)


class Group:
    """Rows of one variant with one cache.

    Parameters
    ----------
    model:
        Runs under whatever variant its caller has switched on.
    rows:
        At least one; shorter prompts are padded on the left, and of one length where `has_padding` is false.
    pad:
        Id of the padding token.
    has_padding:
        What `can_pad` says of the model.
    """

    def __init__(self, *, model: PreTrainedModel, rows: Sequence[Row], pad: int, has_padding: bool) -> None:
        self.model = model
        self.rows = list(rows)
        self.cache = DynamicCache(config=model.config)
        self._has_read = False
        self._has_padding = has_padding
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
        positions_RT = positions(self._mask_RT)[:, -tokens:]
        logits_RV = self.model(
            input_ids=self._ids_RT,
            # Layers with a running state know no mask of what they have read, and there is no padding then.
            attention_mask=self._mask_RT if self._has_padding else None,
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
