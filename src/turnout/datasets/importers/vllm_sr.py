"""This module reads the benchmark records of the vLLM semantic router.

Source: github.com/vllm-project/semantic-router at 3d48f8c, src/training/model_selection/ml_model_selection:
benchmark.py (`BenchmarkResult.to_jsonl_dict` writes, `evaluate_response` scores) and data_loader.py
(`load_jsonl` reads what `train.py --data-file` is given).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, final

from turnout.core.outcomes import OutcomeTable
from turnout.datasets.draft import Repeats, TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.importers.layout import goes_beyond
from turnout.datasets.importers.records import (
    Record,
    extras_of,
    measure,
    places,
    query_of,
    require_fields,
    text_field,
)

_REQUIRED = ("query", "model_name", "performance")
_EXPLAINED = (*_REQUIRED, "ground_truth", "response_time", "task_name", "api_key_used")
_FIELDS = ("text", "model", "quality", "task", "reference", "response")
_NEUTRAL = 0.5
_ERROR_MARK = "Error:"


@final
class VllmSemanticRouter(Importer):
    """One object per (query, model); the task is `category`, or `task_name` where there is none.

    Query ids are the file's name and the line of the first appearance.

    Two of its scores are not measurements. A row without ground truth is scored 0.5 whatever was answered,
    and a failed call is scored 0.0 with the response `Error: ...`: both are read as unknown (the time of a
    failed call too). For the metric `code_eval` its writer also gives 0.3 and 0.5 for code it could not run;
    those cannot be told from a share of passed tests and are kept.

    Parameters
    ----------
    keep_neutral:
        Keep 0.5 where no ground truth was recorded, for files scored by other means.
    repeats:
        What to do with a second row of the same query and model.
    """

    summary: ClassVar[str] = "vLLM semantic-router benchmark jsonl: query, model_name, performance, category"

    def __init__(self, *, keep_neutral: bool = False, repeats: Repeats = "error") -> None:
        self.keep_neutral = keep_neutral
        self.repeats: Repeats = repeats

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether the fields are those of its benchmark: a category, or no token counts; and no costs."""
        fields = set(head.columns)
        has_tokens = any("token" in name for name in fields)
        is_ours = set(_REQUIRED) <= fields and ("category" in fields or not has_tokens)
        return head.kind == "jsonl" and is_ours and not goes_beyond(head.columns, _FIELDS)

    def read(self, path: Path) -> OutcomeTable:
        """Read one file."""
        draft = TableDraft(path, repeats=self.repeats)
        for line, place, record in places(path):
            require_fields(place, record, _REQUIRED)
            task = text_field(place, record, "category", may_be_absent=True) or text_field(
                place, record, "task_name", may_be_absent=True
            )
            model = text_field(place, record, "model_name") or ""
            query = query_of(draft, f"{path.stem}/{line}", place, record, task=task, split=None)
            draft.add(
                query, model, self._measures(place, record), place=place, extras=extras_of(record, _EXPLAINED)
            )
        return draft.build()

    def _measures(self, place: str, record: Record) -> dict[str, float]:
        response = record.get("response")
        quality = measure(place, record, "performance")
        if isinstance(response, str) and response.startswith(_ERROR_MARK) and quality == 0:
            return {}
        measures = {"latency_s": measure(place, record, "response_time")}
        if record.get("ground_truth") is not None or quality != _NEUTRAL or self.keep_neutral:
            measures["quality"] = quality
        return measures
