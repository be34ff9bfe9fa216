from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.nn.gate_models import sharp
from tests.nn.moe_models import decisive, tokens
from turnout.core.errors import ArtifactError, InputError, ShapeError
from turnout.nn.analysis.recording import Recording, chosen_of, record_model
from turnout.nn.gate_hook import GateHook


def test_indices_become_sets() -> None:
    chosen_TE = chosen_of(torch.tensor([[0, 2], [1, -1], [-1, -1]]), 3)
    assert chosen_TE.tolist() == [[True, False, True], [False, True, False], [False, False, False]]
    for bad in (3, -2):
        with pytest.raises(InputError, match="-1 to 2"):
            chosen_of(torch.tensor([[bad]]), 3)


def test_a_model_is_recorded_as_its_gates_decide() -> None:
    model = decisive("olmoe")
    recording = record_model(model, [tokens(seed=0), tokens(seed=1)], domains=["a", "a", "b", "b"])
    assert recording.num_layers == 3
    assert recording.chosen[0].shape == (4, 12, 8)
    assert bool((recording.chosen[0].sum(dim=-1) == 2).all())
    assert recording.token_ids_BS is not None
    assert torch.equal(recording.token_ids_BS, torch.cat([tokens(seed=0), tokens(seed=1)]))
    # The two experts of a softmax gate are those of the greatest probability.
    for chosen_BSE, probs_BSE in zip(recording.chosen, recording.probs, strict=True):
        assert torch.equal(chosen_of(probs_BSE.topk(2, dim=-1)[1], 8), chosen_BSE)


def test_a_family_without_a_known_rule_is_recorded_too() -> None:
    recording = record_model(sharp("dbrx"), [tokens()])
    assert bool((recording.chosen[0].sum(dim=-1) == 2).all())
    assert recording.probs[0].shape == (2, 12, 8)


def test_nothing_but_padding_and_logits_that_are_no_numbers_are_refused() -> None:
    model = decisive("olmoe")
    with pytest.raises(InputError, match="batch 1 is all padding"):
        record_model(model, [tokens(), tokens()], mask=[torch.ones(2, 12), torch.zeros(2, 12)])
    model.model.layers[1].mlp.gate.weight.data[3] = float("nan")
    with pytest.raises(InputError, match=r"layers.1.mlp: logits of 24 of T = 24 tokens are NaN"):
        record_model(model, [tokens()])


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    mask_BS = torch.ones(4, 12, dtype=torch.bool)
    mask_BS[1, 9:] = False
    made = record_model(decisive("olmoe"), [tokens(batch=4)], domains=list("abab"), mask=[mask_BS.long()])
    back = Recording.load(made.save(tmp_path / "one.safetensors"))
    assert back.domains == made.domains
    assert back.layers == made.layers
    for name in ("chosen", "probs"):
        for one, other in zip(getattr(made, name), getattr(back, name), strict=True):
            assert torch.equal(one, other)
    assert back.mask_BS is not None
    assert torch.equal(back.mask_BS, mask_BS)
    assert back.tokens(0).shape == (45, 8)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="a recording in safetensors"):
        Recording.load(tmp_path / "x.safetensors")
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "y.safetensors")
    with pytest.raises(ArtifactError, match="turnout-routing-1"):
        Recording.load(tmp_path / "y.safetensors")


def test_parts_that_do_not_fit_are_refused() -> None:
    chosen_BSE = torch.zeros(2, 3, 4, dtype=torch.bool)
    with pytest.raises(InputError, match="a tensor per layer"):
        Recording(chosen=())
    with pytest.raises(ShapeError, match=r"\(2, 3, E\)"):
        Recording(chosen=(chosen_BSE, chosen_BSE[:, :2]))
    with pytest.raises(ShapeError, match=r"mask_BS; allowed: \(B, S\) = \(2, 3\)"):
        Recording(chosen=(chosen_BSE,), mask_BS=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ShapeError, match="2 names"):
        Recording(chosen=(chosen_BSE,), domains=("a",))
    with pytest.raises(ShapeError, match="the shapes of chosen"):
        Recording(chosen=(chosen_BSE,), probs=(torch.ones(2, 3, 5),))


def test_a_recording_has_a_token() -> None:
    for chosen_BSE, mask_BS in (
        (torch.ones(2, 0, 4, dtype=torch.bool), None),
        (torch.ones(2, 3, 4, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)),
    ):
        with pytest.raises(InputError, match="one that is no padding; got: 'none'"):
            Recording(chosen=(chosen_BSE,), mask_BS=mask_BS)


def test_what_falls_to_columns_of_no_expert_is_missing_in_the_probabilities() -> None:
    """A gate may have outputs that are no expert of its block: they have a part of the softmax."""
    model = decisive("olmoe")
    for block in model.model.layers:
        weight_ED = block.mlp.gate.weight.detach()
        # The mean of eight is not among the two largest here, so that none of these is chosen.
        mean_ED = weight_ED.mean(dim=0).expand(2, -1)
        block.mlp.gate.weight = torch.nn.Parameter(torch.cat([weight_ED, mean_ED]))
    hook = GateHook(model, needs_rules=False)
    with torch.no_grad(), hook.recording() as records:
        model(input_ids=tokens())
    recording = record_model(model, [tokens()])
    for probs_BSE, passes in zip(recording.probs, records, strict=True):
        assert passes[0].logits_TE.shape[1] == 10
        expected_TE = passes[0].logits_TE.softmax(dim=-1)[:, :8]
        assert torch.allclose(probs_BSE.flatten(0, 1), expected_TE, atol=1e-6)
        assert bool((probs_BSE.sum(dim=-1) < 0.999).any())
