"""This module says how each gate takes part: how many experts compute a token, and what its losses weigh.

Equal terms: experts are so wide that those which compute a token cost together what the dense feed-forward
costs. Where a gate is free in how many it takes, the number it aims at is counted, and what it really spent
is measured and shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from turnout.core.errors import InputError, did_you_mean, sentence
from turnout.nn import TABLE, registry
from turnout.nn.bench.controls import ChanceGate
from turnout.nn.bench.model import VOCABULARY, Dense, Size
from turnout.nn.experts import Experts, FactoredExperts
from turnout.nn.gates.contract import Gate
from turnout.nn.mixture import MoE

K = 2
"""Experts of a token, where a gate asks for a number."""

BALANCE = 0.01
"""Factor of a loss of balance, that of Switch Transformers."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One gate's entry.

    `active` is the number of experts that a token is meant to have, out of E; `factors` weigh the losses of
    its plans; `has_switch_loss` adds the balance loss of Switch to a gate that has none of its own;
    `arguments` are those of the gate, out of E.
    """

    name: str
    gate: str = ""
    active: Callable[[int], float] = lambda _experts: float(K)
    factors: Mapping[str, float] = field(default_factory=lambda: {"balance": BALANCE})
    other: float = 0.0
    """Factor of losses that `factors` does not name."""
    arguments: Callable[[Size], dict[str, object]] = lambda _size: {}
    has_switch_loss: bool = False
    always: int = 0
    """The first so many experts compute every token; balance is that of the others."""
    first: float = 0.0
    """This share of the operations is spent on a small first factor of all experts, see `FactoredExperts`."""
    is_shared: bool = False
    """Whether all layers have one gate together."""
    coupling: float = 0.0
    """Factor of the loss that couples the gate's rows with the experts that they stand for."""
    pool: int = 1
    """So many neighbouring layers share their experts, and each may choose from all of them."""

    def feeds(self, size: Size) -> list[nn.Module]:
        """Return a feed-forward for each layer."""
        if not self.gate:
            return [Dense(size.width, size.inner) for _ in range(size.layers)]
        gates = [self._gate(size) for _ in range(1 if self.is_shared else size.layers)]
        groups = [self._experts(size) for _ in range(-(-size.layers // self.pool))]
        return [
            MoE(gate=gates[0 if self.is_shared else layer], experts=groups[layer // self.pool])
            for layer in range(size.layers)
        ]

    def _experts(self, size: Size) -> nn.Module:
        inner = round(size.inner * (1 - self.first) / self.active(size.experts))
        num_experts = size.experts * self.pool
        if not self.first:
            return Experts(width=size.width, inner=inner, num_experts=num_experts)
        # All first factors cost 2 E R D operations a token, the dense feed-forward 6 D I.
        rank = max(round(3 * size.inner * self.first / num_experts), 1)
        return FactoredExperts(width=size.width, inner=inner, num_experts=num_experts, rank=rank)

    def _gate(self, size: Size) -> Gate:
        cls = ChanceGate if self.gate == "chance" else registry.get(self.gate)
        num_experts = size.experts * self.pool
        gate = cls(width=size.width, num_experts=num_experts, **self.arguments(size))
        assert isinstance(gate, Gate)
        return gate


def _top_k(size: Size) -> dict[str, object]:
    return {"k": min(K, size.experts)}


ENTRIES: tuple[Contender, ...] = (
    Contender(name="dense"),
    Contender(name="random", gate="chance", arguments=_top_k),
    Contender(name="top_k", gate="top_k", arguments=_top_k, has_switch_loss=True),
    Contender(name="switch", gate="switch", active=lambda _: 1.0),
    Contender(
        name="deepseek_moe",
        gate="deepseek_moe",
        arguments=lambda _: {"k": K - 1, "num_shared": 1},
        always=1,
    ),
    Contender(name="loss_free", gate="loss_free", arguments=_top_k),
    Contender(name="relu", gate="relu", arguments=_top_k, factors={"sparsity": 1.0}),
    Contender(
        name="null_experts",
        gate="null_experts",
        # Of the k chosen, E / (E + M) are true where all are chosen as often.
        arguments=lambda size: {"k": K + 1, "num_null": size.experts // 2},
    ),
    Contender(
        name="block_ffn",
        gate="block_ffn",
        # About half of all logits are positive at the start; the losses move that, and it is measured.
        active=lambda experts: experts / 2,
        factors={"locality": 1e-4, "chunk": 1e-2},
    ),
    Contender(
        name="noisy_top_k",
        gate="noisy_top_k",
        arguments=_top_k,
        factors={"importance": 0.1, "load": 0.1},
    ),
    Contender(name="sparse_mixer", gate="sparse_mixer", arguments=_top_k, has_switch_loss=True),
    Contender(name="sinkhorn", gate="sinkhorn", arguments=lambda size: {**_top_k(size), "chance": 0.01}),
    Contender(
        name="omni",
        gate="switch",
        active=lambda _: 1.0,
        # Omni-router, S69: the gate of Switch Transformers, one for all layers.
        is_shared=True,
    ),
    Contender(
        name="recurrent",
        gate="recurrent",
        arguments=lambda size: {**_top_k(size), "num_layers": size.layers, "hidden": size.width // 2},
        has_switch_loss=True,
        is_shared=True,
    ),
    Contender(name="hyper", gate="hyper", arguments=_top_k, has_switch_loss=True),
    Contender(
        name="top_p", gate="top_p", factors={"balance": BALANCE, "entropy": 1e-4}, has_switch_loss=True
    ),
    *(
        Contender(name=name, gate=name, arguments=_top_k, has_switch_loss=True)
        for name in ("mixture_of_routers", "expert_attention", "attention_aware", "similarity_aware")
    ),
    Contender(name="sam", gate="sam", arguments=lambda size: {**_top_k(size), "num_groups": 2}),
    Contender(
        name="upcycled",
        gate="upcycled",
        arguments=lambda size: {**_top_k(size), "heads": 2, "size": max(size.width // 8, 1)},
        has_switch_loss=True,
    ),
    Contender(
        name="stable",
        gate="stable",
        active=lambda _: 1.0,
        arguments=lambda _: {"vocabulary": VOCABULARY, "steps": 100},
        factors={"balance": 0.3, "distil": 0.3},
    ),
    Contender(
        name="speech",
        gate="speech",
        active=lambda _: 1.0,
        arguments=lambda size: {"num_layers": size.layers, "hidden": max(size.width // 4, 1)},
        factors={"sparsity": BALANCE, "importance": BALANCE},
        is_shared=True,
    ),
    # Expert-router coupling, S52: the gate of checkpoints, whose rows are to excite their own experts most.
    Contender(name="coupled", gate="top_k", arguments=_top_k, has_switch_loss=True, coupling=1.0),
    Contender(name="dirichlet", gate="dirichlet", arguments=_top_k, factors={"prior": 1.0}),
    *(
        Contender(
            name=name,
            gate="compete",
            arguments=lambda size, rest=rest: {**_top_k(size), **rest},  # type: ignore[misc]
            factors={"balance": BALANCE, "z": 1e-3, "distil": factor, "diversity": BALANCE},
        )
        for name, rest, factor in (
            ("compete", {"chance": 0.05, "warm_up": 40}, 0.01),
            ("compete_first", {"version": "first", "chance": 0.03}, 1.0),
        )
    ),
    Contender(name="autonomy", gate="autonomy", arguments=_top_k, first=0.25),
    Contender(
        name="rectify",
        gate="rectify",
        active=lambda _: 1.0,
        # With `eval_capacity_factor` room would depend on how long a text is; so would its loss.
        arguments=lambda _: {"devices": 2},
    ),
    Contender(
        name="vq",
        gate="vq",
        # One by the ordinary gate, one by the code.
        arguments=lambda size: {"k": 1, "codes": 4 * size.experts},
        factors={"balance": BALANCE, "codes": 0.08},
        has_switch_loss=True,
    ),
    Contender(
        name="s2moe", gate="s2moe", arguments=_top_k, factors={"balance": BALANCE, "uncertainty": BALANCE}
    ),
    Contender(
        name="input_domain",
        gate="input_domain",
        arguments=lambda size: {**_top_k(size), "latent": max(size.width // 8, 1), "components": 4},
        factors={"mixture": 1.0, "reconstruction": 1.0},
    ),
    Contender(
        name="dynamoe",
        gate="dynamoe",
        arguments=lambda size: {"k": min(2 * K, size.experts), "low": size.experts // 2},
        has_switch_loss=True,
    ),
    Contender(
        name="rex",
        gate="rex",
        arguments=lambda size: {**_top_k(size), "layers": 2, "start": 100, "full": 300},
        has_switch_loss=True,
        pool=2,
    ),
    Contender(name="base", gate="base", active=lambda _: 1.0),
    Contender(
        name="thor",
        gate="thor",
        # All answer when judged, so each is small; a training step runs one of them.
        active=float,
        arguments=lambda _: {"unit": "token"},
    ),
    Contender(
        name="smoe_dropout",
        gate="smoe_dropout",
        # Judged with K experts; a training step runs more and more of them.
        arguments=lambda size: {**_top_k(size), "k_eval": min(K, size.experts), "steps": 600},
    ),
    Contender(
        name="attention_k",
        gate="attention_k",
        arguments=lambda size: {"k": min(2 * K, size.experts)},
        has_switch_loss=True,
    ),
    Contender(name="expert_choice", gate="expert_choice", arguments=_top_k),
    Contender(
        name="transport_choice",
        gate="expert_choice",
        arguments=lambda size: {**_top_k(size), "score": "sinkhorn"},
    ),
    Contender(name="sparse_transport_choice", gate="sparse_transport_choice", arguments=_top_k),
    Contender(
        name="soft",
        gate="soft",
        # E P slots cost as much as S tokens with K experts each.
        arguments=lambda size: {"slots": max(K * size.positions // size.experts, 1)},
    ),
    Contender(name="smear", gate="smear", active=lambda _: 1.0),
)
"""All entries; controls first."""

CONTENDERS: dict[str, Contender] = {entry.name: entry for entry in ENTRIES}

LEFT_OUT: dict[str, str] = {
    "timestep_choice": "its capacity follows the noise of a model that denoises; this one foretells",
}
"""Gates without an entry, and why."""

CONTROLS = ("dense", "random")
"""What stands beside the gates in every table."""

SIX = ("top_k", "switch", "deepseek_moe", "loss_free", "relu", "null_experts")
"""The gates of the small setting: all causal, each of another kind."""


def find_contender(name: str) -> Contender:
    """Return the entry of a name; a gate that somebody else registered has one of plain terms.

    These are k = 2 where it asks for a number of experts, its other arguments as they stand, and its own
    losses with Switch's factor. Raises `InputError` with the nearest names for one that is not known, and for
    a gate that cannot be made of a width and a number of experts.
    """
    if name in CONTENDERS:
        return CONTENDERS[name]
    if name in LEFT_OUT or name not in registry or not issubclass(cls := registry.get(name), Gate):
        known = [*CONTENDERS, *(other for other in registry if other not in TABLE)]
        raise InputError(sentence("gate", got=name, do=LEFT_OUT.get(name, did_you_mean(name, known))))
    takes = inspect.signature(cls).parameters
    given = {"width", "num_experts", "k"}
    missing = [p.name for p in takes.values() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    missing = [argument for argument in missing if argument not in given]
    if missing:
        what = f"gate {name!r}: arguments without a default"
        raise InputError(sentence(what, allowed="width, num_experts, k", got=", ".join(missing)))
    return Contender(name=name, gate=name, arguments=_top_k if "k" in takes else lambda _: {}, other=BALANCE)
