"""The ledger keeps every row once, survives a disk that says no, and reads older files."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import ask, row, rows
from tests.gateway.ledger_rows import decision, result
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Say, told_server, whole
from tests.gateway.upstream import Upstream
from turnout.core import ConfigError, InputError, ManualClock
from turnout.gateway.account import Account
from turnout.gateway.config import LedgerSettings
from turnout.gateway.ledger import Ledger
from turnout.gateway.ledger_check import check_ledger
from turnout.gateway.lifecycle import running
from turnout.gateway.schema import VERSION, DecisionRow, FeedbackRow, ResultRow
from turnout.gateway.spend import spend_summary


def open_ledger(path: Path, **settings: Any) -> Ledger:
    ledger = Ledger(settings=LedgerSettings(path=str(path), **settings), clock=ManualClock(start_s=1e9))
    assert ledger.open() == ()
    return ledger


def wait_for(count: int, path: Path) -> float:
    started_s = time.monotonic()
    while time.monotonic() - started_s < 5:
        if len(rows(path)) >= count:
            return time.monotonic() - started_s
        time.sleep(0.002)
    raise AssertionError(f"{len(rows(path))} rows of {count}")


def first_failure(ledger: Ledger) -> str:
    for _ in range(1000):
        if ledger.failure is not None:
            return ledger.failure
        time.sleep(0.005)
    raise AssertionError("no write failed")


def test_rows_are_there_after_closing_in_a_folder_that_was_missing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    ledger = open_ledger(path)
    for number in range(1000):
        ledger.add(decision(number))
        ledger.add(result(number))
    ledger.close()
    ledger.close()
    found = rows(path)
    assert [row["decision_id"] for row in found] == [f"{number:06d}" for number in range(1000)]
    assert all(row["status"] == 200 for row in found)
    assert sorted(p.name for p in path.parent.iterdir()) == ["ledger.sqlite"], "no lock and no journal remain"


@pytest.mark.parametrize("count", [1, 17, 150])
def test_rows_that_say_different_things_are_written_as_they_are(tmp_path: Path, count: int) -> None:
    path = tmp_path / "ledger.sqlite"
    made: list[DecisionRow | ResultRow] = []
    said: list[dict[str, object]] = [{}, {"key": "k", "tenant": "t"}, {"price": 2.5, "chosen": None}]
    more: list[dict[str, object]] = [
        {},
        {"error": "cut", "usd": None},
        {"cached_tokens": 0, "is_replay": True},
    ]
    for number in range(count):
        made.append(decision(number, is_stream=number % 2 == 1, **said[number % 3]))
        made.append(result(number, usage_estimated=number % 5 == 0, **more[number % 3]))
    ledger = open_ledger(path, flush_ms=100)
    for row_ in made:
        ledger.add(row_)
    ledger.close()
    connection = sqlite3.connect(path)
    for kind, table in ((DecisionRow, "decisions"), (ResultRow, "results")):
        names = ", ".join(kind.__struct_fields__)
        found = connection.execute(f"SELECT {names} FROM {table} ORDER BY decision_id").fetchall()
        assert found == [msgspec.structs.astuple(row_) for row_ in made if type(row_) is kind]
    connection.close()


def test_a_request_ends_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "l.sqlite")
    account = Account(ledger=ledger, clock=ManualClock(start_s=5.0), keep_text=False)
    account.end(200)
    account.end(500, "internal_error")
    ledger.close()
    assert [(row["status"], row["time_s"]) for row in rows(tmp_path / "l.sqlite")] == [(200, 5.0)]


def test_rows_that_could_never_be_written_are_reported_and_the_session_stays_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(tmp_path / "l.sqlite")
    ledger.add(decision(1))
    ledger.add(decision(1))
    ledger.close()
    assert "the ledger lost 2 rows: UNIQUE constraint failed" in caplog.messages[-1]
    again = Ledger(settings=LedgerSettings(path=str(tmp_path / "l.sqlite")))
    assert "was not closed by its last gateway" in again.open()[0]
    again.close()


def test_every_field_of_a_row_is_a_column_of_the_view(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "l.sqlite")
    ledger.add(decision(1))
    ledger.add(result(1))
    ledger.close()
    fields = {*DecisionRow.__struct_fields__, *ResultRow.__struct_fields__}
    assert set(rows(tmp_path / "l.sqlite")[0]) == fields


def test_a_row_waits_no_longer_than_the_flush_time(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "l.sqlite", flush_ms=20)
    ledger.add(decision(1))
    assert wait_for(1, tmp_path / "l.sqlite") < 1.0
    ledger.close()


def test_many_rows_do_not_wait_for_the_flush_time(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    # A minute is more than a file may ask for, and more than this test waits.
    ledger = open_ledger(path, flush_ms=60_000, flush_rows=10)
    for number in range(10):
        ledger.add(decision(number))
    wait_for(10, path)
    ledger.close()


def test_a_locked_file_loses_nothing_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "l.sqlite"
    ledger = open_ledger(path, flush_ms=5, max_pending=20)
    assert ledger._connection is not None
    ledger._connection.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for number in range(20):
        ledger.add(decision(number))
    assert "locked" in first_failure(ledger)
    assert ledger.is_full
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once, not once per flush"
    other.execute("ROLLBACK")
    other.close()
    wait_for(20, path)
    ledger.close()
    assert ledger.failure is None
    assert len(rows(path)) == 20


GARBAGE = [
    {"prompt_tokens": 10**30, "completion_tokens": 1},
    {"prompt_tokens": 2**63, "completion_tokens": 2**64},
    {"prompt_tokens": -(10**9), "completion_tokens": -5},
    {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**12}},
]


@pytest.mark.parametrize("usage", GARBAGE)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_usage_that_cannot_be_is_no_usage_and_gives_no_money_back(
    tmp_path: Path, usage: dict[str, Any], is_stream: bool
) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    chunk = {"id": "c", "choices": [{**choice, "delta": {"content": "hi"}}], "usage": usage}
    answer = {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}
    with told_server() as told:
        stream = b"data: " + json.dumps(chunk).encode() + b"\n\n", b"data: [DONE]\n\n"
        told.say = lambda _: Say(stream, kind="text/event-stream") if is_stream else whole(answer)
        config = make_config(told.base_url, tmp_path / "l.sqlite")
        with running(config, deployment=make_deployment()) as ready:
            asked = [ask(ready.base_url, model="small", stream=is_stream) for _ in range(2)]
            found = [row(tmp_path / "l.sqlite", one.decision_id) for one in asked]
    for one in found:
        assert one["input_tokens"] in (2, 3)
        assert 0 <= one["usd"] < 1e-5


def test_a_row_that_can_never_be_written_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(tmp_path / "l.sqlite")
    for number in (1, 2, 3):
        ledger.add(decision(number))
        ledger.add(result(number, input_tokens=2**70 if number == 2 else 5))
    ledger.close()
    found = {one["decision_id"]: one["status"] for one in rows(tmp_path / "l.sqlite")}
    assert found == {"000001": 200, "000002": None, "000003": 200}
    assert "a row cannot be written" in caplog.text


def test_a_full_ledger_refuses_requests_and_says_so(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    config = make_config(upstream.base_url, path)
    config = msgspec.structs.replace(config, ledger=LedgerSettings(path=str(path), max_pending=1))
    with running(config, deployment=make_deployment()) as ready:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert ask(ready.base_url).status == 200
        answer = ask(ready.base_url)
        other.execute("ROLLBACK")
        other.close()
    assert (answer.status, answer.error["code"]) == (503, "ledger_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert [row["status"] for row in rows(path)] == [200], "refusals take no memory"


def test_text_is_kept_only_when_asked_for(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    config = make_config(upstream.base_url, path)
    config = msgspec.structs.replace(config, ledger=LedgerSettings(path=str(path), keep_text=True))
    with running(config, deployment=make_deployment()) as ready:
        ask(ready.base_url)
    assert rows(path)[0]["text"] == "hello"


def test_a_newer_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    open_ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_version VALUES (?, 0)", (VERSION + 1,))
    connection.commit()
    connection.close()
    ledger = Ledger(settings=LedgerSettings(path=str(path)))
    with pytest.raises(ConfigError, match="newer turnout"):
        ledger.open()
    with pytest.raises(ConfigError, match="newer turnout"):
        check_ledger(path)


@pytest.mark.parametrize("content", [b"this is a text and no database at all" * 40])
def test_a_file_that_is_no_ledger_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger(settings=LedgerSettings(path=str(path))).open()
    with pytest.raises(ConfigError, match="cannot be used"):
        check_ledger(path)
    with pytest.raises(ConfigError, match="is no folder"):
        check_ledger(path / "l.sqlite")
    assert path.read_bytes() == content


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that takes no files, of Linux")
def test_a_folder_that_takes_no_files_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose another"):
        check_ledger(Path("/proc/l.sqlite"))


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    check_ledger(tmp_path / "new" / "l.sqlite")
    assert list(tmp_path.iterdir()) == []
    open_ledger(tmp_path / "l.sqlite").close()
    before = (tmp_path / "l.sqlite").read_bytes()
    check_ledger(tmp_path / "l.sqlite")
    assert (tmp_path / "l.sqlite").read_bytes() == before


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_was_taken_away_is_reported_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_replaced: bool
) -> None:
    path, away = tmp_path / "l.sqlite", tmp_path / "away.sqlite"
    ledger = open_ledger(path, flush_ms=5)
    path.rename(away)
    if is_replaced:
        path.write_bytes(b"")
    ledger.add(decision(0))
    assert "was moved or deleted" in first_failure(ledger)
    ledger.add(decision(1))
    time.sleep(0.05)
    away.rename(path)
    ledger.add(decision(2))
    wait_for(3, path)
    ledger.close()
    assert ledger.failure is None
    assert len(rows(path)) == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"


def test_an_older_file_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    ledger = open_ledger(path)
    ledger.add(decision(1))
    ledger.close()
    second = open_ledger(path)
    second.add(decision(2))
    second.add(FeedbackRow(decision_id="000001", time_s=2.0, score=0.5, source="judge"))
    second.close()
    assert [row["decision_id"] for row in rows(path)] == ["000001", "000002"]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT * FROM feedback").fetchall() == [("000001", 2.0, 0.5, "judge")]
    assert connection.execute("SELECT count(*) FROM schema_version").fetchone() == (VERSION,)
    connection.close()


def test_two_gateways_share_a_ledger_and_neither_is_called_dead(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    first, second = open_ledger(path), open_ledger(path)
    first.add(decision(1))
    second.add(decision(2))
    first.close()
    second.close()
    assert len(rows(path)) == 2


def test_spend_is_summed_with_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    ledger = open_ledger(path)
    changes: list[dict[str, Any]] = [
        {},
        {"served": "large", "usd": 1.5, "usage_estimated": True},
        {"usd": None},
        {"is_replay": True, "usd": 4.0, "usage_estimated": True},
        {"served": None, "usd": None, "status": 502, "input_tokens": None, "output_tokens": None},
    ]
    for number, change in enumerate(changes):
        ledger.add(decision(number))
        ledger.add(result(number, **change))
    ledger.add(decision(9, expected_quality=math.nan))
    ledger.close()
    summary = spend_summary(path)
    assert (summary.num_requests, summary.num_failed, summary.num_open) == (6, 1, 1)
    assert (summary.num_unpriced, summary.num_estimated) == (1, 2)
    assert (summary.usd, summary.replayed_usd) == (1.75, 4.0)
    assert summary.by_candidate["small"].num_requests == 3
    assert summary.by_candidate["large"].usd == 1.5
    assert spend_summary(path, since_s=9.0).num_requests == 1
    assert rows(path)[-1]["expected_quality"] is None


def test_a_summary_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a ledger"):
        spend_summary(tmp_path / "missing.sqlite")
    assert not (tmp_path / "missing.sqlite").exists()
    open_ledger(tmp_path / "empty.sqlite").close()
    assert spend_summary(tmp_path / "empty.sqlite").num_requests == 0
