from __future__ import annotations

import torch

from turnout.nn.balance.variance import smooth_load
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.noisy_top_k import LEAST, NoisyTopKGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


def drawn(**setting) -> NoisyTopKGate:
    gate = NoisyTopKGate(width=8, num_experts=5, **setting)
    with torch.no_grad():
        gate.weight_ED.normal_()
        gate.noise_ED.normal_()
    return gate


def test_experts_are_chosen_as_often_as_the_load_that_is_balanced_says() -> None:
    gate, counts_TE, expected_TE = drawn(), torch.zeros(40, 5), torch.zeros(40, 5)
    with torch.no_grad():
        clean_TE, deviation_TE = X_TD @ gate.weight_ED.T, gate.deviation(X_TD)
        for _ in range(400):
            plan = gate(X_TD)
            counts_TE[plan.tokens_N, plan.experts_N] += 1 / 400
            assert plan.logits_TE is not None
            expected_TE += smooth_load(clean_TE, plan.logits_TE, deviation_TE, 2) / 400
    assert float(counts_TE.std()) > 0.1
    assert torch.allclose(counts_TE, expected_TE, atol=0.1)


def test_noise_is_as_wide_as_the_token_says() -> None:
    gate = drawn()
    with torch.no_grad():
        noise = torch.stack([gate(X_TD).logits_TE - X_TD @ gate.weight_ED.T for _ in range(600)])
        expected_TE = torch.nn.functional.softplus(X_TD @ gate.noise_ED.T) + LEAST
    assert torch.allclose(noise.std(0), expected_TE, rtol=0.12)
    assert float((noise.mean(0) / expected_TE).abs().max()) < 0.2


def test_in_eval_mode_it_is_the_softmax_rule_without_noise() -> None:
    gate, rule = drawn().eval(), TopKGate(width=8, num_experts=5)
    rule.load_state_dict({"weight_ED": gate.weight_ED})
    plan = gate(X_TD)
    assert torch.allclose(plan.to_dense(), rule(X_TD).to_dense())
    assert plan.losses == {}


def test_both_losses_even_a_gate_that_prefers_one_expert() -> None:
    gate, x_TD = drawn(), X_TD.clone()
    x_TD[:, 0] = 3.0
    with torch.no_grad():
        gate.weight_ED[:, 0] = torch.tensor([3.0, 1.0, 0.0, -1.0, -2.0])
    gate.eval()
    before = gate(x_TD).counts_E.max() / 16
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    for _ in range(100):
        losses = gate.train()(x_TD).losses
        optimizer.zero_grad()
        (losses["importance"] + losses["load"]).backward()
        optimizer.step()
    after = gate.eval()(x_TD).counts_E.max() / 16
    assert before > 2.0
    assert after < 1.5


def test_padding_counts_for_nobody_and_all_experts_need_no_load() -> None:
    gate = drawn()
    mask_BS = (torch.arange(40) < 30)[None]
    torch.manual_seed(1)
    masked = gate(X_TD, GateContext(mask_BS=mask_BS)).losses["importance"]
    torch.manual_seed(1)
    weights_TE = gate(X_TD).to_dense()[:30]
    total_E = weights_TE.sum(0)
    assert torch.allclose(masked, total_E.var(unbiased=False) / total_E.mean() ** 2)
    assert sorted(NoisyTopKGate(width=8, num_experts=3, k=3)(X_TD).losses) == ["importance"]
