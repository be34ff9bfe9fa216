"""A format is recognised by exactly one importer, and where it is unclear the formats are listed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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
    with pytest.raises(InputError, match=r"is not clear, it may be one or two; allowed: .*; got: "):
        detection.detect(FIXTURES / "routerdc", registry=Registry("datasets", {"one": path, "two": path}))


def test_a_folder_that_is_no_table_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    check_sentence(
        caught, f"the format of {str(tmp_path)!r} is unknown", "got: 'a folder of no data'", *registry
    )


@pytest.mark.parametrize(
    ("kept", "lacks"),
    [
        (["outcomes.parquet"], "lacks queries.parquet; "),
        (["queries.parquet", "models.parquet"], "lacks outcomes.parquet; "),
        (["models.parquet"], "lacks queries.parquet and outcomes.parquet; "),
    ],
)
def test_a_folder_with_a_part_of_a_table_names_the_file_that_is_missing(
    tmp_path: Path, kept: list[str], lacks: str
) -> None:
    folder = synthetic(num_queries=3).table.save(tmp_path / "t")
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    for see in (load, detect, lambda path: read(path, format_name="folder")):
        with pytest.raises(TableError) as caught:
            see(folder)
        check_sentence(caught, "/t' " + lacks, "allowed: a folder with queries.parquet and outcomes.parquet")
        check_sentence(caught, f"got: '{', '.join(sorted(kept, reverse=True))}'", "write the table again")


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("a.csv", "question,answer\nhi,ho\n", "a csv with question, answer"),
        ("a.jsonl", '{"text": "hi"}\n', "a jsonl with text"),
        ("a.json", "[1, 2]", "a json with no columns"),
        ("a.json", '{"a": 1,\n"b": 2}', "a json with a, b"),
        ("a.txt", "hello\n", "text of no kind that is known here"),
        ("a.csv", "x" * 500 + ",\x1b[31mred\n", "a csv with " + "x" * 21 + "..., \\x1b[31mred'"),
    ],
)
def test_an_unclear_file_lists_the_formats(tmp_path: Path, name: str, text: str, seen: str) -> None:
    with pytest.raises(InputError) as caught:
        detect(write(tmp_path / name, text))
    check_sentence(caught, f"{name}' is unknown", seen, "name the format yourself", *formats())
    assert len(str(caught.value)) < 500, "short enough to be read"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", ("a.csv' is empty; allowed: a table; check",)),
        ("a.json", b" \n\n", ("a.json' is empty; ",)),
        ("a.csv", b"\xfe\x00\xff junk, more", ("binary file of an unknown kind", "at offset 1;", "SQLite")),
        (
            "junk",
            b"no kind \xff\xfe",
            ("junk' is not UTF-8 at byte offset 8;", "got: '0xff'", "save it as UTF-8"),
        ),
        ("b.csv", b"\xef\xbb\xbfa,\xe9\n", ("b.csv' is not UTF-8 at byte offset 5;", "got: '0xe9'")),
        (
            "a.json",
            b'{"a": [1, 2',
            ("a.json', line 1, column 12: malformed JSON; allowed: ", "where it was cut"),
        ),
        ("a.json", b'[\n{"question": "x"},\n{"que', ("a.json', line 3, column 2: malformed JSON",)),
        ("a.jsonl", b'{"query": "a", "model_name":', ("a.jsonl', line 1, column 29: malformed JSON",)),
        (
            "a.jsonl",
            b'\n{"query": a}\n',
            ("a.jsonl', line 2, column 11: malformed JSON; allowed: one JSON ",),
        ),
    ],
)
def test_junk_is_called_what_it_is_with_the_place(
    tmp_path: Path, name: str, content: bytes, words: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError) as caught:
        detect(tmp_path / name)
    check_sentence(caught, *words)
    message = str(caught.value)
    assert message.isprintable()
    assert "\ufffd" not in message
    assert len(message.replace(str(tmp_path), "")) < 250


def test_a_broken_file_in_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '{"a": [1, 2')
    with pytest.raises(TableError, match=r"a\.json', line 1, column 12: malformed JSON"):
        detect(tmp_path)


def test_a_character_on_the_edge_of_the_first_megabyte_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,m\n" + b"x" * ((1 << 20) - 10) + "\u20ac,True\n".encode())
    assert detect(path) == "routellm"


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


_CANONICAL = [
    ("prompt", "model", "quality"),
    ("prompt", "model", "quality", "cost"),
    ("prompt", "llm", "score", "cost_usd"),
    ("prompt", "candidate", "accuracy", "latency_s"),
    ("prompt", "model_name", "correct", "task"),
    ("prompt", "model_name", "performance", "split", "reference", "response"),
    ("Prompt", "Model", "Score"),
    ("question", "model", "correct", "category", "answer"),
    ("query", "model", "quality", "prompt_tokens", "completion_tokens"),
    ("text", "llm", "performance", "group", "ground_truth"),
    ("query", "model_name", "performance", "cost"),
    ("query", "model_name", "performance", "id", "input_tokens", "output_tokens"),
    ("query", "model_name", "performance", "category", "cost_usd"),
    ("query", "model_name", "performance", "latency_s", "split"),
    ("prompt_id", "model", "score"),
    ("question_id", "prompt", "llm", "quality", "task_name"),
    ("id", "text", "candidate", "quality"),
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("columns", _CANONICAL, ids="-".join)
def test_columns_of_known_names_are_a_long_table(tmp_path: Path, columns: tuple[str, ...], kind: str) -> None:
    """Whatever else begins with a prompt: nothing that such a file says is read as another's, or dropped."""
    measured = {"quality", "score", "performance", "correct", "accuracy", "cost", "cost_usd", "latency_s"}
    values = {name: 0.5 if name.lower() in measured else f"the {name}" for name in columns}
    values |= {name: 3 for name in columns if name.endswith("_tokens")}
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        write(path, f"{','.join(columns)}\n{','.join(str(values[name]) for name in columns)}\n")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist([values]), path)
    else:
        write(path, json.dumps([values] if kind == "json" else values) + "\n")
    assert detect(path) == "long"
    table = read(path)
    assert (len(table.queries), table.num_rows, table.quality[0]) == (1, 1, 0.5)
    assert table.has_costs == bool({"cost", "cost_usd"} & {*columns})


@pytest.mark.parametrize("header", ["prompt,model,stars", "prompt,gpt-4,score", "prompt,llm,opus"])
def test_a_wide_table_has_no_column_of_models_or_of_scores(tmp_path: Path, header: str) -> None:
    """Rather unknown than a model called `model`: the sentence says how to name the columns."""
    with pytest.raises(InputError, match=r"is unknown; .*docs/datasets\.md"):
        detect(write(tmp_path / "a.csv", f"{header}\nhi,1,1\n"))
