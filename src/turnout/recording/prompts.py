"""This module reads prompts: JSON lines, CSV or parquet of texts, or the queries of a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from turnout.core.errors import TableError, did_you_mean, sentence
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.datasets import load
from turnout.datasets.reading import clean_text, csv_rows, json_document, json_lines, require_file

TEXTS = ("text", "prompt", "question", "query", "instruction", "input")
"""Columns that may hold the text, the first that is there counts; `messages` comes before all."""
REFERENCES = ("reference", "answer", "target", "expected")
"""Columns that may hold the reference, the first that is there counts."""

_IDS = ("id", "query_id")
_MESSAGES = "a list of objects with 'role' and 'content', the last one by the user"

Messages = tuple[Mapping[str, Any], ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt, and what a scorer may know about it."""

    id: str
    messages: Messages
    """Chat messages as they are sent."""
    text: str
    """The last user message: what a router will read."""
    task: str | None = None
    split: str | None = None
    references: tuple[str, ...] = ()
    """Every answer that counts as right; never sent to a candidate."""
    score: str | None = None
    """Rule for this prompt alone."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further columns, for a scoring program."""

    @property
    def reference(self) -> str | None:
        """The references as a table keeps them: the text, or a JSON list of several."""
        if len(self.references) > 1:
            return json.dumps(self.references, ensure_ascii=False)
        return self.references[0] if self.references else None

    def query(self) -> Query:
        """Return what a router sees."""
        turns = sum(message.get("role") == "user" for message in self.messages)
        return Query(id=self.id, text=self.text, task=self.task, num_turns=turns)


def read_prompts(
    source: str | Path, *, text_column: str | None = None, reference_column: str | None = None
) -> tuple[Prompt, ...]:
    """Read prompts; raises `TableError` that names file and line.

    `source` is a file (`.jsonl`, `.json`, `.csv`, `.parquet`), or whatever `turnout.datasets.load` knows: the
    queries of that table with their references, tasks and splits.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json", ".csv", ".parquet"):
        prompts = _numbered(_rows(require_file(path), suffix), text_column, reference_column)
    else:
        prompts = list(_of_table(load(source)))
    if not prompts:
        raise TableError(sentence(f"{str(source)!r} holds no prompt", allowed="at least one"))
    return tuple(prompts)


def _rows(path: Path, suffix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a file."""
    if suffix == ".csv":
        for line, cells in csv_rows(path)[1]:
            yield f"{str(path)!r}, line {line}", {name: cell or None for name, cell in cells.items()}
    elif suffix == ".parquet":
        for number, row in enumerate(_parquet(path)):
            yield f"{str(path)!r}, row {number}", row
    elif suffix == ".json":
        for number, row in enumerate(_list(path)):
            yield f"{str(path)!r}, item {number}", row
    else:
        for line, row in json_lines(path):
            yield f"{str(path)!r}, line {line}", row


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        what = f"{str(path)!r} cannot be read as parquet"
        raise TableError(sentence(what, got=str(error), do="write it again")) from error
    return rows


def _list(path: Path) -> list[dict[str, Any]]:
    found = json_document(path)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise TableError(sentence(f"{str(path)!r}", allowed="a list of objects", got=type(found).__name__))
    return found


def _numbered(
    rows: Iterable[tuple[str, dict[str, Any]]], text_column: str | None, reference_column: str | None
) -> list[Prompt]:
    """Return the prompts, each with its own id or a name of its content, so that order does not matter."""
    prompts: list[Prompt] = []
    first: dict[str, str] = {}
    copies: dict[str, int] = {}
    for place, row in rows:
        prompt = _prompt(place, row, text_column, reference_column)
        name = prompt.id
        if not name:
            content = _name(prompt.messages)
            copies[content] = copies.get(content, 0) + 1
            name = content if copies[content] == 1 else f"{content}-{copies[content]}"
        if name in first:
            raise TableError(
                sentence(
                    f"{place}: the id of {first[name]} again",
                    allowed="every id once",
                    got=name,
                    do="give it another, or leave the ids out",
                )
            )
        first[name] = place
        prompts.append(_with_id(prompt, name))
    return prompts


def _prompt(place: str, row: dict[str, Any], text_column: str | None, reference_column: str | None) -> Prompt:
    column = _column(place, row, text_column, ("messages", *TEXTS), "text")
    assert column is not None
    messages, text = _messages(place, column, row[column])
    answer = _column(place, row, reference_column, REFERENCES, "reference")
    used = {column, answer, "task", "split", "score", *_IDS}
    found = next((row[name] for name in _IDS if row.get(name) is not None), "")
    return Prompt(
        id=str(found),
        messages=messages,
        text=text,
        task=_word(row.get("task")),
        split=_word(row.get("split")),
        references=() if answer is None else _references(place, row[answer]),
        score=_word(row.get("score")),
        more={name: value for name, value in row.items() if name not in used},
    )


def _column(
    place: str, row: Mapping[str, Any], named: str | None, usual: Sequence[str], what: str
) -> str | None:
    """Return the column of the text or the reference; a text must be there, a reference may be missing."""
    if named is not None and named not in row:
        raise TableError(
            sentence(
                f"{place}: there is no column {named!r}",
                allowed=f"one of {', '.join(row)}",
                do=f"name another --{what}-column",
            )
        )
    found = named or next((name for name in usual if row.get(name) is not None), None)
    if what == "text" and (found is None or row[found] is None):
        raise TableError(
            sentence(
                f"{place}: there is no prompt",
                allowed=f"a column {', '.join(usual)}, or the one of --text-column",
                got=", ".join(row) or "nothing",
                do=did_you_mean("text", row),
            )
        )
    return found


def _messages(place: str, column: str, value: Any) -> tuple[Messages, str]:
    """Return the messages and the text of the last one."""
    if column == "messages":
        given = _decoded(value)
        is_chat = isinstance(given, list) and given and all(isinstance(one, dict) for one in given)
        if not is_chat or given[-1].get("role") != "user" or not _text_of(given[-1].get("content")).strip():
            raise TableError(sentence(f"{place}: messages", allowed=_MESSAGES, got=value))
        return tuple(given), clean_text(_text_of(given[-1]["content"]))
    if not isinstance(value, str) or not value.strip():
        allowed = "a text with a character that is not blank"
        raise TableError(sentence(f"{place}: column {column!r}", allowed=allowed, got=value))
    text = clean_text(value)
    return ({"role": "user", "content": text},), text


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def _references(place: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    for one in values:
        if not isinstance(one, str | int | float):
            allowed = "a text, a number, or a list of them"
            raise TableError(sentence(f"{place}: reference", allowed=allowed, got=one))
    return tuple(clean_text(str(one)) for one in values)


def _word(value: Any) -> str | None:
    return None if value is None or value == "" else clean_text(str(value))


def _name(messages: Messages) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:12]


def _with_id(prompt: Prompt, name: str) -> Prompt:
    return prompt if prompt.id == name else replace(prompt, id=name)


def _of_table(table: OutcomeTable) -> Iterator[Prompt]:
    for query, split, reference in zip(table.queries, table.splits, table.references, strict=True):
        if query.text is None:
            raise TableError(
                sentence(
                    f"the query {query.id!r} has no text", allowed="a table with texts", do="choose another"
                )
            )
        yield Prompt(
            id=query.id,
            messages=({"role": "user", "content": query.text},),
            text=query.text,
            task=query.task,
            split=split,
            references=() if reference is None else (reference,),
        )
