"""Every fault of a file is named by file and place, whatever the kind of file."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.tables import check_sentence, write
from turnout.core import TableError
from turnout.datasets.reading import clean_text, csv_rows, json_document, json_lines, number


def all_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV to its end."""
    return list(csv_rows(path)[1])


READERS: dict[str, Callable[[Path], Any]] = {
    "csv": all_rows,
    "json": json_document,
    "jsonl": lambda path: list(json_lines(path)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(TableError, match=r"no file at '.*nowhere\.csv'; check the path"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(TableError, match="is a folder; allowed: a file"):
        read(tmp_path)


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_what_is_no_file_is_refused(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TableError, match=r"pipe\.csv' is no regular file; allowed: a file"):
        read(tmp_path / "pipe.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every file")
def test_a_file_that_may_not_be_opened_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "[]")
    path.chmod(0)
    with pytest.raises(TableError, match=r"a\.json' cannot be opened; got: 'Permission denied'"):
        json_document(path)


def test_json_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "[" * 200_000)
    with pytest.raises(TableError, match=r"a\.json': malformed JSON; allowed: .*; got: 'maximum recursion"):
        json_document(path)
    with pytest.raises(TableError, match=r"a\.json', line 1: malformed JSON; .*got: 'maximum recursion"):
        list(json_lines(path))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order-mark"])
@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_a_byte_that_is_not_utf8_is_named_by_its_offset(
    tmp_path: Path, read: Callable[[Path], Any], mark: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + b'{"a": 1}\n{"b": "caf\xe9"}\n')
    with pytest.raises(TableError) as caught:
        read(path)
    offset = len(mark) + 19
    assert path.read_bytes()[offset] == 0xE9
    check_sentence(caught, f"a.txt' is not UTF-8 at byte offset {offset}", "got: '0xe9'", "save it as UTF-8")


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    if read is all_rows:
        assert csv_rows(path)[0] == ['{"a": 1}']
    else:
        assert read(path) in ({"a": 1}, [(1, {"a": 1})])


@pytest.mark.parametrize("line", ['{"a": 1', "{'a': 1}", '{"a": 1} {"b": 2}', "hello"])
def test_a_malformed_line_is_named_by_line_and_column(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n\n' + line + "\n")
    with pytest.raises(TableError) as caught:
        list(json_lines(path))
    check_sentence(caught, "a.jsonl', line 3, column ", "malformed JSON", "one JSON object a line", "got: ")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_not_json_are_refused(tmp_path: Path, value: str) -> None:
    text = '{"a": ' + value + "}"
    with pytest.raises(TableError, match=f"line 1: malformed JSON.*{value} is not JSON; write null"):
        list(json_lines(write(tmp_path / "a.jsonl", text)))
    with pytest.raises(TableError, match=f"malformed JSON.*{value} is not JSON; write null"):
        json_document(write(tmp_path / "a.json", text))


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 1; allowed: a JSON object; got: \[1\]"):
        list(json_lines(write(tmp_path / "a.jsonl", "[1]")))


def test_a_malformed_document_is_named_by_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 2, column 7: malformed JSON"):
        json_document(write(tmp_path / "a.json", '[\n{"a": x}]'))


def test_csv_line_numbers_count_line_breaks_in_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n"1\n2",x\n\n3,y\n')
    assert all_rows(path) == [(3, {"a": "1\n2", "b": "x"}), (5, {"a": "3", "b": "y"})]


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_row_with_the_wrong_number_of_cells_is_named(tmp_path: Path, row: str) -> None:
    path = write(tmp_path / "a.csv", f"a,b\n0,0\n{row}\n")
    with pytest.raises(TableError) as caught:
        all_rows(path)
    check_sentence(
        caught,
        "a.csv', line 3: wrong number of cells",
        "allowed: 2, as in",
        f"got: {row.count(',') + 1}",
        "quote",
    )


def test_an_empty_csv_and_a_repeated_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is empty; allowed: a header line and rows"):
        csv_rows(write(tmp_path / "a.csv", ""))
    with pytest.raises(TableError, match=r"line 1: a column stands twice; .*got: \['a'\]"):
        csv_rows(write(tmp_path / "b.csv", "a,b,a\n"))


def test_a_quote_that_never_ends_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 3: broken CSV"):
        all_rows(write(tmp_path / "a.csv", 'a,b\n1,"x\ny\n'))


def test_a_megabyte_in_a_cell_is_read_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = write(tmp_path / "a.csv", "a\n" + "x" * 1_000_000 + "\n")
    assert len(all_rows(path)[0][1]["a"]) == 1_000_000
    assert csv.field_size_limit() == before


def test_other_line_separators_do_not_end_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\nx\u2028y\x85z\x0b,1\n")
    assert all_rows(path) == [(2, {"a": "x\u2028y\x85z\x0b", "b": "1"})]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=1))
def test_any_cell_survives_the_csv_writer(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text"])
        writer.writerows([i, cell] for i, cell in enumerate(cells))
    assert [row["text"] for _, row in all_rows(path)] == cells


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=4))
)
def test_any_object_survives_json_lines(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    write(path, "".join(json.dumps(record) + "\n" for record in records))
    assert [record for _, record in json_lines(path)] == records


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("0.5", 0.5), (" 1e-3 ", 1e-3), (True, 1.0), ("False", 0.0), ("true", 1.0), (0, 0.0)],
)
def test_numbers_are_read(value: object, expected: float) -> None:
    assert number("here", value) == expected


@pytest.mark.parametrize("value", [None, ""])
def test_empty_is_unknown_and_never_zero(value: object) -> None:
    assert math.isnan(number("here", value))


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-", "1;5", " ", [], {}, math.inf, math.nan, "1" * 400, 10**400]
)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(TableError) as caught:
        number("a.csv, line 2", value)
    check_sentence(caught, "a.csv, line 2", "allowed: a finite number", "null) for unknown", "got: ")


@given(st.text(st.characters()))
def test_cleaned_text_can_always_be_written(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode("utf-8")
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert cleaned == text
