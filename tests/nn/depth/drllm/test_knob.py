from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.depth.drllm.knob import NEUTRAL, blend, check_knob, published_scale

P_BC = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [0.05, 0.9, 0.05]])


def test_the_neutral_point_is_the_router_itself_and_published_zero_is_not() -> None:
    assert torch.equal(blend(P_BC, NEUTRAL), P_BC)
    torch.testing.assert_close(blend(P_BC, 0.0), 0.5 * P_BC + 0.5 * torch.tensor([0.0, 1.0, 0.0]))
    assert published_scale(0.0) == NEUTRAL


@pytest.mark.parametrize(("p", "choice"), [(-1.0, 0), (0.5, 1), (1.0, 2)])
def test_the_ends_are_all_skip_all_execute_all_repeat(p: float, choice: int) -> None:
    assert blend(P_BC, p).argmax(-1).tolist() == [choice] * 3


def test_the_pieces_meet_and_calls_never_fall_as_the_knob_rises() -> None:
    for p in (NEUTRAL, 0.5):
        torch.testing.assert_close(blend(P_BC, p), blend(P_BC, p + 1e-7))
    random_BC = torch.rand(200, 3).softmax(-1)
    mean = [float((blend(random_BC, p) * torch.arange(3)).sum(-1).mean()) for p in (-1, -0.8, -0.5)]
    assert mean == sorted(mean)
    repeated = [float((blend(random_BC, p).argmax(-1) == 2).float().mean()) for p in (0.5, 0.7, 0.8, 1.0)]
    assert repeated == sorted(repeated)


def test_our_scale_covers_the_published_one() -> None:
    assert [published_scale(knob) for knob in (-1.0, -0.5, 0.0, 1 / 1.5, 1.0)] == pytest.approx(
        [-1.0, -0.75, -0.5, 0.5, 1.0]
    )


@pytest.mark.parametrize("knob", [-1.01, 1.5, float("nan"), "much", True])
def test_a_budget_out_of_range_is_refused(knob: object) -> None:
    with pytest.raises(InputError, match="skip all"):
        check_knob("here", knob)
