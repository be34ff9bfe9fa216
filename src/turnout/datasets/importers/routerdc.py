"""This module reads the outcome files of RouterDC (Chen et al. 2024, arXiv 2409.19886).

Source: github.com/shuhao02/RouterDC at dadb872, datasets/split2_model7/*.json: a list of objects with
`question` and `scores` (model -> number), in the `_cluster` folders also `cluster_id`; what a score means is
in evaluation_router.py (`test_data_type`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, final

from turnout.core.errors import TableError, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft
from turnout.datasets.importers.base import Head, Importer
from turnout.datasets.reading import clean_text, json_document, number

_SPLIT = re.compile(r"(?P<task>.+)[-_](?P<split>train|test|valid|val|dev)")


@final
class RouterDC(Importer):
    """One object per question with a score per model. A folder of such files is read as one table.

    Two kinds of score stand side by side, and the files do not say which: the share of sampled answers that
    are right (`multi_attempt`: gsm8k, humaneval, mbpp), and the probability that the model gives to the right
    option, 0 when it prefers another (`probability`: mmlu, cmmlu, arc, ceval, MATH_prealgebra). Both are kept
    as quality; with `as_accuracy` a score above 0 counts 1, which is how that project counts the second kind.

    Query ids are the file's name and the position; task and split are taken from the file's name.

    Parameters
    ----------
    as_accuracy:
        Count every score above 0 as 1. Right for `probability` files only.
    """

    summary: ClassVar[str] = "RouterDC json: a list of {question, scores: {model: number}}"

    def __init__(self, *, as_accuracy: bool = False) -> None:
        self.as_accuracy = as_accuracy

    @classmethod
    def recognises(cls, head: Head) -> bool:
        """Whether it is a list of objects with `question` and `scores`."""
        if head.kind == "folder":
            return head.inner is not None and head.inner.kind == "json" and cls.recognises(head.inner)
        return head.kind == "json" and head.is_list and {"question", "scores"} <= set(head.columns)

    def read(self, path: Path) -> OutcomeTable:
        """Read one file, or every `*.json` of a folder in the order of their names."""
        draft = TableDraft(path)
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            self._add_file(draft, file)
        return draft.build()

    def _add_file(self, draft: TableDraft, path: Path) -> None:
        records = json_document(path)
        if not isinstance(records, list):
            raise TableError(sentence(f"{str(path)!r}", allowed="a JSON list of objects", got=type(records)))
        match = _SPLIT.fullmatch(path.stem)
        task, split = (match["task"], match["split"]) if match else (path.stem, None)
        for position, record in enumerate(records):
            place = f"{str(path)!r}, record {position}"
            question, scores = _check(place, record)
            query_id = f"{path.stem}/{position}"
            cluster = record.get("cluster_id")
            tags = {} if cluster is None else {"cluster_id": str(cluster)}
            query = Query(id=query_id, text=clean_text(question), task=task, tags=tags)
            index = draft.add_query(query_id, query, place=place, split=split)
            for model, score in scores.items():
                quality = number(f"{place}: score of {model!r}", score)
                if self.as_accuracy and quality > 0:
                    quality = 1.0
                draft.add(index, model, {"quality": quality}, place=place)


def _check(place: str, record: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(record, dict):
        raise TableError(sentence(place, allowed="an object with 'question' and 'scores'", got=record))
    question, scores = record.get("question"), record.get("scores")
    if not isinstance(question, str) or not question:
        raise TableError(
            sentence(f"{place}: field 'question'", allowed="text that is not empty", got=question)
        )
    if not isinstance(scores, dict) or not scores:
        raise TableError(
            sentence(f"{place}: field 'scores'", allowed="an object {model: number}", got=scores)
        )
    return question, scores
