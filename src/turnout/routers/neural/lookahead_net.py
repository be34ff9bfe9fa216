"""This module trains the network of Lookahead: it foresees latents of answers, and scores them.

Letters of this module: B rows of a batch, H width of the query's layer, K width of a latent, R features of an
answer.

Source: "Lookahead Routing for Large Language Models", arXiv 2510.19506: abstract, and the code
github.com/huangcb01/lookahead-routing (bfce756), src/model/mask.py and src/trainers/mask.py (`compute_loss`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from turnout.core.outcomes import Floats, Ints
from turnout.routers.neighbours import Array
from turnout.routers.neural.descent import TorchDescent, arrays_of, tensor

SHARED = ("weight", "bias", "mix", "decode", "decode_bias")
"""Parameters that all candidates share."""
OWN = ("gain", "offset", "head", "level")
"""Parameters with a row per candidate: its identity."""


class LookaheadNet(nn.Module):
    """Latents `z = relu((h * gain_m) mix + offset_m)`; answers `z decode`, logits `z head_m + level_m`."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.weight, self.bias, self.mix, self.decode, self.decode_bias = (
            nn.Parameter(tensor(arrays[name])) for name in SHARED
        )
        self.gain, self.offset, self.head, self.level = (nn.Parameter(tensor(arrays[name])) for name in OWN)

    def latents(self, x_BF: Tensor) -> Tensor:
        """Return the foreseen latents, (B, M, K)."""
        hidden_BH = torch.relu(x_BF @ self.weight + self.bias)
        return torch.relu((hidden_BH[:, None, :] * self.gain) @ self.mix + self.offset)

    def loss(self, x_BF: Tensor, quality_BM: Tensor, answer_BMR: Tensor | None, weight: float) -> Tensor:
        """Return the log loss of quality, plus `weight` times the squared error of the foreseen answers.

        The squared error is a share of what answers vary, 1 where nothing is foreseen.
        """
        latent_BMK, known_BM = self.latents(x_BF), torch.isfinite(quality_BM)
        logit_BM = (latent_BMK * self.head).sum(dim=2) + self.level
        bits_BM = binary_cross_entropy_with_logits(logit_BM, quality_BM.nan_to_num(0.5), reduction="none")
        loss = (bits_BM * known_BM).sum() / known_BM.sum().clamp(min=1)
        if answer_BMR is None or not weight:
            return loss
        said_BM = torch.isfinite(answer_BMR[:, :, 0])
        away_BMR = latent_BMK @ self.decode + self.decode_bias - answer_BMR.nan_to_num(0.0)
        away_BM = away_BMR.square().sum(dim=2) * said_BM
        return loss + weight * away_BM.sum() / said_BM.sum().clamp(min=1)


def start(
    num_features: int, level_M: Floats, sizes: tuple[int, int, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the parameters to start from; sizes are H, K and R."""
    hidden, latent, answer = sizes
    num, level_M = level_M.size, np.clip(level_M, 0.01, 0.99)
    return {
        "weight": rng.normal(size=(num_features, hidden)) * np.sqrt(2.0 / num_features),
        "bias": np.zeros(hidden),
        "mix": rng.normal(size=(hidden, latent)) * np.sqrt(2.0 / hidden),
        "decode": rng.normal(size=(latent, answer)) * 0.1 / np.sqrt(latent),
        "decode_bias": np.zeros(answer),
        "head": rng.normal(size=(num, latent)) * 0.1 / np.sqrt(latent),
        "gain": 1.0 + 0.3 * rng.normal(size=(num, hidden)),
        "offset": 0.3 * rng.normal(size=(num, latent)),
        "level": np.log(level_M / (1.0 - level_M)),
    }


def learn(
    arrays: Mapping[str, np.ndarray],
    x_NF: Array,
    quality_NM: Floats,
    answer_NMR: Array | None,
    weight: float,
    rng: np.random.Generator,
    *,
    names: tuple[str, ...] = (*SHARED, *OWN),
) -> tuple[dict[str, np.ndarray], Ints]:
    """Descend from `arrays` in the parameters that are named; returns all of them, and the rows held out."""
    net = LookaheadNet(arrays)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in names)
    x_all, quality_all = tensor(x_NF), tensor(quality_NM)
    answer_all = None if answer_NMR is None else tensor(answer_NMR)

    def loss(rows: Tensor) -> Tensor:
        answer_BMR = None if answer_all is None else answer_all[rows]
        return net.loss(x_all[rows], quality_all[rows], answer_BMR, weight)

    def error(rows: Tensor) -> Tensor:
        return net.loss(x_all[rows], quality_all[rows], None, 0.0)

    held_out = TorchDescent(decay=1e-2).run(net, loss, error, x_NF.shape[0], rng)
    return arrays_of(net), held_out
