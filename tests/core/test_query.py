"""A query is what a router sees before anybody has answered."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from turnout.core.errors import InputError
from turnout.core.query import Query


def test_a_query_has_no_place_for_an_answer() -> None:
    names = {field.name for field in fields(Query)}
    assert names == {"id", "text", "task", "num_turns", "input_tokens", "needs", "tags"}


def test_a_text_that_was_not_recorded_reads_as_no_words() -> None:
    assert Query(id="q", text=None).words == ""
    assert Query(id="q", text="two words").words == "two words"


def test_needs_become_a_frozen_set() -> None:
    assert Query(id="q", text=None, needs={"tools"}).needs == frozenset({"tools"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "", "text": ""}, "Query.id; allowed: "),
        ({"id": 7, "text": ""}, "Query.id; allowed: .*; got: 7"),
        ({"id": "q", "text": b"bytes"}, "Query.text of 'q'; allowed: .*; got: b'bytes'"),
        (
            {"id": "q", "text": None, "num_turns": -1},
            "Query.num_turns of 'q'; allowed: .* at least 0; got: -1",
        ),
        ({"id": "q", "text": None, "input_tokens": 1.5}, "Query.input_tokens of 'q'; .*; got: 1.5"),
    ],
)
def test_a_wrong_field_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Query(**settings)
