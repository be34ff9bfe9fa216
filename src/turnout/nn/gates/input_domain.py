"""This module is the gate of Input Domain Aware MoE: a mixture of Gaussians says whose domain a token is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.validation import check_count, check_number
from turnout.nn.gates.contract import Gate, GateContext, check_k, normalised, real_mean
from turnout.nn.plan import SparsePlan


class InputDomainGate(Gate):
    """The k experts whose distributions most probably made the token; the task teaches it nothing.

    A token's state, divided by its root mean square, is encoded into z of size Z. Each expert has M Gaussians
    with diagonal covariance in that space, and p(z) = sum_e sum_m pi_em N(z; mu_em, sigma_em). Scores are the
    posteriors of the experts, r_e = sum_m pi_em N_em / p(z); weights are those of the k largest over their
    sum, as constants. `losses["mixture"]` is the mean of -log p(z) / Z, `losses["reconstruction"]` the mean
    squared error of the decoded state; neither reaches the states, the mixture's does not reach the code.

    Source: S242, Input Domain Aware MoE (arXiv 2510.16448), read in its abstract and summaries. Differs: z is
    a linear code and a constant to the mixture, which would else shrink it without end; variances have a
    floor.

    Parameters
    ----------
    width, num_experts
        D and E.
    k
        Experts of a token.
    latent
        Z, the size of the code.
    components
        M, Gaussians of an expert; the paper has 16.
    floor
        The least standard deviation.
    """

    expert_rows = ("means_EMZ", "log_spread_EMZ", "log_share_EM")
    is_apart = True

    def __init__(
        self,
        *,
        width: int,
        num_experts: int,
        k: int = 2,
        latent: int = 16,
        components: int = 16,
        floor: float = 0.05,
    ) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = check_k("InputDomainGate", k, num_experts)
        self.latent = check_count("InputDomainGate: latent", latent)
        self.components = check_count("InputDomainGate: components", components)
        self.floor = check_number("InputDomainGate: floor", floor, low=0.0, allow_low=False)
        self.encode_ZD = nn.Parameter(torch.randn(latent, width) / width**0.5)
        self.decode_DZ = nn.Parameter(torch.randn(width, latent) / latent**0.5)
        self.means_EMZ = nn.Parameter(torch.randn(num_experts, components, latent))
        self.log_spread_EMZ = nn.Parameter(torch.zeros(num_experts, components, latent))
        self.log_share_EM = nn.Parameter(torch.zeros(num_experts, components))

    def decide(self, x_TD: Tensor, context: GateContext) -> SparsePlan:
        """Return the plan."""
        # What is a constant here cannot be taught by anybody, whichever loss it stands in.
        x_TD, mask_T = functional.rms_norm(x_TD.detach().float(), (self.width,)), context.mask_T()
        z_TZ = x_TD @ self.encode_ZD.float().T
        joint_TE = self.log_joint(z_TZ.detach())
        scores_TE = joint_TE.softmax(dim=-1)
        best_TK, indices_TK = scores_TE.detach().topk(self.k, dim=-1)
        losses = {}
        if self.training:
            error_T = (z_TZ @ self.decode_DZ.float().T - x_TD).square().mean(dim=-1)
            losses["mixture"] = real_mean(-joint_TE.logsumexp(dim=-1) / self.latent, mask_T)
            losses["reconstruction"] = real_mean(error_T, mask_T)
        return SparsePlan.from_choices(
            normalised(best_TK),
            indices_TK,
            num_experts=self.num_experts,
            mask_T=mask_T,
            logits_TE=joint_TE,
            scores_TE=scores_TE,
            losses=losses,
        )

    def log_joint(self, z_TZ: Tensor) -> Tensor:
        """Return log p(z, e), (T, E)."""
        spread_EMZ = self.log_spread_EMZ.float().exp() + self.floor
        shape = (self.num_experts, self.components)
        log_share_EM = self.log_share_EM.float().flatten().log_softmax(dim=0).reshape(shape)
        # |(z - mu) / sigma|^2 in three products, so that no (T, E, M, Z) is made.
        inverse_EMZ = spread_EMZ.pow(-2)
        scaled_EMZ = self.means_EMZ.float() * inverse_EMZ
        square_TEM = (
            torch.einsum("tz,emz->tem", z_TZ.square(), inverse_EMZ)
            - 2 * torch.einsum("tz,emz->tem", z_TZ, scaled_EMZ)
            + (self.means_EMZ.float() * scaled_EMZ).sum(dim=-1)
        )
        norm_EM = spread_EMZ.log().sum(dim=-1) + self.latent * math.log(2 * math.pi) / 2
        return (log_share_EM - norm_EM - square_TEM / 2).logsumexp(dim=-1)
