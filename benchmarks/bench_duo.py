"""This module measures big and small feed-forwards (S22): random, fixed, trained and oracle routing.

A Llama of six blocks is trained here with random routing, on checkable tasks and, with TURNOUT_DATA, on the
characters of tinyshakespeare. Losses are nats per token on held-out sequences; budgets are big layers per
token. `best fixed` is chosen on other sequences. Best-of-n and the oracles see the loss they are judged by,
as in the paper; the router does not. Minutes on one core; `--quick` runs a small one and writes nothing.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import duo_picture, record
from turnout.core.rng import make_rng
from turnout.datasets import procedural
from turnout.nn.depth.duo import (
    DuoModel,
    Oracle,
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
from turnout.nn.regret import interval_of, regret
from turnout.nn.tiny import IGNORED, Batch, answer_batch, character_tokenizer, tiny_llama

TASKS = ("add", "copy", "reverse", "sort")
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is trained and measured."""

    width: int = 48
    layers: int = 6
    columns: int = 48
    rows: int = 16
    """Of text in a training batch; twice as many of the tasks, which are shorter."""
    module_steps: int = 700
    text_steps: int = 400
    """Of modules on text, whose batches hold more tokens."""
    router_steps: int = 80
    router_seeds: int = 3
    judged_rows: int = 24
    judged_tokens: int = 192
    draws: int = 100


QUICK = Settings(
    width=16, layers=3, columns=12, rows=4, module_steps=8, text_steps=8, router_steps=3, router_seeds=2,
    judged_rows=4, judged_tokens=8, draws=3,
)  # fmt: skip

Draw = Callable[[np.random.Generator, int, str], Batch]
"""(rng, rows, split) to a batch; the splits are `train`, `select` and `judge`."""


def procedural_corpus(_settings: Settings) -> tuple[int, Draw]:
    """Return (vocabulary, draw) of four checkable tasks; only answers carry a loss."""
    tokenizer = character_tokenizer(procedural.ALPHABET)

    def draw(rng: np.random.Generator, rows: int, _split: str) -> Batch:
        # Every draw is new: six random characters rarely repeat, and the judged ones have their own stream.
        task_N = rng.choice(TASKS, size=2 * rows)
        asked = [procedural.questions(str(task), count=1, levels=(3, 4, 5, 6), rng=rng)[0] for task in task_N]
        return answer_batch(tokenizer, [(q.prompt, q.answer) for q in asked])

    return len(tokenizer), draw


def text_corpus(path: Path, settings: Settings) -> tuple[int, Draw]:
    """Return (vocabulary, draw) of windows of a text; the last fifth is judged, a tenth before it selects."""
    text = path.read_text(encoding="utf-8")
    tokenizer = character_tokenizer(text)
    words = tokenizer.get_vocab()
    id_N = torch.tensor([words[character] for character in text])
    cuts = [int(share * len(id_N)) for share in (0.0, 0.7, 0.8, 1.0)]
    part = {name: id_N[cuts[i] : cuts[i + 1]] for i, name in enumerate(("train", "select", "judge"))}

    def draw(rng: np.random.Generator, rows: int, split: str) -> Batch:
        starts = rng.integers(0, len(part[split]) - settings.columns, size=rows)
        ids_BT = torch.stack([part[split][s : s + settings.columns] for s in starts])
        return Batch(input_ids_BT=ids_BT, attention_mask_BT=torch.ones_like(ids_BT), labels_BT=ids_BT)

    return len(tokenizer), draw


def measure(corpus: tuple[int, Draw], settings: Settings) -> dict[str, Any]:
    """Train and judge everything on one corpus."""
    vocabulary, draw = corpus
    began_s = time.perf_counter()
    model = tiny_llama(vocab_size=vocabulary, width=settings.width, layers=settings.layers, seed=SEED)
    duo = DuoModel(model, seed=SEED)
    rng = make_rng(SEED, "train")
    losses = train_modules(
        duo, lambda: draw(rng, settings.rows, "train"), steps=settings.module_steps, lr=3e-3, seed=SEED
    )
    print(
        f"  modules trained: {np.mean(losses[-20:]):.3f} in {time.perf_counter() - began_s:.0f} s", flush=True
    )
    # A stream that no setting was chosen by: the defaults were tried on others.
    judge = draw(make_rng(SEED, "reported"), settings.judged_rows, "judge")
    select = draw(make_rng(SEED, "select"), settings.judged_rows, "select")
    budgets = list(range(settings.layers + 1))
    fixed_KL = best_fixed(SequenceLoss(duo, select).problem(), budgets=budgets)
    table, oracle = sequence_table(duo, judge, fixed_KL, settings)
    tokens, token_share_KL = token_table(duo, judge, fixed_KL, settings)
    routers = router_lines(duo, draw, judge, oracle, settings)
    return {
        "settings": dataclasses.asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "judged_tokens": int((judge.labels_BT[:, 1:] != IGNORED).sum()),
        "train_loss": float(np.mean(losses[-20:])),
        "flops_per_budget": flops(duo, judge, settings.layers),
        "sequences": table,
        "tokens": tokens,
        "routers": routers,
        "claims": claims(table, tokens, routers, oracle),
        "oracle_share_KL": oracle.share_KL().tolist(),
        "token_oracle_share_KL": token_share_KL,
        "duration_s": time.perf_counter() - began_s,
    }


def sequence_table(
    duo: DuoModel, judge: Batch, fixed_KL: np.ndarray, settings: Settings
) -> tuple[list[dict[str, Any]], Oracle]:
    """Return one line a budget, every policy on the same sequences, and the exhaustive oracle."""
    problem = SequenceLoss(duo, judge).problem()
    budgets = list(range(settings.layers + 1))
    oracle = exhaustive(problem, budgets=budgets)
    climbed = greedy(problem, budgets=budgets)
    best, loss_KNQ = best_of(
        problem,
        budgets=budgets[1:-1],
        rng=make_rng(SEED, "draws"),
        num_draws=settings.draws,
        num_tokens=judge.labels_BT.shape[1],
    )
    lines = []
    for k, budget in enumerate(budgets):
        fixed_Q = problem.of_items(fixed_KL[k])
        line: dict[str, Any] = {"budget": budget, "best_fixed_pattern": fixed_KL[k].tolist()}
        line["best_fixed"] = _judged(fixed_Q, oracle.loss_KQ[k])
        line["greedy"] = _judged(climbed.loss_KQ[k], oracle.loss_KQ[k])
        line["exhaustive"] = _judged(oracle.loss_KQ[k], oracle.loss_KQ[k])
        if 0 < k < settings.layers:
            line["random"] = _judged(loss_KNQ[k - 1].mean(axis=0), oracle.loss_KQ[k])
            together = int(loss_KNQ[k - 1].mean(axis=1).argmin())
            line["best_of_n_together"] = _judged(loss_KNQ[k - 1, together], oracle.loss_KQ[k])
            line["best_of_n"] = _judged(best.loss_KQ[k - 1], oracle.loss_KQ[k])
        lines.append(line)
        print(f"  {budget} big: " + _short(line), flush=True)
    for name, pattern in (("all_small", 0), ("all_big", 1)):
        loss_Q = problem.of_items(np.full(settings.layers, pattern))
        lines[-pattern][name] = _judged(loss_Q, oracle.loss_KQ[-pattern])
    return lines, oracle


def token_table(
    duo: DuoModel, judge: Batch, fixed_KL: np.ndarray, settings: Settings
) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """Return one line a budget for single tokens, the others following the best fixed pattern."""
    labelled = np.argwhere((judge.labels_BT[:, 1:] != IGNORED).numpy())
    count = min(settings.judged_tokens, len(labelled))
    chosen = make_rng(SEED, "tokens").choice(len(labelled), size=count, replace=False)
    positions = [(int(row), int(column)) for row, column in labelled[np.sort(chosen)]]
    groups_Q = np.array([row for row, _ in positions])
    lines, shares = [], []
    for budget, others in enumerate(fixed_KL):
        problem: Problem = TokenLoss(duo, judge, positions=positions, others=others.tolist()).problem()
        oracle, climbed = exhaustive(problem, budgets=[budget]), greedy(problem, budgets=[budget])
        best_Q = oracle.loss_KQ[0]
        big_Q = problem.of_items(np.ones(settings.layers, dtype=np.int64))
        fixed_Q = problem.of_items(others)
        line = {
            "budget": budget,
            "tokens": count,
            "sequence_Q": groups_Q.tolist(),
            "all_big": _judged(big_Q, best_Q, groups_Q),
            "best_fixed": _judged(fixed_Q, best_Q, groups_Q),
            "greedy": _judged(climbed.loss_KQ[0], best_Q, groups_Q),
            "exhaustive": _judged(best_Q, best_Q, groups_Q),
        }
        lines.append(line)
        shares.append(oracle.share_KL()[0].tolist())
        print(f"  {budget} big, single tokens: " + _short(line), flush=True)
    return lines, shares


def router_lines(
    duo: DuoModel, draw: Draw, judge: Batch, oracle: Oracle, settings: Settings
) -> list[dict[str, Any]]:
    """Return one line for each target and seed: the trained router, calibrated on texts of its own."""
    lines = []
    for big in range(1, settings.layers):
        own = [router_line(duo, draw, judge, oracle, settings, big, s) for s in range(settings.router_seeds)]
        lines += own
        losses = np.array([line["loss"]["value"] for line in own])
        print(f"  router at {big} big: {losses.mean():.3f} (seeds {losses.round(3)})", flush=True)
    duo.is_routed = False
    return lines


def router_line(
    duo: DuoModel, draw: Draw, judge: Batch, oracle: Oracle, settings: Settings, big: int, seed: int
) -> dict[str, Any]:
    """Train the routers anew for one target and judge them."""
    _restart_routers(duo, seed)
    rng, target = make_rng(seed, "routers", str(big)), big / settings.layers

    def next_batch() -> Batch:
        return draw(rng, settings.rows, "train")

    train_routers(duo, next_batch, target=target, steps=settings.router_steps)
    as_trained = float(routed_losses(duo, judge)[1].mean())
    calibrate(duo, [draw(rng, 4 * settings.rows, "select")], target=target)
    loss_Q, spent_Q, choice_QTL = routed_losses(duo, judge)
    found = regret("router", loss_Q, spent_Q, oracle=oracle, rng=make_rng(SEED, "bootstrap"))
    share_L = (choice_QTL == 1)[judge.attention_mask_BT.numpy() > 0].mean(axis=0)
    return {
        "target": target,
        "seed": seed,
        "spent_before_calibration": as_trained,
        "big_share_L": share_L.tolist(),
        **dataclasses.asdict(found),
    }


def claims(
    table: list[dict[str, Any]], tokens: list[dict[str, Any]], routers: list[dict[str, Any]], oracle: Oracle
) -> list[dict[str, Any]]:
    """Return what the paper says beside what was measured here."""
    layers = len(table) - 1
    order_L = np.arange(layers)
    first_L, last_L = oracle.share_KL()[1], oracle.share_KL()[layers - 1]
    gain_Q = oracle.loss_KQ[1] - _losses(table[-1]["all_big"])
    one_big = interval_of(gain_Q, rng=make_rng(SEED, "bootstrap"))
    per_token = interval_of(
        _losses(tokens[1]["exhaustive"]) - _losses(tokens[-1]["all_big"]),
        rng=make_rng(SEED, "bootstrap"),
        groups_Q=np.array(tokens[1]["sequence_Q"]),
    )
    gaps: dict[str, list[float]] = {"best_of_n": [], "best_of_n_together": [], "best_fixed": []}
    for name, found in gaps.items():
        for big in range(1, layers):
            own = [r["loss"]["value"] for r in routers if round(r["target"] * layers) == big]
            found.append(float(np.mean(own)) - table[big][name]["loss"]["value"])
    used = oracle.choice_KQL[-1].sum(axis=1).mean()
    return [
        {
            "claim": "with one big layer the oracle beats all-big",
            "measured": dataclasses.asdict(one_big),
            "per_token": dataclasses.asdict(per_token),
            "holds": one_big.high < 0,
            "holds_per_token": per_token.high < 0,
        },
        {
            "claim": "unlimited, the oracle uses about half of the big layers",
            "measured": float(used),
            "holds": bool(abs(used - layers / 2) < 1),
        },
        {
            "claim": "trained routers land near the best of 100 random routings",
            "measured": gaps,
            "holds": max(gaps["best_of_n"]) < 0.02,
            "holds_together": max(gaps["best_of_n_together"]) < 0.02,
        },
        {
            "claim": "small budgets go to late layers, large ones to early layers as well",
            "measured": [_centre(first_L, order_L), _centre(last_L, order_L)],
            "holds": bool(_centre(first_L, order_L) > (layers - 1) / 2),
        },
    ]


def flops(duo: DuoModel, judge: Batch, layers: int) -> list[float]:
    """Return the executed FLOPs per token at each budget, counted and not computed."""
    found = []
    for budget in range(layers + 1):
        with duo.forced([1] * budget + [0] * (layers - budget)), torch.no_grad():
            _, count = executed_flops(lambda: duo.model(input_ids=judge.input_ids_BT, use_cache=False))
        found.append(count / judge.input_ids_BT.numel())
    return found


def _restart_routers(duo: DuoModel, seed: int) -> None:
    fresh = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in duo.layers:
            width = layer.router.weight_AD.shape[1]
            layer.router.weight_AD.normal_(0.0, 0.1 / width**0.5, generator=fresh)
            layer.router.bias_A.zero_()
            layer.router.shift_.zero_()


def _judged(loss_Q: np.ndarray, best_Q: np.ndarray, groups_Q: np.ndarray | None = None) -> dict[str, Any]:
    rng = make_rng(SEED, "bootstrap")
    loss = interval_of(loss_Q, rng=rng, groups_Q=groups_Q)
    gap = interval_of(loss_Q - best_Q, rng=rng, groups_Q=groups_Q)
    return {
        "loss": dataclasses.asdict(loss),
        "regret": dataclasses.asdict(gap),
        "loss_Q": np.round(loss_Q, 5).tolist(),
    }


def _losses(entry: dict[str, Any]) -> np.ndarray:
    return np.array(entry["loss_Q"])


def _short(line: dict[str, Any]) -> str:
    return ", ".join(f"{n} {v['loss']['value']:.3f}" for n, v in line.items() if isinstance(v, dict))


def _centre(share_L: np.ndarray, order_L: np.ndarray) -> float:
    return float((share_L * order_L).sum() / max(share_L.sum(), 1e-9))


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
        print(name, flush=True)
        steps = settings.module_steps if name == "procedural" else settings.text_steps
        result[name] = measure(corpus, dataclasses.replace(settings, module_steps=steps))
        for claim in result[name]["claims"]:
            print("  ", claim, flush=True)
    if not is_quick:
        print(record.write("duo", result, seed=SEED).name)
        print(duo_picture.draw(result, record.RESULTS / "duo.png").name)


if __name__ == "__main__":
    main(sys.argv[1:])
