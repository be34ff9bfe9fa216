"""This module is `turnout report`: pictures and pages for people, JSON for machines."""

from __future__ import annotations

import argparse
from pathlib import Path

from turnout.cli.console import progress_bar, show, show_json
from turnout.cli.options import (
    TABLE,
    add_goal,
    add_router,
    add_splits,
    goal_of,
    load_deployment,
    make_out,
    parts_of,
    router_names,
    wanted_embedder,
    wanted_router,
)
from turnout.cli.pool import check_same_pool
from turnout.core.budget import Goal


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("table", help=TABLE)
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, .png and .json")
    parser.add_argument("--deployment", help="folder that `turnout fit` wrote; without it one is fitted")
    add_router(parser)
    parser.add_argument("--also", metavar="NAMES", help="further routers to compare with (default: ridge)")
    parser.add_argument("--dense", action="store_true", help="keep the dense part of a sparse table only")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default 1000)")
    parser.add_argument(
        "--allow-leakage", action="store_true", help="report even though texts stand on both sides"
    )
    add_goal(parser, otherwise="equal quality for the least, or the best quality where no cost is known")
    add_splits(parser)


def run(options: argparse.Namespace) -> int:
    """Fit where needed, evaluate, and write the three files."""
    from turnout.core.registry import find_registry
    from turnout.datasets import load
    from turnout.evaluation import dense_part
    from turnout.training import study, train

    stated = goal_of(options)
    table = load(options.table)
    make_out(options.out)
    table = dense_part(table) if options.dense else table
    train_part, test_part = parts_of(table, options)
    others = router_names(options.also or "ridge")
    names = wanted_router(options.router)
    with progress_bar(quiet=options.json) as progress:
        if options.deployment:
            deployment = load_deployment(options.deployment)
            check_same_pool(deployment, test_part)
        else:
            goal = stated or _default_goal(table.has_costs)
            deployment = train(
                train_part,
                goal,
                router=names,
                tasks_given=options.tasks_given,
                embedder=wanted_embedder(options.columns, train_part),
                seed=options.seed,
                progress=progress,
            )
        progress("evaluate", 4, 5)
        report = study(
            deployment,
            train_part,
            test_part,
            others={name: find_registry("routers").make(name) for name in others if name != "knn"},
            num_resamples=options.resamples,
            seed=options.seed,
            leakage="allow" if options.allow_leakage else "check",
        )
    paths = {name: options.out / f"report.{name}" for name in ("html", "png", "json")}
    report.to_html(paths["html"])
    report.to_png(paths["png"])
    paths["json"].write_text(report.to_json(), encoding="utf-8")
    if options.json:
        show_json(report.to_dict())
    else:
        show(report.to_text())
        show("\n".join(f"wrote {path}" for path in paths.values()))
    return 0


def _default_goal(has_costs: bool) -> Goal:
    return Goal(quality_floor=1.0) if has_costs else Goal()
