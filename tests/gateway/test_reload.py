"""A new configuration takes the place of the old one whole, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.gateway.client import Answer, ask, call, row
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_rules import config_with
from tests.gateway.upstream import Upstream, upstream_server
from turnout.cli.main import main
from turnout.core import ConfigError, Goal
from turnout.core.artifact import save
from turnout.gateway.app import build_app
from turnout.gateway.config import (
    BreakerSettings,
    Config,
    LedgerSettings,
    RoutingSettings,
    ServerSettings,
    load_config,
)
from turnout.gateway.diff import differences
from turnout.gateway.lifecycle import running
from turnout.gateway.settings import GoalSettings
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import OpenAISettings

replace = msgspec.structs.replace


class Standing:
    """A gateway whose settings a test may change."""

    def __init__(self, base_url: str, told: list[Config]) -> None:
        self.base_url, self.root = base_url, base_url.removesuffix("/v1")
        self.told = told

    def reload(self, config: Config, *, query: str = "") -> Answer:
        self.told[0] = config
        return call(self.root, f"/admin/reload{query}", method="POST", body=b"")


@contextmanager
def standing(config: Config) -> Iterator[Standing]:
    told = [config]
    with running(config, deployment=make_deployment(), source=lambda: told[0]) as ready:
        yield Standing(ready.base_url, told)


def test_a_reload_says_what_changed_and_the_next_request_sees_it(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    with standing(config) as gateway:
        new = replace(
            config,
            candidates={"small": CandidateSettings(model="tiny")},
            routing=replace(config.routing, alias="house/auto"),
        )
        assert gateway.reload(new, query="?check").json == {
            "applied": False,
            "changes": [
                {"key": "routing.alias", "before": "turnout/auto", "after": "house/auto"},
                {"key": "candidates.small.model", "before": "not set", "after": "tiny"},
                {"key": "candidates.small.leave_out", "before": "not set", "after": []},
                {"key": "candidates.small.fallbacks", "before": "not set", "after": []},
            ],
        }
        assert ask(gateway.base_url).status == 200
        assert gateway.reload(new).json["applied"]
        assert ask(gateway.base_url).status == 404
        assert ask(gateway.base_url, model="small").status == 200
        assert upstream.last.json["model"] == "tiny"
        assert gateway.reload(new).json["changes"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"default_provider": "nobody"}, "names no provider"),
        ({"candidates": {"smal": CandidateSettings(model="x")}}, "did you mean 'small'"),
        ({"goal": GoalSettings(quality_floor=0.9)}, "'goal' cannot be served"),
        ({"keys": {"team": KeySettings(secret="env:TURNOUT_NOT_SET")}}, "TURNOUT_NOT_SET"),
        ({"server": ServerSettings(port=1)}, "cannot change 'server.port'"),
        ({"ledger": LedgerSettings(path="elsewhere.sqlite")}, "cannot change 'ledger.path'"),
        ({"auth": AuthSettings(required=True, path="/proc/no/keys")}, "cannot be used"),
        (
            {"providers": {"main": OpenAISettings(base_url="http://127.0.0.1:1/v1", api_key_env="T_NOT")}},
            "T_NOT",
        ),
    ],
)
def test_a_wrong_configuration_changes_nothing(
    upstream: Upstream, tmp_path: Path, change: dict, words: str
) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    with standing(config) as gateway:
        # Something else in it is right: none of it may be taken over.
        also = {"routing": replace(config.routing, alias="house/auto")}
        refused = gateway.reload(replace(config, **also, **change))
        assert (refused.status, refused.error["code"]) == (409, "bad_configuration")
        assert words in refused.error["message"]
        assert ask(gateway.base_url).status == 200


def test_a_running_stream_keeps_the_parts_it_began_with(tmp_path: Path) -> None:
    """The old upstream goes on to its end, and the new one takes what comes."""
    with upstream_server() as old, upstream_server() as new:
        config = make_config(old.base_url, tmp_path / "l.sqlite", idle_s=20.0)
        with standing(config) as gateway:
            old.behave["small"] = "drips"
            got: list[Answer] = []
            thread = threading.Thread(
                target=lambda: got.append(ask(gateway.base_url, model="small", stream=True))
            )
            thread.start()
            while not old.sent:
                time.sleep(0.005)
            provider = replace(config.providers["main"], base_url=new.base_url)
            assert gateway.reload(replace(config, providers={"main": provider})).status == 200
            assert ask(gateway.base_url, model="small").status == 200
            assert (len(old.seen), len(new.seen)) == (1, 1)
            assert not old.last.gone.is_set()
            old.release.set()
            thread.join(10)
            assert got[0].body.endswith(b"data: [DONE]\n\n")
        assert row(tmp_path / "l.sqlite", got[0].decision_id)["status"] == 200


def test_a_reload_under_load_loses_no_request_and_mixes_nothing(tmp_path: Path) -> None:
    """Two upstreams change places forty times while requests come: each is answered by one of them, whole."""
    with upstream_server() as one, upstream_server() as two:
        config = make_config(one.base_url, tmp_path / "l.sqlite")
        other = replace(
            config,
            providers={"main": replace(config.providers["main"], base_url=two.base_url)},
            candidates={"small": CandidateSettings(model="tiny")},
        )
        with standing(config) as gateway:
            statuses: list[int] = []
            stop = threading.Event()

            def client() -> None:
                while not stop.is_set():
                    statuses.append(ask(gateway.base_url, model="small").status)

            clients = [threading.Thread(target=client) for _ in range(3)]
            for thread in clients:
                thread.start()
            for number in range(20):
                assert gateway.reload((other, config)[number % 2]).status == 200
            stop.set()
            for thread in clients:
                thread.join()
    assert set(statuses) == {200}
    assert {seen.json["model"] for seen in one.seen} == {"small"}
    assert {seen.json["model"] for seen in two.seen} <= {"tiny"}
    assert len(one.seen) + len(two.seen) == len(statuses)


def test_breakers_are_taken_over_where_their_rules_stay(upstream: Upstream, tmp_path: Path) -> None:
    config = replace(
        make_config(upstream.base_url, tmp_path / "l.sqlite"),
        breakers=BreakerSettings(failures=1, open_s=60.0),
    )
    upstream.behave["small"] = "500"
    with standing(config) as gateway:
        assert ask(gateway.base_url, model="small").status == 502
        assert ask(gateway.base_url, model="small").error["code"] == "breaker_open"
        assert gateway.reload(replace(config, routing=RoutingSettings(seed=1))).status == 200
        assert ask(gateway.base_url, model="small").error["code"] == "breaker_open"
        assert gateway.reload(replace(config, breakers=BreakerSettings(failures=9))).status == 200
        assert ask(gateway.base_url, model="small").error["code"] == "upstream_error"


def test_keys_come_and_go(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    boss = {"boss": KeySettings(sha256="0" * 64)}
    with standing(config) as gateway:
        assert ask(gateway.base_url).status == 200
        with_keys = replace(config, keys=boss, auth=AuthSettings(path=str(tmp_path / "k.sqlite")))
        assert gateway.reload(with_keys).status == 200
        assert ask(gateway.base_url).status == 401
        assert gateway.reload(config).status == 401


def test_another_sites_page_reloads_nothing(upstream: Upstream, tmp_path: Path) -> None:
    with standing(make_config(upstream.base_url, tmp_path / "l.sqlite")) as gateway:
        refused = call(gateway.root, "/admin/reload", method="POST", headers={"sec-fetch-site": "cross-site"})
    assert (refused.status, refused.error["code"]) == (403, "cross_site")


def test_without_a_file_there_is_nothing_to_reload(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    with running(config, deployment=make_deployment()) as ready:
        root = ready.base_url.removesuffix("/v1")
        refused = call(root, "/admin/reload", method="POST", body=b"")
    assert refused.status == 409
    assert "has no settings file" in refused.error["message"]


def test_ready_says_no_while_the_house_is_full(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    config = replace(config, server=ServerSettings(port=0, max_running=1))
    upstream.behave["small"] = "slow"
    with running(config, deployment=make_deployment()) as ready:
        root = ready.base_url.removesuffix("/v1")
        assert call(root, "/readyz").json == {"ready": True, "reason": None, "running": 0}
        thread = threading.Thread(target=lambda: ask(ready.base_url, model="small"))
        thread.start()
        while not upstream.seen:
            time.sleep(0.005)
        full = call(root, "/readyz")
        upstream.release.set()
        thread.join()
    assert (full.status, full.json["reason"]) == (503, "as many requests run as may")


def write(folder: Path, text: str = "") -> Path:
    path = folder / "turnout.toml"
    path.write_text(
        'deployment = "deployment"\n[providers.main]\nkind = "openai"\n'
        f'base_url = "http://127.0.0.1:1/v1"\n[server]\nport = 0\n{text}'
    )
    return path


def test_a_hangup_reloads_the_file(tmp_path: Path) -> None:
    """A process of its own gets the signal: first with a wrong file, then with a right one."""
    from turnout.training import train

    from turnout.datasets import load  # isort: skip

    save(train(load("reason18"), Goal(usd_per_quality=0.01), router="best_single"), tmp_path / "deployment")
    path = write(tmp_path)
    script = (
        "import sys, logging; logging.basicConfig(level=logging.WARNING)\n"
        "from turnout.gateway import serve\n"
        "serve(sys.argv[1], ready=lambda ready: print(ready.base_url, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        base_url = process.stdout.readline().strip()

        def aliases() -> str:
            return json.loads(call(base_url, "/models").body)["data"][0]["id"]

        assert aliases() == "turnout/auto"
        write(tmp_path, "[routing]\nalais = 'house/auto'\n")
        os.kill(process.pid, signal.SIGHUP)
        assert "did you mean 'alias'" in process.stderr.readline()
        assert aliases() == "turnout/auto"
        write(tmp_path, "[routing]\nalias = 'house/auto'\n")
        os.kill(process.pid, signal.SIGHUP)
        assert "routing.alias: 'turnout/auto' -> 'house/auto'" in process.stderr.readline()
        assert aliases() == "house/auto"
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_changed_artifact_is_taken_over_though_its_folder_is_the_same(tmp_path: Path) -> None:
    from turnout.datasets import load
    from turnout.training import train

    table = load("reason18")
    save(train(table, Goal(usd_per_quality=0.01), router="best_single"), tmp_path / "deployment")
    path = write(tmp_path)
    app = build_app(load_config(path), source=lambda: load_config(path))

    async def main_() -> None:
        await app.start()
        try:
            assert await app.reloader.reload() == []
            for old in (tmp_path / "deployment").iterdir():
                old.unlink()
            save(train(table, Goal(usd_per_quality=0.01), router="ridge"), tmp_path / "deployment")
            (change,) = await app.reloader.reload()
            assert change.key == "deployment (fingerprint)"
            assert app.parts.selector.fingerprint == change.after
        finally:
            await app.stop()

    asyncio.run(main_())


def test_differences_name_the_key_and_hide_hashes(tmp_path: Path) -> None:
    before = load_config(write(tmp_path))
    after = replace(
        before,
        goal=GoalSettings(quality_floor=0.9),
        keys={"a b": KeySettings(sha256="1" * 64)},
        server=replace(before.server, port=9),
    )
    changes = differences(before, after)
    assert [str(change) for change in changes] == [
        "server.port: 0 -> 9",
        "goal.quality_floor: 'not set' -> 0.9",
        "keys.\"a b\".sha256: 'not set' -> '(a hash)'",
    ]
    assert [change.needs_restart for change in changes] == [True, False, False]
    assert differences(before, before) == []


def test_the_command_line_compares_checks_and_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    before, after = write(tmp_path), write(tmp_path / "other", "max_body_mb = 9\n")
    assert main(["config", "diff", str(before), str(after), "--json"]) == 0
    changes = {change["key"]: change["after"] for change in json.loads(capsys.readouterr().out)["changes"]}
    assert changes["server.max_body_mb"] == 9.0
    assert main(["config", "diff", str(before), str(before)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["config", "check", str(before)]) == 1
    assert "no artifact at" in capsys.readouterr().err
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")


def test_a_file_that_contradicts_itself_is_never_in_force(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs one of 'secret' and 'sha256'"):
        load_config(write(tmp_path, "[keys.a]\nmodels = []\n"))


RULED = '[[rules]]\nname = "r"\nsystem_prompt = "be %s"\nrequest_headers = {x-gateway-token = "%s"}\n'


def test_a_reload_shows_no_secret_of_a_rule(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T_TOKEN", "sup3r-referred")
    plain = config_with(tmp_path, RULED % ("br1ef", "sup3r-before"), upstream.base_url)
    with standing(plain) as gateway:
        ask(gateway.base_url, model="small")
        assert upstream.last.headers["x-gateway-token"] == "sup3r-before"
        answer = gateway.reload(config_with(tmp_path, RULED % ("k1nd", "env:T_TOKEN"), upstream.base_url))
        assert answer.status == 200
        assert [change["key"] for change in answer.json["changes"]] == ["rules"]
        ask(gateway.base_url, model="small")
        assert upstream.last.headers["x-gateway-token"] == "sup3r-referred"
        missing = gateway.reload(config_with(tmp_path, RULED % ("k1nd", "env:T_NOT"), upstream.base_url))
    for secret in ("sup3r", "br1ef", "k1nd"):
        assert secret.encode() not in answer.body
        assert secret not in caplog.text
    assert "the same but for what is not shown" in caplog.text
    assert missing.status == 409
    assert "rules[0].request_headers.x-gateway-token" in missing.error["message"]


def test_a_header_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    text = '[[rules]]\nname = "r"\nrequest_headers = {authorization = "Bearer s3cret"}\n'
    with pytest.raises(ConfigError, match="no header that one may set") as caught:
        config_with(tmp_path, text).check()
    assert "s3cret" not in str(caught.value)
