"""RouteLLM's answer tables are read, one file or a folder of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, extra, write
from turnout.core import TableError
from turnout.datasets import detect, read

FOLDER = FIXTURES / "routellm"
WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"


def test_true_and_false_become_one_and_zero_and_an_empty_cell_stays_unknown() -> None:
    table = read(FOLDER / "mmlu_astronomy.csv")
    assert table.names == (WEAK, STRONG)
    assert table.tasks == ("mmlu_astronomy",) * 3
    assert column(table, "quality") == {
        ("mmlu_astronomy/0", WEAK): 1.0,
        ("mmlu_astronomy/0", STRONG): 1.0,
        ("mmlu_astronomy/1", WEAK): 0.0,
        ("mmlu_astronomy/1", STRONG): 1.0,
        ("mmlu_astronomy/2", WEAK): None,
        ("mmlu_astronomy/2", STRONG): 0.0,
    }
    assert (
        table.queries[1].text
        == 'A "light year" is a measure of\nA. time\nB. mass\nC. distance\nD. speed\nAnswer:'
    )
    assert not table.has_costs


def test_responses_are_kept() -> None:
    table = read(FOLDER / "gsm8k_responses.csv")
    assert table.tasks == ("gsm8k", "gsm8k")
    responses = extra(table, "response")
    assert responses["gsm8k_responses/1", STRONG] == "Seven days of 4 km are 28 km."
    assert responses["gsm8k_responses/0", WEAK] == " 12 / 3 = 4 and 4 * 2 = 8.\n#### 8"


def test_a_folder_is_one_table() -> None:
    assert detect(FOLDER) == "routellm"
    table = read(FOLDER)
    assert [query.id for query in table.queries] == [
        "gsm8k_responses/0",
        "gsm8k_responses/1",
        "mmlu_astronomy/0",
        "mmlu_astronomy/1",
        "mmlu_astronomy/2",
    ]
    assert table.quality_QM.shape == (5, 2)


def test_the_task_can_be_given() -> None:
    assert set(read(FOLDER, options={"task": "all"}).tasks) == {"all"}


def test_a_response_without_its_model_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,m,n_response\nhi,True,text\n")
    with pytest.raises(TableError) as caught:
        read(path, format_name="routellm")
    check_sentence(caught, "a.csv' has columns", "<model>_response beside its <model>", "got: ['n_response']")


def test_a_word_for_a_score_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,m\nhi,yes\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv', line 2: column 'm'", "got: 'yes'")


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="holds no outcome"):
        read(tmp_path, format_name="routellm")
