"""This module trains a map of queries into the space of fingerprints by the cost-spectrum contrastive loss.

Letters of this module: B rows of a batch, K numbers of a fingerprint, H width of the hidden layer.

Source: R. Shirkavand et al., "Cost-Aware Contrastive Routing for LLMs", arXiv 2508.12491: abstract, and the
code github.com/rezashkv/cscr at 3d685cb, scripts/train_query_encoder.py (`cost_spectrum_info_nce`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from turnout.core.outcomes import Floats, Ints
from turnout.routers.neighbours import Array
from turnout.routers.neural.descent import TorchDescent, arrays_of, tensor


@dataclass(frozen=True, slots=True)
class CostSpectrum:
    """What the loss knows of money: a cost in [0, 1] and a band per candidate, both of shape (M,)."""

    cost_M: Tensor
    band_M: Tensor
    least_temperature: float
    slope: float
    """What the mean cost of a band adds to its temperature."""
    penalty: float
    """What a cost of 1 takes from a similarity in the denominator."""

    def __call__(self, similarity_BM: Tensor, quality_BM: Tensor) -> Tensor:
        """Return the loss; NaN is an unknown quality, and counts on neither side.

        In each band b, over the rows on which someone of the band is right:
        `-log(sum_{m in b} q_m e^{s_m / t_b} / sum_m e^{(s_m - penalty c_m) / t_b})`, with the temperature
        `t_b = least + slope * mean cost of b`, times the best q of the band; the mean over rows, then bands.
        """
        known_BM = torch.isfinite(quality_BM)
        terms = []
        for band in torch.unique(self.band_M):
            inside_M = self.band_M == band
            temperature = self.least_temperature + self.slope * self.cost_M[inside_M].mean()
            weight_BM = torch.where(known_BM & inside_M, quality_BM, 0.0)
            best_B, _ = weight_BM.max(dim=1)
            rows = best_B > 0.0
            if not rows.any():
                continue
            right_BM = similarity_BM[rows] / temperature + weight_BM[rows].clamp_min(1e-12).log()
            right_BM = right_BM.masked_fill(weight_BM[rows] <= 0.0, -torch.inf)
            all_BM = (similarity_BM[rows] - self.penalty * self.cost_M) / temperature
            all_BM = all_BM.masked_fill(~known_BM[rows], -torch.inf)
            loss_B = torch.logsumexp(all_BM, dim=1) - torch.logsumexp(right_BM, dim=1)
            terms.append((loss_B * best_B[rows]).mean())
        return torch.stack(terms).mean() if terms else 0.0 * similarity_BM.sum()


def bands_of(cost_M: Floats, num_bands: int) -> Ints:
    """Return the band of each candidate by quantiles of cost, from 0, the cheapest."""
    edges = np.quantile(cost_M, np.linspace(0.0, 1.0, num_bands + 1))[1:-1]
    return np.searchsorted(edges, cost_M, side="left")


class _Net(nn.Module):
    """Two layers without a constant, so that a blank text is like nobody."""

    def __init__(self, num_features: int, hidden: int, width: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.first = nn.Parameter(tensor(rng.normal(size=(num_features, hidden)) / np.sqrt(num_features)))
        self.second = nn.Parameter(tensor(rng.normal(size=(hidden, width)) * np.sqrt(2.0 / hidden)))

    def forward(self, x_BF: Tensor) -> Tensor:
        return normalize(torch.relu(x_BF @ self.first) @ self.second, dim=1)


def learn(
    x_NF: Array,
    quality_NM: Floats,
    print_MK: Array,
    spectrum: CostSpectrum,
    hidden: int,
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Ints]:
    """Return the weights `first` (F, H) and `second` (H, K), and the rows that were held out."""
    net = _Net(x_NF.shape[1], hidden, print_MK.shape[1], rng)
    x_all, quality_all, print_all = tensor(x_NF), tensor(quality_NM), tensor(print_MK)

    def loss(rows: Tensor) -> Tensor:
        return spectrum(net(x_all[rows]) @ print_all.T, quality_all[rows])

    held_out = TorchDescent().run(net, loss, loss, x_NF.shape[0], rng)
    return arrays_of(net), held_out
