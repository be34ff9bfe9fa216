"""This module reads what a family's gate hands to its experts, and hands something else in its place.

Most gates of `transformers` return (logits, weights, indices). Others return more behind them, the scores of
all experts, a mask, tokens sorted by expert, or logits alone with the choice made between gate and experts.
One reading of all of them, and one way back, is what recording, replaying and swapping stand on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.nn.moe import MoELayer

Form = Literal["choices", "turned", "scores", "mask", "sorted", "logits"]
"""choices: (logits_TE, weights_TK, indices_TK, whatever else). turned: (indices_TK, weights_TK, logits_TE).
scores: (scores_TE, logits_TE), zero but for the chosen. mask: (one-hot mask, weight, logits), one expert a
token. sorted: (order, tokens, weights, counts, logits), pairs in the order of their experts. logits:
logits_TE alone; the choice is seen where the experts are called."""


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What a gate handed out for T tokens, read into the same three tensors for every form.

    `rest` is what a family's gate returns behind them, for others than the experts. `is_probability` says
    that probabilities stand where others have logits; `logits_TE` are what these were made of. The weights
    and indices of the form `logits` are empty, (T, 0). An index of -1 is a hole: the token has fewer experts
    than others, and nobody is meant.
    """

    form: Form
    logits_TE: Tensor
    weights_TK: Tensor
    indices_TK: Tensor
    rest: tuple[Any, ...] = ()
    lead: tuple[int, ...] | None = None
    is_probability: bool = False

    def changed(
        self, logits_TE: Tensor, weights_TK: Tensor, indices_TK: Tensor, rest: tuple[Any, ...] | None = None
    ) -> Handed:
        """Return the same form with other contents; None keeps the rest."""
        rest = self.rest if rest is None else rest
        return replace(self, logits_TE=logits_TE, weights_TK=weights_TK, indices_TK=indices_TK, rest=rest)

    def out(self) -> Any:
        """Return what the family's gate would return for this; raises `InputError` where it can't say it."""
        weights_TK, indices_TK = for_experts(self.weights_TK, self.indices_TK)
        out = _WRITERS[self.form](self.changed(self.logits_TE, weights_TK, indices_TK))
        if self.form == "sorted":
            _note(out[0], self.indices_TK)
        return out

    def with_holes(self) -> Handed:
        """Return the same with -1 where its indices were written for what is no choice."""
        return replace(self, indices_TK=_noted(self.indices_TK, self.indices_TK))


def for_experts(weights_TK: Tensor, indices_TK: Tensor) -> tuple[Tensor, Tensor]:
    """Return (weights_TK, indices_TK) as experts can be called: a hole is expert 0 with weight 0.

    It costs a row and changes nothing. What was a hole is noted on the indices, since a weight of 0 may also
    be that of a real choice.
    """
    is_hole_TK = indices_TK < 0
    filled_TK = _note(indices_TK.masked_fill(is_hole_TK, 0), indices_TK)
    return weights_TK.masked_fill(is_hole_TK, 0.0), filled_TK


def _note(written: Tensor, indices_TK: Tensor) -> Tensor:
    """Let a tensor that a gate hands out carry which of its choices are none."""
    written._turnout_holes_TK = indices_TK < 0  # type: ignore[attr-defined]
    return written


def _noted(written: Tensor, indices_TK: Tensor) -> Tensor:
    """Return indices with -1 where the tensor that was handed out carries a hole."""
    holes_TK = getattr(written, "_turnout_holes_TK", None)
    return indices_TK if holes_TK is None else indices_TK.masked_fill(holes_TK, -1)


def read(layer: MoELayer, out: object, inner_TE: Tensor | None = None) -> Handed:
    """Return what a gate handed out; `inner_TE` is what a linear map inside it gave, if it has one.

    Raises `InputError` for an output of a form that is not known.
    """
    parts = out if isinstance(out, tuple) else (out,)
    tensors = [part for part in parts if isinstance(part, Tensor)]
    for reader in (_choices, _turned, _mask, _scores, _sorted, _logits):
        handed = reader(layer, parts) if len(tensors) in (len(parts), len(parts) - 1) else None
        if handed is not None:
            return _with_inner(handed, inner_TE)
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    raise refused(layer, f"outputs {shapes} instead of logits (T, E), weights (T, k), indices (T, k)")


def refused(layer: MoELayer, obstacle: str, *, do: str | None = None) -> InputError:
    """Build the error for a gate that can't be steered."""
    return InputError(
        sentence(
            f"the gate {layer.name}.{layer.gate_name} ({type(layer.gate).__name__}) can't be steered",
            allowed="a gate that turns hidden states into (logits, weights, indices) by a known rule",
            got=obstacle,
            do=do,
        )
    )


def block_arguments(layer: MoELayer) -> dict[str, Tensor]:
    """Return what a block hands to its gate beside hidden states: its own tensors of the same names.

    Raises `InputError` for an argument that the gate can't do without and the block does not hold.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in list(inspect.signature(layer.gate.forward).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(layer.block, name, None)
        if isinstance(value, Tensor):
            found[name] = value
        elif parameter.default is parameter.empty:
            raise refused(layer, f"a gate that can't be run on hidden states alone: it asks for {name!r}")
    return found


def _choices(layer: MoELayer, parts: tuple[Any, ...]) -> Handed | None:
    if len(parts) < 3 or not all(isinstance(part, Tensor) for part in parts[:3]):
        return None
    logits, weights, indices = parts[:3]
    is_right = logits.ndim == weights.ndim == indices.ndim == 2 and weights.shape == indices.shape
    if not is_right or logits.shape[-1] < layer.num_experts or indices.is_floating_point():
        return None
    return Handed(
        form="choices",
        logits_TE=logits,
        weights_TK=weights,
        indices_TK=_noted(indices, indices),
        rest=tuple(parts[3:]),
    )


def _turned(layer: MoELayer, parts: tuple[Any, ...]) -> Handed | None:
    """NLLB's. Its own gate hands a mask of the first choice where its experts read numbers of experts.

    So of a token's E entries one says expert 1 and all others expert 0, and what is recorded is what is run.
    """
    if len(parts) != 3 or not all(isinstance(part, Tensor) and part.ndim == 2 for part in parts):
        return None
    indices, weights, logits = parts
    is_right = weights.shape == indices.shape and weights.is_floating_point() and logits.is_floating_point()
    if not is_right or indices.is_floating_point() or logits.shape != (len(indices), layer.num_experts):
        return None
    indices_TK = _noted(indices, indices)
    return Handed(form="turned", logits_TE=logits, weights_TK=weights, indices_TK=indices_TK)


def _mask(layer: MoELayer, parts: tuple[Any, ...]) -> Handed | None:
    """Switch's: a token that found no room has an empty row, which is read as a hole of weight 0."""
    if len(parts) != 3 or not all(isinstance(part, Tensor) and part.ndim >= 2 for part in parts):
        return None
    mask, weight, logits = parts
    is_right = mask.shape == logits.shape and mask.shape[-1] == layer.num_experts
    if not is_right or mask.is_floating_point() or weight.shape != (*mask.shape[:-1], 1):
        return None
    mask_TE = mask.reshape(-1, layer.num_experts)
    is_pair_TK = mask_TE.any(dim=-1, keepdim=True)
    return Handed(
        form="mask",
        logits_TE=logits.reshape(mask_TE.shape),
        weights_TK=weight.reshape(-1, 1) * is_pair_TK,
        indices_TK=mask_TE.argmax(dim=-1, keepdim=True).masked_fill(~is_pair_TK, -1),
        lead=tuple(mask.shape[:-1]),
    )


def _scores(layer: MoELayer, parts: tuple[Any, ...]) -> Handed | None:
    """Llama 4's: its experts run all tokens, and multiply what goes in; what is 0 was not chosen."""
    if len(parts) != 2 or not all(isinstance(part, Tensor) and part.ndim == 2 for part in parts):
        return None
    scores, logits = parts
    usual = getattr(layer.gate, "top_k", None)
    is_right = scores.shape == logits.shape and scores.shape[-1] == layer.num_experts
    if not is_right or not isinstance(usual, int) or not 1 <= usual <= layer.num_experts:
        return None
    most = int((scores != 0).sum(dim=-1).max()) if scores.numel() else 0
    if usual < most == layer.num_experts:
        return None
    # Another gate in its place may choose more.
    k = max(usual, most)
    weights_TK, indices_TK = scores.topk(k, dim=-1)
    indices_TK = indices_TK.masked_fill(weights_TK == 0, -1)
    return Handed(form="scores", logits_TE=logits, weights_TK=weights_TK, indices_TK=indices_TK)


def _sorted(layer: MoELayer, parts: tuple[Any, ...]) -> Handed | None:
    if len(parts) != 5 or not isinstance(parts[3], list) or len(parts[3]) != layer.num_experts:
        return None
    order, _, weights, counts, logits = parts
    tokens = logits.shape[0] if logits.ndim == 2 else 0
    if logits.shape[-1] != layer.num_experts or order.ndim != 1 or not tokens or len(order) % tokens:
        return None
    experts_N = torch.arange(layer.num_experts, device=order.device)
    experts_N = experts_N.repeat_interleave(torch.tensor(counts, device=order.device))
    shape = (tokens, len(order) // tokens)
    return Handed(
        form="sorted",
        logits_TE=logits,
        weights_TK=torch.empty_like(weights).index_copy(0, order, weights).view(shape),
        indices_TK=_noted(order, torch.empty_like(order).index_copy(0, order, experts_N).view(shape)),
    )


def _logits(layer: MoELayer, parts: tuple[Any, ...]) -> Handed | None:
    if len(parts) != 1 or not isinstance(parts[0], Tensor):
        return None
    logits = parts[0]
    if logits.ndim != 2 or logits.shape[-1] != layer.num_experts or not logits.is_floating_point():
        return None
    empty = logits.new_empty(logits.shape[0], 0)
    return Handed(form="logits", logits_TE=logits, weights_TK=empty, indices_TK=empty.long())


def _with_inner(handed: Handed, inner_TE: Tensor | None) -> Handed:
    """Return the same with real logits where a gate returns the probabilities of its inner map."""
    if inner_TE is None or inner_TE.shape != handed.logits_TE.shape:
        return handed
    if not torch.equal(_probabilities(inner_TE, handed.logits_TE.dtype), handed.logits_TE):
        return handed
    return replace(handed, logits_TE=inner_TE, is_probability=True)


def _probabilities(logits_TE: Tensor, dtype: torch.dtype) -> Tensor:
    return logits_TE.softmax(dim=-1, dtype=torch.float32).to(dtype)


def _write_choices(handed: Handed) -> tuple[Any, ...]:
    first = handed.logits_TE
    if handed.is_probability:
        first = _probabilities(first, torch.float32)
    return (first, handed.weights_TK, handed.indices_TK, *handed.rest)


def _write_scores(handed: Handed) -> tuple[Tensor, Tensor]:
    # Added, not set: a token with fewer experts has expert 0 in its holes too, with weight 0.
    zeros_TE = torch.zeros_like(handed.logits_TE, dtype=handed.weights_TK.dtype)
    scores_TE = zeros_TE.scatter_add(1, handed.indices_TK, handed.weights_TK)
    return scores_TE.to(handed.logits_TE.dtype), handed.logits_TE


def _write_mask(handed: Handed) -> tuple[Tensor, Tensor, Tensor]:
    if handed.weights_TK.shape[1] != 1:
        what = "a family whose gate gives a mask of one expert a token"
        raise InputError(sentence(what, allowed="k = 1", got=f"k = {handed.weights_TK.shape[1]}"))
    lead = handed.lead or (handed.weights_TK.shape[0],)
    mask_TE = nn.functional.one_hot(handed.indices_TK[:, 0], handed.logits_TE.shape[-1])
    mask_TE = mask_TE * (handed.weights_TK != 0)
    shape = (*lead, mask_TE.shape[-1])
    return mask_TE.view(shape), handed.weights_TK.view(*lead, 1), handed.logits_TE.view(shape)


def _write_sorted(handed: Handed) -> tuple[Tensor, Tensor, Tensor, list[int], Tensor]:
    experts_N = handed.indices_TK.flatten()
    order_N = experts_N.sort()[1]
    tokens_N = order_N.div(handed.indices_TK.shape[1], rounding_mode="trunc")
    counts = torch.bincount(experts_N, minlength=handed.logits_TE.shape[-1]).tolist()
    return order_N, tokens_N, handed.weights_TK.flatten()[order_N], counts, handed.logits_TE


Decide = Callable[[Handed], Handed | None]
"""From what a gate hands out to what shall be handed out instead; None for no change."""

_WRITERS: dict[Form, Callable[[Handed], Any]] = {
    "choices": _write_choices,
    "turned": lambda handed: (handed.indices_TK, handed.weights_TK, handed.logits_TE),
    "scores": _write_scores,
    "mask": _write_mask,
    "sorted": _write_sorted,
    "logits": lambda handed: handed.logits_TE,
}
