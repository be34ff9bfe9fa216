from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.nn.moe_models import decisive, tokens
from turnout.cli.main import main
from turnout.core.errors import ArtifactError, InputError, ShapeError
from turnout.nn.analysis.load import load_of
from turnout.nn.analysis.recording import record_model
from turnout.nn.analysis.routings import from_routings, read_recording
from turnout.nn.gate_hook import GateHook
from turnout.nn.gate_swap import GateSwap
from turnout.nn.plan import SparsePlan
from turnout.nn.replay import save_routings


def test_passes_become_what_the_model_s_own_recording_holds(tmp_path: Path) -> None:
    model, batches = decisive("olmoe"), [tokens(seed=0), tokens(seed=1)]
    with GateHook(model).recording() as records:
        for ids_BT in batches:
            model(input_ids=ids_BT)
    expected = record_model(model, batches)
    found = read_recording(save_routings(tmp_path / "passes.safetensors", records))
    assert found.mask_BS is None
    for name in ("chosen", "probs"):
        for one, other in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert torch.equal(one, other)
    again = read_recording(expected.save(tmp_path / "own.safetensors"))
    assert torch.equal(again.chosen[2], expected.chosen[2])
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="a recording in safetensors"):
        read_recording(tmp_path / "x.safetensors")


def test_steps_with_a_cache_go_on_with_their_sequences() -> None:
    model, ids_BT = decisive("olmoe"), tokens()
    given = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "do_sample": False}
    with GateHook(model).recording() as records:
        model.generate(**given, max_new_tokens=4, min_new_tokens=4)
        out = model.generate(**given, max_new_tokens=2, min_new_tokens=2)
    found = from_routings(records)
    # The last token of each is not run through the model again.
    assert found.chosen[0].shape == (4, 15, 8)
    assert found.mask_BS is not None
    assert found.mask_BS.sum(dim=1).tolist() == [15, 15, 13, 13]
    whole = record_model(model, [out[:, :-1]])
    for mine, its in zip(found.chosen, whole.chosen, strict=True):
        assert torch.equal(mine[2:, :13], its)


@pytest.mark.parametrize("is_left", [False, True])
def test_padding_of_a_pass_is_kept_with_it(tmp_path: Path, is_left) -> None:
    model, ids_BT = decisive("olmoe"), tokens()
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, slice(3) if is_left else slice(9, None)] = 0
    with GateHook(model).recording() as records:
        model(input_ids=ids_BT, attention_mask=mask_BT)
        model(input_ids=ids_BT)
    found = read_recording(save_routings(tmp_path / "padded.safetensors", records))
    expected = record_model(model, [ids_BT], mask=[mask_BT])
    assert found.mask_BS is not None
    assert torch.equal(found.mask_BS[:2], mask_BT.bool())
    assert bool(found.mask_BS[2:].all())
    first = replace(found, chosen=tuple(c[:2] for c in found.chosen), probs=(), mask_BS=found.mask_BS[:2])
    assert torch.equal(load_of(first.tokens(1)), load_of(expected.tokens(1)))
    # What stands at padding may be anything.
    lost = [replace(passes[0], logits_TE=passes[0].logits_TE.clone()) for passes in records]
    lost[1].logits_TE[12 if is_left else 23] = torch.nan
    from_routings([[one] for one in lost])


def test_padding_before_a_prompt_is_not_that_of_its_answer() -> None:
    model, ids_BT = decisive("olmoe"), tokens()
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[0, :4] = 0
    with GateHook(model).recording() as records:
        model.generate(
            input_ids=ids_BT, attention_mask=mask_BT, do_sample=False, max_new_tokens=3, min_new_tokens=3
        )
    found = from_routings(records)
    assert found.mask_BS is not None
    assert found.mask_BS.sum(dim=1).tolist() == [10, 14]
    assert not bool(found.mask_BS[0, :4].any())


def test_the_command_counts_no_hole(tmp_path: Path, capsys) -> None:
    model = decisive("olmoe")
    swap = GateSwap.of(model, "top_p", p=0.3)
    for gate in swap.gates:
        gate.get_parameter("weight_ED").data *= 20
    with GateHook(model, needs_rules=False).recording() as records:
        model(input_ids=tokens(batch=4, length=32))
    path = save_routings(tmp_path / "uneven.safetensors", records)
    assert main(["nn", "inspect", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["models"][0]["tables"]
    loads = next(table for table in tables if table["title"] == "Load of experts")["rows"]
    for row, plan in zip(loads, swap.plans, strict=True):
        assert isinstance(plan, SparsePlan)
        assert row["total"] == plan.num_pairs
    found = read_recording(path)
    assert isinstance(swap.plans[0], SparsePlan)
    assert torch.equal(load_of(found.tokens(0)), swap.plans[0].counts_E)


def test_passes_that_make_no_recording_are_refused() -> None:
    model = decisive("olmoe")
    with GateHook(model).recording() as records:
        model(input_ids=tokens())
    for layers in (0, 3):
        with pytest.raises(InputError, match="a pass in every layer"):
            from_routings([[]] * layers)
    with pytest.raises(ShapeError, match="layers that differ"):
        from_routings([records[0], records[1], records[2] * 2])
    lost = replace(records[1][0], logits_TE=records[1][0].logits_TE * torch.nan)
    with pytest.raises(InputError, match=r"layer 1, pass 1; allowed: numbers"):
        from_routings([records[0], [lost], records[2]])
