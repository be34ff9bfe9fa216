"""This module measures Dr.LLM's routers on questions of which some truly need more depth than others.

A small Llama learns chains of one to six steps, one step after another, and copies; a chain of six needs
more blocks than one of two. As in `bench_depth_drllm`, paths are searched for training questions, routers of
several seeds are trained on them, and held-out questions judge them beside the dense model and the best fixed
skip of at least as many blocks, which is chosen on training questions. All of it once for each base.
`--quick` shrinks everything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import bench_depth_drllm as drllm
from benchmarks import record
from turnout.core.rng import make_rng
from turnout.datasets.chains import chains, walked
from turnout.datasets.procedural import Question, questions
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.drllm.labels import Labels, find_labels
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.drllm.sharing import share_labels
from turnout.nn.tiny import Batch, answer_batch, tiny_llama, train

SEED = 0
DROP = 0.1
COPIED = 3
"""Letters of a question to copy."""


@dataclass(frozen=True)
class Size(drllm.Size):
    """How much of everything."""

    levels: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Steps of the questions that are searched and judged; the base also learns chains of one step."""
    copies: float = 0.15
    """Share of questions to copy."""
    layers: int = 8
    steps: int = 2200
    batch: int = 48
    train_questions: int = 800
    fixed_questions: int = 400
    simulations: int = 60
    shared: int = 3
    seeds: int = 3
    bases: int = 2
    knobs: tuple[float, ...] = (-0.2, -0.1, 0.0, 0.1, 0.2, 0.3)


QUICK = Size(
    levels=(1,), copies=0.1, layers=3, width=32, steps=250, batch=32, train_questions=40, test_questions=24,
    simulations=6, shared=2, pool=4, seeds=2, bases=1, epochs=2, knobs=(0.0,),
)  # fmt: skip


def draw_questions(
    size: Size, count: int, rng: np.random.Generator, *, levels: Sequence[int]
) -> list[Question]:
    """Return `count` questions, chains and copies."""
    copied = rng.random(count) < size.copies
    found = chains(count=count, levels=levels, rng=rng)
    copies = questions("copy", count=count, levels=[COPIED], rng=rng)
    return [copies[i] if is_copy else found[i] for i, is_copy in enumerate(copied)]


def taught(asked: Sequence[Question]) -> Batch:
    """Return questions as a batch that teaches, at every step of a chain, the letter it has come to.

    What precedes a step is a shorter chain, and the letter is its answer. The base learns from these, and a
    path is a label only where every step is right, since one answer in ten is right by chance. A question of
    the test is judged by what follows its `=`.
    """
    inside = [(walked(question),) if question.task == "chain" else () for question in asked]
    pairs = [(question.prompt, question.answer, *said) for question, said in zip(asked, inside, strict=True)]
    return answer_batch(drllm.TOKENIZER, pairs)


def train_base(size: Size, seed: int, taboo: set[str]) -> RoutedDepth:
    """Return a wrapped Llama, trained on questions that are in no other split, blocks dropped by chance."""
    model = tiny_llama(vocab_size=len(drllm.TOKENIZER), width=size.width, layers=size.layers, seed=seed)
    routed = RoutedDepth(model=model)
    rng = make_rng(seed, "chains", "base")
    levels = range(1, max(size.levels) + 1)
    forcing: list[Any] = []

    def draw() -> Batch:
        asked = draw_questions(size, size.batch, rng, levels=levels)
        asked = [question for question in asked if question.prompt not in taboo] or asked[:1]
        kept = torch.from_numpy((rng.random((len(asked), size.layers)) >= DROP).astype(np.int64))
        forcing.append(routed.forced(kept))
        forcing[-1].__enter__()
        return taught(asked)

    def step(phrase: str, done: int, total: int) -> None:
        forcing.pop().__exit__(None, None, None)
        drllm.show(phrase, done, total)

    train(model, draw, steps=size.steps, lr=3e-3, progress=step)
    return routed


def measure_base(size: Size, seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what is written about one base, and right answers by way to answer, over the test questions."""
    asked = {
        "test": draw_questions(
            size, size.test_questions, make_rng(SEED, "chains", "test"), levels=size.levels
        )
    }
    seen = {question.prompt for question in asked["test"]}
    pool = draw_questions(
        size, 3 * size.train_questions, make_rng(SEED, "chains", "train"), levels=size.levels
    )
    asked["train"] = [q for q in pool if q.prompt not in seen][: size.train_questions]
    splits = {name: drllm.as_batch(group) for name, group in asked.items()}
    lessons = {name: taught(group) for name, group in asked.items()}
    routed = train_base(size, seed, seen)
    dense = drllm.judge(routed, splits["test"])
    rule = SearchRule(simulations=size.simulations, is_exhausting=True)
    labels = {
        name: find_labels(routed, lessons[name], rule=rule, seed=SEED, progress=drllm.show) for name in splits
    }
    shared = share_labels(
        routed,
        lessons["train"],
        labels["train"],
        paths=size.shared,
        pool=size.pool,
        seed=SEED,
        progress=drllm.show,
    )
    fixed: dict[int, Any] = {}
    found: dict[str, Any] = {"dense": drllm.row(dense, dense[0])}
    arrays = {"dense": dense[0]}
    for name, taught_labels in (("own", labels["train"]), ("shared", shared)):
        routers, learned = drllm.train_routers(routed, size, lessons["train"], taught_labels)
        rows = drllm.budget_rows(routed, routers, size, splits, dense[0], fixed)
        neutral = _neutral(routed, routers, splits["test"])
        arrays[name], layers_Q = neutral
        kept = int(np.ceil(layers_Q.mean() - 0.05))
        arrays[f"{name}_fixed"] = fixed[kept][0]
        found[name] = learned | {
            "budgets": rows,
            "levels": _levels(asked["test"], neutral, fixed[kept], dense),
        }
    oracle = drllm.judge(routed, splits["test"], labels["test"].counts_QL)
    by_level = {"levels": _labels_by_level(asked["test"], labels["test"])}
    found["own_labels"] = drllm.row(oracle, dense[0]) | by_level
    kept = int(np.ceil(oracle[1].mean() - 0.05))
    if kept not in fixed:
        chosen = drllm.best_fixed(routed, splits["train"], kept, size.fixed_questions)
        fixed[kept] = drllm.with_router(routed, chosen, splits["test"])
    found["own_labels"]["gain_over_best_fixed"] = drllm.interval(oracle[0] - fixed[kept][0])
    found["fixed"] = {str(number): drllm.row(pair, dense[0]) for number, pair in sorted(fixed.items())}
    return found, arrays


def _neutral(routed: RoutedDepth, routers: Sequence[Any], batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return right answers and calls at the knob where the routers are as trained, over all seeds."""
    for router in routers:
        router.set_knob(0.0)
    pairs = [drllm.with_router(routed, router, batch) for router in routers]
    return np.mean([pair[0] for pair in pairs], axis=0), np.mean([pair[1] for pair in pairs], axis=0)


def _levels(
    asked: Sequence[Question], router: tuple[Any, Any], fixed: tuple[Any, Any], dense: tuple[Any, Any]
) -> list[dict[str, Any]]:
    lines = []
    for name, rows in _groups(asked):
        lines.append(
            {
                "questions": name,
                "count": len(rows),
                "dense": float(dense[0][rows].mean()),
                "router": float(router[0][rows].mean()),
                "router_layers": float(router[1][rows].mean()),
                "best_fixed": float(fixed[0][rows].mean()),
            }
        )
    return lines


def _labels_by_level(asked: Sequence[Question], labels: Labels) -> dict[str, float]:
    calls_Q = labels.counts_QL.sum(1).numpy()
    return {name: float(calls_Q[rows].mean()) for name, rows in _groups(asked)}


def _groups(asked: Sequence[Question]) -> list[tuple[str, np.ndarray]]:
    names = np.array([f"{q.task} {q.level}" for q in asked])
    return [(str(name), np.flatnonzero(names == name)) for name in np.unique(names)]


def measure(size: Size) -> dict[str, Any]:
    """Return everything that is written."""
    found = [measure_base(size, seed) for seed in range(size.bases)]
    mean = {name: np.mean([arrays[name] for _, arrays in found], axis=0) for name in found[0][1]}
    return {
        "size": {**asdict(size), "drop": DROP},
        "all_bases": {
            name: {
                "quality": drllm.interval(mean[name]),
                "gain_over_dense": drllm.interval(mean[name] - mean["dense"]),
                "gain_over_best_fixed": drllm.interval(mean[name] - mean[f"{name}_fixed"]),
            }
            for name in ("own", "shared")
        },
        "bases": [base for base, _ in found],
    }


def main(arguments: list[str]) -> None:
    """Write `depth_chains.json`."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    is_quick = "--quick" in arguments
    result = measure(QUICK if is_quick else Size())
    if is_quick:
        print(result["all_bases"])
        return
    print(record.write("depth_chains", result, seed=SEED).name)


if __name__ == "__main__":
    main(sys.argv[1:])
