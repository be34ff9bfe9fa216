"""This module holds experts: feed-forward networks of one shape, stacked in tensors of three axes.

The layout is that of `transformers`' experts, so that whatever runs these runs those of a checkpoint too.
Axes: E experts, D width, I inner size, F = 2 I where gate and up projections are joined, else I; N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.validation import check_choice, check_count

Activation = Literal["silu", "gelu", "relu", "identity"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "relu": functional.relu,
    "identity": lambda x: x,
}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The experts' weights in one layout: what an executor needs to know of them."""

    up_EFD: Tensor
    """Read as (E, F, D); a view where the memory is (E, D, F)."""
    down_EDI: Tensor
    """Read as (E, D, I)."""
    up_bias_EF: Tensor | None
    down_bias_ED: Tensor | None
    activate: Callable[[Tensor], Tensor]
    """From (N, F) to (N, I), row by row."""
    finish: Callable[[Tensor], Tensor] | None = None
    """What some families do to an expert's output (N, D) before it is weighted."""
    is_swiglu: bool = False
    """Whether `activate` is silu(first half) * second half, which executors may do by themselves."""

    @property
    def num_experts(self) -> int:
        """E."""
        return int(self.up_EFD.shape[0])

    @property
    def width(self) -> int:
        """D."""
        return int(self.up_EFD.shape[2])

    def to(self, dtype: torch.dtype) -> Stack:
        """Return the experts in another precision; gradients flow to those of this one."""
        biases = (self.up_bias_EF, self.down_bias_ED)
        up_bias_EF, down_bias_ED = (None if bias is None else bias.to(dtype) for bias in biases)
        return replace(
            self,
            up_EFD=self.up_EFD.to(dtype),
            down_EDI=self.down_EDI.to(dtype),
            up_bias_EF=up_bias_EF,
            down_bias_ED=down_bias_ED,
        )

    @property
    def is_plain_swiglu(self) -> bool:
        """Whether an expert is down(silu(gate x) * up x) and nothing else: no bias, nothing to finish."""
        has_bias = self.up_bias_EF is not None or self.down_bias_ED is not None
        return self.is_swiglu and not has_bias and self.finish is None

    def one(self, expert: int, x_ND: Tensor) -> Tensor:
        """Return one expert's outputs (N, D)."""
        up_bias_F = None if self.up_bias_EF is None else self.up_bias_EF[expert]
        down_bias_D = None if self.down_bias_ED is None else self.down_bias_ED[expert]
        inner_NI = self.activate(functional.linear(x_ND, self.up_EFD[expert], up_bias_F))
        out_ND = functional.linear(inner_NI, self.down_EDI[expert], down_bias_D)
        return out_ND if self.finish is None else self.finish(out_ND)


class Experts(nn.Module):
    """E feed-forward networks down(act(gate x) * up x), or down(act(up x)) with is_gated=False.

    Parameters
    ----------
    width, inner, num_experts
        D, I and E.
    activation
        `silu`, `gelu`, `relu` or `identity`.
    is_gated
        Whether a second projection is multiplied with the activation (SwiGLU and its like).
    has_bias
        Whether both products add a bias.

    Weights are drawn from a normal distribution with standard deviation 1 / sqrt(inputs), biases are 0.
    """

    def __init__(
        self,
        *,
        width: int,
        inner: int,
        num_experts: int,
        activation: Activation = "silu",
        is_gated: bool = True,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("inner", inner), ("num_experts", num_experts)):
            check_count(f"Experts: {name}", value)
        check_choice("Experts: activation", activation, _ACTIVATIONS)
        self.width, self.inner, self.num_experts = width, inner, num_experts
        self.activation, self.is_gated, self.has_bias = activation, is_gated, has_bias
        joined = 2 * inner if is_gated else inner
        self.up_proj = nn.Parameter(torch.randn(num_experts, joined, width) / width**0.5)
        self.down_proj = nn.Parameter(torch.randn(num_experts, width, inner) / inner**0.5)
        self.up_proj_bias = nn.Parameter(torch.zeros(num_experts, joined)) if has_bias else None
        self.down_proj_bias = nn.Parameter(torch.zeros(num_experts, width)) if has_bias else None

    def activate(self, h_NF: Tensor) -> Tensor:
        """Return the inner states (N, I)."""
        act = _ACTIVATIONS[self.activation]
        if not self.is_gated:
            return act(h_NF)
        gate_NI, up_NI = h_NF.chunk(2, dim=-1)
        return act(gate_NI) * up_NI

    def stack(self) -> Stack:
        """Return the weights as executors read them."""
        return Stack(
            up_EFD=self.up_proj,
            down_EDI=self.down_proj,
            up_bias_EF=self.up_proj_bias,
            down_bias_ED=self.down_proj_bias,
            activate=self.activate,
            is_swiglu=self.is_gated and self.activation == "silu",
        )


class FactoredExperts(nn.Module):
    """E gated feed-forward networks whose gate projection is of low rank: down(act(wide (first x)) * (up x)).

    Parameters
    ----------
    width, inner, num_experts
        D, I and E.
    rank
        R, the rows of `first_ERD`; None for a third of D. Parameters are those of `Experts` with inner size J
        where I = (3 D J - R D) / (R + 2 D).
    activation
        `silu`, `gelu`, `relu` or `identity`.

    A stack holds the product of both factors, so that executors need not know of them. Weights are drawn as
    in `Experts`. Source of the factors: S102, Autonomy-of-Experts (arXiv 2501.13074).
    """

    def __init__(
        self,
        *,
        width: int,
        inner: int,
        num_experts: int,
        rank: int | None = None,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("inner", inner), ("num_experts", num_experts)):
            check_count(f"FactoredExperts: {name}", value)
        check_choice("FactoredExperts: activation", activation, _ACTIVATIONS)
        self.width, self.inner, self.num_experts, self.activation = width, inner, num_experts, activation
        self.rank = max(width // 3, 1) if rank is None else check_count("FactoredExperts: rank", rank)
        self.first_ERD = nn.Parameter(torch.randn(num_experts, self.rank, width) / width**0.5)
        self.wide_EIR = nn.Parameter(torch.randn(num_experts, inner, self.rank) / self.rank**0.5)
        self.up_EID = nn.Parameter(torch.randn(num_experts, inner, width) / width**0.5)
        self.down_EDI = nn.Parameter(torch.randn(num_experts, width, inner) / inner**0.5)

    def activate(self, h_NF: Tensor) -> Tensor:
        """Return the inner states (N, I)."""
        gate_NI, up_NI = h_NF.chunk(2, dim=-1)
        return _ACTIVATIONS[self.activation](gate_NI) * up_NI

    def stack(self) -> Stack:
        """Return the weights as executors read them."""
        return Stack(
            up_EFD=torch.cat([self.wide_EIR @ self.first_ERD, self.up_EID], dim=1),
            down_EDI=self.down_EDI,
            up_bias_EF=None,
            down_bias_ED=None,
            activate=self.activate,
            is_swiglu=self.activation == "silu",
        )


def stack_of(experts: nn.Module) -> Stack:
    """Return the weights of experts of this module, or of the stacked experts of any `transformers` family.

    Raises `InputError` for a module whose layout is not known, and `ShapeError` where its parts do not fit.
    """
    if isinstance(experts, Experts | FactoredExperts):
        return experts.stack()
    parts: Any = experts
    for layout in (_undeclared, _rows_of_all):
        if (found := layout(parts)) is not None:
            return found
    is_gated = getattr(parts, "has_gate", None)
    names = ("gate_up_proj" if is_gated else "up_proj", "down_proj")
    if is_gated is None or not all(isinstance(getattr(parts, name, None), Tensor) for name in names):
        raise InputError(
            sentence(
                f"{type(experts).__name__} is not stacked as executors read it",
                allowed="turnout's `Experts`, or experts of transformers with `has_gate` and stacked weights",
            )
        )
    up, down = (getattr(parts, name) for name in names)
    if parts.is_transposed:
        up, down = up.transpose(1, 2), down.transpose(1, 2)
    if up.shape[0] != down.shape[0] or up.shape[2] != down.shape[1]:
        raise ShapeError(
            sentence(
                f"{type(experts).__name__}: its weights",
                allowed="(E, F, D) and (E, D, I)",
                got=f"{tuple(up.shape)} and {tuple(down.shape)}",
            )
        )
    own_gate = type(experts)._apply_gate  # type: ignore[attr-defined]
    is_plain = own_gate.__module__ == "transformers.integrations.moe"
    return Stack(
        up_EFD=up,
        down_EDI=down,
        up_bias_EF=getattr(parts, f"{names[0]}_bias") if parts.has_bias else None,
        down_bias_ED=parts.down_proj_bias if parts.has_bias else None,
        activate=parts._apply_gate if is_gated else parts.act_fn,
        finish=parts.post_expert_norm if parts.has_post_expert_norm else None,
        is_swiglu=bool(is_gated and is_plain and type(parts.act_fn).__name__ in ("SiLU", "SiLUActivation")),
    )


def _undeclared(parts: Any) -> Stack | None:
    """Return the stack of experts that hold what others do and declare nothing: Step 3.7's.

    Their activation is a method of its own over both projections, (E, 2 I, D), and there is no bias.
    """
    up, down = (getattr(parts, name, None) for name in ("gate_up_proj", "down_proj"))
    activate = getattr(parts, "_apply_gate", None)
    if hasattr(parts, "has_gate") or activate is None or hasattr(parts, "gate_up_proj_bias"):
        return None
    if not (isinstance(up, Tensor) and isinstance(down, Tensor) and up.ndim == down.ndim == 3):
        return None
    num_experts, joined, width = up.shape
    if tuple(down.shape) != (num_experts, width, joined // 2):
        return None
    return Stack(up_EFD=up, down_EDI=down, up_bias_EF=None, down_bias_ED=None, activate=activate)


def _rows_of_all(parts: Any) -> Stack | None:
    """Return the stack of experts whose three weights stand one below the other, (E I, D) each: DBRX's.

    The gate and up projections are joined anew for each stack, which copies two thirds of the weights.
    """
    held = getattr(parts, "mlp", None)
    weights = [getattr(held, name, None) for name in ("w1", "v1", "w2")]
    num_experts, act = getattr(parts, "num_experts", None), getattr(held, "activation_fn", None)
    if act is None or not isinstance(num_experts, int) or not all(isinstance(w, Tensor) for w in weights):
        return None
    gate_EID, up_EID, down_EID = (w.unflatten(0, (num_experts, -1)) for w in weights if w is not None)

    def activate(h_NF: Tensor) -> Tensor:
        gate_NI, up_NI = h_NF.chunk(2, dim=-1)
        inner_NI: Tensor = act(gate_NI) * up_NI
        return inner_NI

    return Stack(
        up_EFD=torch.cat([gate_EID, up_EID], dim=1),
        down_EDI=down_EID.transpose(1, 2),
        up_bias_EF=None,
        down_bias_ED=None,
        activate=activate,
        is_swiglu=type(act).__name__ in ("SiLU", "SiLUActivation"),
    )
