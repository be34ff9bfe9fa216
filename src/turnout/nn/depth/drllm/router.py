"""This module holds Dr.LLM's routers: one bottleneck a block over the windows of the prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.validation import check_count
from turnout.nn.depth.contract import REPEAT, DepthRouter, check_layers
from turnout.nn.depth.drllm.knob import NEUTRAL, blend, check_knob, published_scale
from turnout.nn.depth.windows import WINDOWS, Windows, make_windows

BOTTLENECK = 128
CHOICES = 3


class DrLLMRouter(DepthRouter):
    """Skips, executes or repeats a block by a small network over the means of eight windows of the prompt.

    Per block: Linear(width, 128), GELU (tanh), Linear(128, 3) for each window; the mean of
    the logits decides. Weights begin Xavier uniform, biases at zero.

    Parameters
    ----------
    layers, width
        Blocks of the base and the size of its hidden state.
    bottleneck
        Units of the hidden layer.
    windows
        Windows at most; a prompt of fewer tokens has one a token.
    knob
        The budget in [-1, 1]: below 0 more is skipped, above 0 more is executed, then repeated; 0 is the
        router as trained.
    is_published
        Read `knob` on the released code's scale, where the router as trained is -0.5 and 0 is half `execute`.
    seed
        Of the initial weights.

    Raises `InputError` for a knob outside [-1, 1], and for sizes that are no whole numbers of at least 1.

    Source: S12, Dr.LLM, arXiv 2510.12773, section 3.2.
    """

    width: int

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        bottleneck: int = BOTTLENECK,
        windows: int = WINDOWS,
        knob: float = 0.0,
        is_published: bool = False,
        repeats: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("bottleneck", bottleneck), ("windows", windows)):
            check_count(f"DrLLMRouter: {name}", value)
        self.layers = check_layers("DrLLMRouter", layers)
        self.width, self.bottleneck, self.windows, self.seed = width, bottleneck, windows, seed
        self.knob = check_knob("DrLLMRouter", knob)
        self.is_published = is_published
        self.repeats = repeats
        self.heads = nn.ModuleList(_head(width, bottleneck) for _ in range(layers))
        generator = torch.Generator().manual_seed(seed)
        for module in self.heads.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)

    def set_knob(self, knob: float) -> None:
        """Move the budget, in [-1, 1]; holds from the next prompt on."""
        self.knob = check_knob("DrLLMRouter", knob)

    def plan(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Windows:
        """Return the windows of the prompts."""
        return make_windows(mask_BT, windows=self.windows)

    def decide(self, layer: int, hidden_BTD: Tensor, mask_BT: Tensor, plan: object) -> Tensor:
        """Return counts_B, the most probable choice after the knob."""
        parts = plan if isinstance(plan, Windows) else make_windows(mask_BT, windows=self.windows)
        logits_BC = self.logits(layer, parts.means(hidden_BTD), parts)
        p = self.knob if self.is_published else published_scale(self.knob)
        score_BC = logits_BC if p == NEUTRAL else blend(logits_BC.softmax(-1), p)
        return (score_BC if self.repeats else score_BC[..., :REPEAT]).argmax(-1)

    def logits(self, layer: int, means_BWD: Tensor, parts: Windows) -> Tensor:
        """Return logits_BC of a block: the mean over the used windows of the head's logits."""
        return parts.average(self.heads[layer](means_BWD))

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "layers": self.layers,
            "width": self.width,
            "bottleneck": self.bottleneck,
            "windows": self.windows,
            "knob": self.knob,
            "is_published": self.is_published,
            "repeats": self.repeats,
            "seed": self.seed,
        }


def _head(width: int, bottleneck: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, bottleneck), nn.GELU(approximate="tanh"), nn.Linear(bottleneck, CHOICES)
    )
