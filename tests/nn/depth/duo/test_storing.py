from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.nn.depth.duo.setup import make_batch, make_choice, make_duo, make_ids
from turnout.core.errors import ArtifactError
from turnout.nn.depth.duo import DuoModel, load, save, train_modules, train_routers
from turnout.nn.depth.duo.storing import base_fingerprint
from turnout.nn.tiny import tiny_llama


def test_what_is_saved_beside_the_base_comes_back(tmp_path: Path) -> None:
    duo, batch = make_duo(allow_skip=True, bias=True), make_batch()
    train_modules(duo, lambda: batch, steps=2)
    train_routers(duo, lambda: batch, target=0.5, steps=2)
    save(duo, tmp_path, has_base=True)
    assert duo.is_wrapped()
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not [name for name, _ in stock.named_parameters() if "small" in name or "big" in name]
    again = load(stock, tmp_path)
    ids_BT, choice_BTL = make_ids(2, 6), make_choice(2, 6, choices=3)
    with torch.no_grad():
        assert again.is_routed
        assert torch.equal(duo.model(input_ids=ids_BT).logits, stock(input_ids=ids_BT).logits)
        with duo.forced(choice_BTL), again.forced(choice_BTL):
            assert torch.equal(duo.model(input_ids=ids_BT).logits, stock(input_ids=ids_BT).logits)


def test_another_base_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    save(make_duo(), tmp_path)
    other = tiny_llama(vocab_size=30, width=32, layers=4, heads=2, seed=1)
    kind = type(other.model.layers[0].mlp)
    with pytest.raises(ArtifactError, match="belong to another base"):
        load(other, tmp_path)
    assert type(other.model.layers[0].mlp) is kind


def test_weights_in_another_form_are_taken_where_somebody_vouches_for_them(tmp_path: Path) -> None:
    duo = make_duo()
    save(duo, tmp_path)
    coarse = duo.unwrap()
    with torch.no_grad():
        for weight in coarse.parameters():
            weight.copy_((weight * 64).round() / 64)
    with pytest.raises(ArtifactError, match="is_same_base=True"):
        load(coarse, tmp_path)
    again = load(coarse, tmp_path, is_same_base=True)
    ids_BT = torch.arange(4, 12)[None]
    with again.forced([0] * again.num_layers):
        assert again.model(input_ids=ids_BT).logits.isfinite().all()
    with pytest.raises(ArtifactError, match="do not fit"):
        load(tiny_llama(vocab_size=30, width=16, layers=4, heads=2), tmp_path, is_same_base=True)


def test_the_fingerprint_is_of_the_base_wrapped_or_not() -> None:
    model = tiny_llama(vocab_size=30, width=32, layers=2)
    bare = base_fingerprint(model)
    duo = make_duo()
    wrapped = base_fingerprint(duo.model)
    with torch.no_grad():
        duo.layers[0].small.get_parameter("down_proj.weight").add_(1.0)
    assert base_fingerprint(duo.model) == wrapped == base_fingerprint(duo.unwrap())
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    assert base_fingerprint(model) != bare


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    duo = make_duo()
    path = save(duo, tmp_path)
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["config"]["divisor"] = 4
    path.write_text(json.dumps(manifest), encoding="utf-8")
    model = duo.unwrap()
    with pytest.raises(ArtifactError, match="do not fit"):
        load(model, tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="no readable 'duo'"):
        load(model, tmp_path)


def test_what_is_saved_of_a_wrapped_model_is_the_base(tmp_path: Path) -> None:
    """By its own `save_pretrained`, as a trainer's checkpoint does, and then it goes on as it was."""
    duo = make_duo()
    ids_BT = make_ids(2, 6)
    with torch.no_grad():
        base = duo.model(input_ids=ids_BT).logits
        with duo.forced([0] * duo.num_layers):
            small = duo.model(input_ids=ids_BT).logits
        duo.model.save_pretrained(tmp_path, state_dict=duo.model.state_dict())
        again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(again(input_ids=ids_BT).logits, base)
        with duo.forced([0] * duo.num_layers):
            assert torch.equal(duo.model(input_ids=ids_BT).logits, small)
    model = duo.unwrap()
    assert "save_pretrained" not in vars(model)


def test_a_state_dict_has_the_base_under_its_own_names() -> None:
    duo, ids_BT = make_duo(allow_skip=True), make_ids(2, 6)
    own = list(duo.unwrap().state_dict())
    duo = DuoModel(duo.model, allow_skip=True, seed=3)
    state = duo.model.state_dict()
    others = [name for name in state if name not in own]
    assert [name for name in state if name in own] == own
    assert others
    assert {name.split(".")[4] for name in others} == {"small", "router"}
    with torch.no_grad():
        wanted = duo.model(input_ids=ids_BT).logits
        with duo.forced([0] * duo.num_layers):
            small = duo.model(input_ids=ids_BT).logits
    base = tiny_llama(vocab_size=30, width=32, layers=4, heads=2, seed=7)
    assert base.load_state_dict(state, strict=False).missing_keys == []
    assert torch.equal(base(input_ids=ids_BT).logits, wanted)
    # Back into a wrapped model: what the base holds, and all of it under the names of before.
    other = make_duo(allow_skip=True, seed=5)
    found = other.model.load_state_dict({name: state[name] for name in own}, strict=False)
    assert sorted(found.missing_keys) == sorted(others)
    assert not found.unexpected_keys
    assert torch.equal(other.model(input_ids=ids_BT).logits, wanted)
    before = {
        name.replace(".mlp.", ".mlp.big.") if name in own else name: value for name, value in state.items()
    }
    other.model.load_state_dict(before)
    with other.forced([0] * other.num_layers):
        assert torch.equal(other.model(input_ids=ids_BT).logits, small)
