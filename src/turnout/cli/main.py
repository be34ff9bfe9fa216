"""This module is the command line: one parser, one place where errors become one sentence."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence

from turnout import __version__
from turnout.cli.options import add_output
from turnout.core.errors import TurnoutError

COMMANDS = {
    "demo": ("demo", "fit, evaluate and serve the bundled example, offline and without a key"),
    "local": ("local", "train small models here and serve them at several depths behind one dial"),
    "record": ("record", "run prompts over a pool, score the answers, and write an outcome table"),
    "fit": ("fit", "learn a deployment from an outcome table and a goal"),
    "evaluate": ("evaluate", "judge a deployment on held-out queries"),
    "report": ("report", "write a report (HTML, PNG, JSON) on a table or a deployment"),
    "add-candidate": ("add_candidate", "add a model to a deployment from some tens of graded answers"),
    "route": ("route", "decide for texts, without calling anybody"),
    "serve": ("serve", "serve an OpenAI-compatible endpoint"),
    "config": ("config", "check and compare settings of a gateway, or print their schema"),
    "ledger": ("ledger", "export what a gateway remembers, drop what is old, forget a tenant"),
    "keys": ("keys", "make, list and revoke the keys of a gateway's clients"),
    "whatif": ("whatif", "say what a ledger's requests would have cost and given at another dial"),
    "retrain": ("retrain", "learn a new deployment from a ledger's feedback, weighed by its propensities"),
    "promote": ("promote", "put a gateway's second deployment in force, if it is shown to be good enough"),
    "rollback": ("rollback", "take the last promotion of a gateway back, or end its canary"),
    "nn": ("nn", "show what the gates of a mixture-of-experts model do"),
    "bench": ("bench", "compare every router on tables, or every gate in the same small language model"),
    "import": ("importing", "make an outcome table of a file of one's own, or of another project"),
}
"""Command -> (module in turnout.cli, one-line purpose). A module has `configure` and `run`."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="turnout",
        description="The routing layer of an LLM system: who serves this, and what is that worth?",
    )
    parser.add_argument("--version", action="version", version=f"turnout {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        importlib.import_module(f"turnout.cli.{module}").configure(command)
        add_output(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for an error of turnout's, 2 for a wrong call, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character gets its escape, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(_parse(arguments))
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; texts may stand before, between and after them."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "text") or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.text = [*options.text, *rest]
    return options


def _run(options: argparse.Namespace) -> int:
    module = importlib.import_module(f"turnout.cli.{COMMANDS[options.command][0]}")
    try:
        code: int = module.run(options)
    except TurnoutError as error:
        if options.debug:
            raise
        print(f"turnout {options.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if options.debug:
            raise
        where = f" {error.filename!r}" if error.filename else ""
        what = f"the file or folder{where} cannot be used; got: {error.strerror or error}"
        print(f"turnout {options.command}: {what}; choose another path", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
