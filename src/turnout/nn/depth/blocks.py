"""This module runs one block as often as each sequence of a batch asks for.

What stands in for a method is an object and no closure, so that a copy of a wrapped model is one of its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache

from turnout.core.errors import InputError, sentence
from turnout.nn.caches import cache_keyword, find_cache
from turnout.nn.depth.slots import Call, CallSlots, rows_of_calls

if TYPE_CHECKING:
    from turnout.nn.depth.routed import RoutedDepth

WORTH_CPU, WORTH_ELSEWHERE = 2**21, 2**28
"""Multiplications a step that choosing rows must spare to be worth its own few small operations."""

ROW = 2**16
"""Multiplications in whose time a row passes the operations of a block that are none."""


class RoutedGenerate:
    """Stands in for a model's `generate`, to know where the prompt ends when there is no cache."""

    def __init__(self, *, model: Any, routed: RoutedDepth) -> None:
        self.model = model
        self.routed = routed
        self.before = model.__dict__.get("generate")
        self.call = model.generate
        functools.update_wrapper(self, model.generate)
        model.generate = self

    def remove(self) -> None:
        """Give the model its own `generate` back."""
        del self.model.generate
        if self.before is not None:
            self.model.generate = self.before

    def __call__(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return what `generate` returns; raises `InputError` for a prompt that is read in chunks."""
        config = kwargs.get("generation_config", args[0] if args else None) or self.model.generation_config
        chunk = kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None))
        if chunk is not None:
            raise InputError(
                sentence(
                    "depth routing: prefill_chunk_size (the depth is decided on the whole prompt)",
                    allowed="None",
                    got=chunk,
                    do="leave it out, or call unwrap first",
                )
            )
        sources = (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        with self.routed.generating(next((source for source in sources if source is not None), None)):
            return self.call(inputs, *args, **kwargs)


class RoutedBlock:
    """Stands in for the `forward` of one block; the block itself stays where it is, under its own names.

    Nothing is registered in the model, so that checkpoints, adapters and hooks find what they always found.
    """

    def __init__(self, *, block: nn.Module, layer: int, routed: RoutedDepth) -> None:
        self.block = block
        self.layer = layer
        self.routed = routed
        self.before = block.__dict__.get("forward")
        self.call = block.forward
        self.keyword = cache_keyword(block)
        self.weights = sum(parameter.numel() for parameter in block.parameters())
        functools.update_wrapper(self, block.forward)
        block.forward = self

    def remove(self) -> None:
        """Give the block its own `forward` back."""
        del self.block.forward
        if self.before is not None:
            self.block.forward = self.before

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the hidden states after 0, 1 or 2 calls of the block, each sequence its own number."""
        going = self.routed.going
        if going is not None:
            return self._go_on(going[self.layer], hidden_states, args, kwargs)
        cache = kwargs.get(self.keyword)
        if not isinstance(cache, Cache):
            cache = find_cache((*kwargs.values(), *args))
        if cache is None:
            for rows in rows_of_calls(self.routed.decide(self.layer, hidden_states)):
                hidden_states = self._run(Call(rows), hidden_states, args, kwargs)
            return hidden_states
        slots = self.routed.slots(cache, self.layer)
        if slots.counts_B is None:
            counts_B = self.routed.decide(self.layer, hidden_states)
            slots.begin(counts_B, width=hidden_states.shape[-1])
        else:
            self.routed.check_continued(slots, hidden_states)
        hidden_states = self._call(slots, hidden_states, args, kwargs)
        if not slots.is_settled:
            slots.settle(functools.partial(self._rows_after, hidden_BTD=hidden_states))
        return hidden_states

    def _go_on(
        self, slots: CallSlots, hidden_BTD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Do what `_call` does, where nothing is left to decide: for each further token, so in few steps."""
        if slots.whole is None:
            return self._call(slots, hidden_BTD, args, kwargs)
        slots.active, keep_BTD = slots.whole
        try:
            output: Tensor = self.call(hidden_BTD, *args, **kwargs)
        finally:
            slots.active = None
        slots.length += hidden_BTD.shape[1]
        return output if keep_BTD is None else torch.where(keep_BTD, output, hidden_BTD)

    def _call(
        self, slots: CallSlots, hidden_BTD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Return the hidden states after the calls that were decided, their keys in `slots`."""
        try:
            for call, slot in zip(slots.calls, slots.slots, strict=True):
                slots.active = slot
                hidden_BTD = self._run(call, hidden_BTD, args, kwargs)
        finally:
            slots.active = None
        slots.length += hidden_BTD.shape[1]
        return hidden_BTD

    def _run(self, call: Call, hidden_BTD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        rows, makers = call.rows, call.makers
        if rows is None:
            output = self.call(hidden_BTD, *args, **kwargs)
            if not isinstance(output, Tensor):
                raise self._no_tensor(output)
            return output if call.keep_BTD is None else torch.where(call.keep_BTD, output, hidden_BTD)
        args, kwargs = self.routed.taken((args, kwargs), rows, len(hidden_BTD))
        output = self.call(hidden_BTD.index_select(0, rows), *args, **kwargs)
        if not isinstance(output, Tensor):
            raise self._no_tensor(output)
        if makers is None:
            return hidden_BTD.index_copy(0, rows, output)
        return hidden_BTD.index_copy(0, makers, output.narrow(0, 0, len(makers)))

    def _rows_after(self, rows: int, hidden_BTD: Tensor) -> int:
        """Return on how many rows a call shall run that `rows` of the batch make, once the prompt is read."""
        batch, tokens, width = hidden_BTD.shape
        if self.routed.whole_from is not None:
            return batch if rows >= self.routed.whole_from * batch else rows
        on_cpu = hidden_BTD.device.type == "cpu"
        # The products of a processor go through rows in pairs: three take as long as four, or longer.
        run = min(rows + rows % 2, batch) if on_cpu and rows > 1 else rows
        spared = (batch - run) * (self.weights + 2 * tokens * width + ROW)
        return batch if spared < (WORTH_CPU if on_cpu else WORTH_ELSEWHERE) else run

    def _no_tensor(self, output: Any) -> InputError:
        return InputError(
            sentence(
                f"block {self.layer} ({type(self.block).__name__}): what it returns",
                allowed="a tensor of hidden states, as decoders of transformers 5 do",
                got=type(output).__name__,
            )
        )
