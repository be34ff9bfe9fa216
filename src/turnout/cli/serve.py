"""This module is `turnout serve`: an OpenAI-compatible endpoint from a configuration file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from turnout.cli.console import show, show_json, tell
from turnout.cli.options import count


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("config", type=Path, help="TOML file; docs/config.md has every setting")
    parser.add_argument("--workers", type=count, default=1, help="processes that share the port (default 1)")
    parser.add_argument("--check", action="store_true", help="load what the configuration names, and stop")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then drain."""
    from turnout.gateway import build_app, load_config, serve

    if options.check:
        from turnout.gateway.ledger_check import check_ledger

        check_ledger(build_app(load_config(options.config)).parts.ledger.path)
        show(f"{options.config}: ok") if not options.json else show_json(
            {"config": str(options.config), "ok": True}
        )
        return 0

    def ready(info: Any) -> None:
        for notice in info.notices:
            tell(f"note: {notice}")
        if options.json:
            show_json({"base_url": info.base_url, "notices": info.notices})
        else:
            show(f"turnout serves {info.base_url} (Ctrl-C stops)")

    serve(options.config, ready=ready, workers=options.workers)
    return 0
