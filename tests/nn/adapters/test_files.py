from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.nn.adapters import helpers
from turnout.core.errors import ArtifactError, InputError
from turnout.nn.adapters import AdapterPool, read_lora, write_lora

IDS = helpers.tokens()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 3}},
        {"lora_dropout": 0.3, "r": 1},
    ],
)
def test_an_adapter_of_peft_gives_its_outputs_and_goes_back(tmp_path: Path, options: dict) -> None:
    folder = helpers.peft_saved(tmp_path / "theirs", **options)
    truth = helpers.peft_logits(folder, IDS)
    pool = AdapterPool(model=helpers.base())
    name = pool.load(folder)
    with pool.only(name):
        ours = helpers.logits(pool, IDS)
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)
    assert (ours - helpers.base()(IDS).logits).abs().max() > 1e-3
    back = pool.export(name, tmp_path / "ours")
    torch.testing.assert_close(helpers.peft_logits(back, IDS), truth, rtol=1e-5, atol=1e-6)


def test_mixed_ranks_in_one_adapter_survive_peft(tmp_path: Path) -> None:
    parts = dict(helpers.lora("a", rank=4).parts)
    first = sorted(parts)[0]
    parts[first] = helpers.lora("a", rank=2, seed=5).parts[first]
    pool = AdapterPool(model=helpers.base())
    pool.add(type(helpers.lora("a"))(name="a", parts=parts))
    with pool.only("a"):
        ours = helpers.logits(pool, IDS)
    theirs = helpers.peft_logits(pool.export("a", tmp_path / "a"), IDS)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("fan_in_fan_out", True),
        ("layer_replication", [[0, 1]]),
        ("something_of_tomorrow", {"x": 1}),
    ],
)
def test_what_would_change_the_outputs_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = write_lora(helpers.lora("a"), tmp_path / "a")
    edit(folder, **{key: value})
    with pytest.raises(InputError, match=rf"{key}.*allowed: .*got: ") as caught:
        read_lora(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["json", "cut", "gone", "lonely", "rank", "nan", "pattern", "list"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    folder = write_lora(helpers.lora("a"), tmp_path / "a")
    tensors_file, config_file = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(tensors_file)
    first = sorted(tensors)[0]
    if damage == "json":
        config_file.write_text("{")
    elif damage == "list":
        config_file.write_text("[]")
    elif damage == "cut":
        tensors_file.write_bytes(tensors_file.read_bytes()[:200])
    elif damage == "gone":
        tensors_file.unlink()
    elif damage == "lonely":
        save_file({k: v for k, v in tensors.items() if k != first}, tensors_file)
    elif damage == "rank":
        edit(folder, r=7)
    elif damage == "pattern":
        edit(folder, rank_pattern={"(": 3})
    elif damage == "nan":
        save_file(tensors | {first: tensors[first] * torch.nan}, tensors_file)
    with pytest.raises(ArtifactError, match=r"no readable LoRA; allowed: .*; got: ") as caught:
        read_lora(folder)
    assert "\n" not in str(caught.value)
