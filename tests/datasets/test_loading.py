"""Tables are found by name or path, and whatever is wrong with them is said in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import turnout
from tests.datasets.tables import FIXTURES, check_sentence, write
from turnout.core import InputError, OutcomeTable, Registry, TableError, UnknownNameError
from turnout.datasets import detect, detection, formats, load, names, read, registry, synthetic

BUNDLED = {
    "reason18": (2119, 18, 38142, 0.7825, {"gsm8k": 1319, "cruxeval": 800}),
    "open9": (3739, 9, 33651, 0.4667, None),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_hold_what_their_notice_says(name: str) -> None:
    queries, candidates, rows, mean_quality, tasks = BUNDLED[name]
    table = load(name)
    assert (len(table.queries), len(table.candidates), table.num_rows) == (queries, candidates, rows)
    assert round(float(table.quality_QM.mean()), 4) == mean_quality
    assert set(table.splits) == {"train", "test"}
    assert np.isfinite(table.cost_usd).all()
    assert np.isnan(table.latency_s).all()
    assert all(candidate.price_card is not None for candidate in table.candidates)
    assert all(query.text for query in table.queries)
    if tasks is not None:
        assert {task: table.tasks.count(task) for task in set(table.tasks)} == tasks


def test_reason18_carries_answers_and_references() -> None:
    table = load("reason18")
    assert list(table.extras) == ["answer"]
    row = next(
        n
        for n in range(table.num_rows)
        if table.queries[table.query_index[n]].id == "crux/0" and table.candidate_index[n] == 0
    )
    assert table.extras["answer"][row] == "[(4, 1), (2, 3)]"
    assert table.references[[query.id for query in table.queries].index("gsm/0")] == "18"


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_carry_their_notices(name: str) -> None:
    folder = Path(turnout.__file__).parent / "datasets" / "examples" / name
    assert "MIT License" in (folder / "NOTICE.md").read_text(encoding="utf-8")
    assert (folder / "SOURCE.md").exists()
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert ("Apache License" if name == "reason18" else "MIT License") in licence


@pytest.mark.parametrize("name", BUNDLED)
def test_a_table_survives_saving_and_loading(name: str, tmp_path: Path) -> None:
    table = load(name)
    again = load(table.save(tmp_path / "copy"))
    assert again.fingerprint == table.fingerprint
    assert {n: list(v) for n, v in again.extras.items()} == {n: list(v) for n, v in table.extras.items()}


def test_synthetic_loads_by_name() -> None:
    assert load("synthetic").fingerprint == synthetic().table.fingerprint


def test_a_foreign_file_loads_by_path() -> None:
    path = FIXTURES / "routerdc" / "mbpp.json"
    assert load(path).fingerprint == load(str(path)).fingerprint == read(path).fingerprint


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for TURNOUT_DATA with a table in each place where one is looked for."""
    for seed, name in enumerate(
        ("mine", "examples/theirs", "outcomes/old", "outcomes/mine", "outcomes/open9")
    ):
        synthetic(num_queries=10, seed=seed).table.save(tmp_path / name)
    (tmp_path / "outcomes" / "notes").mkdir()
    monkeypatch.setenv("TURNOUT_DATA", str(tmp_path))
    return tmp_path


def test_names_below_the_data_folder_are_found(data: Path) -> None:
    assert names() == ("open9", "reason18", "synthetic", "mine", "theirs", "old")
    assert load("theirs").fingerprint == synthetic(num_queries=10, seed=1).table.fingerprint
    assert load("old").fingerprint == synthetic(num_queries=10, seed=2).table.fingerprint
    assert load("mine").fingerprint == synthetic(num_queries=10, seed=0).table.fingerprint


def test_a_bundled_name_comes_first_and_a_path_says_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data / "outcomes")
    assert len(load("open9").queries) == 3739
    assert len(load("./open9").queries) == 10


def test_an_unknown_name_gets_a_suggestion(data: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("reason8")
    check_sentence(
        caught, "no table is called 'reason8'", "allowed: ", "TURNOUT_DATA", "did you mean 'reason18'"
    )
    with pytest.raises(UnknownNameError, match="did you mean 'theirs'"):
        load("their")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
def test_a_name_that_can_be_no_path_is_only_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError, match="no table is called"):
        load(name)


def test_without_the_variable_only_the_shipped_names_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNOUT_DATA", raising=False)
    assert names() == ("open9", "reason18", "synthetic")


def test_responses_are_joined_when_asked_for(tmp_path: Path) -> None:
    table = synthetic(num_queries=3, num_candidates=2, num_samples=2).table
    folder = table.save(tmp_path / "t")
    columns = {
        "query_id": ["q1", "q1"],
        "model": ["model0", "model0"],
        "sample": [1, 0],
        "response": ["b", "a"],
    }
    pq.write_table(pa.table(columns), folder / "responses.parquet")
    assert "response" not in load(folder).extras
    joined = load(folder, responses=True)
    found = {
        (table.queries[q].id, joined.names[m], int(s)): response
        for q, m, s, response in zip(
            joined.query_index, joined.candidate_index, joined.sample, joined.extras["response"], strict=True
        )
        if response is not None
    }
    assert found == {("q1", "model0", 0): "a", ("q1", "model0", 1): "b"}
    assert joined.fingerprint == table.fingerprint


def test_asking_for_responses_that_are_not_there_is_an_error(tmp_path: Path) -> None:
    folder = synthetic(num_queries=3).table.save(tmp_path / "t")
    with pytest.raises(TableError, match=r"'responses\.parquet' is missing in"):
        load(folder, responses=True)


def broken(folder: Path, file: str, **columns: object) -> Path:
    """Save a small table and replace columns of one of its files (None drops one)."""
    synthetic(num_queries=4, num_candidates=2).table.save(folder)
    data = pq.read_table(folder / file)
    for name, values in columns.items():
        if name in data.column_names:
            data = data.drop_columns([name])
        if values is not None:
            data = data.append_column(name, pa.array(values))
    pq.write_table(data, folder / file)
    return folder


BAD_TABLES: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "no quality": ("outcomes.parquet", {"quality": None}, ("outcomes.parquet' lacks the column 'quality'",)),
    "no query id": ("queries.parquet", {"query_id": None}, ("queries.parquet' lacks the column 'query_id'",)),
    "text for quality": (
        "outcomes.parquet",
        {"quality": ["good"] * 8},
        ("outcomes.parquet: column 'quality'", "allowed: a column of numbers", "string"),
    ),
    "quality above one": (
        "outcomes.parquet",
        {"quality": [0.5, 1.5] + [0.0] * 6},
        ("quality in row 1", "'q0'", "'model1'", "[0, 1]", "got: 1.5"),
    ),
    "quality infinite": (
        "outcomes.parquet",
        {"quality": [float("inf")] + [0.0] * 7},
        ("quality in row 0", "got: inf"),
    ),
    "cost below zero": (
        "outcomes.parquet",
        {"cost_usd": [-1.0] + [0.0] * 7},
        ("cost_usd in row 0", "at least 0", "got: -1.0"),
    ),
    "a repeated row": (
        "outcomes.parquet",
        {"model": ["model0", "model0", *["model0", "model1"] * 3]},
        ("repeats (query 'q0', candidate 'model0', sample 0)", "allowed: every"),
    ),
    "a query from nowhere": (
        "outcomes.parquet",
        {"query_id": ["q0"] * 2 + ["lost"] * 2 + ["q1"] * 2 + ["q2"] * 2},
        ("outcomes.parquet: row 2 names a query", "got: 'lost'"),
    ),
    "a number for an id": (
        "queries.parquet",
        {"query_id": [0, 1, 2, 3]},
        ("column 'query_id', row 0", "a string"),
    ),
    "a null model": (
        "outcomes.parquet",
        {"model": [None] + ["model0"] * 7},
        ("column 'model', row 0", "allowed: a string"),
    ),
    "tags that are no json": ("queries.parquet", {"tags": ["{"] * 4}, ("tags",)),
    "a candidate that is none": (
        "models.parquet",
        {"candidate": ['{"made": 1}'] * 2},
        ("cannot be read", "made"),
    ),
    "a price below zero": (
        "models.parquet",
        {"candidate": None, "input_usd_per_m": [-1.0, 1.0]},
        ("PriceCard.input_usd_per_mtok", "got: -1.0"),
    ),
}


@pytest.mark.parametrize(("file", "columns", "parts"), BAD_TABLES.values(), ids=list(BAD_TABLES))
def test_a_wrong_folder_is_named(
    tmp_path: Path, file: str, columns: dict[str, object], parts: tuple[str, ...]
) -> None:
    folder = broken(tmp_path / "t", file, **columns)
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, str(folder), *parts)


def test_a_query_that_stands_twice_is_named(tmp_path: Path) -> None:
    folder = synthetic(num_queries=4).table.save(tmp_path / "t")
    data = pq.read_table(folder / "queries.parquet")
    pq.write_table(pa.concat_tables([data, data.slice(2, 1)]), folder / "queries.parquet")
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, str(folder), "every id once", "got: ['q2']")


def test_unknown_values_are_null_on_disk_and_unknown_in_memory(tmp_path: Path) -> None:
    folder = broken(tmp_path / "t", "outcomes.parquet", quality=[None] * 7 + [1.0], latency_s=None)
    table = load(folder)
    assert np.isnan(table.quality[:7]).all()
    assert np.isnan(table.latency_s).all()
    assert table.observed_QM.sum() == 1


def test_further_columns_become_extras(tmp_path: Path) -> None:
    folder = broken(tmp_path / "t", "outcomes.parquet", judge=["a"] * 8)
    assert list(load(folder).extras["judge"]) == ["a"] * 8


@pytest.mark.parametrize("file", ["queries.parquet", "outcomes.parquet", "models.parquet"])
def test_a_damaged_parquet_is_named(tmp_path: Path, file: str) -> None:
    folder = synthetic(num_queries=50).table.save(tmp_path / "t")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, f"{file}' cannot be read as parquet", "got: ", "write or download it again")


def test_text_that_is_not_utf8_in_parquet_is_named(tmp_path: Path) -> None:
    folder = synthetic(num_queries=2).table.save(tmp_path / "t")
    raw = pa.array([b"caf\xe9", b"ok"], pa.binary()).view(pa.string())
    data = pq.read_table(folder / "queries.parquet").drop_columns(["text"]).append_column("text", raw)
    pq.write_table(data, folder / "queries.parquet")
    with pytest.raises(TableError) as caught:
        load(folder)
    check_sentence(caught, str(folder), "cannot be read", "utf-8")


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


def test_a_file_that_two_formats_recognise_is_not_guessed() -> None:
    path = "turnout.datasets.importers.routerdc:RouterDC"
    with pytest.raises(InputError, match="is not clear, it may be one or two; got: "):
        detection.detect(FIXTURES / "routerdc", registry=Registry("datasets", {"one": path, "two": path}))


def test_a_table_folder_is_recognised(tmp_path: Path) -> None:
    assert detect(synthetic(num_queries=3).table.save(tmp_path / "t")) == "folder"


@pytest.mark.parametrize("path", EXPECTED)
def test_an_imported_table_survives_saving_and_loading(path: str, tmp_path: Path) -> None:
    table = read(FIXTURES / path)
    again = load(table.save(tmp_path / "t"))
    assert again.fingerprint == table.fingerprint
    assert again.names == table.names


def test_every_format_has_a_summary_of_one_line() -> None:
    assert set(formats()) == set(registry)
    assert all(text and "\n" not in text for text in formats().values())


def test_the_room_is_light() -> None:
    code = "import sys, turnout.datasets; print([m for m in ('pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_door_loads_tables() -> None:
    assert isinstance(turnout.load_table("reason18"), OutcomeTable)
