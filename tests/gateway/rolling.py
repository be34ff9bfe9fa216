"""A gateway with two deployments: the one in force prefers `large`, the second one `small`."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.gateway.client import Answer, ask, call
from tests.gateway.fitted import fitted
from tests.gateway.scripted import Scripted, scripted_server
from turnout.core.artifact import save
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.rollout_admin import SettingsFile

LIVE, SECOND = fitted(better="large"), fitted(better="small")


class Trial:
    """The settings file, the ledger, and the server behind the gateway."""

    def __init__(self, folder: Path, server: Scripted) -> None:
        self.folder, self.server = folder, server
        self.path, self.ledger = folder / "turnout.toml", folder / "ledger.sqlite"
        self.base_url = ""
        save(LIVE, folder / "old")
        save(SECOND, folder / "new")

    def write(self, rollout: str | None = "share = 0.0", more: str = "", routing: str = "") -> Path:
        section = f'[rollout]  # on trial\ndeployment = "new"\n{rollout}\n' if rollout is not None else ""
        self.path.write_text(
            f"""# settings of the shop
deployment = "old"  # in force
[server]
port = 0
[ledger]
path = "ledger.sqlite"
flush_ms = 5
[routing]
retries = 0
{routing}
[providers.main]
kind = "openai"
base_url = "{self.server.base_url}"
{more}
{section}""",
            encoding="utf-8",
        )
        return self.path

    @contextmanager
    def running(self) -> Iterator[Ready]:
        source = SettingsFile(self.path)
        with running(source(), source=source) as ready:
            self.base_url = ready.base_url
            yield ready

    def ask(self, text: str, **fields: Any) -> Answer:
        return ask(self.base_url, messages=[{"role": "user", "content": text}], **fields)

    def admin(self, path: str, method: str = "POST", **headers: str) -> Answer:
        root = self.base_url.removesuffix("/v1")
        return call(
            root, f"/admin/{path}", method=method, body=b"" if method == "POST" else None, headers=headers
        )

    def score(self, answer: Answer, score: float) -> None:
        body = json.dumps({"decision_id": answer.decision_id, "score": score}).encode()
        assert call(self.base_url, "/feedback", method="POST", body=body).status == 200

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.ledger)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def wait(self, query: str, number: int) -> list[dict[str, Any]]:
        """Return the rows of a query once there are so many."""
        found: list[dict[str, Any]] = []
        for _ in range(500):
            found = self.rows(query)
            if len(found) >= number:
                return found
            time.sleep(0.01)
        raise AssertionError(f"{len(found)} of {number} rows")


@contextmanager
def trial(folder: Path) -> Iterator[Trial]:
    with scripted_server() as server:
        server.say = {"large": lambda _: "well", "small": lambda _: "hm"}
        yield Trial(folder, server)
