"""This module reads a long table of one's own: a row per query and model, of any kind of file."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, final

from turnout.core.candidate import Candidate
from turnout.core.errors import InputError, TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.validation import check_number
from turnout.datasets.draft import Repeats, TableDraft
from turnout.datasets.importers.any_rows import Row, open_rows
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.layout import FIELDS, MEASURED, Naming
from turnout.datasets.importers.tariffs import read_tariffs
from turnout.datasets.importers.told import Told
from turnout.datasets.importers.wide import wide_columns
from turnout.datasets.reading import UNKNOWN, clean_text, number

_EVERY = 2_000
"""Rows between two reports of progress."""
_WORDS = tuple(field for field in FIELDS if field not in MEASURED)


@final
class Long(Importer):
    """One row per query and model; which column is which is read from its name, or told.

    A query is its id where there is a column of ids, else its task and text. What is said of a query in one
    row need not be repeated in the others, and must not be contradicted. Costs are in USD.

    Parameters
    ----------
    columns:
        What a column holds -> its name, for names that are not known: `{"model": "llm used"}`.
    scale:
        (worst, best) quality, mapped linearly to 0 and 1: (1, 10) for a judge, (5, 0) where less is better.
    ignore:
        Columns to leave out.
    drop:
        Column -> value or values: rows that hold one of them are left out.
    missing:
        Words that mean that a value is unknown, such as `NaN` and `N/A`; an empty cell and null do so anyway.
    prices:
        A price file in the gateway's format: gives the candidates price cards, and a cost to rows that have
        none and count both tokens.
    repeats:
        What to do with a second row of the same query and model.
    """

    summary: ClassVar[str] = "long table of one's own: a row per query and model (csv, json, jsonl, parquet)"
    is_general: ClassVar[bool] = True

    def __init__(
        self,
        *,
        columns: Mapping[str, str] | None = None,
        scale: tuple[float, float] = (0.0, 1.0),
        ignore: Collection[str] = (),
        drop: Mapping[str, str | Collection[str]] | None = None,
        missing: Collection[str] = (),
        prices: str | Path | None = None,
        repeats: Repeats = "error",
    ) -> None:
        if len(scale) != 2:
            raise InputError(sentence("option 'scale'", allowed="two numbers (worst, best)", got=scale))
        self.worst = check_number("option 'scale': worst", scale[0])
        self.best = check_number("option 'scale': best", scale[1])
        if self.worst == self.best:
            raise InputError(sentence("option 'scale'", allowed="two different numbers", got=scale))
        self.naming = Naming(
            columns=dict(columns or {}),
            ignore=frozenset(ignore),
            drop={
                name: frozenset([values] if isinstance(values, str) else values)
                for name, values in (drop or {}).items()
            },
        )
        self.missing = frozenset(missing)
        self.prices = prices
        self.repeats: Repeats = repeats

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether there are columns for a query, a model and a quality, each under a name that is known."""
        names = {name.strip().lower() for name in head.columns}
        has = {field: bool(names & {*known}) for field, known in FIELDS.items()}
        is_text = head.kind in ("csv", "jsonl", "parquet") or (head.kind == "json" and head.is_list)
        return is_text and (has["text"] or has["query_id"]) and has["model"] and has["quality"]

    def read(self, path: Path) -> OutcomeTable:
        """Read the file."""
        cards = {} if self.prices is None else read_tariffs(Path(self.prices))
        draft = TableDraft(path, repeats=self.repeats)
        queries, source = Told(path, draft), open_rows(path)
        layouts: dict[tuple[str, ...], dict[str, str]] = {}
        for count, (place, row) in enumerate(source.rows):
            keys = tuple(row)
            if keys not in layouts:
                if source.header is not None:
                    self.naming.require(source.header, keys)
                layouts[keys] = self.naming.layout(source.header or place, wide_columns(keys))
            self._add(draft, queries, place, row, layouts[keys], cards)
            if count % _EVERY == 0:
                self.progress(f"read {path.name}", count, max(source.total, count, 1))
        self.naming.require(repr(str(path)), {name for keys in layouts for name in keys})
        return draft.build(cards.values())

    def _add(
        self,
        draft: TableDraft,
        queries: Told,
        place: str,
        row: Row,
        layout: Mapping[str, str],
        cards: Mapping[str, Candidate],
    ) -> None:
        if any(_word(row.get(name)) in values for name, values in self.naming.drop.items()):
            return
        words = {
            field: _text(place, layout[field], self._known(row[layout[field]])) if field in layout else None
            for field in _WORDS
        }
        # Names are compared, so that a blank beside a comma must not make two of one.
        words |= {
            field: (words[field] or "").strip() or None for field in ("model", "query_id", "task", "split")
        }
        model, response = words.pop("model"), words.pop("response")
        if model is None:
            raise TableError(
                sentence(f"{place}: column {layout['model']!r}", allowed="the name of a model", got="nothing")
            )
        query = queries.find(place, words)
        measures = self._measures(place, model, row, layout)
        if math.isnan(measures.get("cost_usd", UNKNOWN)):
            measures["cost_usd"] = _charge(cards.get(model), measures)
        draft.add(query, model, measures, place=place, extras={"response": response})

    def _measures(self, place: str, model: str, row: Row, layout: Mapping[str, str]) -> dict[str, float]:
        measures = {
            field: number(
                f"{place}: column {layout[field]!r}",
                self._known(row[layout[field]]),
                do="write a point in decimals, or name the words that mean unknown, as in: "
                "turnout import FILE --missing N/A",
            )
            for field in MEASURED
            if field in layout
        }
        return {**measures, "quality": self._scaled(place, model, measures["quality"])}

    def _known(self, value: object) -> object:
        return None if isinstance(value, str) and value.strip() in self.missing else value

    def _scaled(self, place: str, model: str, score: float) -> float:
        quality = (score - self.worst) / (self.best - self.worst)
        # NaN, the unknown, passes: it is outside of nothing.
        if quality < 0.0 or quality > 1.0:
            low, high = sorted((self.worst, self.best))
            raise TableError(
                sentence(
                    f"{place}: quality of {model!r}",
                    allowed=f"a number in [{low:g}, {high:g}], or empty (in JSON: null) for unknown",
                    got=score,
                    do="name the scale of the scores, as in: turnout import FILE --scale 0,100",
                )
            )
        return quality


def _text(place: str, column: str, value: object) -> str | None:
    """Return a cell as text; None where it is empty. Whole numbers are names too, as ids often are."""
    if isinstance(value, float) and value.is_integer():
        # An id that pandas wrote beside a missing one.
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return clean_text(value)
    raise TableError(sentence(f"{place}: column {column!r}", allowed="text, or a whole number", got=value))


def _word(value: object) -> str:
    """Return a cell as it would be typed, to be compared with the values of rows to leave out."""
    return "" if value is None else value.strip() if isinstance(value, str) else json.dumps(value)


def _charge(candidate: Candidate | None, measures: Mapping[str, float]) -> float:
    """Return what the tokens of a row cost in USD; NaN where prices or counts are unknown."""
    card = None if candidate is None else candidate.price_card
    if card is None:
        return UNKNOWN
    tokens = {name: measures.get(name, UNKNOWN) for name in ("input_tokens", "output_tokens")}
    return card.usd(**tokens)
