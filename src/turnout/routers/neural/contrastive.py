"""This module trains the query map and the candidate vectors of RouterDC by its two contrastive losses.

Letters of this module: B rows of a batch, P positives and G negatives of a row, D width.

Source: S. Chen et al., "RouterDC", arXiv 2409.19886: abstract, and the code github.com/shuhao02/RouterDC at
0b8fd02, train_router_mdeberta.py (`compute_sample_llm_loss`, `compute_cluster_loss`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from turnout.core.outcomes import Floats, Ints
from turnout.routers.kmeans import closest, kmeans
from turnout.routers.neighbours import Array
from turnout.routers.neural.descent import TorchDescent, arrays_of, generator, tensor

NUM_POSITIVES = NUM_NEGATIVES = 3
"""K+ and K-: so many of the best and of the worst candidates of a row count (3 in the code)."""
NUM_OTHERS = 3
"""H: so many queries of other clusters repel each query (3 in the code)."""
_MAX_CLUSTERS, _ROWS_PER_CLUSTER = 20, 10
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class DualLoss:
    """What the losses weigh, and the chance in them."""

    temperature: float
    sample_weight: float
    chance: torch.Generator

    def __call__(self, z_BD: Tensor, k_MD: Tensor, quality_BM: Tensor, label_B: Tensor) -> Tensor:
        """Return the loss of a batch of query vectors, in any length; NaN is an unknown quality."""
        z_BD, k_MD = normalize(z_BD, dim=1), normalize(k_MD, dim=1)
        loss = sample_llm_loss(z_BD @ k_MD.T / self.temperature, quality_BM, self.chance)
        if self.sample_weight:
            similarity_BB = z_BD @ z_BD.T / self.temperature
            loss = loss + self.sample_weight * sample_sample_loss(similarity_BB, label_B, self.chance)
        return loss


def sample_llm_loss(logit_BM: Tensor, quality_BM: Tensor, chance: torch.Generator) -> Tensor:
    """Return the sample-LLM loss: each of the best candidates against the worst ones that it beats.

    Of every positive p: `-log(e^{s_p} / (e^{s_p} + sum of e^{s_n} over worse negatives n))`, times how much
    better p is than the worst of them; for right or wrong that is 1. A positive without any negative
    counts nothing. Ties are broken by chance.
    """
    num = quality_BM.shape[1]
    known_BM = torch.isfinite(quality_BM)
    jitter_BM = _TIE * torch.rand(quality_BM.shape, generator=chance)
    ranked_BM = torch.where(known_BM, quality_BM, -1.0) + jitter_BM
    best_BP = ranked_BM.topk(min(NUM_POSITIVES, num), dim=1).indices
    ranked_BM = torch.where(known_BM, quality_BM, 2.0) + jitter_BM
    worst_BG = ranked_BM.topk(min(NUM_NEGATIVES, num), dim=1, largest=False).indices
    gap_BPG = quality_BM.gather(1, best_BP)[:, :, None] - quality_BM.gather(1, worst_BG)[:, None, :]
    # A comparison with NaN is false.
    beaten_BPG = gap_BPG > 2.0 * _TIE
    negative_BPG = logit_BM.gather(1, worst_BG)[:, None, :].expand(gap_BPG.shape)
    negative_BPG = negative_BPG.masked_fill(~beaten_BPG, -torch.inf)
    positive_BP = logit_BM.gather(1, best_BP)
    all_BPG = torch.cat([positive_BP[:, :, None], negative_BPG], dim=2)
    loss_BP = torch.logsumexp(all_BPG, dim=2) - positive_BP
    weight_BP = torch.where(beaten_BPG, gap_BPG, 0.0).amax(dim=2)
    return (loss_BP * weight_BP).sum(dim=1).mean()


def sample_sample_loss(similarity_BB: Tensor, label_B: Tensor, chance: torch.Generator) -> Tensor:
    """Return the sample-sample loss: a query of one's own cluster against `NUM_OTHERS` of other clusters.

    The partner is another query, drawn by chance, as the others are. A query without any partner, or
    without any other, counts nothing.
    """
    num = label_B.shape[0]
    is_same_BB = label_B[:, None] == label_B[None, :]
    is_partner_BB = is_same_BB & ~torch.eye(num, dtype=torch.bool)
    key_BB = torch.rand((num, num), generator=chance)
    partner_B = torch.where(is_partner_BB, key_BB, -1.0).argmax(dim=1)
    drawn = torch.where(is_same_BB, -1.0, key_BB).topk(min(NUM_OTHERS, num), dim=1)
    other_BG = similarity_BB.gather(1, drawn.indices).masked_fill(drawn.values < 0.0, -torch.inf)
    positive_B = similarity_BB.gather(1, partner_B[:, None])
    loss_B = torch.logsumexp(torch.cat([positive_B, other_BG], dim=1), dim=1) - positive_B[:, 0]
    has_both_B = is_partner_BB.any(dim=1) & ~is_same_BB.all(dim=1)
    return torch.where(has_both_B, loss_B, 0.0).mean()


def preference_error(logit_BM: Tensor, quality_BM: Tensor) -> Tensor:
    """Return the mean of `-log` of the share that a softmax gives to the best candidates, ties and all."""
    known_BM = torch.isfinite(quality_BM)
    best_B1 = torch.where(known_BM, quality_BM, -1.0).amax(dim=1, keepdim=True)
    all_B = torch.logsumexp(logit_BM.masked_fill(~known_BM, -torch.inf), dim=1)
    good_B = torch.logsumexp(logit_BM.masked_fill(~(quality_BM >= best_B1), -torch.inf), dim=1)
    return torch.where(known_BM.any(dim=1), all_B - good_B, 0.0).mean()


class _Net(nn.Module):
    def __init__(self, weight_FD: np.ndarray, vector_MD: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensor(weight_FD))
        self.vector = nn.Parameter(tensor(vector_MD))


def learn(
    x_NF: Array,
    quality_NM: Floats,
    *,
    width: int,
    temperature: float,
    sample_weight: float,
    rng: np.random.Generator,
) -> tuple[Array, Array, Ints]:
    """Return the query map (F, D), the candidates' vectors (M, D), and the rows that were held out."""
    num_features, num = x_NF.shape[1], quality_NM.shape[1]
    weight_FD = rng.normal(size=(num_features, width)) / np.sqrt(width)
    net = _Net(weight_FD, rng.normal(size=(num, width)) / np.sqrt(width))
    x_all, quality_all = tensor(x_NF), tensor(quality_NM)
    k = min(_MAX_CLUSTERS, max(x_NF.shape[0] // _ROWS_PER_CLUSTER, 1))
    label_all = torch.from_numpy(closest(x_NF, kmeans(x_NF, k, rng)))
    dual = DualLoss(temperature, sample_weight, generator(rng))

    def loss(rows: Tensor) -> Tensor:
        z_BD = x_all[rows] @ net.weight
        return dual(z_BD, net.vector, quality_all[rows], label_all[rows])

    def error(rows: Tensor) -> Tensor:
        z_BD = normalize(x_all[rows] @ net.weight, dim=1)
        logit_BM = z_BD @ normalize(net.vector, dim=1).T / temperature
        return preference_error(logit_BM, quality_all[rows])

    held_out = TorchDescent().run(net, loss, error, x_NF.shape[0], rng)
    found = arrays_of(net)
    return found["weight"], found["vector"], held_out
