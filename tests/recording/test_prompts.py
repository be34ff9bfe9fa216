"""Prompts from every kind of file, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from turnout.core.errors import TableError
from turnout.recording.prompts import read_prompts

ROWS: list[dict[str, Any]] = [
    {"prompt": "What is 2 + 2?", "answer": 4, "task": "sums", "split": "test", "level": "easy"},
    {"prompt": "Say yes.", "answer": ["yes", "oui"], "task": None, "split": None, "level": None},
]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    rows = [{**row, "answer": json.dumps(row["answer"])} for row in ROWS]
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif name.endswith(".json"):
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif name.endswith(".csv"):
        lines = [",".join(ROWS[0]), '"What is 2 + 2?",4,sums,test,easy', '"Say yes.",yes,,,']
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path, name: str) -> None:
    first, second = read_prompts(write(tmp_path, name))
    assert (first.text, first.references, first.task, first.split) == (
        "What is 2 + 2?",
        ("4",),
        "sums",
        "test",
    )
    assert first.messages == ({"role": "user", "content": "What is 2 + 2?"},)
    assert first.more["level"] == "easy"
    assert (second.task, second.split) == (None, None)
    if name.startswith("p.json"):
        assert second.references == ("yes", "oui")
        assert json.loads(second.reference or "") == ["yes", "oui"]


def test_ids_name_the_content_and_not_the_place(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [json.dumps({"text": text}) for text in ("a", "b", "a")]
    path.write_text("\n".join(lines), encoding="utf-8")
    first = {prompt.id: prompt.text for prompt in read_prompts(path)}
    path.write_text("\n".join(lines[1:]), encoding="utf-8")
    second = {prompt.id: prompt.text for prompt in read_prompts(path)}
    assert len(first) == 3
    assert second.items() <= first.items()


def test_a_chat_is_sent_as_it_is_and_routed_by_its_last_message(tmp_path: Path) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"messages": chat}) + "\n", encoding="utf-8")
    (prompt,) = read_prompts(path)
    assert list(prompt.messages) == chat
    assert (prompt.text, prompt.query().num_turns) == ("And now?", 2)


def test_the_queries_of_a_table_are_prompts() -> None:
    prompts = read_prompts("reason18")
    assert len(prompts) == 2119
    assert all(prompt.split in ("train", "test") for prompt in prompts)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"words": "x"}', "line 1: there is no prompt"),
        ('{"text": "a"}\n{"text": " "}', "line 2: column 'text'"),
        ('{"text": 3}', "line 1: column 'text'"),
        ('{"messages": []}', "the last one by the user"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "the last one by the user"),
        ('{"text": "a", "reference": {"x": 1}}', "a text, a number, or a list"),
        ('{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}', "line 2: the id of"),
        ("not json", "line 1"),
        ("", "holds no prompt"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TableError, match=part):
        read_prompts(path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(b"PAR0 nothing")
    with pytest.raises(TableError, match="cannot be read as parquet"):
        read_prompts(path)
