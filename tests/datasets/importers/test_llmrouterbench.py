"""LLMRouterBench's result files are read: the newest runs, without its zeros for what it does not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, extra, write
from turnout.core import InputError, TableError
from turnout.datasets import detect, read

BENCH = FIXTURES / "llmrouterbench" / "bench"
DOCUMENTED = FIXTURES / "llmrouterbench" / "documented"
GPT = BENCH / "aime" / "test" / "gpt-5" / "aime-test-gpt-5-20251001_120000.json"


def test_a_folder_of_runs_is_one_table() -> None:
    assert detect(BENCH) == "llmrouterbench"
    table = read(BENCH)
    assert table.names == ("Qwen3-8B", "gpt-5")
    assert [query.id for query in table.queries] == ["aime/test/1", "aime/test/2", "arenahard/test/1"]
    assert table.tasks == ("aime", "aime", "arenahard")
    assert table.splits == ("test",) * 3
    assert table.references == ("7", "4", None)
    assert table.queries[0].text == "Question: What is the sum of 3+4?\nAnswer:"
    assert column(table, "cost_usd")["aime/test/2", "gpt-5"] == 0.009
    assert column(table, "output_tokens")["aime/test/2", "gpt-5"] == 900.0
    assert extra(table, "answer")["aime/test/2", "gpt-5"] == '["3", "4"]'


def test_only_the_newest_run_counts() -> None:
    assert column(read(BENCH), "quality")["aime/test/1", "gpt-5"] == 1.0


def test_demo_runs_are_skipped_unless_asked_for() -> None:
    assert "demo-model" not in read(BENCH).names
    assert "demo-model" in read(BENCH, options={"include_demo": True}).names


def test_a_score_of_null_is_unknown() -> None:
    table = read(BENCH)
    assert column(table, "quality")["arenahard/test/1", "gpt-5"] is None
    assert column(table, "cost_usd")["arenahard/test/1", "gpt-5"] == 0.0004


@pytest.mark.parametrize("name", ["quality", "cost_usd", "input_tokens", "output_tokens"])
def test_a_failed_call_is_unknown_throughout(name: str) -> None:
    assert column(read(BENCH), name)["aime/test/2", "Qwen3-8B"] is None


def test_a_run_without_prices_has_unknown_costs() -> None:
    table = read(BENCH)
    assert column(table, "cost_usd")["aime/test/1", "Qwen3-8B"] is None
    assert column(table, "input_tokens")["aime/test/1", "Qwen3-8B"] == 15.0


def test_the_documented_sample_takes_its_names_from_the_folders() -> None:
    table = read(DOCUMENTED)
    assert table.names == ("gpt-5",)
    assert table.queries[0].id == "aime/test/1"
    assert table.splits == ("test",)


def test_the_bare_question_can_be_chosen() -> None:
    assert read(GPT, options={"text": "origin_query"}).queries[0].text == "What is the sum of 3+4?"
    with pytest.raises(InputError, match="option 'text'; allowed: 'prompt' or 'origin_query'; got: 'raw'"):
        read(GPT, options={"text": "raw"})


def changed(tmp_path: Path, **fields: Any) -> Path:
    """Copy the gpt-5 run beside a run of another model whose second record has other fields."""
    shutil.copy(GPT, tmp_path / "a-20251001_120000.json")
    data = json.loads(GPT.read_text(encoding="utf-8"))
    data["model_name"] = "other"
    data["records"][1].update(fields)
    write(tmp_path / "b-20251001_120000.json", json.dumps(data))
    return tmp_path


def test_files_that_disagree_on_a_question_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        read(changed(tmp_path, prompt="Another question"))
    check_sentence(
        caught,
        "b-20251001_120000.json', record 2",
        "'aime/test/2'",
        "allowed: the same question",
        "one version",
    )


def test_a_question_that_the_first_file_lost_is_filled_in(tmp_path: Path) -> None:
    folder = changed(tmp_path)
    data = json.loads(GPT.read_text(encoding="utf-8"))
    data["records"][1].update(prompt="", origin_query="", ground_truth="", raw_output="Unexpected error: x")
    write(folder / "a-20251001_120000.json", json.dumps(data))
    table = read(folder)
    assert table.queries[1].text == "Question: How many primes lie below 10?\nAnswer:"
    assert table.references[1] == "4"


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"score": 7}, "record 2: quality of 'other'"),
        ({"score": "right"}, "record 2: field 'score'"),
        ({"cost": -1}, "record 2: cost_usd of 'other'"),
        ({"index": 1}, "record 1 repeats the query"),
        ({"index": "two"}, "a whole number 'index'"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, fields: dict[str, Any], where: str) -> None:
    # The prompt goes too, so that a wrong index does not first show as another question.
    with pytest.raises(TableError) as caught:
        read(changed(tmp_path, prompt="", origin_query="", **fields))
    check_sentence(caught, "b-20251001_120000.json", where, "allowed:")


def test_an_object_without_records_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"records": 3, "performance": 1}')
    with pytest.raises(TableError, match="allowed: an object with a list 'records'"):
        read(path)
