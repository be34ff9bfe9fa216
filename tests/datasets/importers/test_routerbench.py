"""RouterBench's wide table is read as it was exported, and its pickle is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, extra, write
from turnout.core import TableError, UnknownNameError
from turnout.datasets import detect, load, read

SAMPLE = FIXTURES / "routerbench" / "routerbench_0shot_sample.csv"
HEADER = "sample_id,prompt,eval_name,m,m|model_response,m|total_cost,oracle_model_to_route_to\n"


def test_every_cell_of_the_sample_is_read() -> None:
    table = read(SAMPLE)
    assert table.names == ("claude-instant-v1", "gpt-4-1106-preview", "mistralai/mistral-7b-chat")
    assert table.tasks == ("mmlu-astronomy", "mbpp", "mtbench", "grade-school-math")
    assert [query.id for query in table.queries][2] == "mtbench.writing.3"
    quality = column(table, "quality")
    assert quality["mtbench.writing.3", "claude-instant-v1"] is None
    assert quality["mtbench.writing.3", "gpt-4-1106-preview"] == 0.85
    assert [quality["grade-school-math.dev.40", name] for name in table.names] == [0.0, 0.0, 0.0]
    cost_usd = column(table, "cost_usd")
    assert cost_usd["mbpp.dev.7", "mistralai/mistral-7b-chat"] == 2.1000000000000002e-05
    assert cost_usd["mtbench.writing.3", "claude-instant-v1"] is None
    assert table.splits == (None,) * 4


def test_lists_of_turns_become_text() -> None:
    table = read(SAMPLE)
    assert table.queries[0].text is not None
    assert table.queries[0].text.startswith(
        "Please answer with the letter of the correct answer.\n\nWhich body"
    )
    assert 'from "A" or "B"' in table.queries[0].text
    assert table.queries[2].text == (
        'Name a river, and say why you chose it.\n\nNow answer in one word, with a "quote".'
    )
    responses = extra(table, "response")
    assert responses["mtbench.writing.3", "gpt-4-1106-preview"] == "The Rhone, for its light.\n\nRhone"
    assert responses["mtbench.writing.3", "claude-instant-v1"] is None


def test_the_oracle_column_does_not_enter_the_table() -> None:
    table = read(SAMPLE)
    assert set(table.extras) == {"response"}
    assert all("oracle" not in query.tags for query in table.queries)


def test_responses_can_be_left_out() -> None:
    assert read(SAMPLE, options={"responses": False}).extras == {}


def test_parquet_and_csv_give_the_same_table(tmp_path: Path) -> None:
    data = pyarrow.csv.read_csv(SAMPLE, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    pq.write_table(data, tmp_path / "routerbench.parquet")
    assert detect(tmp_path / "routerbench.parquet") == "routerbench"
    assert load(tmp_path / "routerbench.parquet").fingerprint == read(SAMPLE).fingerprint


def test_a_nan_in_parquet_is_unknown(tmp_path: Path) -> None:
    columns = {
        "sample_id": [1],
        "prompt": ["hi"],
        "eval_name": ["t"],
        "m": [float("nan")],
        "m|total_cost": [0.5],
    }
    pq.write_table(pa.table(columns), tmp_path / "wide.parquet")
    table = read(tmp_path / "wide.parquet")
    assert column(table, "quality") == {("1", "m"): None}
    assert column(table, "cost_usd") == {("1", "m"): 0.5}


@pytest.mark.parametrize("label", ["", "Unnamed: 0"])
def test_the_row_labels_of_pandas_are_passed_over(tmp_path: Path, label: str) -> None:
    path = write(tmp_path / "a.csv", f"{label},{HEADER}20693,1,hi,t,1.0,x,0.1,m\n")
    assert detect(path) == "routerbench"
    assert column(read(path), "quality") == {("1", "m"): 1.0}


def test_a_cell_that_only_looks_like_a_list_stays_as_it_is(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", HEADER + r'1,"[a] \d+",t,1.0,"[1, 2]",0.1,m' + "\n" + r"2,['\d'],t,1.0,x,0.1,m"
    )
    table = read(path)
    assert [query.text for query in table.queries] == [r"[a] \d+", r"\d"]
    assert extra(table, "response")["1", "m"] == "[1, 2]"


def test_a_pickle_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "routerbench_0shot.pkl"
    path.write_bytes(pickle.dumps({"sample_id": ["a"]}))
    for call in (lambda: load(path), lambda: detect(path), lambda: read(path, format_name="routerbench")):
        with pytest.raises(TableError) as caught:
            call()
        check_sentence(
            caught,
            "routerbench_0shot.pkl' is a pickle",
            "can run any code",
            "allowed: csv, parquet",
            "pandas.read_pickle('routerbench_0shot.pkl').to_parquet('routerbench_0shot.parquet')",
        )


def test_a_pickle_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(pickle.dumps({"sample_id": ["a"]}))
    with pytest.raises(TableError, match="is a pickle"):
        read(path, format_name="routerbench")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "sample_id,eval_name,m,m|total_cost\n1,t,1.0,0.1\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv' lacks the column 'prompt'", "allowed: at least", "got: ['eval_name', 'm',")


def test_a_column_that_nothing_explains_is_refused_or_ignored(tmp_path: Path) -> None:
    text = "sample_id,prompt,eval_name,m,m|total_cost,embedding\n1,hi,t,1.0,0.1,0.7\n"
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv' has columns", "allowed:", "got: ['embedding']", "the option 'ignore'")
    assert read(path, options={"ignore": ["embedding"]}).names == ("m",)


def test_a_table_without_models_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "sample_id,prompt,eval_name\n1,hi,t\n")
    with pytest.raises(TableError, match="lacks the column '<model>'"):
        read(path)


def test_a_repeated_sample_id_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + "1,hi,t,1.0,x,0.1,m\n1,ho,t,1.0,x,0.1,m\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv', line 3: the query '1' stands twice", "allowed: every query once")


@pytest.mark.parametrize("cell", ["1.5", "-0.1"])
def test_quality_outside_the_range_names_line_and_model(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "a.csv", HEADER + f"1,hi,t,1.0,x,0.1,m\n2,ho,t,{cell},x,0.1,m\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv', line 3: quality of 'm'", "[0, 1]", f"got: {cell}", "rescale")


def test_a_negative_cost_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + "1,hi,t,1.0,x,-0.1,m\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "line 2: cost_usd of 'm'", "at least 0", "got: -0.1")


@pytest.mark.parametrize("cell", ["nan", "inf", "good", "1,0"])
def test_a_cell_that_is_no_number_is_refused(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "a.csv", HEADER + f'1,hi,t,"{cell}",x,0.1,m\n')
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(
        caught, "a.csv', line 2: column 'm'", "allowed: a finite number, or empty", f"got: {cell!r}"
    )


@pytest.mark.parametrize(
    ("row", "name"), [(",hi,t,1.0,x,0.1,m", "sample_id"), ("1,,t,1.0,x,0.1,m", "prompt")]
)
def test_an_empty_text_is_refused(tmp_path: Path, row: str, name: str) -> None:
    path = write(tmp_path / "a.csv", HEADER + row + "\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, f"line 2: column {name!r}", "allowed: text that is not empty")


def test_an_unknown_option_is_refused() -> None:
    from turnout.core import InputError

    with pytest.raises(InputError) as caught:
        read(SAMPLE, options={"response": False})
    check_sentence(caught, "no option 'response'", "did you mean 'responses'?")


def test_an_unknown_format_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="routerbench"):
        read(SAMPLE, format_name="router-bench")
