"""Keys that are made, looked up and revoked beside a running gateway."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import psycopg
import pytest

from tests.gateway.client import ask, check_advice
from tests.gateway.fitted import fitted
from tests.gateway.pool import make_deployment
from tests.gateway.servers import PostgresServer
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.cli.main import main
from turnout.core import ConfigError, InputError, ManualClock
from turnout.core.artifact import save
from turnout.gateway.config import ServerSettings, load_config
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key, digest_of, new_secret, period_of
from turnout.gateway.keyfile import open_keyfile
from turnout.gateway.keyring import Keyring
from turnout.gateway.keystore import KeyStore, Remembered, SqliteKeyStore
from turnout.gateway.keystore_postgres import PostgresKeyStore
from turnout.gateway.lifecycle import running
from turnout.gateway.settings import GoalSettings
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_providers import OpenAISettings

Make = Callable[[], KeyStore]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_s=1e9)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One loop for a test: a connection belongs to the loop that made it."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, loop: asyncio.AbstractEventLoop
) -> Iterator[Make]:
    stores: list[KeyStore] = []
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS turnout_keys")

    def made() -> KeyStore:
        if request.param == "postgres":
            stores.append(PostgresKeyStore(url=server.url, clock=clock))
        else:
            stores.append(SqliteKeyStore(connection=open_keyfile(tmp_path / "keys.sqlite"), clock=clock))
        return stores[-1]

    yield made
    for store in stores:
        loop.run_until_complete(store.close())


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return loop.run_until_complete


FULL = KeySettings(
    tenant="shop",
    models=["small"],
    dials=[],
    goal=GoalSettings(usd_per_quality=0.5),
    budget_usd=2.5,
    budget_period="day",
    requests_per_min=3,
    tokens_per_min=400,
    is_admin=True,
)


def test_what_a_key_allows_comes_back_as_it_was(run: Run, make: Make) -> None:
    store = make()
    secret = run(store.create("team", FULL, expires_s=2e9))
    key = run(store.find(digest_of(secret)))
    assert key == Key.made("team", digest_of(secret), FULL, expires_s=2e9)
    assert key.tenant == "shop"
    assert run(store.find(digest_of(secret + "x"))) is None
    (record,) = run(store.listed())
    assert (record.name, record.settings, record.created_s, record.revoked_s) == ("team", FULL, 1e9, None)
    assert secret.startswith(record.hint)
    assert len(record.hint) < 10


def test_a_revoked_key_is_found_no_more_and_keeps_its_name(run: Run, make: Make) -> None:
    store = make()
    secret = run(store.create("team", KeySettings()))
    run(store.revoke("team"))
    assert run(store.find(digest_of(secret))) is None
    assert run(store.listed())[0].revoked_s == 1e9
    with pytest.raises(InputError, match="no key in force is called 'team'"):
        run(store.revoke("team"))
    with pytest.raises(InputError, match="there is a key called 'team' already") as caught:
        run(store.create("team", KeySettings()))
    check_advice(str(caught.value))


@pytest.mark.parametrize("name", ["", " team", "te\nam"])
def test_a_name_is_printable(run: Run, make: Make, name: str) -> None:
    with pytest.raises(InputError, match="the name of a key"):
        run(make().create(name, KeySettings()))


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 46 and secret.startswith("tk-") for secret in made)


def test_a_lookup_is_remembered_for_a_while(run: Run, make: Make, clock: ManualClock) -> None:
    store = make()
    remembered = Remembered(store=store, clock=clock, refresh_s=5.0)
    secret = run(store.create("team", KeySettings()))
    assert run(remembered.find(digest_of(secret))) is not None
    run(store.revoke("team"))
    clock.advance(4.9)
    assert run(remembered.find(digest_of(secret))) is not None
    clock.advance(0.2)
    assert run(remembered.find(digest_of(secret))) is None


def test_strangers_do_not_fill_the_memory(
    run: Run, make: Make, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnout.gateway.keystore._MAX_REMEMBERED", 10)
    remembered = Remembered(store=make(), clock=clock, refresh_s=5.0)
    for number in range(50):
        assert run(remembered.find(digest_of(str(number)))) is None
    assert len(remembered._found) == 10


def test_an_expired_key_is_refused(run: Run, make: Make, clock: ManualClock) -> None:
    store = make()
    secret = run(store.create("team", KeySettings(), expires_s=1e9 + 10))
    ring = Keyring(keys=[], store=Remembered(store=store, clock=clock, refresh_s=60.0), clock=clock)
    headers = [(b"authorization", f"Bearer {secret}".encode())]
    assert run(ring.recognise(headers)).name == "team"
    clock.advance(10.0)
    with pytest.raises(ApiError, match="has expired") as caught:
        run(ring.recognise(headers))
    assert caught.value.status == 401


def test_a_period_begins_at_midnight_or_on_the_first() -> None:
    noon_s = 1_767_182_400.0  # 2025-12-31 12:00 UTC
    assert period_of("day", noon_s) == ("2025-12-31", 43_200.0)
    assert period_of("month", noon_s) == ("2025-12", 43_200.0)
    assert period_of("month", noon_s + 86_400) == ("2026-01", 31 * 86_400.0 - 43_200)
    assert period_of("total", noon_s) == ("total", float("inf"))


def test_a_file_that_is_none_of_ours_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("not a database at all, and long enough to be read as one" * 20)
    with pytest.raises(ConfigError, match="cannot be used"):
        open_keyfile(tmp_path / "odd")
    with sqlite3.connect(tmp_path / "new") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="written by a newer turnout"):
        open_keyfile(tmp_path / "new")


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    open_keyfile(tmp_path / "keys.sqlite").close()
    assert (tmp_path / "keys.sqlite").stat().st_mode & 0o077 == 0


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "turnout.toml"
    path.write_text(
        'deployment = "d"\n[providers.main]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
        '[auth]\nrequired = true\npath = "keys.sqlite"\nrefresh_s = 0.05\n'
    )
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_key_made_on_the_command_line_opens_a_running_gateway_until_it_is_revoked(
    upstream: Upstream, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config_file.parent
    config = msgspec.structs.replace(
        make_config(upstream.base_url, folder / "l.sqlite"),
        auth=AuthSettings(required=True, path=str(folder / "keys.sqlite"), refresh_s=0.05),
    )
    with running(config, deployment=make_deployment()) as ready:
        made = said(
            capsys, "create", str(config_file), "team", "--model", "small", "--budget-usd", "1", "--no-dial"
        )
        headers = {"authorization": f"Bearer {made['secret']}"}
        assert ask(ready.base_url, model="small", headers=headers).status == 200
        assert ask(ready.base_url, model="large", headers=headers).status == 403
        (line,) = said(capsys, "list", str(config_file))["keys"]
        assert (line["name"], line["state"], line["budget_usd"]) == ("team", "in force", 1.0)
        assert line["spent_usd"] == pytest.approx((11 * 0.1 + 7 * 0.4) / 1e6)
        assert made["secret"] not in json.dumps(line)
        said(capsys, "revoke", str(config_file), "team")
        last = ask(ready.base_url, model="small", headers=headers)
        for _ in range(100):
            if last.status == 401:
                break
            last = ask(ready.base_url, model="small", headers=headers)
        assert last.error["code"] == "invalid_api_key"


def test_the_list_is_for_people_too(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", str(config_file), "team", "--expires-days", "1"]) == 0
    secret = capsys.readouterr().out.strip()
    assert main(["keys", "list", str(config_file)]) == 0
    shown = capsys.readouterr().out
    assert "team" in shown
    assert "in force" in shown
    assert "expires" in shown
    assert secret not in shown


def test_a_wrong_option_is_one_sentence(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in [
        (["--budget-usd", "-1"], "'budget_usd'"),
        (["--budget-period", "week"], "'budget_period'"),
        (["--quality-floor", "7"], "quality_floor"),
        (["--expires-days", "0"], "expires"),
    ]:
        assert main(["keys", "create", str(config_file), "team", *options]) == 1
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
    assert main(["keys", "list", str(config_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys": []}


def test_a_key_for_a_model_that_nobody_serves_is_refused(
    config_file: Path, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    save(fitted(), config_file.parent / "d")
    with config_file.open("a") as more:
        more.write(
            "[models.words]\ninput_usd_per_mtok = 0.0\noutput_usd_per_mtok = 0.0\n"
            '[sequencers.f]\nkind = "fixed"\noptions = {order = ["small"]}\n'
        )
    assert main(["keys", "create", str(config_file), "team", "--model", "small", "--model", "smal"]) == 1
    message = capsys.readouterr().err
    names = ["turnout/auto", "turnout/f", "small", "large", "words"]
    assert "'smal'" in message
    assert f"allowed: {', '.join(names)};" in message
    assert message.count("\n") == 1
    assert said(capsys, "list", str(config_file)) == {"keys": []}
    config = load_config(config_file)
    provider = OpenAISettings(base_url=upstream.base_url)
    config = msgspec.structs.replace(
        config, providers={"main": provider}, server=ServerSettings(port=0), auth=AuthSettings()
    )
    with running(config) as ready, openai.OpenAI(base_url=ready.base_url, api_key="none") as client:
        assert [model.id for model in client.models.list()] == names
    every = [part for name in names for part in ("--model", name)]
    assert main(["keys", "create", str(config_file), "team", *every]) == 0
    assert capsys.readouterr().err == ""


def test_models_of_a_key_are_not_checked_where_the_deployment_is_elsewhere(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", str(config_file), "team", "--model", "any"]) == 0
    message = capsys.readouterr().err
    assert message.startswith("note: the names of --model are not checked")
    assert message.count("\n") == 1


def test_a_hash_is_what_the_settings_take(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("a-secret\n"))
    assert main(["keys", "hash"]) == 0
    assert capsys.readouterr().out.strip() == digest_of("a-secret").hex()


def test_a_dial_is_spelt_as_a_flag_or_as_a_setting(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, term in (("flag", "usd-per-1k"), ("setting", "usd_per_1k")):
        assert main(["keys", "create", str(config_file), name, "--dial", term]) == 0
    assert main(["keys", "create", str(config_file), "other", "--dial", "quality"]) == 1
    assert "'dials[0]'" in capsys.readouterr().err
