"""This module reads and writes an `OutcomeTable` as a folder of parquet files (docs/datasets.md).

`queries.parquet` (query_id, text, task, split, reference), `outcomes.parquet` (query_id, model, quality,
cost_usd, input_tokens, output_tokens, latency_s, sample, and any further columns, which become extras),
`models.parquet` (model, input_usd_per_m, output_usd_per_m, context_window, and descriptors).
pyarrow is imported here, and this module only when a table is read or written.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from turnout.core.candidate import Candidate, PriceCard, candidate_from_dict
from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.rows import MEASURES

_QUERY_COLUMNS = ("query_id", "text", "task", "split", "reference")
_MODEL_COLUMNS = ("model", "input_usd_per_m", "output_usd_per_m", "context_window", "candidate")


def read_table(folder: Path) -> OutcomeTable:
    """Read the three files of `folder`; raises `TableError` naming the file and the column or row."""
    if not folder.is_dir():
        raise TableError(
            sentence(f"no outcome table at {str(folder)!r}", allowed="a folder", do="check the path")
        )
    queries = read_file(folder / "queries.parquet", required=("query_id",))
    outcomes = read_file(folder / "outcomes.parquet", required=("query_id", "model", "quality"))
    models = folder / "models.parquet"
    cards = read_file(models, required=("model",)) if models.exists() else None
    return table_from_arrow(queries, outcomes, cards, where=str(folder))


def read_file(path: Path, *, required: tuple[str, ...] = ()) -> pa.Table:
    """Read one parquet file and require columns; a damaged or missing file is a `TableError`."""
    if not path.exists():
        raise TableError(sentence(f"the file {path.name!r} is missing in {str(path.parent)!r}"))
    try:
        data = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(
            sentence(
                f"{str(path)!r} cannot be read as parquet", got=str(error), do="write or download it again"
            )
        ) from error
    missing = [name for name in required if name not in data.column_names]
    if missing:
        raise TableError(
            sentence(
                f"{str(path)!r} lacks the column {missing[0]!r}",
                allowed=f"columns {', '.join(required)}",
                got=data.column_names,
            )
        )
    return data


def table_from_arrow(
    queries: pa.Table, outcomes: pa.Table, models: pa.Table | None, *, where: str
) -> OutcomeTable:
    """Build a table from three arrow tables in the folder layout."""
    ids = _strings(queries, "query_id", where)
    names_N = _strings(outcomes, "model", where)
    known = [] if models is None else _strings(models, "model", where)
    _check_models_once(known, where)
    names = list(dict.fromkeys([*known, *names_N]))
    position = {query_id: index for index, query_id in enumerate(ids)}
    rows = _strings(outcomes, "query_id", where)
    orphan = next((row for row, query_id in enumerate(rows) if query_id not in position), None)
    if orphan is not None:
        raise TableError(
            sentence(
                f"{where}/outcomes.parquet: row {orphan} names a query that queries.parquet does not hold",
                allowed="a query_id of queries.parquet",
                got=rows[orphan],
                do="add the query there, or leave the row out",
            )
        )
    column_of = {name: index for index, name in enumerate(names)}
    extras = [c for c in outcomes.column_names if c not in ("query_id", "model", "sample", *MEASURES)]
    measures = {name: _floats(outcomes, name, where) for name in MEASURES if name in outcomes.column_names}
    sample = _floats(outcomes, "sample", where) if "sample" in outcomes.column_names else None
    return OutcomeTable(
        queries=_queries(queries, ids),
        candidates=_candidates(models, names),
        query_index=[position[query_id] for query_id in rows],
        candidate_index=[column_of[name] for name in names_N],
        sample=None if sample is None else np.nan_to_num(sample).astype(np.int64),
        splits=_optional(queries, "split"),
        references=_optional(queries, "reference"),
        extras={name: outcomes.column(name).to_pylist() for name in extras},
        **measures,
    )


def _check_models_once(names: list[str], where: str) -> None:
    """Raise where two rows describe one model: which of two prices holds must not depend on their order."""
    twice = next((name for row, name in enumerate(names) if name in names[:row]), None)
    if twice is not None:
        what = f"{where}/models.parquet describes a model twice"
        raise TableError(sentence(what, allowed="one row a model", got=twice, do="keep the right one"))


def write_table(table: OutcomeTable, folder: Path) -> Path:
    """Write the three files with zstd; reading them back gives the same fingerprint.

    Raises `TableError` for a text that no file can hold: half of a surrogate pair is not UTF-8.
    """
    _check_encodable(table)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_query_table(table), folder / "queries.parquet", compression="zstd")
    pq.write_table(_outcome_table(table), folder / "outcomes.parquet", compression="zstd")
    pq.write_table(_model_table(table), folder / "models.parquet", compression="zstd")
    return folder


def _check_encodable(table: OutcomeTable) -> None:
    for query in table.queries:
        try:
            f"{query.id}{query.text}{query.task}".encode()
        except UnicodeEncodeError as error:
            raise TableError(
                sentence(
                    f"the text of query {query.id!r} is not valid Unicode",
                    got=error.object[error.start : error.end],
                    do="replace it, for example with text.encode('utf-8', 'replace').decode()",
                )
            ) from error


def _query_table(table: OutcomeTable) -> pa.Table:
    columns: dict[str, Any] = {
        "query_id": pa.array([query.id for query in table.queries], pa.string()),
        "text": pa.array([query.text for query in table.queries], pa.string()),
        "task": pa.array([query.task for query in table.queries], pa.string()),
        "split": pa.array(table.splits, pa.string()),
        "reference": pa.array(table.references, pa.string()),
        "num_turns": pa.array([query.num_turns for query in table.queries], pa.int32()),
        "input_tokens": pa.array([query.input_tokens for query in table.queries], pa.int64()),
        "needs": pa.array([sorted(query.needs) for query in table.queries], pa.list_(pa.string())),
        "tags": pa.array([json.dumps(dict(query.tags)) for query in table.queries], pa.string()),
    }
    return pa.table(columns)


def _outcome_table(table: OutcomeTable) -> pa.Table:
    ids = np.array([query.id for query in table.queries], dtype=object)
    names = np.array(table.names, dtype=object)
    columns: dict[str, Any] = {
        "query_id": pa.array(ids[table.query_index], pa.string()),
        "model": pa.array(names[table.candidate_index], pa.string()),
        "sample": pa.array(table.sample, pa.int64()),
    }
    for name in MEASURES:
        values = getattr(table, name)
        columns[name] = pa.array(values, pa.float64(), mask=np.isnan(values))
    for name, values in table.extras.items():
        columns[name] = pa.array(list(values))
    return pa.table(columns)


def _model_table(table: OutcomeTable) -> pa.Table:
    cards = [candidate.price_card for candidate in table.candidates]
    return pa.table(
        {
            "model": pa.array(table.names, pa.string()),
            "input_usd_per_m": pa.array([c and c.input_usd_per_mtok for c in cards], pa.float64()),
            "output_usd_per_m": pa.array([c and c.output_usd_per_mtok for c in cards], pa.float64()),
            "context_window": pa.array([c.context_tokens for c in table.candidates], pa.int64()),
            "candidate": pa.array([json.dumps(c.to_dict()) for c in table.candidates], pa.string()),
        }
    )


def _queries(data: pa.Table, ids: list[str]) -> list[Query]:
    texts, tasks = _optional(data, "text"), _optional(data, "task")
    has = set(data.column_names)
    turns = data.column("num_turns").to_pylist() if "num_turns" in has else [1] * len(ids)
    needs = data.column("needs").to_pylist() if "needs" in has else [()] * len(ids)
    tokens = data.column("input_tokens").to_pylist() if "input_tokens" in has else [None] * len(ids)
    tags = _optional(data, "tags")
    return [
        Query(
            id=query_id,
            text=texts[row],
            task=tasks[row],
            num_turns=1 if turns[row] is None else turns[row],
            input_tokens=tokens[row],
            needs=frozenset(needs[row] or ()),
            tags=_json_object(tags[row] or "{}", f"queries.parquet: column 'tags', row {row}"),
        )
        for row, query_id in enumerate(ids)
    ]


def _candidates(models: pa.Table | None, names: list[str]) -> list[Candidate]:
    rows = {} if models is None else {row["model"]: row for row in models.to_pylist()}
    return [_candidate(name, rows.get(name, {})) for name in names]


def _candidate(name: str, row: dict[str, Any]) -> Candidate:
    if row.get("candidate"):
        return candidate_from_dict(
            _json_object(row["candidate"], f"models.parquet: column 'candidate' of {name!r}")
        )
    prices = (row.get("input_usd_per_m"), row.get("output_usd_per_m"))
    known = all(price is not None and math.isfinite(price) for price in prices)
    wrong = [price for price in prices if price is not None and price < 0]
    if wrong:
        raise TableError(
            sentence(
                f"models.parquet: a price of {name!r}",
                allowed="USD per million tokens, at least 0",
                got=wrong[0],
                do="write null where the price is unknown, and 0 only for a model that is free",
            )
        )
    card = (
        PriceCard(input_usd_per_mtok=float(prices[0]), output_usd_per_mtok=float(prices[1]))  # type: ignore[arg-type]
        if known
        else None
    )
    descriptors = {
        key: value
        for key, value in row.items()
        if key not in _MODEL_COLUMNS and isinstance(value, str | float | int) and value == value
    }
    return Candidate(
        model=name, price_card=card, context_tokens=row.get("context_window"), descriptors=descriptors
    )


def _json_object(text: object, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise TableError(sentence(where, allowed="a JSON object", got=text, do="leave the column out"))
    return value


def _strings(data: pa.Table, name: str, where: str) -> list[str]:
    values: list[Any] = data.column(name).to_pylist()
    wrong = next((row for row, value in enumerate(values) if not isinstance(value, str)), None)
    if wrong is not None:
        raise TableError(
            sentence(
                f"{where}: column {name!r}, row {wrong}",
                allowed="a string",
                got=values[wrong],
                do="write the column as strings, without nulls",
            )
        )
    return values


def _optional(data: pa.Table, name: str) -> list[str | None]:
    if name not in data.column_names:
        return [None] * data.num_rows
    values: list[Any] = data.column(name).to_pylist()
    if name == "text":
        wrong = next((row for row, value in enumerate(values) if not isinstance(value, str | None)), None)
        if wrong is not None:
            what = f"queries.parquet: column {name!r}, row {wrong}"
            raise TableError(sentence(what, allowed="a string or null", got=values[wrong]))
    return [None if value is None else str(value) for value in values]


def _floats(data: pa.Table, name: str, where: str) -> np.ndarray:
    column = data.column(name)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise TableError(
            sentence(
                f"{where}/outcomes.parquet: column {name!r}",
                allowed="a column of numbers",
                got=str(kind),
                do="convert it to numbers, with null where nothing was measured",
            )
        )
    values: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    stray = np.flatnonzero(np.isnan(values) & column.is_valid().to_numpy(zero_copy_only=False))
    if stray.size:
        raise TableError(
            sentence(
                f"{where}/outcomes.parquet: column {name!r}, row {stray[0]}, is NaN",
                allowed="a number, or null for unknown",
                do="write null where nothing was measured",
            )
        )
    return values
