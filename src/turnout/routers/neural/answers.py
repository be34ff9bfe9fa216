"""This module reads the recorded answers of a table as vectors, for routers that foresee answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.contracts import Embedder, fitted
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.features.text import TextEmbedder
from turnout.routers.neighbours import Array

COLUMN = "response"
"""Name of the extra column of a table that holds the text of an answer."""
_MAX_ANSWERS = 20_000
_MAX_CHARS = 1_000
_NUM_FEATURES = 32


def read_answers(
    table: OutcomeTable, queries: Sequence[Query], names: Sequence[str], given: Embedder | None
) -> Array | None:
    """Return the vectors of recorded answers, float32 of shape (N, M, R).

    Rows and columns are those of the queries and the names; NaN where no answer was recorded. Of several
    samples the first counts; of more than 20,000 answers, a fixed choice of them. Vectors are centred and
    scaled to a mean square of 1. None where the table has no answer.
    """
    cells = _cells(table, queries, names)
    if not cells:
        return None
    keys = sorted(cells)
    step = -(-len(keys) // _MAX_ANSWERS)
    keys = keys[::step]
    texts = [Query(id=f"{row}/{column}", text=cells[row, column]) for row, column in keys]
    default = TextEmbedder(num_features=_NUM_FEATURES, max_chars=_MAX_CHARS, char_weight=0.0)
    embedder = fitted(default if given is None else given, texts)
    vector_AR = np.asarray(embedder.embed(texts), np.float32)
    vector_AR = vector_AR - vector_AR.mean(axis=0)
    size = float(np.sqrt(np.square(vector_AR).sum(axis=1).mean()))
    answer_NMR = np.full((len(queries), len(names), vector_AR.shape[1]), np.nan, np.float32)
    index_A2 = np.array(keys)
    answer_NMR[index_A2[:, 0], index_A2[:, 1]] = vector_AR / max(size, 1e-6)
    return answer_NMR


def _cells(table: OutcomeTable, queries: Sequence[Query], names: Sequence[str]) -> dict[tuple[int, int], str]:
    """Return the text of the first recorded answer by row and column."""
    row_of = {query.id: at for at, query in enumerate(queries)}
    column_of = {name: at for at, name in enumerate(names)}
    cells: dict[tuple[int, int], str] = {}
    responses = table.extras.get(COLUMN, ())
    for at in np.argsort(table.sample, kind="stable") if len(responses) else ():
        text = responses[at]
        row = row_of.get(table.queries[table.query_index[at]].id)
        column = column_of.get(table.candidates[table.candidate_index[at]].name)
        if row is not None and column is not None and isinstance(text, str) and text:
            cells.setdefault((row, column), text)
    return cells
