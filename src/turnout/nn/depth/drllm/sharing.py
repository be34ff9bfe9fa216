"""This module makes the labels of different questions agree: a few paths that many share."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from turnout.core.progress import Progress, silent
from turnout.core.rng import make_rng
from turnout.core.validation import check_count
from turnout.nn.depth.drllm.labels import Labels
from turnout.nn.depth.rewards import right_answers
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.tiny import Batch

MISSED = 2
"""What a question costs that no shared path answers, in calls of every block."""


def share_labels(
    routed: RoutedDepth,
    batch: Batch,
    labels: Labels,
    *,
    paths: int = 4,
    pool: int = 64,
    seed: int = 0,
    progress: Progress = silent,
) -> Labels:
    """Return labels of which at most `paths` different ones answer all questions that they can.

    A search ends at one of many short paths that answer its question, whichever it meets first. Routers that
    decide block by block learn the average of such labels, and an average of right paths is a path that
    nobody tried. So every label path (`pool` of them by chance, where there are more) and the whole path are
    measured on all questions, and one after another the path is taken that saves most calls, given those
    taken before. Each question is then taught the shortest taken path that answers it, and its own where
    none does.

    Not in the paper, whose labels are each question's own.
    """
    check_count("share_labels: paths", paths)
    check_count("share_labels: pool", pool)
    tried_PL = _pool(labels, pool, seed)
    right_PQ = torch.stack(
        [_right(routed, batch, counts_L, progress, (i, len(tried_PL))) for i, counts_L in enumerate(tried_PL)]
    )
    chosen_K = _cover(right_PQ, tried_PL.sum(1), paths, missed=MISSED * routed.layers)
    calls_KQ = torch.where(
        right_PQ[chosen_K], tried_PL[chosen_K].sum(1)[:, None], torch.iinfo(torch.int64).max
    )
    shared_QL = tried_PL[chosen_K][calls_KQ.argmin(0)]
    is_shared_Q = right_PQ[chosen_K].any(0)
    return dataclasses.replace(
        labels,
        counts_QL=torch.where(is_shared_Q[:, None], shared_QL, labels.counts_QL),
        is_found_Q=labels.is_found_Q | is_shared_Q,
        is_improved_Q=labels.is_improved_Q | (is_shared_Q & ~right_PQ[0] & ~labels.is_found_Q),
        measured=labels.measured + right_PQ.numel(),
    )


def _pool(labels: Labels, most: int, seed: int) -> Tensor:
    """Return the paths to measure as counts_PL, the whole path first."""
    whole_1L = torch.ones_like(labels.counts_QL[:1])
    found_PL = torch.unique(labels.counts_QL[labels.is_found_Q], dim=0)
    found_PL = found_PL[(found_PL != whole_1L).any(1)]
    if len(found_PL) > most:
        drawn = make_rng(seed, "share").choice(len(found_PL), size=most, replace=False)
        found_PL = found_PL[torch.from_numpy(drawn)]
    return torch.cat([whole_1L, found_PL])


def _right(
    routed: RoutedDepth, batch: Batch, counts_L: Tensor, progress: Progress, place: tuple[int, int]
) -> Tensor:
    questions = len(batch.input_ids_BT)
    right_Q, _ = right_answers(routed, batch, counts_BL=counts_L.expand(questions, -1))
    progress("sharing paths", place[0] + 1, place[1])
    return right_Q


def _cover(right_PQ: Tensor, calls_P: Tensor, paths: int, *, missed: int) -> Tensor:
    """Return the paths that one by one save most calls over all questions; fewer where none saves more."""
    cost_PQ = torch.where(right_PQ, calls_P[:, None], missed)
    left_Q = torch.full_like(cost_PQ[0], missed)
    chosen: list[int] = []
    while len(chosen) < paths:
        total_P = torch.minimum(cost_PQ, left_Q).sum(1)
        best = int(total_P.argmin())
        if int(total_P[best]) >= int(left_Q.sum()):
            break
        chosen.append(best)
        left_Q = torch.minimum(left_Q, cost_PQ[best])
    return torch.tensor(chosen or [0])
