"""This module looks for a standing committee: experts that take much of the routing in every domain.

Source: S75, CommitteeAudit (arXiv 2601.03425), section 3. Letters here: Q samples, G domains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.analysis.load import check_probs
from turnout.nn.analysis.table import Table


@dataclass(frozen=True, kw_only=True)
class Committee:
    """What one layer's routing vectors say.

    `experts` are the standing committee, `mass` the share of routing that they get on average over domains;
    `jaccard` the mean agreement of two domains' top k, `gini` the inequality of the experts' mass (0 even);
    `kept` are the domains whose samples route alike, `silhouette_G` how much so.
    """

    experts: tuple[int, ...]
    mass: float
    jaccard: float
    gini: float
    kept: tuple[str, ...]
    silhouette_G: tuple[float, ...]


def find_committee(
    probs_QE: Tensor,
    domains: Sequence[str],
    *,
    k: int,
    presence: float = 0.8,
    num_domains: int | None = None,
) -> Committee:
    """Return the standing committee of one layer.

    `probs_QE` is the full softmax of the router at the last token of each sample. The mean over a domain is
    the expert contribution index c. Domains are kept by their silhouette (cosine distance), the best
    `num_domains`, all if None. In a kept domain the k experts of greatest c have ranks 1 to k and all others
    k + 1; candidates are in the top k of more than `presence` of the domains, and the committee is their
    Pareto front: no other candidate has a smaller mean rank and a smaller variance of the rank. Experts that
    are exactly even share the last of their ranks, so that an even gate has no committee, and no `jaccard`
    (NaN). Raises `InputError` for what is no probability.
    """
    names = sorted(set(domains))
    _check(probs_QE, domains, names, k)
    check_number("find_committee: presence", presence, low=0.0, high=1.0)
    p_QE = probs_QE.detach().double()
    label_Q = torch.tensor([names.index(domain) for domain in domains])
    silhouette_G = _silhouettes(p_QE, label_Q, len(names))
    wanted = len(names) if num_domains is None else check_count("find_committee: num_domains", num_domains)
    kept = sorted(torch.argsort(silhouette_G, descending=True)[:wanted].tolist())
    mean_GE = torch.stack([p_QE[label_Q == g].mean(dim=0) for g in kept])
    rank_GE = _ranks(mean_GE, k)
    experts = _front(rank_GE, k, presence)
    pairs = [_agreement(a_E, b_E) for a_E, b_E in itertools.combinations(rank_GE <= k, 2)]
    return Committee(
        experts=experts,
        mass=float(mean_GE[:, list(experts)].sum(dim=1).mean()),
        jaccard=sum(pairs) / len(pairs) if pairs else 1.0,
        gini=gini(mean_GE.mean(dim=0)),
        kept=tuple(names[g] for g in kept),
        silhouette_G=tuple(silhouette_G[kept].tolist()),
    )


def gini(mass_E: Tensor) -> float:
    """Return sum_ij |c_i - c_j| / (2 E sum_i c_i): 0 when even, (E - 1)/E when one has all."""
    c_E = mass_E.detach().double()
    return float((c_E[:, None] - c_E[None, :]).abs().sum() / (2 * len(c_E) * c_E.sum()))


def committee_table(
    layers: Sequence[str], probs: Sequence[Tensor], domains: Sequence[str], ks: Sequence[int]
) -> Table:
    """Return the committee of every layer; probs[l] is (Q, E), ks[l] how many experts a token has there."""
    rows = []
    for name, probs_QE, k in zip(layers, probs, ks, strict=True):
        found = find_committee(probs_QE, domains, k=k)
        members = " ".join(str(expert) for expert in found.experts) or "none"
        rows.append(
            (name, members, found.mass, len(found.experts) / probs_QE.shape[1], found.jaccard, found.gini)
        )
    return Table(
        title="Standing committee",
        columns=("layer", "experts", "mass", "mass_if_even", "jaccard", "gini"),
        rows=tuple(rows),
        note="jaccard 1: all domains prefer the same experts; mass: the committee's share of the routing.",
    )


def _check(probs_QE: Tensor, domains: Sequence[str], names: Sequence[str], k: int) -> None:
    if probs_QE.ndim != 2 or len(probs_QE) != len(domains):
        got = tuple(probs_QE.shape)
        raise ShapeError(sentence("find_committee: probs_QE", allowed=f"(Q = {len(domains)}, E)", got=got))
    check_count("find_committee: k", k, high=probs_QE.shape[1])
    if len(names) < 2:
        raise InputError(sentence("find_committee: domains", allowed="two or more", got=len(names)))
    check_probs("find_committee: probs_QE", probs_QE)


def _silhouettes(p_QE: Tensor, label_Q: Tensor, num_domains: int) -> Tensor:
    """Return the mean silhouette of each domain's samples with cosine distance; 0 for a domain of one."""
    # A sample may have no probability where all of it went to columns of no expert.
    unit_QE = p_QE / p_QE.norm(dim=1, keepdim=True).clamp(min=1e-300)
    distance_QQ = 1 - unit_QE @ unit_QE.T
    member_GQ = torch.stack([label_Q == g for g in range(num_domains)]).double()
    size_G = member_GQ.sum(dim=1)
    sum_QG = distance_QQ @ member_GQ.T
    own_Q = torch.arange(len(label_Q))
    inside_Q = sum_QG[own_Q, label_Q] / (size_G[label_Q] - 1).clamp(min=1)
    mean_QG = sum_QG / size_G
    mean_QG[own_Q, label_Q] = torch.inf
    outside_Q = mean_QG.amin(dim=1)
    s_Q = (outside_Q - inside_Q) / torch.maximum(outside_Q, inside_Q).clamp(min=1e-300)
    s_Q = torch.where(size_G[label_Q] > 1, s_Q, 0.0)
    return (member_GQ @ s_Q) / size_G


def _ranks(mean_GE: Tensor, k: int) -> Tensor:
    """Return 1 to k for the k greatest of every row and k + 1 for all others.

    The rank of an expert is how many have at least as much as it.
    """
    atleast_GE = (mean_GE[:, :, None] <= mean_GE[:, None, :]).sum(dim=2)
    return atleast_GE.clamp(max=k + 1).double()


def _agreement(a_E: Tensor, b_E: Tensor) -> float:
    """Return the Jaccard index of two sets; NaN where both are empty."""
    either = int((a_E | b_E).sum())
    return int((a_E & b_E).sum()) / either if either else math.nan


def _front(rank_GE: Tensor, k: int, presence: float) -> tuple[int, ...]:
    """Return the candidates that no other candidate beats in both mean and variance of the rank."""
    present_E = (rank_GE <= k).double().mean(dim=0) > presence
    mean_E, spread_E = rank_GE.mean(dim=0), rank_GE.var(dim=0, unbiased=False)
    candidates = present_E.nonzero().flatten().tolist()

    def is_beaten(e: int) -> bool:
        return any(
            bool(mean_E[o] <= mean_E[e] and spread_E[o] <= spread_E[e])
            and bool(mean_E[o] < mean_E[e] or spread_E[o] < spread_E[e])
            for o in candidates
        )

    return tuple(e for e in candidates if not is_beaten(e))
