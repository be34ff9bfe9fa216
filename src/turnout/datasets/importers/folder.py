"""This module reads turnout's own layout: a folder of parquet files (docs/datasets.md).

`queries.parquet`, `outcomes.parquet`, where recorded `models.parquet`, and where recorded `responses.parquet`
(query_id, model, response, and sample where there are several).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, final

from turnout.core.errors import TableError, TurnoutError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.datasets.importers.base import Head, Importer

FILES = ("queries.parquet", "outcomes.parquet")
"""The files without which a folder is not a table."""


@final
class Folder(Importer):
    """A folder of parquet files, as `OutcomeTable.save` writes it.

    Parameters
    ----------
    responses:
        Whether to read responses.parquet, too, as the extra column `response`. Off by default: the answers
        are most of a table's bytes and no router reads them.
    """

    summary: ClassVar[str] = "turnout folder: queries.parquet, outcomes.parquet, models.parquet"

    def __init__(self, *, responses: bool = False) -> None:
        self.responses = responses

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether the folder holds the two files."""
        return head.kind == "folder" and is_table_folder(head.path)

    def read(self, path: Path) -> OutcomeTable:
        """Read the folder; errors of the content name the folder."""
        require_table_files(path)
        try:
            table = OutcomeTable.load(path)
            _require_rows(table, path)
            return _with_responses(table, path) if self.responses else table
        except TableError as error:
            raise error if str(path) in str(error) else TableError(f"{str(path)!r}: {error}") from error
        except TurnoutError as error:
            raise TableError(f"{str(path)!r}: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            # Wrong JSON in a column, bytes that are not UTF-8, a candidate with an unknown field.
            raise TableError(
                sentence(
                    f"{str(path)!r} holds a column that cannot be read", got=str(error), do="write it again"
                )
            ) from error


def is_table_folder(path: Path) -> bool:
    """Whether `path` is a folder in turnout's layout."""
    return path.is_dir() and all((path / name).exists() for name in FILES)


def require_table_files(path: Path) -> None:
    """Raise `TableError` where a folder holds a part of a table: it names the file that is missing."""
    there = [name for name in (*FILES, "models.parquet") if (path / name).exists()]
    missing = [name for name in FILES if name not in there]
    if there and missing:
        raise TableError(
            sentence(
                f"{str(path)!r} lacks {' and '.join(missing)}",
                allowed=f"a folder with {' and '.join(FILES)}",
                got=", ".join(there),
                do="write the table again, or name the folder that holds all of it",
            )
        )


def _require_rows(table: OutcomeTable, path: Path) -> None:
    if table.num_rows == 0:
        raise TableError(
            sentence(
                f"{str(path / 'outcomes.parquet')!r} is empty",
                allowed="at least one row: a query, a model and what came of it",
                got="0 rows",
                do="check the step that wrote it",
            )
        )


def _with_responses(table: OutcomeTable, path: Path) -> OutcomeTable:
    # pyarrow stays out of `import turnout.datasets`.
    from turnout.core.parquet import read_file

    data = read_file(path / "responses.parquet", required=("query_id", "model", "response"))
    num_rows = data.num_rows
    samples = data.column("sample").to_pylist() if "sample" in data.column_names else [0] * num_rows
    columns = [data.column(name).to_pylist() for name in ("query_id", "model", "response")]
    response_of = {
        (query_id, model, sample): response
        for query_id, model, response, sample in zip(*columns, samples, strict=True)
    }
    ids = [query.id for query in table.queries]
    keys = zip(table.query_index, table.candidate_index, table.sample, strict=True)
    responses = [response_of.get((ids[q], table.names[m], int(s))) for q, m, s in keys]
    return table.with_extras({"response": responses})
