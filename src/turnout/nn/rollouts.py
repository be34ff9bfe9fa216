"""This module joins what was recorded while a model wrote an answer into one pass over the whole text.

An answer is written in many passes, one of the prompt and one a token; a policy is trained on whole texts, in
one pass, which `replaying` lets choose what was chosen when they were written (arXiv 2510.11370, routing
replay of rollouts).

Axes: B items, S positions, T = B * S tokens, K experts of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.gate_hook import Routing

Join = Callable[[list[Tensor]], Tensor]


def joined(records: Sequence[Sequence[Routing]], *, length: int | None = None) -> list[list[Routing]]:
    """Return one pass for each layer, of all positions that were recorded, in the order of `records`.

    Parameters
    ----------
    records
        What `GateHook.recording` gave around one `generate` that keeps its rows in place (sampled or greedy,
        with a cache, no beams): a list for each layer, an entry for each pass, all of the same B items.
    length
        Positions of the texts. One more than were recorded where the last token, which was drawn and never
        read, belongs to them: it takes the experts of the token before, and no later token sees it.

    Raises `InputError` for a layer without passes and for passes that do not know B, `ShapeError` for passes
    of another B, another number of gate outputs, and for a `length` of more positions.
    """
    return [[_one(passes, f"layer {number}", length)] for number, passes in enumerate(records)]


def _one(passes: Sequence[Routing], where: str, length: int | None) -> Routing:
    items = _items(passes, where)
    positions = sum(routing.indices_TK.shape[0] for routing in passes) // items
    extra = 0 if length is None else length - positions
    if extra not in (0, 1):
        allowed = f"{positions} positions, as recorded, or one more"
        raise ShapeError(sentence(f"joined: {where}: length", allowed=allowed, got=length))
    most = max(routing.indices_TK.shape[1] for routing in passes)

    def join(parts: list[Tensor]) -> Tensor:
        by_item = [part.reshape(items, -1, *part.shape[1:]) for part in parts]
        if extra:
            by_item.append(by_item[-1][:, -1:])
        return torch.cat(by_item, 1).flatten(0, 1)

    return Routing(
        logits_TE=join([routing.logits_TE for routing in passes]),
        weights_TK=join([_wide(routing.weights_TK, most, 0) for routing in passes]),
        indices_TK=join([_wide(routing.indices_TK, most, -1) for routing in passes]),
        batch_size=items,
        rest=_rest(passes, join),
        mask_T=_mask(passes, join),
    )


def _items(passes: Sequence[Routing], where: str) -> int:
    sizes = [routing.batch_size for routing in passes if routing.batch_size is not None]
    if not passes or len(sizes) < len(passes):
        allowed = "passes of a model that was called with (B, S) tokens"
        raise InputError(sentence(f"joined: {where}", allowed=allowed, got="no B" if passes else "no pass"))
    outputs = {routing.logits_TE.shape[1] for routing in passes}
    for what, name, found in (("items", "(B,)", set(sizes)), ("outputs of the gate", "(E,)", outputs)):
        if len(found) > 1:
            allowed = f"{name} the same in all passes"
            raise ShapeError(sentence(f"joined: {where}: {what}", allowed=allowed, got=sorted(found)))
    return sizes[0]


def _wide(value_TK: Tensor, most: int, hole: int) -> Tensor:
    return functional.pad(value_TK, (0, most - value_TK.shape[1]), value=hole)


def _mask(passes: Sequence[Routing], join: Join) -> Tensor | None:
    if all(routing.mask_T is None for routing in passes):
        return None
    masks = [
        torch.ones_like(routing.indices_TK[:, 0], dtype=torch.bool)
        if routing.mask_T is None
        else routing.mask_T
        for routing in passes
    ]
    return join(masks)


def _rest(passes: Sequence[Routing], join: Join) -> tuple[Any, ...]:
    """Join what is of tokens; of what is not, the last pass's stays."""
    found = []
    for place, last in enumerate(passes[-1].rest):
        parts = [routing.rest[place] for routing in passes]
        is_of_tokens = all(
            isinstance(part, Tensor) and part.ndim and part.shape[0] == routing.indices_TK.shape[0]
            for part, routing in zip(parts, passes, strict=True)
        )
        found.append(join(parts) if is_of_tokens else last)
    return tuple(found)
