"""This module trains RAGRouter: what a candidate knows, and how a document shifts it.

Letters of this module: B rows, D width, H heads of width E = D / H, T texts of S rows each.

Source: J. Zhang et al., "RAGRouter: Learning to Route Queries to Multiple Retrieval-Augmented Language
Models", arXiv 2505.23052v2, section 4.1 (the representations, `v'_k = v_k + v_f`, attention over v_r, v_d and
v_c) and section 4.2 (contrast across and within settings, the log loss, and their sum).
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

SHARED = ("read", "cross", "ask", "key", "value", "out")
"""Parameters that all candidates share."""
OWN = ("knows", "uses", "level")
"""Parameters with a row per candidate: v_k, v_r and a constant."""
TEMPERATURE = 0.5


class RagNet(nn.Module):
    """The score `v_q . (v_k + v_f) / sqrt(D) + level`; v_f is 0 where there is no document."""

    def __init__(self, arrays: Mapping[str, np.ndarray], num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.read, self.cross, self.ask, self.key, self.value, self.out = (
            nn.Parameter(tensor(arrays[name])) for name in SHARED
        )
        self.knows, self.uses, self.level = (nn.Parameter(tensor(arrays[name])) for name in OWN)

    def forward(self, x_BF: Tensor, document_BF: Tensor) -> Tensor:
        """Return the scores, (B, M)."""
        z_BD, d_BD = x_BF @ self.read, document_BF @ self.read
        root, has_B = z_BD.shape[1] ** 0.5, document_BF.any(dim=1)
        score_BM: Tensor = z_BD @ self.knows.T
        if has_B.any():
            shift_BMD = torch.where(has_B[:, None, None], self.fused(z_BD, d_BD), 0.0)
            score_BM = score_BM + (z_BD[:, None, :] * shift_BMD).sum(dim=2)
        found_BM: Tensor = score_BM / root + self.level
        return found_BM

    def fused(self, z_BD: Tensor, d_BD: Tensor) -> Tensor:
        """Return v_f, (B, M, D): what the candidate makes of document and query, attended to by v_r."""
        c_BD = torch.relu((z_BD * d_BD) @ self.cross)
        num_rows, num = z_BD.shape[0], self.uses.shape[0]
        token_B3MD = torch.stack(
            [
                self.uses.expand(num_rows, -1, -1),
                d_BD[:, None, :].expand(-1, num, -1),
                c_BD[:, None, :].expand(-1, num, -1),
            ],
            dim=1,
        )
        ask_MHE = self._heads(self.uses @ self.ask)
        key_B3MHE, value_B3MHE = (self._heads(token_B3MD @ by) for by in (self.key, self.value))
        score_B3MH = (key_B3MHE * ask_MHE).sum(dim=4) / ask_MHE.shape[2] ** 0.5
        mixed_BMHE = (torch.softmax(score_B3MH, dim=1)[..., None] * value_B3MHE).sum(dim=1)
        shift_BMD: Tensor = mixed_BMHE.flatten(2) @ self.out
        return shift_BMD

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)


def contrast(score_TSM: Tensor, quality_TSM: Tensor) -> Tensor:
    """Return the contrastive loss: for every text, who was right against all who answered it.

    `-log(sum of q e^{s / t} / sum of e^{s / t})` over the candidates with each document and without one; so
    the settings of a text are contrasted as well as the candidates of a setting. NaN does not count.
    """
    known_TC = torch.isfinite(quality_TSM).flatten(1)
    score_TC = (score_TSM / TEMPERATURE).flatten(1).masked_fill(~known_TC, -torch.inf)
    quality_TC = quality_TSM.flatten(1).nan_to_num(0.0)
    rows = (quality_TC > 0.0).any(dim=1)
    if not rows.any():
        return 0.0 * score_TSM.sum()
    right_TC = (score_TC + quality_TC.clamp_min(1e-12).log())[rows]
    right_TC = right_TC.masked_fill(quality_TC[rows] <= 0.0, -torch.inf)
    return (torch.logsumexp(score_TC[rows], dim=1) - torch.logsumexp(right_TC, dim=1)).mean()


def log_loss(score_TSM: Tensor, quality_TSM: Tensor) -> Tensor:
    """Return the mean log loss of known qualities."""
    known = torch.isfinite(quality_TSM)
    bits = binary_cross_entropy_with_logits(score_TSM, quality_TSM.nan_to_num(0.5), reduction="none")
    return torch.where(known, bits, 0.0).sum() / known.sum().clamp(min=1)


def start(num_features: int, level_M: Floats, width: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the parameters to start from."""
    num, level_M = level_M.size, np.clip(level_M, 0.01, 0.99)
    square = {name: rng.normal(size=(width, width)) / np.sqrt(width) for name in SHARED[1:]}
    return {
        "read": rng.normal(size=(num_features, width)) / np.sqrt(num_features),
        **square,
        "out": 0.3 * square["out"],
        "knows": 0.3 * rng.normal(size=(num, width)),
        "uses": rng.normal(size=(num, width)),
        "level": np.log(level_M / (1.0 - level_M)),
    }


def learn(
    arrays: Mapping[str, np.ndarray],
    inputs: tuple[Array, Array],
    quality_NM: Floats,
    rows_TS: Ints,
    weight: float,
    rng: np.random.Generator,
    *,
    num_heads: int,
    names: tuple[str, ...] = (*SHARED, *OWN),
) -> tuple[dict[str, np.ndarray], Ints]:
    """Descend in the parameters that are named; returns all of them, and the texts that were held out.

    `inputs` are the vectors of queries and documents, zeros for none; `rows_TS` the rows of each text, -1
    for no more; `weight` that of the log loss beside the contrast.
    """
    net = RagNet(arrays, num_heads)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in names)
    x_all, document_all = (tensor(array) for array in inputs)
    rows_all = torch.from_numpy(rows_TS)
    # The last row is nobody's: it stands for a missing one.
    nobody = torch.full((1, quality_NM.shape[1]), torch.nan)
    quality_all = torch.cat([tensor(quality_NM), nobody])

    def scored(texts: Tensor) -> tuple[Tensor, Tensor]:
        flat = rows_all[texts].flatten()
        score_BM = net(x_all[flat], document_all[flat])
        shape = (*rows_all[texts].shape, score_BM.shape[1])
        return score_BM.reshape(shape), quality_all[flat].reshape(shape)

    def loss(texts: Tensor) -> Tensor:
        score_TSM, quality_TSM = scored(texts)
        return contrast(score_TSM, quality_TSM) + weight * log_loss(score_TSM, quality_TSM)

    def error(texts: Tensor) -> Tensor:
        return log_loss(*scored(texts))

    held_out = TorchDescent(decay=1e-2).run(net, loss, error, len(rows_TS), rng)
    return arrays_of(net), held_out
