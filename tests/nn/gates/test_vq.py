from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.gates.vq import VQGate

WORDS_VD = 2 * torch.randn(4, 10, generator=torch.Generator().manual_seed(3))
LABELS_T = torch.arange(4).repeat(30)
X_TD = WORDS_VD[LABELS_T] + 0.3 * torch.randn(120, 10, generator=torch.Generator().manual_seed(4))


def by_code(gate, x_TD):
    """The expert of each token by its code: what stands in the last column."""
    _, indices_TK, _ = gate(x_TD).to_choices()
    return indices_TK[:, -1]


def test_the_nearest_codes_number_is_the_expert_whatever_the_other_gate_learns() -> None:
    gate = VQGate(width=10, num_experts=5, codes=12)
    with torch.no_grad():
        gate.codes_CD.copy_(torch.randn(12, 10))
    nearest_T = torch.cdist(X_TD, gate.codes_CD.detach()).argmin(1)
    assert len(nearest_T.unique()) > 3
    assert torch.equal(by_code(gate, X_TD), nearest_T % 5)
    with torch.no_grad():
        gate.weight_ED.neg_()
        gate.paths_2D.normal_()
    assert torch.equal(by_code(gate, X_TD), nearest_T % 5)
    # Anywhere in the cell it is the same: half way to the code, or at the code.
    codes_TD = gate.codes_CD.detach()[nearest_T]
    for x_TD in ((X_TD + codes_TD) / 2, codes_TD):
        assert torch.equal(by_code(gate, x_TD), nearest_T % 5)


def test_two_paths_share_the_weight_as_their_gate_says() -> None:
    gate, plain = VQGate(width=10, num_experts=5, k=2), TopKGate(width=10, num_experts=5)
    with torch.no_grad():
        gate.paths_2D.normal_()
        plain.weight_ED.copy_(gate.weight_ED)
    share_T2 = (X_TD @ gate.paths_2D.T).softmax(1)
    code_TE = torch.eye(5)[by_code(gate, X_TD)]
    expected_TE = share_T2[:, :1] * plain(X_TD).to_dense() + share_T2[:, 1:] * code_TE
    assert torch.allclose(gate(X_TD).to_dense(), expected_TE, atol=1e-6)


def test_codes_become_the_means_of_their_tokens_and_words_keep_their_expert() -> None:
    gate = VQGate(width=10, num_experts=4, k=0, codes=8)
    with torch.no_grad():
        gate.codes_CD.copy_(X_TD[:8] + 0.1)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        gate(X_TD).losses["codes"].backward()
        optimizer.step()
    code_T = gate.distances(X_TD).argmin(1)
    for code in code_T.unique():
        assert torch.allclose(gate.codes_CD[code], X_TD[code_T == code].mean(0), atol=0.02)
        assert len(LABELS_T[code_T == code].unique()) == 1
    # Codes alone decide, with weight 1.
    plan = gate(X_TD)
    assert plan.num_pairs == 120
    assert torch.allclose(plan.weights_N, torch.ones(120))
    assert torch.equal(by_code(gate, X_TD), code_T % 4)
    (found,) = torch.autograd.grad(plan.weights_N.square().sum(), [gate.codes_CD])
    assert bool(found.any())


def test_states_are_pulled_to_codes_as_much_as_the_commitment_says() -> None:
    gate, x_TD = VQGate(width=10, num_experts=5, commitment=0.5), X_TD.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(gate(x_TD).losses["codes"], x_TD)
    code_TD = gate.codes_CD.detach()[gate.distances(X_TD).argmin(1)]
    assert torch.allclose(found, 0.5 * 2 * (X_TD - code_TD) / X_TD.numel(), atol=1e-7)
    mask_BS = (torch.arange(120) < 50)[None]
    masked = gate(X_TD, GateContext(mask_BS=mask_BS)).losses["codes"]
    assert torch.allclose(masked, gate(X_TD[:50]).losses["codes"])


def test_settings_that_make_no_codes_are_refused() -> None:
    with pytest.raises(InputError, match="0 <= k <= E = 5"):
        VQGate(width=10, num_experts=5, k=6)
    with pytest.raises(InputError, match="codes"):
        VQGate(width=10, num_experts=5, codes=0)
