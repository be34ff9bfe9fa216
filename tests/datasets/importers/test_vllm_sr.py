"""The benchmark of the vLLM semantic router is read without its two poisoned scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, write
from turnout.core import TableError
from turnout.datasets import detect, read

SAMPLE = FIXTURES / "vllm_sr" / "benchmark_output.jsonl"
SMALL, LARGE = "llama3.2:1b", "mistral:7b"
LISBON, SKY, SUM, LIST = (f"benchmark_output/{i}" for i in (1, 3, 6, 8))


def test_the_sample_is_recognised() -> None:
    assert detect(SAMPLE) == "vllm_sr"


def test_rows_without_ground_truth_scored_a_half_are_unknown() -> None:
    quality = column(read(SAMPLE), "quality")
    assert quality[SKY, SMALL] is None
    assert quality[SKY, LARGE] is None


def test_a_half_against_a_ground_truth_is_a_score() -> None:
    assert column(read(SAMPLE), "quality")[SUM, LARGE] == 0.5


def test_other_scores_without_ground_truth_are_kept() -> None:
    assert column(read(SAMPLE), "quality")[LIST, SMALL] == 0.85


def test_neutral_scores_can_be_kept() -> None:
    assert column(read(SAMPLE, options={"keep_neutral": True}), "quality")[SKY, SMALL] == 0.5


def test_a_failed_call_is_unknown_and_a_wrong_answer_is_zero() -> None:
    table = read(SAMPLE)
    assert column(table, "quality")[LISBON, LARGE] is None
    assert column(table, "latency_s")[LISBON, LARGE] is None
    assert column(table, "quality")[SUM, SMALL] == 0.0


def test_latency_is_in_seconds_and_the_task_is_the_category() -> None:
    table = read(SAMPLE)
    assert column(table, "latency_s")[LISBON, SMALL] == 1.2
    assert table.tasks == ("other", "physics", "math", "computer science")
    assert table.references == ("Lisbon", None, "56", None)
    assert table.queries[2].tags == {"metric": "GSM8K", "category": "math"}


def test_the_task_name_stands_in_for_a_category(tmp_path: Path) -> None:
    record = {"query": "hi", "model_name": "m", "performance": 1.0, "task_name": "greetings"}
    path = write(tmp_path / "a.jsonl", json.dumps(record))
    assert detect(path) == "vllm_sr"
    assert read(path).tasks == ("greetings",)


def test_a_bad_score_names_line_and_field(tmp_path: Path) -> None:
    good = {"query": "hi", "model_name": "m", "performance": 1.0}
    path = write(tmp_path / "a.jsonl", f"{json.dumps(good)}\n\n{json.dumps({**good, 'performance': [1]})}\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.jsonl', line 3: field 'performance'", "allowed: a finite number", "got: [1]")
