from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.dirichlet import DirichletGate
from turnout.nn.gates.top_k import TopKGate

X_TD = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
X_TD[:, 0] = 2.0  # what states share, as those of a model do: loads that differ need it


def trained(alpha: float | tuple[float, ...]) -> DirichletGate:
    torch.manual_seed(0)
    gate = DirichletGate(width=16, num_experts=4, k=1, alpha=alpha)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.03)
    for _ in range(250):
        optimizer.zero_grad()
        gate(X_TD).losses["prior"].backward()
        optimizer.step()
    return gate.requires_grad_(requires_grad=False)


def test_small_parameters_make_sure_choices_and_large_ones_unsure_both_even() -> None:
    sure, unsure = (trained(alpha)(X_TD) for alpha in (0.25, 8.0))
    # E of the largest of four shares: near 0.8 and near 0.35.
    assert float(sure.scores_TE.max(1)[0].mean()) > 0.7
    assert float(unsure.scores_TE.max(1)[0].mean()) < 0.42
    assert torch.allclose(sure.scores_TE.mean(0), torch.tensor(0.25), atol=0.03)
    assert float(sure.counts_E.max()) / 300 < 0.34


def test_loads_follow_a_prior_that_differs_by_expert() -> None:
    plan = trained((0.4, 0.2, 0.1, 0.1))(X_TD)
    assert torch.allclose(plan.scores_TE.mean(0), torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.03)
    assert plan.counts_E.argmax() == 0
    assert float(plan.counts_E[0]) / 300 == pytest.approx(0.5, abs=0.08)


def test_the_choice_itself_is_that_of_top_k() -> None:
    gate, plain = DirichletGate(width=16, num_experts=4), TopKGate(width=16, num_experts=4)
    with torch.no_grad():
        plain.weight_ED.copy_(gate.weight_ED)
    assert torch.equal(gate.eval()(X_TD).to_dense(), plain(X_TD).to_dense())


def test_the_loss_ends_after_its_steps_and_leaves_padding_out() -> None:
    gate = DirichletGate(width=16, num_experts=4, steps=2)
    mask_BS = (torch.arange(300) < 100)[None]
    masked = gate(X_TD, GateContext(mask_BS=mask_BS)).losses["prior"]
    assert torch.allclose(masked, gate(X_TD[:100]).losses["prior"])
    for _ in range(2):
        assert "prior" in gate(X_TD).losses
        gate.after_step()
    assert gate(X_TD).losses == {}
    assert DirichletGate(width=16, num_experts=4).eval()(X_TD).losses == {}


def test_a_prior_of_another_number_of_experts_is_refused() -> None:
    with pytest.raises(InputError, match="E = 4 of them"):
        DirichletGate(width=16, num_experts=4, alpha=(1.0, 1.0))
    with pytest.raises(InputError, match="alpha"):
        DirichletGate(width=16, num_experts=4, alpha=0.0)
