from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache

from tests.nn.depth.families import FAMILIES, LAYERS, make, prompts, random_counts
from tests.nn.given import given
from turnout.nn.depth import RoutedDepth, growing

GREEDY = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}


@pytest.fixture(autouse=True)
def _every_size_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "GROWS_FROM", 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [GREEDY, {**GREEDY, "num_beams": 3}], ids=["greedy", "beams"])
def test_keys_in_a_room_of_their_own_are_those_of_the_base_bit_for_bit(family: str, options: dict) -> None:
    model = make(family)
    ids_BT, mask_BT = prompts()
    plain = model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    routed = RoutedDepth(model=model)
    with torch.inference_mode():
        assert torch.equal(model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options), plain)
    with routed.forced(random_counts(5)):
        cached, without = (
            model.generate(input_ids=ids_BT, attention_mask=mask_BT, use_cache=use, **options)
            for use in (True, False)
        )
    assert torch.equal(cached, without)


def test_a_step_writes_its_own_tokens_and_copies_nothing_else() -> None:
    layer = growing.GrowingLayer()
    states = torch.randn(2, 3, 40, 4)
    with torch.no_grad():
        layer.update(states[:, :, :8], states[:, :, :8])
        places = set()
        for at in range(8, 40):
            keys, values = layer.update(states[:, :, at : at + 1], 2 * states[:, :, at : at + 1])
            assert torch.equal(keys, states[:, :, : at + 1])
            assert torch.equal(values[:, :, 8:], 2 * states[:, :, 8 : at + 1])
            places.add(keys.data_ptr())
    assert len(places) < 10


def test_what_was_cropped_selected_or_copied_grows_on_its_own() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, _ = prompts(padding="none")
    token_B1 = torch.full((5, 1), 9)
    with torch.no_grad(), routed.forced([1] * LAYERS):
        cache = DynamicCache(config=routed.model.config)
        for part in (ids_BT[:, :-1], ids_BT[:, -1:], token_B1):
            routed.model(part, **given(cache))
        twin = copy.deepcopy(cache)
        cache.crop(-1)
        with_eight = routed.model(token_B1 - 1, **given(cache)).logits
        again = routed.model(token_B1 + 1, **given(twin)).logits
        whole = routed.model(torch.cat([ids_BT, token_B1 - 1], dim=1)).logits[:, -1:]
        after = routed.model(torch.cat([ids_BT, token_B1, token_B1 + 1], dim=1)).logits[:, -1:]
        cache.batch_select_indices(torch.tensor([4, 0]))
        chosen = routed.model(torch.tensor([[5], [6]]), **given(cache)).logits
        rows_BT = torch.cat([ids_BT, token_B1 - 1], dim=1)[[4, 0]]
        alone = routed.model(torch.cat([rows_BT, torch.tensor([[5], [6]])], dim=1)).logits[:, -1:]
    torch.testing.assert_close(with_eight, whole, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(again, after, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(chosen, alone, atol=2e-4, rtol=2e-4)


def test_a_cache_of_inference_mode_goes_on_outside_and_with_gradients() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, _ = prompts(rows=2, padding="none")
    cache = DynamicCache(config=routed.model.config)
    with torch.inference_mode():
        routed.model(ids_BT[:, :5], **given(cache))
        routed.model(ids_BT[:, 5:6], **given(cache))
    with torch.no_grad():
        routed.model(ids_BT[:, 6:7], **given(cache))
        found = routed.model(ids_BT[:, 7:8], **given(cache)).logits
        whole = routed.model(ids_BT[:, :8]).logits[:, -1:]
    torch.testing.assert_close(found, whole, atol=2e-4, rtol=2e-4)
    fresh = DynamicCache(config=routed.model.config)
    routed.model(ids_BT[:, :5], **given(fresh))
    torch.autograd.backward(routed.model(ids_BT[:, 5:6], **given(fresh)).logits.sum())
    assert routed.owner.layers[0].self_attn.k_proj.weight.grad is not None
