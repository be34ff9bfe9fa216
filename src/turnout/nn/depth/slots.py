"""This module keeps keys and values by call, not by layer, so that skip and repeat leave a right cache.

The cache stays the library's own `DynamicCache`; only its layers are replaced, in place, by `CallSlots`. The
decision of a sequence lives beside its keys, so whatever reorders, repeats or selects the rows of the cache
(beams, several samples, batching) moves both.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.growing import GrowingLayer

Rows = Tensor | None
"""Indices of the sequences that make a call; None where all do."""


def rows_of_calls(counts_B: Tensor) -> list[Rows]:
    """Return for each call of a block the rows that make it: first those with a count above 0, then 1."""
    counts = counts_B.tolist()
    found: list[Rows] = []
    for call in range(max(counts, default=0)):
        rows = tuple(row for row, count in enumerate(counts) if count > call)
        found.append(None if len(rows) == len(counts) else _index(rows, counts_B.device))
    return found


def _index(rows: tuple[int, ...], device: torch.device) -> Tensor:
    # Under `torch.compile` the graph makes its own; Dynamo would go past the cache, and warn of it.
    return _made(rows, device) if torch.compiler.is_compiling() else _kept(rows, device)


def _made(rows: tuple[int, ...], device: torch.device) -> Tensor:
    # Outside of inference mode, since a later forward may train. Dynamo takes no keyword here.
    with torch.inference_mode(False):
        return torch.tensor(rows, device=device)


_kept = functools.lru_cache(maxsize=4096)(_made)
"""One object for equal rows: what blocks share is then taken once, not once a block."""


@dataclass(frozen=True)
class Call:
    """Which sequences run one call of a block, and which of them keep what it returns."""

    rows: Rows
    makers: Rows = None
    """The first of `rows`, those that keep what comes; None where all of them do."""
    keep_BTD: Tensor | None = None
    """Where all rows run: true at those that keep what comes; None where all do."""


class CallSlots(CacheLayerMixin):  # type: ignore[misc]
    """The cache of one block: one slot per call, each with the rows that make the call.

    Its length is the number of tokens that were seen, also where every sequence skips the block, since the
    library computes masks and positions from the length of one layer.
    """

    is_croppable = True
    supports_early_init = False

    def __init__(self, *, layer: int, template: CacheLayerMixin, key: object) -> None:
        super().__init__()
        self.layer = layer
        self.key = key
        self.is_sliding = bool(template.is_sliding)
        self.sliding_window: int | None = template.sliding_window if self.is_sliding else None
        self._is_recording = bool(getattr(template, "record_past", False))
        self.reset()

    def reset(self) -> None:
        """Forget everything, the decisions too."""
        self.length = 0
        self.counts_B: Tensor | None = None
        self.batch = self.width = 0
        self.calls: list[Call] = []
        self.slots: list[Any] = []
        self.is_settled = False
        self.only: tuple[Call, Any] | None = None
        self.chooses = False
        self.active: Any = None
        self.agreed: Tensor | None = None
        self.is_read = False

    def begin(self, counts_B: Tensor, *, width: int, is_read: bool = False) -> None:
        """Fix the decisions of all sequences; they hold until `reset`. `width` is that of hidden states.

        `is_read` says that they were read from the tokens of this forward, which should be all of the prompt.
        """
        self.counts_B, self.batch, self.width, self.is_read = counts_B, len(counts_B), width, is_read
        self.calls = [Call(rows) for rows in rows_of_calls(counts_B)]
        self.slots = [self._slot() for _ in self.calls]

    def settle(self, rows_after: Callable[[int], int]) -> None:
        """From now on, run each call on as many rows as `rows_after` says for those that make it.

        More of them, where a row costs less than leaving it out does. The other rows' keys are zeros, which
        nobody reads.
        """
        self.is_settled = True
        if self.counts_B is None:
            return
        for number, (call, slot) in enumerate(zip(self.calls, self.slots, strict=True)):
            if call.rows is None or not slot.is_initialized:
                continue
            run = rows_after(len(call.rows))
            if run == len(call.rows):
                continue
            if run == self.batch:
                slot.keys, slot.values = (_spread(s, call.rows, run) for s in (slot.keys, slot.values))
                self.calls[number] = Call(None, keep_BTD=self._keep(self.counts_B, number))
            else:
                more = (0,) * (2 * slot.keys.dim() - 1) + (run - len(call.rows),)
                slot.keys, slot.values = functional.pad(slot.keys, more), functional.pad(slot.values, more)
                self.calls[number] = Call(_filled(call.rows, self.batch, run), makers=call.rows)
        self._find_only()

    def _find_only(self) -> None:
        """Note the one call of a settled plan, with its slot; None for a plan of none or of several."""
        self.chooses = any(call.rows is not None for call in self.calls)
        has_one = self.is_settled and len(self.calls) == 1
        self.only = (self.calls[0], self.slots[0]) if has_one else None

    def _keep(self, counts_B: Tensor, number: int) -> Tensor:
        # As wide as what it chooses from, which is faster than to broadcast it at every step.
        return (counts_B > number).view(-1, 1, 1).expand(-1, 1, self.width).contiguous()

    def _slot(self) -> Any:
        if not self.is_sliding:
            return GrowingLayer()
        slot = DynamicSlidingWindowLayer(sliding_window=self.sliding_window)
        slot.record_past = self._is_recording
        return slot

    @property
    def record_past(self) -> bool:
        """Whether a sliding window keeps what it would drop, so that `crop` can go back."""
        return self._is_recording

    @record_past.setter
    def record_past(self, value: bool) -> None:
        self._is_recording = value
        for slot in self.slots:
            slot.record_past = value

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to the slot of the call that runs; raises `InputError` outside of one."""
        if self.active is None:
            raise InputError(
                sentence(
                    "this cache was made under depth routing",
                    do="read the prompt again, or wrap the model as it was",
                )
            )
        states: tuple[Tensor, Tensor] = self.active.update(key_states, value_states, *args, **kwargs)
        return states

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: every slot begins with its first keys."""

    def get_seq_length(self) -> int:
        """Return the number of tokens seen."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (length, offset) of the keys that the next `query_length` tokens attend to."""
        if not self.is_sliding:
            return self.length + query_length, 0
        meter = self._slot()
        meter.cumulative_length = self.length
        sizes: tuple[int, int] = meter.get_mask_sizes(query_length)
        return sizes

    def get_max_length(self) -> int:
        """Return the sliding window, or -1 for none."""
        return -1 if self.sliding_window is None else self.sliding_window

    def activate_past_recording(self) -> None:
        """Set `record_past`."""
        self.record_past = True

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens (a negative number, as the library has it)."""
        for slot in self.slots:
            slot.crop(tokens_to_remove)
        self.length -= abs(tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, with their decisions."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row with its decision."""
        if self.counts_B is not None:
            rows = torch.arange(len(self.counts_B), device=self.counts_B.device)
            self.batch_select_indices(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Take the rows `indices`, with their decisions."""
        if self.counts_B is None:
            return
        indices = indices.to(self.counts_B.device)
        before, places = self.calls, [_places(call.rows, self.counts_B) for call in self.calls]
        self.counts_B = self.counts_B[indices]
        self.batch = len(indices)
        self.calls = []
        for number, rows in enumerate(rows_of_calls(self.counts_B)):
            taken = indices
            if rows is None:
                self.calls.append(Call(None))
            elif before[number].rows is None:
                self.calls.append(Call(None, keep_BTD=self._keep(self.counts_B, number)))
            else:
                self.calls.append(Call(rows))
                taken = indices[rows]
            self.slots[number].batch_select_indices(places[number][taken])
        del self.slots[len(self.calls) :]
        self._find_only()

    def taken(self, indices: Tensor) -> CallSlots:
        """Return a copy that holds the rows `indices`; this one stays as it is."""
        other = copy.copy(self)
        other.slots = [copy.copy(slot) for slot in self.slots]
        other.batch_select_indices(indices)
        return other


def _spread(states_RHTD: Tensor, rows: Tensor, batch: int) -> Tensor:
    spread_BHTD = states_RHTD.new_zeros(batch, *states_RHTD.shape[1:])
    # In place where nothing has to be differentiated, since a copy of what was just made costs as much again.
    if states_RHTD.requires_grad:
        return spread_BHTD.index_copy(0, rows, states_RHTD)
    return spread_BHTD.index_copy_(0, rows, states_RHTD)


def _filled(rows: Tensor, batch: int, run: int) -> Tensor:
    """Return `rows` and then the first of the others, `run` in all."""
    making = rows.tolist()
    others = [row for row in range(batch) if row not in making]
    return _index((*making, *others[: run - len(making)]), rows.device)


def _places(rows: Rows, counts_B: Tensor) -> Tensor:
    place_B = torch.arange(len(counts_B), device=counts_B.device)
    if rows is not None:
        place_B[rows] = torch.arange(len(rows), device=rows.device)
    return place_B


def check_kind(cache: object) -> None:
    """Raise `InputError` for a cache that is no `DynamicCache`, or that is offloaded."""
    if not isinstance(cache, DynamicCache) or getattr(cache, "offloading", False):
        raise InputError(
            sentence(
                "depth routing: the kind of cache",
                allowed="a DynamicCache, not offloaded",
                got=type(cache).__name__,
                do="leave the cache and cache_implementation out",
            )
        )


def check_config(config: Any) -> None:
    """Raise `InputError` for a model whose own cache holds more than keys and values, such as running states.

    What it would make is asked, so that no family has to be named.
    """
    if hasattr(config, "get_text_config"):
        made = DynamicCache(config=config.get_text_config(decoder=True))
        _check_layers(made.layers, "layers of the model's cache")


def _check_layers(layers: Sequence[Any], what: str) -> None:
    kinds = {type(layer) for layer in layers} - {DynamicLayer, DynamicSlidingWindowLayer, CallSlots}
    if kinds:
        raise InputError(
            sentence(
                f"depth routing: {what}",
                allowed="DynamicLayer and DynamicSlidingWindowLayer",
                got=sorted(kind.__name__ for kind in kinds),
            )
        )


def adopt(cache: Any, *, layers: int, key: object) -> None:
    """Replace the layers of an empty `DynamicCache` by `CallSlots`, in place.

    Raises `InputError` for a cache that already holds tokens (it was made without this routing), or of a kind
    that cannot be kept by call.
    """
    check_kind(cache)
    if cache.get_seq_length():
        raise InputError(
            sentence(
                "depth routing: this cache was made under another routing",
                allowed="an empty one, or one of this wrapper",
                got=f"{cache.get_seq_length()} tokens",
                do="read the prompt again",
            )
        )
    # A config may count the blocks of an encoder that is not there.
    templates = list(cache.layers)[:layers]
    templates += [DynamicLayer() for _ in range(layers - len(templates))]
    _check_layers(templates, "layers of the cache")
    cache.layers = [
        CallSlots(layer=layer, template=template, key=key) for layer, template in enumerate(templates)
    ]
    cache.layer_class_to_replicate = None


def sets_of_rows(cache: Cache | None) -> list[Tensor]:
    """Return the different sets of rows that calls run on once the prompt of a cache is read."""
    layers = () if cache is None else cache.layers
    calls = [c for slots in layers if isinstance(slots, CallSlots) and slots.is_settled for c in slots.calls]
    return list({id(call.rows): call.rows for call in calls if call.rows is not None}.values())


def take_rows(cache: Cache, indices: Tensor) -> Cache:
    """Return a cache with the rows `indices` of an adopted one, which stays as it is."""
    other = copy.copy(cache)
    other.layers = [slots.taken(indices) for slots in cache.layers]
    return other
