"""This module states what a gate is: it reads hidden states and their context, and makes a plan.

Axes: B items of S positions each, T = B * S tokens item by item, D width, E experts.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.errors import InputError, ShapeError, TurnoutError, sentence
from turnout.core.validation import check_count
from turnout.nn.exact_buffers import ExactBuffers
from turnout.nn.executors.forms import outputs
from turnout.nn.experts import Stack, stack_of
from turnout.nn.late import infinite_if, is_late, refuse_arrived, refuse_later, same, wrong_rows
from turnout.nn.plan import Plan, SparsePlan, check_mask, equal, floating, same_device
from turnout.nn.wide_product import is_wide, wide_product

Sight = Literal["token", "past", "sequence", "batch"]
"""What the routing of a token may depend on: the token alone, earlier tokens of its item too, the whole item,
or all items."""

SIGHTS: tuple[Sight, ...] = ("token", "past", "sequence", "batch")


@dataclass(frozen=True, kw_only=True)
class GateContext:
    """What is known beside the hidden states. A gate says in `needs` what it can't do without.

    Tensors with an axis S have one entry for each token given, T = B * S.
    """

    num_items: int = 1
    """B."""
    mask_BS: Tensor | None = None
    """True at tokens, False at padding; None where nothing is padding."""
    token_ids_BS: Tensor | None = None
    """The vocabulary's numbers of the tokens."""
    attention_BSS: Tensor | None = None
    """What the attention before this layer looked at: mean over heads, rows are queries and add up to 1."""
    state: Tensor | None = None
    """What the gate of the layer before left in `Plan.state`, (T, ...); None in the first layer."""
    timestep_B: Tensor | None = None
    """How much of each item is still noise, in [0, 1]; for models that denoise."""
    tasks_B: Tensor | None = None
    """The number of each item's task."""
    experts: nn.Module | None = None
    """What will run the plan; a layer gives its own to a gate that needs it."""
    layer: int = 0
    """Which mixture-of-experts layer this is, from 0."""
    num_layers: int = 1
    """How many such layers there are."""
    name: str = ""
    """What errors call the layer, such as its path in a model; "" leaves it to its number."""
    is_autoregressive: bool = False
    """Whether what comes out decides what the next tokens are, as in `generate`."""
    num_past: int = 0
    """Earlier positions of each item that are not among the tokens given, since a cache stands for them."""

    def mask_T(self) -> Tensor | None:
        """Return the mask, flat."""
        return None if self.mask_BS is None else self.mask_BS.reshape(-1)

    def validate(self, num_tokens: int) -> None:
        """Raise `ShapeError` unless all that is known has T tokens, `InputError` if all are padding."""
        if self.num_items < 1 or num_tokens % self.num_items:
            raise ShapeError(
                sentence("context.num_items", allowed=f"T = B * S with T = {num_tokens}", got=self.num_items)
            )
        items, positions = self.num_items, num_tokens // self.num_items
        check_mask("context.mask_BS", self.mask_BS, "(B, S)", (items, positions))
        equal("context.token_ids_BS", self.token_ids_BS, "(B, S)", (items, positions))
        seen = positions + self.num_past
        equal("context.attention_BSS", self.attention_BSS, "(B, S, past + S)", (items, positions, seen))
        equal("context.timestep_B", self.timestep_B, "(B,)", (items,))
        equal("context.tasks_B", self.tasks_B, "(B,)", (items,))
        if self.state is not None and self.state.shape[0] != num_tokens:
            raise ShapeError(
                sentence("context.state", allowed=f"(T, ...) = ({num_tokens}, ...)", got=self.state.shape)
            )
        mask_BS = self.mask_BS if num_tokens else None
        if mask_BS is not None and not is_late(mask_BS.device) and not bool(mask_BS.any()):
            raise all_masked()


class Gate(ExactBuffers, ABC):
    """Makes a plan of hidden states. An implementation is one file and defines `decide`.

    It is made by `Class(width=D, num_experts=E, ...)`, stores each argument under its own name and has a
    default for every other one. Noise belongs to training: in eval mode the same input gives the same plan.
    Logits are of single precision (`fp32_logits`), under `torch.autocast` too: `decide` runs outside of it.
    Padding is sent nowhere and changes no other token's plan.

    Attributes
    ----------
    sees
        What the routing of a token may depend on. A property where it differs between training and eval mode.
    needs
        The fields of `GateContext` that may not be None.
    is_apart
        Whether its weights carry no gradient into it, so that its own losses alone teach it.
    expert_rows
        Names of parameters and buffers with rows of experts, if moving rows by `expert_order` moves the
        plan's columns and nothing else, in eval mode; experts move along where a gate needs them. Rows lie
        along the axis that the name's last part calls E (`key_HEZ`), else along the first: one an expert, or
        as many for each, one after the other, or one for each of the last experts. None claims nothing.
    """

    sees: Sight = "token"
    needs: ClassVar[frozenset[str]] = frozenset()
    is_apart: bool = False
    expert_rows: tuple[str, ...] | None = None

    def __init__(self, *, width: int, num_experts: int) -> None:
        super().__init__()
        check_count(f"{type(self).__name__}: width", width)
        check_count(f"{type(self).__name__}: num_experts", num_experts)
        self.width, self.num_experts = width, num_experts

    @abstractmethod
    def decide(self, x_TD: Tensor, context: GateContext) -> Plan:
        """Return the plan; what is given was checked and is 0 at padding, and what is returned will be."""

    def forward(self, x_TD: Tensor, context: GateContext | None = None) -> Plan:
        """Return the plan of hidden states x_TD; not overridden.

        Raises `ShapeError` for other shapes than (T, D), and `InputError` for a context that lacks what the
        gate needs, all tokens masked, mixed devices, autoregressive decoding by a gate that sees later
        tokens, and logits that are not numbers. On CUDA, where finding out would wait, NaN and a batch of
        padding alone are refused by the next gate that runs, or by `turnout.nn.late.refuse_arrived`.
        """
        context = GateContext() if context is None else context
        refuse_arrived()
        self._check_input(x_TD, context)
        # Whether a GPU has nothing masked is not worth waiting for.
        if context.mask_BS is not None and (is_late(x_TD.device) or not bool(context.mask_BS.all())):
            # Even a NaN times 0 is NaN: what stands at padding must reach no sum and no gradient.
            x_TD = x_TD.masked_fill(~context.mask_BS.reshape(-1, 1), 0.0)
        kind = x_TD.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # Autocast would turn the products of single precision into half ones, and a choice into ties.
            with torch.autocast(kind, enabled=False):
                plan = self.decide(x_TD, context)
        else:
            plan = self.decide(x_TD, context)
        self._check_plan(plan, x_TD, context)
        return plan

    def after_step(self) -> None:
        """Learn what no gradient teaches, once after each optimiser step; nothing unless a gate says so.

        What was seen in training mode since the last call is counted; what activation checkpointing computes
        again in the backward pass is not (`is_computed_again`).
        """

    def expert_order(self) -> Tensor:
        """Return another order (E,) of experts whose numbers mean nothing beside their rows.

        A gate whose experts' numbers also say a group or a part overrides it.
        """
        return moved_within(self.num_experts)

    @property
    def is_causal(self) -> bool:
        """Whether no token's routing depends on a later token."""
        return self.sees in ("token", "past")

    def config(self) -> dict[str, object]:
        """Return the constructor's arguments; each is stored under its own name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def _called(self, context: GateContext) -> str:
        """Return what errors call this gate: its class, and where it stands as far as that is known."""
        name = type(self).__name__
        if context.name:
            return f"{context.name} ({name})"
        last = context.num_layers - 1
        return f"{name} (layer {context.layer} of 0 to {last})" if last else name

    def _check_input(self, x_TD: Tensor, context: GateContext) -> None:
        name = self._called(context)
        if x_TD.ndim != 2 or x_TD.shape[1] != self.width:
            raise ShapeError(
                sentence(f"{name}: x_TD", allowed=f"(T, D) with D = {self.width}", got=tuple(x_TD.shape))
            )
        floating(f"{name}: x_TD", x_TD)
        own, theirs = (None if m is None else _some_weight(m) for m in (self, context.experts))
        same_device(x_TD, context.mask_BS, context.token_ids_BS, context.state, own, theirs)
        if x_TD.is_meta:
            raise InputError(sentence(f"{name}: x_TD", allowed="a device that holds numbers", got="meta"))
        context.validate(x_TD.shape[0])
        if self.needs and any(getattr(context, field) is None for field in self.needs):
            missing = sorted(field for field in self.needs if getattr(context, field) is None)
            raise InputError(
                sentence(
                    f"{name} needs more than hidden states", allowed=f"a context with {', '.join(missing)}"
                )
            )
        if context.is_autoregressive and not self.is_causal:
            raise InputError(
                sentence(
                    f"{name} sees later tokens ({self.sees!r}), which decoding does not have yet",
                    allowed="a gate with is_causal",
                )
            )
        if context.num_past and self.sees != "token":
            raise InputError(
                sentence(
                    f"{name} sees other tokens ({self.sees!r}), and {context.num_past} stand only in a cache",
                    allowed="whole sequences",
                    do="turn the cache off",
                )
            )

    def _check_later(self, plan: Plan, x_TD: Tensor, context: GateContext) -> None:
        """Ask a GPU what `_check_plan` and the context ask a processor at once; few launches, no wait."""
        name = self._called(context)
        asked: dict[Callable[[], TurnoutError], Tensor] = {}
        # -inf closes an expert. What has no logits reads nothing but the states.
        has_logits = plan.logits_TE is not None
        read_TX = x_TD if plan.logits_TE is None else plan.logits_TE
        error = same(_no_numbers, name, "logits" if has_logits else "hidden states")
        asked |= wrong_rows(error, read_TX, plan.mask_T, may_close=has_logits)
        if isinstance(plan, SparsePlan):
            asked |= wrong_rows(same(_no_weights, name), plan.weights_N, may_close=False)
        if context.mask_BS is not None and context.mask_BS.numel():
            asked[all_masked] = infinite_if(~context.mask_BS.any())
        refuse_later(asked)

    def _check_plan(self, plan: Plan, x_TD: Tensor, context: GateContext) -> None:
        name, num_tokens = self._called(context), x_TD.shape[0]
        if (plan.num_tokens, plan.num_experts) != (num_tokens, self.num_experts):
            raise ShapeError(
                sentence(
                    f"{name}: its plan",
                    allowed=f"(T, E) = ({num_tokens}, {self.num_experts})",
                    got=(plan.num_tokens, plan.num_experts),
                )
            )
        if is_late(x_TD.device):
            self._check_later(plan, x_TD, context)
            return
        if plan.logits_TE is None:
            # It reads nothing but the states.
            what, finite_T = "hidden states", x_TD.detach().isfinite().all(dim=-1)
        else:
            # The largest of numbers and NaN is NaN: a tenth of the time that asking each number takes. -inf
            # closes an expert.
            what, finite_T = "logits", plan.logits_TE.detach().amax(dim=-1).isfinite()
        wrong_T = ~finite_T if plan.mask_T is None else ~finite_T & plan.mask_T
        if bool(wrong_T.any()):
            raise InputError(
                sentence(
                    f"{name}: {what} of {int(wrong_T.sum())} of T = {num_tokens} tokens are NaN or infinite",
                    allowed="numbers",
                    do="look for NaN and infinity in the hidden states and in the gate's parameters",
                )
            )
        if isinstance(plan, SparsePlan) and not bool(plan.weights_N.detach().isfinite().all()):
            raise _no_weights(name)


def _some_weight(module: nn.Module) -> Tensor | None:
    """Return a parameter; one of its own is found without a walk through all."""
    own = next((value for value in module._parameters.values() if value is not None), None)
    return next(module.parameters(), None) if own is None else own


def all_masked() -> InputError:
    """Return the error for a batch of padding alone."""
    return InputError(
        sentence("context.mask_BS: all tokens are masked", allowed="a token that is none of padding")
    )


def _no_numbers(name: str, what: str) -> InputError:
    return InputError(
        sentence(
            f"{name}: {what} of a token of this or an earlier pass are NaN or infinite",
            allowed="numbers",
            do="look for NaN and infinity in the hidden states and in the gate's parameters",
        )
    )


def _no_weights(name: str) -> InputError:
    return InputError(sentence(f"{name}: its weights", allowed="finite numbers", got="NaN or infinity"))


def by_item(value_TX: Tensor, context: GateContext) -> Tensor:
    """Return (B, S, ...) of (T, ...)."""
    num_tokens, *rest = value_TX.shape
    return value_TX.reshape(context.num_items, num_tokens // context.num_items, *rest)


def rooms(size_B: Tensor, factor: float, num_experts: int) -> Tensor:
    """Return ceil(factor S / E) for each item, (B,) int64, for S in `size_B` and a factor as it is written.

    In floating point 1.2 * 50 / 4 is more than 15, and its ceiling 16.
    """
    exact = Fraction(repr(float(factor))).limit_denominator(10**6) or Fraction(1, 10**6)
    return -(-size_B.long() * exact.numerator // (exact.denominator * num_experts))


def new_weight(num_experts: int, width: int) -> nn.Parameter:
    """Return the first weight (E, D) of a gate: normal, standard deviation 0.02."""
    return nn.Parameter(torch.randn(num_experts, width) * 0.02)


def chosen(indices_TK: Tensor, num_experts: int) -> Tensor:
    """Return which experts (T, E) are among the chosen ones, as 0 and 1."""
    zeros_TE = torch.zeros(indices_TK.shape[0], num_experts, device=indices_TK.device)
    return zeros_TE.scatter(1, indices_TK, 1.0)


def normalised(weights_TK: Tensor, guard: float = 0.0) -> Tensor:
    """Return weights over their sum. That of a single column is a constant to the gradient.

    A weight over itself has none, so that a gate with k = 1 would never learn; this way it is that of the
    logarithm.
    """
    sums_T1 = weights_TK.sum(dim=-1, keepdim=True)
    return weights_TK / ((sums_T1.detach() if weights_TK.shape[1] == 1 else sums_T1) + guard)


def moved_within(num_experts: int, num_groups: int = 1) -> Tensor:
    """Return an order (E,) in which the experts of each group of E / num_groups have moved, inside it.

    It is more than a shift or a mirror, which a rule of neighbours would not notice.
    """
    return torch.arange(num_experts).reshape(num_groups, -1).roll(2, dims=1).flip(1).flatten()


def real_mean(value_T: Tensor, mask_T: Tensor | None) -> Tensor:
    """Return the mean over what is no padding, a scalar; 0 of nothing."""
    real_T = torch.ones_like(value_T) if mask_T is None else mask_T.to(value_T)
    return (value_T * real_T).sum() / real_T.sum().clamp(min=1)


def jittered(x_TD: Tensor, jitter: float) -> Tensor:
    """Return states multiplied by uniform numbers in [1 - jitter, 1 + jitter], in single precision at least.

    Half precision has five numbers between 0.99 and 1.01.
    """
    x_TD = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
    return x_TD * torch.empty_like(x_TD).uniform_(1 - jitter, 1 + jitter)


def fp32_logits(x_TD: Tensor, weight_ED: Tensor, bias_E: Tensor | None = None) -> Tensor:
    """Return logits_TE in single precision, whatever the model's is: half would make ties and lose steps.

    Where no gradient is recorded, many tokens are multiplied in the fastest form of `executors.forms`, and
    states in bfloat16 on CUDA as `nn.wide_product` does it, whose digits are those of single precision.
    """
    if bias_E is None and is_wide(x_TD):
        return wide_product(x_TD, weight_ED)
    if bias_E is None and not torch.is_grad_enabled():
        return outputs(x_TD.float(), weight_ED.float())
    bias_E = None if bias_E is None else bias_E.float()
    return functional.linear(x_TD.float(), weight_ED.float(), bias_E)


def stack_for(gate: Gate, context: GateContext) -> Stack:
    """Return the experts' weights for a gate that needs them; raises `ShapeError` unless they are (E, D)."""
    assert context.experts is not None
    stack = stack_of(context.experts)
    allowed, got = (gate.num_experts, gate.width), (stack.num_experts, stack.width)
    if got != allowed:
        name = type(gate).__name__
        raise ShapeError(sentence(f"{name}: context.experts", allowed=f"(E, D) = {allowed}", got=got))
    return stack


def check_k(where: str, k: int, num_experts: int) -> int:
    """Return `k` if 1 <= k <= E; raises `InputError`."""
    if check_count(f"{where}: k", k) > num_experts:
        raise InputError(sentence(f"{where}: k", allowed=f"1 <= k <= E = {num_experts}", got=k))
    return k
