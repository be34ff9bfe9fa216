"""This module trains Dr.LLM's routers on label paths, with everything else frozen.

Under teacher forcing the hidden states follow the label path, whatever a router says. They depend on no
router, so that the windows of each question are computed once and every epoch reads them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count
from turnout.nn.depth.contract import MOST_CALLS
from turnout.nn.depth.drllm.focal import BETA, GAMMA, class_weights, focal_loss
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.rewards import prompts_of, take_questions
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.depth.windows import make_windows
from turnout.nn.tiny import Batch


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What the routers of a base learn from: windows along label paths."""

    means_QLWD: Tensor
    is_used_QW: Tensor
    labels_QL: Tensor


@dataclass(frozen=True, kw_only=True)
class RouterRecipe:
    """How to train; the defaults are the paper's (25 epochs, AdamW, cosine; warm-up of 500 steps at most).

    `batch_size` is its accumulation of 16; `is_balanced` weighs the classes by their effective numbers.
    """

    epochs: int = 25
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.01
    warm_up_steps: int = 500
    warm_up_share: float = 0.1
    gamma: float = GAMMA
    beta: float = BETA
    is_balanced: bool = True

    def __post_init__(self) -> None:
        check_count("RouterRecipe: epochs", self.epochs)
        check_count("RouterRecipe: batch_size", self.batch_size)
        if not self.lr > 0:
            raise InputError(sentence("RouterRecipe: lr", allowed="above 0", got=self.lr))


@torch.no_grad()
def make_lessons(
    routed: RoutedDepth, batch: Batch, labels_QL: Tensor, *, windows: int = 8, batch_size: int = 128
) -> Lessons:
    """Return the windows of every question at every block along its label path (prompt tokens only)."""
    if labels_QL.shape != (len(batch.input_ids_BT), routed.layers):
        raise ShapeError(
            sentence(
                "make_lessons: labels_QL",
                allowed=(len(batch.input_ids_BT), routed.layers),
                got=tuple(labels_QL.shape),
            )
        )
    if not len(labels_QL):
        raise InputError(sentence("make_lessons: questions", allowed="at least one with a label", got=0))
    means, used = [], []
    for start in range(0, len(labels_QL), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(labels_QL)))
        part = take_questions(batch, rows)
        ids_BT, prompt_BT = prompts_of(part)
        seen: list[Tensor] = []
        parts = make_windows(prompt_BT, windows=windows)

        def watch(_layer: int, hidden_BTD: Tensor, _mask_BT: Tensor) -> None:
            seen.append(parts.means(hidden_BTD))  # noqa: B023 (called within this turn of the loop)

        with routed.prompted(prompt_BT), routed.forced(labels_QL[rows]), routed.watched(watch):
            routed.model(input_ids=ids_BT, attention_mask=part.attention_mask_BT, use_cache=False)
        means.append(torch.stack(seen, dim=1))
        used.append(parts.is_used_BW)
    return Lessons(means_QLWD=torch.cat(means), is_used_QW=torch.cat(used), labels_QL=labels_QL)


def train_router(
    router: DrLLMRouter,
    lessons: Lessons,
    *,
    recipe: RouterRecipe | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[float]:
    """Train the routers of all blocks on lessons; return the mean loss of every epoch.

    Raises `InputError` for no lessons, and `ShapeError` for those of another base or number of windows.

    Source: S12, Dr.LLM, arXiv 2510.12773, sections 3.3 and 4.1.
    """
    recipe = recipe if recipe is not None else RouterRecipe()
    questions = len(lessons.labels_QL)
    if not questions:
        raise InputError(sentence("train_router: lessons", allowed="at least one question", got=0))
    _check_alike(router, lessons)
    counts_C = torch.bincount(lessons.labels_QL.flatten(), minlength=MOST_CALLS + 1)
    alpha_C = class_weights(counts_C, beta=recipe.beta) if recipe.is_balanced else None
    optimizer = torch.optim.AdamW(router.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(questions / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _scale(recipe, steps))
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in _batches(questions, recipe.batch_size, generator):
            logits_BLC = _logits(router, lessons, rows)
            labels_BL = lessons.labels_QL[rows]
            loss = focal_loss(
                logits_BLC.flatten(0, 1), labels_BL.flatten(), alpha_C=alpha_C, gamma=recipe.gamma
            )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / questions)
        progress("training routers", epoch + 1, recipe.epochs)
    return losses


def _check_alike(router: DrLLMRouter, lessons: Lessons) -> None:
    found = dict(zip(("layers", "windows", "width"), lessons.means_QLWD.shape[1:], strict=True))
    wanted = {name: getattr(router, name) for name in found}
    if found != wanted:
        raise ShapeError(
            sentence(
                "train_router: lessons",
                allowed=f"the router's {wanted}",
                got=found,
                do="make_lessons with the router's windows",
            )
        )


def _batches(questions: int, size: int, generator: torch.Generator) -> list[Tensor]:
    order_Q = torch.randperm(questions, generator=generator)
    return [order_Q[start : start + size] for start in range(0, questions, size)]


def _scale(recipe: RouterRecipe, steps: int) -> Callable[[int], float]:
    warm_up = max(min(recipe.warm_up_steps, int(recipe.warm_up_share * steps)), 1)

    def scale(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))

    return scale


def _logits(router: DrLLMRouter, lessons: Lessons, rows: Tensor) -> Tensor:
    used_BW = lessons.is_used_QW[rows].float()
    logits = []
    for layer in range(router.layers):
        logits_BWC = router.heads[layer](lessons.means_QLWD[rows, layer])
        logits.append((logits_BWC * used_BW[:, :, None]).sum(1) / used_BW.sum(1, keepdim=True))
    return torch.stack(logits, dim=1)


@torch.no_grad()
def taught_decisions(router: DrLLMRouter, lessons: Lessons) -> Tensor:
    """Return counts_QL, what the routers would decide along the label paths (no knob)."""
    return _logits(router, lessons, torch.arange(len(lessons.labels_QL))).argmax(-1)
