"""POST /v1/feedback joins a score to a decision, once the decision is there and is the client's own."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import Answer, ask, call, check_advice, row
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import KeySettings


def give(base_url: str, body: Any, *, headers: dict[str, str] | None = None) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call(base_url, "/feedback", method="POST", body=sent, headers=headers)


def scores(ledger: Path, decision_id: str, count: int) -> list[tuple]:
    query = "SELECT score, source FROM feedback WHERE decision_id = ? ORDER BY time_s"
    for _ in range(200):
        connection = sqlite3.connect(ledger)
        found = connection.execute(query, (decision_id,)).fetchall()
        connection.close()
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"no score of {decision_id}")


def test_a_score_is_kept_and_a_later_one_stands_beside_it(gateway: Served) -> None:
    answer = ask(gateway.base_url)
    # At once: the decision may still wait for the disk.
    first = give(gateway.base_url, {"decision_id": answer.decision_id, "score": 1, "source": "thumb"})
    assert (first.status, first.json["score"]) == (200, 1.0)
    row(gateway.ledger, answer.decision_id)
    give(gateway.base_url, {"decision_id": answer.decision_id, "score": 0.25})
    assert scores(gateway.ledger, answer.decision_id, 2) == [(1.0, "thumb"), (0.25, None)]


WRONG = [
    (b"", "invalid_json", None),
    (b"[1]", "invalid_feedback", None),
    (b'{"score": 1}', "invalid_feedback", "decision_id"),
    (b'{"decision_id": "a"}', "invalid_feedback", "score"),
    (b'{"decision_id": "a", "score": 1.5}', "invalid_feedback", "score"),
    (b'{"decision_id": "a", "score": true}', "invalid_feedback", "score"),
    (b'{"decision_id": "a", "score": NaN}', "invalid_json", None),
    (b'{"decision_id": "a", "score": 1, "note": "x"}', "invalid_feedback", None),
    (b'{"decision_id": "a", "score": 1, "source": 3}', "invalid_feedback", "source"),
]


@pytest.mark.parametrize(("body", "code", "param"), WRONG)
def test_a_wrong_score_is_one_sentence(gateway: Served, body: bytes, code: str, param: str | None) -> None:
    answer = give(gateway.base_url, body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
    check_advice(answer.error["message"])


def test_a_decision_that_never_was_is_not_judged(gateway: Served) -> None:
    answer = give(gateway.base_url, {"decision_id": "0" * 28, "score": 1})
    assert (answer.status, answer.error["code"]) == (404, "decision_not_found")
    check_advice(answer.error["message"])


def test_nobody_judges_another_tenants_decisions(
    gateway: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: Any
) -> None:
    keys = {}
    for name in ("ann", "bob", "root"):
        monkeypatch.setenv(f"KEY_{name.upper()}", f"secret-of-{name}-that-is-long-enough")
        keys[name] = KeySettings(secret=f"env:KEY_{name.upper()}", is_admin=name == "root")
    plain = make_config(upstream.base_url, tmp_path / "ledger.sqlite")
    auth = msgspec.structs.replace(plain.auth, path=str(tmp_path / "keys.sqlite"))
    config = msgspec.structs.replace(plain, keys=keys, auth=auth)
    headers = {name: {"authorization": f"Bearer secret-of-{name}-that-is-long-enough"} for name in keys}
    with running(config, deployment=make_deployment()) as ready:
        own = ask(ready.base_url, headers=headers["ann"])
        body = {"decision_id": own.decision_id, "score": 0}
        assert give(ready.base_url, body).status == 401
        assert give(ready.base_url, body, headers=headers["bob"]).status == 404
        assert give(ready.base_url, body, headers=headers["ann"]).status == 200
        assert give(ready.base_url, body, headers=headers["root"]).status == 200
