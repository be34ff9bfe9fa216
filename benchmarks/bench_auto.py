"""This module judges `auto`, the default of `train`, on every trainable set with text, next to its rivals.

    TURNOUT_DATA=<data> python -m benchmarks.bench_auto [--folder DIR] [--sets A,B] [--write]

Each set is split, learned and reported as in `bench_reports`: nothing is chosen by looking at the reported
part. Intervals are of one family: with C comparisons in all, each is a paired bootstrap interval of
confidence 1 - 0.05 / C (Bonferroni), so that all hold together with 95 %. Times are of the processor, one
thread. What stands in the folder is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.auto_picture import draw
from benchmarks.bench_reports import parts, prepare
from turnout.core import Goal, OutcomeTable
from turnout.core.artifact import save
from turnout.core.contracts import Router
from turnout.core.rng import make_rng
from turnout.evaluation.bootstrap import resampled_means
from turnout.features import TextEmbedder
from turnout.policies import Deployment
from turnout.routers import GroupMeanRouter, KNNRouter, RidgeRouter
from turnout.training import study, train

NAMES = ("llmrouter", "zeroeval", "lookahead", "routerdc7", "routellm_pair", "alpacaeval1", "alpacaeval2")
SEED = 0
RIVALS = ("best_single", "knn", "group_mean")
NUM_COMPARISONS = len(RIVALS) * (len(NAMES) + len(record.SHIPPED))
"""`auto` against each rival on each set; against `group_mean` it is `auto` with the tasks given."""
CONFIDENCE = 1.0 - 0.05 / NUM_COMPARISONS
NUM_RESAMPLES = 20_000
FLOOR = Goal(quality_floor=1.0)


def chosen(quality_QM: np.ndarray, test: OutcomeTable) -> np.ndarray:
    """Return the recorded quality of the choice of the highest estimate."""
    found: np.ndarray = test.quality_QM[np.arange(len(quality_QM)), quality_QM.argmax(axis=1)]
    return found


def decided(deployment: Deployment, test: OutcomeTable) -> tuple[np.ndarray, float]:
    """Return the recorded quality of what is deployed for the best quality, and the share it diverts."""
    single = test.names[deployment.frontier.best] if deployment.frontier else ""
    decisions = deployment.decide(test.queries, goal=Goal())
    order = {name: column for column, name in enumerate(test.names)}
    column_Q = np.array([order[name] for name in decisions.names_Q if name is not None])
    return test.quality_QM[np.arange(column_Q.size), column_Q], float((column_Q != order[single]).mean())


def rivals(train_part: OutcomeTable, test: OutcomeTable, single: str) -> dict[str, np.ndarray]:
    """Return the recorded quality of every rival's choices; all learn from the whole training part."""
    text = TextEmbedder().fit(train_part.queries)
    routers: dict[str, Router] = {
        "knn": KNNRouter(embedder=text),
        "ridge": RidgeRouter(embedder=text),
        "group_mean": GroupMeanRouter(),
    }
    found = {n: chosen(r.fit(train_part).estimate(test.queries).quality_QM, test) for n, r in routers.items()}
    return {
        "random": test.quality_QM.mean(axis=1),
        "best_single": test.quality_QM[:, test.names.index(single)],
        "oracle": test.quality_QM.max(axis=1),
        **found,
    }


def intervals(values: dict[str, np.ndarray]) -> dict[str, object]:
    """Return means, differences and the share of the oracle gap, with intervals of the one family."""
    names = list(values)
    means_BP = resampled_means(
        np.stack([values[name] for name in names], axis=1),
        num_resamples=NUM_RESAMPLES,
        rng=make_rng(SEED, "auto"),
    )
    of = {name: means_BP[:, column] for column, name in enumerate(names)}
    mean = {name: float(value.mean()) for name, value in values.items()}

    def interval(value: float, drawn: np.ndarray, confidence: float) -> dict[str, float]:
        low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
        return {"value": value, "low": float(low), "high": float(high)}

    found: dict[str, object] = {
        "quality": {name: interval(mean[name], of[name], 0.95) for name in names},
        "against": {},
    }
    against = {}
    for rival in RIVALS:
        mine = "auto_given" if rival == "group_mean" else "auto"
        against[rival] = interval(mean[mine] - mean[rival], of[mine] - of[rival], CONFIDENCE)
    found["against"] = against
    for mine in ("auto", "auto_given"):
        gap_B = np.maximum(of["oracle"] - of["best_single"], 1e-12)
        gap = mean["oracle"] - mean["best_single"]
        share = (mean[mine] - mean["best_single"]) / gap if gap > 0 else 0.0
        found[f"oracle_share_{mine}"] = interval(share, (of[mine] - of["best_single"]) / gap_B, 0.95)
    return found


def speed(deployment: Deployment, test: OutcomeTable) -> dict[str, float]:
    """Return the decision's p50 and p99 in ms, one query at a time, and the artifact's size in MB."""
    taken = []
    for query in test.queries[:300]:
        start = time.process_time()
        deployment.decide([query], goal=Goal())
        taken.append(time.process_time() - start)
    with tempfile.TemporaryDirectory() as folder:
        size = sum(path.stat().st_size for path in Path(save(deployment, folder)).iterdir())
    return {
        "p50_ms": float(np.quantile(taken, 0.5) * 1e3),
        "p99_ms": float(np.quantile(taken, 0.99) * 1e3),
        "artifact_mb": size / 1e6,
    }


def measure(table: OutcomeTable) -> dict[str, object]:
    """Train with tasks inferred and with tasks given, and judge both on the held-out part."""
    train_part, test = parts(table)
    goal = FLOOR if table.has_costs else Goal()
    start = time.process_time()
    deployment = train(train_part, goal, seed=SEED)
    fit_s = time.process_time() - start
    given = train(train_part, goal, tasks_given=True, seed=SEED)
    auto_Q, diverted = decided(deployment, test)
    given_Q, diverted_given = decided(given, test)
    assert deployment.frontier is not None
    single = train_part.names[deployment.frontier.best]
    values = {"auto": auto_Q, "auto_given": given_Q, **rivals(train_part, test, single)}
    return {
        "fingerprint": table.fingerprint,
        "train": len(train_part.queries),
        "test": len(test.queries),
        "candidates": len(table.candidates),
        "best_single": single,
        "is_open": deployment.plan(Goal()).is_open,
        "is_open_given": given.plan(Goal()).is_open,
        "diverted": diverted,
        "diverted_given": diverted_given,
        "about": deployment.certificate["auto"],
        "about_given": given.certificate["auto"],
        "fit_s": fit_s,
        **speed(deployment, test),
        **intervals(values),
        "equal_quality": _equal_quality(deployment, given, train_part, test) if table.has_costs else None,
        "plan": deployment.plan().text,
    }


def _equal_quality(
    deployment: Deployment, given: Deployment, train_part: OutcomeTable, test: OutcomeTable
) -> dict[str, Any]:
    """Return quality, spend and saving of every row of a report, of `auto` with the tasks given as well."""
    rows = _rows(deployment, train_part, test, ridge=RidgeRouter())
    return {**rows, "router_given": _rows(given, train_part, test)["router"]}


def _rows(
    deployment: Deployment, train_part: OutcomeTable, test: OutcomeTable, **others: Router
) -> dict[str, Any]:
    report: dict[str, Any] = study(deployment, train_part, test, others=others, seed=SEED).to_dict()
    columns = ("quality", "usd_per_1k", "saving")
    return {row["name"]: {part: row[part] for part in columns} for row in report["rows"]}


def main() -> None:
    """Measure the sets that are missing in the folder, and write `auto.json` from all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where sets are kept (default: a new one)")
    parser.add_argument("--sets", help="measure some of the sets, and write no result")
    parser.add_argument("--write", action="store_true", help="write what is there and run nothing")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    wanted = options.sets.split(",") if options.sets else [*record.SHIPPED, *NAMES]
    sets: dict[str, Any] = {}
    if options.write:
        wanted = [name for name in wanted if (folder / f"{name}.json").exists()]
    for name, table in record.tables(*NAMES, only=wanted):
        path = folder / f"{name}.json"
        if not path.exists():
            found = {"commit": record.commit(), **measure(prepare(table))}
            path.write_text(json.dumps(found), encoding="utf-8")
        sets[name] = found = json.loads(path.read_text(encoding="utf-8"))
        print(name, {key: found[key] for key in ("fit_s", "is_open", "diverted", "p50_ms", "artifact_mb")})
        print("  ", {n: round(v["value"], 4) for n, v in found["quality"].items()})
        print("  ", found["against"], flush=True)
    if not options.sets:
        result = {"confidence": CONFIDENCE, "comparisons": NUM_COMPARISONS, "sets": sets}
        print(record.write("auto", result, seed=SEED).name, draw(result, record.RESULTS / "auto.png").name)


if __name__ == "__main__":
    main()
