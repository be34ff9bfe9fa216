"""Not Diamond's training CSV is read, scores of any scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.tables import FIXTURES, check_sentence, column, extra, write
from turnout.core import InputError, TableError
from turnout.datasets import detect, read

SAMPLE = FIXTURES / "notdiamond" / "evaluation_data.csv"
GPT, CLAUDE = "openai/gpt-4o", "anthropic/claude-sonnet-4-5-20250929"


def test_every_cell_of_the_sample_is_read() -> None:
    assert detect(SAMPLE) == "notdiamond"
    table = read(SAMPLE)
    assert table.names == (GPT, CLAUDE)
    assert column(table, "quality") == {
        ("evaluation_data/0", GPT): 0.95,
        ("evaluation_data/0", CLAUDE): 0.87,
        ("evaluation_data/1", GPT): 0.82,
        ("evaluation_data/1", CLAUDE): 0.91,
        ("evaluation_data/2", GPT): None,
        ("evaluation_data/2", CLAUDE): 1.0,
    }
    assert extra(table, "response")["evaluation_data/1", CLAUDE] == "Here's a function, with tests..."
    assert extra(table, "response")["evaluation_data/2", GPT] is None
    assert table.queries[2].text == 'Translate "good night" into French'


@pytest.mark.parametrize(("scale", "expected"), [((1, 10), 2 / 3), ((10, 1), 1 / 3), ((0, 10), 0.7)])
def test_other_scales_are_mapped(tmp_path: Path, scale: tuple[float, float], expected: float) -> None:
    path = write(tmp_path / "a.csv", "question,a/b/score\nhi,7\n")
    table = read(path, options={"scale": scale, "prompt_column": "question"})
    assert table.quality.tolist() == pytest.approx([expected])


def test_a_score_outside_the_scale_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,a/b/score\nhi,7\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv', line 2: quality of 'a/b'", "[0, 1]", "got: 7.0", "rescale")


@pytest.mark.parametrize("scale", [(1, 1), (0, 1, 2), ("a", 1)])
def test_a_wrong_scale_is_refused(scale: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="option 'scale'"):
        read(SAMPLE, options={"scale": scale})


def test_columns_that_the_format_does_not_explain_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,a/b/score,c/d/response,notes\nhi,1,x,y\n")
    with pytest.raises(TableError) as caught:
        read(path)
    check_sentence(caught, "a.csv' has columns", "got: ['c/d/response', 'notes']", "option 'ignore'")
    assert read(path, options={"ignore": ["c/d/response", "notes"]}).names == ("a/b",)


def test_a_missing_prompt_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question,a/b/score\nhi,1\n")
    with pytest.raises(TableError, match="lacks the column 'prompt'"):
        read(path)
