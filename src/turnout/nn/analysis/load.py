"""This module measures how evenly the experts of a layer are used, and how sure its gate is.

The load (which experts computed) and the gate's mass (how much weight they got) differ: ask for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.analysis.table import Table
from turnout.nn.plan import check_mask


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How a total is spread over E experts; m is the mean over experts, x an expert's part.

    `max_vio`, `min_vio` and `avg_vio` are the greatest, the least and the mean absolute x/m - 1 (MaxVio:
    Wang et al., arXiv 2408.15664, equation 5); `cv` is standard deviation over m; `entropy` is that of the
    shares over ln E, 1 when even; `effective` is (sum x)^2 / sum x^2, the number of experts that an even
    spread of this inequality would use; `num_dead` counts experts with nothing.
    """

    num_experts: int
    total: float
    max_vio: float
    min_vio: float
    avg_vio: float
    cv: float
    entropy: float
    effective: float
    num_dead: int


def balance(load_E: Tensor) -> Balance:
    """Return the balance of what each expert got (tokens, or weight); NaN where nobody got anything."""
    x_E = load_E.detach().double()
    if x_E.ndim != 1 or not len(x_E):
        raise ShapeError(sentence("balance: load_E", allowed="(E,)", got=tuple(load_E.shape)))
    if not bool(torch.isfinite(x_E).all()) or bool((x_E < 0).any()):
        raise InputError(sentence("balance: load_E", allowed="finite numbers from 0 on", got=load_E.tolist()))
    share_E = x_E / x_E.sum()
    vio_E = share_E * len(x_E) - 1
    entropy = -torch.special.xlogy(share_E, share_E).sum() / math.log(max(len(x_E), 2))
    return Balance(
        num_experts=len(x_E),
        total=float(x_E.sum()),
        max_vio=float(vio_E.max()),
        min_vio=float(vio_E.min()),
        avg_vio=float(vio_E.abs().mean()),
        cv=float(vio_E.square().mean().sqrt()),
        entropy=float(entropy) if len(x_E) > 1 else 1.0,
        effective=float(1 / share_E.square().sum()),
        num_dead=int((x_E == 0).sum()),
    )


def load_of(chosen_TE: Tensor) -> Tensor:
    """Return how many tokens each expert computed, (E,); raises `InputError` for what is not boolean."""
    check_mask("load_of: chosen_TE", chosen_TE, "(..., E)", tuple(chosen_TE.shape))
    return chosen_TE.flatten(0, -2).sum(dim=0)


def load_table(loads: Mapping[str, Tensor], *, title: str = "Load of experts") -> Table:
    """Return one row per name of `loads` (a layer, or a model and a layer), each with a load (E,)."""
    names = tuple(field.name for field in fields(Balance))
    rows = tuple((name, *astuple(balance(load_E))) for name, load_E in loads.items())
    note = "max_vio 0 and entropy 1 are even; max_vio 1 means that one expert has twice the mean."
    return Table(title=title, columns=("layer", *names), rows=rows, note=note)


@dataclass(frozen=True, kw_only=True)
class Sureness:
    """How a gate's probabilities look, token by token, on average.

    `entropy` is over ln E; `margin` is the best probability minus the next; `top` the best.
    """

    entropy: float
    margin: float
    top: float


def sureness(probs_TE: Tensor) -> Sureness:
    """Return how sure a gate is; rows of probs_TE sum to 1, or to less where a gate has other columns too.

    Raises `InputError` for what is no probability, as logits are none, and `ShapeError` for a single expert.
    """
    p_TE = probs_TE.detach().double().flatten(0, -2)
    num_experts = p_TE.shape[-1]
    if num_experts < 2:
        raise ShapeError(sentence("sureness: probs_TE", allowed="(T, E) with E > 1", got=tuple(p_TE.shape)))
    check_probs("sureness: probs_TE", p_TE)
    entropy_T = -torch.special.xlogy(p_TE, p_TE).sum(dim=-1) / math.log(num_experts)
    best_T2 = p_TE.topk(2, dim=-1)[0]
    return Sureness(
        entropy=float(entropy_T.mean()),
        margin=float((best_T2[:, 0] - best_T2[:, 1]).mean()),
        top=float(best_T2[:, 0].mean()),
    )


def check_probs(where: str, p_TE: Tensor) -> None:
    """Raise `InputError` unless all are numbers from 0 on and no row has more than 1, up to rounding."""
    most = float(p_TE.sum(dim=-1).max()) if p_TE.numel() else 0.0
    if not (bool((p_TE >= 0).all()) and most < 1.02):
        got = f"{float(p_TE.min()):.3g} to {float(p_TE.max()):.3g}, up to {most:.3g} in a row"
        raise InputError(sentence(where, allowed="probabilities, up to 1 in a row", got=got))


def sureness_table(layers: Sequence[str], probs: Sequence[Tensor]) -> Table:
    """Return how sure the gate of each layer is, with the balance of its mass beside it.

    A layer of one expert has nothing to be sure of: a row of unknown numbers.
    """
    rows: list[tuple[str | float, ...]] = []
    for name, probs_TE in zip(layers, probs, strict=True):
        if probs_TE.shape[-1] < 2:
            rows.append((name, *[math.nan] * 5))
            continue
        sure, mass = sureness(probs_TE), balance(probs_TE.flatten(0, -2).double().sum(dim=0))
        rows.append((name, sure.entropy, sure.margin, sure.top, mass.max_vio, mass.cv))
    return Table(
        title="Sureness of gates",
        columns=("layer", "entropy", "margin", "top", "mass_max_vio", "mass_cv"),
        rows=tuple(rows),
        note="entropy 1: the gate does not care; the mass is all probability, chosen or not.",
    )
