"""The rows of all hosts are copied into a ledger's file, brought up to date, pruned and forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.client import rows
from tests.gateway.ledger_rows import decision, result
from tests.gateway.servers import PostgresServer
from tests.gateway.test_ledger import open_ledger
from tests.gateway.test_shared import held
from turnout.cli.main import main
from turnout.core import InputError, ManualClock
from turnout.datasets.importers.ledger import Ledger as Importer
from turnout.gateway.central import Sender
from turnout.gateway.central_admin import pull
from turnout.gateway.config import LedgerSettings
from turnout.gateway.ledger import Ledger
from turnout.gateway.schema import FeedbackRow

DAY_S = 86_400.0
Write = Callable[[str, range], None]


@pytest.fixture
def write(tmp_path: Path, central_url: str) -> Write:
    """Return what writes requests through the ledger of one host, each with a score."""

    def run(host: str, numbers: range) -> None:
        path = tmp_path / f"{host}.sqlite"
        ledger = Ledger(settings=LedgerSettings(path=str(path)), clock=ManualClock(start_s=1e9))
        ledger.sender = Sender(url=central_url, path=path)
        ledger.open()
        for number in numbers:
            ledger.add(decision(number, tenant=host, text=f"text {number}", time_s=number * DAY_S))
            ledger.add(result(number, is_replay=True, faults=None))
            ledger.add(FeedbackRow(decision_id=f"{number:06d}", time_s=1.0, score=0.5, source=None))
        ledger.close()

    return run


def test_a_copy_holds_what_all_hosts_hold_and_grows(tmp_path: Path, central_url: str, write: Write) -> None:
    copy = tmp_path / "deep" / "all.sqlite"
    write("a", range(3))
    write("b", range(3, 5))
    assert pull(central_url, copy) == 5
    assert pull(central_url, copy) == 0
    write("b", range(5, 8))
    assert pull(central_url, copy, since_s=6 * DAY_S) == 2
    assert pull(central_url, copy) == 1
    written = rows(tmp_path / "a.sqlite") + rows(tmp_path / "b.sqlite")
    assert rows(copy) == sorted(written, key=lambda row: row["time_s"])
    table = Importer().read(copy)
    assert len(table.queries) == 8
    assert table.queries[7].text == "text 7"
    assert set(table.quality) == {0.5}


def test_the_command_line_reaches_postgresql(
    tmp_path: Path,
    central_url: str,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PG_URL", central_url)
    write("a", range(4))
    write("b", range(4, 6))
    copy = str(tmp_path / "all.sqlite")

    def told(*arguments: str) -> int:
        assert main(["ledger", *arguments, "--json"]) == 0
        return int(json.loads(capsys.readouterr().out)["requests"])

    assert told("pull", "env:PG_URL", copy, "--since", "1970-01-03") == 4
    assert told("forget", "env:PG_URL", "b") == 2
    assert told("prune", central_url, "--keep-days", "1") == 4
    for name in ("decisions", "results", "feedback"):
        assert held(central_url, f"SELECT count(*) FROM turnout_{name}") == [(0,)]
    assert len(rows(Path(copy))) == 4, "a copy is a copy"


def test_what_cannot_be_copied_is_said(
    tmp_path: Path,
    postgres: PostgresServer,
    central_url: str,
    write: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(InputError, match="has no rows of gateways"):
        pull(postgres.url, tmp_path / "x.sqlite")
    with pytest.raises(InputError, match="cannot be used"):
        pull("postgresql://127.0.0.1:1/db", tmp_path / "x.sqlite")
    write("a", range(1))
    open_ledger(tmp_path / "own.sqlite").close()
    with pytest.raises(InputError, match="is the ledger of a gateway"):
        pull(central_url, tmp_path / "own.sqlite")
    assert main(["ledger", "pull", str(tmp_path / "a.sqlite"), "x.sqlite"]) == 1
    assert "env:NAME" in capsys.readouterr().err
