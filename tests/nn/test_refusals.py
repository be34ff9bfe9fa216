"""What was taken in silence before is refused with a sentence."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from tests.nn.moe_models import decisive, tokens
from tests.nn.test_gate_swap_stacks import switch
from turnout.core.errors import ArtifactError, InputError, ShapeError, UnknownNameError
from turnout.nn.analysis.recording import Recording, record_model
from turnout.nn.balance.bias import LossFreeBias
from turnout.nn.balance.dual import dual_point
from turnout.nn.balance.quantile import quantile_prices
from turnout.nn.balance.sinkhorn import sinkhorn
from turnout.nn.balance.variance import importance_loss, load_loss
from turnout.nn.balance.z_loss import z_loss
from turnout.nn.executors.auto import EXECUTORS, make_executor
from turnout.nn.experts import Experts
from turnout.nn.gate_hook import GateHook
from turnout.nn.gate_swap import GateSwap
from turnout.nn.gates.contract import GateContext, rooms
from turnout.nn.gates.loss_free import LossFreeGate
from turnout.nn.gates.rectify import RectifyGate
from turnout.nn.gates.recurrent import RecurrentGate
from turnout.nn.gates.switch import SwitchGate
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_dense import MergedPlan
from turnout.nn.replay import load_routings, replaying, save_routings

OFF = {"devices": 1, "is_local": False, "is_filled": False}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_hooks_refuse_logits_that_are_no_numbers(value) -> None:
    model = decisive("mixtral")
    hook = GateHook(model)
    with hook.recording() as records:
        model(input_ids=tokens())
    torch.nn.init.constant_(hook.layers[1].gate.get_parameter("weight"), value)
    with hook.recording(), pytest.raises(InputError, match=r"layers.1.mlp: logits of 24 of T = 24 tokens"):
        model(input_ids=tokens())
    for weights in ("recorded", "current"):
        with replaying(hook, records, weights=weights), pytest.raises(InputError, match="NaN or infinite"):
            model(input_ids=tokens())


def test_what_stands_at_padding_is_not_refused() -> None:
    model, ids = decisive("mixtral"), tokens()
    hook = GateHook(model)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0

    def spoil(_module, _args, out):
        return out.masked_fill(mask[..., None] == 0, math.nan)

    model.model.layers[-1].post_attention_layernorm.register_forward_hook(spoil)
    with hook.recording() as records:
        model(input_ids=ids, attention_mask=mask)
    assert int(records[-1][0].logits_TE.isnan().any(-1).sum()) == 3
    with hook.recording(), pytest.raises(InputError, match="logits of 3 of T = 24"):
        model(input_ids=ids)


@pytest.mark.parametrize("score", ["sigmoidd", None])
def test_a_score_that_is_not_known(score) -> None:
    with pytest.raises(UnknownNameError, match="LossFreeGate: score"):
        LossFreeGate(width=4, num_experts=4, score=score)


@pytest.mark.parametrize("capacity", [1.5, -1, True])
def test_a_capacity_that_is_no_count(capacity) -> None:
    plan = SparsePlan.from_choices(torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.long), num_experts=2)
    with pytest.raises(InputError, match="capacity"):
        plan.limited(capacity)
    assert plan.limited(2).num_pairs == 2


def test_a_recurrent_gate_without_the_state_of_the_layer_before() -> None:
    gate, x_TD = RecurrentGate(width=4, num_experts=4), torch.randn(3, 4)
    state = gate(x_TD).state
    with pytest.raises(InputError, match=r"context\.state in layer 1"):
        gate(x_TD, GateContext(layer=1, num_layers=2))
    gate(x_TD, GateContext(layer=1, num_layers=2, state=state))


@pytest.mark.parametrize("group", [2, -1])
def test_a_group_that_is_none(group) -> None:
    mix_GE, groups_T = torch.full((2, 2), 0.5), torch.tensor([0, 1, group])
    with pytest.raises(InputError, match="groups_T; allowed: 0 to 1"):
        MergedPlan(num_tokens=3, num_experts=2, mix_GE=mix_GE, groups_T=groups_T)


def test_loads_that_are_no_numbers_and_a_bias_of_another_length() -> None:
    balance, bias_E = LossFreeBias(num_experts=2), torch.zeros(2)
    balance.observe(torch.tensor([torch.nan, 1.0]))
    with pytest.raises(InputError, match="finite loads"):
        balance.update(bias_E)
    assert not bias_E.any()
    balance.observe(torch.tensor([2.0, 1.0]))
    with pytest.raises(ShapeError, match=r"\(E,\) = \(2,\)"):
        balance.update(torch.zeros(3))
    balance.update(bias_E)
    assert bias_E.tolist() == pytest.approx([-1e-3, 1e-3])


def test_room_is_that_of_the_factor_as_it_is_written() -> None:
    size_B = torch.arange(600)
    for num_experts in (4, 8, 64):
        for factor in ("1.0", "1.1", "1.2", "1.25", "1.3", "1.5", "1.7", "2.0", "0.0000001"):
            expected = [math.ceil(Fraction(factor) * size / num_experts) for size in range(600)]
            assert rooms(size_B, float(factor), num_experts).tolist() == expected


@pytest.mark.parametrize("cls", [SwitchGate, RectifyGate])
def test_an_expert_is_full_with_its_room(cls) -> None:
    gate = cls(width=2, num_experts=4, capacity_factor=1.2, **({} if cls is SwitchGate else OFF)).train()
    with torch.no_grad():
        gate.weight_ED.copy_(torch.tensor([[9.0, 0], [0, 0], [0, 0], [0, 0]]))
    plan = gate(torch.ones(50, 2))
    assert plan.counts_E.tolist() == [15, 0, 0, 0]


@pytest.mark.parametrize(("tokens_N", "experts_N"), [([0, 2], [0, 1]), ([0, -1], [0, 1]), ([0, 1], [0, 4])])
def test_pairs_of_tokens_and_experts_that_are_none(tokens_N, experts_N) -> None:
    weights_N = torch.ones(2)
    with pytest.raises(InputError, match=r"from_pairs: (tokens|experts)_N; allowed: 0 to"):
        SparsePlan.from_pairs(
            torch.tensor(tokens_N), torch.tensor(experts_N), weights_N, num_tokens=2, num_experts=4
        )


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8])
@pytest.mark.parametrize("num_tokens", [3, 100])
def test_short_numbers_of_experts_are_made_long(dtype, num_tokens) -> None:
    indices_TK = torch.arange(2 * num_tokens).reshape(-1, 2) % 4
    weights_TK = torch.rand(num_tokens, 2)
    plan = SparsePlan.from_choices(weights_TK, indices_TK.to(dtype), num_experts=4)
    same = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=4)
    assert plan.experts_N.dtype == torch.int64
    assert torch.equal(plan.to_dense(), same.to_dense())


@pytest.mark.parametrize(
    ("batches", "mask", "said"),
    [
        ([], None, "batches; allowed: one at least"),
        ([(2, 12), (2, 5)], None, r"batches\[1\]; allowed: \(B, S\) with S = 12"),
        ([(12,)], None, r"batches\[0\]"),
        ([(2, 12)], [(2, 5)], r"mask\[0\]; allowed: \(B, S\) = \(2, 12\)"),
        ([(2, 12), (2, 12)], [(2, 12)], "mask; allowed: one for each of 2 batches"),
    ],
)
def test_batches_that_are_no_recording(batches, mask, said) -> None:
    ids = [torch.full(shape, 5) for shape in batches]
    masks = None if mask is None else [torch.ones(shape, dtype=torch.bool) for shape in mask]
    with pytest.raises((InputError, ShapeError), match=f"record_model: {said}"):
        record_model(decisive("olmoe"), ids, mask=masks)


def test_a_model_that_wants_ids_of_two_stacks_is_not_recorded() -> None:
    with pytest.raises(InputError, match="wants ids of both"):
        record_model(switch(), [tokens()])


def test_files_that_are_not_there_and_folders_that_are_made(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="a recording in safetensors"):
        Recording.load(tmp_path / "none.safetensors")
    model = decisive("olmoe")
    recorded = record_model(model, [tokens()])
    path = recorded.save(tmp_path / "new" / "folder" / "recording.safetensors")
    assert torch.equal(Recording.load(path).chosen[0], recorded.chosen[0])
    with GateHook(model, needs_rules=False).recording() as records:
        model(input_ids=tokens())
    assert len(load_routings(save_routings(tmp_path / "other" / "routings.safetensors", records))) == 3


def test_a_swapped_model_that_is_pickled_says_where_gates_are_kept() -> None:
    model = decisive("olmoe")
    swap = GateSwap.of(model, "top_k")
    block = model.model.layers[0].mlp
    for module in (model, block, block.gate, block.experts, swap):
        with pytest.raises(InputError, match=r"gates of this model are swapped.*GateSwap\.save"):
            torch.save(module, io.BytesIO())
    swap.remove()
    torch.save(model, io.BytesIO())
    with GateHook(model).recording(), pytest.raises(InputError, match="outside of the `with` block"):
        torch.save(model, io.BytesIO())
    torch.save(model, io.BytesIO())


def test_a_hook_with_rules_on_a_swapped_model_says_that_there_are_none() -> None:
    model = decisive("olmoe")
    swap = GateSwap.of(model, "top_k")
    with pytest.raises(InputError, match=r"got: 'a gate that was swapped.*needs_rules=False, or remove"):
        GateHook(model)
    with GateHook(model, needs_rules=False).recording() as records:
        model(input_ids=tokens())
    assert len(records[0]) == 1
    swap.remove()
    assert GateHook(model).rules


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize("num_tokens", [3, 80])
def test_executors_want_numbers(name, num_tokens) -> None:
    experts = Experts(width=8, inner=8, num_experts=4).to("meta")
    weights_TK, indices_TK = torch.rand(num_tokens, 2), torch.zeros(num_tokens, 2, dtype=torch.long)
    plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=4)
    made = {
        part: getattr(plan, part).to("meta") for part in ("tokens_N", "experts_N", "weights_N", "columns_N")
    }
    plan = replace(plan, **made, offsets_E=plan.offsets_E.to("meta"))
    with pytest.raises(InputError, match="a device that holds numbers; got: 'meta'"):
        make_executor(name).run(torch.randn(num_tokens, 8, device="meta"), plan, experts)


@pytest.mark.parametrize("shape", [(2, 5, 4), (4,)])
@pytest.mark.parametrize(
    "loss",
    [
        z_loss,
        importance_loss,
        sinkhorn,
        lambda x: load_loss(x, x, x, 2),
        lambda x: dual_point(x, torch.zeros(4), 2),
        lambda x: quantile_prices(x, torch.zeros(4), 2),
    ],
    ids=["z", "importance", "sinkhorn", "load", "dual", "quantile"],
)
def test_scores_of_other_axes_than_tokens_and_experts(loss, shape) -> None:
    with pytest.raises(ShapeError, match=r"allowed: \(T, E\)"):
        loss(torch.ones(shape))


def test_loads_of_different_tokens() -> None:
    with pytest.raises(ShapeError, match=r"noisy_TE; allowed: \(T, E\) = \(5, 4\)"):
        load_loss(torch.ones(5, 4), torch.ones(3, 4), torch.ones(5, 4), 2)


def test_a_model_without_numbers_is_not_swapped() -> None:
    with pytest.raises(InputError, match=r"a device that holds numbers; got: 'meta'"):
        GateSwap.of(decisive("olmoe").to("meta"), "top_k")
