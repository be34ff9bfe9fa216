"""This module finds the mixture-of-experts blocks of a `transformers` model by their shape, not their name.

Since version 5 of that library a block is a module with a `gate` (or `router`) beside `experts`, whose
weights are stacked in parameters of three axes, and the gate returns logits, weights and indices. Families
that keep their gate elsewhere are refused with the obstacle in the sentence.
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
        """The module that holds the stacked experts."""
        experts = self.block.experts
        assert isinstance(experts, nn.Module)
        return experts


def find_moe_layers(model: nn.Module) -> list[MoELayer]:
    """Return the mixture-of-experts blocks of a model in the order of its depth.

    Raises `InputError` for a model without one; the message names what was found instead.
    """
    layers = []
    for name, block in model.named_modules():
        experts = getattr(block, "experts", None)
        if not isinstance(experts, nn.Module) or (num_experts := _stacked(experts)) is None:
            continue
        for gate_name in GATE_NAMES:
            if isinstance(getattr(block, gate_name, None), nn.Module):
                layers.append(MoELayer(name=name, block=block, gate_name=gate_name, num_experts=num_experts))
                break
    if not layers:
        raise InputError(
            sentence(
                f"{type(model).__name__} is of a family without a gate that can be reached",
                allowed="blocks with a `gate` or `router` beside `experts` with weights of three axes",
                got=_obstacle(model),
            )
        )
    return layers


def _stacked(experts: nn.Module) -> int | None:
    """Return the number of experts that are stacked in parameters of three axes; None if none are."""
    sizes = {p.shape[0] for p in experts.parameters(recurse=False) if p.ndim == 3}
    return sizes.pop() if len(sizes) == 1 else None


def _obstacle(model: nn.Module) -> str:
    """Say what stands where a mixture-of-experts block was looked for."""
    for name, module in model.named_modules():
        experts = getattr(module, "experts", None)
        if isinstance(experts, nn.Module):
            if _stacked(experts) is None:
                return f"{name}.experts is a {type(experts).__name__} without stacked weights"
            return f"{name} holds experts and no gate"
    return "no module holds experts"
