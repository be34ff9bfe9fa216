"""This module measures what `auto` gains from signals (numbers, capitals, lines, lengths) beside the text.

    TURNOUT_DATA=<data> python -m benchmarks.bench_signals [--folder DIR] [--only WORDS]

Worlds of two kinds, all for development: those of `unseen_regimes.DEVELOP` at seeds of their own, where
nothing hangs on signals, and those of `RULES`, where one simple property of the text decides who is good.
Every world is learned three times: with learners that read text alone, with those that read signals beside
them (the default), and with an embedder that joins both. Choices are judged by true chances. Cells that stand
in the folder are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import record
from benchmarks.bench_auto_unseen import decided
from benchmarks.unseen_regimes import DEVELOP
from benchmarks.unseen_texts import texts
from benchmarks.unseen_worlds import World, make_world
from turnout.core import Candidate, Goal, OutcomeTable, Query
from turnout.core.artifact import save
from turnout.core.contracts import Router
from turnout.core.rng import make_rng
from turnout.evaluation.baselines import best_single
from turnout.features import JoinedEmbedder, SignalsEmbedder, TextEmbedder
from turnout.policies import Deployment
from turnout.policies.risk import student_quantile
from turnout.routers import KNNRouter
from turnout.training import auto, train
from turnout.training.learners import learners

SEEDS = (31_000, 32_000, 33_000)
NUM_TRAIN, NUM_TEST = 1_000, 2_000
NEARLY = 0.005
"""A choice that is worth less by so much is counted as below."""
MAX_TRAIN, MAX_CANDIDATES = 1_500, 10
"""What a world of `DEVELOP` is cut to."""

Rule = Callable[[str, bool, np.random.Generator], str]


def _inside(text: str, word: str, rng: np.random.Generator) -> str:
    words = text.split()
    at = int(rng.integers(len(words) + 1))
    return " ".join([*words[:at], word, *words[at:]])


def _number(text: str, is_on: bool, rng: np.random.Generator) -> str:
    return _inside(text, str(rng.integers(10_000, 99_999)), rng) if is_on else text


def _short_number(text: str, is_on: bool, rng: np.random.Generator) -> str:
    """Write a number of one to four digits in a text of one to six sentences."""
    long = " ".join([text] * int(rng.integers(1, 7)))
    return _inside(long, str(rng.integers(1, 9_999)), rng) if is_on else long


def _middle_length(text: str, is_on: bool, rng: np.random.Generator) -> str:
    """Make the text of middling length, or short or long: no linear rule."""
    times = rng.integers(5, 8) if is_on else rng.choice([rng.integers(1, 3), rng.integers(15, 25)])
    return " ".join([text] * int(times))


RULES: Mapping[str, Rule] = {
    "holds a number": _number,
    "holds a short number": _short_number,
    "capitals": lambda text, is_on, _: text.upper() if is_on else text,
    "a name": lambda text, is_on, _: text.title() if is_on else text,
    "a word a line": lambda text, is_on, _: "\n".join(text.split()) if is_on else text,
    "long": lambda text, is_on, rng: " ".join([text] * int(rng.integers(3, 6))) if is_on else text,
    "middle length": _middle_length,
    "a question mark": lambda text, is_on, _: text.rstrip("?.") + ("?" if is_on else "."),
    "code": lambda text, is_on, rng: f"{text}\n```\nx{rng.integers(99)} = y();\n```" if is_on else text,
    "order of two words": lambda text, is_on, _: (
        f"translate {text} summarise" if is_on else f"summarise {text} translate"
    ),
}
"""Rule -> what writes it into a text, or leaves it out."""


def rule_world(name: str, source: str, seed: int, *, num: int = NUM_TRAIN) -> World:
    """Return a world of four candidates, two of which are good where the rule holds and two elsewhere."""
    rng = make_rng(seed, "signals", name)
    total = num + NUM_TEST
    plain, _ = texts(source, total, rng)
    on_Q = rng.random(total) < 0.5
    words = [RULES[name](text.replace("?", ""), bool(on), rng) for text, on in zip(plain, on_Q, strict=True)]
    good_M = np.arange(4) % 2 == 0
    truth_QM = np.where(on_Q[:, None] == good_M, 0.8, 0.35) + rng.uniform(-0.05, 0.05, size=4)
    quality_QM = (rng.random(truth_QM.shape) < truth_QM).astype(np.float64)
    queries = [Query(id=f"q{row}", text=text) for row, text in enumerate(words)]
    train_table, test = (_table(queries[part], quality_QM[part]) for part in (slice(num), slice(num, None)))
    return World(train=train_table, test=test, truth_QM=truth_QM[num:])


def _table(queries: list[Query], quality_QM: np.ndarray) -> OutcomeTable:
    row, column = np.indices(quality_QM.shape).reshape(2, -1)
    return OutcomeTable(
        queries=queries,
        candidates=[Candidate(model=f"m{index}") for index in range(quality_QM.shape[1])],
        query_index=row,
        candidate_index=column,
        quality=quality_QM.ravel(),
    )


def worlds() -> dict[str, Callable[[], World]]:
    """Return every world by name, those without a rule first."""
    found: dict[str, Callable[[], World]] = {}
    for seed in SEEDS:
        for regime in DEVELOP:
            if not regime.is_recorded:
                small = replace(
                    regime,
                    num_queries=min(regime.num_queries, MAX_TRAIN),
                    num_candidates=min(regime.num_candidates, MAX_CANDIDATES),
                )
                found[f"plain / {regime.name} / {seed}"] = partial(make_world, small, seed)
    for seed, source in zip(SEEDS, ("clinc150", "metatool"), strict=False):
        for name in RULES:
            found[f"rule / {name} / {source}"] = partial(rule_world, name, source, seed)
    return found


def _text_alone(table: OutcomeTable, *, tasks_given: bool) -> dict[str, Router]:
    """Return the learners of `auto` without those that read signals."""
    found = learners(table, tasks_given=tasks_given)
    return {name: router for name, router in found.items() if not name.startswith("signal")}


def measure(world: World) -> dict[str, Any]:
    """Return what the choices of the arms are worth by true chances, and what learning them took."""
    rows, table, test = np.arange(len(world.test.queries)), world.train, world.test
    text = TextEmbedder().fit(table.queries)
    joined = JoinedEmbedder(embedders=(text, SignalsEmbedder()), weights=(2.0, 1.0))
    single = table.names.index(best_single(table))
    estimate = KNNRouter(embedder=text).fit(table).estimate(test.queries)
    chosen = {
        "best_single": np.full(rows.size, single),
        "knn": np.nan_to_num(estimate.quality_QM, nan=-1.0).argmax(axis=1),
    }
    arms = {"text": (_text_alone, text), "signals": (learners, text), "joined": (_text_alone, joined)}
    found: dict[str, Any] = {"fit_cpu_s": {}, "members": {}, "artifact_mb": {}}
    for name, (pool, embedder) in arms.items():
        started = time.process_time()
        with patch.object(auto, "learners", pool):
            deployment = train(table, embedder=embedder)
        found["fit_cpu_s"][name] = time.process_time() - started
        found["members"][name] = sorted(deployment.certificate["auto"]["members"])  # type: ignore[index]
        found["artifact_mb"][name] = _size(deployment)
        chosen[name] = decided(deployment, test, Goal())
    found["quality"] = {name: float(world.truth_QM[rows, at_Q].mean()) for name, at_Q in chosen.items()}
    found["diverted"] = {name: float((chosen[name] != single).mean()) for name in arms}
    return {**found, "fingerprint": table.fingerprint, "oracle": float(world.truth_QM.max(axis=1).mean())}


def _size(deployment: Deployment) -> float:
    with tempfile.TemporaryDirectory() as folder:
        save(deployment, Path(folder) / "it")
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6


def summary(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return by kind of world what arms are worth more than text alone, in the mean over worlds."""
    found: dict[str, Any] = {}
    for kind in ("plain", "rule"):
        part = [cell for name, cell in cells.items() if name.startswith(kind)]
        if len(part) < 2:
            continue
        found[kind] = {"worlds": len(part)}
        for arm in ("signals", "joined"):
            gap = np.array([cell["quality"][arm] - cell["quality"]["text"] for cell in part])
            width = student_quantile(0.975, gap.size - 1) * float(gap.std(ddof=1)) / gap.size**0.5
            mean = float(gap.mean())
            found[kind][arm] = {"value": mean, "low": mean - width, "high": mean + width}
            found[kind][arm] |= {"worst": float(gap.min()), "best": float(gap.max())}
        for arm in ("text", "signals", "joined"):
            worth = [cell["quality"] for cell in part]
            found[kind].setdefault("diverting", {})[arm] = sum(cell["diverted"][arm] > 0 for cell in part)
            found[kind].setdefault("fit_cpu_s", {})[arm] = sum(cell["fit_cpu_s"][arm] for cell in part)
            for rival in ("best_single", "knn"):
                below = found[kind].setdefault(f"below_{rival}", {})
                below[arm] = sum(one[arm] < one[rival] - NEARLY for one in worth)
    return found


def main() -> None:
    """Write `signals.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where cells are kept (default: a new one)")
    parser.add_argument("--only", default="", help="worlds whose names hold these words")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    cells: dict[str, Any] = {}
    for number, (name, make) in enumerate(worlds().items()):
        if options.only not in name:
            continue
        path = folder / f"{number:03d}.json"
        if not path.exists():
            path.write_text(json.dumps({"commit": record.commit(), **measure(make())}), encoding="utf-8")
        cells[name] = json.loads(path.read_text(encoding="utf-8"))
        worth = {arm: round(value, 3) for arm, value in cells[name]["quality"].items()}
        print(f"{name}: {worth}, oracle {cells[name]['oracle']:.3f}", flush=True)
    result = {"summary": summary(cells), "worlds": cells}
    print(json.dumps(result["summary"], indent=1))
    if not options.only:
        print(record.write("signals", result, seed=SEEDS[0]).name)


if __name__ == "__main__":
    main()
