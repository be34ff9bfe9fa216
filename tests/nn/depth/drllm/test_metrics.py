from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.depth.drllm.metrics import router_metrics


def test_perfect_decisions_score_one_in_the_classes_that_occur() -> None:
    labels = torch.tensor([[0, 1, 1], [1, 1, 0]])
    found = router_metrics(labels, labels)
    assert found.macro_f1 == found.accuracy == 1.0
    assert found.f1 == (1.0, 1.0, 0.0)
    assert found.average_layers == 2.0


def test_a_router_that_always_executes_is_accurate_and_scores_low() -> None:
    labels = torch.tensor([[0, 1, 1, 1, 2, 1, 1, 1]])
    found = router_metrics(torch.ones_like(labels), labels)
    assert found.accuracy == 0.75
    assert list(found.f1) == pytest.approx([0.0, 12 / 14, 0.0])
    assert found.macro_f1 == pytest.approx(12 / 14 / 3)
    assert found.average_layers == 8.0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="router_metrics"):
        router_metrics(torch.ones(1, 3), torch.ones(1, 4))
