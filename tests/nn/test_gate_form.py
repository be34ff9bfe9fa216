"""Gates that hand out their choice in a form of their own are recorded, replayed, steered and swapped too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import NllbMoeConfig, SwitchTransformersConfig, ZayaConfig
from transformers.models.inkling.configuration_inkling import InklingTextConfig
from transformers.models.inkling.modeling_inkling import InklingMoE
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeSparseMLP
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP
from transformers.models.zaya.modeling_zaya import ZayaSparseMoeBlock

from tests.nn.gate_models import MODELS, sharp
from tests.nn.moe_models import equal, generated, tokens
from turnout.core.errors import InputError
from turnout.nn.gate_hook import GateHook
from turnout.nn.gate_stand_in import width_of
from turnout.nn.gate_swap import GateSwap
from turnout.nn.moe import find_moe_layers
from turnout.nn.plan import SparsePlan
from turnout.nn.replay import load_routings, replaying, save_routings


@pytest.mark.parametrize("family", list(MODELS))
def test_what_generate_chose_is_replayed_bit_for_bit_by_a_gate_that_has_changed(family, tmp_path) -> None:
    model = sharp(family)
    hook = GateHook(model, needs_rules=False)
    with hook.recording() as records:
        plain = generated(model)
    assert all(len(passes) == 4 for passes in records)
    for layer in hook.layers:
        for parameter in layer.gate.parameters():
            parameter.data.neg_()
    assert not equal(generated(model), plain)
    records = load_routings(save_routings(tmp_path / "routings.safetensors", records))
    with replaying(hook, records):
        assert equal(generated(model), plain)


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("where", ["logits", "selection"])
def test_zero_deltas_are_the_identity_and_large_ones_are_not(family, where) -> None:
    model, ids_BT = sharp(family), tokens()
    hook = GateHook(model)
    plain = generated(model)
    deltas = [torch.zeros(2, layer.num_experts) for layer in hook.layers]
    with hook.steered(deltas, where=where):
        assert equal(generated(model), plain)
    deltas[0][0, 5] = 50.0
    with hook.recording() as before:
        model(input_ids=ids_BT)
    with hook.steered(deltas, where=where), hook.recording() as after:
        model(input_ids=ids_BT)
    (was,), (found,) = before[0], after[0]
    one, other = found.indices_TK.chunk(2)
    assert (one == 5).any(dim=-1).all()
    assert torch.equal(other, was.indices_TK.chunk(2)[1])


def _recorded(hook, ids_BT):
    with hook.recording() as records:
        hook.model(input_ids=ids_BT)
    return [record for passes in records for record in passes]


@pytest.mark.parametrize("family", list(MODELS))
def test_another_gate_is_put_in_saved_and_generates_the_same_bits_on_a_fresh_base(family, tmp_path) -> None:
    model = sharp(family)
    plain = generated(model)
    # The attention of jetmoe makes a query for each of its two experts.
    swap = GateSwap.of(model, "top_k", k=2 if family == "jetmoe" else 3)
    changed = generated(model)
    assert not equal(changed[1:], plain[1:])
    with GateHook(model, needs_rules=False).recording() as records:
        model(input_ids=tokens())
    for passes, plan in zip(records, swap.plans, strict=True):
        # What the experts get is what the new gate decided.
        assert isinstance(plan, SparsePlan)
        assert torch.equal(passes[0].indices_TK.sort()[0], plan.to_choices()[1].sort()[0])
    swap.save(tmp_path)
    swap.remove()
    assert equal(generated(model), plain)
    fresh = sharp(family)
    again = GateSwap.load(fresh, tmp_path)
    assert equal(generated(fresh), changed)
    again.remove()


def test_logits_are_those_before_the_score_where_a_gate_returns_probabilities() -> None:
    model = sharp("gemma4")
    hook = GateHook(model)
    record = _recorded(hook, tokens())[0]
    assert (record.logits_TE < 0).any()
    p_TE = record.logits_TE.softmax(dim=-1, dtype=torch.float32)
    weights_TK = p_TE.topk(2).values
    scale_E = hook.layers[0].gate.get_parameter("per_expert_scale")
    expected = weights_TK / weights_TK.sum(-1, keepdim=True) * scale_E[record.indices_TK]
    assert torch.equal(record.weights_TK, expected)


def test_a_bias_that_the_block_holds_is_read_where_it_stands() -> None:
    model = sharp("minimax_m2")
    hook = GateHook(model)
    assert hook.rules[0].bias_name == "e_score_correction_bias"
    assert hook.rules[0].bias(hook.layers[0].block) is hook.layers[0].block.e_score_correction_bias
    before = _recorded(hook, tokens())[0]
    hook.layers[0].block.e_score_correction_bias[6] = 5.0
    after = _recorded(hook, tokens())[0]
    assert (after.indices_TK == 6).any(dim=-1).all()
    assert torch.equal(before.logits_TE, after.logits_TE)


def _random(block: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for value in [*block.parameters(), *block.buffers()]:
            if value.is_floating_point():
                nn.init.normal_(value, std=0.5)
    holder = nn.Module()
    holder.block = block.eval()
    return holder


def _hidden() -> torch.Tensor:
    return torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))


def _output(holder: nn.Module) -> torch.Tensor:
    out = holder.get_submodule("block")(_hidden())
    return (out[0] if isinstance(out, tuple) else out).clone()


def _inkling() -> nn.Module:
    config = InklingTextConfig(
        hidden_size=32, moe_intermediate_size=16, intermediate_size=16, n_routed_experts=8,
        n_shared_experts=2, num_experts_per_tok=2,
    )  # fmt: skip
    config._experts_implementation = "eager"
    return InklingMoE(config)


def _zaya() -> nn.Module:
    config = ZayaConfig(hidden_size=32, num_experts=8, moe_intermediate_size=16)
    config._experts_implementation = "eager"
    return ZayaSparseMoeBlock(config, layer_idx=1)


def _switch() -> nn.Module:
    config = SwitchTransformersConfig(d_model=32, d_ff=16, num_experts=8, expert_capacity=1)
    return SwitchTransformersSparseMLP(config)


def _nllb() -> NllbMoeSparseMLP:
    return NllbMoeSparseMLP(NllbMoeConfig(d_model=32, num_experts=8), ffn_dim=16)


@pytest.mark.parametrize("make", [_inkling, _zaya, _switch, _nllb])
def test_what_a_gate_gives_to_others_goes_on_and_what_found_no_room_stays_out(make) -> None:
    holder = _random(make())
    hook = GateHook(holder, needs_rules=False)
    with hook.recording() as records:
        plain = _output(holder)
    k = records[0][0].indices_TK.shape[1]
    swap = GateSwap.of(holder, "top_k", k=k)
    assert swap.gates[0].width == width_of(hook.layers[0]) == 32
    with hook.recording() as changed:
        swapped = _output(holder)
    assert not torch.equal(swapped, plain)
    swap.remove()
    with replaying(hook, changed):
        assert torch.equal(_output(holder), swapped)
    with torch.no_grad():
        for parameter in hook.layers[0].gate.parameters():
            parameter.neg_()
    assert not torch.equal(_output(holder), plain)
    with replaying(hook, records):
        assert torch.equal(_output(holder), plain)
    if make is _switch:
        # One place an expert and sequence: some of the 12 tokens found none.
        assert 0 < int((records[0][0].weights_TK == 0).sum()) < 12


def test_a_gate_of_one_expert_a_token_takes_no_two() -> None:
    holder = _random(_switch())
    GateSwap.of(holder, "top_k", k=2)
    with pytest.raises(InputError, match=r"k = 1.*got: 'k = 2'"):
        _output(holder)


def test_a_block_that_counts_on_its_own_k_takes_no_other() -> None:
    model = sharp("jetmoe")
    GateSwap.of(model, "top_k", k=3)
    with pytest.raises(InputError, match=r"k = 2.*got: 'k = 3'"):
        model(input_ids=tokens())


def test_experts_that_read_a_mask_as_numbers_do_what_a_gate_says() -> None:
    """Their own gate hands a mask of the first choice, so that they run experts 0 and 1 alone."""
    holder = _random(_nllb())
    with GateHook(holder, needs_rules=False).recording() as records:
        plain = _output(holder)
    routing = records[0][0]
    assert set(routing.indices_TK.unique().tolist()) == {0, 1}
    assert routing.indices_TK.sum(dim=1).tolist() == [1] * 12
    swap = GateSwap.of(holder, "top_k", k=3)
    swapped = _output(holder)
    plan, block = swap.plans[0], holder.block
    assert isinstance(plan, SparsePlan)
    assert isinstance(block, NllbMoeSparseMLP)
    x_TD = _hidden().flatten(0, 1)
    outs_ETD = torch.stack([block.experts[f"expert_{e}"](x_TD) for e in range(8)])
    # In eval mode they multiply by what dropout leaves on average.
    expected_TD = torch.einsum("te,etd->td", plan.to_dense(), outs_ETD) * (
        1 - block.experts.moe_token_dropout
    )
    assert torch.allclose(swapped.flatten(0, 1), expected_TD, atol=1e-4)
    swap.remove()
    assert torch.equal(_output(holder), plain)
    with pytest.raises(InputError, match="a capacity"):
        GateHook(holder)


class _Inside(nn.Module):
    """A block of the old convention: it chooses itself, and calls no module with its choice."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
        self.experts.num_experts = 4  # type: ignore[assignment]

    def forward(self, hidden_BSD):
        hidden_TD = hidden_BSD.flatten(0, 1)
        weights_TE = self.gate(hidden_TD).softmax(-1)
        parts = [weights_TE[:, i, None] * self.experts[i](hidden_TD) for i in range(4)]
        return torch.stack(parts).sum(0).view_as(hidden_BSD)


def test_a_choice_inside_the_block_is_refused_and_never_silently_empty() -> None:
    holder = _random(_Inside())
    hook = GateHook(holder, needs_rules=False)
    with hook.recording(), pytest.raises(InputError, match="a choice inside the block"):
        _output(holder)
    swap = GateSwap.of(holder, "top_k")
    with pytest.raises(InputError, match="a choice inside the block"):
        _output(holder)
    swap.remove()
    assert _output(holder).isfinite().all()
    with pytest.raises(InputError, match="outside of the gate"):
        GateHook(holder)


def test_experts_in_attention_and_in_the_block_itself_are_found() -> None:
    names = [layer.name for layer in find_moe_layers(sharp("jetmoe"))]
    assert [name.rpartition("layers.")[2] for name in names] == [
        "0.mlp", "0.self_attention.experts", "1.mlp", "1.self_attention.experts",
    ]  # fmt: skip
    assert {layer.num_experts for layer in find_moe_layers(sharp("longcat_flash"))} == {8}
