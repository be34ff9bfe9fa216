"""This module is `turnout whatif`: what a ledger's requests would have cost and given at another dial."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli.console import show, show_json
from turnout.cli.options import add_many, deployment_of
from turnout.core.budget import Goal
from turnout.core.errors import InputError, sentence

if TYPE_CHECKING:
    from turnout.evaluation.offpolicy import OffPolicyValue
    from turnout.gateway.whatif import Outlook, WhatIf

_TERMS = ("quality-floor", "usd-per-1k", "usd-per-quality")
_DEFAULT = ("quality-floor=0.8", "quality-floor=0.9", "quality-floor=0.95", "quality-floor=1.0")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("config", type=Path, help="TOML file of the gateway whose ledger is asked")
    terms = (
        f"a dial to look at, such as quality-floor=0.9; terms: {', '.join(_TERMS)}; "
        "default: floors of 0.8, 0.9, 0.95 and 1"
    )
    add_many(parser, "--dial", "TERM=VALUE", terms)
    parser.add_argument("--days", type=float, default=7.0, help="how far back to look (default 7)")


def run(options: argparse.Namespace) -> int:
    """Print a table: as it was, then each dial."""
    from turnout.gateway import load_config
    from turnout.gateway.whatif import what_if

    goals = [_goal(text) for text in options.dial or _DEFAULT]
    config = load_config(options.config)
    since_s = time.time() - options.days * 86_400
    deployment = deployment_of(config)
    found = what_if(config.ledger.path, deployment, goals, url=config.shared.central, since_s=since_s)
    if options.json:
        show_json(asdict(found))
    else:
        _show(found)
    return 0


def _goal(text: str) -> Goal:
    term, _, value = text.partition("=")
    try:
        if term not in _TERMS:
            raise ValueError(term)
        return Goal(**{term.replace("-", "_"): float(value)})
    except InputError:
        raise
    except ValueError as error:
        allowed = "a term and a number, such as quality-floor=0.9 or usd-per-1k=2"
        raise InputError(
            sentence("--dial is wrong", allowed=allowed, got=text, do=f"use one of {', '.join(_TERMS)}")
        ) from error


def _show(found: WhatIf) -> None:
    whose = " of all hosts" if found.whose == "all hosts" else ""
    requests = f"{found.num_requests:,} {'request' if found.num_requests == 1 else 'requests'}"
    show(f"{requests}{whose}, {found.num_scored:,} of them with feedback")
    show(f"{'dial':<52} {'usd per 1,000':>24} {'quality':>8} {'feedback':>22} {'changed':>8}")
    for outlook in found.outlooks:
        show(
            f"{outlook.goal[:52]:<52} {_range(outlook.usd, 1000.0):>24} {outlook.expected_quality:>8.3f} "
            f"{_range(outlook.feedback):>22} {outlook.changed:>8.0%}"
        )
    show("quality: as the router expects it; feedback: what users would have said, from those who did")
    if any(_is_unsupported(outlook) for outlook in found.outlooks):
        show(
            "note: the log never tried some of these choices, so that their part rests on the router's "
            "expectation, which no interval covers"
        )


def _is_unsupported(outlook: Outlook) -> bool:
    return outlook.support < 1.0


def _range(value: OffPolicyValue | None, factor: float = 1.0) -> str:
    if value is None:
        return "-"
    mean, low, high = (number * factor for number in (value.mean, value.low, value.high))
    if not math.isfinite(high - low):
        return f"{mean:.4g} [too few]"
    return f"{mean:.4g} [{low:.4g}, {high:.4g}]"
