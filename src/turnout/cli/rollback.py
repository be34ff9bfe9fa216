"""This module is `turnout rollback`: take the last promotion back, or end a canary."""

from __future__ import annotations

import argparse

from turnout.cli.admin_call import add_gateway, admin_call
from turnout.cli.promote import offline, show_switch


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_gateway(parser)


def run(options: argparse.Namespace) -> int:
    """Roll back at once; nothing is asked."""
    from turnout.gateway import load_config
    from turnout.gateway.promote import rollback

    config = load_config(options.config)
    told = admin_call(options, config, "/admin/rollback")
    if told is None:
        switch = rollback(options.config, config.ledger.path, config.shared.central)
        told = offline(config, switch, is_forced=False, evidence=None)
    show_switch(told, as_json=options.json)
    return 0
