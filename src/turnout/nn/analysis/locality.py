"""This module measures how far neighbouring tokens agree on their experts: SRP and SCH.

Source: S1 (arXiv 2505.16056), sections 3.1 and 3.2, and its published code. A segment is m tokens in a row.
Letters here: B sequences, S tokens of one, G segments, N thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.analysis.table import Table
from turnout.nn.plan import check_mask


@dataclass(frozen=True, kw_only=True)
class Locality:
    """A measure with its bootstrap interval over sequences."""

    value: float
    low: float
    high: float


def segment_counts(chosen_BSE: Tensor, length: int) -> Tensor:
    """Return how many tokens of each segment chose each expert, (B, G, E); the rest is left out."""
    check_count("segment_counts: length", length)
    check_mask("segment_counts: chosen_BSE", chosen_BSE, "(B, S, E)", tuple(chosen_BSE.shape))
    if chosen_BSE.ndim != 3 or chosen_BSE.shape[1] < length:
        got = tuple(chosen_BSE.shape)
        raise ShapeError(sentence("segment_counts: chosen_BSE", allowed=f"(B, S >= {length}, E)", got=got))
    num_sequences, num_tokens, num_experts = chosen_BSE.shape
    num_segments = num_tokens // length
    kept = chosen_BSE[:, : num_segments * length]
    return kept.reshape(num_sequences, num_segments, length, num_experts).sum(dim=2)


def srp(
    chosen_BSE: Tensor,
    length: int,
    *,
    rng: np.random.Generator,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Locality:
    """Return the segment routing best performance: the best F1 of one fixed set of experts per segment.

    A set is used for all tokens of its segment; F1 = 2 hits / (used + needed), summed over all segments. A
    segment's set holds the experts that at least n of its tokens chose, and n is the best of 1 to m for all
    segments together. No other choice of sets is better: at the best F1, F, taking an expert into a set helps
    exactly if its count is above F m / 2, which is the same threshold for every segment.
    """
    count_BGE = segment_counts(chosen_BSE, length)
    n_N = torch.arange(1, length + 1)
    hits_BN = torch.stack([(count_BGE * (count_BGE >= n)).sum(dim=(1, 2)) for n in n_N], dim=1).double()
    used_BN = torch.stack([(count_BGE >= n).sum(dim=(1, 2)) for n in n_N], dim=1).double() * length
    need_B = _needed("srp", count_BGE)

    def best(weight_RB: Tensor) -> Tensor:
        total_RN = weight_RB @ used_BN + (weight_RB @ need_B).unsqueeze(1)
        return (2 * (weight_RB @ hits_BN) / total_RN).amax(dim=1)

    return _with_interval(best, len(need_B), rng, num_resamples, confidence)


def sch(
    chosen_BSE: Tensor,
    length: int,
    *,
    rho: float,
    rng: np.random.Generator,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Locality:
    """Return the segment cache best hit rate: hits of a cache of rho times k experts over all that is needed.

    Before each token the cache is filled with the experts that are chosen most often in the `length` tokens
    from that one on (a window that slides and sees the future): what a cache of this size could reach, not
    what a policy reaches. k is the mean number of experts per token, the size is rounded to the nearest.
    """
    check_number("sch: rho", rho, low=0.0, allow_low=False, high=math.inf, allow_high=False)
    check_count("sch: length", length)
    if chosen_BSE.ndim != 3 or chosen_BSE.shape[1] < length:
        got = tuple(chosen_BSE.shape)
        raise ShapeError(sentence("sch: chosen_BSE", allowed=f"(B, S >= {length}, E)", got=got))
    check_mask("sch: chosen_BSE", chosen_BSE, "(B, S, E)", tuple(chosen_BSE.shape))
    need_BSE = chosen_BSE.double()
    need_B = _needed("sch", need_BSE)
    num_tokens, num_experts = need_BSE.shape[1:]
    k = float(need_BSE.sum() / (len(need_BSE) * num_tokens))
    size = min(max(round(rho * k), 1), num_experts)
    ahead_BSE = torch.nn.functional.pad(need_BSE.cumsum(dim=1), (0, 0, 1, 0))
    ends = torch.arange(num_tokens).add(length).clamp(max=num_tokens)
    window_BSE = ahead_BSE[:, ends] - ahead_BSE[:, :-1]
    # Of equal counts the expert that is needed now is kept: the cache is the best of its kind.
    cached = (window_BSE + 0.5 * need_BSE).topk(size, dim=-1)[1]
    hits_B = need_BSE.gather(-1, cached).sum(dim=(1, 2))

    def rate(weight_RB: Tensor) -> Tensor:
        return (weight_RB @ hits_B) / (weight_RB @ need_B)

    return _with_interval(rate, len(need_B), rng, num_resamples, confidence)


def _needed(where: str, count_BXE: Tensor) -> Tensor:
    """Return how many experts all tokens of each sequence need; raises `InputError` where none needs one."""
    need_B = count_BXE.sum(dim=(1, 2)).double()
    if not bool(need_B.sum() > 0):
        raise InputError(sentence(f"{where}: chosen_BSE", allowed="a token with an expert", got="none"))
    return need_B


def _with_interval(
    measure: Callable[[Tensor], Tensor],
    num_sequences: int,
    rng: np.random.Generator,
    num_resamples: int,
    confidence: float,
) -> Locality:
    check_count("num_resamples", num_resamples)
    check_number("confidence", confidence, low=0.0, high=1.0, allow_low=False, allow_high=False)
    even = np.full(num_sequences, 1 / num_sequences)
    draws_RB = torch.from_numpy(rng.multinomial(num_sequences, even, size=num_resamples)).double()
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(measure(draws_RB).numpy(), [tail, 1 - tail])
    value = float(measure(torch.ones(1, num_sequences, dtype=torch.double))[0])
    return Locality(value=value, low=float(low), high=float(high))


def locality_table(
    layers: Mapping[str, Tensor],
    *,
    rng: np.random.Generator,
    lengths: Sequence[int] = (4, 16, 64, 256),
    rho: float = 2.0,
) -> Table:
    """Return SRP and SCH of every layer's chosen_BSE at every segment length that fits.

    They are NaN where a layer gave no token an expert.
    """
    for length in lengths:
        check_count("locality_table: lengths", length)
    rows: list[tuple[str | int | float, ...]] = []
    for name, chosen_BSE in layers.items():
        for length in lengths:
            if length > chosen_BSE.shape[1]:
                continue
            if not bool(chosen_BSE[:, : chosen_BSE.shape[1] // length * length].any()):
                rows.append((name, length, *[math.nan] * 6))
                continue
            best, hit = srp(chosen_BSE, length, rng=rng), sch(chosen_BSE, length, rho=rho, rng=rng)
            ends = (best.value, best.low, best.high, hit.value, hit.low, hit.high)
            rows.append((name, length, *ends))
    return Table(
        title="Local routing consistency",
        columns=("layer", "segment_tokens", "srp", "srp_low", "srp_high", "sch", "sch_low", "sch_high"),
        rows=tuple(rows),
        note=f"srp: best F1 of one set of experts per segment; sch: best hit rate of a cache of {rho:g} k.",
    )
