from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.gates.contract import GateContext
from turnout.nn.gates.timestep_choice import Schedule, TimestepChoiceGate

X_TD = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1, 3, 4]),
        ("linear_reverse", [4, 2, 1]),
        ("cosine_reverse", [4, 2, 1]),
        ("gaussian", [1, 4, 1]),
    ],
)
def test_the_noise_of_an_item_decides_how_many_experts_it_has(
    schedule: Schedule, expected: list[int]
) -> None:
    gate = TimestepChoiceGate(width=8, num_experts=8, k=1, k_max=4, schedule=schedule)
    context = GateContext(num_items=3, timestep_B=torch.tensor([0.0, 0.51, 1.0]))
    plan = gate(X_TD, context)
    found = torch.bincount(plan.tokens_N // 16, minlength=3)
    assert found.tolist() == [16 * k for k in expected]
    assert bool((plan.counts_E == plan.counts_E[0]).all())


def test_the_ends_and_the_middle_of_each_schedule() -> None:
    r_B = torch.tensor([0.0, 0.25, 0.5, 1.0])
    shares: dict[Schedule, list[float]] = {
        "linear": [0, 0.25, 0.5, 1],
        "linear_reverse": [1, 0.75, 0.5, 0],
        "cosine_reverse": [1, 0.8536, 0.5, 0],
        "gaussian": [0.0756, 0.5243, 1, 0.0756],
    }
    for schedule, expected in shares.items():
        gate = TimestepChoiceGate(width=8, num_experts=8, schedule=schedule)
        assert torch.allclose(gate.share(r_B), torch.tensor(expected), atol=1e-3)


def test_noise_outside_its_range_and_k_above_k_max_are_refused() -> None:
    with pytest.raises(InputError, match="0 to 1"):
        TimestepChoiceGate(width=8, num_experts=8)(X_TD, GateContext(timestep_B=torch.tensor([1.5])))
    with pytest.raises(InputError, match="k <= k_max"):
        TimestepChoiceGate(width=8, num_experts=8, k=5)
