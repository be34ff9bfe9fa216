"""This module is `turnout import`: another project's outcome file in, an outcome table out."""

from __future__ import annotations

import argparse
from pathlib import Path

from turnout.cli.console import show, show_json
from turnout.cli.options import check_out


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("path", type=Path, help="file or folder to read")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument("--format", help="name of the format; without it the file is looked at")
    parser.add_argument("--force", action="store_true", help="overwrite the folder")


def run(options: argparse.Namespace) -> int:
    """Convert and say what was found."""
    from turnout.datasets import detect, read

    name = options.format or detect(options.path)
    check_out(options.out, force=options.force)
    table = read(options.path, format_name=name)
    table.save(options.out)
    about = {
        "format": name,
        "out": str(options.out),
        "queries": len(table.queries),
        "candidates": list(table.names),
        "rows": table.num_rows,
        "observed_share": float(table.observed_QM.mean()),
        "has_costs": table.has_costs,
        "fingerprint": table.fingerprint,
    }
    if options.json:
        show_json(about)
        return 0
    show(f"read        {options.path} as {name}")
    show(f"table       {about['queries']} queries x {len(table.names)} candidates, {table.num_rows} rows")
    costs = "known" if table.has_costs else "unknown"
    show(f"observed    {about['observed_share']:.1%} of the cells; costs {costs}")
    show(f"saved       {options.out}   fingerprint {table.fingerprint}")
    return 0
