"""Gates of turnout's in the place of a checkpoint's: the same bits, a side file, and refusals."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.nn.moe_models import FAMILIES, decisive, equal, generated, tokens
from turnout.core.errors import ArtifactError, InputError, ShapeError
from turnout.nn import registry
from turnout.nn.gate_hook import GateHook
from turnout.nn.gate_swap import GateSwap
from turnout.nn.gates.contract import Gate
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.moe import MoELayer
from turnout.nn.moe_rule import find_rule
from turnout.nn.plan import SparsePlan


def own_rule(layer: MoELayer) -> TopKGate:
    """Return the family's own gate as turnout's, by the rule that was found."""
    rule = find_rule(layer)
    gate = TopKGate(
        width=layer.gate.get_parameter("weight").shape[1],
        num_experts=layer.num_experts,
        k=rule.k,
        score=rule.score,
        weight=rule.weight,
        scale=rule.scale,
        is_biased=rule.bias_name is not None,
        num_groups=rule.num_groups,
        topk_group=rule.topk_group,
        group_score=rule.group_score,
    )
    # Whoever adds a token's experts up does it in this order.
    gate.rule = replace(gate.rule, is_sorted=rule.is_sorted)
    with torch.no_grad():
        gate.weight_ED.copy_(layer.gate.get_parameter("weight"))
        if rule.bias_name is not None:
            gate.get_buffer("selection_bias").copy_(attrgetter(rule.bias_name)(layer.block))
    return gate


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_familys_own_rule_put_in_changes_no_bit(family) -> None:
    model = decisive(family)
    for layer in GateHook(model, needs_rules=False).layers:
        if getattr(layer.gate, "bias", None) is not None:
            torch.nn.init.zeros_(layer.gate.get_parameter("bias"))
    plain, logits = generated(model), model(input_ids=tokens()).logits
    swap = GateSwap(model, own_rule)
    assert equal(generated(model), plain)
    assert torch.equal(model(input_ids=tokens()).logits, logits)
    swap.gates[0].get_parameter("weight_ED").data.neg_()
    assert not torch.equal(model(input_ids=tokens()).logits, logits)
    swap.remove()
    assert torch.equal(model(input_ids=tokens()).logits, logits)


@pytest.mark.parametrize(
    ("family", "gate", "config"),
    [
        ("olmoe", "top_p", {}),
        ("mixtral", "relu", {}),
        ("qwen3_moe", "switch", {}),
        ("deepseek_v3", "loss_free", {}),
        ("gpt_oss", "recurrent", {"num_layers": 3, "is_shared": True}),
        ("granite", "top_k", {"k": 3}),
    ],
)
def test_trained_saved_and_put_on_a_fresh_base_it_generates_the_same_bits(
    family, gate, config, tmp_path
) -> None:
    model = decisive(family).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    swap = GateSwap.of(model, gate, **config)
    optimiser = torch.optim.SGD(swap.parameters(), lr=0.5)
    ids_BT = tokens()
    first = {name: p.detach().clone() for name, p in swap.named_parameters()}
    loss = model(input_ids=ids_BT, labels=ids_BT).loss + swap.losses()
    loss.backward()
    optimiser.step()
    swap.after_step()
    assert any(not torch.equal(p, first[name]) for name, p in swap.named_parameters())
    swap.save(tmp_path)
    expected = generated(model.eval())

    fresh = decisive(family)
    assert not equal(generated(fresh)[1:], expected[1:])
    again = GateSwap.load(fresh, tmp_path)
    assert equal(generated(fresh), expected)
    assert fresh.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    again.remove()
    with pytest.raises(ArtifactError, match="another base"):
        GateSwap.load(decisive(family, seed=1), tmp_path)


def test_losses_are_weighed_by_name() -> None:
    model = decisive("olmoe").train()
    swap = GateSwap.of(model, "compete", chance=0.0)
    model(input_ids=tokens())
    plans = [plan for plan in swap.plans if plan is not None]
    balance, z = (torch.stack([plan.losses[name] for plan in plans]).sum() for name in ("balance", "z"))
    assert torch.allclose(swap.losses(), balance + z)
    expected = 0.01 * balance + 0.001 * z
    assert torch.allclose(swap.losses({"balance": 0.01, "z": 0.001}), expected)
    with pytest.raises(InputError, match=r"balance, z.*got: 'balanse'"):
        swap.losses({"balanse": 0.01})


@pytest.mark.parametrize(
    ("gate", "config"),
    [("switch", {}), ("compete", {"chance": 0.0}), ("recurrent", {"is_shared": True})],
)
def test_checkpointed_gates_learn_what_others_learn(gate, config) -> None:
    found = []
    for is_checkpointed in (False, True):
        model, ids_BT = decisive("mixtral").train(), tokens()
        torch.manual_seed(0)
        swap = GateSwap.of(model, gate, **config)
        if is_checkpointed:
            model.activation_checkpointing_enable()
        (model(input_ids=ids_BT, labels=ids_BT).loss + swap.losses()).backward()
        found.append({name: parameter.grad for name, parameter in swap.named_parameters()})
    for name, expected in found[0].items():
        same = found[1][name]
        assert expected is not None, name
        assert same is not None, name
        assert bool(expected.any()), name
        assert torch.allclose(same, expected, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("is_reentrant", [False, True])
@pytest.mark.parametrize(("gate", "config"), [("loss_free", {"rule": "violation"}), ("relu", {"k": 1})])
def test_what_is_learned_without_a_gradient_is_counted_once_under_checkpointing(
    gate, config, is_reentrant
) -> None:
    found = []
    for is_checkpointed in (False, True):
        model, ids_BT = decisive("mixtral").train(), tokens()
        torch.manual_seed(0)
        swap = GateSwap.of(model, gate, **config)
        if is_checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": is_reentrant})
            model.enable_input_require_grads()
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
        counted = {name: value.clone() for name, value in swap.gates.named_buffers()}
        swap.after_step()
        found.append([counted, dict(swap.gates.named_buffers())])
    assert any(bool(value.any()) for value in found[0][0].values())
    for plain, checkpointed in zip(*found, strict=True):
        assert all(torch.equal(value, checkpointed[name]) for name, value in plain.items())


def test_reentrant_checkpointing_is_refused_where_a_gate_would_lose_what_it_learns() -> None:
    ids_BT, grads = tokens(), []
    for is_reentrant in (False, True):
        model = decisive("mixtral").train()
        torch.manual_seed(0)
        swap = GateSwap.of(model, "top_k")
        model.activation_checkpointing_enable({"use_reentrant": is_reentrant})
        model.enable_input_require_grads()
        # A gate without losses and states loses nothing.
        (model(input_ids=ids_BT, labels=ids_BT).loss + swap.losses()).backward()
        grads.append([parameter.grad for parameter in swap.parameters()])
        swap.remove()
        swap = GateSwap.of(model, "switch")
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
        if is_reentrant:
            with pytest.raises(InputError, match=r"losses balance .* use_reentrant=False"):
                swap.losses()
            with torch.no_grad():
                assert float(swap.losses()) > 0
        else:
            (loss + swap.losses()).backward()
        swap.remove()
        swap = GateSwap.of(model, "recurrent", is_shared=True)
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
        if is_reentrant:
            with pytest.raises(InputError, match=r"state that the layer before left.*use_reentrant=False"):
                loss.backward()
        else:
            loss.backward()
        swap.remove()
    for one, other in zip(*grads, strict=True):
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_arguments_by_expert_come_back_from_the_side_file(tmp_path) -> None:
    alpha = (0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
    swap = GateSwap.of(decisive("olmoe"), "dirichlet", alpha=alpha)
    swap.save(tmp_path)
    again = GateSwap.load(decisive("olmoe"), tmp_path)
    assert [gate.alpha for gate in again.gates] == [alpha] * len(swap.gates)


def test_arguments_that_json_does_not_give_back_are_not_saved(tmp_path) -> None:
    class Named(TopKGate):
        def __init__(self, *, width: int, num_experts: int, k: int = 2, names: tuple[str, ...] = ()) -> None:
            super().__init__(width=width, num_experts=num_experts, k=k)
            self.names = names

    swap = GateSwap(decisive("olmoe"), lambda _layer: Named(width=32, num_experts=8, names=("a", "b")))
    with pytest.raises(InputError, match=r"can't be saved.*'a', 'b'"):
        swap.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_removed_swap_leaves_the_next_one_alone() -> None:
    model = decisive("olmoe")
    plain = model(input_ids=tokens()).logits
    first = GateSwap.of(model, "top_k")
    first.remove()
    second = GateSwap.of(model, "top_p")
    swapped = model(input_ids=tokens()).logits
    first.remove()
    assert torch.equal(model(input_ids=tokens()).logits, swapped)
    second.remove()
    assert torch.equal(model(input_ids=tokens()).logits, plain)


def test_the_stock_library_loads_what_is_saved_of_the_base(tmp_path) -> None:
    model = decisive("olmoe")
    plain = model(input_ids=tokens()).logits
    swap = GateSwap.of(model, "top_k", k=1)
    changed = model(input_ids=tokens()).logits
    model.save_pretrained(tmp_path)
    swap.save(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(stock(input_ids=tokens()).logits, plain)
    GateSwap.load(stock, tmp_path)
    assert torch.equal(stock(input_ids=tokens()).logits, changed)


@pytest.mark.parametrize("is_first", [False, True])
def test_the_models_recorder_sees_the_new_gates_logits(is_first) -> None:
    model = decisive("olmoe")
    if is_first:
        model(input_ids=tokens(), output_router_logits=True)
    swap = GateSwap.of(model, "top_k")
    seen = model(input_ids=tokens(), output_router_logits=True).router_logits
    assert len(seen) == len(swap.plans) == 3
    for logits_TE, plan in zip(seen, swap.plans, strict=True):
        assert plan is not None
        assert plan.logits_TE is not None
        assert torch.equal(logits_TE, plan.logits_TE)


def test_one_layer_alone_and_a_second_swap() -> None:
    model = decisive("mixtral")
    with GateHook(model, needs_rules=False).recording() as plain:
        model(input_ids=tokens())
    swap = GateSwap(
        model, lambda layer: TopKGate(width=32, num_experts=4, k=1) if ".2." in layer.name else None
    )
    with GateHook(model, needs_rules=False).recording() as changed:
        model(input_ids=tokens())
    assert [one[0].indices_TK.shape[1] for one in changed] == [2, 2, 1]
    assert torch.equal(changed[1][0].indices_TK, plain[1][0].indices_TK)
    with pytest.raises(InputError, match="swapped already"):
        GateSwap.of(model, "top_k")
    swap.remove()
    GateSwap.of(model, "top_k").remove()


def test_a_copy_that_would_share_its_gates_is_refused_until_the_swap_is_removed() -> None:
    model = decisive("mixtral")
    swap = GateSwap.of(model, "top_k")
    with pytest.raises(InputError, match=r"no copy or pickle.*or remove the swap first"):
        copy.deepcopy(model)
    swap.remove()
    copied = copy.deepcopy(model)
    assert torch.equal(copied(input_ids=tokens()).logits, model(input_ids=tokens()).logits)


def test_padding_is_sent_nowhere() -> None:
    model, ids_BT = decisive("olmoe"), tokens()
    swap = GateSwap.of(model, "top_k")
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[0, :5] = 0
    model(input_ids=ids_BT, attention_mask=mask_BT)
    plan = swap.plans[0]
    assert isinstance(plan, SparsePlan)
    assert sorted(set(plan.tokens_N.tolist())) == list(range(5, ids_BT.numel()))
    with pytest.raises(InputError, match="all tokens are masked"):
        model(input_ids=ids_BT, attention_mask=torch.zeros_like(ids_BT))


def test_what_the_experts_cant_run_is_refused_with_shapes_as_an_equation() -> None:
    model = decisive("olmoe")
    with pytest.raises(ShapeError, match=r"num_experts of the checkpoint.*num_experts = 8.*num_experts = 4"):
        GateSwap(model, lambda _: TopKGate(width=32, num_experts=4, k=2))
    with pytest.raises(ShapeError, match=r"width = 32.*width = 16"):
        GateSwap(model, lambda _: TopKGate(width=16, num_experts=8, k=2))
    with pytest.raises(InputError, match=r"1 <= k <= E = 8.*got: 9"):
        GateSwap.of(model, "top_k", k=9)
    with pytest.raises(InputError, match="sparse plans"):
        GateSwap.of(model, "soft")
    with pytest.raises(InputError, match="attention_BSS"):
        GateSwap.of(model, "attention_k")
    with pytest.raises(InputError, match="the name of a gate"):
        GateSwap.of(model, "glider")
    assert type(model.model.layers[0].mlp.gate).__name__ == "OlmoeTopKRouter"


def test_a_gate_that_sees_later_tokens_does_not_decode() -> None:
    model = decisive("olmoe")
    GateSwap.of(model, "expert_choice")
    assert model(input_ids=tokens(), use_cache=False).logits.isfinite().all()
    with pytest.raises(InputError, match="sees later tokens"):
        generated(model)


def test_logits_that_are_no_numbers_are_refused() -> None:
    model = decisive("mixtral")
    swap = GateSwap.of(model, "top_k")
    swap.gates[1].get_parameter("weight_ED").data[1] = float("nan")
    with pytest.raises(InputError, match=r"^model\.layers\.1\.mlp \(TopKGate\): logits of .* are NaN"):
        model(input_ids=tokens())


@pytest.mark.parametrize("gate", ["top_k", "loss_free", "relu"])
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_a_swapped_gate_trains_under_autocast(family: str, gate: str) -> None:
    model, ids_BT = decisive(family).train(), tokens()
    swap = GateSwap.of(model, gate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
    (loss.float() + swap.losses()).backward()
    for name, parameter in swap.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name
    for plan in swap.plans:
        assert plan is not None
        assert plan.logits_TE is not None
        assert plan.logits_TE.dtype == torch.float32


@pytest.mark.parametrize("gate", ["recurrent", "speech"])
def test_a_gate_that_wants_the_number_of_layers_is_told(gate: str) -> None:
    model, ids_BT = decisive("mixtral"), tokens()
    swap = GateSwap.of(model, gate, is_shared=True)
    model(input_ids=ids_BT)
    assert swap.gates[0].num_layers == len(swap.layers) == 3


def test_the_page_names_the_gates_that_no_checkpoint_takes() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
    said = re.search(r"what a block knows: (.*?) are refused", page, re.DOTALL)
    assert said is not None
    refused = set()
    for name in (name for name in registry if issubclass(registry.get(name), Gate)):
        if not registry.get(name).__module__.startswith("turnout."):
            continue
        try:
            GateSwap.of(decisive("olmoe"), name, is_shared=True)
        except InputError:
            refused.add(name)
    assert refused == set(re.findall(r"`(\w+)`", said[1]))
