"""This module keeps what a swapped gate may know of the forward pass that runs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.nn.computed_again import Passes, is_computed_again, may_be_computed_again
from turnout.nn.gates.contract import GateContext

Known = tuple[Any, Any, Tensor | None, bool]
"""Ids, mask, the state of the layer before, and whether that was made where gradients are recorded."""


def called_with_tokens(model: nn.Module, block_name: str) -> nn.Module:
    """Return the module whose call says which tokens a block sees.

    That is the model, or in a model of an encoder and a decoder the one of the two that holds the block: the
    model's own ids and mask are those of its encoder. Raises `InputError` where there is no such module.
    """
    path, parts = [model], block_name.split(".")
    path += [model.get_submodule(".".join(parts[:end])) for end in range(1, len(parts) + 1)]
    names = [inspect.signature(module.forward).parameters for module in path]
    both = [index for index, known in enumerate(names) if "decoder_input_ids" in known]
    if not both:
        return model
    for module, known in zip(path[both[-1] + 1 :], names[both[-1] + 1 :], strict=True):
        if "attention_mask" in known:
            return module
    what = f"{block_name}: its model has an encoder and a decoder, and the block's padding is not known"
    raise InputError(sentence(what, allowed="a block in a module that is called with `attention_mask`"))


def _is_same(one: Known, other: Known) -> bool:
    return all(
        torch.equal(is_one, is_other)
        if isinstance(is_one, Tensor) and isinstance(is_other, Tensor)
        else is_one is is_other
        for is_one, is_other in zip(one, other, strict=True)
    )


class ForwardPass:
    """What is known of the forward pass that runs: its tokens, padding and cache, and a block's batch."""

    def __init__(self) -> None:
        self.token_ids: Tensor | None = None
        self.mask: Tensor | None = None
        self.cache: Any = None
        self.num_past = 0
        self.shape: tuple[int, int] | None = None
        # Asked once a pass and not once a layer: a GPU is waited for.
        self._padding: dict[int, Tensor | None] = {}
        self._passes: dict[int, Passes[Known]] = {}
        self.state_has_graph = True

    def of_model(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the ids, padding and cache that a model, or one of its stacks, is called with."""
        names = inspect.signature(model.forward).parameters
        given = dict(zip(names, args, strict=False)) | kwargs
        self.token_ids, self.mask = given.get("input_ids"), given.get("attention_mask")
        self._padding = {}
        cache = given.get("past_key_values", given.get("cache"))
        self.cache = cache if hasattr(cache, "get_seq_length") else None
        self.num_past = 0 if self.cache is None else int(self.cache.get_seq_length())

    def of_block(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the batch that a block is called with."""
        hidden = args[0] if args else kwargs.get("hidden_states")
        is_batch = isinstance(hidden, Tensor) and hidden.ndim == 3
        self.shape = (int(hidden.shape[0]), int(hidden.shape[1])) if is_batch else None  # type: ignore[union-attr]

    def context(
        self,
        x_TD: Tensor,
        layer: int,
        num_layers: int,
        experts: nn.Module,
        state: Tensor | None,
        *,
        has_graph: bool = True,
        name: str = "",
    ) -> GateContext:
        """Return what is known of T tokens in one layer.

        `has_graph` says whether the state was made where gradients are recorded; `state_has_graph` then says
        so of the state of the context, which is an earlier one where a pass is computed again.
        """
        items, positions = self.shape or (1, x_TD.shape[0])
        now = (self.token_ids, self.mask, state, has_graph)
        ids, mask, state, self.state_has_graph = self._known(x_TD, layer, now, is_training=experts.training)
        is_whole = isinstance(ids, Tensor) and tuple(ids.shape) == (items, positions)
        mask_BS = None
        if (
            isinstance(mask, Tensor)
            and mask.ndim == 2
            and mask.shape[0] == items
            and mask.shape[1] >= positions
        ):
            mask_BS = self._padded(mask, positions)
        return GateContext(
            num_items=items if items * positions == x_TD.shape[0] else 1,
            mask_BS=mask_BS,
            token_ids_BS=ids if is_whole else None,
            state=state,
            experts=experts,
            layer=layer,
            num_layers=num_layers,
            name=name,
            is_autoregressive=self.cache is not None,
            num_past=0 if self.cache is None else self.num_past,
        )

    def _known(self, x_TD: Tensor, layer: int, now: Known, *, is_training: bool) -> Known:
        """Return what is known of the pass that runs, or of the one that is computed again."""
        passes = self._passes.setdefault(layer, Passes())
        if is_computed_again():
            return passes.take(x_TD, _is_same) or now
        if is_training and may_be_computed_again():
            passes.note(x_TD, now)
        return now

    def _padded(self, mask: Tensor, positions: int) -> Tensor | None:
        """Return the mask of the last positions, None where none of them is padding."""
        if mask is not self.mask:
            # Of an earlier pass, which is computed again.
            return mask[:, mask.shape[1] - positions :].bool()
        if positions not in self._padding:
            mask_BS = mask[:, mask.shape[1] - positions :].bool()
            self._padding[positions] = None if bool(mask_BS.all()) else mask_BS
        return self._padding[positions]
