"""This module lists the promises of a gate, and checks them on plans as matrices.

The contract is made of tensors, so unlike the others it stands in `nn` and not in core; this module alone of
the room needs torch. A gate is judged by copies of it; what `sees` says decides what must hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from turnout.checks.gate_batch import (
    ITEMS,
    POSITIONS,
    VOCABULARY,
    batch,
    dense,
    device_of,
    drawn_apart,
    is_noisy,
    moved,
    padded,
    plan_of,
    require_same,
    require_taught,
    taught,
    told_apart,
    wider,
)
from turnout.checks.report import Check, bind, require, skip
from turnout.core.errors import InputError, ShapeError, TurnoutError
from turnout.nn.gates.contract import SIGHTS, Gate
from turnout.nn.late import refuse_arrived


def check_gate(gate: Gate) -> Iterator[Check]:
    """Yield the checks of a gate.

    Example
    -------
    >>> from turnout.checks import check_gate, run
    >>> from turnout.nn.gates.top_k import TopKGate
    >>> run(check_gate(TopKGate(width=16, num_experts=8))).is_clean
    True
    """
    return bind(gate, GATE_CHECKS, kind=Gate)


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
    """Half precision in the model is no reason for half precision in the choice.

    Logits of a model in half precision are those of the same numbers in single precision: what was rounded on
    the way is not made exact by a cast at the end.
    """
    half = copy.deepcopy(gate).bfloat16()
    given = batch(gate, dtype=torch.bfloat16)
    for training in (False, True):
        plan = plan_of(half, given, training=training)
        if plan.logits_TE is None:
            skip(gate, "it has no logits")
        got = plan.logits_TE.dtype
        require(got == torch.float32, gate, "logits", allowed="float32", got=got)
        exact = plan_of(copy.deepcopy(half).float(), given.single(), training=training)
        assert exact.logits_TE is not None
        what = f"logits were rounded to half precision (training={training})"
        exact_TE, found_TE = exact.logits_TE.detach(), plan.logits_TE.detach()
        require_same(gate, what, exact_TE, found_TE)
        # One that rounds in single precision too agrees with itself.
        is_short = torch.equal(exact_TE, exact_TE.bfloat16().float())
        require(not is_short, gate, what, allowed="more digits than half precision has")


def autocast_changes_no_choice(gate: Gate) -> None:
    """Under `torch.autocast` plan, losses and gradients are those without: half products would make ties."""
    for training in (False, True):
        given = batch(gate)
        plan = plan_of(gate, given, training=training, is_autocast=True)
        if plan.logits_TE is not None:
            got = plan.logits_TE.dtype
            require(got == torch.float32, gate, "logits under autocast", allowed="float32", got=got)
        first, found = (
            dense(gate, given, training=training, is_autocast=is_autocast) for is_autocast in (False, True)
        )
        require_same(gate, f"autocast changed a plan (training={training})", first, found)
        expected = taught(gate, given, training=training)
        for name, value in taught(gate, given, training=training, is_autocast=True).items():
            require_same(gate, f"autocast changed {name} (training={training})", expected[name], value)


def noise_is_off_in_eval(gate: Gate) -> None:
    """In eval mode the same input gives the same plan, whatever the random numbers are."""
    given, subject = batch(gate), copy.deepcopy(gate).eval()
    found = []
    with drawn_apart(gate):
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(subject(given.x_BSD.reshape(-1, gate.width), given.context()).to_dense().detach())
    require(torch.equal(*found), gate, "two runs in eval mode differ", allowed="the same plan to the bit")


def losses_are_for_training(gate: Gate) -> None:
    """In eval mode there is nothing to add to a loss."""
    found = sorted(plan_of(gate, batch(gate)).losses)
    require(not found, gate, "losses in eval mode", allowed="none", got=found)


def permuting_experts_permutes_the_plan(gate: Gate) -> None:
    """Who names its experts' rows has no favourite among them beside those rows."""
    if gate.expert_rows is None:
        skip(gate, "it names no expert_rows")
    given, order, subject = batch(gate), gate.expert_order(), told_apart(gate)
    first, other = plan_of(subject, given), plan_of(moved(subject, order), given.with_experts(order))
    pairs = [
        ("plan", first.to_dense(), other.to_dense()),
        ("plan's logits", first.logits_TE, other.logits_TE),
        ("plan's scores", first.scores_TE, other.scores_TE),
    ]
    for name, one, two in pairs:
        if one is not None and two is not None:
            what = f"the place of an expert changed the {name}"
            require_same(gate, what, one.detach()[:, order.to(one.device)], two.detach())


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
    """Padding has no expert, and changes no plan, no loss and no gradient.

    Neither what stands there does, NaN included, nor how much there is of it.
    """
    for training in (False, True):
        given = batch(gate)
        mask_BS = torch.ones(ITEMS, POSITIONS, dtype=torch.bool, device=device_of(gate))
        # On the right as in training, on the left as in `generate`.
        mask_BS[0, 5:], mask_BS[1, :2] = False, False
        given = replace(given, mask_BS=mask_BS)
        first = dense(gate, given, training=training)
        require(not bool(first[~mask_BS].any()), gate, "padding has an expert", allowed="weight 0")
        others = [padded(given, torch.full_like(given.x_BSD, torch.nan))]
        if not (training and is_noisy(gate)):
            # Noise of another shape is other noise.
            others.append(wider(given))
        expected = taught(gate, given, training=training)
        for other in others:
            found = dense(gate, other, training=training)[:, :POSITIONS]
            require_same(gate, f"padding changed a plan (training={training})", first, found)
            for name, value in taught(gate, other, training=training).items():
                what = f"padding changed {name} (training={training})"
                require_same(gate, what, expected[name], value)


def gradients_reach_every_parameter(gate: Gate) -> None:
    """Weights and losses carry a finite gradient to each parameter, the weights to one at least.

    Those of a gate that `is_apart` carry none to any.
    """
    require_taught(gate, copy.deepcopy(gate))


def a_single_expert_teaches_too(gate: Gate) -> None:
    """With k = 1 a weight of 1 still has a gradient: divided by itself, it would teach nothing for ever."""
    config = gate.config()
    if "k" not in config:
        skip(gate, "it has no k")
    with drawn_apart(gate):
        torch.manual_seed(13)
        single = rebuilt(gate, **(config | {"k": 1}))
    require_taught(gate, single)


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
    nothing = replace(context, mask_BS=torch.zeros_like(given.token_ids_BS, dtype=torch.bool))
    _require_refused(gate, "a batch of padding alone", lambda: subject(x_TD, nothing))
    if next(gate.parameters(), None) is not None:
        _require_refused(gate, "another device", lambda: subject(x_TD.to("meta"), context))
    for value in (torch.nan, torch.inf, -torch.inf):
        broken_TD = x_TD.clone()
        broken_TD[1, 0] = value
        _require_refused(gate, f"a state that is {value}", partial(subject, broken_TD, context))
    for field in sorted(gate.needs):
        lacking = replace(context, **{field: None})  # type: ignore[arg-type]
        _require_refused(gate, f"a context without {field}", partial(subject, x_TD, lacking))


def rebuilt(gate: Gate, **config: Any) -> Gate:
    """Return a new gate of the same class, where the gate is."""
    return type(gate)(**config).to(device_of(gate))


def _require_refused(
    gate: Gate, what: str, call: Callable[[], object], kind: type[TurnoutError] = InputError
) -> None:
    try:
        call()
        # On a GPU what numbers are is refused once they have arrived.
        refuse_arrived(wait=True)
    except kind:
        return
    require(False, gate, f"{what} was not refused", allowed=kind.__name__)


GATE_CHECKS: tuple[Callable[[Gate], None], ...] = (
    it_says_what_it_sees,
    a_valid_plan_in_both_modes,
    logits_are_of_single_precision,
    autocast_changes_no_choice,
    noise_is_off_in_eval,
    losses_are_for_training,
    permuting_experts_permutes_the_plan,
    permuting_items_permutes_the_plan,
    permuting_tokens_permutes_the_plan,
    other_items_change_nothing,
    later_tokens_change_nothing,
    a_gate_that_looks_ahead_refuses_decoding,
    padding_is_ignored,
    gradients_reach_every_parameter,
    a_single_expert_teaches_too,
    no_tokens_give_an_empty_plan,
    its_state_dict_is_all_it_learned,
    more_experts_than_there_are_is_refused,
    bad_input_is_refused,
)
"""The promises of every gate."""
