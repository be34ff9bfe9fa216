from __future__ import annotations

import torch

from turnout.nn.gates.attention_k import AttentionKGate
from turnout.nn.gates.contract import GateContext

X_TD = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


def counts(seen_SS: torch.Tensor, mask_BS: torch.Tensor | None = None) -> list[int]:
    gate = AttentionKGate(width=8, num_experts=8, k=4)
    plan = gate(X_TD[: len(seen_SS)], GateContext(attention_BSS=seen_SS[None], mask_BS=mask_BS))
    sums_T = plan.to_dense().sum(1)
    assert torch.allclose(sums_T[sums_T > 0], torch.tensor(1.0))
    return (plan.to_dense() > 0).sum(1).tolist()


def test_tokens_that_are_looked_at_have_more_experts() -> None:
    # All queries look at the second token three times as much as at the first, and hardly at the others.
    row = torch.tensor([0.22, 0.66, 0.06, 0.06])
    assert counts(row.repeat(4, 1)) == [2, 4, 1, 1]
    assert counts(torch.full((4, 4), 0.25)) == [4, 4, 4, 4]


def test_a_late_token_is_not_less_important_because_few_can_see_it() -> None:
    causal_SS = torch.ones(4, 4).tril()
    # Every query gives 0.25 to each token that it can see: four queries see the first, one the last.
    assert counts(causal_SS * 0.25) == [4, 4, 4, 4]


def test_padding_neither_looks_nor_counts() -> None:
    seen_SS = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    mask_BS = torch.tensor([[True, True, False]])
    assert counts(seen_SS, mask_BS) == [4, 1, 0]
    assert counts(seen_SS)[0] == 4
