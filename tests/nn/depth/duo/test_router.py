from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn import registry
from turnout.nn.depth.duo import DuoRouter


def test_the_room_knows_it_by_name() -> None:
    assert registry.get("duo") is DuoRouter


def test_probabilities_are_the_softmax_of_a_linear_map() -> None:
    router = DuoRouter(width=6, num_choices=3, seed=1)
    x_TD = torch.randn(5, 6)
    torch.testing.assert_close(router.probabilities(x_TD), (x_TD @ router.weight_AD.T).softmax(-1))
    assert torch.equal(router.choose(x_TD), (x_TD @ router.weight_AD.T).argmax(-1))


def test_a_low_temperature_hardens_and_a_high_one_flattens() -> None:
    router = DuoRouter(width=6, seed=1)
    x_TD = torch.randn(50, 6)
    hard_TA = router.probabilities(x_TD, temperature=1e-5).detach()
    assert torch.equal(hard_TA.argmax(-1), router.choose(x_TD))
    assert float(hard_TA.max(-1).values.mean()) > 0.99
    assert float(router.probabilities(x_TD, temperature=1e5).detach().max()) < 0.501


def test_the_shift_moves_big_alone() -> None:
    router = DuoRouter(width=4, num_choices=3)
    x_TD = torch.randn(9, 4)
    router.shift_ += 100.0
    assert router.choose(x_TD).tolist() == [1] * 9
    router.shift_ -= 200.0
    assert 1 not in router.choose(x_TD).tolist()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_the_shift_as_it_was_calibrated(half) -> None:
    router = DuoRouter(width=4)
    router.shift_ += 3.001
    state = {name: value.to(half) for name, value in router.state_dict().items()}
    router.to(half)
    assert router.shift_.dtype == torch.float32
    assert float(router.shift_) == pytest.approx(3.001, abs=1e-6)
    other = DuoRouter(width=4)
    other.load_state_dict(state, assign=True)
    assert other.shift_.dtype == torch.float32


def test_only_a_bias_that_was_asked_for_learns() -> None:
    assert not DuoRouter(width=4).bias_A.requires_grad
    assert DuoRouter(width=4, bias=True).bias_A.requires_grad


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="num_choices"):
        DuoRouter(width=4, num_choices=4)
    with pytest.raises(ShapeError, match="D = 4"):
        DuoRouter(width=4)(torch.zeros(2, 5))
    with pytest.raises(InputError, match="temperature"):
        DuoRouter(width=4).probabilities(torch.zeros(2, 4), temperature=0.0)
