"""After the prompt, a batch that disagrees runs a block on its own rows or on all of them."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.nn.depth.families import FAMILIES, Given, make, prompts, random_counts
from tests.nn.given import given
from turnout.nn.depth import RoutedDepth, blocks

GREEDY = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}


@pytest.mark.parametrize(("whole_from", "rows_after"), [(0.5, [3, 1]), (0.9, [2, 1]), (0.0, [3, 3])])
def test_after_the_prompt_a_block_that_many_call_runs_on_all(
    whole_from: float, rows_after: list[int]
) -> None:
    routed = RoutedDepth(model=make("gemma2"), whole_from=whole_from)
    ids_BT, _ = prompts(rows=3, tokens=12)
    rows: list[int] = []
    routed.owner.layers[1].mlp.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    order = torch.tensor([1, 2, 2])
    with torch.no_grad(), routed.forced([[1, 0, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1]]):
        cache = DynamicCache(config=routed.model.config)
        steps = [routed.model(ids_BT[:, :4], **given(cache)).logits]
        steps += [routed.model(ids_BT[:, at : at + 1], **given(cache)).logits for at in range(4, 12)]
        assert rows[:4] == [2, 1, *rows_after]
        whole = routed.model(ids_BT, use_cache=False).logits
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=2e-4, rtol=2e-4)
    cache.reorder_cache(order)
    with torch.no_grad():
        moved = routed.model(torch.tensor([[5], [6], [7]]), **given(cache)).logits
        again = torch.cat([ids_BT[order], torch.tensor([[5], [6], [7]])], dim=1)
        with routed.forced([[1, 2, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]):
            fresh = routed.model(again, use_cache=False).logits[:, -1:]
    torch.testing.assert_close(moved, fresh, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("worth", "rows_after"), [(2**40, [3, 3]), (0, [2, 1]), (100_000, [3, 1])])
def test_rows_are_chosen_where_those_spared_cost_more_than_choosing(
    monkeypatch: pytest.MonkeyPatch, worth: int, rows_after: list[int]
) -> None:
    monkeypatch.setattr(blocks, "WORTH_CPU", worth)
    routed = RoutedDepth(model=make("llama"))
    ids_BT, _ = prompts(rows=3, tokens=12)
    rows: list[int] = []
    block = routed.owner.layers[1]
    assert 5_000 < sum(parameter.numel() for parameter in block.parameters()) < 9_500
    block.mlp.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    with torch.no_grad(), routed.forced([[1, 0, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1]]):
        cache = DynamicCache(config=routed.model.config)
        steps = [routed.model(ids_BT[:, :4], **given(cache)).logits]
        steps += [routed.model(ids_BT[:, at : at + 1], **given(cache)).logits for at in range(4, 12)]
        assert rows[:4] == [2, 1, *rows_after]
        whole = routed.model(ids_BT, use_cache=False).logits
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("callers", "rows_after"), [(3, 4), (2, 2), (4, 4), (1, 1), (5, 6), (6, 6)])
def test_a_processor_runs_rows_in_pairs_and_the_odd_one_keeps_what_it_had(
    monkeypatch: pytest.MonkeyPatch, callers: int, rows_after: int
) -> None:
    monkeypatch.setattr(blocks, "WORTH_CPU", 0)
    monkeypatch.setattr(blocks, "PAIRED", 0)
    routed = RoutedDepth(model=make("llama"))
    ids_BT, mask_BT = prompts(rows=7, tokens=12)
    mask_BT = torch.ones_like(mask_BT)
    rows: list[int] = []
    routed.owner.layers[1].mlp.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    counts_BL = torch.ones(7, 4, dtype=torch.int64)
    counts_BL[callers:, 1] = 0
    counts_BL = counts_BL.flip(0)
    order = torch.tensor([6, 0, 3, 3, 1, 5, 2])
    with torch.no_grad(), routed.forced(counts_BL):
        cache = DynamicCache(config=routed.model.config)
        steps = [routed.model(ids_BT[:, :4], attention_mask=mask_BT[:, :4], **given(cache)).logits]
        steps += [routed.model(ids_BT[:, at : at + 1], **given(cache)).logits for at in range(4, 12)]
        assert rows == [callers, *[rows_after] * 8]
        whole = routed.model(ids_BT, use_cache=False).logits
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=2e-4, rtol=2e-4)
    cache.reorder_cache(order)
    last_B1 = torch.arange(5, 12)[:, None]
    with torch.no_grad():
        moved = routed.model(last_B1, **given(cache)).logits
        with routed.forced(counts_BL[order]):
            fresh = routed.model(torch.cat([ids_BT[order], last_B1], dim=1), use_cache=False).logits[:, -1:]
    torch.testing.assert_close(moved, fresh, atol=2e-4, rtol=2e-4)


def test_rows_of_arguments_are_chosen_for_what_differs_between_sequences_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "WORTH_CPU", 0)
    monkeypatch.setattr(blocks, "WORTH_PADDED", 0)
    counts_BL = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]])
    routed = RoutedDepth(model=make("llama"), router=Given(counts_BL))
    seen: list[int] = []
    attention = routed.owner.layers[1].self_attn
    attention.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(len(given["position_embeddings"][0])), with_kwargs=True
    )
    ids_BT, mask_BT = prompts(rows=3)
    for mask, rows in ((torch.ones_like(mask_BT), 1), (mask_BT, 2)):
        seen.clear()
        routed.model.generate(input_ids=ids_BT, attention_mask=mask, **GREEDY)
        assert seen[1:] == [rows] * 3


@pytest.mark.parametrize("padding", ["left", "none"])
def test_padding_makes_choosing_rows_dearer(monkeypatch: pytest.MonkeyPatch, padding: str) -> None:
    monkeypatch.setattr(blocks, "WORTH_CPU", 0)
    counts_BL = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]])
    routed = RoutedDepth(model=make("llama"), router=Given(counts_BL))
    ids_BT, mask_BT = prompts(rows=3)
    rows: list[int] = []
    routed.owner.layers[1].mlp.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    mask_BT = mask_BT if padding == "left" else torch.ones_like(mask_BT)
    routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **GREEDY)
    assert rows == [2, *[3 if padding == "left" else 2] * 3]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", ["left", "none"])
@pytest.mark.parametrize("worth", [0, 2**40])
def test_either_way_decodes_what_is_decoded_without_a_cache(
    monkeypatch: pytest.MonkeyPatch, family: str, padding: str, worth: int
) -> None:
    for name in ("WORTH_CPU", "WORTH_PADDED"):
        monkeypatch.setattr(blocks, name, worth)
    counts_BL = random_counts(5)
    counts_BL[:, 1] = torch.tensor([0, 1, 1, 0, 1])
    routed = RoutedDepth(model=make(family), router=Given(counts_BL))
    ids_BT, mask_BT = prompts()
    mask_BT = mask_BT if padding == "left" else torch.ones_like(mask_BT)
    cached, plain = (
        routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, use_cache=use, **GREEDY)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)
