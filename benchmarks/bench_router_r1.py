"""This module measures what training adds to Router-R1: a tiny transformer before and after GRPO, held out.

The policy is warm-started on demonstrations of an uninformed policy, then trained by TRL's GRPO in the replay
environment with the corrected reward. `before` and `after` are sampled at temperature 1 on held-out queries;
intervals are percentiles of a paired bootstrap over queries, each query's value averaged over the seeds.
Quality counts a task whose format broke as 0.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks import record
from benchmarks.router_r1_picture import draw
from benchmarks.router_r1_recipe import Size, run_seed
from benchmarks.router_r1_world import World
from turnout.cli.console import progress_bar
from turnout.core.rng import make_rng
from turnout.datasets import load

SEED = 0
COST_WEIGHT = 0.3
RESAMPLES = 2000
SIZES = {"reason18": Size(steps=150), "open9": Size(steps=80)}
QUICK = Size(warm_steps=20, steps=2, prompts=2, group=2)


def interval(values_Q: np.ndarray) -> dict[str, float]:
    """Return the mean with a 95 % interval over queries; unknown values are left out."""
    known = values_Q[np.isfinite(values_Q)]
    drawn = make_rng(SEED, "bootstrap").integers(0, known.size, (RESAMPLES, known.size))
    low, high = np.percentile(known[drawn].mean(axis=1), [2.5, 97.5])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high)}


def summary(world: World, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the runs of one table say together."""
    found: dict[str, Any] = {"queries": len(world.test.queries), "seeds": len(runs)}
    for key in ("reward", "valid", "quality", "usd", "calls"):
        before_Q = np.mean([run["before"][key] for run in runs], axis=0)
        after_Q = np.mean([run["after"][key] for run in runs], axis=0)
        found[key] = {
            "before": interval(before_Q),
            "after": interval(after_Q),
            "rise": interval(after_Q - before_Q),
            "rise_by_seed": [float(np.nanmean(run["after"][key] - run["before"][key])) for run in runs],
        }
    single_QM = np.stack([world.single(m) for m in range(len(world.names))], axis=1)
    best = world.best_single()
    found["best_single"] = {"name": world.names[best], "reward": interval(single_QM[:, best])}
    found["oracle_single"] = interval(single_QM.max(axis=1))
    agreement = world.agreement()
    if agreement is not None:
        found["agreement"] = {"names": agreement[0], "reward": interval(agreement[1])}
    found["history"] = [run["history"] for run in runs]
    found["warm_s"] = [run["warm_s"] for run in runs]
    found["grpo_s"] = [run["grpo_s"] for run in runs]
    found["parameters"] = runs[0]["parameters"]
    return found


def main(arguments: list[str]) -> None:
    is_quick = "--quick" in arguments
    torch.set_num_threads(1)
    seeds = range(1) if is_quick else range(3)
    sizes = {"reason18": QUICK} if is_quick else SIZES
    result: dict[str, Any] = {
        "cost_weight": COST_WEIGHT,
        "sizes": {name: asdict(size) for name, size in sizes.items()},
        "tables": {},
    }
    for name, size in sizes.items():
        num_test = 40 if is_quick else 400
        world = World(name, load(name), cost_weight=COST_WEIGHT, num_test=num_test)
        runs = []
        for seed in seeds:
            with progress_bar() as progress:
                runs.append(run_seed(world, seed, size, progress=progress))
        found = result["tables"][name] = summary(world, runs)
        for key in ("reward", "valid", "quality", "calls"):
            rise = found[key]["rise"]
            print(
                f"{name} {key}: {found[key]['before']['mean']:.3f} to {found[key]['after']['mean']:.3f}, "
                f"rise {rise['mean']:+.3f} [{rise['low']:+.3f}, {rise['high']:+.3f}]"
            )
        print(f"{name} best single {found['best_single']['reward']['mean']:.3f}, "
              f"oracle of singles {found['oracle_single']['mean']:.3f}")  # fmt: skip
    if is_quick:
        with tempfile.TemporaryDirectory() as folder:
            draw(result, Path(folder) / "router_r1.png")
        return
    path = record.write("router_r1", result, seed=SEED)
    draw(result, path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
