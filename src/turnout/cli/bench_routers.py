"""This module is `turnout bench routers`: every method on the same tables, splits, seeds and embeddings."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from turnout.cli.console import finite, progress_bar, show, show_json, tell
from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence

SETS = "reason18,open9"


def run_routers(options: argparse.Namespace) -> int:
    """Prepare the tables, run what is missing, and write the table and the JSON."""
    from turnout.datasets import load
    from turnout.training.bench.fight import fight
    from turnout.training.bench.prepared import prepare
    from turnout.training.bench.summary import to_text

    out = options.out or Path("turnout-routers")
    methods = method_names(options.routers)
    seed, jobs = options.seed, options.jobs or os.cpu_count() or 1
    names = split_names("--sets", options.sets or SETS)
    with progress_bar(quiet=options.json) as progress:
        places = []
        for number, text in enumerate(names):
            progress(f"prepare {text}", number, len(names))
            places.append(prepare(Path(text).name, load(text), out / "sets", seed=seed))
        total = len(places) * len(methods)
        where = "on Ray" if options.ray else f"{jobs} at a time"
        tell(f"{total} cells in {out}, {where}; stop it and it goes on there")
        cells = fight(
            places,
            methods,
            out / "cells",
            seed=seed,
            jobs=jobs,
            use_ray=options.ray,
            progress=progress,
        )
    body = finite({"seed": seed, "sets": names, "methods": list(methods), "cells": cells})
    path = out / "routers.json"
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    if options.json:
        show_json({"written": [str(path)], **body})
        return 0
    show(to_text(cells))
    show()
    show(f"written  {path}")
    return 0


def split_names(option: str, text: str) -> list[str]:
    """Return names that stand between commas, each once; none at all is refused."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(sentence(option, allowed="names with commas between", got=text))
    return names


def method_names(text: str | None) -> tuple[str, ...]:
    """Return the methods to run: all, or those named; an unknown one is refused with the nearest."""
    from turnout.training.bench.contestants import METHODS

    if text is None:
        return METHODS
    names = split_names("--routers", text)
    for name in names:
        if name not in METHODS:
            raise UnknownNameError(sentence("--routers", got=name, do=did_you_mean(name, METHODS)))
    return tuple(names)
