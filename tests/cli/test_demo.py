"""The demo as a newcomer meets it: a real process, a real server, the official client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from turnout.cli.main import main
from turnout.cli.options import free_port


def test_demo_once_prints_the_table_draws_and_asks_one_question(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "turnout.cli.main", "demo", "--once", "--out", "demo"],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("router", "best single", "knn", "random", "oracle", "best per group", "a replay"):
        assert name in done.stdout
    assert (tmp_path / "demo" / "curve.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "report.html").is_file()
    assert time.monotonic() - started < 60


def test_a_taken_port_is_said_before_anything_is_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--out", str(tmp_path / "demo"), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "choose another --port" in said
    assert "server.port" not in said
    assert list((tmp_path / "demo").iterdir()) == []


def test_without_a_wish_the_next_free_port_is_taken() -> None:
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(OSError):  # somebody else has it: that is as good
            taken.enter_context(socket.create_server(("127.0.0.1", 8100)))
        port = free_port("127.0.0.1", None)
        assert 8100 < port < 8120
        socket.create_server(("127.0.0.1", port)).close()


def test_a_table_without_answers_is_said_before_anything_is_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--table", "open9", "--out", str(out), "--port", "0", "--once"]) == 1
    assert "'open9' cannot be replayed" in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_the_demo_serves_the_official_client_until_it_is_stopped(tmp_path: Path) -> None:
    from openai import OpenAI

    process = subprocess.Popen(
        [sys.executable, "-m", "turnout.cli.main", "demo", "--out", "demo", "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        printed = _read_until(process, "print(answer.model")
        base_url = re.search(r"turnout serves (\S+)", printed)
        body = re.search(r"-d '(\{.*\})'", printed)
        assert base_url is not None
        assert body is not None
        messages = json.loads(body.group(1))["messages"]
        with OpenAI(base_url=base_url.group(1), api_key="none") as client:
            whole = client.chat.completions.create(model="turnout/auto", messages=messages)
            with client.chat.completions.create(
                model="turnout/auto", messages=messages, stream=True
            ) as chunks:
                parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
            models = [model.id for model in client.models.list()]
        assert whole.choices[0].message.content == "".join(parts) != ""
        assert "turnout/auto" in models
        assert whole.model in models
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output


def _read_until(process: subprocess.Popen[str], mark: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            return "".join(lines)
    raise AssertionError("".join(lines))
