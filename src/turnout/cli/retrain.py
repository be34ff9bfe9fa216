"""This module is `turnout retrain`: a gateway's ledger in, a deployment learned from its feedback out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from turnout.cli.console import progress_bar, show, show_json
from turnout.cli.fit import show_fit
from turnout.cli.options import add_goal, count, deployment_of, goal_of, router_names, seed
from turnout.cli.whole import whole_out
from turnout.core.errors import InputError, sentence

if TYPE_CHECKING:
    from turnout.gateway.config import Config


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("config", type=Path, help="TOML file of the gateway whose ledger is learned from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new deployment")
    parser.add_argument("--router", default="auto", metavar="NAME", help="auto (default), or one router")
    parser.add_argument("--days", type=float, default=90.0, help="how far back to look (default 90)")
    parser.add_argument("--source", metavar="NAME", help="use the feedback of this source only")
    parser.add_argument(
        "--min-scored", type=count, default=200, help="scored requests by chance that it takes (default 200)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the folder")
    parser.add_argument("--seed", type=seed, default=0, help="seed of every random step (default 0)")
    add_goal(parser, otherwise="the goal of the gateway")


def run(options: argparse.Namespace) -> int:
    """Learn and save; print what was promised, and from how much."""
    import numpy as np

    from turnout.core.artifact import save
    from turnout.datasets import read
    from turnout.gateway import load_config
    from turnout.gateway.prices import prices_of
    from turnout.training import retrain

    config = load_config(options.config)
    before = deployment_of(config)
    goal = goal_of(options) or (before.goal if config.goal is None else config.goal.goal())
    since_s = time.time() - options.days * 86_400
    with ledger_of(config, since_s) as path:
        ledger = read(path, format_name="ledger", options={"source": options.source})
    recent_Q = np.zeros(len(ledger.queries), np.bool_)
    recent_Q[ledger.query_index] = np.array(ledger.extras["time_s"], dtype=float) >= since_s
    if not recent_Q.any():
        raise InputError(
            sentence(f"the ledger has no answer of the last {options.days:g} days", do="raise --days")
        )
    # The settings' prices are in force, and charge rows that were served before they were known.
    prices = prices_of(config, before.candidates, ())
    pool = before.candidates if prices is None else tuple(map(prices.priced, before.candidates))
    if goal.dial is not None and not ledger.has_costs and all(one.price_card is None for one in pool):
        raise InputError(
            sentence(
                f"the goal of {goal.describe()} speaks of money, and the ledger knows no price",
                do="name the prices in the settings (prices.path)",
            )
        )
    router = "auto" if options.router == "auto" else _one(router_names(options.router))
    about = {"command": "turnout retrain", "ledger": str(config.ledger.path), "before": before.fingerprint}
    with whole_out(options.out, force=options.force) as part:
        with progress_bar(quiet=options.json) as progress:
            deployment = retrain(
                ledger.where(recent_Q),
                goal,
                candidates=pool,
                router=router,
                min_scored=options.min_scored,
                seed=options.seed,
                progress=progress,
            )
        save(deployment, part, about=about)
    if options.json:
        show_json({"deployment": str(options.out), **deployment.certificate})
        return 0
    told = deployment.certificate["log"]
    assert isinstance(told, dict)
    show(f"learned     from {told['scored']} scored requests, {told['by_chance']} of them chosen by chance")
    show_fit(deployment)
    show(f"saved       {options.out}")
    return 0


@contextmanager
def ledger_of(config: Config, since_s: float) -> Iterator[Path]:
    """Yield the gateway's own ledger, or a copy of the rows of all hosts where they share a PostgreSQL."""
    from turnout.gateway.central_admin import pull

    url = config.shared.central
    if url is None:
        yield Path(config.ledger.path)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "all.sqlite")
        pull(url, path, since_s=since_s)
        yield path


def _one(names: tuple[str, ...]) -> str:
    if len(names) > 1:
        allowed = "auto, or the name of one router"
        raise InputError(sentence("--router names several", allowed=allowed, got=", ".join(names)))
    return names[0]
