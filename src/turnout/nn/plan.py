"""This module holds what a gate hands to an executor: which token goes to which expert, with what weight.

A `Plan` is one of two kinds. `SparsePlan` lists pairs (token, expert, weight), sorted by expert, since expert
choice, ReLU gates, top-p and null experts do not fit a rectangle (T, K). The dense kinds of `plan_dense` are
for soft slots and merged experts.

Axes: T = B * S tokens of B items with S positions, E experts, K columns of a rectangle, N pairs.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_count
from turnout.nn.late import infinite_if, is_late, refuse_later
from turnout.nn.plan_order import SHORT, by_expert, ends, ranks, sorted_short

Priority = Literal["position", "weight"]


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """What every plan knows, whatever its kind.

    Only shapes and devices are checked where a plan is made, so that nothing waits for an accelerator;
    `validate` reads the numbers. Raises `ShapeError` with the shapes as an equation.
    """

    num_tokens: int
    """T, padding included."""
    num_experts: int
    """E, the routed experts."""
    logits_TE: Tensor | None = None
    """What the gate computed before any score, in single precision; for losses and recordings."""
    scores_TE: Tensor | None = None
    """What the choice was made of, before any bias; for losses."""
    mask_T: Tensor | None = None
    """True at tokens, False at padding; None where nothing is padding."""
    state: Tensor | None = None
    """What the gate of the next layer is given as `GateContext.state`."""
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars that this gate wants added to the loss, by name, unscaled."""

    def __post_init__(self) -> None:
        for name in ("logits_TE", "scores_TE"):
            equal(name, getattr(self, name), "(T, E)", (self.num_tokens, self.num_experts))
        check_mask("mask_T", self.mask_T, "(T,)", (self.num_tokens,))
        if self.logits_TE is not None and self.logits_TE.dtype not in (torch.float32, torch.float64):
            raise InputError(
                sentence("logits_TE of a plan", allowed="torch.float32", got=self.logits_TE.dtype)
            )

    @abstractmethod
    def to_dense(self) -> Tensor:
        """Return weights_TE, how much each expert counts for each token; gradients flow."""

    @abstractmethod
    def validate(self) -> None:
        """Read the numbers too; raises `InputError` for the first that breaks a rule of the kind."""


@dataclass(frozen=True, kw_only=True)
class SparsePlan(Plan):
    """Pairs (token, expert, weight) in the order of experts, and of tokens within an expert.

    `offsets_E` are the ends of the experts' stretches: expert e has the pairs from offsets_E[e - 1] (0 for
    the first) to offsets_E[e]; int32, as grouped matrix products ask for. A token may have any number of
    pairs, none included: then only what stands beside the experts counts for it.
    """

    tokens_N: Tensor
    """The token of each pair, int64."""
    experts_N: Tensor
    """The expert of each pair, int64, never falling."""
    weights_N: Tensor
    """What the expert's output is multiplied by; gradients flow."""
    columns_N: Tensor
    """The place of each pair among those of its token, int64: its column in (T, K)."""
    offsets_E: Tensor
    """The ends of the experts' stretches, int32."""
    num_columns: int
    """K: no token has more pairs."""
    capacity: int | None = None
    """The most pairs that an expert may have, None without such a limit."""
    dropped_E: Tensor | None = None
    """How many pairs each expert turned away, int64; None without a limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        num_pairs = self.weights_N.shape[0] if self.weights_N.ndim == 1 else -1
        for name in ("tokens_N", "experts_N", "weights_N", "columns_N"):
            equal(name, getattr(self, name), "(N,)", (num_pairs,))
            found = getattr(self, name).dtype
            if name != "weights_N" and found != torch.int64:
                do = f"pass {name}.long()"
                raise InputError(sentence(f"{name} of a plan", allowed="torch.int64", got=found, do=do))
        equal("offsets_E", self.offsets_E, "(E,)", (self.num_experts,))
        equal("dropped_E", self.dropped_E, "(E,)", (self.num_experts,))
        if self.offsets_E.dtype != torch.int32:
            raise InputError(sentence("offsets_E", allowed="torch.int32", got=self.offsets_E.dtype))
        same_device(self.tokens_N, self.experts_N, self.weights_N, self.columns_N, self.offsets_E)

    @classmethod
    def from_choices(
        cls,
        weights_TK: Tensor,
        indices_TK: Tensor,
        *,
        num_experts: int,
        mask_T: Tensor | None = None,
        is_pair_TK: Tensor | None = None,
        **known: object,
    ) -> SparsePlan:
        """Make a plan of a rectangle; leaves out masked tokens and what is False in `is_pair_TK`.

        `known` are further fields, such as `logits_TE`. Raises `ShapeError` unless both are (T, K), and
        `InputError` for masks that are not boolean.
        """
        _check_rectangle(weights_TK, indices_TK, mask_T, is_pair_TK)
        indices_TK, kept_TK = indices_TK.long(), is_pair_TK
        if mask_T is not None:
            kept_TK = mask_T[:, None].expand_as(indices_TK) if kept_TK is None else kept_TK & mask_T[:, None]
        is_short = kept_TK is None and indices_TK.device.type == "cpu" and indices_TK.numel() <= SHORT
        found = (
            sorted_short(indices_TK, num_experts) if is_short else by_expert(indices_TK, num_experts, kept_TK)
        )
        order_N, tokens_N, experts_N, columns_N, offsets_E = found
        return cls(
            tokens_N=tokens_N,
            experts_N=experts_N,
            weights_N=weights_TK.reshape(-1).index_select(0, order_N),
            columns_N=columns_N,
            offsets_E=offsets_E,
            num_columns=indices_TK.shape[1],
            num_tokens=indices_TK.shape[0],
            num_experts=num_experts,
            mask_T=mask_T,
            **known,  # type: ignore[arg-type]
        )

    @classmethod
    def from_pairs(
        cls,
        tokens_N: Tensor,
        experts_N: Tensor,
        weights_N: Tensor,
        *,
        num_tokens: int,
        num_experts: int,
        **known: object,
    ) -> SparsePlan:
        """Make a plan of pairs in any order; columns are numbered in the order of experts.

        Raises `ShapeError` unless all three are (N,), and `InputError` for numbers outside of T and E. A pair
        that stands twice counts twice.
        """
        for name, value, size in (("tokens_N", tokens_N, num_tokens), ("experts_N", experts_N, num_experts)):
            equal(name, value, "(N,)", tuple(weights_N.shape))
            if len(value) and not value.is_meta:
                check_within(f"from_pairs: {name}", value, size)
        same_device(tokens_N, experts_N, weights_N)
        tokens_N, experts_N = tokens_N.long(), experts_N.long()
        if is_late(experts_N.device):
            # What is refused later must not stop the device until then.
            tokens_N = tokens_N.clamp(0, max(num_tokens - 1, 0))
            experts_N = experts_N.clamp(0, max(num_experts - 1, 0))
        order_N = torch.argsort(experts_N * max(num_tokens, 1) + tokens_N, stable=True)
        tokens_N, experts_N = tokens_N[order_N], experts_N[order_N]
        columns_N = ranks(tokens_N, num_tokens)
        return cls(
            tokens_N=tokens_N,
            experts_N=experts_N,
            weights_N=weights_N[order_N],
            columns_N=columns_N,
            offsets_E=ends(experts_N, num_experts),
            num_columns=int(columns_N.max()) + 1 if len(columns_N) else 0,
            num_tokens=num_tokens,
            num_experts=num_experts,
            **known,  # type: ignore[arg-type]
        )

    @classmethod
    def from_dense(
        cls,
        weights_TE: Tensor,
        *,
        is_pair_TE: Tensor | None = None,
        mask_T: Tensor | None = None,
        **known: object,
    ) -> SparsePlan:
        """Make a plan of a matrix: its pairs are where `is_pair_TE` holds, or where the weight is not 0.

        Raises `ShapeError` unless the matrix is (T, E), and `InputError` for masks that are not boolean.
        """
        matrix("weights_TE", weights_TE)
        pairs_TE = weights_TE != 0 if is_pair_TE is None else is_pair_TE
        check_mask("is_pair_TE", pairs_TE, "(T, E)", tuple(weights_TE.shape))
        check_mask("mask_T", mask_T, "(T,)", (weights_TE.shape[0],))
        if mask_T is not None:
            pairs_TE = pairs_TE & mask_T[:, None]
        experts_N, tokens_N = pairs_TE.T.nonzero(as_tuple=True)
        return cls.from_pairs(
            tokens_N,
            experts_N,
            weights_TE[tokens_N, experts_N],
            num_tokens=weights_TE.shape[0],
            num_experts=weights_TE.shape[1],
            mask_T=mask_T,
            **known,
        )

    @property
    def num_pairs(self) -> int:
        """N: how many times an expert is run on a token."""
        return int(self.weights_N.shape[0])

    @property
    def counts_E(self) -> Tensor:
        """How many tokens each expert has, int64."""
        ends_E = self.offsets_E.to(torch.int64)
        return torch.diff(ends_E, prepend=ends_E.new_zeros(1))

    def to_choices(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (weights_TK, indices_TK, is_pair_TK); a hole has weight 0, index 0 and False."""
        shape = (self.num_tokens, self.num_columns)
        place = (self.tokens_N, self.columns_N)
        weights_TK = self.weights_N.new_zeros(shape).index_put(place, self.weights_N)
        indices_TK = self.experts_N.new_zeros(shape).index_put(place, self.experts_N)
        is_pair_TK = torch.zeros(shape, dtype=torch.bool, device=self.experts_N.device)
        return weights_TK, indices_TK, is_pair_TK.index_put(place, is_pair_TK.new_ones(()))

    def to_dense(self) -> Tensor:
        """Return weights_TE, how much each expert counts for each token; gradients flow."""
        zeros_TE = self.weights_N.new_zeros(self.num_tokens, self.num_experts)
        return zeros_TE.index_put((self.tokens_N, self.experts_N), self.weights_N, accumulate=True)

    def limited(self, capacity: int, *, priority: Priority = "position") -> SparsePlan:
        """Let each expert keep `capacity` pairs at most and drop the rest; `dropped_E` says how many.

        Kept are the earliest tokens, as in Switch Transformers, or those of the largest weight. Raises
        `InputError` for a negative capacity.
        """
        check_count("capacity", capacity, low=0)
        if priority not in ("position", "weight"):
            raise InputError(sentence("priority", allowed="'position' or 'weight'", got=priority))
        order_N = torch.arange(self.num_pairs, device=self.experts_N.device)
        if priority == "weight":
            order_N = torch.argsort(self.weights_N.detach(), descending=True, stable=True)
        rank_N = torch.empty_like(order_N)
        rank_N[order_N] = ranks(self.experts_N[order_N], self.num_experts)
        kept_N = rank_N < capacity
        kept = replace(
            self,
            tokens_N=self.tokens_N[kept_N],
            experts_N=self.experts_N[kept_N],
            weights_N=self.weights_N[kept_N],
            columns_N=self.columns_N[kept_N],
            offsets_E=ends(self.experts_N[kept_N], self.num_experts),
            capacity=capacity,
        )
        before_E = 0 if self.dropped_E is None else self.dropped_E
        return replace(kept, dropped_E=self.counts_E - kept.counts_E + before_E)

    def validate(self) -> None:
        """Read the numbers too; raises `InputError` for the first that breaks a rule of the kind."""
        rules = (
            ("tokens_N", f"0 to {self.num_tokens - 1}", self.tokens_N, self.num_tokens),
            ("experts_N", f"0 to {self.num_experts - 1}", self.experts_N, self.num_experts),
            ("columns_N", f"0 to {self.num_columns - 1}", self.columns_N, self.num_columns),
        )
        for name, allowed, value_N, end in rules:
            wrong_N = value_N[(value_N < 0) | (value_N >= end)]
            if len(wrong_N):
                raise InputError(sentence(f"{name} of a plan", allowed=allowed, got=int(wrong_N[0])))
        if not torch.equal(self.offsets_E, ends(self.experts_N, self.num_experts)):
            raise InputError(
                sentence("offsets_E", allowed="the ends of the experts' pairs", got=self.offsets_E.tolist())
            )
        if bool((self.experts_N.diff() < 0).any()):
            raise InputError(sentence("experts_N of a plan", allowed="never falling", got=self.experts_N))
        place_N = self.tokens_N * max(self.num_columns, 1) + self.columns_N
        if len(torch.unique(place_N)) != self.num_pairs:
            raise InputError(sentence("two pairs of one token stand in one column"))
        if self.mask_T is not None and not bool(self.mask_T[self.tokens_N].all()):
            raise InputError(
                sentence("a plan sends padding to an expert", allowed="pairs where mask_T is True")
            )
        if self.capacity is not None and bool((self.counts_E > self.capacity).any()):
            raise InputError(
                sentence(
                    "tokens an expert", allowed=f"capacity {self.capacity}", got=int(self.counts_E.max())
                )
            )
        if not bool(torch.isfinite(self.weights_N).all()):
            raise InputError(sentence("weights_N of a plan", allowed="finite numbers", got="NaN or infinity"))


def _check_rectangle(
    weights_TK: Tensor, indices_TK: Tensor, mask_T: Tensor | None, is_pair_TK: Tensor | None
) -> None:
    if weights_TK.ndim != 2 or weights_TK.shape != indices_TK.shape:
        raise ShapeError(
            sentence(
                "weights_TK and indices_TK",
                allowed="(T, K) = (T, K)",
                got=f"{tuple(weights_TK.shape)} and {tuple(indices_TK.shape)}",
            )
        )
    if indices_TK.is_floating_point() or indices_TK.dtype == torch.bool:
        raise InputError(sentence("indices_TK", allowed="whole numbers", got=indices_TK.dtype))
    check_mask("mask_T", mask_T, "(T,)", (indices_TK.shape[0],))
    check_mask("is_pair_TK", is_pair_TK, "(T, K)", tuple(indices_TK.shape))
    same_device(weights_TK, indices_TK, mask_T)


def equal(name: str, value: Tensor | None, axes: str, sizes: tuple[int, ...]) -> None:
    """Raise `ShapeError` unless a tensor, if there is one, has these sizes."""
    if value is not None and value.shape != sizes:
        raise ShapeError(sentence(name, allowed=f"{axes} = {sizes}", got=tuple(value.shape)))


def matrix(name: str, value: Tensor) -> None:
    """Raise `ShapeError` unless a tensor has two axes: a third one would be taken for that of experts."""
    if value.ndim != 2:
        raise ShapeError(sentence(name, allowed="(T, E)", got=tuple(value.shape)))


def check_mask(name: str, mask: Tensor | None, axes: str, sizes: tuple[int, ...]) -> None:
    """Raise unless a mask, if there is one, has these sizes and is boolean.

    The `attention_mask` of a tokenizer is of whole numbers, which torch reads as numbers of rows where a mask
    is meant. Raises `ShapeError` for other sizes and `InputError` for another dtype.
    """
    equal(name, mask, axes, sizes)
    if mask is not None and mask.dtype != torch.bool:
        do = f"pass {name}.bool(), True where a token is real" if "mask" in name else f"pass {name}.bool()"
        if "chosen" in name:
            do = "True where an expert is chosen; `chosen_of` makes it of their numbers"
        raise InputError(sentence(name, allowed="torch.bool", got=mask.dtype, do=do))


def check_within(name: str, value_N: Tensor, size: int) -> None:
    """Raise `InputError` for a number that is none of 0 to size - 1; on CUDA as `turnout.nn.late` says."""
    least, most = value_N.aminmax()
    if is_late(value_N.device):
        refuse_later(
            {
                functools.partial(_outside, name, size, "another one"): infinite_if(
                    (least < 0) | (most >= size)
                )
            }
        )
    elif not 0 <= int(least) <= int(most) < size:
        raise _outside(name, size, f"{int(least)} to {int(most)}")


def _outside(name: str, size: int, got: str) -> InputError:
    return InputError(sentence(name, allowed=f"0 to {size - 1}", got=got))


def floating(name: str, value: Tensor) -> None:
    """Raise `InputError` for whole numbers: what is computed of them would be cut to whole numbers again."""
    if not value.is_floating_point():
        raise InputError(sentence(name, allowed="floating point", got=value.dtype))


def same_device(*tensors: Tensor | None) -> None:
    """Raise `InputError` unless all tensors are on one device."""
    found = [tensor.device for tensor in tensors if tensor is not None]
    if found and found.count(found[0]) < len(found):
        got = sorted({str(device) for device in found})
        raise InputError(sentence("the parts are on several devices", allowed="one device", got=got))
