"""This module measures quality against executed layers of Dr.LLM's routers, and what they save in time.

A small Llama is trained on procedural tasks (with some blocks left out by chance, so that it has something to
give), then frozen. Paths are searched for training questions, routers of several seeds are trained on them
(each question's own path, as the paper has it, and few paths that many share), and held-out questions judge:
the routers at several budgets beside the dense model, random skip and the best fixed skip at the same
number of executed layers, and the searches' own labels, with the regret to them. The time is that of a
router that learned shared paths. `--quick` shrinks everything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import depth_drllm_speed, record
from benchmarks import depth_judging as judging
from benchmarks.depth_judging import SEED, TOKENIZER, Answers, as_batch, interval, judge, row, show
from turnout.core.progress import Progress
from turnout.core.rng import make_rng
from turnout.datasets.procedural import Question, questions
from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.drllm.labels import find_labels
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.drllm.sharing import share_labels
from turnout.nn.depth.dropping import train_dropping
from turnout.nn.depth.duo import Oracle
from turnout.nn.depth.oracle import searched_oracle
from turnout.nn.tiny import Batch, tiny_llama

DROP = 0.2
STOP_SHORTER = 4
"""Blocks that a path must leave out to end a search, as in the paper, whose models have 28 or more."""
CLAIM = {
    "quality_points": 2.25,
    "layers_saved_per_example": 5,
    "setting": "ARC and DART, Llama and Qwen of 3B to 8B, average (arXiv 2510.12773)",
}


@dataclass(frozen=True)
class Size(judging.Size):
    """How much of everything."""

    tasks: tuple[str, ...] = ("copy", "largest", "shift", "sort")
    levels: tuple[int, ...] = (2, 3)
    """Levels with so many questions that those of the test can be kept out of the training."""
    layers: int = 12
    steps: int = 1000
    batch: int = 40
    train_questions: int = 400
    test_questions: int = 400
    simulations: int = 50
    shared: int = 4
    """Paths that the labels share."""
    knobs: tuple[float, ...] = (-0.6, -0.45, -0.3, -0.2, -0.1, 0.0, 0.1)
    repeats: int = 15
    new_tokens: int = 48


QUICK = Size(
    tasks=("largest", "copy"), levels=(2,),
    layers=4, width=32, steps=80, batch=16, train_questions=24, test_questions=24, simulations=6, pool=4,
    seeds=2, epochs=2, knobs=(-0.2, 0.0), repeats=1,
    new_tokens=6,
)  # fmt: skip


def draw_questions(size: Size, count: int, *labels: str) -> list[Question]:
    rng = make_rng(SEED, *labels)
    share = -(-count // len(size.tasks))
    each = [questions(task, count=share, levels=size.levels, rng=rng) for task in size.tasks]
    mixed = [question for group in zip(*each, strict=True) for question in group]
    return mixed[:count]


def train_base(size: Size, progress: Progress, taboo: set[str]) -> RoutedDepth:
    """Return a wrapped Llama, trained on questions that are in no other split, blocks dropped by chance."""
    model = tiny_llama(vocab_size=len(TOKENIZER), width=size.width, layers=size.layers, seed=SEED)
    routed = RoutedDepth(model=model)
    rng = make_rng(SEED, "base")

    def draw() -> Batch:
        task = [size.tasks[i] for i in rng.integers(0, len(size.tasks), size=size.batch)]
        asked = [questions(name, count=1, levels=size.levels, rng=rng)[0] for name in task]
        asked = [question for question in asked if question.prompt not in taboo] or asked[:1]
        return as_batch(asked)

    train_dropping(routed, draw, drop=DROP, rng=rng, steps=size.steps, lr=3e-3, progress=progress)
    return routed


def budget_rows(
    routed: RoutedDepth,
    routers: Sequence[DrLLMRouter],
    size: Size,
    splits: dict[str, Batch],
    dense: np.ndarray,
    fixed: dict[int, Answers],
    oracle: Oracle,
) -> list[dict[str, Any]]:
    """Return for each knob the routers (all seeds) beside random and fixed skips of the same budget.

    `fixed` keeps what the best fixed skip of a number of layers does, for the next call; `oracle` is what
    the searches found for the test.
    """
    rows = []
    for done, knob in enumerate(size.knobs):
        found = judging.at_knob(routed, routers, knob, splits["test"])
        right_Q, calls_Q = judging.of_all(found)
        random = judging.at_random(routed, calls_Q.mean(), size.seeds, splits["test"])
        kept = judging.at_least(calls_Q.mean())
        if kept not in fixed:
            chosen = judging.best_fixed(routed, splits["train"], kept)
            fixed[kept] = judging.with_router(routed, chosen, splits["test"])
        rows.append(
            {
                "knob": knob,
                "router": row((right_Q, calls_Q), dense),
                "by_seed": [float(pair[0].mean()) for pair in found],
                "random_skip": row(random, dense),
                "best_fixed_skip": row(fixed[kept], dense),
                "gain_over_random": interval(right_Q - random[0]),
                "gain_over_best_fixed": interval(right_Q - fixed[kept][0]),
                "regret": judging.searched_regret("router", found, oracle),
            }
        )
        show("budgets", done + 1, len(size.knobs))
    return rows


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
    routers, taught = judging.train_routers(routed, size, splits["train"], labels["train"])
    sharing, taught_shared = judging.train_routers(routed, size, splits["train"], shared)
    fixed: dict[int, Answers] = {}
    best = searched_oracle(labels["test"])
    rows = budget_rows(routed, routers, size, splits, dense_Q, fixed, best)
    rows_shared = budget_rows(routed, sharing, size, splits, dense_Q, fixed, best)
    oracle = judge(routed, splits["test"], labels["test"].counts_QL)
    chosen = min(rows_shared, key=lambda r: abs(r["router"]["executed_layers"]["mean"] - 0.7 * size.layers))
    sharing[0].set_knob(chosen["knob"])
    prompts = [question.prompt for question in asked["test"]]
    speed = depth_drllm_speed.measure(
        routed, sharing[0], TOKENIZER, prompts, repeats=size.repeats, new_tokens=size.new_tokens
    )
    speed["knob"] = chosen["knob"]
    speed["quality_of_this_router"] = interval(judging.with_router(routed, sharing[0], splits["test"])[0])
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
