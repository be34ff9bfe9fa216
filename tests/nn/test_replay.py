"""What was decided once is decided again, whatever the gate has become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.nn.moe_models import FAMILIES, begun_alike, decisive, tokens
from turnout.core.errors import ArtifactError, InputError, ShapeError
from turnout.nn.gate_hook import GateHook
from turnout.nn.replay import load_routings, replaying, save_routings
from turnout.nn.rollouts import joined


@pytest.fixture(params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return decisive(request.param)


def disturb(hook: GateHook) -> None:
    """Make gates that decide otherwise."""
    with torch.no_grad():
        for layer in hook.layers:
            for parameter in layer.gate.parameters():
                parameter.neg_()


def test_the_output_is_that_of_the_recording_bit_for_bit_after_the_gates_changed(
    model, tmp_path: Path
) -> None:
    hook = GateHook(model, needs_rules=False)
    assert hook.rules == []
    ids_BT = tokens()
    with hook.recording() as records:
        plain = model(input_ids=ids_BT).logits
    disturb(hook)
    assert not torch.equal(model(input_ids=ids_BT).logits, plain)
    loaded = load_routings(save_routings(tmp_path / "routings.safetensors", records))
    with replaying(hook, loaded):
        assert torch.equal(model(input_ids=ids_BT).logits, plain)


def test_generation_with_a_cache_is_replayed_pass_by_pass() -> None:
    model = decisive("olmoe")
    hook, ids_BT = GateHook(model), tokens()
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids_BT)}
    with hook.recording() as records:
        plain = model.generate(input_ids=ids_BT, **options)
    disturb(hook)
    with replaying(hook, records):
        assert torch.equal(model.generate(input_ids=ids_BT, **options), plain)
    assert len(records[0]) == 6


def test_what_was_chosen_while_an_answer_was_written_is_replayed_over_the_whole_text(model) -> None:
    hook, ids_BS = GateHook(model), tokens()
    mask_BS = torch.ones_like(ids_BS)
    mask_BS[1, :4] = 0
    options = {"max_new_tokens": 6, "do_sample": True, "return_dict_in_generate": True}
    torch.manual_seed(0)
    with hook.recording() as records:
        written = model.generate(
            input_ids=ids_BS, attention_mask=mask_BS, output_logits=True, eos_token_id=63, **options
        )
    whole_BS = written.sequences
    length = whole_BS.shape[1]
    disturb(hook)
    every_BS = torch.cat([mask_BS, mask_BS.new_ones(2, length - mask_BS.shape[1])], 1)
    for is_last_read in (True, False):
        of_BS = whole_BS if is_last_read else whole_BS[:, :-1]
        passes = joined(records, length=of_BS.shape[1])
        positions_BS = (every_BS.cumsum(1) - 1).clamp(min=0)[:, : of_BS.shape[1]]
        with replaying(hook, passes), hook.recording() as again:
            found_BSV = model(
                input_ids=of_BS,
                attention_mask=every_BS[:, : of_BS.shape[1]],
                position_ids=positions_BS,
            ).logits
        assert torch.equal(again[0][0].indices_TK, passes[0][0].indices_TK)
        wanted_BSV = torch.stack(written.logits, 1)
        assert torch.allclose(found_BSV[:, 11 : length - 1], wanted_BSV, rtol=1e-3, atol=1e-4)
    with replaying(hook, joined(records, length=length), weights="current"):
        model(input_ids=whole_BS, labels=whole_BS).loss.backward()
    gate = hook.layers[0].gate
    assert any(bool(p.grad.any()) for p in gate.parameters() if p.grad is not None)


def test_passes_that_do_not_belong_together_are_not_joined() -> None:
    model = decisive("olmoe")
    hook = GateHook(model)
    with hook.recording() as records:
        model(input_ids=tokens())
        model(input_ids=tokens(batch=3))
    with pytest.raises(ShapeError, match=r"layer 0: items; allowed: \(B,\) the same"):
        joined(records)
    one = [passes[:1] for passes in records]
    assert torch.equal(joined(one)[0][0].indices_TK, one[0][0].indices_TK)
    with pytest.raises(ShapeError, match="12 positions, as recorded, or one more; got: 14"):
        joined(one, length=14)
    with pytest.raises(InputError, match="no pass"):
        joined([[]])
    with pytest.raises(InputError, match="no B"):
        joined([[replace(one[0][0], batch_size=None)]])


def test_current_weights_are_those_of_the_gate_now_and_have_its_gradient(model) -> None:
    hook, ids_BT = GateHook(model), tokens()
    with hook.recording() as records:
        plain = model(input_ids=ids_BT).logits
    with replaying(hook, records, weights="current"):
        assert torch.equal(model(input_ids=ids_BT).logits, plain)
    disturb(hook)
    with replaying(hook, records, weights="current"), hook.recording() as again:
        loss = model(input_ids=ids_BT, labels=ids_BT).loss
    assert torch.equal(again[0][0].indices_TK, records[0][0].indices_TK)
    assert not torch.equal(again[0][0].weights_TK, records[0][0].weights_TK)
    loss.backward()
    weight = next(p for p in hook.layers[0].gate.parameters() if p.ndim == 2)
    assert weight.grad is not None
    assert bool(weight.grad.any())


@pytest.mark.parametrize("is_begun_alike", [False, True])
@pytest.mark.parametrize("is_first_first", [False, True])
@pytest.mark.parametrize("is_reentrant", [False, True])
def test_training_on_what_was_recorded_is_the_same_under_checkpointing(
    is_reentrant: bool, is_first_first: bool, is_begun_alike: bool
) -> None:
    batches: tuple[Tensor, ...] = tokens(), tokens().flip(1)
    if is_begun_alike:
        batches = begun_alike()
    grads, counts = [], []
    for is_checkpointed in (False, True):
        model = decisive("olmoe").train()
        hook = GateHook(model)
        with torch.no_grad(), hook.recording() as records:
            for ids_BT in batches:
                model(input_ids=ids_BT)
        disturb(hook)
        if is_checkpointed:
            model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": is_reentrant}
            )
        with replaying(hook, records, weights="current"), hook.recording() as again:
            losses = [model(input_ids=ids_BT, labels=ids_BT).loss for ids_BT in batches]
            if is_first_first:
                for loss in losses:
                    loss.backward()
            else:
                # Both passes wait for one backward pass, which computes the second one first.
                torch.stack(losses).sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        counts.append([len(passes) for passes in again])
        for passes, recorded in zip(again, records, strict=True):
            for one, was in zip(passes, recorded, strict=True):
                assert torch.equal(one.indices_TK, was.indices_TK)
    assert counts[0] == counts[1] == [2] * 3
    assert grads[0].keys() == grads[1].keys()
    for name, expected in grads[0].items():
        assert torch.allclose(grads[1][name], expected, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("is_reentrant", [False, True])
def test_passes_of_the_same_states_with_other_records_are_refused_under_checkpointing(is_reentrant) -> None:
    model = decisive("olmoe").train()
    hook = GateHook(model)
    with torch.no_grad(), hook.recording() as records:
        model(input_ids=tokens())
        model(input_ids=tokens())
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": is_reentrant})
    for is_same in (True, False):
        if not is_same:
            records[0][1] = replace(records[0][1], indices_TK=records[0][1].indices_TK.flip(0))
        with replaying(hook, records):
            losses = [model(input_ids=tokens(), labels=tokens()).loss for _ in range(2)]
            if is_same:
                torch.stack(losses).sum().backward()
                continue
            with pytest.raises(InputError, match="two passes of the same states wait"):
                torch.stack(losses).sum().backward()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = decisive("olmoe")
    hook = GateHook(model)
    with hook.recording() as records:
        model(input_ids=tokens())
    with replaying(hook, records):
        model(input_ids=tokens())
        with pytest.raises(InputError, match="1 passes, as were recorded"):
            model(input_ids=tokens())
    with replaying(hook, records), pytest.raises(ShapeError, match="as recorded"):
        model(input_ids=tokens(length=5))
    loaded = load_routings(save_routings(tmp_path / "r.safetensors", records))
    for kept in (records, loaded):
        with replaying(hook, kept), pytest.raises(InputError, match="token ids"):
            model(input_ids=tokens().flip(1))
    for one in ({"inputs_embeds": model.get_input_embeddings()(tokens())}, {"input_ids": tokens()}):
        with replaying(hook, loaded):
            model(**one)
    with replaying(hook, records), pytest.raises(ShapeError, match=r"\(B,\) = \(2,\)"):
        model(input_ids=tokens().reshape(1, -1))
    few = [[replace(one, logits_TE=one.logits_TE[:, 1:]) for one in passes] for passes in records]
    with replaying(hook, few), pytest.raises(ShapeError, match=r"\(E,\) = \(7,\), as recorded; got: \(8,\)"):
        model(input_ids=tokens())
    with pytest.raises(InputError, match="one list for each of 3 layers"), replaying(hook, records[:1]):
        pass
    bare = GateHook(model, needs_rules=False)
    with pytest.raises(InputError, match="rules"), replaying(bare, records, weights="current"):
        pass
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError):
        load_routings(tmp_path / "no.safetensors")


def test_experts_that_a_layer_does_not_have_are_refused_before_a_pass(model) -> None:
    hook, ids_BT = GateHook(model, needs_rules=False), tokens()
    with hook.recording() as records:
        model(input_ids=ids_BT)
    wrong_TK = records[-1][0].indices_TK.clone()
    for expert in (hook.layers[-1].num_experts + 40, -2):
        wrong_TK[3, 0] = expert
        changed = [*records[:-1], [replace(records[-1][0], indices_TK=wrong_TK)]]
        with (
            pytest.raises(
                InputError, match=rf"experts of layer {len(records) - 1}, pass 1; .*got: .*{expert}"
            ),
            replaying(hook, changed),
        ):
            model(input_ids=ids_BT)
