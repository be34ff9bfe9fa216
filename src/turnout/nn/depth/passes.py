"""This module holds what belongs to one forward of a routed model: its prompt, and what its blocks share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.caches import find_cache
from turnout.nn.depth.slots import CallSlots, check_kind, sets_of_rows


@dataclass
class Pass:
    """One forward: from the model's arguments to the counts of every block."""

    attention_BT: Tensor | None
    """The mask that was given; None where nothing is padding."""
    prompt: int | Tensor | None
    """The prompt's first columns, or where it is; None where every token belongs to it."""
    prompt_BT: Tensor | None = None
    plan: object = None
    is_planned: bool = False
    counts: dict[int, Tensor] = field(default_factory=dict)
    cache: Cache | None = None
    taken: dict[tuple[int, int], tuple[Any, Tensor, Any]] = field(default_factory=dict)
    _sets: list[Tensor] | None = None
    _is_padded: bool | None = None
    _shared: dict[tuple[int, ...], tuple[tuple[Any, ...], bool]] = field(default_factory=dict)

    def mask(self, hidden_BTD: Tensor) -> Tensor:
        """Return prompt_BT, true at tokens of the prompt; raises `InputError` for a row without one."""
        if self.prompt_BT is None:
            self.prompt_BT = self._mask(hidden_BTD)
            if not bool(self.prompt_BT.any(1).all()):
                raise InputError(
                    sentence(
                        "depth routing: a sequence without a token of the prompt",
                        allowed="at least one token that is not padding",
                        got=self.prompt_BT.sum(1).tolist(),
                    )
                )
        return self.prompt_BT

    def _mask(self, hidden_BTD: Tensor) -> Tensor:
        batch, tokens = hidden_BTD.shape[:2]
        mask_BT = torch.ones(batch, tokens, dtype=torch.bool, device=hidden_BTD.device)
        if self.attention_BT is not None:
            mask_BT = self.attention_BT[:, -tokens:].bool()
        if isinstance(self.prompt, Tensor):
            return mask_BT & self.prompt.to(mask_BT.device).bool()
        if self.prompt is not None:
            return mask_BT & (torch.arange(tokens, device=mask_BT.device) < self.prompt)
        return mask_BT

    def is_padded(self) -> bool:
        """Whether the mask that was given hides a token."""
        if self._is_padded is None:
            self._is_padded = self.attention_BT is not None and not bool(self.attention_BT.all())
        return self._is_padded

    def is_shared(self, values: tuple[Any, ...], batch: int) -> bool:
        """Whether none of a block's arguments is one of which `take` takes rows."""
        key = tuple(map(id, values))
        known = self._shared.get(key)
        if known is None:
            # The values too: an id is free again once its object is gone.
            known = self._shared[key] = (values, not _has_rows(values, batch))
        return known[1]

    def take(self, value: Any, rows: Tensor, batch: int) -> Any:
        """Return the rows of every tensor in `value` that has the batch as its first axis.

        What has 1 there is shared by all sequences and stays; so does a vector, which has no batch axis. What
        all blocks share is taken once a forward, for all of them: `rows` must be the same object wherever the
        rows are the same.
        """
        if isinstance(value, Tensor):
            if value.dim() < 2 or value.shape[0] != batch:
                return value
            kept = self.taken.get((id(value), id(rows)))
            if kept is None:
                self._take(value, rows)
                kept = self.taken[id(value), id(rows)]
            return kept[2]
        if isinstance(value, tuple | list):
            return type(value)([self.take(part, rows, batch) for part in value])
        if isinstance(value, dict):
            return {name: self.take(part, rows, batch) for name, part in value.items()}
        return value

    def _take(self, value: Tensor, rows: Tensor) -> None:
        if self._sets is None:
            self._sets = sets_of_rows(self.cache)
        if not any(known is rows for known in self._sets):
            self.taken[id(value), id(rows)] = (value, rows, value.index_select(0, rows))
            return
        sets = self._sets
        parts = torch.split(value.index_select(0, torch.cat(sets)), [len(known) for known in sets])
        for known, part in zip(sets, parts, strict=True):
            self.taken[id(value), id(known)] = (value, known, part)


def _has_rows(value: Any, batch: int) -> bool:
    if isinstance(value, Tensor):
        return value.dim() > 1 and value.shape[0] == batch
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, tuple | list | dict) and any(_has_rows(part, batch) for part in parts)


def shared_rows(position_BT: Any) -> Any:
    """Return the positions of one token a sequence as one row if they are equal, so that none is chosen.

    What blocks are told of positions is then the same for all rows. Only a processor looks: elsewhere that
    would wait for the device.
    """
    if not isinstance(position_BT, Tensor) or position_BT.dim() != 2 or position_BT.device.type != "cpu":
        return position_BT
    if position_BT.shape[1] != 1 or len(set(position_BT.flatten().tolist())) > 1:
        return position_BT
    return position_BT[:1]


def begin(args: tuple[Any, ...], kwargs: dict[str, Any], prompt: int | Tensor | None) -> Pass:
    """Return the pass that a model's arguments begin; raises `InputError` for what cannot be routed."""
    # Before the mask: one for a static cache has another shape, and the cache is what is wrong.
    cache = find_cache((*args, *kwargs.values()))
    if cache is not None:
        check_kind(cache)
    source = _source(args, kwargs)
    if isinstance(source, Tensor) and not source.shape[1]:
        raise InputError(sentence("depth routing: an empty prompt", allowed="at least one token", got=0))
    mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(
            sentence(
                "depth routing: attention_mask",
                allowed="[B, T], where padding is 0",
                got=shape,
                do="wrap the family's class for text alone if its class for images builds masks itself",
            )
        )
    if cache is not None:
        _check_finished(cache)
    if mask is not None and isinstance(source, Tensor):
        _check_mask(mask, source, 0 if cache is None else int(cache.get_seq_length()))
    return Pass(attention_BT=mask, prompt=prompt, cache=cache)


def _source(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the token ids or embeddings among a model's arguments."""
    source = kwargs.get("input_ids")
    source = source if source is not None else kwargs.get("inputs_embeds")
    return source if source is not None else (args[0] if args else None)


def check_one_text(args: tuple[Any, ...], kwargs: dict[str, Any], mask_BT: Tensor | None) -> None:
    """Raise `InputError` where a row holds several texts, one behind the other: it has one decision."""
    places = kwargs.get("position_ids", args[2] if len(args) > 2 else None)
    # Where a token has several positions (text, then axes of a picture), the first is of the text.
    while isinstance(places, Tensor) and places.dim() > 2:
        places = places[0]
    source = _source(args, kwargs)
    if not isinstance(places, Tensor) or not isinstance(source, Tensor):
        return
    if places.dim() != 2 or places.shape[1] != source.shape[1]:
        return
    falls_BT = places[:, 1:] < places[:, :-1]
    if mask_BT is not None:
        seen_BT = mask_BT[:, -places.shape[1] :].bool()
        falls_BT = falls_BT & seen_BT[:, 1:] & seen_BT[:, :-1]
    if bool(falls_BT.any()):
        raise InputError(
            sentence(
                "depth routing: position_ids begin again within a row, whose texts would share one depth",
                allowed="one text a row",
                do="give each text a row of its own, with padding; or decide yourself with `forced`",
            )
        )


def _check_finished(cache: Cache) -> None:
    """Raise `InputError` for a cache that some blocks wrote into and others did not."""
    lengths = {layer.length for layer in cache.layers if isinstance(layer, CallSlots)}
    if len(lengths) > 1:
        raise InputError(
            sentence(
                "depth routing: this cache was left by a forward that did not reach its end",
                allowed="as many tokens in every block",
                got=sorted(lengths),
                do="start from an empty cache",
            )
        )


def _check_mask(mask_BT: Tensor, source: Tensor, past: int) -> None:
    """Raise `ShapeError` for a mask that says nothing of a token, or something of one that is not there."""
    wanted = (source.shape[0], past + source.shape[1])
    if tuple(mask_BT.shape) != wanted:
        tokens = f"{source.shape[1]} tokens" + (f" after {past} in the cache" if past else "")
        raise ShapeError(
            sentence(
                "depth routing: attention_mask",
                allowed=f"{wanted}, one for each of {wanted[0]} sequences and {tokens}",
                got=tuple(mask_BT.shape),
            )
        )
