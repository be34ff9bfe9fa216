"""This module reads tables of expert counts: tokens per model, domain, layer and expert."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from turnout.core.errors import TableError, sentence

COLUMNS = ("model", "domain", "layer", "expert", "count")

MOST_EXPERTS = 2**16
"""A number of an expert from here on is taken for a mistake: each layer gets a load of as many numbers."""

Counts = dict[str, dict[str, dict[str, Tensor]]]
"""counts[model][layer][domain] is a load (E,)."""


def read_counts(path: Path) -> Counts:
    """Read a parquet file with the columns model, domain, layer, expert, count; a missing row counts 0.

    Models, domains and layers are text or whole numbers, experts whole numbers below `MOST_EXPERTS`, counts
    finite numbers from 0 on. E of a model is its greatest expert plus one. Raises `TableError` for another
    file.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise TableError(sentence(f"{str(path)!r}", allowed="a parquet file", got=str(error))) from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing or not table.num_rows:
        got = f"{table.num_rows} rows of {', '.join(table.column_names)}"
        raise TableError(sentence(f"{str(path)!r}", allowed=f"rows of {', '.join(COLUMNS)}", got=got))
    rows = list(zip(*(_column(path, table, name) for name in COLUMNS), strict=True))
    sizes: dict[str, int] = {}
    for model, _, _, expert, _ in rows:
        sizes[model] = max(sizes.get(model, 0), expert + 1)
    counts: Counts = {}
    for model, domain, layer, expert, count in sorted(rows, key=lambda r: (r[0], _depth(r[2]), r[1])):
        loads = counts.setdefault(model, {}).setdefault(layer, {})
        load_E = loads.setdefault(domain, torch.zeros(sizes[model], dtype=torch.double))
        load_E[expert] += count
    return counts


def _column(path: Path, table: pa.Table, name: str) -> list[Any]:
    """Return the cells of a column as text, whole numbers or counts; raises `TableError` for others."""
    cells = table[name].to_pylist()
    if name == "expert":
        allowed, fits = f"whole numbers from 0 to {MOST_EXPERTS - 1}", _is_expert
    elif name == "count":
        allowed, fits = "finite numbers from 0 on", _is_count
    else:
        allowed, fits = "text or whole numbers", _is_name
    wrong = next((row for row, cell in enumerate(cells) if not fits(cell)), None)
    if wrong is not None:
        what = f"{str(path)!r}: column {name}, row {wrong + 1}"
        raise TableError(sentence(what, allowed=allowed, got=cells[wrong]))
    return cells if name in ("expert", "count") else [str(cell) for cell in cells]


def _is_name(cell: object) -> bool:
    return isinstance(cell, str | int) and not isinstance(cell, bool)


def _is_expert(cell: object) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool) and 0 <= cell < MOST_EXPERTS


def _is_count(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and 0 <= cell < math.inf


def _depth(layer: str) -> tuple[int, int, str]:
    """Return where a layer stands: numbers by size, "2" before "10", and names behind them."""
    return (0, int(layer), "") if layer.isdecimal() and layer.isascii() else (1, 0, layer)
