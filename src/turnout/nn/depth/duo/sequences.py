"""This module is the loss of whole sequences under patterns, as oracles and `regret` ask for it."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.depth.duo.model import DuoModel
from turnout.nn.depth.duo.problem import Floats, Ints, Problem
from turnout.nn.tiny import IGNORED, Batch


def next_token_losses(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the loss that column t has on the label of column t + 1, (B, T); NaN where there is none.

    V is the vocabulary; in nats.
    """
    target_BT = nn.functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
    loss_BT = nn.functional.cross_entropy(
        logits_BTV.float().transpose(1, 2), target_BT, ignore_index=IGNORED, reduction="none"
    )
    return loss_BT.masked_fill(target_BT == IGNORED, torch.nan)


@final
class SequenceLoss:
    """The mean loss per token of each row of a batch, every token routed by that trial's choices.

    Called as `loss(item_P, choice_PL)` or with choices (P, T, L), one pattern per token; returns (P,), in
    nats. `rows` trials run in one forward pass.
    """

    def __init__(self, duo: DuoModel, batch: Batch, *, rows: int = 64) -> None:
        self.duo, self.batch, self.rows = duo, batch, check_count("SequenceLoss: rows", rows)
        if bool((batch.labels_BT[:, 1:] == IGNORED).all(dim=1).any()):
            raise InputError(sentence("SequenceLoss: every row needs a label after its first column"))

    def problem(self) -> Problem:
        """Return the question for an oracle: the batch's rows are its items, big modules are counted."""
        return Problem(
            loss=self,
            num_items=len(self.batch.labels_BT),
            num_layers=self.duo.num_layers,
            cost_A=self.duo.cost_A,
        )

    @torch.no_grad()
    def __call__(self, item_P: Ints, choice_PL: Ints) -> Floats:
        """Return the loss of each trial, (P,)."""
        found = []
        for start in range(0, len(item_P), self.rows):
            rows = torch.from_numpy(item_P[start : start + self.rows])
            choice = torch.from_numpy(choice_PL[start : start + self.rows])
            with self.duo.forced(choice):
                found.append(row_losses(self.duo, self.batch, rows))
        return np.concatenate(found)


@torch.no_grad()
def row_losses(duo: DuoModel, batch: Batch, rows: Tensor) -> Floats:
    """Return the mean loss per token of some rows of a batch under whatever the model obeys now."""
    device = next(duo.model.parameters()).device
    labels_BT, mask_BT = batch.labels_BT[rows].to(device), batch.attention_mask_BT[rows].to(device)
    logits_BTV = duo.model(
        input_ids=batch.input_ids_BT[rows].to(device),
        attention_mask=mask_BT,
        use_cache=False,
    ).logits
    # What padding says about the first token is nobody's prediction.
    loss_BT = next_token_losses(logits_BTV, labels_BT).masked_fill(mask_BT == 0, torch.nan)
    return np.asarray(loss_BT.nanmean(dim=1).double().cpu().numpy())


@torch.no_grad()
def routed_losses(duo: DuoModel, batch: Batch, *, rows: int = 64) -> tuple[Floats, Floats, Ints]:
    """Return what the trained routers do: loss_B, big layers per token of each row, and choice_BTL.

    Padding counts in neither number.
    """
    losses, shares, choices = [], [], []
    for index in torch.split(torch.arange(len(batch.labels_BT)), rows):
        with duo.routed(), duo.recording() as record:
            losses.append(row_losses(duo, batch, index))
        choice_BTL = record.choice_BTL.cpu()
        mask_BT = batch.attention_mask_BT[index].cpu()
        big_B = ((choice_BTL == 1).sum(dim=2) * mask_BT).sum(dim=1) / mask_BT.sum(dim=1)
        shares.append(big_B.double().numpy())
        choices.append(choice_BTL.numpy())
    return np.concatenate(losses), np.concatenate(shares), np.concatenate(choices)
