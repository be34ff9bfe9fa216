"""On a GPU checkpoints take gates, recordings, adapters and depth routers as on a processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.nn.adapters import helpers
from tests.nn.depth import families
from tests.nn.gpu.here import DEVICE, IS_CUDA, far, needs_gpu
from tests.nn.moe_models import decisive, equal, tokens
from tests.nn.test_gate_swap import own_rule
from turnout.core.errors import InputError
from turnout.core.rng import make_rng
from turnout.nn.adapters import PhatgooseRouter, SingleAdapter
from turnout.nn.analysis.inspection import inspect_recording
from turnout.nn.analysis.recording import record_model
from turnout.nn.depth import FixedDepth, RoutedDepth
from turnout.nn.gate_hook import GateHook
from turnout.nn.gate_swap import GateSwap
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.late import refuse_arrived
from turnout.nn.replay import load_routings, replaying, save_routings

pytestmark = needs_gpu

FAMILIES = ["olmoe", "mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"]
EVERY = pytest.mark.parametrize("family", FAMILIES)


def generated(model, *, padding: int = 0, new_tokens: int = 4) -> list[torch.Tensor]:
    """Return what is generated greedily with a cache, and the logits of each step."""
    ids_BT = tokens().to(DEVICE)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[0, :padding] = 0
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    out = model.generate(input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=new_tokens, **options)
    return [out.sequences, *out.logits]


@EVERY
def test_a_familys_own_rule_put_in_changes_no_bit(family) -> None:
    model = decisive(family).to(DEVICE)
    for layer in GateHook(model, needs_rules=False).layers:
        if getattr(layer.gate, "bias", None) is not None:
            torch.nn.init.zeros_(layer.gate.get_parameter("bias"))
    plain = generated(model)
    assert equal(generated(model), plain), "the model itself is not the same twice"
    swap = GateSwap(model, lambda layer: own_rule(layer).to(DEVICE))
    found = generated(model)
    if family == "gpt_oss" and IS_CUDA:
        # Its gate adds a bias, in another product of cuBLAS.
        assert torch.equal(found[0], plain[0])
        assert all(far(one, other) < 1e-5 for one, other in zip(found[1:], plain[1:], strict=True))
    else:
        assert equal(found, plain)
    swap.gates[0].get_parameter("weight_ED").data.neg_()
    assert not equal(generated(model)[1:], plain[1:])
    swap.remove()
    assert equal(generated(model), plain)
    refuse_arrived(wait=True)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_was_recorded_is_replayed_bit_for_bit(family, dtype, tmp_path: Path) -> None:
    model = decisive(family).to(DEVICE, dtype)
    hook = GateHook(model, needs_rules=False)
    plain = generated(model, padding=3)
    with hook.recording() as records:
        assert equal(generated(model, padding=3), plain)
    with torch.no_grad():
        for layer in hook.layers:
            for parameter in layer.gate.parameters():
                parameter.neg_()
    assert not equal(generated(model, padding=3)[1:], plain[1:])
    for recorded in (records, load_routings(save_routings(tmp_path / "one.safetensors", records))):
        with replaying(hook, recorded):
            assert equal(generated(model, padding=3), plain)


@pytest.mark.parametrize(
    ("family", "gate", "config"),
    [
        ("olmoe", "top_p", {}),
        ("mixtral", "relu", {}),
        ("qwen3_moe", "switch", {}),
        ("deepseek_v3", "loss_free", {}),
        ("gpt_oss", "recurrent", {"num_layers": 3, "is_shared": True}),
    ],
)
def test_trained_saved_and_put_on_a_fresh_base_it_generates_the_same_bits(
    family, gate, config, tmp_path
) -> None:
    model = decisive(family).to(DEVICE).train()
    swap = GateSwap.of(model, gate, **config)
    optimizer = torch.optim.AdamW([*model.parameters(), *swap.parameters()], lr=0.01)
    model_before = {name: value.clone() for name, value in model.state_dict().items()}
    ids_BT = tokens().to(DEVICE)
    for _ in range(2):
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss + swap.losses()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        swap.after_step()
    model.load_state_dict(model_before)
    swap.save(tmp_path)
    expected = generated(model.eval(), padding=3)
    fresh = decisive(family).to(DEVICE)
    assert not equal(generated(fresh, padding=3)[1:], expected[1:])
    again = GateSwap.load(fresh, tmp_path)
    assert {p.device.type for p in again.parameters()} == {DEVICE.type}
    assert equal(generated(fresh, padding=3), expected)
    again.remove()
    # The side file knows no device.
    GateSwap.load(decisive(family), tmp_path)


@pytest.mark.skipif(not IS_CUDA, reason="there is one device")
def test_gates_on_another_device_than_the_model_are_refused() -> None:
    model = decisive("olmoe").to(DEVICE)
    gate = TopKGate(width=32, num_experts=8)
    with pytest.raises(InputError, match="several devices"):
        GateSwap(model, lambda _layer: gate)


def test_nan_in_a_checkpoint_is_refused() -> None:
    model = decisive("mixtral").to(DEVICE)
    hook = GateHook(model, needs_rules=False)
    hook.layers[0].gate.get_parameter("weight").data[0, 0] = torch.nan
    with pytest.raises(InputError, match="are NaN or infinite"), hook.recording():
        model(input_ids=tokens().to(DEVICE))


def test_what_a_model_decides_there_is_inspected_here() -> None:
    batches, found = [tokens(), tokens(seed=1)], []
    for device in (torch.device("cpu"), DEVICE):
        model = decisive("olmoe").to(device)
        found.append(record_model(model, [ids_BT.to(device) for ids_BT in batches], domains=list("abab")))
    same = sum(float((a == b).double().mean()) for a, b in zip(found[0].chosen, found[1].chosen, strict=True))
    assert same / len(found[0].chosen) > 0.99
    inspection = inspect_recording(found[1], name="olmoe", rng=make_rng(0, "inspected"))
    assert "Load of experts" in {table.title for table in inspection.tables}


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_depth_is_routed_on_the_device(family) -> None:
    model = families.make(family).to(DEVICE)
    ids_BT, mask_BT = (part.to(DEVICE) for part in families.prompts())
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
    options = {"do_sample": False, "max_new_tokens": 5, "eos_token_id": None}
    with torch.no_grad():
        plain = [model(**inputs).logits, model.generate(**inputs, **options)]
        routed = RoutedDepth(model=model)
        counts_BL = families.random_counts(len(ids_BT))
        with routed.forced(torch.ones_like(counts_BL)):
            same = [model(**inputs).logits, model.generate(**inputs, **options)]
        assert equal(same, plain)
        with routed.forced(counts_BL):
            mixed = model(**inputs).logits
        for row in range(len(ids_BT)):
            with routed.forced(counts_BL[row : row + 1]):
                alone = model(input_ids=ids_BT[row : row + 1], attention_mask=mask_BT[row : row + 1]).logits
            is_real = mask_BT[row].bool()
            assert far(mixed[row][is_real], alone[0][is_real]) < 1e-4
        assert not torch.equal(mixed, plain[0])


def test_a_depth_router_decides_on_the_device() -> None:
    model = families.make("llama").to(DEVICE)
    ids_BT, mask_BT = (part.to(DEVICE) for part in families.prompts())
    routed = RoutedDepth(model=model, router=FixedDepth(counts=(1, 0, 1, 1)))
    options = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}
    with torch.no_grad():
        found = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    assert found.shape == (len(ids_BT), ids_BT.shape[1] + 4)


def test_adapters_switch_by_batch_and_by_token_on_the_device() -> None:
    ids_BT, found = helpers.tokens(), []
    for device in (torch.device("cpu"), DEVICE):
        pool = helpers.pool()
        pool.model.to(device)
        rows = []
        for router in (SingleAdapter(name="b"), PhatgooseRouter(), None):
            pool.router = router
            rows.append(helpers.logits(pool, ids_BT.to(device)))
        found.append(rows)
    assert far(found[0][0], found[0][2]) > 1e-3
    for one, other in zip(*found, strict=True):
        assert other.device.type == DEVICE.type
        assert far(other, one) < 1e-4
