"""This module lists the promises of a gate, and checks them on plans as matrices.

The contract is made of tensors, so unlike the others it stands in `nn` and not in core; this module alone of
the room needs torch. A gate is judged by copies of it; what `sees` says decides what must hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from turnout.checks.report import Check, bind, require, skip
from turnout.core.errors import InputError, ShapeError, TurnoutError
from turnout.nn.experts import Experts
from turnout.nn.gates.contract import SIGHTS, Gate, GateContext
from turnout.nn.plan import Plan

ITEMS, POSITIONS, VOCABULARY = 3, 8, 32


def check_gate(gate: Gate) -> Iterator[Check]:
    """Yield the checks of a gate.

    Example
    -------
    >>> from turnout.checks import check_gate, run
    >>> from turnout.nn.gates.top_k import TopKGate
    >>> run(check_gate(TopKGate(width=16, num_experts=8))).is_clean
    True
    """
    return bind(gate, GATE_CHECKS)


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

    def items(self, order: list[int]) -> Batch:
        """Return these items in this order."""
        changed: dict[str, Any] = {
            name: value[order] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)

    def positions(self, order: list[int]) -> Batch:
        """Return these positions of every item in this order; causal attention goes along."""
        attention = self.attention_BSS[:, order][:, :, order]
        mask_BS = None if self.mask_BS is None else self.mask_BS[:, order]
        ids_BS = self.token_ids_BS[:, order]
        return replace(
            self, x_BSD=self.x_BSD[:, order], token_ids_BS=ids_BS, attention_BSS=attention, mask_BS=mask_BS
        )


def batch(gate: Gate, *, dtype: torch.dtype = torch.float32) -> Batch:
    """Return a batch for a gate, the same every time."""
    random = torch.Generator().manual_seed(5)
    shape = (ITEMS, POSITIONS)
    seen_BSS = torch.randn((*shape, POSITIONS), generator=random)
    seen_BSS = seen_BSS.masked_fill(~torch.ones(POSITIONS, POSITIONS).tril().bool(), float("-inf"))
    experts = None
    if "experts" in gate.needs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            experts = Experts(width=gate.width, inner=4, num_experts=gate.num_experts).to(dtype)
    return Batch(
        x_BSD=torch.randn((*shape, gate.width), generator=random).to(dtype),
        token_ids_BS=torch.randint(VOCABULARY, shape, generator=random),
        attention_BSS=seen_BSS.softmax(-1),
        timestep_B=torch.rand(ITEMS, generator=random),
        tasks_B=torch.randint(2, (ITEMS,), generator=random),
        experts=experts,
    )


def plan_of(gate: Gate, given: Batch, *, training: bool = False, context: GateContext | None = None) -> Plan:
    """Return the plan of a copy of the gate; noise is the same each time."""
    gate = copy.deepcopy(gate).train(training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        plan = gate(given.x_BSD.reshape(-1, gate.width), given.context() if context is None else context)
    require(isinstance(plan, Plan), gate, "what it returned is no plan", got=type(plan).__name__)
    assert isinstance(plan, Plan)
    return plan


def dense(gate: Gate, given: Batch, *, training: bool = False) -> Tensor:
    """Return the plan's weights (B, S, E)."""
    weights_TE = plan_of(gate, given, training=training).to_dense().detach()
    return weights_TE.reshape(*given.x_BSD.shape[:2], gate.num_experts)


def require_same(gate: Gate, what: str, one: Tensor, other: Tensor) -> None:
    """Require two plans' weights to agree to the last places."""
    is_same = torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    far = float((one - other).abs().max()) if one.shape == other.shape and one.numel() else None
    require(is_same, gate, what, allowed="the same plan", got=far)


def it_says_what_it_sees(gate: Gate) -> None:
    """`sees` is one of four words in both modes."""
    for training in (False, True):
        sees = copy.deepcopy(gate).train(training).sees
        require(sees in SIGHTS, gate, "what it sees", allowed=SIGHTS, got=sees)


def a_valid_plan_in_both_modes(gate: Gate) -> None:
    """Every number of the plan keeps the rules of its kind, in single and in half precision."""
    for training in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            plan_of(gate, batch(gate, dtype=dtype), training=training).validate()


def logits_are_of_single_precision(gate: Gate) -> None:
    """Half precision in the model is no reason for half precision in the choice."""
    plan = plan_of(copy.deepcopy(gate).bfloat16(), batch(gate, dtype=torch.bfloat16))
    if plan.logits_TE is None:
        skip(gate, "it has no logits")
    require(
        plan.logits_TE.dtype == torch.float32, gate, "logits", allowed="float32", got=plan.logits_TE.dtype
    )


def noise_is_off_in_eval(gate: Gate) -> None:
    """In eval mode the same input gives the same plan, whatever the random numbers are."""
    given, subject = batch(gate), copy.deepcopy(gate).eval()
    found = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(subject(given.x_BSD.reshape(-1, gate.width), given.context()).to_dense().detach())
    require(torch.equal(*found), gate, "two runs in eval mode differ", allowed="the same plan to the bit")


def permuting_items_permutes_the_plan(gate: Gate) -> None:
    """The order of a batch is nobody's."""
    given, order = batch(gate), [2, 0, 1]
    require_same(
        gate, "the order of items changed a plan", dense(gate, given)[order], dense(gate, given.items(order))
    )


def permuting_tokens_permutes_the_plan(gate: Gate) -> None:
    """A gate that sees the token alone gives it the same plan wherever it stands."""
    if copy.deepcopy(gate).eval().sees != "token":
        skip(gate, "it sees more than a token")
    given, order = batch(gate), [3, 1, 7, 0, 2, 6, 5, 4]
    moved = dense(gate, given.positions(order))
    require_same(gate, "the place of a token changed its plan", dense(gate, given)[:, order], moved)


def other_items_change_nothing(gate: Gate) -> None:
    """A gate that does not see the batch gives an item alone what it gives it in company."""
    if copy.deepcopy(gate).eval().sees == "batch":
        skip(gate, "it sees the whole batch")
    given = batch(gate)
    require_same(gate, "company changed a plan", dense(gate, given)[:1], dense(gate, given.items([0])))


def later_tokens_change_nothing(gate: Gate) -> None:
    """A causal gate does not look ahead, in eval mode nor in training."""
    cut = POSITIONS // 2
    for training in (False, True):
        if not copy.deepcopy(gate).train(training).is_causal:
            continue
        given = batch(gate)
        x_BSD, ids_BS = given.x_BSD.clone(), given.token_ids_BS.clone()
        x_BSD[:, cut:] = -x_BSD[:, cut:] * 3
        ids_BS[:, cut:] = (ids_BS[:, cut:] + 7) % VOCABULARY
        other = replace(given, x_BSD=x_BSD, token_ids_BS=ids_BS)
        require_same(
            gate,
            f"a later token changed an earlier one's plan (training={training})",
            dense(gate, given, training=training)[:, :cut],
            dense(gate, other, training=training)[:, :cut],
        )


def a_gate_that_looks_ahead_refuses_decoding(gate: Gate) -> None:
    """Autoregressive decoding is refused where the plan would need tokens that are not there yet."""
    subject = copy.deepcopy(gate).eval()
    if subject.is_causal:
        skip(gate, "it is causal")
    given = batch(gate)
    context = replace(given.context(), is_autoregressive=True)
    _require_refused(gate, "decoding", lambda: subject(given.x_BSD.reshape(-1, gate.width), context))


def padding_is_ignored(gate: Gate) -> None:
    """What stands at padding changes nothing, has no expert, and columns of padding may be added."""
    for training in (False, True):
        given = batch(gate)
        mask_BS = torch.ones(ITEMS, POSITIONS, dtype=torch.bool)
        # On the right as in training, on the left as in `generate`.
        mask_BS[0, 5:], mask_BS[1, :2] = False, False
        given = replace(given, mask_BS=mask_BS)
        first = dense(gate, given, training=training)
        require(not bool(first[~mask_BS].any()), gate, "padding has an expert", allowed="weight 0")
        x_BSD = torch.where(mask_BS[..., None], given.x_BSD, given.x_BSD * 5 + 1)
        ids_BS = torch.where(mask_BS, given.token_ids_BS, 0)
        other = dense(gate, replace(given, x_BSD=x_BSD, token_ids_BS=ids_BS), training=training)
        require_same(gate, f"padding changed a plan (training={training})", first, other)


def gradients_reach_every_parameter(gate: Gate) -> None:
    """Weights, logits and losses carry a finite gradient to each parameter, the weights to one at least.

    Those of a gate that `is_apart` carry none to any.
    """
    subject = copy.deepcopy(gate).train()
    named = [(name, p) for name, p in subject.named_parameters() if p.requires_grad]
    if not named:
        skip(gate, "it has no parameters to train")
    given = batch(gate)
    random = torch.Generator().manual_seed(3)
    factor_TE = torch.randn(ITEMS * POSITIONS, gate.num_experts, generator=random)
    with torch.random.fork_rng(devices=[]):
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
        reached |= _reached(gate, (plan.logits_TE * factor_TE).sum(), named, "logits")
    for name, loss in plan.losses.items():
        reached |= _reached(gate, loss, named, f"the loss {name!r}")
    missing = sorted({name for name, _ in named} - reached)
    require(not missing, gate, "parameters without a gradient", allowed="none", got=missing)


def no_tokens_give_an_empty_plan(gate: Gate) -> None:
    """T = 0 is a batch like any other."""
    given = batch(gate)
    empty = replace(
        given,
        x_BSD=given.x_BSD[:, :0],
        token_ids_BS=given.token_ids_BS[:, :0],
        attention_BSS=given.attention_BSS[:, :0, :0],
    )
    for training in (False, True):
        plan = plan_of(gate, empty, training=training)
        require(plan.num_tokens == 0, gate, "no tokens gave a plan of some", got=plan.num_tokens)
        plan.validate()


def its_state_dict_is_all_it_learned(gate: Gate) -> None:
    """A second gate of the same configuration with the same state dict makes the same plan."""
    second = rebuilt(gate, **gate.config())
    second.load_state_dict(gate.state_dict())
    given = batch(gate)
    is_same = torch.equal(dense(gate, given), dense(second, given))
    require(is_same, gate, "configuration and state dict do not give the same plan")


def more_experts_than_there_are_is_refused(gate: Gate) -> None:
    """K > E is refused where the gate is made."""
    config = gate.config()
    if "k" not in config:
        skip(gate, "it has no k")
    config["k"] = gate.num_experts + 1
    _require_refused(gate, "k > E", lambda: rebuilt(gate, **config))


def bad_input_is_refused(gate: Gate) -> None:
    """Another width, NaN, a batch of padding alone, and several devices are refused with a sentence."""
    subject, given = copy.deepcopy(gate).eval(), batch(gate)
    x_TD, context = given.x_BSD.reshape(-1, gate.width), given.context()
    _require_refused(gate, "another width", lambda: subject(x_TD[:, 1:], context), ShapeError)
    nothing = replace(context, mask_BS=torch.zeros(ITEMS, POSITIONS, dtype=torch.bool))
    _require_refused(gate, "a batch of padding alone", lambda: subject(x_TD, nothing))
    if next(gate.parameters(), None) is not None:
        _require_refused(gate, "another device", lambda: subject(x_TD.to("meta"), context))
    if plan_of(gate, given).logits_TE is not None:
        broken_TD = torch.full_like(x_TD, float("nan"))
        _require_refused(gate, "NaN", lambda: subject(broken_TD, context))
    for field in sorted(gate.needs):
        lacking = replace(context, **{field: None})  # type: ignore[arg-type]
        _require_refused(gate, f"a context without {field}", partial(subject, x_TD, lacking))


def rebuilt(gate: Gate, **config: Any) -> Gate:
    """Return a new gate of the same class."""
    return type(gate)(**config)


def _reached(gate: Gate, value: Tensor, named: Sequence[tuple[str, Tensor]], source: str) -> set[str]:
    """Return the names of the parameters that a value's gradient reaches."""
    if not value.requires_grad:
        return set()
    found = torch.autograd.grad(value, [p for _, p in named], retain_graph=True, allow_unused=True)
    for (name, _), gradient in zip(named, found, strict=True):
        is_finite = _is_none(gradient) or bool(gradient.isfinite().all())
        require(is_finite, gate, f"the gradient of {source} in {name} is not finite")
    return {name for (name, _), g in zip(named, found, strict=True) if not _is_none(g) and bool(g.any())}


def _is_none(gradient: Tensor | None) -> bool:
    """Whether autograd found no way; its stubs do not say that it may find none."""
    return gradient is None


def _require_refused(
    gate: Gate, what: str, call: Callable[[], object], kind: type[TurnoutError] = InputError
) -> None:
    try:
        call()
    except kind:
        return
    require(False, gate, f"{what} was not refused", allowed=kind.__name__)


GATE_CHECKS: tuple[Callable[[Gate], None], ...] = (
    it_says_what_it_sees,
    a_valid_plan_in_both_modes,
    logits_are_of_single_precision,
    noise_is_off_in_eval,
    permuting_items_permutes_the_plan,
    permuting_tokens_permutes_the_plan,
    other_items_change_nothing,
    later_tokens_change_nothing,
    a_gate_that_looks_ahead_refuses_decoding,
    padding_is_ignored,
    gradients_reach_every_parameter,
    no_tokens_give_an_empty_plan,
    its_state_dict_is_all_it_learned,
    more_experts_than_there_are_is_refused,
    bad_input_is_refused,
)
"""The promises of every gate."""
