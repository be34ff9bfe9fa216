"""This module states how a family turns gate logits into experts and weights, and proves it on its own gate.

Four knobs cover the checkpoint families: score, select, weight, scale. A family's gate does all four inside
one `forward`, so its rule can't be called apart. It is stated here, and `find_rule` takes a statement only
if it gives the gate's own weights and indices bit for bit on random tokens.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from turnout.nn.best import best_of
from turnout.nn.gate_form import Handed, block_arguments, refused
from turnout.nn.gate_port import probe
from turnout.nn.moe import MoELayer

Score = Literal["softmax", "sigmoid", "sqrtsoftplus", "raw"]
Weight = Literal["score", "sum", "guarded_sum", "softmax", "sparse_mixer"]
GroupScore = Literal["top2", "max"]
ChosenBy = Literal["score", "logits"]

GUARDS = (1e-20, 1e-6, 1e-9, 1e-12)
"""What families add to a sum of weights before they divide by it; the usual first."""

PROBE_TOKENS = 256
"""On how many random tokens a rule has to agree."""

PROBE_SPREAD = 2.0
"""The standard deviation of the logits that a rule is tried on."""

PROBE_BIAS = 0.3
"""The standard deviation of the selection bias that a rule is tried on."""


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """How logits_TE become (weights_TK, indices_TK): score, select, weight, scale.

    `score` is applied to the logits; the `k` largest of score + bias are selected, or of logits + bias as
    `chosen_by` says, within the best `topk_group` of `num_groups` groups; `weight` makes weights of the
    selected scores: as they are, by their `sum`, by `guarded_sum` with `guard` in the denominator, by a
    `softmax` of them, or by a `sparse_mixer` with `jitter`, whose k-th weight is a softmax among what is left
    and near the best (arXiv 2409.12136). `scale` multiplies, `divisor` divides, and so does a scale of each
    expert multiply. Names are those of tensors of what `apply` is given: a block, or a gate of turnout's.
    Scores are taken in single precision where `is_single`, else in that of the logits; `is_sorted` orders
    the experts by score; a rule that `is_own` imitates nobody, so that ties go to whom `nn.best` finds. A
    rule is that of eval mode. Source: `transformers` 5.24, the forward methods of its gates.
    """

    score: Score
    weight: Weight
    k: int
    scale: float | None = None
    divisor: int | None = None
    bias_name: str | None = None
    expert_scale_name: str | None = None
    chosen_by: ChosenBy = "score"
    guard: float = GUARDS[0]
    jitter: float = 0.0
    num_groups: int = 1
    topk_group: int = 1
    group_score: GroupScore = "top2"
    is_single: bool = True
    is_sorted: bool = True
    is_own: bool = False

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
        if self.is_own and self.is_sorted:
            return best_of(choice_TE, self.k)
        return torch.topk(choice_TE, self.k, dim=-1, sorted=self.is_sorted)[1]

    def weigh(self, holder: nn.Module, scores_TE: Tensor, indices_TK: Tensor) -> Tensor:
        """Return the weights (T, k) of the selected experts, normalised and scaled."""
        weights_TK = scores_TE.gather(1, indices_TK)
        if self.weight == "softmax":
            weights_TK = functional.softmax(weights_TK, dim=-1)
        elif self.weight == "sum":
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        elif self.weight == "guarded_sum":
            weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + self.guard)
        elif self.weight == "sparse_mixer":
            weights_TK = _sparse_mixed(scores_TE, indices_TK, self.jitter)
        if self.divisor is not None:
            weights_TK = weights_TK / self.divisor
        if self.scale is not None:
            weights_TK = weights_TK * self.scale
        scale_E = _named(holder, self.expert_scale_name)
        return weights_TK if scale_E is None else weights_TK * scale_E.flatten()[indices_TK]

    def bias(self, holder: nn.Module) -> Tensor | None:
        """Return the selection-only bias (E,), or None if the family has none."""
        return _named(holder, self.bias_name)

    def apply(
        self,
        holder: nn.Module,
        logits_TE: Tensor,
        shift_TE: Tensor | None = None,
        *,
        scores_TE: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (weights_TK, indices_TK); `shift_TE` is added to the choice scores alone.

        Who has the scores of the logits already gives them.

        The weights keep the value that they have without `shift_TE`. Their gradient in it is that of the
        weights of score + shift (straight through), since a choice has none.
        """
        scores_TE, bias_E = self.scores(logits_TE) if scores_TE is None else scores_TE, self.bias(holder)
        is_by_logits = self.chosen_by == "logits"
        choice_TE = logits_TE if is_by_logits else scores_TE
        if bias_E is not None:
            choice_TE = choice_TE + bias_E
        if shift_TE is None:
            indices_TK = self.select(choice_TE)
            return self.weigh(holder, scores_TE, indices_TK), indices_TK
        indices_TK = self.select(choice_TE + shift_TE)
        moved_TE = self.scores(logits_TE + shift_TE) if is_by_logits else scores_TE + shift_TE
        shifted_TK = self.weigh(holder, moved_TE, indices_TK)
        return self.weigh(holder, scores_TE, indices_TK) + (shifted_TK - shifted_TK.detach()), indices_TK

    def log_probabilities(self, logits_TE: Tensor) -> Tensor:
        """Return log p (T, E): scores that add up to 1; raw scores by softmax."""
        if self.score in ("softmax", "raw"):
            return functional.log_softmax(logits_TE.float(), dim=-1)
        scores_TE = self.scores(logits_TE.float()).clamp_min(torch.finfo(torch.float32).tiny)
        return scores_TE.log() - scores_TE.sum(dim=-1, keepdim=True).log()


@torch.no_grad()
def find_rule(layer: MoELayer) -> GateRule:
    """Return the rule that gives a gate's own weights and indices bit for bit on random tokens.

    Asked is a copy whose selection bias and scales are random, so that zeros and ones hide nothing; and in
    half precision one in single precision too, where rounding hides no other rule. A bias that the block
    holds is handed to the gate as the block does. Raises `InputError` with the obstacle: a gate that was
    swapped, asks for more than its block holds, chooses outside of its `forward`, returns something of an
    unknown form, or follows a rule that is not among those known here.
    """
    if hasattr(layer.gate, "_turnout_answer"):
        do = "make the GateHook with needs_rules=False, or remove the swap first"
        raise refused(layer, "a gate that was swapped, and follows the rule of another", do=do)
    weight = _weight(layer)
    copies = [_copy(layer)]
    if weight.dtype != torch.float32:
        single = _copy(layer)
        single.block.float()
        copies.append(single)
    probes = [_probe(one, layer.block) for one in copies]
    k = probes[0].indices_TK.shape[-1]
    for rule in _candidates(copies[0], k=k):
        if all(_agrees(rule, one, handed) for one, handed in zip(copies, probes, strict=True)):
            return rule
    raise refused(layer, "a rule that is none of the known scores, selections, weights and scales")


def _agrees(rule: GateRule, layer: MoELayer, handed: Handed) -> bool:
    """Whether a rule gives the weights and indices that a gate handed out, bit for bit."""
    weights, indices = rule.apply(layer.block, handed.logits_TE)
    if not torch.equal(indices, handed.indices_TK):
        return False
    return torch.equal(weights.to(handed.weights_TK.dtype), handed.weights_TK)


def _sparse_mixed(scores_TE: Tensor, indices_TK: Tensor, jitter: float) -> Tensor:
    """Return the probability of each choice among what is left and within 2 `jitter` of the best."""
    left_TE, weights = scores_TE, []
    for chosen_T1 in torch.split(indices_TK, 1, dim=-1):
        best_T1 = left_TE.max(dim=-1, keepdim=True).values
        far_TE = (best_T1 - scores_TE) / scores_TE.abs().clamp(min=best_T1) > 2 * jitter
        p_TE = functional.softmax(left_TE.masked_fill(far_TE, float("-inf")), dim=-1)
        weights.append(p_TE.gather(-1, chosen_T1))
        left_TE = left_TE.scatter(-1, chosen_T1, float("-inf"))
    return torch.cat(weights, dim=-1)


def _named(holder: nn.Module, name: str | None) -> Tensor | None:
    if name is None:
        return None
    found: Tensor = attrgetter(name)(holder)
    return found


def _weight(layer: MoELayer) -> Tensor:
    """Return the gate's weight (E, d)."""
    weight = next(
        (p for p in layer.gate.parameters() if p.ndim == 2 and p.shape[0] == layer.num_experts), None
    )
    if weight is None:
        raise refused(layer, f"no weight with one row for each of E = {layer.num_experts} experts")
    if weight.is_meta:
        raise refused(layer, "weights on the device `meta`")
    return weight


def _copy(layer: MoELayer) -> MoELayer:
    """Return a copy of a gate in a block of its own, in eval mode, with random biases and scales."""
    random, block = torch.Generator().manual_seed(1), nn.Module()
    setattr(block, layer.gate_name, copy.deepcopy(layer.gate).eval())
    for name, value in block_arguments(layer).items():
        block.register_buffer(name, value.detach().clone())
    found = replace(layer, block=block)
    for name in _names(found, "bias"):
        bias = attrgetter(name)(block)
        bias.copy_(torch.randn(bias.shape, generator=random) * PROBE_BIAS)
    for name in _names(found, "scale"):
        scale = attrgetter(name)(block)
        scale.copy_(torch.rand(scale.shape, generator=random) + 0.5)
    return found


def _names(layer: MoELayer, word: str) -> list[str]:
    """Return the names of a block's numbers of each expert; plain `bias` is that of the product."""
    named = itertools.chain(layer.block.named_buffers(), layer.block.named_parameters())
    return [
        name
        for name, value in named
        if value.numel() == layer.num_experts
        and word in name.split(".")[-1]
        and name.split(".")[-1] != "bias"
    ]


def _probe(layer: MoELayer, block: nn.Module) -> Handed:
    """Run a gate on random tokens, scaled so that its logits are decisive.

    A gate that returns logits alone leaves the choice to its block, which is asked by name.
    """
    weight = _weight(layer)
    random = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(PROBE_TOKENS, weight.shape[1], generator=random, dtype=torch.float32)
    spread = float((hidden_TD @ weight.float().cpu().T).std())
    hidden_TD = hidden_TD * (PROBE_SPREAD / spread if spread > 0 else 1.0)
    try:
        handed = probe(layer, hidden_TD.to(device=weight.device, dtype=weight.dtype))
    except (AttributeError, TypeError, RuntimeError) as error:
        raise refused(layer, f"a gate that can't be run on hidden states alone ({error})") from error
    if handed.form == "logits":
        return _chosen_by(block, layer, handed)
    if handed.form in ("mask", "turned"):
        raise refused(layer, "a capacity: what one token gets depends on the tokens before it")
    return handed


def _chosen_by(block: nn.Module, layer: MoELayer, handed: Handed) -> Handed:
    """Return what a block's own method makes of logits, as `transformers` names it."""
    choose = getattr(block, "route_tokens_to_experts", None)
    found = () if choose is None else choose(handed.logits_TE.clone())
    indices = [part for part in found if not part.is_floating_point()]
    weights = [part for part in found if part.is_floating_point()]
    if len(found) != 2 or len(indices) != 1 or weights[0].shape != indices[0].shape:
        raise refused(layer, "a choice that its block makes outside of the gate")
    return handed.changed(handed.logits_TE, weights[0], indices[0])


def _candidates(layer: MoELayer, *, k: int) -> Iterator[GateRule]:
    """Yield every rule that a gate's attributes leave open, the usual first."""
    gate = layer.gate
    scale = _number(gate, "routed_scaling_factor", "router_scaling_factor", "route_scale")
    groups = int(_number(gate, "num_group", "n_group") or 1)
    kinds: list[tuple[Score, Weight, float]] = [
        ("softmax", "score", 0.0), ("softmax", "sum", 0.0), ("softmax", "guarded_sum", GUARDS[0]),
        ("raw", "softmax", 0.0), ("sigmoid", "guarded_sum", GUARDS[0]), ("sigmoid", "score", 0.0),
        ("sigmoid", "sum", 0.0), ("sqrtsoftplus", "guarded_sum", GUARDS[0]),
    ]  # fmt: skip
    jitter = _number(gate, "router_jitter_noise")
    kinds += [] if jitter is None else [("raw", "sparse_mixer", 0.0)]
    scores: tuple[Score, ...] = ("sigmoid", "softmax", "sqrtsoftplus")
    kinds += [(score, "guarded_sum", guard) for score in scores for guard in GUARDS[1:]]
    biases: list[str | None] = [*_names(layer, "bias"), None]
    ways: tuple[ChosenBy, ...] = ("score",) if biases == [None] else ("score", "logits")
    # Without groups the two ways to score one are the same.
    group_scores: tuple[GroupScore, ...] = ("top2", "max") if groups > 1 else ("top2",)
    open_knobs = itertools.product(
        ways, [None, k], kinds, biases, [*_names(layer, "scale"), None], group_scores, (True, False),
        (True, False),
    )  # fmt: skip
    for way, divisor, (
        score,
        weight,
        guard,
    ), bias, expert_scale, group_score, is_single, is_default in open_knobs:
        yield GateRule(
            score=score,
            weight=weight,
            k=k,
            scale=scale,
            divisor=divisor,
            bias_name=bias,
            expert_scale_name=expert_scale,
            chosen_by=way,
            guard=guard or GUARDS[0],
            jitter=jitter or 0.0,
            num_groups=groups,
            topk_group=int(_number(gate, "topk_group") or 1),
            group_score=group_score,
            is_single=is_single,
            is_sorted=is_default == (score in ("softmax", "raw")),
        )


def _number(module: nn.Module, *names: str) -> float | None:
    """Return the first attribute of these names that is a number."""
    values = (getattr(module, name, None) for name in names)
    return next((value for value in values if isinstance(value, int | float)), None)
