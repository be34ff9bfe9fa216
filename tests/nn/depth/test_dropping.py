from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.depth import FixedDepth, RoutedDepth, right_answers
from turnout.nn.depth.dropping import train_dropping
from turnout.nn.tiny import answer_batch, character_tokenizer, tiny_llama

TOKENIZER = character_tokenizer("abcdef=")
BATCH = answer_batch(TOKENIZER, [(f"{a}{b}=", b) for a in "abcdef" for b in "abcdef"])
LAYERS = 4


def trained(drop: float) -> tuple[RoutedDepth, torch.Tensor]:
    """Return a base and the decisions of every step, (S, B, L)."""
    routed = RoutedDepth(model=tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=LAYERS))
    seen: list[torch.Tensor] = []
    rng = np.random.default_rng(0)
    train_dropping(
        routed, lambda: BATCH, drop=drop, rng=rng, steps=80, lr=5e-3,
        progress=lambda *_: seen.append(routed.counts_BL),
    )  # fmt: skip
    return routed, torch.stack(seen)


def without_two(routed: RoutedDepth) -> float:
    """Return the share of right answers without two blocks, for the pair that is missed most."""
    rows, shares = len(BATCH.input_ids_BT), []
    for pair in itertools.combinations(range(LAYERS), 2):
        path = torch.ones(LAYERS, dtype=torch.int64)
        path[list(pair)] = 0
        right_B, _ = right_answers(routed, BATCH, counts_BL=path.expand(rows, -1))
        shares.append(float(right_B.float().mean()))
    return min(shares)


def test_a_base_that_missed_blocks_in_training_answers_without_two() -> None:
    torch.set_num_threads(1)
    (whole, all_SBL), (dropped, seen_SBL) = trained(0.0), trained(0.3)
    assert bool((all_SBL == 1).all())
    assert without_two(dropped) > without_two(whole) + 0.2
    assert 0.68 < float(seen_SBL.float().mean()) < 0.72
    # Neither all rows of a step nor all steps of a row miss the same blocks.
    assert len(torch.unique(seen_SBL[0], dim=0)) > 3
    assert len(torch.unique(seen_SBL[:, 0], dim=0)) > 3


def test_the_wrapper_keeps_its_router_and_no_share_beyond_all_is_taken() -> None:
    router = FixedDepth(counts=[1, 0, 1, 1])
    routed = RoutedDepth(model=tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=LAYERS), router=router)
    rng = np.random.default_rng(0)
    train_dropping(routed, lambda: BATCH, drop=0.5, rng=rng, steps=1)
    assert routed.router is router
    with pytest.raises(InputError, match=r"drop; allowed: a number in \[0, 1\)"):
        train_dropping(routed, lambda: BATCH, drop=1.0, rng=rng, steps=1)
