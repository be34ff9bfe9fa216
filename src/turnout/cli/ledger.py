"""This module is `turnout ledger`: export what a gateway remembers, drop what is old, forget a tenant."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

from turnout.cli.console import show, show_json
from turnout.cli.options import add_action, add_output
from turnout.core.errors import InputError, sentence

_DAY_S = 86_400.0
_POSTGRES = "a PostgreSQL: its URL, env:NAME or file:PATH"
_PREFIXES = ("postgres:", "postgresql:", "env:", "file:")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    export = add_action(actions, "export", "write one row per request to a parquet or CSV file")
    export.add_argument("ledger", type=Path, help="SQLite file of a gateway")
    export.add_argument("out", type=Path, help="file that ends in .parquet or .csv")
    export.add_argument("--since", metavar="DAY", help="first day, such as 2026-11-01 (UTC)")
    export.add_argument("--tenant", metavar="NAME", help="requests of this tenant only")
    prune = add_action(actions, "prune", "delete requests that are older than some days")
    prune.add_argument("ledger", help=f"SQLite file of a gateway, or {_POSTGRES}")
    prune.add_argument("--keep-days", type=float, metavar="DAYS", required=True, help="days that are kept")
    forget = add_action(actions, "forget", "delete everything that belongs to a tenant")
    forget.add_argument("ledger", help=f"SQLite file of a gateway, or {_POSTGRES}")
    forget.add_argument("tenant", help="tenant, as the column `tenant` has it")
    pull = add_action(actions, "pull", "copy the rows of all hosts into a ledger's file")
    pull.add_argument("postgres", help=_POSTGRES)
    pull.add_argument("ledger", type=Path, help="SQLite file; what it has already stays")
    pull.add_argument("--since", metavar="DAY", help="first day, such as 2026-11-01 (UTC)")
    for action in actions.choices.values():
        add_output(action, default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    from turnout.gateway import central_admin, ledger_admin

    if options.action == "export":
        since_s = None if options.since is None else _day(options.since)
        count = ledger_admin.export(options.ledger, options.out, since_s=since_s, tenant=options.tenant)
        words = f"{count} requests written to {options.out}"
    elif options.action == "prune":
        if not options.keep_days >= 0:
            what = "--keep-days"
            raise InputError(sentence(what, allowed="0 or more", got=options.keep_days, do="change it"))
        before_s = time.time() - options.keep_days * _DAY_S
        url = _url(options.ledger)
        if url is None:
            count = ledger_admin.prune(options.ledger, before_s=before_s)
        else:
            count = central_admin.prune(url, before_s=before_s)
        words = f"{count} requests deleted"
    elif options.action == "pull":
        since_s = None if options.since is None else _day(options.since)
        url = _url(options.postgres)
        if url is None:
            what, do = "the PostgreSQL", "write its URL, or where it stands"
            raise InputError(sentence(what, allowed=_POSTGRES, got=options.postgres, do=do))
        count = central_admin.pull(url, options.ledger, since_s=since_s)
        words = f"{count} new requests in {options.ledger}"
    else:
        url = _url(options.ledger)
        count = (ledger_admin if url is None else central_admin).forget(url or options.ledger, options.tenant)
        words = f"{count} requests of {options.tenant!r} deleted"
    show_json({"requests": count}) if options.json else show(words)
    return 0


def _url(text: str) -> str | None:
    """Return the URL of a PostgreSQL that an argument is or names; None for a file."""
    from turnout.gateway.settings_shared import read_url

    return read_url(text, "the PostgreSQL") if text.startswith(_PREFIXES) else None


def _day(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        what = "--since"
        raise InputError(sentence(what, allowed="a day as 2026-11-01", got=text, do="change it")) from error
