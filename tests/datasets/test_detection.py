"""A format is recognised by exactly one importer, and where it is unclear the formats are listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, write
from turnout.core import InputError, Registry, TableError
from turnout.datasets import detect, detection, formats, load, read, registry, synthetic

EXPECTED = {
    "routerbench/routerbench_0shot_sample.csv": "routerbench",
    "routellm/mmlu_astronomy.csv": "routellm",
    "routellm/gsm8k_responses.csv": "routellm",
    "routellm": "routellm",
    "routerdc/mbpp.json": "routerdc",
    "routerdc/gsm8k-train.json": "routerdc",
    "routerdc": "routerdc",
    "llmrouter/default_routing_train_data.jsonl": "llmrouter",
    "llmrouter": "llmrouter",
    "llmrouterbench/documented/aime/test/gpt-5/20251001_120000.json": "llmrouterbench",
    "llmrouterbench": "llmrouterbench",
    "notdiamond/evaluation_data.csv": "notdiamond",
    "vllm_sr/benchmark_output.jsonl": "vllm_sr",
}


@pytest.mark.parametrize(("path", "name"), EXPECTED.items())
def test_every_fixture_is_recognised_by_exactly_its_format(path: str, name: str) -> None:
    assert detect(FIXTURES / path) == name


def test_a_table_folder_is_recognised(tmp_path: Path) -> None:
    assert detect(synthetic(num_queries=3).table.save(tmp_path / "t")) == "folder"


def test_a_file_that_two_formats_recognise_is_not_guessed() -> None:
    path = "turnout.datasets.importers.routerdc:RouterDC"
    with pytest.raises(InputError, match="is not clear, it may be one or two; got: "):
        detection.detect(FIXTURES / "routerdc", registry=Registry("datasets", {"one": path, "two": path}))


def test_a_folder_that_is_no_table_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    check_sentence(caught, f"the format of {str(tmp_path)!r} is unknown", "got: ", *registry)


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("a.csv", "question,answer\nhi,ho\n", "a csv with question, answer"),
        ("a.jsonl", '{"text": "hi"}\n', "a jsonl with text"),
        ("a.json", "[1, 2]", "a json with no columns"),
        ("a.txt", "hello\n", "other"),
        ("a.csv", "", "a csv with no columns"),
    ],
)
def test_an_unclear_file_lists_the_formats(tmp_path: Path, name: str, text: str, seen: str) -> None:
    with pytest.raises(InputError) as caught:
        detect(write(tmp_path / name, text))
    check_sentence(caught, f"{name}' is unknown", seen, "name the format yourself", *formats())


def test_a_damaged_parquet_and_a_damaged_ledger_are_named_while_detecting(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TableError, match=r"a\.parquet' cannot be read as parquet"):
        detect(tmp_path / "a.parquet")
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + b"x" * 200)
    with pytest.raises(TableError, match=r"a\.db' cannot be read as SQLite"):
        detect(tmp_path / "a.db")


@pytest.mark.parametrize("path", EXPECTED)
def test_an_imported_table_survives_saving_and_loading(path: str, tmp_path: Path) -> None:
    table = read(FIXTURES / path)
    again = load(table.save(tmp_path / "t"))
    assert again.fingerprint == table.fingerprint
    assert again.names == table.names


def test_every_format_has_a_summary_of_one_line() -> None:
    assert set(formats()) == set(registry)
    assert all(text and "\n" not in text for text in formats().values())
