"""This module finds the mixture-of-experts blocks of a `transformers` model by their shape, not their name.

Since version 5 of that library a block is a module with a `gate` (or `router`) beside `experts`, whose
weights are stacked in parameters of three axes, and the gate returns logits, weights and indices. Found too
are experts that say how many they are, and stacked weights that stand in the block itself. Families that keep
their gate elsewhere are refused with the obstacle in the sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from turnout.core.errors import InputError, sentence

GATE_NAMES = ("gate", "router")
"""Attributes under which a block may hold its gate."""


@dataclass(frozen=True, kw_only=True)
class MoELayer:
    """One mixture-of-experts block.

    `name` is the block's path in the model, `gate_name` the attribute that holds the gate, `num_experts` the
    number of routed experts E.
    """

    name: str
    block: nn.Module
    gate_name: str
    num_experts: int

    @property
    def gate(self) -> nn.Module:
        """The module that chooses the experts."""
        gate = getattr(self.block, self.gate_name)
        assert isinstance(gate, nn.Module)
        return gate

    @property
    def experts(self) -> nn.Module:
        """The module that holds the stacked experts; the block itself where it holds them."""
        experts = getattr(self.block, "experts", None)
        return experts if isinstance(experts, nn.Module) else self.block


def find_moe_layers(model: nn.Module) -> list[MoELayer]:
    """Return the mixture-of-experts blocks of a model in the order of its depth.

    Raises `InputError` for a model without one; the message names what was found instead.
    """
    layers = []
    for name, block in model.named_modules():
        gate_name = next((n for n in GATE_NAMES if isinstance(getattr(block, n, None), nn.Module)), None)
        if gate_name is not None and (num_experts := _count(block, getattr(block, gate_name))) is not None:
            layers.append(MoELayer(name=name, block=block, gate_name=gate_name, num_experts=num_experts))
    if not layers:
        raise InputError(
            sentence(
                f"{type(model).__name__} is of a family without a gate that can be reached",
                allowed="blocks with a `gate` or `router` beside `experts` with weights of three axes",
                got=_obstacle(model),
            )
        )
    return layers


def _count(block: nn.Module, gate: nn.Module) -> int | None:
    """Return the number of experts that a block's gate chooses among; None if that can't be told.

    Where stacks differ in length, as with experts that compute nothing and have no weights, it is the one
    that the gate has rows for.
    """
    experts = getattr(block, "experts", None)
    rows = {p.shape[0] for p in gate.parameters() if p.ndim == 2}
    if not isinstance(experts, nn.Module):
        children = (child for child in block.children() if child is not gate)
        return _one(_stacks(*children) & rows)
    sizes = _stacks(experts)
    if sizes:
        return _one(sizes) or _one(sizes & rows)
    said = getattr(experts, "num_experts", None)
    return said if isinstance(said, int) else None


def _stacks(*holders: nn.Module) -> set[int]:
    """Return the first sizes of the parameters of three axes that modules hold themselves."""
    return {p.shape[0] for holder in holders for p in holder.parameters(recurse=False) if p.ndim == 3}


def _one(sizes: set[int]) -> int | None:
    return next(iter(sizes)) if len(sizes) == 1 else None


def _obstacle(model: nn.Module) -> str:
    """Say what stands where a mixture-of-experts block was looked for."""
    for name, module in model.named_modules():
        experts = getattr(module, "experts", None)
        if isinstance(experts, nn.Module):
            if not _stacks(experts) and not hasattr(experts, "num_experts"):
                return f"{name}.experts is a {type(experts).__name__} without stacked weights"
            return f"{name} holds experts and no gate"
    return "no module holds experts"
