"""A ledger is brought up to date in place, exported, pruned, and made to forget."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.gateway.client import ask, row, rows
from tests.gateway.ledger_rows import decision, result
from tests.gateway.pool import make_deployment
from tests.gateway.servers import PostgresServer
from tests.gateway.settings import make_config
from tests.gateway.test_ledger import open_ledger
from tests.gateway.test_shared import held
from tests.gateway.upstream import Upstream
from turnout.cli.main import main
from turnout.core import InputError, ManualClock
from turnout.gateway import ledger_admin, ledger_delete
from turnout.gateway.central import Sender
from turnout.gateway.config import LedgerSettings
from turnout.gateway.ledger import Ledger
from turnout.gateway.lifecycle import running
from turnout.gateway.pins_store import Pin, SqlitePins, file_beside
from turnout.gateway.schema import MIGRATIONS, VERSION, FeedbackRow, TraceRow
from turnout.gateway.spend import spend_summary

DAY_S = 86_400.0


def older_file(path: Path, version: int) -> None:
    """Write a ledger as the turnout of a schema version left it, with two requests."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_s REAL NOT NULL)")
    for number in range(version):
        connection.executescript(MIGRATIONS[number])
        connection.execute("INSERT INTO schema_version VALUES (?, 1.0)", (number + 1,))
    for number in (1, 2):
        connection.execute(
            "INSERT INTO decisions (decision_id, session_id, time_s, requested_model, chosen, is_stream) "
            "VALUES (?, 'old', ?, 'turnout/auto', 'small', 0)",
            (f"{number:06d}", float(number)),
        )
        connection.execute(
            "INSERT INTO results (decision_id, end_s, served, is_replay, input_tokens, output_tokens, "
            "usage_estimated, usd, status, attempts, latency_s) "
            "VALUES (?, 2.0, 'small', 0, 10, 5, 0, 0.25, 200, 1, 1.0)",
            (f"{number:06d}",),
        )
    connection.execute("INSERT INTO feedback VALUES ('000001', 3.0, 0.5, 'judge')")
    connection.execute("INSERT INTO sessions (id, pid, started_s, closed_s) VALUES ('old', 1, 1.0, 2.0)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_file_of_every_older_version_is_upgraded_in_place(tmp_path: Path, version: int) -> None:
    path = tmp_path / "l.sqlite"
    older_file(path, version)
    assert spend_summary(path).num_requests == 2
    ledger = open_ledger(path)
    ledger.add(decision(3, key="team", tenant="shop"))
    ledger.add(result(3))
    ledger.close()
    found = rows(path)
    assert [entry["decision_id"] for entry in found] == ["000001", "000002", "000003"]
    assert [entry["tenant"] for entry in found] == [None, None, "shop"]
    assert spend_summary(path).usd == 0.75
    connection = sqlite3.connect(path)
    versions = connection.execute("SELECT version FROM schema_version ORDER BY version").fetchall()
    assert versions == [(number + 1,) for number in range(VERSION)]
    assert connection.execute("SELECT score FROM feedback").fetchall() == [(0.5,)]
    connection.close()
    # An export of a file that nobody has opened since brings it up to date too.
    older_file(tmp_path / "other.sqlite", version)
    assert ledger_admin.export(tmp_path / "other.sqlite", tmp_path / "out.csv") == 2


def filled(path: Path, count: int = 4) -> None:
    """Write requests of two tenants, one a day; the last is still open."""
    ledger = open_ledger(path, keep_text=True)
    for number in range(count):
        tenant = ("shop", "bank")[number % 2]
        text = f"the {tenant}'s question, number {number}"
        ledger.add(decision(number, time_s=number * DAY_S, tenant=tenant, key=tenant, text=text))
        if number < count - 1:
            ledger.add(result(number, error='a, "quoted"\nerror' if number == 1 else None))
        ledger.add(FeedbackRow(decision_id=f"{number:06d}", time_s=1.0, score=1.0, source=None))
        ledger.add(
            TraceRow(
                decision_id=f"{number:06d}", sequencer="s", ended=None, calls=1, thoughts=0,
                unknown_charges=0, usd=0.0, trace=f"the {tenant}'s trace",
            )
        )  # fmt: skip
    ledger.close()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_holds_every_row_of_the_view(tmp_path: Path, ending: str) -> None:
    path, out = tmp_path / "l.sqlite", tmp_path / f"out.{ending}"
    filled(path)
    assert ledger_admin.export(path, out) == 4
    expected = rows(path)
    if ending == "parquet":
        table = pyarrow.parquet.read_table(out)
        assert table.to_pylist() == expected
        assert str(table.schema.field("is_stream").type) == "bool"
        assert str(table.schema.field("usd").type) == "double"
        assert str(table.schema.field("input_tokens").type) == "int64"
        return
    with out.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == list(ledger_admin.columns())
    for entry, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            if isinstance(value, int | float) and name not in ("is_stream", "is_replay", "usage_estimated"):
                assert float(entry[name]) == value
            elif isinstance(value, str):
                assert entry[name] == value
            elif value is None:
                assert entry[name] == ""


def test_an_export_of_much_comes_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_admin, "_BATCH", 3)
    filled(tmp_path / "l.sqlite", 10)
    for ending in ("csv", "parquet"):
        assert ledger_admin.export(tmp_path / "l.sqlite", tmp_path / f"out.{ending}") == 10
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").num_rows == 10


def test_an_export_of_nothing_is_a_file_with_columns(tmp_path: Path) -> None:
    open_ledger(tmp_path / "l.sqlite").close()
    for ending in ("csv", "parquet"):
        assert ledger_admin.export(tmp_path / "l.sqlite", tmp_path / f"out.{ending}") == 0
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column_names == list(ledger_admin.columns())


def test_a_part_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "l.sqlite", tmp_path / "out.csv"
    filled(path)
    assert ledger_admin.export(path, out, tenant="bank") == 2
    assert ledger_admin.export(path, out, since_s=DAY_S, tenant="shop") == 1
    day = f"{datetime.fromtimestamp(2 * DAY_S, UTC):%Y-%m-%d}"
    assert main(["ledger", "export", str(path), str(out), "--since", day, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"requests": 2}


def test_a_tenant_is_forgotten_to_the_last_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "l.sqlite"
    filled(path)
    assert b"the shop's question" in path.read_bytes()
    assert main(["ledger", "forget", str(path), "shop"]) == 0
    assert "2 requests of 'shop' deleted" in capsys.readouterr().out
    assert [entry["tenant"] for entry in rows(path)] == ["bank", "bank"]
    connection = sqlite3.connect(path)
    for table in ("decisions", "results", "traces", "feedback"):
        ids = {found[0] for found in connection.execute(f"SELECT decision_id FROM {table}")}
        assert ids <= {"000001", "000003"}, table
    connection.close()
    for file in tmp_path.iterdir():
        assert b"the shop's" not in file.read_bytes(), file
    assert b"the bank's trace" in path.read_bytes()


def test_what_waits_for_postgresql_and_who_keeps_a_response_is_forgotten_too(
    tmp_path: Path, postgres: PostgresServer, central_url: str
) -> None:
    path = tmp_path / "l.sqlite"

    def sending() -> Ledger:
        ledger = Ledger(settings=LedgerSettings(path=str(path)))
        ledger.sender = Sender(url=central_url, path=path)
        ledger.open()
        return ledger

    ledger = sending()
    postgres.stop()
    try:
        for number, tenant in enumerate(("shop", "bank")):
            ledger.add(decision(number, tenant=tenant, text=f"the {tenant}'s question"))
            ledger.add(result(number))
            ledger.add(
                FeedbackRow(decision_id=f"{number:06d}", time_s=1.0, score=0.5, source=f"the {tenant}")
            )
        ledger.close()
        pins = SqlitePins(path=file_beside(path))
        for tenant in ("shop", "bank"):
            asyncio.run(pins.note([tenant.encode()], Pin(maker="small", tenant=tenant)))
        asyncio.run(pins.close())
        assert ledger_admin.forget(path, "shop") == 1
    finally:
        postgres.start()
    for file in tmp_path.iterdir():
        assert b"shop" not in file.read_bytes(), file
    sending().close()
    for table in ("decisions", "results", "feedback"):
        assert held(central_url, f"SELECT decision_id FROM turnout_{table}") == [("000001",)], table
    pins = SqlitePins(path=file_beside(path))
    assert asyncio.run(pins.find(b"bank")) == Pin(maker="small", tenant="bank")
    assert asyncio.run(pins.find(b"shop")) is None
    asyncio.run(pins.close())


def test_what_is_old_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    filled(path)
    assert ledger_admin.prune(path, before_s=2 * DAY_S) == 2
    assert [entry["decision_id"] for entry in rows(path)] == ["000002", "000003"]
    assert ledger_admin.prune(path, before_s=2 * DAY_S) == 0


def test_a_gateway_drops_by_itself_what_is_older_than_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_delete, "_BATCH", 3)
    path = tmp_path / "l.sqlite"
    filled(path, 30)
    clock = ManualClock(start_s=30 * DAY_S)
    ledger = Ledger(settings=LedgerSettings(path=str(path), keep_days=10.5), clock=clock)
    ledger.open()
    ledger.add(decision(99, time_s=30 * DAY_S))
    while len(rows(path)) != 11:
        time.sleep(0.005)
    # Another hour, another day: what has become too old meanwhile goes too.
    clock.advance(DAY_S)
    while len(rows(path)) != 10:
        time.sleep(0.005)
    ledger.close()
    assert rows(path)[0]["time_s"] == 21 * DAY_S


def test_forgetting_beside_a_gateway_at_work_loses_no_request(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    filled(path, 200)
    config = make_config(upstream.base_url, path)
    with running(config, deployment=make_deployment()) as ready:
        stop, answers = threading.Event(), []

        def client() -> None:
            while not stop.is_set():
                answers.append(ask(ready.base_url, model="small"))

        thread = threading.Thread(target=client)
        thread.start()
        assert ledger_admin.forget(path, "shop") == 100
        stop.set()
        thread.join()
        row(path, answers[-1].decision_id)
    assert {answer.status for answer in answers} == {200}
    ids = [entry["decision_id"] for entry in rows(path) if entry["tenant"] is None]
    assert sorted(ids) == sorted(answer.decision_id for answer in answers)


def test_what_is_no_ledger_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    (tmp_path / "text").write_text("not a database, and rather long, so that it is read as one" * 30)
    for name in ("missing", "other.sqlite", "text"):
        with pytest.raises(InputError, match="cannot be used as a ledger"):
            ledger_admin.forget(tmp_path / name, "shop")
    filled(tmp_path / "l.sqlite")
    with pytest.raises(InputError, match=r"allowed: \.csv or \.parquet"):
        ledger_admin.export(tmp_path / "l.sqlite", tmp_path / "out.xlsx")
    for options in (["prune", "l", "--keep-days", "-1"], ["export", "l", "o.csv", "--since", "yesterday"]):
        assert main(["ledger", *options]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "missing").exists()
