from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.s2moe import S2MoEGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(80, 12, generator=torch.Generator().manual_seed(0)) + 0.5


def both(**settings):
    gate, plain = S2MoEGate(width=12, num_experts=6, **settings), TopKGate(width=12, num_experts=6)
    with torch.no_grad():
        plain.weight_ED.copy_(gate.weight_ED)
        gate.trust_D.normal_()
    return gate, plain


def test_in_training_it_is_the_plan_of_a_token_and_that_of_its_noised_twin_by_trust() -> None:
    gate, plain = both()
    torch.manual_seed(5)
    found_TE = gate(X_TD).to_dense()
    torch.manual_seed(5)
    twin_TE = plain(gate.noised(X_TD)).to_dense()
    trust_T1 = (X_TD @ gate.trust_D).sigmoid()[:, None]
    expected_TE = trust_T1 * plain(X_TD).to_dense() + (1 - trust_T1) * twin_TE
    assert torch.allclose(found_TE, expected_TE, atol=1e-6)
    assert not torch.allclose(found_TE, gate(X_TD).to_dense())


def test_without_noise_and_in_eval_mode_both_plans_are_one() -> None:
    still, plain = both(noise=0.0)
    assert torch.allclose(still(X_TD).to_dense(), plain(X_TD).to_dense(), atol=1e-6)
    gate, plain = both()
    plan = gate.eval()(X_TD)
    assert torch.allclose(plan.to_dense(), plain(X_TD).to_dense(), atol=1e-6)
    assert plan.num_pairs == 160
    assert plan.losses == {}


def test_the_noise_has_the_moments_that_the_token_gives_it() -> None:
    gate, _ = both()
    drawn = torch.stack([gate.noised(X_TD[:5]) for _ in range(4000)])
    mean_T1, spread_T1 = X_TD[:5].mean(1, keepdim=True), X_TD[:5].std(1, keepdim=True, correction=0)
    assert torch.allclose(drawn.mean(0), X_TD[:5] + mean_T1, atol=0.2)
    expected = spread_T1 * (1 + X_TD[:5].square()).sqrt()
    assert torch.allclose(drawn.std(0), expected, rtol=0.1)


def test_uncertainty_is_the_contrast_of_a_token_with_its_own_twin_and_learning_lowers_it() -> None:
    gate, _ = both(noise=0.3, temperature=0.2)
    torch.manual_seed(5)
    found = gate(X_TD).losses["uncertainty"]
    torch.manual_seed(5)
    twin_TE = gate.noised(X_TD) @ gate.weight_ED.T
    one, other = (functional.normalize(v, dim=1) for v in (X_TD @ gate.weight_ED.T, twin_TE))
    expected = functional.cross_entropy(one @ other.T / 0.2, torch.arange(80))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        gate(X_TD).losses["uncertainty"].backward()
        optimizer.step()
    assert float(gate(X_TD).losses["uncertainty"].detach()) < float(found.detach()) - 0.1


def test_a_contrast_is_within_an_item_and_leaves_padding_out() -> None:
    gate, _ = both()
    mask_BS = (torch.arange(40) < 25).expand(2, 40)
    torch.manual_seed(5)
    found = gate(X_TD, GateContext(num_items=2, mask_BS=mask_BS)).losses["uncertainty"]
    torch.manual_seed(5)
    noisy_TE, clean_TE = gate.noised(X_TD) @ gate.weight_ED.T, X_TD @ gate.weight_ED.T
    parts = []
    for start in (0, 40):
        here = slice(start, start + 25)
        one, other = (functional.normalize(v[here], dim=1) for v in (clean_TE, noisy_TE))
        parts.append(functional.cross_entropy(one @ other.T, torch.arange(25)))
    assert float(found.detach()) == pytest.approx(float(sum(parts).detach() / 2), rel=1e-4)  # type: ignore[union-attr]
