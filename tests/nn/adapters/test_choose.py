from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.errors import InputError
from turnout.nn.adapters.choose import check_choice_of, top_k, top_p


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 9), spread=st.sampled_from([0.0, 1.0, 50.0]))
def test_top_k_keeps_k_and_sums_to_one(seed: int, k: int, spread: float) -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) * spread
    weights = top_k(scores, k)
    assert (weights > 0).sum(-1).max() <= min(k, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4), atol=2e-5, rtol=0)
    if spread == 1.0:
        best = scores.topk(min(k, 6)).indices
        torch.testing.assert_close(weights.gather(-1, best).sum(-1), weights.sum(-1))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), p=st.floats(1e-6, 1.0), spread=st.sampled_from([0.0, 1.0, 500.0]))
def test_top_p_keeps_the_fewest_that_hold_p_and_at_least_one(seed: int, p: float, spread: float) -> None:
    scores = (torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) * spread).double()
    weights, probability = top_p(scores, p), torch.softmax(scores, -1)
    for w, q in zip(weights, probability, strict=True):
        kept = int((w > 0).sum())
        ordered = q.sort(descending=True).values.cumsum(0)
        assert kept >= 1
        assert ordered[kept - 1] >= p - 1e-9 or kept == int((q > 0).sum())
        assert kept == 1 or ordered[kept - 2] < p
    torch.testing.assert_close(weights.sum(-1), torch.ones(3).double(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("k", "p"), [(None, None), (1, 0.5), (0, None), (None, 0.0), (None, 1.5), (1.5, None)]
)
def test_a_choice_out_of_range_is_refused(k: int | None, p: float | None) -> None:
    with pytest.raises(InputError, match="allowed"):
        check_choice_of("here", k, p)
