"""This module is `turnout promote`: put a gateway's second deployment in the place of the one in force."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from turnout.cli.admin_call import add_gateway, admin_call
from turnout.cli.console import show, show_json, tell
from turnout.cli.options import deployment_of, load_deployment
from turnout.core.errors import InputError

if TYPE_CHECKING:
    from turnout.gateway.compare import Comparison
    from turnout.gateway.config import Config
    from turnout.gateway.promote import Switch


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_gateway(parser)
    parser.add_argument(
        "--check", action="store_true", help="compare and say what speaks against it; no more"
    )
    parser.add_argument("--force", action="store_true", help="promote whatever the comparison says")
    parser.add_argument("--days", type=float, default=30.0, help="how far back --check compares (default 30)")


def run(options: argparse.Namespace) -> int:
    """Promote; with --check print the comparison, and return 1 where something speaks against it."""
    from turnout.gateway import load_config
    from turnout.gateway.compare import objections
    from turnout.gateway.promote import check_promotion, no_rollout, promotion

    config = load_config(options.config)
    if config.rollout is None:
        raise no_rollout()
    if options.check:
        found = compared(config, options.days)
        said = objections(found, config.rollout)
        show_comparison(found, said, as_json=options.json)
        return 1 if said else 0
    told = admin_call(options, config, f"/admin/promote{'?force' if options.force else ''}")
    if told is None:
        found = compared(config, options.days)
        if not options.force:
            check_promotion(found, config.rollout)
        told = offline(config, promotion(options.config), is_forced=options.force, evidence=found)
    show_switch(told, as_json=options.json)
    return 0


def compared(config: Config, days: float) -> Comparison:
    """Compare the two deployments on the ledger."""
    from turnout.gateway.compare import compare

    assert config.rollout is not None
    return compare(
        config.ledger.path,
        deployment_of(config).fingerprint,
        load_deployment(config.rollout.deployment).fingerprint,
        url=config.shared.central,
        confidence=config.rollout.confidence,
        since_s=time.time() - days * 86_400,
    )


def offline(
    config: Config, switch: Switch, *, is_forced: bool, evidence: Comparison | None
) -> dict[str, Any]:
    """Switch where no gateway runs: the file, and the ledger's row; the next start reads them."""
    from turnout.gateway.promote import note_switch
    from turnout.gateway.rollout_admin import switched

    folder = switch.path.parent
    fingerprints = (
        load_deployment(folder / switch.before).fingerprint,
        load_deployment(folder / switch.after).fingerprint,
    )
    note_switch(
        config.ledger.path,
        switch,
        action=switch.action,
        now_s=time.time(),
        fingerprints=fingerprints,
        is_forced=is_forced,
        who=None,
        evidence=evidence,
        is_shared=config.shared.postgres is not None,
    )
    switch.apply()
    tell("note: the settings were changed, and hold from the gateway's next start or reload")
    return switched(switch, fingerprints)


def show_switch(told: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what was switched."""
    if as_json:
        show_json(told)
        return
    before, after = told["before"], told["after"]
    if told["action"] == "stop_canary":
        show(f"the canary is over; {before['deployment']} ({before['fingerprint']}) serves everybody")
        return
    show(f"in force    {after['deployment']} ({after['fingerprint']})")
    show(f"before      {before['deployment']} ({before['fingerprint']})")


def show_comparison(found: Comparison, said: list[str], *, as_json: bool) -> None:
    """Print both sides and what speaks against a promotion."""
    import msgspec

    if as_json:
        show_json({"comparison": msgspec.to_builtins(found), "objections": said})
        return
    if not found.requests:
        raise InputError("no request was decided by both deployments; let the second one decide for a while")
    show(f"live        {found.live}")
    show(f"second      {found.second}")
    whose = ", of all hosts" if found.whose == "all hosts" else ""
    show(f"requests    {found.requests:,} decided by both, {found.scored:,} with feedback{whose}")
    show(f"changed     {found.changed:.0%} of the choices")
    bounds = f"each at {found.confidence:.0%}"
    for name, value, factor, unit in (
        ("feedback", found.quality, 1.0, ""),
        ("cost", found.usd, 1000.0, " usd per 1,000"),
        ("failures", found.failures, 1.0, ""),
    ):
        if value is not None:
            low, mean, high = (number * factor for number in (value.low, value.mean, value.high))
            show(f"{name:<11} {mean:+.4g}{unit}, at least {low:+.4g}, at most {high:+.4g} ({bounds})")
    for one in said:
        show(f"against it  {one}")
    if not said:
        show("nothing speaks against a promotion")
