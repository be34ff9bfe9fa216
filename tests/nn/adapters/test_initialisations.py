"""An adapter is loaded only if it was trained beside the base as it is, whatever PEFT calls its beginning."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import config as peft_config
from torch import Tensor, nn

from tests.nn.adapters import helpers
from turnout.core.errors import InputError
from turnout.nn.adapters import AdapterPool, read_lora
from turnout.nn.adapters.files import PLAIN_INITS

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own
IDS = helpers.tokens()
OF_DATA = {"eva", "corda", "loftq"}
"""What can't begin here: it wants batches, statistics or a quantised base first."""


def names() -> list[str]:
    """Return the initialisations that the installed PEFT knows by name."""
    hint = typing.get_type_hints(peft.LoraConfig)["init_lora_weights"]
    found = {n for part in typing.get_args(hint) for n in typing.get_args(part) if isinstance(n, str)}
    # Two that the hint spells otherwise, or forgets.
    more = ["pissa_niter_4", *(["lora_ga"] if hasattr(peft_config, "LoraGAConfig") else [])]
    return sorted(n for n in found if "[" not in n) + more


def trained(init: Any, **options: Any) -> tuple[Any, nn.Module]:
    """Return a base with an adapter that began so, and the base that PEFT keeps beside it."""
    model = helpers.base()
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=list(helpers.TARGETS), init_lora_weights=init, **options)
    if init == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        def step(*_: object) -> None:
            model.zero_grad()
            model(input_ids=IDS, labels=IDS).loss.backward()

        preprocess_loraga(model, config, step)
    return peft.get_peft_model(model, config).eval(), model


def is_base_changed(model: nn.Module) -> bool:
    plain = helpers.base().state_dict()
    found = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if ".lora_" not in k}
    return any(not torch.equal(found[name], value) for name, value in plain.items())


def test_names_are_those_of_peft() -> None:
    assert {"pissa", "olora", "gaussian", "orthogonal", "eva"} <= set(names())


@pytest.mark.parametrize("init", sorted({*names()} - OF_DATA))
def test_what_changes_the_base_is_what_is_refused(tmp_path: Path, init: str) -> None:
    options: dict[str, Any] = {"lora_ga_config": peft_config.LoraGAConfig()} if init == "lora_ga" else {}
    adapted, model = trained(init, **options)
    adapted.save_pretrained(tmp_path)
    if is_base_changed(model):
        with pytest.raises(InputError, match=r"init_lora_weights.*path_initial_model_for_weight_conversion"):
            read_lora(tmp_path)
    else:
        assert init in PLAIN_INITS
        assert_same(adapted, tmp_path)


@pytest.mark.parametrize("init", ["corda", "loftq", "CorDA", "OLoRA", "of tomorrow"])
def test_what_is_not_known_to_leave_the_base_alone_is_refused(tmp_path: Path, init: str) -> None:
    adapted, _ = trained(True)
    adapted.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace('"init_lora_weights": true', f'"init_lora_weights": "{init}"'))
    with pytest.raises(InputError, match="init_lora_weights; allowed"):
        read_lora(tmp_path)


def test_what_peft_converted_is_loaded(tmp_path: Path) -> None:
    adapted, model = trained("pissa")
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(tmp_path / "start")
    adapted.peft_config["default"].init_lora_weights = "pissa"
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            parameter.data.mul_(1.5)
    want = logits(adapted)
    start = str(tmp_path / "start")
    adapted.save_pretrained(tmp_path / "end", path_initial_model_for_weight_conversion=start)
    assert is_base_changed(model)
    assert_same(adapted, tmp_path / "end", want=want)


def test_a_weight_of_the_base_in_the_file_is_named(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"])
    adapted = peft.get_peft_model(helpers.base(), config)
    adapted.save_pretrained(tmp_path / "with", save_embedding_layers=True)
    with pytest.raises(InputError, match=r"a weight of the base itself.*save_embedding_layers=False"):
        read_lora(tmp_path / "with")
    adapted.save_pretrained(tmp_path / "without", save_embedding_layers=False)
    assert_same(adapted.eval(), tmp_path / "without")


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS).logits


def assert_same(adapted: nn.Module, folder: Path, *, want: Tensor | None = None) -> None:
    pool = AdapterPool(model=helpers.base())
    pool.load(folder, name="a")
    with pool.only("a"):
        found = helpers.logits(pool, IDS)
    torch.testing.assert_close(found, logits(adapted) if want is None else want, rtol=1e-4, atol=1e-5)
