"""This module is `turnout bench`: gates in a small language model, or routers on tables, on equal terms."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli.bench_routers import run_routers
from turnout.cli.console import finite, progress_bar, show, show_json, tell
from turnout.cli.options import count, seed
from turnout.core.errors import InputError, MissingExtraError, sentence

if TYPE_CHECKING:
    from turnout.nn.bench.setting import Setting

TEXT_PLACE = Path("corpora") / "text"
"""Where text lies below TURNOUT_DATA."""
_OTHERS = {"gates": ("sets", "routers", "ray"), "routers": ("gates", "seeds", "steps", "text")}
"""What is compared -> options that say something about the other kind alone."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "what",
        choices=("gates", "routers"),
        help="gates: the same small language model with each gate; routers: every method on outcome tables",
    )
    sizes = ("small", "all", "full", "gpu")
    parser.add_argument("--setting", choices=sizes, default="small", help="size (default small)")
    parser.add_argument("--gates", help="names with commas between (default: those of the setting)")
    parser.add_argument(
        "--seeds", type=count, help="training runs of each gate, 2 to 10 (default: those of the setting)"
    )
    parser.add_argument("--steps", type=count, help="training steps (default: those of the setting)")
    parser.add_argument("--text", type=Path, help="folder of .txt files (default: TURNOUT_DATA, or made up)")
    parser.add_argument(
        "--out", type=Path, help="folder; a run goes on in it (default turnout-gates or turnout-routers)"
    )
    parser.add_argument("--jobs", type=count, help="cells at a time, one thread each (default: the cores)")
    parser.add_argument("--sets", metavar="NAMES", help="outcome tables (routers; default: reason18,open9)")
    parser.add_argument("--routers", metavar="NAMES", help="methods (routers; default: all)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of every random step (routers; default 0)")
    parser.add_argument("--ray", action="store_true", help="cells on Ray, a cluster or a local one (routers)")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda with one cell at a time (default cpu)")


def run(options: argparse.Namespace) -> int:
    """Run what is missing, then write the table, the JSON and the picture."""
    for name in _OTHERS[options.what]:
        if getattr(options, name):
            raise InputError(sentence(f"--{name} is not for turnout bench {options.what}", do="leave it out"))
    if options.what == "routers":
        return run_routers(options)
    return run_gates(options)


def run_gates(options: argparse.Namespace) -> int:
    """Train what is missing, then write the table, the JSON and the picture."""
    out = options.out or Path("turnout-gates")
    try:
        from turnout.nn.bench.corpus import load_corpus
        from turnout.nn.bench.fight import fight
        from turnout.nn.bench.picture import draw
        from turnout.nn.bench.summary import summarise, to_json, to_text
    except ImportError as error:
        raise MissingExtraError(
            sentence(
                "turnout bench trains models",
                allowed="an installation with the extra 'nn'",
                got=str(error),
                do="pip install 'turnout[nn]'",
            )
        ) from error
    setting, text = _setting(options), _text(options)
    jobs = 1 if options.device != "cpu" else options.jobs or os.cpu_count() or 1
    corpus = load_corpus(text)
    tell(f"{len(setting.cells())} cells in {out}, {jobs} at a time; stop it and it goes on there")
    try:
        with progress_bar(quiet=options.json) as progress:
            fought = fight(
                setting, out / "cells", text=text, jobs=jobs, device=options.device, progress=progress
            )
    except KeyboardInterrupt:
        done = len(list((out / "cells").glob("*.json")))
        tell(f"stopped with {done} cells done in {out}; the same command goes on there")
        raise
    cells = fought.cells
    rows = summarise(cells, clock="cpu" if options.device == "cpu" else "wall")
    body = finite(to_json(setting, corpus.name, rows, cells, run=fought.run()))
    paths = [out / "gates.json", out / "gates.png"]
    paths[0].write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    paths[1].write_bytes(draw(rows, f"{setting.name}: {corpus.name}, {setting.seeds} seeds, 95 % intervals"))
    if options.json:
        show_json({"written": [str(path) for path in paths], **body})
        return 0
    show(to_text(setting, corpus.name, rows))
    show()
    minutes = f"{fought.wall_s / 60:.1f} minutes, {fought.jobs} at a time"
    show(f"{fought.trained} of {len(cells)} cells trained in {minutes}")
    for path in paths:
        show(f"written  {path}")
    return 0


def _setting(options: argparse.Namespace) -> Setting:
    from turnout.nn.bench.contenders import CONTROLS
    from turnout.nn.bench.setting import SETTINGS

    setting = SETTINGS[options.setting]
    if options.gates:
        named = [name.strip() for name in options.gates.split(",")]
        setting = replace(setting, contenders=tuple(dict.fromkeys([*CONTROLS, *named])))
    changes = {name: getattr(options, name) for name in ("seeds", "steps") if getattr(options, name)}
    return replace(setting, **changes)


def _text(options: argparse.Namespace) -> Path | None:
    if options.text is not None:
        text: Path = options.text
        return text
    data = os.environ.get("TURNOUT_DATA")
    place = Path(data) / TEXT_PLACE if data else None
    return place if place is not None and place.is_dir() else None
