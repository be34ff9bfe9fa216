"""This module reads tables of expert counts: tokens per model, domain, layer and expert."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from turnout.core.errors import TableError, sentence

COLUMNS = ("model", "domain", "layer", "expert", "count")

Counts = dict[str, dict[str, dict[str, Tensor]]]
"""counts[model][layer][domain] is a load (E,)."""


def read_counts(path: Path) -> Counts:
    """Read a parquet file with the columns model, domain, layer, expert, count; a missing row counts 0.

    E of a model is its greatest expert plus one. Raises `TableError` for another file.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise TableError(sentence(f"{str(path)!r}", allowed="a parquet file", got=str(error))) from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing or not table.num_rows:
        got = f"{table.num_rows} rows of {', '.join(table.column_names)}"
        raise TableError(sentence(f"{str(path)!r}", allowed=f"rows of {', '.join(COLUMNS)}", got=got))
    rows = table.select(list(COLUMNS)).to_pylist()
    if any(row["expert"] < 0 or row["count"] < 0 for row in rows):
        raise TableError(sentence(f"{str(path)!r}: expert and count", allowed="from 0 on", got="below 0"))
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row["model"]] = max(sizes.get(row["model"], 0), row["expert"] + 1)
    counts: Counts = {}
    for row in sorted(rows, key=lambda r: (r["model"], r["layer"], r["domain"])):
        layer = counts.setdefault(row["model"], {}).setdefault(str(row["layer"]), {})
        load_E = layer.setdefault(row["domain"], torch.zeros(sizes[row["model"]], dtype=torch.double))
        load_E[row["expert"]] += row["count"]
    return counts
