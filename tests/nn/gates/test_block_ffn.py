from __future__ import annotations

import torch

from turnout.nn.gates.block_ffn import BlockFFNGate, chunk_sparsity
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
ITEMS = GateContext(num_items=2)


def test_the_size_of_the_state_changes_neither_who_nor_how_much() -> None:
    gate = BlockFFNGate(width=16, num_experts=8, eps=1e-12)
    once, twice = gate(X_TD).to_dense(), gate(3 * X_TD).to_dense()
    assert torch.allclose(once, twice, atol=1e-5)
    top = TopKGate(width=16, num_experts=8)
    assert not torch.allclose(top(X_TD).to_dense(), top(3 * X_TD).to_dense(), atol=1e-2)


def test_the_mean_square_of_weights_is_one() -> None:
    weights_TE = BlockFFNGate(width=16, num_experts=8, eps=1e-12)(X_TD).to_dense()
    has_one_T = (weights_TE > 0).any(1)
    assert has_one_T.sum() > 32
    assert torch.allclose(weights_TE.square().mean(1)[has_one_T], torch.tensor(1.0), atol=1e-4)


def test_chunks_of_one_token_are_tokens_and_longer_ones_need_more() -> None:
    gate = BlockFFNGate(width=16, num_experts=8)
    plan = gate(X_TD, ITEMS)
    zeros = 1 - plan.num_pairs / (64 * 8)
    assert abs(chunk_sparsity(plan, ITEMS, 1) - zeros) < 1e-6
    assert chunk_sparsity(plan, ITEMS, 8) < chunk_sparsity(plan, ITEMS, 2) < zeros


def loss_of(
    logits_TE: torch.Tensor, name: str, *, chunk: int = 4, mask_T: torch.Tensor | None = None
) -> float:
    """Return a loss where the states are the logits."""
    gate = BlockFFNGate(width=logits_TE.shape[1], num_experts=logits_TE.shape[1], chunk=chunk)
    with torch.no_grad():
        gate.weight_ED.copy_(torch.eye(logits_TE.shape[1]))
    context = GateContext(mask_BS=None if mask_T is None else mask_T[None])
    return float(gate(logits_TE, context).losses[name].detach())


def test_the_loss_of_chunks_is_the_share_of_experts_that_a_chunk_touches() -> None:
    off, first, second = [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]
    assert abs(loss_of(torch.tensor([off] * 4), "chunk")) < 1e-3
    assert abs(loss_of(torch.tensor([first] * 4), "chunk") - 0.5) < 1e-3
    assert abs(loss_of(torch.tensor([first, second] * 2), "chunk") - 1.0) < 1e-3
    # Two chunks of which one touches a half, the other nothing; the last is short.
    assert abs(loss_of(torch.tensor([first] * 4 + [off] * 2), "chunk") - 0.25) < 1e-3


def test_padding_touches_nothing() -> None:
    logits_TE = torch.tensor([[1.0, -1.0]] * 3 + [[-1.0, 1.0]])
    mask_T = torch.tensor([True, True, True, False])
    assert abs(loss_of(logits_TE, "chunk", mask_T=mask_T) - 0.5) < 1e-3
    assert loss_of(logits_TE, "locality", mask_T=mask_T) < 0.01 < loss_of(logits_TE, "locality")


def test_neighbours_that_agree_have_no_loss_of_locality() -> None:
    same, other = torch.tensor([[1.0, -1.0]] * 4), torch.tensor([[1.0, -1.0], [-1.0, 1.0]] * 2)
    assert loss_of(same, "locality") < 1e-3
    assert loss_of(other, "locality") > 50


def test_a_token_without_an_expert_is_no_trouble() -> None:
    gate = BlockFFNGate(width=2, num_experts=2)
    plan = gate(torch.zeros(3, 2))
    assert plan.num_pairs == 0
    (plan.weights_N.sum() + sum(plan.losses.values())).backward()
    assert gate.weight_ED.grad is not None
    assert bool(gate.weight_ED.grad.isfinite().all())
