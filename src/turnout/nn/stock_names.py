"""This module tells a model's own weights from those that adapters of `peft` brought into it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch import Tensor, nn


def stock_name(model: nn.Module, path: str) -> str | None:
    """Return the path that a module or weight of a model has without adapters; None for what is theirs.

    `base_model.model.layers.0.q_proj.base_layer.weight` is `layers.0.q_proj.weight`, whether the adapters
    were put around the model or into it.
    """
    module: object = model
    kept = []
    for part in path.split("."):
        inner = _wrapped(module)
        if inner is None:
            kept.append(part)
        elif part != inner:
            return None
        module = getattr(module, part, None)
    return ".".join(kept)


def stock_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of the weights that are the model's own, under their stock names."""
    named = {path: stock_name(model, path) for path in weights}
    return {name: weights[path] for path, name in named.items() if name is not None}


def _wrapped(module: object) -> str | None:
    """Return the attribute under which a module of `peft` holds what it was put around."""
    # Who never loaded it has none of its modules.
    peft = sys.modules.get("peft")
    if peft is None:
        return None
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if isinstance(module, peft.PeftModel):
        return "base_model"
    if isinstance(module, BaseTuner):
        return "model"
    if isinstance(module, BaseTunerLayer):
        return "base_layer"
    return "original_module" if isinstance(module, AuxiliaryTrainingWrapper) else None
