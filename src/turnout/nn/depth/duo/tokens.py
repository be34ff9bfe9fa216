"""This module is the loss of single tokens under patterns, while all other tokens keep a fixed one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.caches import cache_keyword
from turnout.nn.depth.duo.choices import check_choice
from turnout.nn.depth.duo.model import DuoModel
from turnout.nn.depth.duo.problem import Floats, Ints, Problem
from turnout.nn.depth.duo.sequences import next_token_losses
from turnout.nn.tiny import IGNORED, Batch


@final
class TokenLoss:
    """The loss that a token has on the next one, under patterns of its own.

    Source: S22, Duo-LLM (arXiv 2410.10846), section 3.2: a token's pattern is enumerated while the others are
    fixed, since the routing of earlier tokens changes what this one attends to. The earlier tokens follow
    `others`; their keys and values are computed once, so a trial costs one token. Trials of all rows at one
    position run in one forward pass. What a token's pattern does to later tokens is not counted.

    Parameters
    ----------
    positions
        (row, column) of every item; the next column must have a label.
    others
        The pattern (L,) of all other tokens.
    rows
        Trials in one forward pass.
    """

    def __init__(
        self,
        duo: DuoModel,
        batch: Batch,
        *,
        positions: Sequence[tuple[int, int]],
        others: Sequence[int],
        rows: int = 512,
    ) -> None:
        self.duo, self.batch, self.rows = duo, batch, check_count("TokenLoss: rows", rows)
        self.positions_Q2 = np.array(positions, dtype=np.int64).reshape(-1, 2)
        self.others = tuple(int(choice) for choice in others)
        check_choice(list(others), num_layers=duo.num_layers, allow_skip=duo.allow_skip)
        num_rows, num_columns = batch.labels_BT.shape
        for row, column in positions:
            if not (0 <= row < num_rows and 0 <= column < num_columns - 1):
                allowed = f"rows below {num_rows} and columns below {num_columns - 1}"
                raise InputError(sentence("TokenLoss: a position", allowed=allowed, got=(row, column)))
            if int(batch.labels_BT[row, column + 1]) == IGNORED:
                raise InputError(sentence("TokenLoss: no label follows a position", got=(row, column)))
        self._keys_values: list[tuple[Tensor, Tensor]] | None = None

    def problem(self) -> Problem:
        """Return the question for an oracle: the positions are its items, big modules are counted."""
        return Problem(
            loss=self,
            num_items=len(self.positions_Q2),
            num_layers=self.duo.num_layers,
            cost_A=self.duo.cost_A,
        )

    @torch.no_grad()
    def __call__(self, item_P: Ints, choice_PL: Ints) -> Floats:
        """Return the loss of each trial, (P,), in nats."""
        out_P = np.empty(len(item_P))
        column_P = self.positions_Q2[item_P, 1]
        for column in np.unique(column_P):
            here = np.flatnonzero(column_P == column)
            for start in range(0, len(here), self.rows):
                part = here[start : start + self.rows]
                row_P = torch.from_numpy(self.positions_Q2[item_P[part], 0])
                out_P[part] = self._trials(int(column), row_P, torch.from_numpy(choice_PL[part]))
        return out_P

    def _trials(self, column: int, row_P: Tensor, choice_PL: Tensor) -> Floats:
        batch, device = self.batch, next(self.duo.model.parameters()).device
        window = slice(column, column + 1)
        # The choice has one column, so it holds for whatever lies after the cache.
        with self.duo.forced(choice_PL[:, None]):
            cache = self._cache(column, row_P.to(device))
            self.duo.adopt(cache)
            logits_PTV = self.duo.model(
                input_ids=batch.input_ids_BT[row_P, window].to(device),
                attention_mask=batch.attention_mask_BT[row_P, : column + 1].to(device),
                use_cache=True,
                **{cache_keyword(self.duo.model): cache},
            ).logits
        labels_PT = batch.labels_BT[row_P, column : column + 2].to(device)
        padded_PTV = torch.cat([logits_PTV, logits_PTV], dim=1)
        return np.asarray(next_token_losses(padded_PTV, labels_PT)[:, 0].double().cpu().numpy())

    def _cache(self, column: int, row_P: Tensor) -> DynamicCache:
        """Return a cache of the columns before `column`, one row a trial."""
        if self._keys_values is None:
            self._keys_values = self._context()
        cache = DynamicCache()
        for layer, (key_BHTD, value_BHTD) in enumerate(self._keys_values):
            if column:
                cache.update(key_BHTD[row_P, :, :column], value_BHTD[row_P, :, :column], layer)
        return cache

    def _context(self) -> list[tuple[Tensor, Tensor]]:
        device = next(self.duo.model.parameters()).device
        cache = DynamicCache()
        with self.duo.forced(list(self.others)):
            self.duo.model(
                input_ids=self.batch.input_ids_BT.to(device),
                attention_mask=self.batch.attention_mask_BT.to(device),
                use_cache=True,
                **{cache_keyword(self.duo.model): cache},
            )
        return [(layer.keys, layer.values) for layer in cache.layers]
