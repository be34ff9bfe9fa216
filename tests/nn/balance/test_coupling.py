from __future__ import annotations

import pytest
import torch

from turnout.core.errors import ShapeError
from turnout.nn.balance.coupling import answers, coupling_loss, noise, uncoupled_share

ROWS_ED = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
GATE_EID = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(1))


def test_experts_that_answer_their_own_row_alone_have_no_loss() -> None:
    # Expert e passes coordinate e on, and row e points there.
    gate_EID = torch.diag_embed(torch.eye(4))
    rows_ED = torch.eye(4)
    assert float(coupling_loss(rows_ED, gate_EID, is_noisy=False)) == 0
    assert uncoupled_share(rows_ED, gate_EID) == 0
    assert float(coupling_loss(rows_ED[[1, 0, 2, 3]], gate_EID, is_noisy=False)) > 0
    assert uncoupled_share(rows_ED[[1, 0, 2, 3]], gate_EID) > 0


def test_it_is_the_published_sum() -> None:
    m_EE = torch.tensor([[float((GATE_EID[j] @ ROWS_ED[i]).norm()) for j in range(5)] for i in range(5)])
    assert torch.allclose(answers(ROWS_ED, GATE_EID), m_EE, atol=1e-5)
    total = 0.0
    for i in range(5):
        for j in range(5):
            if i != j:
                total += max(float(m_EE[i, j] - 0.7 * m_EE[i, i]), 0) + max(
                    float(m_EE[j, i] - 0.7 * m_EE[i, i]), 0
                )
    found = coupling_loss(ROWS_ED, GATE_EID, alpha=0.7, is_noisy=False)
    assert float(found) == pytest.approx(total / 25, rel=1e-5)


def test_noise_leaves_a_row_nearest_to_itself() -> None:
    torch.manual_seed(0)
    for _ in range(200):
        moved_ED = ROWS_ED * noise(ROWS_ED)
        assert torch.cdist(moved_ED, ROWS_ED).argmin(1).tolist() == [0, 1, 2, 3, 4]
    assert not torch.equal(noise(ROWS_ED), noise(ROWS_ED))
    assert noise(ROWS_ED[:1]).unique().tolist() == [1.0]


def test_training_on_it_couples_rows_and_experts() -> None:
    torch.manual_seed(0)
    rows_ED, gate_EID = ROWS_ED.clone().requires_grad_(), GATE_EID.clone().requires_grad_()
    optimizer = torch.optim.Adam([rows_ED, gate_EID], lr=0.02)
    before = uncoupled_share(rows_ED, gate_EID)
    for _ in range(200):
        loss = coupling_loss(rows_ED, gate_EID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before > 0.5
    assert uncoupled_share(rows_ED, gate_EID) < 0.1


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="\\(E, D\\) and \\(E, I, D\\)"):
        coupling_loss(ROWS_ED, GATE_EID[:4])
