"""This module judges routers of depth beside random and fixed skips, for the benchmarks of Dr.LLM (S12)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.duo_tables import joined
from turnout.core.rng import make_rng
from turnout.datasets.procedural import ALPHABET, Question
from turnout.nn.depth import FixedDepth, RandomSkip, RoutedDepth, best_fixed_skip, right_answers
from turnout.nn.depth.drllm.labels import Labels
from turnout.nn.depth.drllm.metrics import router_metrics
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.training import RouterRecipe, make_lessons, taught_decisions, train_router
from turnout.nn.depth.duo import Oracle
from turnout.nn.depth.rewards import take_questions
from turnout.nn.regret import regret
from turnout.nn.tiny import Batch, answer_batch, character_tokenizer

SEED = 0
TOKENIZER = character_tokenizer(ALPHABET)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Answers = tuple[Floats, Floats]
"""Whether each question was answered right, and the calls of blocks that it took: (is_right_Q, calls_Q)."""


@dataclass(frozen=True)
class Size:
    """What both benchmarks say of a base and its routers."""

    layers: int = 8
    width: int = 64
    seeds: int = 3
    """Routers of each kind, and draws of random skips."""
    epochs: int = 25
    pool: int = 64
    """Paths from which the shared ones are taken."""
    knobs: tuple[float, ...] = (-0.2, 0.0, 0.2)


def show(phrase: str, done: int, total: int) -> None:
    """Write progress."""
    print(f"\r{phrase}: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


def as_batch(asked: Sequence[Question]) -> Batch:
    """Return questions as a batch."""
    return answer_batch(TOKENIZER, [(question.prompt, question.answer) for question in asked])


def judge(routed: RoutedDepth, batch: Batch, counts: Any = None) -> Answers:
    """Return what the model answers at the depths `counts`, or at those that its router decides."""
    right, found = right_answers(routed, batch, counts_BL=counts)
    return right.numpy().astype(float), found.sum(1).numpy().astype(float)


def with_router(routed: RoutedDepth, router: Any, batch: Batch) -> Answers:
    """Return what the model answers with one router."""
    routed.set_router(router)
    found = judge(routed, batch)
    routed.set_router(None)
    return found


def of_all(found: Sequence[Answers]) -> Answers:
    """Return the mean over seeds, question by question."""
    right_Q, calls_Q = (np.mean([pair[i] for pair in found], axis=0) for i in (0, 1))
    return right_Q, calls_Q


def at_knob(routed: RoutedDepth, routers: Sequence[DrLLMRouter], knob: float, batch: Batch) -> list[Answers]:
    """Return what each router's model answers at a knob."""
    for router in routers:
        router.set_knob(knob)
    return [with_router(routed, router, batch) for router in routers]


def at_random(routed: RoutedDepth, executed: float, seeds: int, batch: Batch) -> Answers:
    """Return the mean of some draws of random skips."""
    budget = float(np.clip(executed, 0, routed.layers))
    drawn = [RandomSkip(layers=routed.layers, executed=budget, seed=seed) for seed in range(seeds)]
    return of_all([with_router(routed, router, batch) for router in drawn])


def best_fixed(routed: RoutedDepth, batch: Batch, executed: int) -> FixedDepth:
    """Return the fixed pattern that is best on training questions; every one is tried up to 12 blocks."""
    questions = len(batch.input_ids_BT)

    def quality(patterns: Sequence[tuple[int, ...]]) -> list[float]:
        found = []
        for pattern in patterns:
            found.append(float(judge(routed, batch, torch.tensor([pattern]).expand(questions, -1))[0].mean()))
            show(f"fixed skips of {executed}", len(found), len(patterns))
        return found

    return FixedDepth(counts=best_fixed_skip(quality, layers=routed.layers, executed=executed))


def at_least(calls: float) -> int:
    """Return the blocks of a fixed skip that makes as many calls as `calls` on average, or more."""
    return int(np.ceil(calls - 0.05))


def interval(values_Q: Floats, seed: int = SEED) -> dict[str, float]:
    """Return the mean with its 95 % bootstrap interval over questions."""
    rng = make_rng(seed, "bootstrap")
    means = values_Q[rng.integers(0, len(values_Q), size=(2000, len(values_Q)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values_Q.mean()), "low": float(low), "high": float(high)}


def row(found: Answers, dense_Q: Floats) -> dict[str, Any]:
    """Return quality, what it gains over the dense model, and calls, with intervals."""
    right_Q, calls_Q = found
    return {
        "quality": interval(right_Q),
        "gain_over_dense": interval(right_Q - dense_Q),
        "executed_layers": interval(calls_Q),
    }


def searched_regret(name: str, found: Sequence[Answers], oracle: Oracle) -> dict[str, Any]:
    """Return how far routers, one a seed, are from what searches found; a question counts once for each."""
    questions = oracle.loss_KQ.shape[1]
    line = regret(
        name,
        np.concatenate([1.0 - right_Q for right_Q, _ in found]),
        np.concatenate([calls_Q for _, calls_Q in found]),
        oracle=joined([oracle] * len(found)),
        rng=make_rng(SEED, "bootstrap"),
        groups_Q=np.tile(np.arange(questions), len(found)),
    )
    return asdict(line)


def train_routers(
    routed: RoutedDepth, size: Size, batch: Batch, labels: Labels
) -> tuple[list[DrLLMRouter], dict[str, Any]]:
    """Return routers of every seed that were taught these labels, and what they learned of them."""
    teaching = labels.teaching(improved_share=0.0)
    lessons = make_lessons(routed, take_questions(batch, teaching), labels.counts_QL[teaching])
    routers, metrics = [], []
    for seed in range(size.seeds):
        router = DrLLMRouter(layers=size.layers, width=size.width, seed=seed)
        train_router(router, lessons, recipe=RouterRecipe(epochs=size.epochs), seed=seed, progress=show)
        routers.append(router)
        metrics.append(vars_of(router_metrics(taught_decisions(router, lessons), lessons.labels_QL)))
    return routers, {
        "taught": len(teaching),
        "measured_paths": labels.measured,
        "found": float(labels.is_found_Q.float().mean()),
        "improved": float(labels.is_improved_Q.float().mean()),
        "labels": torch.bincount(lessons.labels_QL.flatten(), minlength=3).tolist(),
        "label_layers": float(lessons.labels_QL.sum(1).float().mean()),
        "different_paths": len(torch.unique(lessons.labels_QL, dim=0)),
        "router_metrics_by_seed": metrics,
    }


def vars_of(metrics: Any) -> dict[str, Any]:
    """Return the figures of `router_metrics` by name."""
    return {name: getattr(metrics, name) for name in ("macro_f1", "f1", "accuracy", "average_layers")}
