"""This module states how a family turns gate logits into experts and weights, and proves it on its own gate.

Four knobs cover the checkpoint families: score, select, weight, scale. A family's gate does all four inside
one `forward`, so its rule can't be called apart. It is stated here, and `find_rule` takes a statement only
if it gives the gate's own weights and indices bit for bit on random tokens.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.core.errors import InputError, sentence
from turnout.nn.moe import MoELayer

Score = Literal["softmax", "sigmoid", "sqrtsoftplus", "raw"]
Weight = Literal["score", "sum", "guarded_sum", "softmax"]
GroupScore = Literal["top2", "max"]

PROBE_TOKENS = 256
"""On how many random tokens a rule has to agree."""

PROBE_SPREAD = 2.0
"""The standard deviation of the logits that a rule is tried on."""

PROBE_BIAS = 0.3
"""The standard deviation of the selection bias that a rule is tried on."""


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """How logits_TE become (weights_TK, indices_TK): score, select, weight, scale.

    `score` is applied to the logits; the `k` largest of score + `bias_name`'s buffer are selected, within the
    best `topk_group` of `num_groups` groups; `weight` normalises the selected scores (`sum`, `guarded_sum`
    with 1e-20 in the denominator, or `softmax` of them); `scale` multiplies. Scores are taken in single
    precision where `is_single`, else in that of the logits; `is_sorted` orders the experts by score.
    Source: `transformers` 5.23, the forward methods of its gates.
    """

    score: Score
    weight: Weight
    k: int
    scale: float | None = None
    bias_name: str | None = None
    num_groups: int = 1
    topk_group: int = 1
    group_score: GroupScore = "top2"
    is_single: bool = True
    is_sorted: bool = True

    def scores(self, logits_TE: Tensor) -> Tensor:
        """Return the scores (T, E) before any bias."""
        z_TE = logits_TE.float() if self.is_single else logits_TE
        if self.score == "softmax":
            return functional.softmax(z_TE, dim=-1)
        if self.score == "sigmoid":
            return z_TE.sigmoid()
        return functional.softplus(z_TE).sqrt() if self.score == "sqrtsoftplus" else z_TE

    def select(self, choice_TE: Tensor) -> Tensor:
        """Return the indices (T, k) of the experts with the largest choice scores, within groups."""
        if self.num_groups > 1:
            grouped_TGE = choice_TE.view(
                choice_TE.shape[0], self.num_groups, choice_TE.shape[1] // self.num_groups
            )
            if self.group_score == "top2":
                group_TG = grouped_TGE.topk(2, dim=-1)[0].sum(dim=-1)
            else:
                group_TG = grouped_TGE.amax(dim=-1)
            best = torch.topk(group_TG, k=self.topk_group, dim=-1, sorted=False)[1]
            closed_TG = torch.ones_like(group_TG, dtype=torch.bool).scatter(1, best, value=False)
            choice_TE = grouped_TGE.masked_fill(closed_TG.unsqueeze(-1), float("-inf")).flatten(-2)
        return torch.topk(choice_TE, self.k, dim=-1, sorted=self.is_sorted)[1]

    def weigh(self, scores_TE: Tensor, indices_TK: Tensor) -> Tensor:
        """Return the weights (T, k) of the selected experts, normalised and scaled."""
        weights_TK = scores_TE.gather(1, indices_TK)
        if self.weight == "softmax":
            weights_TK = functional.softmax(weights_TK, dim=-1)
        elif self.weight == "sum":
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        elif self.weight == "guarded_sum":
            weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
        return weights_TK if self.scale is None else weights_TK * self.scale

    def bias(self, gate: nn.Module) -> Tensor | None:
        """Return the gate's selection-only bias (E,), or None if the family has none."""
        if self.bias_name is None:
            return None
        bias: Tensor = attrgetter(self.bias_name)(gate)
        return bias

    def apply(
        self, gate: nn.Module, logits_TE: Tensor, shift_TE: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (weights_TK, indices_TK); `shift_TE` is added to the choice scores alone.

        The weights keep the value that they have without `shift_TE`. Their gradient in it is that of the
        weights of score + shift (straight through), since a choice has none.
        """
        scores_TE = self.scores(logits_TE)
        bias_E = self.bias(gate)
        choice_TE = scores_TE if bias_E is None else scores_TE + bias_E
        if shift_TE is None:
            indices_TK = self.select(choice_TE)
            return self.weigh(scores_TE, indices_TK), indices_TK
        indices_TK = self.select(choice_TE + shift_TE)
        shifted_TK = self.weigh(scores_TE + shift_TE, indices_TK)
        return self.weigh(scores_TE, indices_TK) + (shifted_TK - shifted_TK.detach()), indices_TK

    def log_probabilities(self, logits_TE: Tensor) -> Tensor:
        """Return log p (T, E): scores that add up to 1; raw scores by softmax."""
        if self.score in ("softmax", "raw"):
            return functional.log_softmax(logits_TE.float(), dim=-1)
        scores_TE = self.scores(logits_TE.float()).clamp_min(torch.finfo(torch.float32).tiny)
        return scores_TE.log() - scores_TE.sum(dim=-1, keepdim=True).log()


@torch.no_grad()
def find_rule(layer: MoELayer) -> GateRule:
    """Return the rule that gives a gate's own weights and indices bit for bit on random tokens.

    Asked is a copy whose selection bias is random, so that zeros hide nothing; and in half precision one in
    single precision too, where rounding hides no other rule. Raises `InputError` with the obstacle: a gate
    that needs more than hidden states, returns something else than (logits, weights, indices), or follows a
    rule that is not among those known here.
    """
    weight = _weight(layer)
    names = _biases(layer)
    copies = [_copy(layer.gate, names)]
    if weight.dtype != torch.float32:
        copies.append(_copy(layer.gate, names).float())
    probes = [_probe(layer, gate) for gate in copies]
    k = probes[0][2].shape[-1]
    for rule in _candidates(copies[0], names, k=k):
        if all(_agrees(rule, gate, probe) for gate, probe in zip(copies, probes, strict=True)):
            return rule
    raise _refused(layer, "a rule that is none of the known scores, selections, weights and scales")


def _agrees(rule: GateRule, gate: nn.Module, probe: tuple[Tensor, Tensor, Tensor]) -> bool:
    """Whether a rule gives the weights and indices of (logits_TE, weights_TK, indices_TK) bit for bit."""
    logits_TE, weights_TK, indices_TK = probe
    weights, indices = rule.apply(gate, logits_TE)
    return torch.equal(indices, indices_TK) and torch.equal(weights.to(weights_TK.dtype), weights_TK)


def _weight(layer: MoELayer, gate: nn.Module | None = None) -> Tensor:
    """Return the gate's weight (E, d)."""
    parameters = (gate or layer.gate).parameters()
    weight = next((p for p in parameters if p.ndim == 2 and p.shape[0] == layer.num_experts), None)
    if weight is None:
        raise _refused(layer, f"no weight with one row for each of E = {layer.num_experts} experts")
    if weight.is_meta:
        raise _refused(layer, "weights on the device `meta`")
    return weight


def _biases(layer: MoELayer) -> list[str]:
    """Return the names of what may be a selection-only bias; plain `bias` is that of the product."""
    gate = layer.gate
    named = itertools.chain(gate.named_buffers(), gate.named_parameters())
    return [
        name
        for name, value in named
        if value.numel() == layer.num_experts and "bias" in name and name.split(".")[-1] != "bias"
    ]


def _copy(gate: nn.Module, biases: list[str]) -> nn.Module:
    """Return a copy of a gate, in eval mode, with random selection biases."""
    random = torch.Generator().manual_seed(1)
    found = copy.deepcopy(gate).eval()
    for name in biases:
        bias: Tensor = attrgetter(name)(found)
        bias.copy_(torch.randn(bias.shape, generator=random) * PROBE_BIAS)
    return found


def _probe(layer: MoELayer, gate: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Run a gate on random tokens, scaled so that its logits are decisive; check what it returns."""
    weight = _weight(layer, gate)
    random = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(PROBE_TOKENS, weight.shape[1], generator=random, dtype=torch.float32)
    spread = float((hidden_TD @ weight.float().cpu().T).std())
    hidden_TD = hidden_TD * (PROBE_SPREAD / spread if spread > 0 else 1.0)
    try:
        # `forward`, not the call: hooks of others must not see these tokens.
        out = gate.forward(hidden_TD.to(device=weight.device, dtype=weight.dtype))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise _refused(layer, f"a gate that can't be run on hidden states alone ({error})") from error
    return checked(layer, out)


def checked(layer: MoELayer, out: object) -> tuple[Tensor, Tensor, Tensor]:
    """Return a gate's output if it is (logits_TE, weights_TK, indices_TK); raises `InputError` if not."""
    if isinstance(out, tuple) and len(out) == 3 and all(isinstance(part, Tensor) for part in out):
        logits, weights, indices = out
        is_right = logits.ndim == weights.ndim == indices.ndim == 2 and weights.shape == indices.shape
        if is_right and logits.shape[-1] == layer.num_experts and not indices.is_floating_point():
            return logits, weights, indices
    parts = out if isinstance(out, tuple) else (out,)
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    raise _refused(layer, f"outputs {shapes} instead of logits (T, E), weights (T, k), indices (T, k)")


def _candidates(gate: nn.Module, biases: list[str], *, k: int) -> Iterator[GateRule]:
    """Yield every rule that a gate's attributes leave open, the usual first."""
    names: list[str | None] = [*biases, None]
    scale = _number(gate, "routed_scaling_factor", "router_scaling_factor", "route_scale")
    groups = _number(gate, "num_group", "n_group")
    # Without groups the two ways to score one are the same.
    group_scores: tuple[GroupScore, ...] = ("top2", "max") if groups is not None and groups > 1 else ("top2",)
    kinds: tuple[tuple[Score, Weight], ...] = (
        ("softmax", "score"), ("softmax", "sum"), ("softmax", "guarded_sum"), ("raw", "softmax"),
        ("sigmoid", "guarded_sum"), ("sigmoid", "score"), ("sigmoid", "sum"), ("sqrtsoftplus", "guarded_sum"),
    )  # fmt: skip
    open_knobs = itertools.product(kinds, names, group_scores, (True, False), (True, False))
    for (score, weight), bias_name, group_score, is_single, is_default in open_knobs:
        yield GateRule(
            score=score,
            weight=weight,
            k=k,
            scale=scale,
            bias_name=bias_name,
            num_groups=int(groups or 1),
            topk_group=int(_number(gate, "topk_group") or 1),
            group_score=group_score,
            is_single=is_single,
            is_sorted=is_default == (score in ("softmax", "raw")),
        )


def _number(module: nn.Module, *names: str) -> float | None:
    """Return the first attribute of these names that is a number."""
    values = (getattr(module, name, None) for name in names)
    return next((value for value in values if isinstance(value, int | float)), None)


def _refused(layer: MoELayer, obstacle: str) -> InputError:
    """Build the error for a gate that can't be steered."""
    return InputError(
        sentence(
            f"the gate {layer.name}.{layer.gate_name} ({type(layer.gate).__name__}) can't be steered",
            allowed="a gate that turns hidden states into (logits, weights, indices) by a known rule",
            got=obstacle,
        )
    )
