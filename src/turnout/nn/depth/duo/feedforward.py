"""This module stands in a block where its feed-forward stood, with a big, a small and perhaps no module."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from turnout.core.errors import ShapeError, sentence
from turnout.nn.depth.duo import execute, naive
from turnout.nn.depth.duo.choices import BIG, SMALL
from turnout.nn.depth.duo.flow import Flow
from turnout.nn.depth.duo.router import DuoRouter

PARTS = ("big", "small", "router")


@final
class DuoFeedForward(nn.Module):
    """A feed-forward with modules of several sizes, of which every token takes one.

    Source: S22, Duo-LLM (arXiv 2410.10846), section 3.1: big, small (1/16 of the inner width) and skip.
    Attention lies outside and is always executed, so that caches are complete whatever is chosen.
    Shapes: x (B, T, D) to (B, T, D). A state dict has the big module under the names of the base's own; one
    of the base is read, and so is one with `big.` in front.
    """

    def __init__(
        self, *, big: nn.Module, small: nn.Module, router: DuoRouter, layer: int, flow: Flow, allow_skip: bool
    ) -> None:
        super().__init__()
        self.big, self.small, self.router = big, small, router
        self.layer, self.flow, self.allow_skip = layer, flow, allow_skip
        # Names of the base that are also names here would fall together.
        if not {name for name, _ in big.named_children()} & {*PARTS}:
            self.register_state_dict_post_hook(_name_as_base)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_name_as_here)  # type: ignore[no-untyped-call]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Run each token through the module that the flow names for it."""
        if x_BTD.dim() != 3:
            raise ShapeError(sentence("duo: feed-forward input", allowed="(B, T, D)", got=tuple(x_BTD.shape)))
        if self.flow.temperature is not None and self.flow.choice is None and self.flow.generator is None:
            return self._mix(x_BTD, self.flow.temperature)
        choice_BT = self._choose(x_BTD)
        if self.flow.record is not None:
            self.flow.record.choices.setdefault(self.layer, []).append(choice_BT)
        run = naive.execute if self.flow.is_slow else execute.execute
        return run(x_BTD, choice_BT, self.choices())

    def choices(self) -> list[nn.Module | None]:
        """Return the modules in the order of their numbers; None is skip."""
        return [self.small, self.big, None] if self.allow_skip else [self.small, self.big]

    def _choose(self, x_BTD: Tensor) -> Tensor:
        rows, columns, _ = x_BTD.shape
        flow = self.flow
        if flow.choice is not None:
            return flow.forced_BT(self.layer, rows, columns).to(x_BTD.device)
        if flow.generator is not None:
            drawn_BT = torch.randint(len(self.choices()), (rows, columns), generator=flow.generator)
            return drawn_BT.to(x_BTD.device)
        if not flow.is_routed:
            return torch.full((rows, columns), BIG, device=x_BTD.device)
        logits_BTA: Tensor = self.router(x_BTD)
        if flow.record is not None:
            others_BT = logits_BTA.index_fill(-1, torch.tensor([BIG], device=x_BTD.device), -torch.inf).amax(
                -1
            )
            flow.record.margins.setdefault(self.layer, []).append(logits_BTA[..., BIG] - others_BT)
        return logits_BTA.argmax(dim=-1)

    def _mix(self, x_BTD: Tensor, temperature: float) -> Tensor:
        chance_BTA = self.router.probabilities(x_BTD, temperature=temperature)
        if self.flow.record is not None:
            self.flow.record.chances.setdefault(self.layer, []).append(chance_BTA)
        weight_BTA = chance_BTA.to(x_BTD.dtype)
        small_BTD: Tensor = self.small(x_BTD)
        big_BTD: Tensor = self.big(x_BTD)
        return weight_BTA[..., SMALL, None] * small_BTD + weight_BTA[..., BIG, None] * big_BTD


def _name_as_base(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        # Taken out and put in again, so that their order stays.
        value = state.pop(key)
        state[prefix + key.removeprefix(prefix).removeprefix("big.")] = value


def _name_as_here(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.partition(".")[0] not in PARTS:
            state[f"{prefix}big.{name}"] = state.pop(key)
