"""Hosts that share a PostgreSQL compare deployments on the requests of all, and undo each other's switch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.client import rows
from tests.gateway.rolling import Trial, trial
from tests.gateway.servers import PostgresServer
from tests.gateway.test_promote import MARGINS, serve_some
from tests.gateway.test_shared import eventually, held
from turnout.cli.main import main
from turnout.cli.retrain import ledger_of
from turnout.gateway.config import load_config


@pytest.fixture
def hosts(tmp_path: Path, central_url: str) -> Iterator[list[Trial]]:
    more = f'[shared]\npostgres = "{central_url}"'
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with trial(folders[0]) as a, trial(folders[1]) as b:
        for host in (a, b):
            host.write(MARGINS, more=more)
        yield [a, b]


def all_sent(url: str, requests: int) -> None:
    counts = [f"(SELECT count(*) FROM turnout_{table})" for table in ("shadows", "results", "feedback")]
    eventually(lambda: held(url, f"SELECT {', '.join(counts)}"), [(requests,) * len(counts)])


def test_the_requests_of_all_hosts_speak_for_a_promotion(
    hosts: list[Trial], central_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = hosts
    with a.running(), b.running():
        for host in hosts:
            serve_some(host, 30)
        all_sent(central_url, 60)
        told = [host.admin("rollout", "GET").json for host in hosts]
        for one in told:
            found = one["comparison"]
            assert (found["whose"], found["requests"], found["scored"]) == ("all hosts", 60, 60)
            assert found["canary"]["requests"] + found["control"]["requests"] == 60
        assert told[0]["comparison"] == told[1]["comparison"]
        assert main(["promote", str(a.path), "--check"]) == 0
        assert "60 decided by both" in capsys.readouterr().out
        assert main(["whatif", str(b.path), "--dial", "usd-per-quality=1", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["whose"], found["num_requests"], found["num_scored"]) == ("all hosts", 60, 60)
        with ledger_of(load_config(b.path), 0.0) as path:
            assert len(rows(path)) == 60, "what `turnout retrain` learns from"
        # Alone, either has 30 of the 40 that are needed.
        assert a.admin("promote").status == 200
        eventually(lambda: held(central_url, "SELECT action FROM turnout_switches"), [("promote",)])
        # The settings are brought to the other host, where nobody noted a switch.
        b.path.write_text(a.path.read_text(encoding="utf-8").replace(a.server.base_url, b.server.base_url))
        assert b.admin("reload").status == 200
        assert b.ask("q").headers["x-turnout-model"] == "small"
        assert b.admin("rollback").json["action"] == "rollback"
        assert b.ask("q").headers["x-turnout-model"] == "large"
    # What another host switched back is no more to be rolled back, but this host's own promotion is.
    assert main(["rollback", str(b.path)]) == 1
    assert "nothing to roll back" in capsys.readouterr().err
    assert main(["rollback", str(a.path)]) == 0


def test_while_postgresql_is_away_a_host_speaks_for_itself_and_says_so(
    hosts: list[Trial], postgres: PostgresServer, central_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = hosts
    with a.running(), b.running():
        for host in hosts:
            serve_some(host, 30)
        all_sent(central_url, 60)
        postgres.stop()
        try:
            found = a.admin("rollout", "GET").json["comparison"]
            assert (found["whose"], found["requests"]) == ("this host", 30)
            assert "30 requests with feedback" in a.admin("promote").error["message"]
            assert main(["promote", str(a.path), "--check"]) == 1
            assert "30 decided by both" in capsys.readouterr().out
            assert a.admin("promote?force").status == 200
            assert a.admin("rollback").json["action"] == "rollback"
        finally:
            postgres.start()
    assert [row["action"] for row in a.rows("SELECT action FROM switches")] == ["promote", "rollback"]
