"""The file is read strictly: every mistake is one sentence with the path of the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.client import ask, check_advice
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.core import ArtifactError, ConfigError
from turnout.gateway.app import build_app
from turnout.gateway.config import Config, demo_config, load_config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_providers import OpenAISettings, ReplaySettings

GOOD = """
deployment = "fitted"

[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "turnout.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_file_has_the_documented_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8100)
    assert config.server.max_body_mb == 32.0
    assert config.routing.alias == "turnout/auto"
    assert not config.ledger.keep_text
    assert config.provider_of("anyone") == "main"


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    text = 'deployment = "/abs"\n[providers.r]\nkind = "replay"\ntable = "t"\n[ledger]\npath = "l.sqlite"\n'
    config = load_config(write(tmp_path, text))
    assert config.deployment == "/abs"
    assert config.ledger.path == str(tmp_path / "l.sqlite")
    assert config.providers["r"] == ReplaySettings(table=str(tmp_path / "t"))


def test_a_full_file_is_read(tmp_path: Path) -> None:
    text = """
deployment = "fitted"
default_provider = "main"
[server]
port = 0
[goal]
usd_per_1k = 0.5
[providers.main]
kind = "openai"
base_url = "https://example.org/v1"
api_key_env = "SOME_KEY"
first_byte_s = 2
[providers.recorded]
kind = "replay"
table = "table"
[candidates."large[effort=high]"]
model = "large-2024"
provider = "recorded"
"""
    config = load_config(write(tmp_path, text))
    main = config.providers["main"]
    assert isinstance(main, OpenAISettings)
    assert (main.api_key_env, main.first_byte_s) == ("SOME_KEY", 2.0)
    assert config.provider_of("large[effort=high]") == "recorded"
    assert config.provider_of("small") == "main"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "[server]\nprot = 1\n", ("server.prot", "did you mean 'port'")),
        (GOOD + "[sever]\n", ("'sever'", "did you mean 'server'")),
        (GOOD + "api_kye = 'env:X'\n", ("providers.main.api_kye", "did you mean 'api_key'")),
        (GOOD + "api_key = 'sk-written-out'\n", ("providers.main.api_key", "no reference to a secret")),
        (GOOD + "api_key = 'env:X'\napi_key_env = 'X'\n", ("providers.main", "names two keys")),
        (
            GOOD + "[candidates.small]\nprovide = 'main'\n",
            ("candidates.small.provide", "did you mean 'provider'"),
        ),
        (GOOD + "[server]\nport = 'x'\n", ("server.port", "allowed: a whole number; got: 'x'; change it")),
        (GOOD + "[server]\nport = 99999\n", ("server.port", "a whole number of at most 65535; got: 99999;")),
        (GOOD + "server = 3\n", ("providers.main.server",)),
        (GOOD + "first_byte_s = -1\n", ("providers.main.first_byte_s", "a number above 0.0; got: -1;")),
        (GOOD + '[candidates."a.b"]\nmodel = 3\n', ("candidates.a.b.model", "a string or null; got: 3;")),
        ("server = 3\n" + GOOD, ("'server'", "allowed: an object; got: 3;")),
        (GOOD + "[ledger]\nflush_ms = 5000\n", ("ledger.flush_ms", "100")),
        (GOOD.replace('"openai"', '"opneai"'), ("providers.main.kind", "'openai' or 'azure'")),
        (GOOD.replace('kind = "openai"\n', ""), ("providers.main.kind",)),
        (GOOD.replace('base_url = "http', 'base_url = "ftp'), ("providers.main.base_url", "http://")),
        (GOOD.replace("1:1/v1", "1:1/v1\\r\\nx: y"), ("providers.main.base_url", "line ends")),
        (GOOD.replace(':1/v1"', ':1/v1/chat/completions"'), ("providers.main.base_url", "path of a call")),
        (GOOD.replace(':1/v1"', ':1/v1/messages/"'), ("providers.main.base_url", "path of a call")),
        (GOOD.replace(':1/v1"', ':1/v1?api-version=1"'), ("providers.main.base_url", "a query")),
        ('deployment = "x"\n', ("providers", "missing")),
        ('deployment = "x"\nproviders = {}\n', ("providers", "an object that is not empty; got: {};")),
        (
            'deployment = "x"\nproviders = {main = {kind = "openai"}}\n',
            ("providers.main.base_url", "missing"),
        ),
        (GOOD.replace('"fitted"', '""'), ("'deployment'", "a string that is not empty; got: '';")),
        (
            GOOD + '[candidates.small]\nprovider = "mian"\n',
            ("candidates.small.provider", "did you mean 'main'"),
        ),
        (GOOD + "[goal]\nusd_per_1k = 1.0\nquality_floor = 1.0\n", ("goal", "at most one")),
        (GOOD + "[goal]\nusd_per_1k = -1.0\n", ("goal", "usd_per_1k")),
        (GOOD + '[providers.b]\nkind = "replay"\ntable = "t"\n', ("default_provider", "b, main")),
        (GOOD + "[[[", ("not TOML",)),
        (
            GOOD + '[keys.a]\nsecret = "env:A"\ndials = ["quality-flor"]\n',
            ("keys.a.dials[0]", "'quality_floor' or 'usd_per_1k' or 'usd_per_quality'; got: 'quality-flor'"),
        ),
        (
            GOOD + '[signals.x]\nkind = "keyword"\nwords = ["a"]\nscope = "all"\n',
            ("signals.x.scope", "allowed: 'conversation' or 'user'; got: 'all'"),
        ),
        (
            GOOD + '[rollout]\ndeployment = "a"\nsticky_by = "me"\n',
            ("rollout.sticky_by", "'key' or 'request' or 'user'; got: 'me'"),
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_the_key(tmp_path: Path, text: str, words: tuple) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert [word for word in (*words, str(path)) if word not in message] == [], message
    assert "\n" not in message
    check_advice(message)


def test_a_missing_file_and_one_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "odd.toml")


def test_settings_do_not_change() -> None:
    config = demo_config("fitted", "table")
    with pytest.raises(AttributeError):
        config.server.port = 1  # type: ignore[misc]


def test_a_key_is_read_from_the_environment_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("http://127.0.0.1:1/v1", tmp_path / "l.sqlite", api_key_env="TURNOUT_TEST_KEY")
    with pytest.raises(ConfigError, match="TURNOUT_TEST_KEY"):
        build_app(config, deployment=make_deployment())
    monkeypatch.setenv("TURNOUT_TEST_KEY", "very-secret")
    app = build_app(config, deployment=make_deployment())
    assert "very-secret" not in repr(config) + repr(app.parts.providers)


def test_a_key_in_a_file_goes_upstream(tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "key").write_text("very-secret\n")
    text = GOOD.replace("http://127.0.0.1:1/v1", upstream.base_url) + "api_key = 'file:key'\n"
    config = load_config(write(tmp_path, text + "[server]\nport = 0\n"))
    with running(config, deployment=make_deployment()) as ready:
        assert ask(ready.base_url).status == 200
    assert upstream.last.headers["authorization"] == "Bearer very-secret"


def test_a_candidate_that_the_deployment_lacks_is_refused(tmp_path: Path) -> None:
    text = GOOD + '[candidates.smal]\nmodel = "x"\n'
    config = load_config(write(tmp_path, text))
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        build_app(config, deployment=make_deployment())


def test_a_goal_that_needs_calibration_is_refused_at_the_start(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD + "[goal]\nquality_floor = 0.9\n"))
    with pytest.raises(ConfigError, match="'goal' cannot be served"):
        build_app(config, deployment=make_deployment())


def test_a_folder_that_is_no_artifact_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artifact at"):
        build_app(load_config(write(tmp_path, GOOD)))


def test_a_config_is_a_value() -> None:
    assert demo_config("a", "b") == demo_config("a", "b")
    assert isinstance(demo_config("a", "b"), Config)


@pytest.mark.parametrize("scheme", ["http://", "https://", "ftp://", ""])
def test_a_password_in_an_upstreams_url_is_refused_and_not_shown(tmp_path: Path, scheme: str) -> None:
    """A reload would tell it to the log and to whoever asked for the reload."""
    path = tmp_path / "t.toml"
    path.write_text(GOOD.replace("http://", f"{scheme}ann:hunter2@"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "providers.main.base_url" in message
    assert "api_key_env" in message
    assert "hunter2" not in message
