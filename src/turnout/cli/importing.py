"""This module is `turnout import`: an outcome file in, of one's own or another project's, a table out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from turnout.cli.console import progress_bar, show, show_json
from turnout.cli.options import add_many
from turnout.cli.whole import whole_out
from turnout.core.errors import InputError, sentence


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("path", type=Path, help="file or folder to read")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    parser.add_argument(
        "--format", metavar="NAME", help="name of the format (default: the file is looked at)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the folder")
    of_file = parser.add_argument_group("options of the format (docs/datasets.md)")
    add_many(
        of_file, "--column", "FIELD=NAME", "what the column NAME of a long table holds, such as model=llm"
    )
    of_file.add_argument(
        "--scale", metavar="WORST,BEST", help="scores that become quality 0 and 1 (default 0,1)"
    )
    of_file.add_argument("--ignore", metavar="NAMES", help="columns to leave out, with commas between")
    add_many(of_file, "--drop", "COLUMN=VALUE", "rows to leave out, such as status=error")
    of_file.add_argument("--missing", metavar="WORDS", help="words that mean unknown, such as NaN,N/A")
    of_file.add_argument("--prices", metavar="FILE", help="price file, for costs from counted tokens")
    of_file.add_argument(
        "--repeats",
        choices=("error", "sample"),
        help="a second row of a query and model: refuse it (error, the default), or a further sample",
    )
    add_many(of_file, "--option", "NAME=JSON", "any other option of the format, such as as_accuracy=true")


def run(options: argparse.Namespace) -> int:
    """Convert and say what was found."""
    from turnout.datasets import detect, read

    given = importer_options(options)
    name = options.format or detect(options.path, options=given)
    with whole_out(options.out, force=options.force) as part:
        with progress_bar(quiet=options.json) as progress:
            table = read(options.path, format_name=name, options=given, progress=progress)
        table.save(part)
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


def importer_options(options: argparse.Namespace) -> dict[str, object]:
    """Return the arguments of the importer that the command line states."""
    found: dict[str, object] = {}
    if options.column:
        found["columns"] = dict(_pairs("--column", options.column, "model=llm"))
    if options.scale:
        found["scale"] = _scale(options.scale)
    if options.drop:
        drop: dict[str, list[str]] = {}
        for name, value in _pairs("--drop", options.drop, "status=error"):
            drop.setdefault(name, []).append(value)
        found["drop"] = drop
    for name in ("ignore", "missing"):
        if getattr(options, name):
            found[name] = [word.strip() for word in getattr(options, name).split(",") if word.strip()]
    for name in ("prices", "repeats"):
        if getattr(options, name):
            found[name] = getattr(options, name)
    for name, text in _pairs("--option", options.option, "as_accuracy=true"):
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _pairs(flag: str, given: Sequence[str], example: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in given]
    for text, (name, equals, value) in zip(given, pairs, strict=True):
        if not (name and equals and value):
            raise InputError(
                sentence(flag, allowed=f"two words and '=' between, such as {example}", got=text)
            )
    return [(name, value) for name, _, value in pairs]


def _scale(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(end) for end in text.split(","))
    except ValueError as error:
        raise InputError(
            sentence("--scale", allowed="two numbers with a comma between, such as 1,10", got=text)
        ) from error
