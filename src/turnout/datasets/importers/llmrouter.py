"""This module reads the routing data of LLMRouter (arXiv 2608.06867).

Source: github.com/ulab-uiuc/LLMRouter, llmrouter/data/README.md at 322c2cf ("Output File Formats"); the older
field names prompt_tokens and completion_tokens and the two error marks are in
llmrouter/data/api_calling_evaluation.py at 4e7a796.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, final

from turnout.core.candidate import Candidate, PriceCard
from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.datasets.draft import Repeats, TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.layout import goes_beyond
from turnout.datasets.importers.records import (
    Record,
    extras_of,
    files_of,
    measure,
    places,
    query_of,
    require_fields,
    split_in_name,
    text_field,
)
from turnout.datasets.reading import json_document, number

_REQUIRED = ("query", "model_name", "performance")
_TOKENS = frozenset({"token_num", "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens"})
_FIELDS = ("text", "model", "quality", "input_tokens", "output_tokens", "task", "reference", "response")
_EXPLAINED = (*_REQUIRED, *_TOKENS, "task_name", "ground_truth", "response_time")
# Whose key paid for a call is nobody's business later.
_DROPPED = ("api_key_used",)
_ERROR_MARKS = ("ERROR", "API Error:")


@final
class LLMRouter(Importer):
    """One object per (query, model). A folder of `*.jsonl` (train and test) is read as one table.

    A query is its (task_name, query, ground_truth, metric), as in that project. Its writer scores a failed
    call 0.0 and counts words for tokens; a response that begins with `ERROR` or `API Error:` is therefore
    read as unknown throughout. Query ids are the file's name and the line of the first appearance; the split
    is taken from the file's name.

    Parameters
    ----------
    prices:
        The project's `default_llm.json` (input_price and output_price in USD per million tokens): gives the
        candidates price cards, and cost_usd = tokens times prices where both token counts were recorded.
    repeats:
        What to do with a second row of the same query and model.
    """

    summary: ClassVar[str] = "LLMRouter routing jsonl: task_name, query, model_name, performance, tokens"

    def __init__(self, *, prices: str | Path | None = None, repeats: Repeats = "error") -> None:
        self.prices = prices
        self.repeats: Repeats = repeats

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether the fields are LLMRouter's: a score per query and model, with token counts; no costs."""
        if head.kind == "folder":
            return head.inner is not None and cls.recognises(head.inner)
        fields = set(head.columns)
        return (
            head.kind == "jsonl"
            and set(_REQUIRED) <= fields
            and bool(_TOKENS & fields)
            and "category" not in fields
            and not goes_beyond(head.columns, _FIELDS)
        )

    def read(self, path: Path) -> OutcomeTable:
        """Read one file, or every `*.jsonl` of a folder in the order of their names."""
        cards = {} if self.prices is None else read_prices(Path(self.prices))
        draft = TableDraft(path, repeats=self.repeats)
        for file in files_of(path, "*.jsonl"):
            for line, place, record in places(file):
                _add(draft, file, line, place, record, cards)
        return draft.build(cards.values())


def _add(
    draft: TableDraft, path: Path, line: int, place: str, record: Record, cards: dict[str, Candidate]
) -> None:
    require_fields(place, record, _REQUIRED)
    task = text_field(place, record, "task_name", may_be_absent=True)
    model = text_field(place, record, "model_name") or ""
    query = query_of(draft, f"{path.stem}/{line}", place, record, task=task, split=split_in_name(path))
    measures = {} if is_failure(record) else _measures(place, record, cards.get(model))
    draft.add(query, model, measures, place=place, extras=extras_of(record, (*_EXPLAINED, *_DROPPED)))


def _measures(place: str, record: Record, candidate: Candidate | None) -> dict[str, float]:
    input_tokens = measure(place, record, "input_tokens", "prompt_tokens")
    output_tokens = measure(place, record, "output_tokens", "completion_tokens")
    card = None if candidate is None else candidate.price_card
    cost_usd = math.nan if card is None else card.usd(input_tokens=input_tokens, output_tokens=output_tokens)
    return {
        "quality": measure(place, record, "performance"),
        "cost_usd": cost_usd,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "latency_s": measure(place, record, "response_time"),
    }


def is_failure(record: Record) -> bool:
    """Whether the recorded response is the mark of a call that failed."""
    response = record.get("response")
    return isinstance(response, str) and response.startswith(_ERROR_MARKS)


def read_prices(path: Path) -> dict[str, Candidate]:
    """Read `default_llm.json` into candidates with price cards; `size` (`7B`) becomes params_b."""
    models = json_document(path)
    if not isinstance(models, dict) or not all(isinstance(entry, dict) for entry in models.values()):
        raise TableError(sentence(f"{str(path)!r}", allowed="an object {model: {input_price, output_price}}"))
    return {name: _candidate(path, name, entry) for name, entry in models.items()}


def _candidate(path: Path, name: str, entry: dict[str, object]) -> Candidate:
    usd = [
        number(f"{str(path)!r}: {field} of {name!r}", entry.get(field))
        for field in ("input_price", "output_price")
    ]
    known = not any(math.isnan(price) for price in usd)
    card = PriceCard(input_usd_per_mtok=usd[0], output_usd_per_mtok=usd[1]) if known else None
    size = str(entry.get("size", ""))
    is_count = size.endswith("B") and size[:-1].replace(".", "", 1).isdigit()
    descriptors: dict[str, float | str] = {"params_b": float(size[:-1])} if is_count else {}
    return Candidate(model=name, price_card=card, descriptors=descriptors)
