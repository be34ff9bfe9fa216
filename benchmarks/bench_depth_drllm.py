"""This module measures quality against executed layers of Dr.LLM's routers, and what they save in time.

A small Llama is trained on procedural tasks (with some blocks left out by chance, so that it has something to
give), then frozen. Paths are searched for training questions, routers of several seeds are trained on them
(each question's own path, as the paper has it, and few paths that many share), and held-out questions judge:
the routers at several budgets beside the dense model, random skip and the best fixed skip at the same
number of executed layers, and the searches' own labels. The time is that of a router that learned shared
paths. `--quick` shrinks everything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import depth_drllm_speed, record
from turnout.core.progress import Progress
from turnout.core.rng import make_rng
from turnout.datasets.procedural import ALPHABET, Question, questions
from turnout.nn.depth import FixedDepth, RandomSkip, RoutedDepth, best_fixed_skip, right_answers
from turnout.nn.depth.drllm.labels import Labels, find_labels
from turnout.nn.depth.drllm.metrics import router_metrics
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.drllm.sharing import share_labels
from turnout.nn.depth.drllm.training import RouterRecipe, make_lessons, taught_decisions, train_router
from turnout.nn.depth.rewards import take_questions
from turnout.nn.tiny import Batch, answer_batch, character_tokenizer, tiny_llama, train

SEED = 0
DROP = 0.2
STOP_SHORTER = 4
"""Blocks that a path must leave out to end a search, as in the paper, whose models have 28 or more."""
CLAIM = {
    "quality_points": 2.25,
    "layers_saved_per_example": 5,
    "setting": "ARC and DART, Llama and Qwen of 3B to 8B, average (arXiv 2510.12773)",
}


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    tasks: tuple[str, ...] = ("copy", "largest", "shift", "sort")
    levels: tuple[int, ...] = (2, 3)
    """Levels with so many questions that those of the test can be kept out of the training."""
    layers: int = 12
    width: int = 64
    steps: int = 1000
    batch: int = 40
    train_questions: int = 400
    test_questions: int = 400
    fixed_questions: int = 100
    """Training questions that choose the best fixed skip."""
    simulations: int = 50
    shared: int = 4
    """Paths that the labels share."""
    pool: int = 64
    seeds: int = 3
    epochs: int = 25
    knobs: tuple[float, ...] = (-0.6, -0.45, -0.3, -0.2, -0.1, 0.0, 0.1)
    repeats: int = 15
    new_tokens: int = 48


QUICK = Size(
    tasks=("largest", "copy"), levels=(2,),
    layers=4, width=32, steps=80, batch=16, train_questions=24, test_questions=24, simulations=6, pool=4,
    seeds=2, epochs=2, knobs=(-0.2, 0.0), repeats=1,
    new_tokens=6,
)  # fmt: skip
TOKENIZER = character_tokenizer(ALPHABET)


def show(phrase: str, done: int, total: int) -> None:
    print(f"\r{phrase}: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


def draw_questions(size: Size, count: int, *labels: str) -> list[Question]:
    rng = make_rng(SEED, *labels)
    share = -(-count // len(size.tasks))
    each = [questions(task, count=share, levels=size.levels, rng=rng) for task in size.tasks]
    mixed = [question for group in zip(*each, strict=True) for question in group]
    return mixed[:count]


def as_batch(asked: Sequence[Question]) -> Batch:
    return answer_batch(TOKENIZER, [(question.prompt, question.answer) for question in asked])


def train_base(size: Size, progress: Progress, taboo: set[str]) -> RoutedDepth:
    """Return a wrapped Llama, trained on questions that are in no other split, blocks dropped by chance."""
    model = tiny_llama(vocab_size=len(TOKENIZER), width=size.width, layers=size.layers, seed=SEED)
    routed = RoutedDepth(model=model)
    rng = make_rng(SEED, "base")

    def draw() -> Batch:
        task = [size.tasks[i] for i in rng.integers(0, len(size.tasks), size=size.batch)]
        asked = [questions(name, count=1, levels=size.levels, rng=rng)[0] for name in task]
        asked = [question for question in asked if question.prompt not in taboo] or asked[:1]
        kept = torch.from_numpy((rng.random((len(asked), size.layers)) >= DROP).astype(np.int64))
        forcing.append(routed.forced(kept))
        forcing[-1].__enter__()
        return as_batch(asked)

    forcing: list[Any] = []

    def step(phrase: str, done: int, total: int) -> None:
        forcing.pop().__exit__(None, None, None)
        progress(phrase, done, total)

    train(model, draw, steps=size.steps, lr=3e-3, progress=step)
    return routed


def judge(routed: RoutedDepth, batch: Batch, counts: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (is_right_Q, calls_Q)."""
    right, found = right_answers(routed, batch, counts_BL=counts)
    return right.numpy().astype(float), found.sum(1).numpy().astype(float)


def interval(values_Q: np.ndarray, seed: int = SEED) -> dict[str, float]:
    """Return the mean with its 95 % bootstrap interval over questions."""
    rng = make_rng(seed, "bootstrap")
    means = values_Q[rng.integers(0, len(values_Q), size=(2000, len(values_Q)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values_Q.mean()), "low": float(low), "high": float(high)}


def row(found: tuple[np.ndarray, np.ndarray], dense_Q: np.ndarray) -> dict[str, Any]:
    right_Q, calls_Q = found
    return {
        "quality": interval(right_Q),
        "gain_over_dense": interval(right_Q - dense_Q),
        "executed_layers": interval(calls_Q),
    }


def with_router(routed: RoutedDepth, router: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    routed.set_router(router)
    found = judge(routed, batch)
    routed.set_router(None)
    return found


def best_fixed(routed: RoutedDepth, batch: Batch, executed: int, questions: int) -> FixedDepth:
    """Return the fixed pattern that is best on the first training questions."""
    few = take_questions(batch, range(min(questions, len(batch.input_ids_BT))))

    def quality(patterns: Sequence[tuple[int, ...]]) -> list[float]:
        count = len(few.input_ids_BT)
        return [
            judge(routed, few, torch.tensor([pattern]).expand(count, -1))[0].mean() for pattern in patterns
        ]

    counts = best_fixed_skip(quality, layers=routed.layers, executed=executed, most_patterns=100)
    return FixedDepth(counts=counts)


def budget_rows(
    routed: RoutedDepth,
    routers: Sequence[DrLLMRouter],
    size: Size,
    splits: dict[str, Batch],
    dense: np.ndarray,
    fixed: dict[int, tuple[np.ndarray, np.ndarray]],
) -> list[dict[str, Any]]:
    """Return for each knob the routers (all seeds) beside random and fixed skips of the same budget.

    `fixed` keeps what the best fixed skip of a number of layers does, for the next call.
    """
    rows = []
    for done, knob in enumerate(size.knobs):
        for router in routers:
            router.set_knob(knob)
        found = [with_router(routed, router, splits["test"]) for router in routers]
        right_Q, calls_Q = (np.mean([pair[i] for pair in found], axis=0) for i in (0, 1))
        budget = float(np.clip(calls_Q.mean(), 0, routed.layers))
        random = [
            with_router(routed, RandomSkip(layers=routed.layers, executed=budget, seed=s), splits["test"])
            for s in range(size.seeds)
        ]
        random_Q = np.mean([pair[0] for pair in random], axis=0)
        kept = int(np.ceil(budget - 0.05))
        if kept not in fixed:
            chosen = best_fixed(routed, splits["train"], kept, size.fixed_questions)
            fixed[kept] = with_router(routed, chosen, splits["test"])
        rows.append(
            {
                "knob": knob,
                "router": row((right_Q, calls_Q), dense),
                "by_seed": [float(pair[0].mean()) for pair in found],
                "random_skip": row((random_Q, np.mean([pair[1] for pair in random], axis=0)), dense),
                "best_fixed_skip": row(fixed[kept], dense),
                "gain_over_random": interval(right_Q - random_Q),
                "gain_over_best_fixed": interval(right_Q - fixed[kept][0]),
            }
        )
        show("budgets", done + 1, len(size.knobs))
    return rows


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


def measure(size: Size) -> dict[str, Any]:
    """Return everything that is written."""
    asked = {"test": draw_questions(size, size.test_questions, "test")}
    seen = {question.prompt for question in asked["test"]}
    pool = [q for q in draw_questions(size, 3 * size.train_questions, "train") if q.prompt not in seen]
    asked["train"] = pool[: size.train_questions]
    splits = {name: as_batch(group) for name, group in asked.items()}
    routed = train_base(size, show, seen)
    dense_Q, dense_calls = judge(routed, splits["test"])
    rule = SearchRule(simulations=size.simulations, stop_shorter=STOP_SHORTER)
    labels = {name: find_labels(routed, splits[name], rule=rule, seed=SEED, progress=show) for name in splits}
    shared = share_labels(
        routed, splits["train"], labels["train"], paths=size.shared, pool=size.pool, seed=SEED, progress=show
    )
    routers, taught = train_routers(routed, size, splits["train"], labels["train"])
    sharing, taught_shared = train_routers(routed, size, splits["train"], shared)
    fixed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    rows = budget_rows(routed, routers, size, splits, dense_Q, fixed)
    rows_shared = budget_rows(routed, sharing, size, splits, dense_Q, fixed)
    oracle = judge(routed, splits["test"], labels["test"].counts_QL)
    chosen = min(rows_shared, key=lambda r: abs(r["router"]["executed_layers"]["mean"] - 0.7 * size.layers))
    sharing[0].set_knob(chosen["knob"])
    prompts = [question.prompt for question in asked["test"]]
    speed = depth_drllm_speed.measure(
        routed, sharing[0], TOKENIZER, prompts, repeats=size.repeats, new_tokens=size.new_tokens
    )
    speed["knob"] = chosen["knob"]
    speed["quality_of_this_router"] = interval(with_router(routed, sharing[0], splits["test"])[0])
    speed["quality_dense"] = interval(dense_Q)
    # Routers of own paths disagree most, so that their batches are really mixed.
    nearest = min(rows, key=lambda r: abs(r["router"]["executed_layers"]["mean"] - 0.7 * size.layers))
    routers[0].set_knob(nearest["knob"])
    speed_own = depth_drllm_speed.measure_mixed(
        routed, routers[0], TOKENIZER, prompts, repeats=size.repeats, new_tokens=size.new_tokens
    )
    return {
        "base": {
            "layers": size.layers,
            "width": size.width,
            "steps": size.steps,
            "drop": DROP,
            "stop_shorter": STOP_SHORTER,
            "tasks": size.tasks,
        },
        "questions": {"train": len(asked["train"]), "test": len(asked["test"])},
        "dense": row((dense_Q, dense_calls), dense_Q),
        "own": taught,
        "shared": taught_shared,
        "own_labels": row(oracle, dense_Q),
        "budgets": rows,
        "budgets_shared": rows_shared,
        "speed": speed,
        "speed_own": {"knob": nearest["knob"], **speed_own},
        "paper": CLAIM,
    }


def vars_of(metrics: Any) -> dict[str, Any]:
    return {name: getattr(metrics, name) for name in ("macro_f1", "f1", "accuracy", "average_layers")}


def draw_picture(result: dict[str, Any]) -> None:
    """Write depth_drllm.png: quality against executed layers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    curves = {
        "router, shared paths": ("budgets_shared", "router", "o-"),
        "router, each its own path": ("budgets", "router", "v-"),
        "best fixed skip": ("budgets_shared", "best_fixed_skip", "^:"),
        "random skip": ("budgets_shared", "random_skip", "s--"),
    }
    for label, (part, key, mark) in curves.items():
        rows = sorted((r[key] for r in result[part]), key=lambda r: r["executed_layers"]["mean"])
        x = [r["executed_layers"]["mean"] for r in rows]
        y = np.array([[r["quality"][k] for k in ("low", "mean", "high")] for r in rows])
        axes.plot(x, y[:, 1], mark, label=label)
        axes.fill_between(x, y[:, 0], y[:, 2], alpha=0.15)
    for name, key, mark in (("dense", "dense", "*"), ("own labels", "own_labels", "D")):
        one = result[key]
        axes.plot(one["executed_layers"]["mean"], one["quality"]["mean"], mark, label=name, markersize=9)
    axes.set_xlabel("executed layers")
    axes.set_ylabel("share of right answers")
    axes.legend()
    figure.tight_layout()
    figure.savefig(record.RESULTS / "depth_drllm.png", dpi=150)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Write `depth_drllm.json` and `depth_drllm.png`."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    is_quick = "--quick" in arguments
    result = measure(QUICK if is_quick else Size())
    if is_quick:
        print({name: result[name] for name in ("questions", "shared", "speed")})
        return
    print(record.write("depth_drllm", result, seed=SEED).name)
    draw_picture(result)


if __name__ == "__main__":
    main(sys.argv[1:])
