"""This module records `turnout bench gates`: six gates and the controls on equal terms, or all gates.

    TURNOUT_DATA=<data> python -m benchmarks.bench_gates [--setting all] [--folder DIR] [--jobs N]
        [--gates A,B] [--seeds N] [--result NAME]
    python -m benchmarks.bench_gates --redraw

The text is that of corpora/text below TURNOUT_DATA; without it the made-up text is taken. Cells that stand in
the folder are not trained again: the JSON's `run` says how many this call trained and how long it took.
`--setting all` trains all gates at the size of `small`, for gates_all.json. With `--gates` others take
part, beside dense and `top_k`; with `--seeds` each is trained more often; `--result` names the file of such a
table. `--redraw` trains nothing: it draws the pictures of all recorded tables again, from their JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import record
from turnout.core.errors import InputError, sentence
from turnout.nn.bench.corpus import load_corpus
from turnout.nn.bench.fight import fight
from turnout.nn.bench.picture import draw
from turnout.nn.bench.setting import SETTINGS
from turnout.nn.bench.summary import summarise, to_json, to_text


def main() -> None:
    """Run what is missing, then write gates.json and gates.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small")
    parser.add_argument("--folder", type=Path, help="where cells are kept (default: a new one)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--gates", help="names, separated by commas (default: those of the setting)")
    parser.add_argument("--seeds", type=int, help="runs of each gate (default: those of the setting)")
    parser.add_argument("--result", help="name of the result (default: gates, or gates_SETTING)")
    parser.add_argument("--redraw", action="store_true", help="draw the recorded tables again")
    options = parser.parse_args()
    if options.redraw:
        redraw()
        return
    setting = SETTINGS[options.setting]
    if options.gates:
        if not options.result:
            parser.error("--gates needs --result: another table has another name")
        setting = replace(setting, contenders=("dense", "top_k", *options.gates.split(",")))
    if options.seeds:
        if not options.result:
            parser.error("--seeds needs --result: another table has another name")
        setting = replace(setting, seeds=options.seeds)
    data = os.environ.get("TURNOUT_DATA")
    text = Path(data) / "corpora" / "text" if data else None
    if text is not None and not text.is_dir():
        raise InputError(sentence("TURNOUT_DATA", allowed="a folder with corpora/text", got=data))
    folder = options.folder or Path(tempfile.mkdtemp())
    corpus = load_corpus(text)
    fought = fight(setting, folder, text=text, jobs=options.jobs, about={"commit": record.commit()})
    cells = fought.cells
    rows = summarise(cells)
    name = options.result or ("gates" if setting.name == "small" else f"gates_{setting.name}")
    body = to_json(setting, corpus.name, rows, cells, run=fought.run())
    record.write(name, {**body, "fingerprint": corpus.fingerprint}, seed=0)
    (record.RESULTS / f"{name}.png").write_bytes(draw(rows, _title(setting.name, corpus.name, setting.seeds)))
    print(to_text(setting, corpus.name, rows))


def redraw() -> None:
    """Draw every recorded table of gates from its cells."""
    for path in sorted(record.RESULTS.glob("gates*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))["result"]
        setting = result["setting"]
        title = _title(setting["name"], result["corpus"], setting["seeds"])
        path.with_suffix(".png").write_bytes(draw(summarise(result["cells"]), title))


def _title(name: str, corpus: str, seeds: int) -> str:
    return f"{name}: {corpus}, {seeds} seeds, 95 % intervals"


if __name__ == "__main__":
    main()
