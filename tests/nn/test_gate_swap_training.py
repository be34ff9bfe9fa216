"""Swapped gates beside adapters, and in training loops that know nothing of them."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from tests.nn.moe_models import begun_alike, decisive, tokens
from turnout.core.errors import ArtifactError
from turnout.nn.gate_swap import GateSwap
from turnout.nn.left_out import LeftOut
from turnout.nn.stock_names import stock_name

# peft asks `transformers` by a name that it calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

LORA = {"q_proj": LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)}
LORA["head"] = LoraConfig(
    r=2, target_modules=["v_proj"], modules_to_save=["lm_head"], init_lora_weights=False
)
LORA["experts"] = LoraConfig(
    r=2, target_parameters=["experts.gate_up_proj", "experts.down_proj"], init_lora_weights=False
)


def adapted(model: PreTrainedModel, name: str = "q_proj") -> PeftModel:
    return get_peft_model(model, LORA[name])


@pytest.mark.parametrize("name", list(LORA))
@pytest.mark.parametrize("is_first", [True, False])
def test_a_side_file_loads_on_the_base_with_and_without_adapters(is_first, name, tmp_path) -> None:
    model = decisive("olmoe")
    if is_first:
        swap = GateSwap.of(model, "top_k", k=3)
        both = adapted(model, name)
    else:
        both = adapted(model, name)
        swap = GateSwap.of(both, "top_k", k=3)
    swap.save(tmp_path)
    both.save_pretrained(tmp_path)
    expected = both(input_ids=tokens()).logits

    base = decisive("olmoe")
    GateSwap.load(base, tmp_path).remove()
    stacked = PeftModel.from_pretrained(base, tmp_path)
    for target in (stacked, stacked.base_model.model):
        again = GateSwap.load(target, tmp_path)
        assert torch.equal(stacked(input_ids=tokens()).logits, expected)
        again.remove()
    with pytest.raises(ArtifactError, match="another base"):
        GateSwap.load(adapted(decisive("olmoe", seed=1), name), tmp_path)


def test_stock_names_leave_out_what_adapters_brought() -> None:
    base = dict(decisive("olmoe").named_parameters())
    for name in LORA:
        both = adapted(decisive("olmoe"), name)
        found = [stock_name(both, path) for path, _ in both.named_parameters()]
        assert {path for path in found if path is not None} == base.keys()
        assert None in found


def train(model: PreTrainedModel, *groups: list[torch.nn.Parameter]) -> None:
    """Two steps of an optimiser."""
    optimiser = torch.optim.AdamW([p for group in groups for p in group], lr=1e-2)
    for _ in range(3):
        model(input_ids=tokens(), labels=tokens()).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def test_a_loop_that_leaves_the_gates_out_is_told_so_once() -> None:
    model = decisive("olmoe").train()
    swap = GateSwap.of(model, "top_k")
    with pytest.warns(LeftOut, match="leaves the gates of its GateSwap out") as told:
        train(model, list(model.parameters()))
    assert len([one for one in told if one.category is LeftOut]) == 1
    swap.remove()


@pytest.mark.parametrize("who", ["both", "gates", "frozen", "nobody"])
def test_nobody_is_warned_without_need(who: str) -> None:
    model = decisive("olmoe").train()
    swap = GateSwap.of(model, "top_k")
    own, theirs = list(swap.parameters()), list(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOut)
        if who == "both":
            train(model, theirs, own)
        elif who == "gates":
            train(model, own)
        elif who == "frozen":
            swap.requires_grad_(requires_grad=False)
            train(model, theirs)
        else:
            # Gradients of many micro-batches are gathered.
            for _ in range(3):
                model(input_ids=tokens(), labels=tokens()).loss.backward()


@pytest.mark.parametrize("order", ["sum", "one by one", "a reference between"])
@pytest.mark.parametrize("is_begun_alike", [False, True])
@pytest.mark.parametrize(("gate", "options"), [("top_k", {}), ("recurrent", {"is_shared": True})])
def test_passes_that_wait_keep_their_padding_under_checkpointing(
    gate, options, order, is_begun_alike
) -> None:
    batches = begun_alike() if is_begun_alike else (tokens(), tokens().flip(1))
    masks = [torch.ones_like(ids_BS) for ids_BS in batches]
    if is_begun_alike:
        masks[0][::2, 10:], masks[1][1::2, 10:] = 0, 0
    else:
        masks[0][0, :3], masks[1][1, :2] = 0, 0
    grads = []
    for is_checkpointed in (False, True):
        model = decisive("olmoe")
        torch.manual_seed(0)
        swap = GateSwap.of(model.train(), gate, **options)
        if is_checkpointed:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        losses = []
        for ids_BS, mask_BS in zip(batches, masks, strict=True):
            losses.append(model(input_ids=ids_BS, attention_mask=mask_BS, labels=ids_BS).loss)
            if order == "a reference between":
                with torch.no_grad():
                    model(input_ids=ids_BS.flip(0))
        if order == "one by one":
            for loss in losses:
                loss.backward()
        else:
            torch.stack(losses).sum().backward()
        parameters = [*model.named_parameters(), *swap.named_parameters()]
        grads.append({name: p.grad for name, p in parameters if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, expected in grads[0].items():
        assert torch.allclose(grads[1][name], expected, rtol=1e-4, atol=1e-6), name
