"""This module is `turnout nn`: what the gates of a mixture-of-experts model do."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli.console import finite, progress_bar, show, show_json
from turnout.cli.options import check_out, seed
from turnout.core.errors import InputError, MissingExtraError, sentence
from turnout.core.rng import make_rng

if TYPE_CHECKING:
    from turnout.nn.analysis.inspection import Inspection


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("action", choices=("inspect",), help="inspect: tables, pictures and an HTML page")
    parser.add_argument(
        "file",
        type=Path,
        help="a recording (.safetensors) or a table of counts by model, domain, layer, expert (.parquet)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("turnout-inspect"), help="folder (default turnout-inspect)"
    )
    parser.add_argument("--rho", type=float, default=2.0, help="cache of rho times k experts (default 2)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the intervals (default 0)")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def run(options: argparse.Namespace) -> int:
    """Read, inspect, write."""
    try:
        from turnout.nn.analysis.page import render
        from turnout.nn.analysis.pictures import draw
    except ImportError as error:
        raise MissingExtraError(
            sentence(
                "turnout nn reads tensors",
                allowed="an installation with the extra 'nn'",
                got=str(error),
                do="pip install 'turnout[nn]'",
            )
        ) from error
    if not options.file.is_file():
        raise InputError(sentence("file", allowed="a file that exists", got=str(options.file)))
    check_out(options.out, force=options.force)
    found = _inspect(options)
    paths = [options.out / "report.html", options.out / "report.json"]
    paths[0].write_text(render(found, source=options.file.name), encoding="utf-8")
    body = finite([inspection.to_dict() for inspection in found])
    paths[1].write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    for stem, inspection in zip(file_names([one.name for one in found]), found, strict=True):
        paths.append(options.out / f"{stem}.png")
        paths[-1].write_bytes(draw(inspection))
    if options.json:
        show_json({"written": [str(path) for path in paths], "models": body})
        return 0
    show("\n\n".join(inspection.to_text() for inspection in found))
    show()
    for path in paths:
        show(f"written  {path}")
    return 0


def file_names(names: Sequence[str]) -> list[str]:
    """Return a file's name, without its end, for each name: no two alike, and none that leaves its folder.

    A model's name may hold anything: a slash as on the Hub, dots, or nothing. Letters and digits stay.
    """
    found: list[str] = []
    taken = set()
    for name in names:
        stem = re.sub(r"[^\w.-]+", "-", name)[:80].strip(".-") or "model"
        tries = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        found.append(next(one for one in tries if one.casefold() not in taken))
        taken.add(found[-1].casefold())
    return found


def _inspect(options: argparse.Namespace) -> list[Inspection]:
    from turnout.nn.analysis.counts import read_counts
    from turnout.nn.analysis.inspection import inspect_counts, inspect_recording
    from turnout.nn.analysis.routings import read_recording

    if options.file.suffix == ".parquet":
        return inspect_counts(read_counts(options.file))
    recording = read_recording(options.file)
    rng = make_rng(options.seed, "inspect")
    with progress_bar(quiet=options.json) as progress:
        name = options.file.stem
        return [inspect_recording(recording, name=name, rng=rng, rho=options.rho, progress=progress)]
