"""Every gate of the table keeps every promise of a gate, and each check finds the gate that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from turnout.checks import CheckFailed, CheckSkipped, check_gate
from turnout.checks.gate import GATE_CHECKS
from turnout.core.errors import InputError, ShapeError
from turnout.nn import registry
from turnout.nn.gates.contract import Gate, GateContext, fp32_logits
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.plan import SparsePlan

SETTINGS: dict[str, list[dict[str, object]]] = {
    "block_ffn": [{"chunk": 3}],
    "autonomy": [{"is_normalised": False}],
    "compete": [{"chance": 1.0}, {"chance": None, "version": "first", "warm_up": 1}],
    "deepseek_moe": [{"num_shared": 0, "scale": 2.5}],
    "dynamoe": [{"threshold": 0.0, "schedule": "uniform"}],
    "expert_choice": [{"weight": "choosers"}, {"score": "sinkhorn"}],
    "loss_free": [{"score": "softmax", "is_normalised": True}],
    "null_experts": [{"num_null": 0}],
    "rectify": [{"eval_capacity_factor": 0.75}, {"k": 2, "devices": 4, "is_filled": False}],
    "rex": [{"start": 0, "full": 0}],
    "similarity_aware": [{"is_causal_graph": False}],
    "sinkhorn": [{"chance": 1.0}, {"chance": 0.0, "noise": 0.5}],
    "smear": [{"span": "past"}],
    "smoe_dropout": [{"k_eval": 8}],
    "soft": [{"slots": 3}],
    "switch": [{"capacity_factor": 0.5, "eval_capacity_factor": 0.5}],
    "thor": [{"unit": "token"}],
    "vq": [{"k": 0, "codes": 20}],
    "top_k": [
        {"score": "sigmoid", "weight": "guarded_sum", "is_biased": True, "num_groups": 4, "topk_group": 2},
        {"score": "raw", "weight": "softmax", "scale": 2.5},
        {"jitter": 0.1, "weight": "score"},
    ],
}
"""Further settings of gates, by name; each gate is checked with its defaults too."""


def gates() -> list[object]:
    found: list[object] = []
    for name in registry:
        cls = registry.get(name)
        if issubclass(cls, Gate):
            for setting in ({}, *SETTINGS.get(name, [])):
                # Its own numbers, whatever was drawn before.
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    gate = cls(width=16, num_experts=8, **setting)
                label = ",".join(f"{key}={value}" for key, value in setting.items())
                found += [
                    pytest.param(check, id=f"{name}:{label}:{check.name}") for check in check_gate(gate)
                ]
    return found


@pytest.mark.parametrize("check", gates())
def test_a_gate_keeps_its_promise(check: Callable[[], None]) -> None:
    try:
        check()
    except CheckSkipped as error:
        pytest.skip(str(error))


class Plain(Gate):
    """A gate that keeps its promises; each one below breaks one."""

    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts)
        self.k = k
        self.matrix_ED = torch.nn.Parameter(torch.randn(num_experts, width))

    def logits(self, x_TD, context):
        return fp32_logits(x_TD, self.matrix_ED)

    def decide(self, x_TD, context):
        logits_TE = self.logits(x_TD, context)
        weights_TK, indices_TK = logits_TE.softmax(-1).topk(min(self.k, self.num_experts))
        return self.plan(weights_TK, indices_TK, logits_TE, context)

    def plan(self, weights_TK, indices_TK, logits_TE, context):
        return SparsePlan.from_choices(
            weights_TK,
            indices_TK,
            num_experts=self.num_experts,
            mask_T=context.mask_T(),
            logits_TE=logits_TE,
        )


class AcceptsAnyK(Plain):
    pass


class NoisyInEval(Plain):
    def logits(self, x_TD, context):
        logits_TE = super().logits(x_TD, context)
        return logits_TE + torch.randn_like(logits_TE)


class HalfLogits(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        return super().plan(weights_TK, indices_TK, logits_TE.double(), context)


class RoundsInHalf(Plain):
    def logits(self, x_TD, context):
        return (x_TD.to(self.matrix_ED.dtype) @ self.matrix_ED.T).float()


class RoundsAlways(Plain):
    def logits(self, x_TD, context):
        return super().logits(x_TD, context).bfloat16().float()


class GoesAlongWithAutocast(Plain):
    def forward(self, x_TD, context=None):
        return super().forward(x_TD.bfloat16() if torch.is_autocast_enabled("cpu") else x_TD, context)


class LosesInEval(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        plan = super().plan(weights_TK, indices_TK, logits_TE, context)
        return replace(plan, losses={"size": logits_TE.sum()})


class LikesTheLast(Plain):
    expert_rows = ("matrix_ED",)

    def logits(self, x_TD, context):
        return super().logits(x_TD, context) + torch.arange(self.num_experts)


class LooksAhead(Plain):
    def logits(self, x_TD, context):
        x_BSD = x_TD.unflatten(0, (context.num_items, -1))
        return super().logits((x_BSD + x_BSD.mean(1, keepdim=True)).flatten(0, 1), context)


class LooksAtTheBatch(Plain):
    sees = "sequence"

    def logits(self, x_TD, context):
        return super().logits(x_TD + x_TD.mean(0), context)


class KnowsThePlace(Plain):
    def logits(self, x_TD, context):
        place_T = torch.arange(len(x_TD)).remainder(len(x_TD) // context.num_items)[:, None]
        return super().logits(x_TD * (1 + place_T), context)


class KnowsTheItem(Plain):
    sees = "past"

    def logits(self, x_TD, context):
        place_T = torch.arange(len(x_TD)).div(len(x_TD) // context.num_items).floor()[:, None]
        return super().logits(x_TD + place_T, context)


class SendsPadding(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        return super().plan(weights_TK, indices_TK, logits_TE, replace(context, mask_BS=None))


class ReadsPadding(Plain):
    sees = "sequence"

    def logits(self, x_TD, context):
        x_BSD = x_TD.unflatten(0, (context.num_items, -1))
        return super().logits((x_BSD + x_BSD.mean(1, keepdim=True)).flatten(0, 1), context)


class AveragesPadding(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        plan = super().plan(weights_TK, indices_TK, logits_TE, context)
        return replace(plan, losses={"size": logits_TE.square().mean()})


class OneIsOne(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        return super().plan(weights_TK, indices_TK, logits_TE, context)


class OnlyLogits(Plain):
    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts, k=k)
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def logits(self, x_TD, context):
        return super().logits(x_TD, context) + self.shift


class Idle(Plain):
    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts, k=k)
        self.idle = torch.nn.Parameter(torch.ones(3))


class Detached(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        return super().plan(weights_TK.detach(), indices_TK, logits_TE, context)


class TeachesNothing(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        plan = super().plan(weights_TK, indices_TK, logits_TE, context)
        return replace(plan, losses={"z": logits_TE.detach().square().mean()} if self.training else {})


class ApartButTaught(Plain):
    is_apart = True


class Remembers(Plain):
    def __init__(self, *, width: int, num_experts: int, k: int = 2) -> None:
        super().__init__(width=width, num_experts=num_experts, k=k)
        self.secret = float(torch.rand(()))

    def logits(self, x_TD, context):
        return super().logits(x_TD, context) + self.secret * torch.arange(self.num_experts)


class Empty(Plain):
    def decide(self, x_TD, context):
        assert len(x_TD), "a batch of some"
        return super().decide(x_TD, context)


class OneColumn(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        plan = super().plan(weights_TK, indices_TK, logits_TE, context)
        return replace(plan, columns_N=plan.columns_N * 0)


class KeepsNaN(Plain):
    def plan(self, weights_TK, indices_TK, logits_TE, context):
        return super().plan(weights_TK.nan_to_num(), indices_TK, logits_TE.nan_to_num(), context)


class Blind(Plain):
    sees = "nothing"  # type: ignore[assignment]


class NeverRefuses(LooksAhead):
    sees = "sequence"

    def forward(self, x_TD, context=None):
        return super().forward(x_TD, replace(context, is_autoregressive=False))


BROKEN = {
    Blind: {"it_says_what_it_sees"},
    OneColumn: {"a_valid_plan_in_both_modes"},
    HalfLogits: {"logits_are_of_single_precision"},
    RoundsInHalf: {"logits_are_of_single_precision"},
    RoundsAlways: {"logits_are_of_single_precision"},
    GoesAlongWithAutocast: {"autocast_changes_no_choice"},
    LosesInEval: {"losses_are_for_training"},
    LikesTheLast: {"permuting_experts_permutes_the_plan"},
    NoisyInEval: {"noise_is_off_in_eval"},
    KnowsThePlace: {"permuting_tokens_permutes_the_plan"},
    KnowsTheItem: {"permuting_items_permutes_the_plan"},
    LooksAtTheBatch: {"other_items_change_nothing"},
    LooksAhead: {"later_tokens_change_nothing"},
    NeverRefuses: {"a_gate_that_looks_ahead_refuses_decoding"},
    SendsPadding: {"padding_is_ignored"},
    ReadsPadding: {"padding_is_ignored"},
    AveragesPadding: {"padding_is_ignored"},
    OnlyLogits: {"gradients_reach_every_parameter"},
    OneIsOne: {"a_single_expert_teaches_too"},
    Idle: {"gradients_reach_every_parameter"},
    Detached: {"gradients_reach_every_parameter"},
    TeachesNothing: {"gradients_reach_every_parameter"},
    ApartButTaught: {"gradients_reach_every_parameter"},
    Empty: {"no_tokens_give_an_empty_plan"},
    Remembers: {"its_state_dict_is_all_it_learned"},
    AcceptsAnyK: {"more_experts_than_there_are_is_refused"},
    KeepsNaN: {"bad_input_is_refused"},
}


@pytest.mark.parametrize("cls", list(BROKEN), ids=lambda cls: cls.__name__)
def test_a_check_finds_the_gate_that_breaks_it(cls: type[Plain]) -> None:
    failed = set()
    for check in check_gate(cls(width=16, num_experts=8)):
        try:
            check()
        except CheckSkipped:
            pass
        except (CheckFailed, InputError, AssertionError):
            failed.add(check.name)
    assert BROKEN[cls] <= failed


NUMBERED = {"dynamoe": "a layer opens the experts of the lowest numbers"}
"""Gates to which an expert's number means something whatever its rows are, and why."""


def test_every_gate_lets_experts_change_places_or_says_why_not() -> None:
    kinds = {name: registry.get(name) for name in registry if issubclass(registry.get(name), Gate)}
    claims = {name: kind(width=16, num_experts=8).expert_rows for name, kind in kinds.items()}
    assert {name for name, claim in claims.items() if claim is None} == set(NUMBERED)


def test_a_gate_of_one_expert_fails_for_no_lack_of_a_choice() -> None:
    for gate in (TopKGate(width=16, num_experts=1, k=1), registry.get("switch")(width=16, num_experts=1)):
        for check in check_gate(gate):
            with suppress(CheckSkipped):
                check()


def test_every_check_is_seen_to_fail() -> None:
    assert set().union(*BROKEN.values()) == {check.__name__ for check in GATE_CHECKS}


X_TD = torch.randn(6, 16)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (GateContext(num_items=4), "T = B \\* S with T = 6"),
        (GateContext(num_items=2, mask_BS=torch.ones(3, 2, dtype=torch.bool)), "\\(B, S\\) = \\(2, 3\\)"),
        (GateContext(mask_BS=torch.ones(1, 6)), "torch.bool"),
        (GateContext(mask_BS=torch.zeros(1, 6, dtype=torch.bool)), "all tokens are masked"),
        (GateContext(state=torch.zeros(5, 2)), "\\(T, ...\\) = \\(6, ...\\)"),
        (GateContext(num_past=2, attention_BSS=torch.ones(1, 6, 6)), "past \\+ S"),
        (GateContext(mask_BS=torch.ones(1, 6, dtype=torch.bool, device="meta")), "one device"),
    ],
    ids=range(7),
)
def test_a_context_that_does_not_fit_is_refused(context: GateContext, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TopKGate(width=16, num_experts=8)(X_TD, context)


def test_a_plan_of_another_shape_is_refused() -> None:
    gate = Plain(width=16, num_experts=8)
    gate.num_experts = 9
    gate.decide = lambda x_TD, context: SimpleNamespace(num_tokens=5, num_experts=9)  # type: ignore[method-assign]
    with pytest.raises(ShapeError, match="\\(T, E\\) = \\(6, 9\\)"):
        gate(X_TD)


def test_a_gate_that_sees_other_tokens_refuses_a_cache() -> None:
    with pytest.raises(InputError, match="turn the cache off"):
        KnowsTheItem(width=16, num_experts=8)(X_TD, GateContext(num_past=3))
    TopKGate(width=16, num_experts=8)(X_TD, GateContext(num_past=3, is_autoregressive=True))
