"""This module says which column of a long file is which: by the names people give them, or as told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from turnout.core.errors import InputError, TableError, did_you_mean, sentence

FIELDS: dict[str, tuple[str, ...]] = {
    "query_id": ("query_id", "id", "prompt_id", "question_id"),
    "text": ("text", "query", "prompt", "question"),
    "model": ("model", "model_name", "candidate", "llm"),
    "quality": ("quality", "score", "performance", "correct", "accuracy"),
    "cost_usd": ("cost_usd", "cost"),
    "input_tokens": ("input_tokens", "prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens"),
    "latency_s": ("latency_s",),
    "task": ("task", "task_name", "category", "group"),
    "split": ("split",),
    "reference": ("reference", "ground_truth"),
    "response": ("response", "answer"),
}
"""What a column may hold -> the names under which it is known without being told."""

ROLES = ("model", "quality")
"""Fields of which a column by name says that a row is of one candidate, not of all."""

MEASURED = ("quality", "cost_usd", "input_tokens", "output_tokens", "latency_s")
"""Fields that are numbers."""


def field_of(name: str) -> str | None:
    """Return the field under whose known names a column's is; None for one that needs to be told."""
    word = name.strip().lower()
    return next((field for field, known in FIELDS.items() if word in known), None)


def goes_beyond(columns: Collection[str], taken: Collection[str]) -> bool:
    """Return whether every column is known by name, and one holds a field that is not among those `taken`.

    Another project's importer that takes less would drop it, such as a cost.
    """
    found = {field_of(name) for name in columns}
    return None not in found and not found <= {*taken}


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """What the user said about the columns of a file."""

    columns: Mapping[str, str]
    """Field -> name of its column."""
    ignore: frozenset[str]
    """Columns that say nothing."""
    drop: Mapping[str, frozenset[str]]
    """Column -> values whose rows are left out."""

    def __post_init__(self) -> None:
        for field in self.columns:
            if field not in FIELDS:
                raise InputError(
                    sentence(
                        "option 'columns': what a column holds",
                        allowed=", ".join(FIELDS),
                        got=field,
                        do=did_you_mean(field, FIELDS),
                    )
                )

    def require(self, place: str, names: Collection[str]) -> None:
        """Raise `TableError` where a column that was named is not there; `place` begins the error."""
        for name in (*self.columns.values(), *self.drop):
            if name not in names:
                raise TableError(
                    sentence(
                        f"{place}: no column is called {name!r}",
                        allowed=", ".join(map(repr, names)),
                        do=did_you_mean(name, names),
                    )
                )

    def layout(self, place: str, names: Collection[str]) -> dict[str, str]:
        """Return field -> column for a header or the keys of a record; `place` begins an error.

        Raises `TableError` where query, model or quality have none, where several may be the same, and for a
        column that nothing explains.
        """
        free = [name for name in names if name not in {*self.columns.values(), *self.ignore}]
        found = {field: name for field, name in self.columns.items() if name in names}
        for field, known in FIELDS.items():
            if field not in self.columns and (
                named := [name for name in free if name.strip().lower() in known]
            ):
                found[field] = self._only(place, field, named)
        self._require(place, names, found)
        extra = sorted({*free} - {*found.values(), *self.drop})
        if extra:
            raise TableError(
                sentence(
                    f"{place}: columns that nothing explains",
                    allowed=", ".join(FIELDS),
                    got=extra,
                    do="leave them out (option 'ignore'), or say what they hold (option 'columns')",
                )
            )
        return found

    @staticmethod
    def _only(place: str, field: str, named: list[str]) -> str:
        if len(named) == 1:
            return named[0]
        raise TableError(
            sentence(
                f"{place}: several columns may be the {field}",
                allowed="one",
                got=named,
                do=f"say which (option 'columns': {field}={named[0]}), or leave one out (option 'ignore')",
            )
        )

    @staticmethod
    def _require(place: str, names: Collection[str], found: Mapping[str, str]) -> None:
        for what, fields in (
            ("a query", ("query_id", "text")),
            ("model", ("model",)),
            ("quality", ("quality",)),
        ):
            if not any(field in found for field in fields):
                likely = " or ".join(name for field in fields for name in FIELDS[field])
                raise TableError(
                    sentence(
                        f"{place}: no column holds {what}",
                        allowed=f"{likely}; or the name of yours in the option 'columns' "
                        f"(turnout import FILE --column {fields[-1]}=NAME)",
                        got=", ".join(map(repr, names)),
                    )
                )
