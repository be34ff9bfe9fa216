"""This module is `turnout config`: check a settings file, compare two, print the schema of them all."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from turnout.cli.console import show, show_json
from turnout.cli.options import add_action, add_output


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = add_action(actions, "check", "load everything that a file names, and say whether it fits")
    check.add_argument("config", type=Path, help="settings of a gateway")
    diff = add_action(actions, "diff", "say which settings differ between two files")
    diff.add_argument("before", type=Path, help="settings of a gateway")
    diff.add_argument("after", type=Path, help="other settings")
    add_action(actions, "schema", "print the JSON schema of the settings")
    for action in actions.choices.values():
        add_output(action, default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Do what the action says; `diff` returns 0 whether or not there is a difference."""
    from turnout.gateway import build_app, load_config

    if options.action == "schema":
        from turnout.gateway.config_schema import config_schema

        show(json.dumps(config_schema(), indent=1))
        return 0
    if options.action == "check":
        build_app(load_config(options.config))
        answer = {"config": str(options.config), "ok": True}
        show_json(answer) if options.json else show(f"{options.config}: ok")
        return 0
    from turnout.gateway.diff import differences

    changes = differences(load_config(options.before), load_config(options.after))
    if options.json:
        show_json({"changes": [{"key": c.key, "before": c.before, "after": c.after} for c in changes]})
        return 0
    for change in changes:
        show(f"{change}{'  (needs a restart)' if change.needs_restart else ''}")
    return 0
