"""This module trains the probe of ProbeDirichlet: layers mixed by a Dirichlet distribution, then a small net.

Letters of this module: B rows of a batch, L layers, D width of a layer, H width of the hidden one.

Source: "Towards Fair and Comprehensive Evaluation of Routers in Collaborative LLM Systems", arXiv 2602.11877:
abstract, and the code github.com/zhuchichi56/RouterXBench (5778200), src_easy/dynamic_probe.py.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet
from torch.nn.functional import binary_cross_entropy_with_logits

from turnout.core.outcomes import Floats, Ints
from turnout.routers.neighbours import Array
from turnout.routers.neural.descent import TorchDescent, arrays_of, tensor


class ProbeNet(nn.Module):
    """`alpha = exp(beta) * softmax(logits)`; drawn from in training, its mean otherwise."""

    def __init__(
        self, num_layers: int, width: int, hidden: int, level_M: Floats, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))
        self.beta = nn.Parameter(torch.tensor(float(np.log(num_layers)) + 1.0))
        self.weight = nn.Parameter(tensor(rng.normal(size=(width, hidden)) * np.sqrt(2.0 / width)))
        self.bias = nn.Parameter(torch.zeros(hidden))
        num = level_M.size
        self.head_weight = nn.Parameter(tensor(rng.normal(size=(hidden, num)) * 0.1 / np.sqrt(hidden)))
        level_M = np.clip(level_M, 0.01, 0.99)
        self.head_bias = nn.Parameter(tensor(np.log(level_M / (1.0 - level_M))))
        self._seed_of = np.random.default_rng(int(rng.integers(2**62)))

    def shares(self, num_rows: int) -> Tensor:
        """Return the shares of the layers, (B, L) in training and (1, L) otherwise."""
        mean_L = torch.softmax(self.logits, dim=0)
        if not self.training or mean_L.numel() == 1:
            return mean_L[None]
        # The distribution draws from torch's global state alone: it is seeded, and put back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self._seed_of.integers(2**62)))
            drawn: Tensor = Dirichlet(self.beta.exp() * mean_L + 1e-3, validate_args=False).rsample(
                torch.Size([num_rows])
            )
        return drawn

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return the logits of quality, (B, M)."""
        mixed_BD = (x_BLD * self.shares(x_BLD.shape[0])[:, :, None]).sum(dim=1)
        return torch.relu(mixed_BD @ self.weight + self.bias) @ self.head_weight + self.head_bias


def learn(
    x_NLD: Array, quality_NM: Floats, level_M: Floats, hidden: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], Ints]:
    """Return the parameters, with the mean shares of the layers as `share`, and the rows held out."""
    net = ProbeNet(x_NLD.shape[1], x_NLD.shape[2], hidden, level_M, rng)
    x_all, quality_all = tensor(x_NLD), tensor(quality_NM)

    def loss(rows: Tensor) -> Tensor:
        quality_BM = quality_all[rows]
        known_BM = torch.isfinite(quality_BM)
        bits_BM = binary_cross_entropy_with_logits(
            net(x_all[rows]), quality_BM.nan_to_num(0.5), reduction="none"
        )
        return (bits_BM * known_BM).sum() / known_BM.sum().clamp(min=1)

    held_out = TorchDescent(decay=1e-2).run(net, loss, loss, x_NLD.shape[0], rng)
    found = arrays_of(net)
    share_L = torch.softmax(net.logits.detach(), dim=0).numpy()
    return {
        **{n: found[n] for n in ("weight", "bias", "head_weight", "head_bias")},
        "share": share_L,
    }, held_out
