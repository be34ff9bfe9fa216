from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.input_domain import InputDomainGate

WORDS_VD = torch.randn(4, 24, generator=torch.Generator().manual_seed(3))
LABELS_T = torch.arange(4).repeat(60)
X_TD = WORDS_VD[LABELS_T] + 0.2 * torch.randn(240, 24, generator=torch.Generator().manual_seed(4))


def gate_of(**settings):
    return InputDomainGate(width=24, num_experts=8, latent=6, **settings)


def test_scores_are_the_posteriors_of_a_mixture_of_gaussians() -> None:
    gate = gate_of(components=3)
    with torch.no_grad():
        gate.log_spread_EMZ.normal_(std=0.3)
        gate.log_share_EM.normal_()
    z_TZ = torch.nn.functional.rms_norm(X_TD, (24,)) @ gate.encode_ZD.T
    spread_EMZ = gate.log_spread_EMZ.exp() + gate.floor
    share_EM = gate.log_share_EM.flatten().softmax(0).view(8, 3)
    one = [
        MixtureSameFamily(
            Categorical(share_EM[e]), Independent(Normal(gate.means_EMZ[e], spread_EMZ[e]), 1)
        ).log_prob(z_TZ)
        for e in range(8)
    ]
    joint_TE = torch.stack(one, 1) + share_EM.sum(1).log()
    plan = gate(X_TD)
    assert torch.allclose(plan.logits_TE, joint_TE, atol=1e-3)
    best_TK, _ = joint_TE.softmax(1).topk(2)
    expected_T = best_TK[:, 0] / best_TK.sum(1)
    assert torch.allclose(plan.to_dense().max(1)[0], expected_T, atol=1e-4)
    whole = -torch.logsumexp(joint_TE, 1).mean() / 6
    assert torch.allclose(plan.losses["mixture"], whole, atol=1e-4)


def test_neither_does_the_task_teach_it_nor_does_it_teach_the_model() -> None:
    gate, x_TD = gate_of(), X_TD.clone().requires_grad_(True)
    plan = gate(x_TD)
    assert not plan.weights_N.requires_grad
    total = plan.losses["mixture"] + plan.losses["reconstruction"]
    grads = torch.autograd.grad(total, [x_TD, *gate.parameters()], allow_unused=True)
    assert [g is None for g in grads] == [True, False, False, False, False, False]
    # The mixture does not pull at the code, or it would shrink it.
    (found,) = torch.autograd.grad(gate(X_TD).losses["mixture"], [gate.encode_ZD], allow_unused=True)
    assert found is None


def test_trained_apart_it_finds_the_domains_of_its_input() -> None:
    gate = gate_of(k=1, components=2)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.03)
    before = gate(X_TD).losses
    for _ in range(300):
        losses = gate(X_TD).losses
        optimizer.zero_grad()
        (losses["mixture"] + losses["reconstruction"]).backward()
        optimizer.step()
    after = gate(X_TD).losses
    assert float(after["mixture"].detach()) < float(before["mixture"].detach()) - 1.0
    assert float(after["reconstruction"].detach()) < 0.3
    # An expert belongs to one domain, and is sure of it.
    with torch.no_grad():
        plan = gate(X_TD)
    experts_T = plan.experts_N[plan.tokens_N.argsort()]
    pure = sum(int(torch.bincount(LABELS_T[experts_T == e], minlength=4).max()) for e in range(8))
    assert pure / 240 > 0.97
    entropy = -(plan.scores_TE * plan.scores_TE.clamp(min=1e-9).log()).sum(1).mean()
    assert float(entropy) < 0.3


def test_the_length_of_a_state_and_padding_are_nothing_to_it() -> None:
    gate = gate_of()
    assert torch.allclose(gate(X_TD).to_dense(), gate(7 * X_TD).to_dense(), atol=1e-4)
    mask_BS = (torch.arange(240) < 90)[None]
    masked, alone = gate(X_TD, GateContext(mask_BS=mask_BS)).losses, gate(X_TD[:90]).losses
    for name in alone:
        assert float(masked[name].detach()) == pytest.approx(float(alone[name].detach()), rel=1e-4)
