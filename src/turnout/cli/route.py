"""This module is `turnout route`: decide for texts, without calling anybody."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turnout.cli.console import show, show_json
from turnout.cli.options import add_goal, count, goal_of, load_deployment
from turnout.cli.texts import read_texts
from turnout.core.decision import Decision
from turnout.core.errors import InputError, sentence
from turnout.core.estimate import Estimate
from turnout.core.query import Query


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("deployment", help="folder that `turnout fit` wrote")
    parser.add_argument("text", nargs="*", help="one text or several; without any, standard input is one")
    parser.add_argument("--file", type=Path, help="read texts from a file, one a line")
    parser.add_argument("--task", help="the group the texts belong to, where it is known")
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what else is known of the texts, such as the features of an image; may be repeated",
    )
    parser.add_argument("--top", type=count, default=5, help="candidates to show for each text (default 5)")
    add_goal(parser, otherwise="the goal of the deployment")


def run(options: argparse.Namespace) -> int:
    """Print a decision for each text, as the gateway would take it; 1 where nobody may serve one of them."""
    from turnout.gateway.caps import check_cap
    from turnout.gateway.wire import estimate_tokens
    from turnout.policies.masks import obstacles

    goal = goal_of(options)
    deployment = load_deployment(options.deployment)
    texts = read_texts(options)
    if goal is not None:
        check_cap(deployment, goal, "--usd-per-1k")
    tags = tags_of(options.tag)
    queries = [
        Query(id=str(row), text=text, task=options.task, input_tokens=estimate_tokens(len(text)), tags=tags)
        for row, text in enumerate(texts)
    ]
    decisions, estimate = deployment.consider(queries, goal=goal)
    rows = [
        {
            **_row(decisions[row], estimate.rows([row]), options.top),
            "refused": dict(obstacles(query, deployment.candidates)),
        }
        for row, query in enumerate(queries)
    ]
    if options.json:
        show_json({"promise": deployment.plan(goal).text, "decisions": rows})
    else:
        for text, row in zip(texts, rows, strict=True):
            _show_row(text, row)
    return 1 if any(row["candidate"] is None for row in rows) else 0


def tags_of(given: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=VALUE`, one each; raises `InputError` for another form and for a name that comes twice."""
    tags: dict[str, str] = {}
    for text in given:
        name, has_value, value = text.partition("=")
        if not has_value or not name.strip() or name.strip() in tags:
            raise InputError(sentence("--tag", allowed="NAME=VALUE, each name once", got=text))
        tags[name.strip()] = value
    return tags


def _row(decision: Decision, estimate: Estimate, top: int) -> dict[str, Any]:
    column = {name: index for index, name in enumerate(estimate.names)}
    ranked = [
        {
            "candidate": candidate.name,
            "quality": float(estimate.quality_QM[0, column[candidate.name]]),
            "spread": float(estimate.spread_QM[0, column[candidate.name]]),
            "cost_usd": float(estimate.cost_usd_QM[0, column[candidate.name]]),
        }
        for candidate in decision.ranked[:top]
    ]
    return {
        "candidate": None if decision.candidate is None else decision.candidate.name,
        "reason": decision.reason,
        "propensity": decision.propensity,
        "price": decision.price,
        "fingerprint": decision.fingerprint,
        "ranked": ranked,
    }


def _show_row(text: str, row: dict[str, Any]) -> None:
    first = text.strip().splitlines()[0]
    show(f"{first[:76]}{'...' if len(first) > 76 else ''}")
    for name, why in row["refused"].items():
        show(f"     {name} may not serve: {why}")
    if row["candidate"] is None:
        show("  -> nobody may serve this text")
        return
    show(f"  -> {row['candidate']}  ({row['reason']}; price {row['price']:.4g} quality/usd)")
    for item in row["ranked"]:
        usd = "unknown" if math.isnan(item["cost_usd"]) else f"{item['cost_usd'] * 1000:.4g}"
        quality = f"{item['quality']:.3f} +- {item['spread']:.3f}"
        show(f"     {item['candidate']:<36} quality {quality}   usd/1k {usd}")
