from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from tests.nn.moe_models import FAMILIES, decisive, tokens
from turnout.core.errors import InputError, ShapeError
from turnout.nn.flops import executed_flops
from turnout.nn.gate_hook import GateHook
from turnout.nn.moe import find_moe_layers
from turnout.nn.tiny import tiny_llama


def zeros(hook: GateHook, batch: int = 2) -> list[torch.Tensor]:
    return [torch.zeros(batch, layer.num_experts) for layer in hook.layers]


@pytest.fixture(params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return decisive(request.param)


@pytest.mark.parametrize("where", ["logits", "selection"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_zero_deltas_are_the_identity_forward(model, where, dtype) -> None:
    model.to(dtype)
    hook = GateHook(model)
    ids_BT = tokens()
    plain = model(input_ids=ids_BT).logits
    with hook.steered(zeros(hook), where=where):
        assert torch.equal(model(input_ids=ids_BT).logits, plain)
    assert torch.equal(model(input_ids=ids_BT).logits, plain)


def test_zero_deltas_are_the_identity_backward(model) -> None:
    hook = GateHook(model)
    ids_BT = tokens()

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    with hook.steered(zeros(hook)):
        steered = gradients()
    assert plain.keys() == steered.keys()
    assert [name for name in plain if not torch.equal(plain[name], steered[name])] == []
    assert any("gate" in name or "router" in name for name in plain)


def test_zero_deltas_are_the_identity_in_generate_with_cache(model) -> None:
    hook = GateHook(model)
    ids_BT = tokens()
    options = {
        "max_new_tokens": 8,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    mask_BT = torch.ones_like(ids_BT)
    plain = model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    with hook.steered(zeros(hook)):
        steered = model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    assert torch.equal(plain.sequences, steered.sequences)
    for one, other in zip(plain.logits, steered.logits, strict=True):
        assert torch.equal(one, other)


def test_a_large_delta_makes_its_expert_chosen_for_its_own_item_alone(model) -> None:
    hook = GateHook(model)
    deltas = zeros(hook)
    ids_BT = tokens()
    expert = 1
    for delta_BE in deltas:
        # Down with the others too: a score in (0, 1] alone may not open the group of an expert.
        delta_BE[0] = -1e4
        delta_BE[0, expert] = 1e4
    with hook.recording() as plain:
        model(input_ids=ids_BT)
    with hook.steered(deltas), hook.recording() as steered:
        model(input_ids=ids_BT)
    for before, after in zip(plain, steered, strict=True):
        length = ids_BT.shape[1]
        assert (after[0].indices_TK[:length] == expert).any(dim=-1).all()
        assert torch.equal(before[0].indices_TK[length:], after[0].indices_TK[length:])


def test_the_models_own_recorder_sees_what_the_experts_get() -> None:
    model = decisive("olmoe")
    hook = GateHook(model)
    ids_BT = tokens()
    plain = model(input_ids=ids_BT, output_router_logits=True).router_logits
    deltas = [torch.full((2, layer.num_experts), 0.5) for layer in hook.layers]
    with hook.steered(deltas):
        steered = model(input_ids=ids_BT, output_router_logits=True).router_logits
    assert len(steered) == len(hook.layers)
    assert torch.allclose(steered[0], plain[0] + 0.5)


@pytest.mark.parametrize("family", ["olmoe", "deepseek_v3"])
def test_selection_only_leaves_bit_equal_the_weights_of_tokens_whose_experts_stay(family) -> None:
    model = decisive(family, factor=20.0)
    hook = GateHook(model)
    ids_BT = tokens(batch=4)
    random = torch.Generator().manual_seed(2)
    deltas: list[torch.Tensor | None] = [None] * len(hook.layers)
    deltas[0] = torch.randn(4, hook.layers[0].num_experts, generator=random) * 0.05
    with hook.recording() as plain:
        model(input_ids=ids_BT)
    with hook.steered(deltas, where="selection"), hook.recording() as steered:
        model(input_ids=ids_BT)
    before, after = plain[0][0], steered[0][0]
    (here_TK, one_TK), (there_TK, other_TK) = before.indices_TK.sort(dim=1), after.indices_TK.sort(dim=1)
    stays_T = (here_TK == there_TK).all(dim=1)
    assert 0 < int(stays_T.sum()) < len(stays_T)
    weights_TK, moved_TK = before.weights_TK.gather(1, one_TK), after.weights_TK.gather(1, other_TK)
    assert torch.equal(weights_TK[stays_T], moved_TK[stays_T])
    assert torch.equal(before.logits_TE, after.logits_TE)


def test_selection_only_keeps_the_weights_of_what_stays_selected() -> None:
    model = decisive("deepseek_v3")
    hook = GateHook(model)
    ids_BT = tokens(batch=1)
    with hook.recording() as plain:
        model(input_ids=ids_BT)
    before = plain[0][0]
    delta_BE = torch.zeros(1, 8, requires_grad=True)
    block, rule = hook.layers[0].block, hook.rules[0]
    weights_TK, indices_TK = rule.apply(
        block, before.logits_TE, delta_BE.expand(before.logits_TE.shape[0], -1)
    )
    assert torch.equal(indices_TK, before.indices_TK)
    assert torch.equal(weights_TK.detach(), before.weights_TK)
    (gradient_BE,) = torch.autograd.grad(weights_TK[:, 0].sum(), delta_BE)
    assert gradient_BE.abs().max() > 0
    shift_TE = torch.zeros_like(before.logits_TE)
    shift_TE[:, 3] = 10.0
    weights_TK, indices_TK = rule.apply(block, before.logits_TE, shift_TE)
    assert (indices_TK == 3).any(dim=-1).all()
    scores_TE = before.logits_TE.sigmoid().gather(1, indices_TK)
    assert torch.allclose(weights_TK, scores_TE / scores_TE.sum(-1, keepdim=True) * 2.5)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_log_probabilities_add_up_to_one_and_follow_the_choice(family) -> None:
    model = decisive(family)
    hook = GateHook(model)
    logits_TE = torch.randn(5, hook.layers[0].num_experts)
    log_p_TE = hook.rules[0].log_probabilities(logits_TE)
    assert torch.allclose(log_p_TE.exp().sum(-1), torch.ones(5))
    assert torch.equal(log_p_TE.argsort(-1), logits_TE.argsort(-1))


def test_a_bias_that_is_zero_so_far_is_found() -> None:
    model = decisive("deepseek_v3")
    bias_E = find_moe_layers(model)[0].gate.get_buffer("e_score_correction_bias")
    bias_E.zero_()
    rule = GateHook(model).rules[0]
    assert (rule.score, rule.bias_name, rule.num_groups) == ("sigmoid", "gate.e_score_correction_bias", 4)
    assert not bias_E.any()


def test_hooks_leave_nothing_behind_even_after_an_error() -> None:
    model = decisive("olmoe")
    hook = GateHook(model)
    keys = list(model.state_dict())
    with hook.steered(zeros(hook, 3)), pytest.raises(ShapeError, match="B = 3"):
        model(input_ids=tokens())
    assert list(model.state_dict()) == keys
    for layer in hook.layers:
        assert not layer.gate._forward_hooks
        assert not layer.block._forward_pre_hooks


def test_dense_layers_between_are_left_out_and_order_is_depth() -> None:
    assert [layer.name for layer in find_moe_layers(decisive("qwen3_moe"))] == [
        "model.layers.0.mlp",
        "model.layers.2.mlp",
    ]


def test_a_family_without_a_gate_is_refused() -> None:
    with pytest.raises(InputError, match="without a gate"):
        GateHook(tiny_llama(vocab_size=16, layers=1))


def test_a_gate_with_an_unknown_rule_is_refused_with_its_obstacle() -> None:
    model = decisive("olmoe")
    gate = find_moe_layers(model)[0].gate
    plain = gate.forward

    def squared(hidden: torch.Tensor):
        logits, weights, indices = plain(hidden)
        return logits, weights**2, indices

    gate.forward = squared
    with pytest.raises(InputError, match="a rule that is none of the known"):
        GateHook(model)
    gate.forward = lambda hidden: plain(hidden)[1:]
    with pytest.raises(InputError, match="instead of logits"):
        GateHook(model)
    gate.forward = lambda hidden: plain(hidden)[0]
    with pytest.raises(InputError, match="outside of the gate"):
        GateHook(model)
    gate.forward = lambda hidden, input_ids: plain(hidden)
    with pytest.raises(InputError, match="hidden states alone"):
        GateHook(model)


@pytest.mark.parametrize("deltas", [[], [torch.zeros(2, 7)] * 3, [torch.zeros(8)] * 3], ids=str)
def test_deltas_of_another_shape_are_refused(deltas) -> None:
    hook = GateHook(decisive("olmoe"))
    with pytest.raises(ShapeError, match="deltas"):
        hook.steered(deltas)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_deltas_that_are_no_numbers_are_refused_and_a_closed_expert_is_chosen_by_nobody(wrong) -> None:
    model = decisive("olmoe")
    hook = GateHook(model)
    deltas = zeros(hook)
    deltas[1] = torch.full_like(deltas[1], wrong)
    with pytest.raises(InputError, match=r"deltas\[1\].*-inf"):
        hook.steered(deltas)
    deltas[1] = torch.zeros_like(deltas[1])
    deltas[1][:, 3] = -torch.inf
    with hook.steered(deltas), hook.recording() as records:
        model(input_ids=tokens())
    assert not bool((records[1][0].indices_TK == 3).any())
    assert bool((records[0][0].indices_TK == 3).any())


def test_an_unknown_place_is_refused() -> None:
    hook = GateHook(decisive("olmoe"))
    with pytest.raises(InputError, match="where"):
        hook.steered(zeros(hook), where="weights")  # type: ignore[arg-type]


def test_flops_of_experts_are_the_same_by_every_backend() -> None:
    model = decisive("olmoe")
    found = {}
    for backend in ("eager", "grouped_mm", "batched_mm"):
        model.set_experts_implementation(backend)
        with torch.no_grad():
            found[backend] = executed_flops(lambda: model(input_ids=tokens()))[1]
    assert len(set(found.values())) == 1, found
