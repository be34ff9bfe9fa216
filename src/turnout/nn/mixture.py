"""This module joins a gate, experts and an executor into a layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.executors.auto import AutoExecutor
from turnout.nn.executors.contract import Executor
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.no_graph import LossesWithoutGraph
from turnout.nn.plan import Plan


class MoE(nn.Module):
    """A mixture-of-experts layer: y = sum of weight times expert, plus what every token passes through.

    Parameters
    ----------
    gate
        Makes the plan.
    experts
        `Experts`, or the stacked experts of a `transformers` family.
    shared
        A module (T, D) -> (T, D) that every token passes through, zeros at padding; None for none.
    executor
        How the plan is run; `AutoExecutor` if None.

    `plan` keeps the last forward pass's plan, with its gradients, for losses and analysis; None before. Of a
    pass in training that recorded no gradients, such as the first one under reentrant checkpointing, its
    losses are refused with an `InputError` where gradients are recorded: they would teach nothing.
    Raises `ShapeError` for a gate that was made for other experts.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        experts: nn.Module,
        shared: nn.Module | None = None,
        executor: Executor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(gate, Gate):
            raise InputError(sentence("MoE: gate", allowed="a Gate", got=type(gate).__name__))
        for name in ("num_experts", "width"):
            own = getattr(experts, name, None)
            if own is not None and own != getattr(gate, name):
                raise ShapeError(
                    sentence(
                        f"{name} of the gate = {name} of the experts",
                        allowed=f"{name} = {own}",
                        got=f"{name} = {getattr(gate, name)}",
                    )
                )
        self.gate, self.experts, self.shared = gate, experts, shared
        self.executor = AutoExecutor() if executor is None else executor
        self.plan: Plan | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the plan out of copies and files: it belongs to a pass, and its graph can be neither."""
        return {**self.__dict__, "plan": None}

    def forward(self, x: Tensor, context: GateContext | None = None) -> Tensor:
        """Return the layer's output in the shape of `x`, (T, D) or (B, S, D).

        Without a context, each row of (B, S, D) is an item and nothing is padding.
        """
        x_TD = x.reshape(-1, x.shape[-1])
        if context is None:
            context = GateContext(num_items=x.shape[0] if x.ndim == 3 and x.shape[0] else 1)
        elif x.ndim == 3 and context.num_items != x.shape[0]:
            context = replace(context, num_items=x.shape[0])
        if "experts" in self.gate.needs:
            context = replace(context, experts=self.experts)
        plan = self.gate(x_TD, context)
        assert isinstance(plan, Plan)
        is_mute = self.training and plan.losses and not torch.is_grad_enabled()
        self.plan = replace(plan, losses=LossesWithoutGraph(plan.losses)) if is_mute else plan
        y_TD = self.executor.run(x_TD, plan, self.experts)
        if self.shared is not None:
            mask_T = context.mask_T()
            # What stands at padding, NaN included, must not reach its gradients.
            real_TD = x_TD if mask_T is None else x_TD.masked_fill(~mask_T[:, None], 0.0)
            y_TD = y_TD + self.shared(real_TD)
        return y_TD.reshape(x.shape)
