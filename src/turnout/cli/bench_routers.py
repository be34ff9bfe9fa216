"""This module is `turnout bench routers`: every method on the same tables, splits, seeds and embeddings."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from turnout.cli.console import finite, progress_bar, show, show_json, tell
from turnout.cli.origin import origin
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
    about = origin(command_of(options))
    tables = {}
    places_of = place_names(names)
    with progress_bar(quiet=options.json) as progress:
        places = []
        for number, text in enumerate(names):
            progress(f"prepare {text}", number, len(names))
            table = load(text)
            tables[text] = table.fingerprint
            places.append(prepare(places_of[text], table, out / "sets", seed=seed))
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
            about={name: about[name] for name in ("turnout", "commit", "time")},
            progress=progress,
        )
    what = {"seed": seed, "sets": names, "tables": tables, "methods": list(methods)}
    body = finite({**about, **what, "cells": cells})
    path = out / "routers.json"
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    if options.json:
        show_json({"written": [str(path)], **body})
        return 0
    show(to_text(cells))
    show()
    show(f"written  {path}")
    return 0


def command_of(options: argparse.Namespace) -> list[str]:
    """Return the words of the call that bear on its numbers; the folder and the jobs do not."""
    words = ["bench", "routers", "--sets", options.sets or SETS]
    if options.routers:
        words += ["--routers", options.routers]
    return [*words, "--seed", str(options.seed)]


def place_names(texts: Sequence[str]) -> dict[str, str]:
    """Return a name for each table: the last part of its path, or all parts where another ends alike."""
    lasts = Counter(Path(text).name for text in texts)
    found: dict[str, str] = {}
    for text in texts:
        path = Path(text)
        name = path.name if lasts[path.name] == 1 else "-".join(p for p in path.parts if p != path.anchor)
        found[text] = next(
            made for n in count(1) if (made := name if n == 1 else f"{name}-{n}") not in found.values()
        )
    return found


def split_names(option: str, text: str) -> list[str]:
    """Return names that stand between commas, each once; none at all is refused."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(sentence(option, allowed="names with commas between", got=text))
    return names


def method_names(text: str | None) -> tuple[str, ...]:
    """Return the methods to run: all, or those named; an unknown one is refused with the nearest."""
    from turnout.routers import registry
    from turnout.training.bench.contestants import METHODS
    from turnout.training.bench.told import told

    if text is None:
        return METHODS
    names = split_names("--routers", text)
    known = dict.fromkeys([*METHODS, *map(told, registry)])
    for name in names:
        if name not in known:
            raise UnknownNameError(sentence("--routers", got=name, do=did_you_mean(name, known)))
    return tuple(names)
