"""This module is `turnout fit`: a table and a goal in, a deployment out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnout.cli.console import progress_bar, show, show_json
from turnout.cli.options import (
    TABLE,
    add_goal,
    add_router,
    add_splits,
    goal_of,
    parts_of,
    wanted_embedder,
    wanted_router,
)
from turnout.cli.routes_file import read_routes
from turnout.cli.whole import whole_out
from turnout.core.errors import InputError, sentence
from turnout.policies import Deployment


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("table", help=TABLE)
    parser.add_argument("--out", type=Path, required=True, help="folder for the deployment")
    add_router(parser)
    parser.add_argument(
        "--routes",
        type=Path,
        metavar="FILE",
        help="your own routes, one a line: NAME: DESCRIPTION -> CANDIDATE (router preference_routes)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the folder")
    add_goal(parser, otherwise="the best quality, whatever it costs")
    add_splits(parser)


def run(options: argparse.Namespace) -> int:
    """Fit and save; print what was promised."""
    from turnout.core.artifact import save
    from turnout.datasets import load
    from turnout.training import train

    names = "preference_routes" if options.routes else wanted_router(options.router)
    _check_routes(options)
    goal = goal_of(options)
    table, _ = parts_of(load(options.table), options)
    embedder = wanted_embedder(options.columns, table)
    with whole_out(options.out, force=options.force) as part:
        with progress_bar(quiet=options.json) as progress:
            deployment = train(
                table,
                goal,
                router=read_routes(options.routes, table.names) if options.routes else names,
                is_guarded=not options.routes,
                tasks_given=options.tasks_given,
                embedder=embedder,
                seed=options.seed,
                progress=progress,
            )
        save(deployment, part, about={"command": "turnout fit", "table": str(options.table)})
    if options.json:
        show_json({"deployment": str(options.out), **deployment.certificate})
    else:
        show_fit(deployment)
        show(f"saved       {options.out}")
    return 0


def _check_routes(options: argparse.Namespace) -> None:
    """Raise `InputError` for routes with another router, and for the router of routes without any."""
    named = options.router.strip()
    if options.routes and named not in ("auto", "preference_routes"):
        what = "--routes goes with the router 'preference_routes' alone"
        raise InputError(sentence(what, got=f"--router {named}", do="leave --router out"))
    if not options.routes and named == "preference_routes":
        what = "--router preference_routes without routes sends every text to the best average"
        raise InputError(sentence(what, allowed="a file of routes", do="add --routes FILE"))


def notes_of(about: Mapping[str, Any]) -> list[str]:
    """Return what a certificate says about the pool."""
    return [str(note) for note in about.get("notes", ())]


def show_fit(deployment: Deployment) -> None:
    """Print the certificate for people."""
    about = deployment.certificate
    plan = deployment.plan()
    show(f"router      {about['router']}{members_of(about)}")
    show(f"goal        {deployment.goal.describe()}")
    show(f"promise     {plan.text}")
    if deployment.guard is None:
        show("guard       none: routes are what you prefer, and no outcome overrules them")
    if plan.verdict is not None:
        verdict = "the router decides" if plan.is_open else f"steps aside to {about['single_for_goal']}"
        show(f"guard       {verdict} ({plan.verdict.describe()})")
    for note in notes_of(about):
        show(f"note        {note}")
    show(f"fingerprint {deployment.fingerprint}")


def members_of(about: Mapping[str, Any]) -> str:
    """Return the members of an automatic blend in brackets, the heaviest first; nothing for other routers."""
    members = about.get("auto", {}).get("members", {})
    order = sorted(members, key=lambda name: -members[name]["own"])
    return f" ({', '.join(order)})" if order else ""
