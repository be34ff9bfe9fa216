"""This module is `turnout evaluate`: a deployment and a table in, an honest comparison out."""

from __future__ import annotations

import argparse

from turnout.cli.console import show, show_json, tell
from turnout.cli.options import add_splits, load_deployment, parts_of
from turnout.cli.pool import check_same_pool


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("deployment", help="folder that `turnout fit` wrote")
    parser.add_argument("table", help="the table it was fitted from, or another with the same candidates")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default 1000)")
    parser.add_argument(
        "--allow-leakage", action="store_true", help="report even though texts stand on both sides"
    )
    add_splits(parser)


def run(options: argparse.Namespace) -> int:
    """Print the comparison with every baseline."""
    from turnout.datasets import load
    from turnout.training import study

    deployment = load_deployment(options.deployment)
    train, test = parts_of(load(options.table), options)
    check_same_pool(deployment, test)
    report = study(
        deployment,
        train,
        test,
        num_resamples=options.resamples,
        seed=options.seed,
        leakage="allow" if options.allow_leakage else "check",
    )
    fitted_on = deployment.certificate.get("table", {})
    if isinstance(fitted_on, dict) and fitted_on.get("fingerprint") != train.fingerprint:
        tell("note: the deployment was fitted on another table than this training split")
    if options.json:
        show_json(report.to_dict())
    else:
        show(report.to_text())
    return 0
