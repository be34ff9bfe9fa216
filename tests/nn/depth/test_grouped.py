from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.nn.depth.families import LAYERS, make, prompts
from tests.nn.depth.test_routed import wild_router
from turnout.core.errors import InputError
from turnout.nn.depth import FixedDepth, RoutedDepth, generate_grouped
from turnout.nn.depth.grouped import groups


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_groups_decode_what_the_mixed_batch_decodes(family: str) -> None:
    routed = RoutedDepth(model=make(family), router=wild_router())
    ids_BT, mask_BT = prompts(rows=6)
    ids_BT[5], mask_BT[5] = ids_BT[0], mask_BT[0]
    options: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None}
    mixed = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    assert 1 < len(groups(routed.counts_BL)) < 6
    assert torch.equal(generate_grouped(routed, ids_BT, mask_BT, **options), mixed)


@pytest.mark.parametrize("length", [1, 9])
def test_groups_obey_what_is_forced_row_by_row(length: int) -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, mask_BT = (part[:, -length:] for part in prompts(rows=4))
    generator = torch.Generator().manual_seed(3)
    counts_BL = torch.randint(3, (4, LAYERS), generator=generator)
    counts_BL[2] = counts_BL[0]
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with routed.forced(counts_BL):
        mixed = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
        assert torch.equal(generate_grouped(routed, ids_BT, mask_BT, **options), mixed)
        again = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
        assert torch.equal(again, mixed), "it is forced as before"


def test_each_group_runs_alone_and_the_prompt_is_read_once() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, _ = prompts(rows=4)
    ids_BT[2] = ids_BT[0]
    shapes: list[tuple[int, ...]] = []
    routed.owner.register_forward_pre_hook(
        lambda _m, args, kw: shapes.append(tuple(kw["input_ids"].shape)), with_kwargs=True
    )
    generate_grouped(routed, ids_BT, max_new_tokens=2, do_sample=False, eos_token_id=None)
    assert shapes[0] == (4, 9)
    assert all(tokens == 1 for _, tokens in shapes[1:])
    assert sorted(rows for rows, _ in shapes[1:]) == [1, 1, 1, 1, 2, 2]


def test_rows_that_end_early_are_padded() -> None:
    model = make("llama")
    ids_BT, _ = prompts(rows=3)
    first = model.generate(input_ids=ids_BT, max_new_tokens=5, do_sample=False, eos_token_id=None)
    end = int(first[0, 10])
    routed = RoutedDepth(model=model, router=FixedDepth(counts=[1] * LAYERS))
    options: dict[str, Any] = {
        "max_new_tokens": 5,
        "do_sample": False,
        "eos_token_id": end,
        "pad_token_id": 0,
    }
    assert torch.equal(
        generate_grouped(routed, ids_BT, **options), model.generate(input_ids=ids_BT, **options)
    )


def test_prompts_of_one_token_work() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT = torch.tensor([[5], [9], [5]])
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    mixed = routed.model.generate(input_ids=ids_BT, **options)
    assert torch.equal(generate_grouped(routed, ids_BT, **options), mixed)


@pytest.mark.parametrize(
    ("option", "got"), [("num_return_sequences", 2), ("num_beams", 2), ("return_dict_in_generate", True)]
)
def test_more_than_one_sequence_per_prompt_is_refused(option: str, got: object) -> None:
    routed = RoutedDepth(model=make("llama"))
    with pytest.raises(InputError, match=rf"generate_grouped: {option}; allowed: .*; got: {got}"):
        generate_grouped(routed, prompts()[0], **{option: got})  # type: ignore[arg-type]


def test_beams_of_the_models_own_config_are_refused() -> None:
    routed = RoutedDepth(model=make("llama"))
    routed.model.generation_config.num_beams = 3
    with pytest.raises(InputError, match=r"num_beams; allowed: 1; got: 3"):
        generate_grouped(routed, prompts()[0], max_new_tokens=2)
