"""RouterDC's outcome files are read, scores as they are or as that project counts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, write
from turnout.core import TableError
from turnout.datasets import detect, read

FOLDER = FIXTURES / "routerdc"
MISTRAL, META_MATH, LLAMA = (
    "mistralai/Mistral-7B-v0.1",
    "meta-math/MetaMath-Mistral-7B",
    "meta-llama/Meta-Llama-3-8B",
)


def test_scores_task_split_and_cluster_are_read() -> None:
    table = read(FOLDER / "gsm8k-train.json")
    assert table.names == (MISTRAL, META_MATH, LLAMA)
    assert table.quality_QM.tolist() == [[0.4, 1.0, 0.7], [0.0, 0.9, 0.0]]
    assert table.tasks == ("gsm8k", "gsm8k")
    assert table.splits == ("train", "train")
    assert [query.tags["cluster_id"] for query in table.queries] == ["1", "4"]


def test_a_model_without_a_score_is_unknown() -> None:
    table = read(FOLDER / "mmlu_test.json")
    assert column(table, "quality")["mmlu_test/0", LLAMA] == 0.0
    assert ("mmlu_test/1", LLAMA) not in column(table, "quality")
    assert not table.observed_QM[1, 2]
    assert table.queries[1].text == "Quel fleuve traverse Lyon \u2026\nA. la Seine\nB. le Rh\u00f4ne"
    assert table.queries[1].tags == {}


def test_probabilities_can_be_counted_as_accuracy() -> None:
    table = read(FOLDER / "mmlu_test.json", options={"as_accuracy": True})
    assert table.quality[:5].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_a_folder_is_one_table() -> None:
    assert detect(FOLDER) == "routerdc"
    table = read(FOLDER)
    assert table.tasks == ("gsm8k", "gsm8k", "mbpp", "mmlu", "mmlu")
    assert table.splits == ("train", "train", None, "test", "test")


BAD = {
    "text": ([{"question": "", "scores": {"m": 1}}], "record 0: field 'question'"),
    "scores": ([{"question": "hi", "scores": [1]}], "record 0: field 'scores'"),
    "none": ([{"question": "hi", "scores": {}}], "record 0: field 'scores'"),
    "word": ([{"question": "hi", "scores": {"m": "good"}}], "record 0: score of 'm'"),
    "range": ([{"question": "hi", "scores": {"m": 2}}], "record 0: quality of 'm'"),
    "record": (["hi"], "record 0"),
    "list": ({"question": "hi"}, "a JSON list"),
    "model": ([{"question": "hi", "scores": {" ": 1}}], "record 0: model name"),
}


@pytest.mark.parametrize(("records", "where"), BAD.values(), ids=list(BAD))
def test_bad_records_are_named(tmp_path: Path, records: object, where: str) -> None:
    path = write(tmp_path / "a.json", json.dumps(records))
    with pytest.raises(TableError) as caught:
        read(path, format_name="routerdc")
    check_sentence(caught, "a.json", where, "allowed:", "got:")
