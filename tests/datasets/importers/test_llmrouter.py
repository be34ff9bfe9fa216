"""LLMRouter's routing data is read; a failed call is unknown, not wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, extra, write
from turnout.core import InputError, TableError
from turnout.datasets import detect, read

FOLDER = FIXTURES / "llmrouter"
TRAIN = FOLDER / "default_routing_train_data.jsonl"
PRICES = FOLDER / "default_llm.json"
CHATQA, QWEN = "llama3-chatqa-1.5-8b", "qwen2.5-7b-instruct"
APPLES, RIVER = "default_routing_train_data/1", "default_routing_train_data/3"


def test_every_field_of_the_sample_is_read() -> None:
    table = read(TRAIN)
    assert table.names == (CHATQA, QWEN)
    assert table.tasks == ("gsm8k", "mmlu")
    assert table.references == ("2", "B")
    assert table.splits == ("train", "train")
    assert column(table, "quality")[RIVER, QWEN] == 1.0
    assert column(table, "quality")[RIVER, CHATQA] == 0.0
    assert column(table, "input_tokens")[APPLES, CHATQA] == 449.0
    assert column(table, "output_tokens")[APPLES, CHATQA] == 4.0
    assert column(table, "latency_s")[APPLES, CHATQA] == 1.7864494324
    assert not table.has_costs
    assert table.queries[1].tags["metric"] == "em_mc"
    assert json.loads(table.queries[1].tags["choices"])["labels"] == ["A", "B"]
    assert table.queries[0].tags["embedding_id"] == "42"


@pytest.mark.parametrize("name", ["quality", "input_tokens", "output_tokens", "latency_s", "cost_usd"])
def test_a_failed_call_is_unknown_throughout(name: str) -> None:
    table = read(FOLDER, options={"prices": PRICES})
    assert column(table, name)[APPLES, QWEN] is None
    assert column(table, name)["default_routing_test_data/1", QWEN] is None
    assert str(extra(table, "response")[APPLES, QWEN]).startswith("API Error")


def test_no_key_enters_the_table() -> None:
    table = read(TRAIN)
    assert set(table.extras) == {"response", "user_id", "fig_id"} - {"user_id", "fig_id"}
    assert "abCdEfGhIj" not in repr(table.__dict__)


def test_prices_give_cards_and_costs() -> None:
    table = read(TRAIN, options={"prices": PRICES})
    card = table.candidates[1].price_card
    assert card is not None
    assert (card.input_usd_per_mtok, card.output_usd_per_mtok) == (0.2, 0.3)
    assert table.candidates[1].descriptors == {"params_b": 7.0}
    assert table.names == (CHATQA, QWEN)
    assert column(table, "cost_usd")[RIVER, QWEN] == pytest.approx((60 * 0.2 + 2 * 0.3) / 1e6, rel=1e-12)


def test_train_and_test_of_a_folder_are_one_table() -> None:
    assert detect(FOLDER) == "llmrouter"
    table = read(FOLDER)
    assert table.splits == ("test", "train", "train")
    assert column(table, "quality")["default_routing_test_data/1", CHATQA] == 0.5


def test_older_token_fields_are_read(tmp_path: Path) -> None:
    record = {"query": "hi", "model_name": "m", "performance": 1, "prompt_tokens": 7, "completion_tokens": 2}
    table = read(write(tmp_path / "a.jsonl", json.dumps(record)))
    assert (table.input_tokens.tolist(), table.output_tokens.tolist()) == ([7.0], [2.0])


def test_a_repeated_row_is_refused_or_becomes_a_sample(tmp_path: Path) -> None:
    line = TRAIN.read_text(encoding="utf-8").splitlines()[0]
    path = write(tmp_path / "a.jsonl", f"{line}\n{line}\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(
        caught, "a.jsonl', line 2 repeats", f"{CHATQA!r} of", "line 1", "allowed: every", "repeats='sample'"
    )
    assert read(path, options={"repeats": "sample"}).sample.tolist() == [0, 1]


def test_an_option_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="option 'repeats'; allowed: 'error' or 'sample'; got: 'drop'"):
        read(TRAIN, options={"repeats": "drop"})


def test_the_same_question_of_two_tasks_is_two_queries(tmp_path: Path) -> None:
    records = [
        {"task_name": task, "query": "hi", "model_name": "m", "performance": 1, "token_num": 3}
        for task in ("a", "b")
    ]
    table = read(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records))))
    assert table.tasks == ("a", "b")


def test_a_missing_field_names_line_and_field(tmp_path: Path) -> None:
    lines = TRAIN.read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[1])
    del record["performance"]
    path = write(tmp_path / "a.jsonl", f"{lines[0]}\n{json.dumps(record)}\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(
        caught, "a.jsonl', line 2: the field 'performance' is missing", "null if unknown", "got: ["
    )


def test_a_table_of_task_means_is_no_table_of_queries(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"task_name": "gsm8k", "model_name": "m", "performance": 0.55}')
    with pytest.raises(TableError, match="the field 'query' is missing"):
        read(path, format_name="llmrouter")


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("performance", 1.2, "line 1: quality of"),
        ("performance", "high", "line 1: field 'performance'"),
        ("output_tokens", -4, "line 1: output_tokens of"),
        ("query", 7, "line 1: field 'query'"),
        ("model_name", "", "line 1: field 'model_name'"),
    ],
)
def test_bad_values_name_line_and_field(tmp_path: Path, field: str, value: object, where: str) -> None:
    record = json.loads(TRAIN.read_text(encoding="utf-8").splitlines()[0])
    path = write(tmp_path / "a.jsonl", json.dumps({**record, field: value}))
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.jsonl", where, "allowed:", f"got: {value!r}"[:10])


@pytest.mark.parametrize("prices", ["[1]", '{"m": 3}'])
def test_a_wrong_price_file_is_named(tmp_path: Path, prices: str) -> None:
    path = write(tmp_path / "prices.json", prices)
    with pytest.raises(TableError, match=r"prices\.json'; allowed: an object"):
        read(TRAIN, options={"prices": path})


def test_a_price_that_is_missing_stays_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "prices.json", json.dumps({QWEN: {"input_price": 0.2, "size": "large"}}))
    candidate = read(TRAIN, options={"prices": path}).candidates[1]
    assert candidate.price_card is None
    assert candidate.descriptors == {}
