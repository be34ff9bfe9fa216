from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from turnout.core.errors import InputError
from turnout.nn.depth.drllm.focal import class_weights, focal_loss

LOGITS_NC = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3
LABELS_N = torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(1))


def test_without_focus_and_weights_it_is_cross_entropy() -> None:
    expected = cross_entropy(LOGITS_NC, LABELS_N)
    torch.testing.assert_close(focal_loss(LOGITS_NC, LABELS_N, gamma=0.0), expected)
    torch.testing.assert_close(focal_loss(LOGITS_NC, LABELS_N, gamma=0.0, alpha_C=torch.ones(3)), expected)


def test_it_is_the_published_sum() -> None:
    alpha_C = torch.tensor([0.5, 0.1, 2.4])
    p_N = LOGITS_NC.softmax(-1)[torch.arange(50), LABELS_N]
    expected = -(alpha_C[LABELS_N] * (1 - p_N) ** 2 * p_N.log()).mean()
    torch.testing.assert_close(focal_loss(LOGITS_NC, LABELS_N, alpha_C=alpha_C), expected)


def test_certainty_has_a_finite_loss_and_gradient() -> None:
    logits_NC = torch.tensor([[200.0, 0.0, 0.0], [200.0, 0.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits_NC, torch.tensor([0, 1]))
    torch.autograd.backward(loss)
    assert logits_NC.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits_NC.grad).all()


def test_the_rarer_a_class_the_more_it_weighs_by_effective_numbers() -> None:
    counts = [4399, 120956, 1457]
    raw = torch.tensor([(1 - 0.999) / (1 - 0.999**n) for n in counts], dtype=torch.float64)
    found_C = class_weights(torch.tensor(counts))
    torch.testing.assert_close(found_C.double(), raw * 3 / raw.sum())
    assert float(found_C.sum()) == pytest.approx(3.0)
    assert found_C[2] > found_C[0] > found_C[1]


def test_a_class_that_never_occurs_weighs_nothing() -> None:
    assert class_weights(torch.tensor([10, 0, 10])).tolist() == pytest.approx([1.5, 0.0, 1.5])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        class_weights(torch.tensor([1, 1, 1]), beta=1.0)
    with pytest.raises(InputError, match="at least one label"):
        class_weights(torch.zeros(3))
    with pytest.raises(InputError, match="gamma"):
        focal_loss(LOGITS_NC, LABELS_N, gamma=-1.0)
