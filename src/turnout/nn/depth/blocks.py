"""This module runs one block as often as each sequence of a batch asks for.

What stands in for a method is an object and no closure, so that a copy of a wrapped model is one of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch
from torch import Tensor, nn
from transformers import Cache

from turnout.core.errors import InputError, sentence
from turnout.nn.caches import cache_keyword, find_cache
from turnout.nn.depth.decoding import NotHere, decode, may_decode
from turnout.nn.depth.returned import no_tensor
from turnout.nn.depth.slots import Call, CallSlots, rows_of_calls
from turnout.nn.held import DEPTH, copied

if TYPE_CHECKING:
    from turnout.nn.depth.routed import RoutedDepth

WORTH_CPU, WORTH_PADDED, WORTH_ELSEWHERE = 2**19, 2**21, 2**28
"""Multiplications a step that choosing rows must spare to be worth its own few small operations.

With padding the rows of masks and positions are to be chosen too.
"""

PAIRED = 2**18
"""Weights of a block from which on a processor's products take rows in pairs: three cost as much as four."""

ROW = 2**16
"""Multiplications in whose time a row passes the operations of a block that are none."""

AROUND = ("transformers.modeling_layers", "transformers.utils.deprecation")
"""Modules whose wrappers of a block's forward matter with gradients, or for arguments under an old name."""


def own_forward(block: nn.Module) -> tuple[Callable[..., Any], frozenset[str]]:
    """Return the forward of a block's class without the wrappers of `AROUND`, and the arguments it names.

    It names none where the block has a forward of its own, which is then to be called.
    """
    found: Any = type(block).forward
    if "forward" in block.__dict__:
        return found, frozenset()
    while found.__globals__["__name__"] in AROUND and hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    return found, frozenset(inspect.signature(found, follow_wrapped=False).parameters)


HANDED_OVER = ("cache", "past_key_values", "assistant_model", "custom_generate")
"""Arguments of `generate` by which the caller has, or may have, a part in its tensors."""


class RoutedGenerate:
    """Stands in for a model's `generate`, to know where the prompt ends when there is no cache.

    It runs in inference mode, where an operation costs less than under the library's `no_grad`, if nothing
    but token ids comes out, which are then copied: with a cache or an assistant of the caller, a dictionary
    of outputs, a watcher, or several processes it runs as the library has it.
    """

    def __init__(self, *, model: Any, routed: RoutedDepth) -> None:
        self.model = model
        self.routed = routed
        self.before = model.__dict__.get("generate")
        self.call = model.generate
        functools.update_wrapper(self, model.generate)
        model.generate = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that belongs to the copy of the model."""
        return copied(self, memo)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled, as `torch.save(model)` would."""
        raise DEPTH.refused()

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
            if not self._is_alone(config, kwargs):
                return self._called(inputs, args, kwargs)
            with lightly(self.model):
                found = self._called(inputs, args, kwargs)
        # The copy is a tensor like others, that a later training may save.
        return found.clone() if isinstance(found, Tensor) else found

    def _called(self, inputs: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if may_decode(self.call, args, kwargs):
            with suppress(NotHere):
                return self.call(inputs, *args, **{**kwargs, "custom_generate": decode})
        return self.call(inputs, *args, **kwargs)

    def _is_alone(self, config: Any, kwargs: dict[str, Any]) -> bool:
        """Whether only token ids leave `generate`."""
        as_dict = kwargs.get("return_dict_in_generate", getattr(config, "return_dict_in_generate", None))
        if as_dict or any(kwargs.get(name) is not None for name in HANDED_OVER):
            return False
        return decodes_lightly(self.routed)


def decodes_lightly(routed: RoutedDepth) -> bool:
    """Whether inference mode may be begun: nobody keeps hidden states, no other process has weights."""
    if torch.is_inference_mode_enabled() or routed.is_watched:
        return False
    return not (torch.distributed.is_available() and torch.distributed.is_initialized())


@contextmanager
def lightly(model: nn.Module) -> Iterator[None]:
    """Inside, inference mode holds; what modules keep, such as frequencies of a long text, is copied out."""
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in model.modules():
            kept: dict[str, Any]
            for kept in (module._buffers, vars(module)):
                made = {n: t for n, t in kept.items() if isinstance(t, Tensor) and t.is_inference()}
                kept.update({name: tensor.clone() for name, tensor in made.items()})


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
        self.own, self.names = own_forward(block)
        self.weights = sum(parameter.numel() for parameter in block.parameters())
        functools.update_wrapper(self, block.forward)
        block.forward = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that belongs to the copy of the model."""
        return copied(self, memo)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled, as `torch.save(model)` would."""
        raise DEPTH.refused()

    def remove(self) -> None:
        """Give the block its own `forward` back."""
        del self.block.forward
        if self.before is not None:
            self.block.forward = self.before

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the hidden states after 0, 1 or 2 calls of the block, each sequence its own number."""
        if self.routed.going is not None:
            return self.go_on(hidden_states, args, kwargs)
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
            slots.begin(counts_B, width=hidden_states.shape[-1], is_read=self.routed.reads)
        else:
            self.routed.check_continued(slots, hidden_states)
        hidden_states = self._call(slots, hidden_states, args, kwargs)
        if not slots.is_settled:
            slots.settle(functools.partial(self._rows_after, hidden_BTD=hidden_states))
        return hidden_states

    def go_on(self, hidden_BTD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Do what a call does where nothing is left to decide: for each further token, so in few steps."""
        going = self.routed.going
        if going is None:
            return self(hidden_BTD, *args, **kwargs)
        slots = going[self.layer]
        if slots.only is None:
            return self._call(slots, hidden_BTD, args, kwargs)
        call, slots.active = slots.only
        try:
            output = self._run(call, hidden_BTD, args, kwargs)
        finally:
            slots.active = None
        slots.length += hidden_BTD.shape[1]
        return output

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
        hidden_RTD = hidden_BTD
        if rows is not None:
            hidden_RTD = hidden_BTD.index_select(0, rows)
            args, kwargs = self.routed.taken(args, kwargs, rows, len(hidden_BTD))
        if args or torch.is_grad_enabled() or not kwargs.keys() <= self.names:
            output = self.call(hidden_RTD, *args, **kwargs)
        else:
            output = self.own(self.block, hidden_RTD, **kwargs)
        if not isinstance(output, Tensor):
            raise no_tensor(self.layer, self.block, type(output).__name__)
        if rows is None:
            return output if call.keep_BTD is None else torch.where(call.keep_BTD, output, hidden_BTD)
        if makers is None:
            return hidden_BTD.index_copy(0, rows, output)
        return hidden_BTD.index_copy(0, makers, output.narrow(0, 0, len(makers)))

    def _rows_after(self, rows: int, hidden_BTD: Tensor) -> int:
        """Return on how many rows a call shall run that `rows` of the batch make, once the prompt is read."""
        batch, tokens, width = hidden_BTD.shape
        if self.routed.whole_from is not None:
            return batch if rows >= self.routed.whole_from * batch else rows
        on_cpu = hidden_BTD.device.type == "cpu"
        run = min(rows + rows % 2, batch) if on_cpu and rows > 1 and self.weights >= PAIRED else rows
        spared = (batch - run) * (self.weights + 2 * tokens * width + ROW)
        worth = WORTH_PADDED if self.routed.is_padded() else WORTH_CPU
        return batch if spared < (worth if on_cpu else WORTH_ELSEWHERE) else run
