from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from tests.nn.given import NAME, given
from tests.nn.moe_models import decisive, tokens
from turnout.core.errors import InputError
from turnout.nn.testtime.context import next_token_loss, positions
from turnout.nn.testtime.rewiring import Rewiring


def lively(family: str = "olmoe", **changes: Any) -> PreTrainedModel:
    """Return a tiny model with decisive gates whose experts matter to the loss."""
    model = decisive(family, factor=15.0, **changes)
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parameter.data.mul_(30.0)
    return model


def padded(ids_BT: Tensor, pads: list[int]) -> tuple[Tensor, Tensor]:
    """Return ids and mask with the first pads[b] tokens of each item replaced by padding."""
    mask_BT = torch.ones_like(ids_BT)
    for item, count in enumerate(pads):
        mask_BT[item, :count] = 0
    return ids_BT * mask_BT, mask_BT


def loss_under(rewiring: Rewiring, deltas, ids_BT: Tensor) -> Tensor:
    with torch.no_grad(), rewiring.applied(deltas):
        return next_token_loss(rewiring.model, ids_BT, torch.ones_like(ids_BT))


@pytest.mark.parametrize("family", ["olmoe", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss"])
def test_small_steps_make_the_context_more_likely(family) -> None:
    ids_BT = tokens(length=24)
    rewiring = Rewiring(model=lively(family), layers="all", step_size=0.05)
    found = rewiring.adapt(ids_BT)
    before, after = found.loss_SB[0], loss_under(rewiring, found.deltas, ids_BT)
    assert found.loss_SB.shape == (5, 2)
    assert torch.allclose(before, loss_under(rewiring, rewiring.zeros(2), ids_BT))
    assert (after < before).all()
    assert [tuple(d.shape) for d in found.deltas] == [
        (2, layer.num_experts) for layer in rewiring.hook.layers
    ]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_steps_leave_zeros_and_generate_as_the_model_does(optimizer) -> None:
    model = lively()
    ids_BT, mask_BT = padded(tokens(), [0, 4])
    rewiring = Rewiring(model=model, steps=0, every_tokens=3, optimizer=optimizer)
    found = rewiring.generate(ids_BT, mask_BT, max_new_tokens=8, do_sample=False)
    plain = model.generate(input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=8, do_sample=False)
    assert torch.equal(found.sequences_BT[:, : plain.shape[1]], plain)
    assert all(not delta_BE.any() for round_ in found.rounds for delta_BE in round_.deltas)


def test_only_the_vectors_carry_a_gradient_and_the_model_stays_what_it_was() -> None:
    model = lively().train()
    frozen_name = next(iter(dict(model.named_parameters())))
    model.get_parameter(frozen_name).requires_grad_(False)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    wants = {name: p.requires_grad for name, p in model.named_parameters()}
    seen: list[list[str]] = []
    handle = model.register_forward_pre_hook(
        lambda *_: seen.append([n for n, p in model.named_parameters() if p.requires_grad])
    )
    Rewiring(model=model, layers="all").adapt(tokens())
    handle.remove()
    assert seen == [[]] * 5
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wants
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def test_flags_come_back_after_an_error_too() -> None:
    model = lively().train()

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    model.lm_head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no"):
        Rewiring(model=model).adapt(tokens())
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert not model.model.layers[0].mlp.gate._forward_hooks


def test_a_request_leaves_no_trace_in_the_next_one() -> None:
    model = lively()
    ids_BT = tokens(length=16)
    rewiring = Rewiring(model=model, every_tokens=4, optimizer="adam")
    before = model(input_ids=ids_BT).logits
    first = rewiring.generate(ids_BT, max_new_tokens=8, do_sample=False)
    rewiring.generate(tokens(length=20, seed=3), max_new_tokens=4, do_sample=False)
    again = rewiring.generate(ids_BT, max_new_tokens=8, do_sample=False)
    assert torch.equal(model(input_ids=ids_BT).logits, before)
    assert torch.equal(first.sequences_BT, again.sequences_BT)
    for one, other in zip(first.rounds, again.rounds, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.deltas, other.deltas, strict=True))


@pytest.mark.parametrize("layers", ["all", "hard", "soft"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_items_of_a_batch_are_what_they_are_alone(layers, optimizer) -> None:
    model = lively()
    ids_BT, mask_BT = padded(tokens(length=16), [0, 5])
    rewiring = Rewiring(model=model, layers=layers, optimizer=optimizer)
    both = rewiring.adapt(ids_BT, mask_BT)
    for item, start in enumerate([0, 5]):
        alone = rewiring.adapt(ids_BT[item : item + 1, start:])
        assert torch.allclose(both.loss_SB[:, item], alone.loss_SB[:, 0], atol=1e-4)
        assert torch.allclose(both.weights_BL[item], alone.weights_BL[0], atol=1e-4)
        for one, other in zip(both.deltas, alone.deltas, strict=True):
            assert torch.allclose(one[item], other[0], atol=2e-3 if optimizer == "adam" else 1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_adam_is_not_moved_by_what_rounding_leaves(seed) -> None:
    # Many experts and few tokens: some have gradients of zero but for rounding, which differs in a batch.
    model = lively("mixtral", num_local_experts=16)
    ids_BT, mask_BT = padded(tokens(length=8, seed=seed), [0, 3])
    rewiring = Rewiring(model=model, layers="all", optimizer="adam", step_size=0.5)
    both = rewiring.adapt(ids_BT, mask_BT)
    for item, start in enumerate([0, 3]):
        alone = rewiring.adapt(ids_BT[item : item + 1, start:])
        for one, other in zip(both.deltas, alone.deltas, strict=True):
            torch.testing.assert_close(one[item], other[0], atol=2e-3, rtol=0)
    first = Rewiring(model=model, layers="all", optimizer="adam", steps=1).adapt(ids_BT, mask_BT)
    with torch.no_grad(), rewiring.hook.recording() as records:
        model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions(mask_BT))
    for delta_BE, (seen,) in zip(first.deltas, records, strict=True):
        chosen_BTK = seen.indices_TK.view(2, 8, 2)
        for item in range(2):
            unused = sorted(set(range(16)) - set(chosen_BTK[item].flatten().tolist()))
            assert unused
            assert not delta_BE[item, unused].any()


def test_padding_on_the_right_changes_nothing() -> None:
    rewiring = Rewiring(model=lively(), layers="all")
    ids_BT = tokens(batch=1)
    longer_BT = torch.cat([ids_BT, torch.zeros(1, 4, dtype=torch.long)], dim=1)
    mask_BT = (longer_BT != 0).long()
    plain, found = rewiring.adapt(ids_BT), rewiring.adapt(longer_BT, mask_BT)
    assert torch.allclose(plain.loss_SB, found.loss_SB, atol=1e-5)
    for one, other in zip(plain.deltas, found.deltas, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("select", ["high", "low"])
def test_hard_choice_moves_the_chosen_layers_alone(select) -> None:
    rewiring = Rewiring(model=lively(), layers="hard", select=select, fraction=0.3, optimizer="adam")
    found = rewiring.adapt(tokens())
    order = found.confidence_BL.argsort(dim=1, descending=select == "high")
    assert torch.equal(found.weights_BL.sum(dim=1), torch.ones(2))
    for item in range(2):
        for number, delta_BE in enumerate(found.deltas):
            assert bool(delta_BE[item].any()) == (number == int(order[item, 0]))


@pytest.mark.parametrize("select", ["high", "low"])
def test_soft_choice_scales_steps_by_confidence(select) -> None:
    ids_BT = tokens()
    arguments: dict[str, Any] = {"steps": 1, "optimizer": "sgd"}
    model = lively()
    plain = Rewiring(model=model, layers="all", **arguments).adapt(ids_BT)
    found = Rewiring(model=model, layers="soft", select=select, **arguments).adapt(ids_BT)
    best = found.confidence_BL.argmax(1) if select == "high" else found.confidence_BL.argmin(1)
    assert torch.equal(found.weights_BL.argmax(dim=1), best)
    assert torch.equal(found.weights_BL.amax(dim=1), torch.ones(2))
    for number, (one, other) in enumerate(zip(plain.deltas, found.deltas, strict=True)):
        assert torch.allclose(one * found.weights_BL[:, number, None], other)


def test_confidence_is_the_papers_formula() -> None:
    model = lively()
    ids_BT, mask_BT = padded(tokens(batch=1), [3])
    found = Rewiring(model=model, layers="soft").adapt(ids_BT, mask_BT)
    logits = model(input_ids=ids_BT, attention_mask=mask_BT, output_router_logits=True).router_logits
    for number, logits_TE in enumerate(logits):
        best_TK = logits_TE.softmax(-1).topk(2, dim=-1)[0]
        expected = -best_TK[3:].log().mean()
        assert torch.allclose(found.confidence_BL[0, number], expected, atol=1e-4)


def test_the_backward_pass_ends_at_the_first_chosen_layer() -> None:
    model = lively(num_hidden_layers=4)
    spent: dict[tuple[float, int], int] = {}
    for fraction in (0.25, 1.0):
        for select in ("high", "low"):
            rewiring = Rewiring(model=model, fraction=fraction, select=select)
            found = rewiring.adapt(tokens(batch=1), count_flops=True)
            assert found.flops is not None
            spent[fraction, int(found.weights_BL[0].argmax())] = found.flops
    later = [flops for (fraction, number), flops in spent.items() if fraction == 0.25 and number > 0]
    assert later
    assert max(later) < spent[1.0, 0]


def test_selection_only_changes_experts_and_learns() -> None:
    ids_BT = tokens(length=24)
    rewiring = Rewiring(
        model=lively("deepseek_v3"), layers="all", where="selection", optimizer="adam", step_size=0.05
    )
    found = rewiring.adapt(ids_BT)
    assert any(delta_BE.any() for delta_BE in found.deltas)
    with torch.no_grad(), rewiring.hook.recording() as plain:
        rewiring.model(input_ids=ids_BT)
    with torch.no_grad(), rewiring.applied(found.deltas), rewiring.hook.recording() as moved:
        rewiring.model(input_ids=ids_BT)
    assert torch.equal(plain[0][0].logits_TE, moved[0][0].logits_TE)
    assert not torch.equal(plain[0][0].indices_TK, moved[0][0].indices_TK)


def test_rounds_follow_the_segments_and_go_on_from_the_last_vectors() -> None:
    model = lively()
    ids_BT = tokens()
    rewiring = Rewiring(model=model, every_tokens=3, optimizer="adam", layers="all")
    found = rewiring.generate(ids_BT, max_new_tokens=7, min_new_tokens=7, do_sample=False, count_flops=True)
    assert found.sequences_BT.shape == (2, 12 + 7)
    assert [len(items) for items in found.items] == [2, 2, 2]
    assert found.adapting_flops is not None
    assert found.generating_flops is not None
    assert found.adapting_flops > found.generating_flops > 0
    assert found.adapting_s > 0
    assert found.generating_s > 0
    # The second round by hand, from what the first left.
    prefix_BT = found.sequences_BT[:, : 12 + 3]
    again = rewiring.adapt(prefix_BT, start=found.rounds[0].deltas)
    for one, other in zip(again.deltas, found.rounds[1].deltas, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    with rewiring.applied(again.deltas):
        expected = model.generate(input_ids=prefix_BT, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert torch.equal(expected, found.sequences_BT[:, : 12 + 6])


def test_an_item_that_ended_is_padded_and_costs_no_more_rounds() -> None:
    model = lively()
    ids_BT = tokens()
    plain = Rewiring(model=model, steps=0, every_tokens=2)
    free = plain.generate(ids_BT, max_new_tokens=6, do_sample=False, eos_token_id=-1)
    stop = int(free.sequences_BT[0, 13])
    found = plain.generate(ids_BT, max_new_tokens=6, do_sample=False, eos_token_id=stop)
    assert 0 not in found.items[1]
    ends = (found.sequences_BT[0, 12:] == stop).nonzero()[0, 0]
    assert not found.sequences_BT[0, 12 + ends + 1 :].any()
    assert not found.attention_mask_BT[0, 12 + ends + 1 :].any()
    assert found.attention_mask_BT[0, : 12 + ends + 1].all()


def test_an_answer_that_the_caller_gives_no_end_goes_on_past_the_models_own() -> None:
    """`eos_token_id=None` means no end, as in the library, though the model's config has one."""
    model = lively()
    ids_BT = tokens()
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    free_BT = model.generate(ids_BT, eos_token_id=None, **options)
    model.generation_config.eos_token_id = int(free_BT[0, 13])
    plain = Rewiring(model=model, steps=0, every_tokens=2)
    assert torch.equal(plain.generate(ids_BT, eos_token_id=None, **options).sequences_BT, free_BT)
    ended_BT = model.generate(ids_BT, **options)
    assert not torch.equal(ended_BT, free_BT)
    assert torch.equal(plain.generate(ids_BT, **options).sequences_BT, ended_BT)


def test_a_kept_cache_saves_work_and_without_steps_changes_nothing() -> None:
    model = lively()
    ids_BT, mask_BT = padded(tokens(), [0, 4])
    settings: dict[str, Any] = {"steps": 0, "every_tokens": 2}
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "count_flops": True}
    plain = Rewiring(model=model, **settings).generate(ids_BT, mask_BT, **options)
    kept = Rewiring(model=model, is_cache_kept=True, **settings).generate(ids_BT, mask_BT, **options)
    assert torch.equal(plain.sequences_BT, kept.sequences_BT)
    assert kept.generating_flops is not None
    assert plain.generating_flops is not None
    assert kept.generating_flops < plain.generating_flops


class Told(BaseStreamer):
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[list[int]] = []
        self.ends = 0

    def put(self, value: Tensor) -> None:
        assert self.ends == 0
        self.got.append(value.flatten().tolist())

    def end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("kept", [False, True])
def test_a_streamer_hears_one_prompt_one_answer_and_one_end(kept) -> None:
    model, ids_BT, told, plain = decisive("olmoe"), tokens(batch=1), Told(), Told()
    rewiring = Rewiring(model=model, steps=0, every_tokens=3, is_cache_kept=kept)
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": -1}
    rewiring.generate(ids_BT, streamer=told, **options)
    model.generate(input_ids=ids_BT, streamer=plain, **options)
    assert told.got == plain.got
    assert told.ends == plain.ends == 1


def test_works_inside_inference_mode() -> None:
    rewiring = Rewiring(model=lively(), every_tokens=2)
    with torch.inference_mode():
        found = rewiring.generate(tokens() + 0, max_new_tokens=4, do_sample=False)
    assert found.sequences_BT.shape == (2, 16)


def test_half_precision_keeps_vectors_in_single() -> None:
    rewiring = Rewiring(model=lively().to(torch.bfloat16), optimizer="adam")
    found = rewiring.adapt(tokens())
    assert all(delta_BE.dtype == torch.float32 for delta_BE in found.deltas)
    assert loss_under(rewiring, found.deltas, tokens()).isfinite().all()


def test_a_cache_made_under_another_routing_is_refused() -> None:
    model = lively()
    ids_BT = tokens()
    rewiring = Rewiring(model=model)
    cache = DynamicCache()
    model(input_ids=ids_BT, **given(cache))
    with rewiring.applied(rewiring.zeros(2)):
        with pytest.raises(InputError, match="another routing"):
            model(input_ids=ids_BT[:, :1], **given(cache))
        own = DynamicCache()
        model(input_ids=ids_BT, **given(own))
        model(input_ids=ids_BT[:, :1], **given(own))
    with rewiring.applied(rewiring.zeros(2)), pytest.raises(InputError, match="another routing"):
        model(input_ids=ids_BT[:, :1], **given(own))
    with Rewiring(model=model, is_cache_kept=True).applied(rewiring.zeros(2)):
        model(input_ids=ids_BT[:, :1], **given(own))
    with pytest.raises(InputError, match="another routing"):
        rewiring.generate(ids_BT, max_new_tokens=2, **given(cache))


@torch.no_grad()
def test_a_cache_that_was_filled_in_a_block_is_refused_after_it() -> None:
    model = lively()
    ids_BT = tokens()
    rewiring = Rewiring(model=model)
    with rewiring.applied(rewiring.zeros(2)):
        filled = DynamicCache()
        model(input_ids=ids_BT, **given(filled))
        with rewiring.applied(rewiring.zeros(2)), pytest.raises(InputError, match="another routing"):
            model(input_ids=ids_BT[:, :1], **given(filled))
        own = model(input_ids=ids_BT, use_cache=True)[NAME]
        copied = copy.deepcopy(filled)
        for cache in (filled, own, copied):
            model(input_ids=ids_BT[:, :1], **given(cache))
    for cache in (filled, own, copied, copy.deepcopy(own)):
        assert isinstance(cache, DynamicCache)
        with pytest.raises(InputError, match="another routing"):
            model(input_ids=ids_BT[:, :1], **given(cache))
        with pytest.raises(InputError, match="another routing"):
            model.model(input_ids=ids_BT[:, :1], **given(cache))
    filled.crop(-filled.get_seq_length())
    model(input_ids=ids_BT, **given(filled))
    model(input_ids=ids_BT[:, :1], **given(filled))
    assert type(filled) is DynamicCache
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
