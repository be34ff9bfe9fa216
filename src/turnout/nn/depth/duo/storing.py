"""This module keeps the small modules and the routers beside the base checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from turnout.core.errors import ArtifactError, sentence
from turnout.nn.depth.duo.model import DuoModel
from turnout.nn.fingerprint import fingerprint, stored_weights
from turnout.nn.sidecar import load_sidecar, save_sidecar

KIND = "duo"
PARTS = ("small", "router")


def save(duo: DuoModel, folder: str | Path, *, has_base: bool = False) -> Path:
    """Write `turnout.duo.json` and `.safetensors` into `folder`; return the JSON's path.

    With `has_base` the base itself is written there too, by `save_pretrained` and under its own names, so
    that the stock library loads it: random routing changes the base, and the two belong together.
    """
    config = {
        "divisor": duo.divisor,
        "allow_skip": duo.allow_skip,
        "bias": duo.bias,
        "seed": duo.seed,
        "is_routed": duo.is_routed,
        "layers": duo.num_layers,
        "base": base_fingerprint(duo.model),
    }
    path = save_sidecar(folder, KIND, config=config, tensors=_tensors(duo))
    if has_base:
        with duo.bare() as model:
            model.save_pretrained(folder)
    return path


def load(model: PreTrainedModel, folder: str | Path, *, is_same_base: bool = False) -> DuoModel:
    """Wrap `model` with what `save` wrote; raises `ArtifactError` if it was made for another base.

    `is_same_base` vouches for weights that are the same in another form, such as after quantisation.
    """
    config, tensors = load_sidecar(folder, KIND)
    found = base_fingerprint(model, like=config.get("base"))
    if config.get("base") != found and not is_same_base:
        raise ArtifactError(
            sentence(
                f"the duo modules in {str(folder)!r} belong to another base",
                allowed=config.get("base"),
                got=found,
                do="load the checkpoint that they were saved beside, or pass is_same_base=True if only the "
                "form of its weights is another",
            )
        )
    names = ("divisor", "allow_skip", "bias", "seed")
    duo = DuoModel(model, **{name: config[name] for name in names})
    own = _tensors(duo)
    wrong = sorted(n for n in own.keys() | tensors.keys() if _shape(own, n) != _shape(tensors, n))
    if wrong:
        duo.unwrap()
        raise ArtifactError(sentence(f"duo modules in {str(folder)!r}: tensors that do not fit", got=wrong))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    duo.is_routed = bool(config["is_routed"])
    return duo


def base_fingerprint(model: nn.Module, *, like: object = None) -> str:
    """Return `fingerprint` of the base's weights, wrapped or not."""
    named = {}
    for name, parameter in stored_weights(model, like=like).items():
        parts = name.split(".")
        if "mlp" in parts and parts[parts.index("mlp") + 1] in PARTS:
            continue
        named[name.replace(".mlp.big.", ".mlp.")] = parameter
    return fingerprint(named, like=like)


def _tensors(duo: DuoModel) -> dict[str, Tensor]:
    parts = [
        (f"layers.{i}.{part}", getattr(layer, part)) for i, layer in enumerate(duo.layers) for part in PARTS
    ]
    return {f"{prefix}.{name}": t for prefix, module in parts for name, t in module.state_dict().items()}


def _shape(tensors: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
