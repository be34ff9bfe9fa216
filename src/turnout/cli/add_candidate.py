"""This module is `turnout add-candidate`: a deployment and probe rows in, a grown deployment out."""

from __future__ import annotations

import argparse
from pathlib import Path

from turnout.cli.console import show, show_json
from turnout.cli.options import load_deployment
from turnout.cli.whole import whole_out
from turnout.core.errors import InputError, did_you_mean, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.policies import Deployment


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("deployment", help="folder that `turnout fit` wrote")
    parser.add_argument("table", help="probe rows: a table with the newcomer's graded answers")
    parser.add_argument("--candidate", metavar="NAME", help="the newcomer, where the table holds several")
    parser.add_argument("--out", type=Path, required=True, help="folder for the grown deployment")
    parser.add_argument("--force", action="store_true", help="overwrite the folder")


def run(options: argparse.Namespace) -> int:
    """Add the newcomer and save; say for what it may be chosen."""
    from turnout.core.artifact import save
    from turnout.datasets import load

    deployment, probe = load_deployment(options.deployment), load(options.table)
    name = _newcomer(deployment, probe, options.candidate)
    about = {
        "command": "turnout add-candidate",
        "before": deployment.fingerprint,
        "table": str(options.table),
    }
    with whole_out(options.out, force=options.force) as part:
        grown = deployment.add_candidate(probe.candidates[probe.names.index(name)], probe)
        save(grown, part, about=about)
    verdict = grown.verdicts().get(name)
    may = verdict is None or verdict.is_open or grown.plan().single == len(grown.candidates) - 1
    if options.json:
        told = None if verdict is None else verdict.describe()
        show_json({"deployment": str(options.out), "candidate": name, "may_be_chosen": may, "shown": told})
        return 0
    show(f"newcomer    {name}")
    show(f"goal        {grown.goal.describe()}")
    if verdict is not None:
        show(f"shown       {'it may be chosen' if may else 'not enough to be chosen'} ({verdict.describe()})")
    show(f"promise     {grown.plan().text}")
    show(f"fingerprint {grown.fingerprint}")
    show(f"saved       {options.out}")
    return 0


def _newcomer(deployment: Deployment, probe: OutcomeTable, asked: str | None) -> str:
    """Return the name that was asked for, or that of the one candidate which the deployment lacks."""
    if asked is not None:
        if asked not in probe.names:
            raise InputError(
                sentence("--candidate is not in the table", got=asked, do=did_you_mean(asked, probe.names))
            )
        return asked
    known = {candidate.name for candidate in deployment.candidates}
    new = [name for name in probe.names if name not in known]
    if len(new) == 1:
        return new[0]
    raise InputError(
        sentence(
            "add-candidate: which candidate of the table is the newcomer",
            allowed="a table with one candidate that the deployment lacks, or --candidate NAME",
            got=", ".join(new) or "none that it lacks",
            do="name it with --candidate",
        )
    )
