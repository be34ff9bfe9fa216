"""This module keeps a depth router beside its base checkpoint and puts it back onto a fresh one."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from turnout.core.errors import ArtifactError, InputError, sentence
from turnout.core.registry import find_registry
from turnout.nn.decoder import decoder_blocks
from turnout.nn.depth.contract import DepthRouter
from turnout.nn.depth.routed import RoutedDepth, width_of
from turnout.nn.fingerprint import fingerprint, stored_weights
from turnout.nn.sidecar import load_sidecar, save_sidecar

KIND = "depth"


def save_depth(folder: str | Path, routed: RoutedDepth) -> Path:
    """Write the router of a wrapped model into `folder`, beside the base; return the JSON's path.

    Raises `InputError` where there is no router.
    """
    router = routed.router
    if router is None:
        raise InputError(sentence("save_depth: there is no router", do="set one with set_router"))
    config = {
        "router": find_registry("nn").name_of(type(router)),
        "arguments": router.config(),
        "base": _base(routed.owner, routed.layers),
    }
    return save_sidecar(folder, KIND, config=config, tensors=router.state_dict())


def load_depth(
    folder: str | Path, model: nn.Module, *, strict: bool = False, is_same_base: bool = False
) -> RoutedDepth:
    """Wrap `model`, freshly loaded, with the router that `folder` holds.

    `is_same_base` vouches for weights that are not those that the router was saved beside, as after
    quantisation. Raises `ArtifactError` for another base (weights, layers or width differ) and for a damaged
    file.
    """
    config, tensors = load_sidecar(folder, KIND)
    owner, name = decoder_blocks(model)
    known = config.get("base") or {}
    base = _base(owner, len(getattr(owner, name)), like=known.get("weights"))
    saved = {key: known.get(key) for key in base}
    if is_same_base:
        saved["weights"] = base["weights"]
    if saved != base:
        raise ArtifactError(
            sentence(
                "load_depth: this router is for another base",
                allowed=saved,
                got=base,
                do="pass is_same_base=True if only the weights' form is another",
            )
        )
    router = find_registry("nn").get(config["router"], is_stored=True)(**config["arguments"])
    if not isinstance(router, DepthRouter):
        raise ArtifactError(sentence("load_depth: router", allowed="a depth router", got=config["router"]))
    try:
        router.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(
            sentence(f"load_depth: the tensors in {str(folder)!r} do not fit the router", got=str(error))
        ) from error
    return RoutedDepth(model=model, router=router.eval(), strict=strict)


def _base(decoder: nn.Module, layers: int, *, like: object = None) -> dict[str, int | str]:
    # Of the decoder, which is the same with and without its head.
    weights = fingerprint(stored_weights(decoder, like=like), like=like)
    return {"layers": layers, "width": width_of(decoder), "weights": weights}
