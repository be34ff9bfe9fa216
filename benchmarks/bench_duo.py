"""This module measures big and small feed-forwards (S22): random, fixed, trained and oracle routing.

Llamas of six blocks are trained here with random routing, on checkable tasks and, with TURNOUT_DATA, on the
characters of tinyshakespeare, each without and with a way around the feed-forward (skip). Losses are nats per
token on held-out sequences; budgets are big layers per token. `best fixed` is chosen on other sequences.
Best-of-n and the oracles see the loss they are judged by, as in the paper; the router does not. All seeds are
judged on the same sequences, and intervals are over these. A quarter of an hour on one idle core; `--quick`
runs a small one and writes nothing.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import duo_picture, record
from benchmarks.duo_corpora import QUICK, Draw, Settings, procedural_corpus, text_corpus
from benchmarks.duo_tables import Cell, Floats, Ints, claims, joined, line_of
from turnout.core.rng import make_rng
from turnout.nn.depth.duo import (
    SKIP,
    DuoModel,
    Problem,
    SequenceLoss,
    TokenLoss,
    best_fixed,
    best_of,
    calibrate,
    exhaustive,
    greedy,
    train_modules,
    train_routers,
)
from turnout.nn.depth.duo.sequences import routed_losses
from turnout.nn.flops import executed_flops
from turnout.nn.tiny import IGNORED, Batch, tiny_llama

SEED = 0
Routed = dict[int, tuple[float, Floats, Floats, Ints]]
"""Per target: spent before calibration; loss_Q, spent_Q and choice_QTL afterwards."""


@dataclass(kw_only=True)
class Judged:
    """What one seed's model came to, one cell a budget."""

    sequences: list[Cell]
    tokens: list[Cell]
    notes: dict[str, Any]


def measure(corpus: tuple[int, Draw], settings: Settings, *, allow_skip: bool) -> dict[str, Any]:
    """Train and judge every seed on one corpus; return the lines over all of them."""
    vocabulary, draw = corpus
    began_s = time.perf_counter()
    # Streams that no setting was chosen by: the defaults were tried on others.
    judge = draw(make_rng(SEED, "reported"), settings.judged_rows, "judge")
    positions = token_positions(judge, settings.judged_tokens_skip if allow_skip else settings.judged_tokens)
    size = {"vocab_size": vocabulary, "width": settings.width, "layers": settings.layers}
    models = [
        DuoModel(tiny_llama(**size, seed=seed), seed=seed, allow_skip=allow_skip) for seed in settings.seeds
    ]
    done: list[Judged] = []
    for duo, seed in zip(models, settings.seeds, strict=True):
        done.append(one_seed(duo, draw, judge, positions, settings, seed))
        loss = done[-1].notes["train_loss"]
        print(f"  seed {seed}: trained to {loss:.3f}, {time.perf_counter() - began_s:.0f} s", flush=True)
    rows_Q, rows_P = np.arange(len(judge.labels_BT)), np.array([row for row, _ in positions])
    budgets = range(settings.layers + 1)
    sequences, tokens = [one.sequences for one in done], [one.tokens for one in done]
    oracle = joined([own[0].oracle for own in sequences])
    found: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "allow_skip": allow_skip,
        "patterns": (3 if allow_skip else 2) ** settings.layers,
        "parameters": sum(p.numel() for p in models[0].model.parameters()),
        "judged_sequences": len(rows_Q),
        "judged_labels": int((judge.labels_BT[:, 1:] != IGNORED).sum()),
        "judged_tokens": len(rows_P),
        "flops_per_budget": flops(models[0], judge, settings.layers),
        "seeds": [one.notes for one in done],
        "sequences": [line_of(k, [own[k] for own in sequences], rows_Q) for k in budgets],
        "tokens": [line_of(k, [own[k] for own in tokens], rows_P) for k in budgets],
        "oracle_share_KL": oracle.share_KL().tolist(),
        "oracle_skip_KL": oracle.share_KL(SKIP).tolist() if allow_skip else None,
        "token_oracle_share_KL": [
            joined([own[k].oracle for own in tokens]).share_KL()[k].tolist() for k in budgets
        ],
    }
    found["claims"] = claims(found, oracle, sequences, tokens, rows_Q, rows_P)
    return {**found, "duration_s": time.perf_counter() - began_s}


def one_seed(
    duo: DuoModel,
    draw: Draw,
    judge: Batch,
    positions: list[tuple[int, int]],
    settings: Settings,
    seed: int,
) -> Judged:
    """Train modules and, for every target, routers; judge every policy."""
    rng, budgets = make_rng(seed, "train"), list(range(settings.layers + 1))
    losses = train_modules(
        duo, lambda: draw(rng, settings.rows, "train"), steps=settings.module_steps, lr=3e-3, seed=seed
    )
    select = draw(make_rng(SEED, "select"), settings.judged_rows, "select")
    fixed_KL = best_fixed(SequenceLoss(duo, select).problem(), budgets=budgets)
    routed = {big: route(duo, draw, judge, settings, big, seed) for big in budgets[1:-1]}
    return Judged(
        sequences=sequence_cells(duo, judge, fixed_KL, routed, settings, seed),
        tokens=token_cells(duo, judge, positions, fixed_KL, routed, settings, seed),
        notes={
            "seed": seed,
            "train_loss": float(np.mean(losses[-20:])),
            "best_fixed_KL": fixed_KL.tolist(),
            "router_spent_before_calibration": {big: found[0] for big, found in routed.items()},
        },
    )


def sequence_cells(
    duo: DuoModel, judge: Batch, fixed_KL: Ints, routed: Routed, settings: Settings, seed: int
) -> list[Cell]:
    """Return every policy at every budget on whole sequences."""
    problem = SequenceLoss(duo, judge).problem()
    budgets = list(range(settings.layers + 1))
    oracle, climbed = exhaustive(problem, budgets=budgets), greedy(problem, budgets=budgets)
    rng, columns = make_rng(seed, "draws"), judge.labels_BT.shape[1]
    cells = []
    for k, budget in enumerate(budgets):
        cell = Cell(loss=_fixed(problem, settings.layers, duo.allow_skip), oracle=oracle)
        cell.loss["best_fixed"] = problem.of_items(fixed_KL[k])
        cell.loss["greedy"], cell.loss["exhaustive"] = climbed.loss_KQ[k], oracle.loss_KQ[k]
        if budget in routed:
            drawn_NQ = best_of(
                problem, budgets=[budget], rng=rng, num_draws=settings.draws, num_tokens=columns
            )[1][0]
            cell.add_draws(drawn_NQ)
            _, cell.loss["router"], cell.spent_Q, _ = routed[budget]
        cells.append(cell)
    return cells


def token_cells(
    duo: DuoModel,
    judge: Batch,
    positions: list[tuple[int, int]],
    fixed_KL: Ints,
    routed: Routed,
    settings: Settings,
    seed: int,
) -> list[Cell]:
    """Return every policy at every budget on single tokens, the others following the best fixed pattern."""
    rng, cells = make_rng(seed, "token draws"), []
    budgets = list(range(settings.layers + 1))
    row_P, column_P = np.array(positions).T
    for k, others in enumerate(fixed_KL):
        problem: Problem = TokenLoss(duo, judge, positions=positions, others=others.tolist()).problem()
        oracle = exhaustive(problem, budgets=budgets)
        cell = Cell(loss=_fixed(problem, settings.layers, duo.allow_skip), oracle=oracle)
        cell.loss["best_fixed"] = problem.of_items(others)
        cell.loss["greedy"] = greedy(problem, budgets=budgets[: k + 1]).loss_KQ[k]
        cell.loss["exhaustive"] = oracle.loss_KQ[k]
        if k in routed:
            cell.add_draws(best_of(problem, budgets=[k], rng=rng, num_draws=settings.draws)[1][0])
            choice_PL = routed[k][3][row_P, column_P]
            cell.loss["router"], cell.spent_Q = problem.of_items(choice_PL), problem.spent(choice_PL)
        cells.append(cell)
    return cells


def route(duo: DuoModel, draw: Draw, judge: Batch, settings: Settings, big: int, seed: int) -> Any:
    """Train the routers anew for one target; return an entry of `Routed`."""
    _restart_routers(duo, seed)
    rng, target = make_rng(seed, "routers", str(big)), big / settings.layers

    def next_batch() -> Batch:
        return draw(rng, settings.rows, "train")

    train_routers(duo, next_batch, target=target, steps=settings.router_steps)
    as_trained = float(routed_losses(duo, judge)[1].mean())
    calibrate(duo, [draw(rng, 4 * settings.rows, "select")], target=target)
    return as_trained, *routed_losses(duo, judge)


def token_positions(judge: Batch, most: int) -> list[tuple[int, int]]:
    """Return (row, column) of tokens whose next one has a label, drawn evenly."""
    labelled = np.argwhere((judge.labels_BT[:, 1:] != IGNORED).numpy())
    count = min(most, len(labelled))
    chosen = make_rng(SEED, "tokens").choice(len(labelled), size=count, replace=False)
    return [(int(row), int(column)) for row, column in labelled[np.sort(chosen)]]


def flops(duo: DuoModel, judge: Batch, layers: int) -> list[float]:
    """Return the executed FLOPs per token at each budget, the other layers small; counted, not computed."""
    found = []
    for budget in range(layers + 1):
        with duo.forced([1] * budget + [0] * (layers - budget)), torch.no_grad():
            _, count = executed_flops(lambda: duo.model(input_ids=judge.input_ids_BT, use_cache=False))
        found.append(count / judge.input_ids_BT.numel())
    return found


def _fixed(problem: Problem, layers: int, allow_skip: bool) -> dict[str, Floats]:
    names = ("all_small", "all_big", "all_skip")[: 3 if allow_skip else 2]
    return {name: problem.of_items(np.full(layers, choice)) for choice, name in enumerate(names)}


def _restart_routers(duo: DuoModel, seed: int) -> None:
    fresh = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in duo.layers:
            width = layer.router.weight_AD.shape[1]
            layer.router.weight_AD.normal_(0.0, 0.1 / width**0.5, generator=fresh)
            layer.router.bias_A.zero_()
            layer.router.shift_.zero_()


def main(arguments: list[str]) -> None:
    """Write `duo.json` and `duo.png`."""
    torch.set_num_threads(1)
    is_quick = "--quick" in arguments
    settings = QUICK if is_quick else Settings()
    corpora = {"procedural": procedural_corpus(settings)}
    path = Path(os.environ.get("TURNOUT_DATA", ".")) / "corpora" / "text" / "tinyshakespeare.txt"
    if path.is_file():
        corpora["tinyshakespeare"] = text_corpus(path, settings)
    result = {}
    for name, corpus in corpora.items():
        steps = settings.module_steps if name == "procedural" else settings.text_steps
        for allow_skip in (False, True):
            label = f"{name}, with skip" if allow_skip else name
            print(label, flush=True)
            own = dataclasses.replace(settings, module_steps=steps)
            result[label] = measure(corpus, own, allow_skip=allow_skip)
            for claim in result[label]["claims"]:
                print("  ", claim, flush=True)
    if not is_quick:
        print(record.write("duo", result, seed=SEED).name)
        print(duo_picture.draw(result, record.RESULTS / "duo.png").name)


if __name__ == "__main__":
    main(sys.argv[1:])
