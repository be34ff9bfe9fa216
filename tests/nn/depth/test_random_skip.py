from __future__ import annotations

import pytest
import torch

from tests.nn.depth.families import LAYERS, make, prompts
from turnout.core.errors import InputError
from turnout.nn.depth import RandomSkip, RoutedDepth


def decide(executed: float, rows: int, seed: int = 0) -> torch.Tensor:
    router = RandomSkip(layers=LAYERS, executed=executed, seed=seed)
    hidden_BTD = torch.randn(rows, 5, 3, generator=torch.Generator().manual_seed(1))
    mask_BT = torch.ones(rows, 5, dtype=torch.bool)
    plan = router.plan(hidden_BTD, mask_BT)
    return torch.stack([router.decide(layer, hidden_BTD, mask_BT, plan) for layer in range(LAYERS)], dim=1)


@pytest.mark.parametrize("executed", [0, 1, 3, 4])
def test_a_whole_budget_is_kept_by_every_sequence(executed: int) -> None:
    counts_BL = decide(executed, 50)
    assert counts_BL.sum(1).tolist() == [executed] * 50


def test_a_budget_between_is_kept_on_average_and_every_block_is_as_likely() -> None:
    counts_BL = decide(2.25, 2000)
    assert set(counts_BL.sum(1).tolist()) == {2, 3}
    assert float(counts_BL.float().sum(1).mean()) == pytest.approx(2.25, abs=0.04)
    assert (counts_BL.float().mean(0) - 2.25 / LAYERS).abs().max() < 0.05


def test_seeds_differ_and_a_prompt_has_one_draw_wherever_it_stands() -> None:
    assert not torch.equal(decide(2, 50), decide(2, 50, seed=1))
    routed = RoutedDepth(model=make("llama"), router=RandomSkip(layers=LAYERS, executed=2))
    ids_BT, mask_BT = prompts()
    options = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}
    cached = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    plain = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, **options)
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("executed", [-0.1, LAYERS + 1, float("nan")])
def test_a_budget_out_of_range_is_refused(executed: float) -> None:
    with pytest.raises(InputError, match="0 to 4 layers"):
        RandomSkip(layers=LAYERS, executed=executed)
