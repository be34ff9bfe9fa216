"""This module holds what a gate is checked on: a batch, its padding, and what plans and losses teach.

Everything is drawn from seeds of its own, and a gate is judged by copies of it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from turnout.checks.report import require, skip
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.plan import Plan

ITEMS, POSITIONS, VOCABULARY = 3, 8, 32
ROUNDING = 1e-6
"""A gradient below it is what rounding leaves of none, such as that of w / w."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Hidden states and everything that a context may hold, (B, S, ...)."""

    x_BSD: Tensor
    token_ids_BS: Tensor
    attention_BSS: Tensor
    timestep_B: Tensor
    tasks_B: Tensor
    experts: Experts | None = None
    mask_BS: Tensor | None = None

    def context(self) -> GateContext:
        """Return the context."""
        return GateContext(
            num_items=self.x_BSD.shape[0],
            mask_BS=self.mask_BS,
            token_ids_BS=self.token_ids_BS,
            attention_BSS=self.attention_BSS,
            timestep_B=self.timestep_B,
            tasks_B=self.tasks_B,
            experts=self.experts,
        )

    def single(self) -> Batch:
        """Return the batch with the same numbers in single precision."""
        experts = None if self.experts is None else copy.deepcopy(self.experts).float()
        return replace(self, x_BSD=self.x_BSD.float(), experts=experts)

    def items(self, order: list[int]) -> Batch:
        """Return these items in this order."""
        changed: dict[str, Any] = {
            name: value[order] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)

    def with_experts(self, order_E: Tensor) -> Batch:
        """Return the batch with its experts, if it has some, in this order."""
        if self.experts is None:
            return self
        experts = copy.deepcopy(self.experts)
        for parameter in experts.parameters():
            parameter.data = parameter.data[order_E.to(parameter.device)]
        return replace(self, experts=experts)

    def positions(self, order: list[int]) -> Batch:
        """Return these positions of every item in this order; causal attention goes along."""
        attention = self.attention_BSS[:, order][:, :, order]
        mask_BS = None if self.mask_BS is None else self.mask_BS[:, order]
        ids_BS = self.token_ids_BS[:, order]
        return replace(
            self, x_BSD=self.x_BSD[:, order], token_ids_BS=ids_BS, attention_BSS=attention, mask_BS=mask_BS
        )


def device_of(gate: Gate) -> torch.device:
    """Return where a gate is, a processor for one that holds nothing."""
    held = itertools.chain(gate.parameters(), gate.buffers())
    return next((value.device for value in held), torch.device("cpu"))


def drawn_apart(gate: Gate) -> AbstractContextManager[None]:
    """Keep what is drawn inside from everybody else's random numbers, on the gate's device too."""
    device = device_of(gate)
    return torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=_kind(device))


def _kind(device: torch.device) -> str:
    # Asked for a processor's, torch looks for more than one of them.
    return "cuda" if device.type == "cpu" else device.type


def batch(gate: Gate, *, dtype: torch.dtype = torch.float32) -> Batch:
    """Return a batch for a gate, the same every time, where the gate is."""
    random, device = torch.Generator().manual_seed(5), device_of(gate)
    shape = (ITEMS, POSITIONS)
    seen_BSS = torch.randn((*shape, POSITIONS), generator=random)
    seen_BSS = seen_BSS.masked_fill(~torch.ones(POSITIONS, POSITIONS).tril().bool(), float("-inf"))
    experts = None
    if "experts" in gate.needs:
        with drawn_apart(gate):
            torch.manual_seed(7)
            experts = Experts(width=gate.width, inner=4, num_experts=gate.num_experts).to(device, dtype)
    return Batch(
        x_BSD=torch.randn((*shape, gate.width), generator=random).to(device, dtype),
        token_ids_BS=torch.randint(VOCABULARY, shape, generator=random).to(device),
        attention_BSS=seen_BSS.softmax(-1).to(device),
        timestep_B=torch.rand(ITEMS, generator=random).to(device),
        tasks_B=torch.randint(2, (ITEMS,), generator=random).to(device),
        experts=experts,
    )


def plan_of(gate: Gate, given: Batch, *, training: bool = False, is_autocast: bool = False) -> Plan:
    """Return the plan of a copy of the gate; noise is the same each time."""
    plan = _planned(copy.deepcopy(gate).train(training), given, is_autocast)
    require(isinstance(plan, Plan), gate, "what it returned is no plan", got=type(plan).__name__)
    assert isinstance(plan, Plan)
    return plan


def _planned(subject: Gate, given: Batch, is_autocast: bool = False) -> Plan:
    kind = given.x_BSD.device.type
    with drawn_apart(subject), torch.autocast(kind, torch.bfloat16, enabled=is_autocast):
        torch.manual_seed(11)
        plan: Plan = subject(given.x_BSD.reshape(-1, subject.width), given.context())
    return plan


def dense(gate: Gate, given: Batch, *, training: bool = False, is_autocast: bool = False) -> Tensor:
    """Return the plan's weights (B, S, E)."""
    plan = plan_of(gate, given, training=training, is_autocast=is_autocast)
    weights_TE = plan.to_dense().detach()
    return weights_TE.reshape(*given.x_BSD.shape[:2], gate.num_experts)


def require_same(gate: Gate, what: str, one: Tensor, other: Tensor) -> None:
    """Require two plans' weights to agree to the last places."""
    is_same = torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    far = float((one - other).abs().max()) if one.shape == other.shape and one.numel() else None
    require(is_same, gate, what, allowed="the same plan", got=far)


def padded(given: Batch, x_BSD: Tensor) -> Batch:
    """Return the batch with other states, ids and attention at padding."""
    assert given.mask_BS is not None
    is_real_BS1 = given.mask_BS[..., None]
    return replace(
        given,
        x_BSD=torch.where(is_real_BS1, given.x_BSD, x_BSD),
        token_ids_BS=torch.where(given.mask_BS, given.token_ids_BS, 0),
        attention_BSS=torch.where(is_real_BS1, given.attention_BSS, x_BSD[..., :1]),
    )


def wider(given: Batch) -> Batch:
    """Return the batch with two more positions of padding in each item, on the right."""
    assert given.mask_BS is not None

    def wide(value_BSX: Tensor, *ends: int) -> Tensor:
        return functional.pad(value_BSX, (*ends, 0, 2))

    return replace(
        given,
        x_BSD=wide(given.x_BSD, 0, 0),
        token_ids_BS=functional.pad(given.token_ids_BS, (0, 2)),
        attention_BSS=wide(given.attention_BSS, 0, 2),
        mask_BS=functional.pad(given.mask_BS, (0, 2)),
    )


def told_apart(gate: Gate) -> Gate:
    """Return a copy of the gate with no two `expert_rows` alike: who wins a tie says nothing."""
    subject = copy.deepcopy(gate)
    state, random = subject.state_dict(), torch.Generator().manual_seed(17)
    for name in subject.expert_rows or ():
        noise = torch.randn(state[name].shape, generator=random)
        state[name] = state[name] + 0.01 * noise.to(state[name])
    subject.load_state_dict(state)
    return subject


def moved(gate: Gate, order_E: Tensor) -> Gate:
    """Return a copy of the gate whose `expert_rows` stand in this order of experts."""
    subject = copy.deepcopy(gate)
    state = subject.state_dict()
    for name in subject.expert_rows or ():
        ending = name.rpartition("_")[2]
        axis = ending.index("E") if ending.isupper() and "E" in ending else 0
        rows = _rows(order_E, state[name].shape[axis]).to(state[name].device)
        state[name] = state[name].index_select(axis, rows)
    subject.load_state_dict(state)
    return subject


def _rows(order_E: Tensor, num_rows: int) -> Tensor:
    """Return the order of rows that is that of experts: some rows for each, or one for each of the last."""
    num_experts = len(order_E)
    if num_rows < num_experts:
        first = num_experts - num_rows
        return order_E[first:] - first
    each = num_rows // num_experts
    return (order_E[:, None] * each + torch.arange(each)).flatten()


def is_noisy(gate: Gate) -> bool:
    """Whether two runs in training differ."""
    subject, given = copy.deepcopy(gate).train(), batch(gate)
    found = []
    with drawn_apart(gate):
        for seed in (0, 1):
            torch.manual_seed(seed)
            plan = subject(given.x_BSD.reshape(-1, gate.width), given.context())
            found.append(
                torch.cat([plan.to_dense().flatten(), *(v.reshape(1) for v in plan.losses.values())])
            )
    return not torch.equal(*found)


def taught(gate: Gate, given: Batch, *, training: bool, is_autocast: bool = False) -> dict[str, Tensor]:
    """Return the losses of a plan by name, and the gradients of weights and losses in each parameter.

    Autocast is for the forward pass alone, as its documentation asks.
    """
    subject = copy.deepcopy(gate).train(training)
    named = [(name, p) for name, p in subject.named_parameters() if p.requires_grad]
    plan = _planned(subject, given, is_autocast)
    value = (plan.to_dense() * factors(gate, given)).sum() + sum(plan.losses.values())
    found = {f"the loss {name!r}": loss.detach() for name, loss in plan.losses.items()}
    if named and value.requires_grad:
        parts = torch.autograd.grad(value, [p for _, p in named], allow_unused=True, materialize_grads=True)
        found |= {f"the gradient in {name}": part for (name, _), part in zip(named, parts, strict=True)}
    return found


def factors(gate: Gate, given: Batch) -> Tensor:
    """Return how much each weight (T, E) counts where a gradient is asked for."""
    random = torch.Generator().manual_seed(3)
    factor_BSE = torch.randn(ITEMS, POSITIONS, gate.num_experts, generator=random).to(given.x_BSD.device)
    more = given.x_BSD.shape[1] - POSITIONS
    return functional.pad(factor_BSE, (0, 0, 0, more)).flatten(0, 1)


def require_taught(gate: Gate, subject: Gate) -> None:
    """Require that weights and losses teach every parameter of the subject, and weights one at least."""
    if gate.num_experts == 1:
        skip(gate, "one expert leaves nothing to choose, and its probability is 1")
    subject = subject.train()
    named = [(name, p) for name, p in subject.named_parameters() if p.requires_grad]
    if not named:
        skip(gate, "it has no parameters to train")
    given = batch(gate)
    factor_TE = factors(gate, given)
    with drawn_apart(gate):
        torch.manual_seed(11)
        plan = subject(given.x_BSD.reshape(-1, gate.width), given.context())
        value = (plan.to_dense() * factor_TE).sum()
        if plan.state is not None:
            # What it remembers matters in the next layer.
            context = replace(given.context(), state=plan.state, layer=1, num_layers=2)
            above = subject(given.x_BSD.reshape(-1, gate.width), context)
            value = value + (above.to_dense() * factor_TE).sum()
    reached = _reached(gate, value, named, "weights")
    if subject.is_apart:
        require(not reached, gate, "its weights teach it although it is apart", got=sorted(reached))
    else:
        require(reached, gate, "no gradient from the plan's weights", allowed="one parameter at least")
    if plan.logits_TE is not None and plan.logits_TE.requires_grad:
        _reached(gate, (plan.logits_TE * factor_TE).sum(), named, "logits")
    for name, loss in plan.losses.items():
        require(loss.requires_grad, gate, f"the loss {name!r} has no gradient")
        reached |= _reached(gate, loss, named, f"the loss {name!r}")
    # Logits alone teach nothing: no loss is made of them unless somebody adds one.
    missing = sorted({name for name, _ in named} - reached)
    require(not missing, gate, "parameters without a gradient", allowed="none", got=missing)


def _reached(gate: Gate, value: Tensor, named: Sequence[tuple[str, Tensor]], source: str) -> set[str]:
    """Return the names of the parameters that a value's gradient reaches, by more than rounding."""
    if not value.requires_grad:
        return set()
    found = torch.autograd.grad(value, [p for _, p in named], retain_graph=True, allow_unused=True)
    for (name, _), gradient in zip(named, found, strict=True):
        is_finite = _is_none(gradient) or bool(gradient.isfinite().all())
        require(is_finite, gate, f"the gradient of {source} in {name} is not finite")
    return {
        name
        for (name, _), g in zip(named, found, strict=True)
        if not _is_none(g) and bool((g.abs() > ROUNDING).any())
    }


def _is_none(gradient: Tensor | None) -> bool:
    """Whether autograd found no way; its stubs do not say that it may find none."""
    return gradient is None
