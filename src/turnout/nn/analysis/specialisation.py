"""This module measures what experts are specialised in: domains, tokens of the vocabulary, each other.

Source: OLMoE (arXiv 2409.02060), sections 5.2 to 5.4. Letters here: G domains, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count
from turnout.nn.analysis.table import Table
from turnout.nn.plan import check_mask

LEAST = 8
"""What occurs less often says nothing of what it is used for."""


@dataclass(frozen=True, kw_only=True)
class Specialisation:
    """How the choice of experts depends on the domain, in one layer.

    `information` is the mutual information of domain and expert in bits, `chance` what as many independent
    choices would show by chance, (G - 1)(E - 1) / (2 N ln 2); `share` is information over the entropy of the
    domains (0: the expert tells nothing, 1: everything); `distance` is the mean total variation between two
    domains' shares of experts; `lift` the greatest share of an expert in a domain over its share in all,
    among those that would have `LEAST` choices there if domains did not matter: an expert's only choice is
    always in one domain. It is NaN where none has so many.
    """

    information: float
    chance: float
    share: float
    distance: float
    lift: float


def specialisation(count_GE: Tensor) -> Specialisation:
    """Return how much domains and experts have to do with each other; count_GE are choices.

    Domains weigh the same, however many tokens were read of each. Raises `ShapeError` for fewer than two
    domains, and `InputError` for one in which no token has an expert, and for what is no count.
    """
    n_GE = count_GE.detach().double()
    if n_GE.ndim != 2 or len(n_GE) < 2:
        got = tuple(count_GE.shape)
        raise ShapeError(sentence("specialisation: count_GE", allowed="(G, E), G > 1", got=got))
    if not bool(torch.isfinite(n_GE).all()) or bool((n_GE < 0).any()):
        allowed = "finite numbers from 0 on"
        raise InputError(sentence("specialisation: count_GE", allowed=allowed, got=count_GE.tolist()))
    if not bool((n_GE.sum(dim=1) > 0).all()):
        sums = n_GE.sum(dim=1).tolist()
        raise InputError(sentence("specialisation: count_GE", allowed="a choice in every domain", got=sums))
    p_GE = n_GE / n_GE.sum(dim=1, keepdim=True)
    mean_E = p_GE.mean(dim=0)
    used_E = mean_E > 0
    ratio_GE = torch.where(used_E, p_GE / mean_E.clamp(min=torch.finfo(p_GE.dtype).tiny), 1.0)
    bits = float(torch.special.xlogy(p_GE, ratio_GE).sum() / len(p_GE) / math.log(2))
    pairs = [0.5 * (p_GE[i] - p_GE[j]).abs().sum() for i in range(len(p_GE)) for j in range(i)]
    degrees = (len(p_GE) - 1) * (int(used_E.sum()) - 1)
    known_N = ratio_GE[lift_is_known(n_GE)]
    return Specialisation(
        information=bits,
        chance=degrees / (2 * float(n_GE.sum()) * math.log(2)),
        share=bits / math.log2(len(p_GE)),
        distance=float(torch.stack(pairs).mean()),
        lift=float(known_N.max()) if len(known_N) else math.nan,
    )


def lift_is_known(count_GE: Tensor) -> Tensor:
    """Return in which domains each expert would have `LEAST` choices if domains did not matter, (G, E)."""
    n_GE = count_GE.double()
    size_G1 = n_GE.sum(dim=1, keepdim=True)
    mean_E = (n_GE / size_G1.clamp(min=1)).mean(dim=0)
    return mean_E * size_G1 >= LEAST


def counts_by_domain(chosen_BSE: Tensor, domains: Sequence[str], mask_BS: Tensor | None) -> dict[str, Tensor]:
    """Return the load (E,) of every domain, in order of its name.

    Raises `ShapeError` for other than B domains, and with `InputError` for a mask that is not (B, S) and
    boolean.
    """
    if len(domains) != len(chosen_BSE):
        allowed = f"B = {len(chosen_BSE)} names"
        raise ShapeError(sentence("counts_by_domain: domains", allowed=allowed, got=len(domains)))
    check_mask("counts_by_domain: mask_BS", mask_BS, "(B, S)", tuple(chosen_BSE.shape[:2]))
    kept_BSE = chosen_BSE if mask_BS is None else chosen_BSE & mask_BS.unsqueeze(-1)
    names = sorted(set(domains))
    rows = {name: torch.tensor([domain == name for domain in domains]) for name in names}
    return {name: kept_BSE[rows[name]].sum(dim=(0, 1)) for name in names}


def specialisation_table(layers: Mapping[str, Mapping[str, Tensor]]) -> Table:
    """Return one row per layer; `layers[layer][domain]` is a load (E,).

    Domains without a choice are left out of a layer's row, which is NaN where fewer than two have one.
    """
    rows: list[tuple[str | float, ...]] = []
    for name, counts in layers.items():
        used = [load_E for load_E in counts.values() if bool(load_E.sum() > 0)]
        if len(used) < 2:
            rows.append((name, *[math.nan] * 5))
            continue
        found = specialisation(torch.stack(used))
        rows.append((name, found.information, found.chance, found.share, found.distance, found.lift))
    return Table(
        title="Specialisation by domain",
        columns=("layer", "bits", "chance_bits", "share", "distance", "lift"),
        rows=tuple(rows),
        note=(
            "share 0: the expert tells nothing of the domain; lift 2: twice as often there as on average, "
            f"of experts with {LEAST} choices expected there."
        ),
    )


def vocabulary_specialisation(chosen_TE: Tensor, token_ids_T: Tensor, *, least: int = LEAST) -> float:
    """Return how sure the token alone makes the choice: the mean over token types of max_e N_ex / N_x.

    N_x counts occurrences of the type, N_ex those that chose e; types with fewer than `least` are left out,
    since one occurrence is always sure. Types weigh by occurrences. Raises `InputError` if none is left.
    """
    ids_T, flat_TE = token_ids_T.flatten(), chosen_TE.flatten(0, -2).double()
    if len(ids_T) != len(flat_TE):
        raise ShapeError(
            sentence("vocabulary_specialisation: token_ids_T", allowed=f"T = {len(flat_TE)}", got=len(ids_T))
        )
    _, type_T, n_V = torch.unique(ids_T, return_inverse=True, return_counts=True)
    count_VE = torch.zeros(len(n_V), flat_TE.shape[1], dtype=torch.double).index_add_(0, type_T, flat_TE)
    kept_V = n_V >= least
    if not bool(kept_V.any()):
        raise InputError(
            sentence("vocabulary_specialisation", allowed=f"a token that occurs {least} times", got="none")
        )
    best_V = count_VE.amax(dim=1)[kept_V]
    return float(best_V.sum() / n_V[kept_V].sum())


def vocabulary_chance(
    chosen_TE: Tensor,
    token_ids_T: Tensor,
    *,
    rng: np.random.Generator,
    least: int = LEAST,
    num_shuffles: int = 5,
) -> float:
    """Return what `vocabulary_specialisation` is on average where tokens are dealt out anew, by chance.

    The most frequent of many experts has more than its share of a few occurrences whatever the token is.
    """
    check_count("vocabulary_chance: num_shuffles", num_shuffles)
    ids_T = token_ids_T.flatten()
    orders = [torch.from_numpy(rng.permutation(len(ids_T))).to(ids_T.device) for _ in range(num_shuffles)]
    found = [vocabulary_specialisation(chosen_TE, ids_T[order_T], least=least) for order_T in orders]
    return sum(found) / num_shuffles


def co_activation(chosen_TE: Tensor) -> Tensor:
    """Return P(column's expert | row's expert) for one token, (E, E); NaN in rows of dead experts."""
    flat_TE = chosen_TE.flatten(0, -2).double()
    both_EE = flat_TE.T @ flat_TE
    return both_EE / both_EE.diagonal().unsqueeze(1)
