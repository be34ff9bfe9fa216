"""This module reads the result files of LLMRouterBench (arXiv 2601.07206).

Source: github.com/ynulihao/LLMRouterBench at 0e267fb: README.md ("Result File Structure"),
data_collector/storage.py (`save_result`), generators/generator.py and data_collector/runner.py (failed calls,
cost) and baselines/data_loader.py (which files count).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from turnout.core.errors import InputError, TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.reading import clean_text, json_document, number

_TIMESTAMP = re.compile(r"(\d{8})_(\d{6})$")
_FAILURES = ("Generation failed:", "Processing failed:", "Unexpected error:")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """One file: one model on one split of one data set."""

    path: Path
    dataset: str
    split: str
    model: str
    records: list[Any]
    has_costs: bool


@final
class LLMRouterBench(Importer):
    """One file per (data set, split, model); a folder of them is read as one table.

    As that project's loader does, demo runs are skipped and only the newest file of a (data set, split,
    model) is read. Unlike it, three things stay unknown: a score that is null (the loader makes it 0),
    everything about a call that failed (its output is `Generation failed: ...`, scored 0), and the costs of
    a run in which every cost is 0 (no price was configured, which is not the same as free). Query ids are
    data set, split and index; files that disagree on the text of an index are refused, since their rows
    would not be about the same question.

    Parameters
    ----------
    text:
        Which text a router gets: `prompt`, as sent to the models, or `origin_query`, the bare question.
    include_demo:
        Read files marked as demo runs too.
    """

    summary: ClassVar[str] = "LLMRouterBench result json: records with score, tokens and cost, a file a model"

    def __init__(
        self, *, text: Literal["prompt", "origin_query"] = "prompt", include_demo: bool = False
    ) -> None:
        if text not in ("prompt", "origin_query"):
            raise InputError(sentence("option 'text'", allowed="'prompt' or 'origin_query'", got=text))
        self.text = text
        self.include_demo = include_demo

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether it is an object with `records` and the totals of a run."""
        if head.kind == "folder":
            return head.inner is not None and cls.recognises(head.inner)
        return head.kind in ("json", "jsonl") and {"records", "performance"} <= set(head.columns)

    def read(self, path: Path) -> OutcomeTable:
        """Read one file, or the newest of each run anywhere below a folder."""
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        newest: dict[tuple[str, str, str], _Run] = {}
        for file in files:
            run = self._open(file)
            if run is None:
                continue
            key = (run.dataset, run.split, run.model)
            if key not in newest or _time_of(file) >= _time_of(newest[key].path):
                newest[key] = run
        draft = TableDraft(path)
        for run in newest.values():
            for record in run.records:
                self._add(draft, run, record)
        return draft.build()

    def _open(self, path: Path) -> _Run | None:
        data = json_document(path)
        if not isinstance(data, dict) or not isinstance(data.get("records"), list):
            raise TableError(
                sentence(f"{str(path)!r}", allowed="an object with a list 'records'", got=type(data))
            )
        if data.get("demo") and not self.include_demo:
            return None
        # The documented sample carries no names: there the folders <dataset>/<split>/<model>/ tell.
        folders = [parent.name for parent in path.resolve().parents][2::-1]
        names = [data.get(field) for field in ("dataset_name", "split", "model_name")]
        dataset, split, model = (
            str(name or folder) for name, folder in zip(names, [*folders, "", "", ""], strict=False)
        )
        records = data["records"]
        has_costs = any(isinstance(record, dict) and record.get("cost") for record in records)
        return _Run(
            path=path, dataset=dataset, split=split, model=model, records=records, has_costs=has_costs
        )

    def _add(self, draft: TableDraft, run: _Run, record: Any) -> None:
        if not isinstance(record, dict) or not isinstance(record.get("index"), int):
            raise TableError(
                sentence(
                    f"{str(run.path)!r}: a record",
                    allowed="an object with a whole number 'index'",
                    got=record,
                )
            )
        place = f"{str(run.path)!r}, record {record['index']}"
        query = self._query(draft, run, record, place)
        raw = record.get("raw_output")
        if isinstance(raw, str) and raw.startswith(_FAILURES):
            draft.add(query, run.model, {}, place=place, extras={"raw_output": clean_text(raw)})
            return
        measures = {
            "quality": number(f"{place}: field 'score'", record.get("score")),
            "cost_usd": number(f"{place}: field 'cost'", record.get("cost") if run.has_costs else None),
            "input_tokens": number(f"{place}: field 'prompt_tokens'", record.get("prompt_tokens")),
            "output_tokens": number(f"{place}: field 'completion_tokens'", record.get("completion_tokens")),
        }
        extras = {"answer": _as_text(record.get("prediction")), "raw_output": _as_text(raw)}
        draft.add(query, run.model, measures, place=place, extras=extras)

    def _query(self, draft: TableDraft, run: _Run, record: dict[str, Any], place: str) -> int:
        query_id = f"{run.dataset}/{run.split}/{record['index']}"
        other = "origin_query" if self.text == "prompt" else "prompt"
        text = _as_text(record.get(self.text)) or _as_text(record.get(other))
        query = Query(id=query_id, text=text, task=run.dataset)
        reference = _as_text(record.get("ground_truth"))
        known = draft.find(query_id)
        if known is None:
            return draft.add_query(query_id, query, place=place, split=run.split, reference=reference)
        if text is not None and draft.text_of(known) is None:
            # The first file's call failed before it recorded the question.
            draft.replace_query(known, query, reference=reference)
        elif text is not None and draft.text_of(known) != text:
            raise TableError(
                sentence(
                    f"{place}: another text than other files hold for {query_id!r}",
                    allowed="the same question under the same index in every file of a split",
                    got=text,
                    do="read runs of one version of the data set only",
                )
            )
        return known


def _time_of(path: Path) -> tuple[str, str, str]:
    match = _TIMESTAMP.search(path.stem)
    return (match[1], match[2], path.name) if match else ("", "", path.name)


def _as_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return clean_text(value)
    return json.dumps(value, ensure_ascii=False)
