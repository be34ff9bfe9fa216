"""The plainest of clients, for bytes that the official one would never send."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHAT = "/chat/completions"
NOTHING_SAID = ([{"role": "user", "content": ""}], [{"role": "system", "content": "Be brief."}])
"""Conversations that OpenAI's models answer, and others refuse."""


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, after a look at its four keys."""
        error: dict[str, Any] = self.json["error"]
        assert sorted(error) == ["code", "message", "param", "type"], error
        assert "Traceback" not in error["message"]
        return error

    @property
    def decision_id(self) -> str:
        """The id that joins the response to its row."""
        return self.headers["x-turnout-decision-id"]


def call(
    base_url: str, path: str, *, method: str = "GET", body: bytes | None = None, headers: dict | None = None
) -> Answer:
    """Send one request on a connection of its own."""
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    try:
        connection.request(method, url.path + path, body=body, headers=headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def ask(
    base_url: str, body: dict | bytes | None = None, *, headers: dict | None = None, **fields: Any
) -> Answer:
    """Post a chat request; `fields` are added to a default one."""
    if not isinstance(body, bytes):
        whole = {"model": "turnout/auto", "messages": [{"role": "user", "content": "hello"}]}
        body = json.dumps({**whole, **(body or {}), **fields}).encode()
    sent = {"content-type": "application/json", **(headers or {})}
    return call(base_url, CHAT, method="POST", body=body, headers=sent)


def check_advice(message: str) -> None:
    """Require that a message says what is allowed, and does not end before it says what to do."""
    parts = message.split("; ")
    assert any(part.startswith("allowed: ") for part in parts), message
    assert not parts[-1].startswith(("allowed: ", "got: ")), message


def rows(ledger: Path) -> list[dict[str, Any]]:
    """Return every request of a ledger, oldest first."""
    connection = sqlite3.connect(ledger)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY time_s")]
    finally:
        connection.close()


def row(ledger: Path, decision_id: str) -> dict[str, Any]:
    """Return the finished row of one request; it may take a flush to appear."""
    for _ in range(200):
        found = [r for r in rows(ledger) if r["decision_id"] == decision_id and r["status"] is not None]
        if found:
            assert len(found) == 1
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no row for {decision_id}")


def events_of(body: bytes) -> list[str]:
    """Return the data of each event of a stream."""
    parts = [part for part in body.decode().split("\n\n") if part]
    assert all(part.startswith("data: ") for part in parts), parts
    return [part.removeprefix("data: ") for part in parts]
