from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from turnout.core.errors import InputError, ShapeError
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.thor import ThorGate, consistency_loss

X_TD = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


def test_an_item_shares_one_draw_and_every_expert_is_drawn_as_often() -> None:
    gate = ThorGate(width=8, num_experts=4)
    torch.manual_seed(0)
    plans = [gate(X_TD, GateContext(num_items=8)) for _ in range(250)]
    drawn = torch.stack([plan.experts_N[plan.tokens_N.argsort()].view(8, 5) for plan in plans])
    assert bool((drawn == drawn[..., :1]).all())
    shares = torch.bincount(drawn[..., 0].flatten(), minlength=4) / drawn[..., 0].numel()
    assert torch.allclose(shares, torch.tensor(0.25), atol=0.04)
    assert not torch.equal(drawn[0], drawn[1])
    by_token = ThorGate(width=8, num_experts=4, unit="token")(X_TD, GateContext(num_items=8))
    assert bool((by_token.experts_N[by_token.tokens_N.argsort()].view(8, 5).diff(dim=1) != 0).any())


def test_in_eval_mode_all_experts_answer() -> None:
    experts = Experts(width=8, inner=4, num_experts=4)
    y_TD = LoopExecutor().run(X_TD, ThorGate(width=8, num_experts=4).eval()(X_TD), experts)
    outs = torch.stack([experts.stack().one(e, X_TD) for e in range(4)])
    assert torch.allclose(y_TD, outs.mean(0), atol=1e-5)


def test_consistency_is_both_divergences_halved_and_zero_where_passes_agree() -> None:
    one, other = torch.randn(6, 5), torch.randn(6, 5)
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    both = [functional.kl_div(a, b, log_target=True, reduction="batchmean") for a, b in ((p, q), (q, p))]
    assert torch.allclose(consistency_loss(one, other), (both[0] + both[1]) / 2, atol=1e-6)
    assert float(consistency_loss(one, one + 3)) < 1e-6
    mask_N = torch.tensor([True] * 3 + [False] * 3)
    masked = consistency_loss(one, other, mask_N=mask_N)
    assert torch.allclose(masked, consistency_loss(one[:3], other[:3]))
    with pytest.raises(ShapeError):
        consistency_loss(one, other[:3])


def test_states_that_are_not_numbers_are_refused() -> None:
    x_TD = torch.randn(6, 8)
    x_TD[2] = torch.nan
    gate = ThorGate(width=8, num_experts=4)
    with pytest.raises(InputError, match="hidden states of 1 of T = 6 tokens are NaN"):
        gate(x_TD)
    mask_BS = torch.ones(1, 6, dtype=torch.bool)
    mask_BS[0, 2] = False
    assert gate(x_TD, GateContext(mask_BS=mask_BS)).num_tokens == 6
