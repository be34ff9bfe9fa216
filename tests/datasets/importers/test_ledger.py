"""The gateway's own ledger is read, also while the gateway writes it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.tables import check_sentence, column, extra
from turnout.core import ManualClock, TableError
from turnout.datasets import detect, load, read
from turnout.datasets.importers.ledger import VERSION
from turnout.gateway import schema
from turnout.gateway.config import LedgerSettings
from turnout.gateway.ledger import Ledger, Row
from turnout.gateway.schema import DecisionRow, FeedbackRow, ResultRow


def decision(decision_id: str, *, time_s: float, **changes: Any) -> DecisionRow:
    """Make a decision as the gateway would."""
    values: dict[str, Any] = {
        "session_id": "s",
        "requested_model": "turnout/auto",
        "chosen": "small",
        "reason": "best",
        "propensity": 1.0,
        "price": 20.0,
        "goal": None,
        "fingerprint": "f00d",
        "expected_quality": 0.7,
        "expected_cost_usd": 1e-4,
        "decision_s": 2e-4,
        "is_stream": False,
        "text": f"question of {decision_id}",
    }
    return DecisionRow(decision_id=decision_id, time_s=time_s, **{**values, **changes})


def result(decision_id: str, **changes: Any) -> ResultRow:
    """Make a result as the gateway would."""
    values: dict[str, Any] = {
        "end_s": 9.0,
        "served": "small",
        "provider": "local",
        "is_replay": False,
        "input_tokens": 30,
        "output_tokens": 5,
        "cached_tokens": None,
        "usage_estimated": False,
        "usd": 3e-5,
        "status": 200,
        "error": None,
        "attempts": 1,
        "faults": None,
        "latency_s": 0.75,
        "first_byte_s": 0.2,
    }
    return ResultRow(decision_id=decision_id, **{**values, **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An open ledger with every kind of request."""
    opened = Ledger(
        settings=LedgerSettings(path=str(tmp_path / "turnout.sqlite")), clock=ManualClock(start_s=5.0)
    )
    opened.open()
    rows: list[Row] = [
        decision("b", time_s=2.0),
        result("b", served="large", usd=9e-4),
        decision("a", time_s=1.0),
        result("a"),
        decision("unscored", time_s=3.0, text=None),
        result("unscored", input_tokens=None, output_tokens=None, usd=None),
        decision("cut", time_s=4.0),
        result("cut", error="upstream closed the stream"),
        decision("replay", time_s=5.0),
        result("replay", is_replay=True, usage_estimated=True),
        decision("flying", time_s=6.0),
        decision("refused", time_s=7.0),
        result(
            "refused", served=None, status=503, error="down", usd=None, input_tokens=None, output_tokens=None
        ),
        FeedbackRow(decision_id="a", time_s=10.0, score=1.0, source="user"),
        FeedbackRow(decision_id="a", time_s=12.0, score=0.25, source="judge"),
        FeedbackRow(decision_id="a", time_s=11.0, score=0.5, source="user"),
        FeedbackRow(decision_id="b", time_s=10.0, score=0.0, source="user"),
        FeedbackRow(decision_id="flying", time_s=10.0, score=1.0, source="user"),
    ]
    for row in rows:
        opened.add(row)
    opened.close()
    return opened


def test_every_answered_request_is_a_row(ledger: Ledger) -> None:
    assert detect(ledger.path) == "ledger"
    table = load(ledger.path)
    assert [query.id for query in table.queries] == ["a", "b", "unscored", "cut", "replay"]
    assert table.names == ("small", "large")
    assert column(table, "cost_usd")["b", "large"] == 9e-4
    assert column(table, "input_tokens")["a", "small"] == 30.0
    assert table.queries[0].text == "question of a"
    assert table.queries[0].tags == {"requested_model": "turnout/auto"}


def test_the_last_score_is_the_quality_and_no_score_is_unknown(ledger: Ledger) -> None:
    quality = column(load(ledger.path), "quality")
    assert quality == {
        ("a", "small"): 0.25,
        ("b", "large"): 0.0,
        ("unscored", "small"): None,
        ("cut", "small"): None,
        ("replay", "small"): None,
    }


def test_one_source_of_scores_can_be_chosen(ledger: Ledger) -> None:
    quality = column(read(ledger.path, options={"source": "user"}), "quality")
    assert quality["a", "small"] == 0.5
    assert column(read(ledger.path, options={"source": "judge"}), "quality")["b", "large"] is None


def test_what_was_not_recorded_stays_unknown(ledger: Ledger) -> None:
    table = load(ledger.path)
    for name in ("cost_usd", "input_tokens", "output_tokens"):
        assert column(table, name)["unscored", "small"] is None
    latency_s = column(table, "latency_s")
    assert latency_s["a", "small"] == 0.75
    assert latency_s["cut", "small"] is None
    assert latency_s["replay", "small"] is None
    assert table.queries[2].text is None


def test_the_record_of_the_decision_comes_along(ledger: Ledger) -> None:
    table = load(ledger.path)
    assert extra(table, "propensity")["a", "small"] == 1.0
    assert extra(table, "expected_quality")["b", "large"] == 0.7
    assert extra(table, "chosen")["b", "large"] == "small"
    assert extra(table, "is_replay")["replay", "small"] == 1


def test_a_ledger_is_read_while_it_is_written(ledger: Ledger) -> None:
    ledger.open()
    try:
        assert len(load(ledger.path).queries) == 5
    finally:
        ledger.close()


def test_the_importer_knows_the_newest_schema() -> None:
    assert VERSION == schema.VERSION


def test_a_newer_ledger_is_refused(ledger: Ledger) -> None:
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 0.0)")
    connection.close()
    with pytest.raises(TableError) as caught:
        read(ledger.path)
    check_sentence(
        caught,
        "turnout.sqlite' has a ledger schema",
        f"allowed: version 1 to {schema.VERSION}",
        "got: 99",
        "upgrade",
    )


def test_a_score_out_of_range_names_the_decision(ledger: Ledger) -> None:
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("INSERT INTO feedback VALUES ('b', 99.0, 5.0, 'user')")
    connection.close()
    with pytest.raises(TableError) as caught:
        read(ledger.path)
    check_sentence(caught, "turnout.sqlite', decision 'b': quality of 'large'", "[0, 1]", "got: 5.0")


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    connection.close()
    with pytest.raises(TableError) as caught:
        read(path, format_name="ledger")
    check_sentence(caught, "other.db' cannot be read as a ledger", "allowed: a SQLite file", "no such table")


def test_an_empty_ledger_holds_no_outcome(tmp_path: Path) -> None:
    opened = Ledger(settings=LedgerSettings(path=str(tmp_path / "turnout.sqlite")))
    opened.open()
    opened.close()
    with pytest.raises(TableError, match="holds no outcome"):
        load(opened.path)
