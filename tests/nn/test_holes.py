"""A token with fewer experts than others has holes: they are recorded as -1, counted nowhere, replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, SwitchTransformersConfig
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from tests.nn.gate_models import sharp
from tests.nn.moe_models import decisive, tokens
from turnout.core.errors import InputError
from turnout.nn.analysis.load import balance, load_of
from turnout.nn.analysis.recording import record_model
from turnout.nn.gate_hook import GateHook, Routing
from turnout.nn.gate_swap import GateSwap
from turnout.nn.moe_rule import GateRule
from turnout.nn.plan import SparsePlan
from turnout.nn.replay import load_routings, replaying, save_routings
from turnout.nn.testtime.confidence import confidence

UNEVEN: dict[str, dict[str, Any]] = {
    "top_p": {"p": 0.3},
    "relu": {},
    "dynamoe": {},
    "null_experts": {},
    "switch": {"eval_capacity_factor": 0.5},
}


def swapped(model: PreTrainedModel, name: str) -> GateSwap:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        swap = GateSwap.of(model, name, **UNEVEN[name])
    for gate in swap.gates:
        gate.get_parameter("weight_ED").data *= 20
    return swap


@pytest.mark.parametrize("name", UNEVEN)
def test_what_is_recorded_of_a_model_has_the_load_of_the_plans(name) -> None:
    model = decisive("olmoe")
    swap = swapped(model, name)
    recording = record_model(model, [tokens(batch=4, length=32)])
    for layer, plan in enumerate(swap.plans):
        assert isinstance(plan, SparsePlan)
        assert plan.num_pairs < plan.num_tokens * plan.num_columns
        assert torch.equal(load_of(recording.tokens(layer)), plan.counts_E)
        assert balance(load_of(recording.tokens(layer))) == balance(plan.counts_E)


# In scores, in what a block calls its experts with, in probabilities.
@pytest.mark.parametrize(("family", "name"), [("llama4", "top_p"), ("dbrx", "relu"), ("gemma4", "top_p")])
def test_holes_are_found_in_every_form_and_replayed_bit_for_bit(family, name, tmp_path: Path) -> None:
    model, ids_BT = sharp(family), tokens()
    swap = swapped(model, name)
    hook = GateHook(model, needs_rules=False)
    with hook.recording() as records:
        plain = model(input_ids=ids_BT).logits
    for passes, plan in zip(records, swap.plans, strict=True):
        assert isinstance(plan, SparsePlan)
        indices_TK, sizes_T = passes[0].indices_TK, torch.zeros(plan.num_tokens, dtype=torch.int64)
        sizes_T.index_add_(0, plan.tokens_N, torch.ones_like(plan.tokens_N))
        assert torch.equal((indices_TK >= 0).sum(dim=1), sizes_T)
        assert torch.equal(torch.bincount(indices_TK[indices_TK >= 0], minlength=8), plan.counts_E)
        assert bool((passes[0].weights_TK[indices_TK < 0] == 0).all())
    loaded = load_routings(save_routings(tmp_path / "routings.safetensors", records))
    for gate in swap.gates:
        gate.get_parameter("weight_ED").data.mul_(1e-6)
    with hook.recording() as again, replaying(hook, loaded):
        assert torch.equal(model(input_ids=ids_BT).logits, plain)
    # The recorder stood outside: it saw the gates of now, and other holes.
    assert not torch.equal(again[0][0].weights_TK, records[0][0].weights_TK)
    with replaying(hook, loaded), hook.recording() as inside:
        model(input_ids=ids_BT)
    assert all(
        torch.equal(one[0].indices_TK, two[0].indices_TK) for one, two in zip(inside, records, strict=True)
    )


def test_a_hole_that_a_rule_makes_takes_the_expert_away() -> None:
    model, ids_BT = decisive("olmoe"), tokens()
    hook = GateHook(model)

    def alone(_layer: int, routing: Routing) -> Routing:
        indices_TK = routing.indices_TK.clone()
        indices_TK[:, 1] = -1
        return replace(routing, indices_TK=indices_TK)

    def zero(_layer: int, routing: Routing) -> Routing:
        return replace(routing, weights_TK=routing.weights_TK * torch.tensor([1.0, 0.0]))

    with hook.changed(zero):
        expected = model(input_ids=ids_BT).logits
    with GateHook(model).recording() as seen, hook.changed(alone), hook.recording() as records:
        torch.testing.assert_close(model(input_ids=ids_BT).logits, expected)
    for found in (seen, records):
        assert bool((found[0][0].indices_TK[:, 1] == -1).all())
        assert bool((found[0][0].indices_TK[:, 0] >= 0).all())
    # A choice of weight 0 is one all the same: its expert computes.
    with hook.changed(zero), hook.recording() as records:
        model(input_ids=ids_BT)
    assert bool((records[0][0].indices_TK >= 0).all())


def dropping() -> nn.Module:
    """Switch's own block with one place for each expert and sequence."""
    config = SwitchTransformersConfig(d_model=32, d_ff=16, num_experts=8, expert_capacity=1)
    holder = nn.Module()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        holder.block = SwitchTransformersSparseMLP(config)
        nn.init.normal_(holder.get_parameter("block.router.classifier.weight"))
    return holder.eval()


def recorded(holder: nn.Module) -> tuple[Tensor, list[list[Routing]]]:
    hidden_BSD = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    with GateHook(holder, needs_rules=False).recording() as records:
        out = holder.get_submodule("block")(hidden_BSD)
    return out, records


def test_what_found_no_room_in_a_stock_block_is_a_hole() -> None:
    _, records = recorded(dropping())
    routing = records[0][0]
    is_hole_T = routing.indices_TK[:, 0] < 0
    assert 0 < int(is_hole_T.sum()) < 12
    assert torch.equal(is_hole_T, routing.weights_TK[:, 0] == 0)
    # One place in each of two sequences.
    assert int(torch.bincount(routing.indices_TK[~is_hole_T, 0]).max()) <= 2


def test_files_of_the_first_format_are_read_with_their_holes(tmp_path: Path) -> None:
    _, records = recorded(dropping())
    path = save_routings(tmp_path / "two.safetensors", records)
    with safe_open(path, framework="pt") as file:
        notes = dict(file.metadata())
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert notes["format"] == "turnout-routings-2"
    parts["0.0.indices_TK"] = parts["0.0.indices_TK"].clamp(min=0)
    save_file(parts, tmp_path / "one.safetensors", metadata=notes | {"format": "turnout-routings-1"})
    before, after = load_routings(tmp_path / "one.safetensors"), load_routings(path)
    assert torch.equal(before[0][0].indices_TK, after[0][0].indices_TK)


def test_current_weights_of_tokens_that_differ_in_experts_are_refused() -> None:
    model, ids_BT = decisive("olmoe"), tokens()
    hook = GateHook(model)
    with hook.recording() as records:
        model(input_ids=ids_BT)
    records[1][0].indices_TK[3, 1] = -1
    with (
        pytest.raises(InputError, match="'current' in layer 1, where tokens differ in experts"),
        replaying(hook, records, weights="current"),
    ):
        model(input_ids=ids_BT)


def test_a_hole_has_no_surprise() -> None:
    hook = GateHook(decisive("olmoe"))
    logits_TE = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    indices_TK = torch.tensor([[0, 3], [5, -1], [-1, -1], [1, 2]])
    routing = Routing(logits_TE=logits_TE, weights_TK=torch.zeros(4, 2), indices_TK=indices_TK, batch_size=1)
    p_TE = -logits_TE.log_softmax(dim=-1)
    expected = torch.stack([p_TE[0, [0, 3]].mean(), p_TE[1, 5], p_TE[3, [1, 2]].mean()]).mean()
    found_BL = confidence(hook, [routing, None, None], torch.ones(1, 4))
    assert isinstance(hook.rules[0], GateRule)
    assert float(found_BL[0, 0]) == pytest.approx(float(expected), rel=1e-5)
