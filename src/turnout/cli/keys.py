"""This module is `turnout keys`: make, list and revoke the keys that clients of a gateway send."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnout.cli.console import show, show_json, tell
from turnout.cli.options import add_action, add_many, add_output
from turnout.core.errors import InputError, TurnoutError, did_you_mean, sentence

if TYPE_CHECKING:
    from turnout.gateway.config import Config
    from turnout.gateway.key_admin import KeyLine

_DAY_S = 86_400.0
_MAX_SHOWN = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = add_action(actions, "create", "make a key and print its secret, this once")
    create.add_argument("config", type=Path, help="settings of the gateway")
    create.add_argument("name", help="name of the key; it stands in the ledger")
    create.add_argument("--tenant", metavar="NAME", help="whose requests they are (default: the name)")
    add_many(create, "--model", "NAME", "model name that may be asked for; default: all")
    add_many(create, "--dial", "TERM", "dial that a request may set, such as quality-floor; default: all")
    create.add_argument("--no-dial", action="store_true", help="requests may set no dial")
    create.add_argument(
        "--quality-floor", type=float, metavar="SHARE", help="the key's own dial: quality floor"
    )
    create.add_argument("--usd-per-1k", type=float, metavar="USD", help="the key's own dial: spend cap")
    create.add_argument(
        "--usd-per-quality", type=float, metavar="USD", help="the key's own dial: price of quality"
    )
    create.add_argument(
        "--budget-usd", type=float, metavar="USD", help="most USD in a period (default: no limit)"
    )
    create.add_argument("--budget-period", metavar="PERIOD", help="day, month (default) or total")
    create.add_argument(
        "--requests-per-min", type=int, metavar="N", help="most requests in a minute (default: no limit)"
    )
    create.add_argument(
        "--tokens-per-min", type=int, metavar="N", help="most tokens in a minute (default: no limit)"
    )
    create.add_argument("--admin", action="store_true", help="may use /admin and /metrics")
    create.add_argument(
        "--expires-days", type=float, metavar="DAYS", help="days until it ends by itself (default: never)"
    )
    listed = add_action(actions, "list", "show every key, what it allows and what it has spent")
    listed.add_argument("config", type=Path, help="settings of the gateway")
    revoke = add_action(actions, "revoke", "end a key for good")
    revoke.add_argument("config", type=Path, help="settings of the gateway")
    revoke.add_argument("name", help="name of the key")
    add_action(actions, "hash", "read a secret from standard input and print its hash for the settings")
    for action in actions.choices.values():
        add_output(action, default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    if options.action == "hash":
        return _hash(options)
    from turnout.gateway import load_config

    config = load_config(options.config)
    work = {"create": _create, "list": _list, "revoke": _revoke}[options.action]
    asyncio.run(work(config, options))
    return 0


def _hash(options: argparse.Namespace) -> int:
    from turnout.gateway.key import digest_of

    secret = sys.stdin.readline().strip()
    if not secret:
        raise InputError(
            sentence("standard input is empty", allowed="one line, the secret", do="pipe the secret in")
        )
    digest = digest_of(secret).hex()
    show_json({"sha256": digest}) if options.json else show(digest)
    return 0


async def _create(config: Config, options: argparse.Namespace) -> None:
    from turnout.gateway.key_admin import create_key

    _check_models(config, options.model or [])
    seconds = None if options.expires_days is None else options.expires_days * _DAY_S
    secret = await create_key(config, options.name, _settings(options), expires_in_s=seconds)
    if not config.asks_for_keys:
        tell("note: the gateway asks nobody for a key until the settings have auth.required = true")
    show_json({"name": options.name, "secret": secret}) if options.json else show(secret)


def _check_models(config: Config, models: list[str]) -> None:
    """Raise `InputError` for a name that nobody may ask for; tell where that cannot be known."""
    from turnout.gateway.key_admin import model_names

    if not models:
        return
    try:
        known = model_names(config)
    except TurnoutError as error:
        tell(f"note: the names of --model are not checked, since the deployment cannot be read here; {error}")
        return
    unknown = [name for name in models if name not in known]
    if unknown:
        are_few = len(known) <= _MAX_SHOWN
        raise InputError(
            sentence(
                f"--model names {unknown[0]!r}, which the gateway does not serve",
                allowed=", ".join(known) if are_few else f"one of {len(known)} names",
                do="name one of them" if are_few else did_you_mean(unknown[0], known),
            )
        )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the section that the options describe, as it would stand in the settings."""
    names = ("tenant", "budget_usd", "budget_period", "requests_per_min", "tokens_per_min")
    section: dict[str, Any] = {name: getattr(options, name) for name in names}
    goal = {name: getattr(options, name) for name in ("quality_floor", "usd_per_1k", "usd_per_quality")}
    section["goal"] = {name: value for name, value in goal.items() if value is not None} or None
    section["models"] = options.model or None
    # As a flag and a header spell it, or as the settings do.
    dials = [term.replace("-", "_") for term in options.dial]
    section["dials"] = [] if options.no_dial else dials or None
    section["is_admin"] = options.admin or None
    return {name: value for name, value in section.items() if value is not None}


async def _list(config: Config, options: argparse.Namespace) -> None:
    from turnout.gateway.key_admin import list_keys

    lines = await list_keys(config)
    if options.json:
        show_json({"keys": [line.to_dict() for line in lines]})
        return
    if not lines:
        tell("note: there is no key; `turnout keys create` makes one")
    for line in lines:
        show(_shown(line))


def _shown(line: KeyLine) -> str:
    parts = [line.name, f"{line.hint}...", f"tenant {line.tenant}", line.state]
    if line.budget_usd is not None:
        parts.append(f"{line.spent_usd:.6g} of {line.budget_usd:g} usd spent in {line.period}")
    if line.expires_s is not None:
        parts.append(f"expires {datetime.fromtimestamp(line.expires_s, UTC):%Y-%m-%d %H:%M} UTC")
    return "  ".join(parts)


async def _revoke(config: Config, options: argparse.Namespace) -> None:
    from turnout.gateway.key_admin import revoke_key

    await revoke_key(config, options.name)
    what = f"{options.name} is revoked; running gateways notice within {config.auth.refresh_s:g} s"
    show_json({"name": options.name, "revoked": True}) if options.json else show(what)
