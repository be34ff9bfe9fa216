"""The gateway on a real Ray Serve: `make test-ray` starts one; the refusals need none."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.client import rows
from tests.gateway.rolling import Trial
from tests.gateway.scripted import scripted_server
from tests.gateway.upstream import NUM_EVENTS, Upstream
from turnout.cli.main import main
from turnout.core import Goal, artifact
from turnout.core.errors import ConfigError, InputError
from turnout.datasets import load
from turnout.gateway import ray_serve
from turnout.gateway.lifecycle import running
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter

ASK: Any = [{"role": "user", "content": "What is 17 * 23?"}]


def settings_file(folder: Path, base_url: str) -> Path:
    router = BestSingleRouter().fit(load("reason18"))
    deployment = Deployment(router=router, fallback=router, policy=Best(), goal=Goal())
    artifact.save(deployment, folder / "deployment")
    path = folder / "turnout.toml"
    path.write_text(
        f'deployment = "deployment"\n[providers.main]\nkind = "openai"\nbase_url = "{base_url}"\n'
        '[ledger]\npath = "ledger.sqlite"\n'
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "none"),
        ({"path": "x.toml", "replicas": "2"}, "allowed: 'path'"),
        ({"path": "x.toml", "num_replicas": "two"}, "is no number"),
        ({"path": "x.toml"}, "x.toml"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ray_serve.from_arguments(arguments)


def test_no_replica_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        ray_serve.application("x.toml", num_replicas=0)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings_file(tmp_path, "http://127.0.0.1:1/v1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"turnout\[serve\]"):
        ray_serve.application(path)


@pytest.mark.parametrize(("is_ray", "ending"), [(True, (499, "client_left")), (False, (503, "shutdown"))])
def test_what_rays_proxy_cancels_has_been_left(
    is_ray: bool, ending: tuple[int, str], tmp_path: Path, upstream: Upstream
) -> None:
    """Ray may cancel a request before it tells that its client left; elsewhere only a drain cancels one."""
    gateway = ray_serve.build_replica(str(settings_file(tmp_path, upstream.base_url)))
    upstream.behave.update(dict.fromkeys(gateway.parts.places, "drips"))
    served = ray_serve.BehindProxy(gateway) if is_ray else gateway
    asked = {"model": "turnout/auto", "messages": ASK, "stream": True}
    body = {"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [],
        "client": None,
    }

    async def live() -> None:
        inbox = iter([body])
        begun = asyncio.Event()

        async def receive() -> Any:
            if (message := next(inbox, None)) is None:
                await asyncio.Event().wait()
            return message

        async def send(message: Any) -> None:
            if message.get("body"):
                begun.set()

        await gateway.start()
        request = asyncio.create_task(served(scope, receive, send))
        await begun.wait()
        request.cancel()
        await asyncio.wait([request])
        await gateway.stop()

    asyncio.run(live())
    assert upstream.last.gone.wait(5)
    assert [(row["status"], row["error"]) for row in rows(tmp_path / "ledger.sqlite")] == [ending]


@pytest.fixture(scope="module")
def stand(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Two replicas behind Ray's proxy; yields the address and the ledger."""
    import ray
    from ray import serve

    folder = tmp_path_factory.mktemp("ray")
    path = settings_file(folder, one_upstream.base_url)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        port = _free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        arguments = {"path": str(path), "num_replicas": "2", "num_cpus": "0.5"}
        serve.run(ray_serve.from_arguments(arguments), blocking=False)
        yield f"http://127.0.0.1:{port}/v1", folder / "ledger.sqlite"
        serve.shutdown()
    finally:
        ray.shutdown()


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def statuses(ledger: Path) -> dict[int, int]:
    connection = sqlite3.connect(ledger)
    try:
        return dict(connection.execute("SELECT status, count(*) FROM requests GROUP BY 1"))
    finally:
        connection.close()


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")
def test_two_replicas_answer_stream_account_and_hear_who_leaves(
    stand: tuple[str, Path], upstream: Upstream
) -> None:
    base_url, ledger = stand
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=30) as client:
        for _ in range(20):
            raw = client.chat.completions.with_raw_response.create(model="turnout/auto", messages=ASK)
            assert raw.headers["x-turnout-reason"]
            assert raw.parse().choices[0].message.content == "caf\u00e9 / 1.50"
        asked: Any = {"model": "turnout/auto", "messages": ASK, "stream": True}
        with client.chat.completions.create(**asked) as stream:
            assert len(list(stream)) == NUM_EVENTS + 2
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="nobody", messages=ASK)
        assert caught.value.code == "model_not_found"
        upstream.behave[upstream.last.json["model"]] = "drips"
        with client.chat.completions.create(**asked) as stream:
            next(iter(stream))
        assert upstream.last.gone.wait(5), "who leaves Ray's proxy leaves the upstream"
    expected = {200: 21, 404: 1, 499: 1}
    for _ in range(100):
        if statuses(ledger) == expected:
            break
        time.sleep(0.05)
    assert statuses(ledger) == expected
    connection = sqlite3.connect(ledger)
    assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (2,), "one for each replica"
    connection.close()


def test_one_replica_switches_nobody_and_says_how_all_are_switched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_server() as server:
        trial = Trial(tmp_path, server)
        trial.write()
        gateway = ray_serve.build_replica(str(trial.path))
        before = trial.path.read_text()
        with running(gateway.config, source=gateway.reloader.source) as ready:
            trial.base_url = ready.base_url
            for path in ("promote?force", "rollback"):
                refused = trial.admin(path)
                assert refused.status == 409
                message = refused.error["message"]
                assert "a replica on Ray cannot switch the others" in message
                assert f"`turnout promote` or `turnout rollback` with {str(trial.path)!r}" in message
                assert "`serve deploy`" in message
            assert trial.path.read_text() == before
            assert trial.ask("hello").headers["x-turnout-chosen"] == "large"
            # What the sentence says works, also where Ray's proxy listens at the address of the file.
            url = ["--url", ready.base_url.removesuffix("/v1")]
            assert main(["promote", str(trial.path), *url, "--force"]) == 0
            assert "`serve deploy`" in capsys.readouterr().err
            assert trial.ask("hello").headers["x-turnout-chosen"] == "large", "until the replica is replaced"
            assert main(["rollback", str(trial.path), *url]) == 0
            assert trial.path.read_text() == before
        # Nobody listens at the address of the settings, as on Ray; who reads the file starts anew.
        assert main(["promote", str(trial.path), "--force"]) == 0
        gateway = ray_serve.build_replica(str(trial.path))
        with running(gateway.config, source=gateway.reloader.source) as ready:
            trial.base_url = ready.base_url
            assert trial.ask("hello").headers["x-turnout-chosen"] == "small"
