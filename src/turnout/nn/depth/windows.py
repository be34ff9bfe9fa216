"""This module pools a prompt into the means of at most eight windows, without its padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOWS = 8


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Which tokens of each prompt belong to which window; computed once a prompt, used by every block."""

    weights_BWT: Tensor
    """1 / s at the s tokens of a window; zero elsewhere."""
    is_used_BW: Tensor
    """False for the windows that a prompt of fewer than W tokens does not have."""
    is_outside_BT1: Tensor
    """Whether a token lies in no window: padding, or in the dropped remainder."""
    share_BW1: Tensor
    """1 / w at the w windows that are used; zero elsewhere."""

    def means(self, hidden_BTD: Tensor) -> Tensor:
        """Return means_BWD in float32; zero for windows that are not used."""
        # What is masked may hold anything, also what is no number; a weight of zero would let it through.
        clean_BTD = hidden_BTD.masked_fill(self.is_outside_BT1, 0.0)
        return torch.bmm(self.weights_BWT, clean_BTD.float())

    def average(self, values_BWC: Tensor) -> Tensor:
        """Return the mean over the windows that are used, values_BC."""
        return (values_BWC * self.share_BW1.to(values_BWC.dtype)).sum(1)


def make_windows(mask_BT: Tensor, *, windows: int = WINDOWS) -> Windows:
    """Return the windows of prompts whose tokens are where `mask_BT` is true.

    A prompt of T tokens has w = min(windows, T) windows of s = T // w tokens; the last T - w s tokens are
    dropped. Where the padding lies does not matter.

    Source: S12, Dr.LLM, arXiv 2510.12773, section 3.2.
    """
    mask_BT = mask_BT.bool()
    tokens_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1)
    windows_B1 = tokens_B1.clamp(max=windows)
    size_B1 = tokens_B1 // windows_B1
    window_BT = (mask_BT.long().cumsum(1) - 1).div(size_B1, rounding_mode="floor")
    is_token_BT = mask_BT & (window_BT < windows_B1)
    number_W = torch.arange(windows, device=mask_BT.device)
    inside_BWT = (window_BT[:, None, :] == number_W[None, :, None]) & is_token_BT[:, None, :]
    is_used_BW = number_W[None, :] < windows_B1
    return Windows(
        weights_BWT=inside_BWT.float() / size_B1[:, :, None],
        is_used_BW=is_used_BW,
        is_outside_BT1=~is_token_BT[:, :, None],
        share_BW1=(is_used_BW.float() / windows_B1)[:, :, None],
    )
