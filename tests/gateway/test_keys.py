"""Keys before a real gateway: who may come in, for what, how often and for how much."""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.gateway.client import Answer, ask, call, check_advice, row, rows
from tests.gateway.pool import ADAPTED, LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.core import Candidate, ConfigError
from turnout.gateway.app import build_app
from turnout.gateway.config import Config, RoutingSettings
from turnout.gateway.lifecycle import Ready, running
from turnout.gateway.settings import GoalSettings
from turnout.gateway.settings_keys import AuthSettings, KeySettings

SECRET = "tk-a-secret-of-the-tests"
HEADERS_OF = {"authorization": f"Bearer {SECRET}"}
SMALL_USD = (11 * 0.1 + 7 * 0.4) / 1e6
"""What the upstream's usual answer costs."""


def hashed(secret: str = SECRET) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def make(upstream: Upstream, folder: Path, **keys: KeySettings) -> Config:
    config = make_config(upstream.base_url, folder / "l.sqlite")
    return msgspec.structs.replace(config, keys=keys, auth=AuthSettings(path=str(folder / "keys.sqlite")))


def serving(
    upstream: Upstream, folder: Path, pool: tuple[Candidate, ...] = (SMALL, LARGE), **settings: Any
) -> AbstractContextManager[Ready]:
    """Run a gateway with one key, `team`."""
    config = make(upstream, folder, team=KeySettings(sha256=hashed(), **settings))
    return running(config, deployment=make_deployment(pool))


def ask_as(ready: Ready, secret: str = SECRET, **fields: Any) -> Answer:
    headers = {"authorization": f"Bearer {secret}", **fields.pop("headers", {})}
    return ask(ready.base_url, headers=headers, **fields)


def test_without_a_key_nobody_comes_in(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as ready:
        none, wrong, right = ask(ready.base_url), ask_as(ready, "tk-wrong"), ask_as(ready)
    assert (none.status, none.error["code"]) == (401, "missing_api_key")
    assert (wrong.status, wrong.error["code"]) == (401, "invalid_api_key")
    assert wrong.headers["www-authenticate"].startswith("Bearer")
    check_advice(wrong.error["message"])
    assert right.status == 200
    assert len(upstream.seen) == 1


def test_the_bodys_bytes_are_not_read_for_a_stranger(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path) as ready:
        assert ask(ready.base_url, b"no json at all").status == 401
        assert ask_as(ready, model="small").status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", f"Bearer {SECRET}"),
        ("authorization", f"bearer   {SECRET} "),
        ("x-api-key", SECRET),
        ("api-key", SECRET),
        ("authorization", "Basic " + base64.b64encode(f"anyone:{SECRET}".encode()).decode()),
    ],
)
def test_a_key_comes_in_any_of_the_usual_headers(
    upstream: Upstream, tmp_path: Path, name: str, value: str
) -> None:
    with serving(upstream, tmp_path) as ready:
        assert ask(ready.base_url, headers={name: value}).status == 200
        assert ask(ready.base_url, headers={name: value[:-2]}).status == 401


def test_openais_client_is_refused_in_its_own_words(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, models=["small"]) as ready:
        with (
            openai.OpenAI(base_url=ready.base_url, api_key="tk-wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError, match="not known"),
        ):
            stranger.models.list()
        with openai.OpenAI(base_url=ready.base_url, api_key=SECRET, max_retries=0) as friend:
            assert [model.id for model in friend.models.list()] == ["small"]
            with pytest.raises(openai.PermissionDeniedError, match="may not ask for the model 'large'"):
                friend.chat.completions.create(model="large", messages=[{"role": "user", "content": "x"}])
            with pytest.raises(openai.NotFoundError):
                friend.models.retrieve("large")
            told = friend.chat.completions.create(model="small", messages=[{"role": "user", "content": "x"}])
    assert told.usage is not None


def test_a_secret_is_shown_nowhere(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOUT_TEST_SECRET", SECRET)
    config = make(upstream, tmp_path, team=KeySettings(secret="env:TURNOUT_TEST_SECRET"))
    app = build_app(config, deployment=make_deployment())
    assert SECRET not in repr(config) + repr(app.keys) + repr(app.parts)
    caplog.set_level(logging.DEBUG)
    with running(config, deployment=make_deployment()) as ready:
        assert ask_as(ready).status == 200
        wrong = ask_as(ready, SECRET + "x")
        upstream.behave["large"] = "500"
        assert ask_as(ready, model="large").status == 502
    assert SECRET.encode() not in wrong.body
    assert SECRET not in caplog.text
    assert "authorization" not in upstream.last.headers
    for path in tmp_path.iterdir():
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_secret_that_can_be_guessed_is_refused_and_not_shown(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(upstream, tmp_path, team=KeySettings(secret="env:TURNOUT_TEST_SECRET"))
    monkeypatch.setenv("TURNOUT_TEST_SECRET", "s3cre7!")
    with pytest.raises(ConfigError, match="at least 8 characters; got: 7") as caught:
        build_app(config, deployment=make_deployment())
    assert "s3cre7!" not in str(caught.value)


def test_a_secret_may_stand_in_a_file(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    config = make(upstream, tmp_path, team=KeySettings(secret=f"file:{tmp_path / 'secret'}"))
    with running(config, deployment=make_deployment()) as ready:
        assert ask_as(ready).status == 200


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("env:TURNOUT_NOT_SET", "set the environment variable 'TURNOUT_NOT_SET'"),
        ("file:nowhere", "cannot be read from 'nowhere'"),
        ("tk-pasted-by-mistake", "is no reference"),
    ],
)
def test_a_reference_that_leads_nowhere_stops_the_start(
    upstream: Upstream, tmp_path: Path, reference: str, words: str
) -> None:
    config = make(upstream, tmp_path, team=KeySettings(secret=reference))
    with pytest.raises(ConfigError, match=words) as caught:
        build_app(config, deployment=make_deployment())
    assert "pasted" not in str(caught.value)
    check_advice(str(caught.value))


def test_two_keys_with_one_secret_are_refused(upstream: Upstream, tmp_path: Path) -> None:
    config = make(upstream, tmp_path, a=KeySettings(sha256=hashed()), b=KeySettings(sha256=hashed()))
    with pytest.raises(ConfigError, match="the keys 'a' and 'b' have the same secret"):
        build_app(config, deployment=make_deployment())


def test_a_row_says_whose_it_is(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, tenant="shop") as ready:
        mine = row(tmp_path / "l.sqlite", ask_as(ready).decision_id)
        other = row(tmp_path / "l.sqlite", ask(ready.base_url).decision_id)
    assert (mine["key"], mine["tenant"], mine["status"]) == ("team", "shop", 200)
    assert (other["key"], other["tenant"], other["error"]) == (None, None, "missing_api_key")


def test_a_key_says_which_dials_its_client_may_set(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, dials=["usd_per_quality"]) as ready:
        allowed = ask_as(ready, headers={"x-turnout-usd-per-quality": "1"})
        refused = ask_as(ready, headers={"x-turnout-quality-floor": "0.5"})
    assert allowed.status == 200
    assert (refused.status, refused.error["code"]) == (403, "dial_not_allowed")
    assert refused.error["param"] == "x-turnout-quality-floor"
    assert "allowed: x-turnout-usd-per-quality;" in refused.error["message"]


def test_a_keys_own_dial_stands_between_the_requests_and_the_files(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Money that counts for much makes the small one best, money that counts for little the large one."""
    with serving(upstream, tmp_path, goal=GoalSettings(usd_per_quality=1e-7)) as ready:
        by_key = ask_as(ready)
        by_header = ask_as(ready, headers={"x-turnout-usd-per-quality": "1"})
    assert by_key.headers["x-turnout-model"] == "small"
    assert by_header.headers["x-turnout-model"] == "large"


def test_a_keys_goal_that_cannot_be_served_stops_the_start(upstream: Upstream, tmp_path: Path) -> None:
    config = make(upstream, tmp_path, team=KeySettings(sha256=hashed(), goal=GoalSettings(quality_floor=0.9)))
    with pytest.raises(ConfigError, match=r"'keys\.team\.goal' cannot be served"):
        build_app(config, deployment=make_deployment())


def test_a_rate_of_requests_is_a_429_that_says_when(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, requests_per_min=2) as ready:
        statuses = [ask_as(ready).status for _ in range(2)]
        refused = ask_as(ready)
        with (
            openai.OpenAI(base_url=ready.base_url, api_key=SECRET, max_retries=0) as client,
            pytest.raises(openai.RateLimitError) as caught,
        ):
            client.chat.completions.create(model="small", messages=[{"role": "user", "content": "x"}])
    assert statuses == [200, 200]
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.error["type"] == "rate_limit_error"
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert 25_000 <= int(refused.headers["retry-after-ms"]) <= 30_000
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert caught.value.code == "rate_limit_exceeded"
    check_advice(refused.error["message"])
    assert row(tmp_path / "l.sqlite", refused.decision_id)["error"] == "rate_limit_exceeded"


def test_a_rate_of_tokens_counts_what_was_really_used(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, tokens_per_min=1000) as ready:
        # 900 are taken before the answer, and 18 were used: 882 come back, four times.
        statuses = [ask_as(ready, model="small", max_tokens=900).status for _ in range(5)]
        refused = ask_as(ready, model="small", max_tokens=960)
    assert statuses == [200] * 5
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-limit-tokens"] == "1000"


def test_requests_that_come_together_never_overspend(upstream: Upstream, tmp_path: Path) -> None:
    """Twelve at once, and money for four: four are served, whatever the order."""
    upstream.behave["small"] = "late"
    # At most 8 tokens out, and 2 x 2 + 16 in.
    most = (20 * 0.1 + 8 * 0.4) / 1e6
    with (
        serving(upstream, tmp_path, budget_usd=4.5 * most) as ready,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda _: ask_as(ready, model="small", max_tokens=8), range(12)))
        served = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status == 429]
        assert (len(served), len(refused)) == (4, 8)
        assert len(upstream.seen) == 4
        # What was left over has come back: a fifth fits, and more as long as the true sum allows.
        upstream.behave["small"] = "well"
        more = 0
        while ask_as(ready, model="small", max_tokens=8).status == 200:
            more += 1
    spent = sum(entry["usd"] or 0.0 for entry in rows(tmp_path / "l.sqlite"))
    assert spent <= 4.5 * most
    assert spent > 3.5 * most - SMALL_USD
    assert more >= 1
    error = refused[0].error
    # There was money, and it was held: who tries again may be served.
    assert (error["code"], error["type"]) == ("budget_held", "rate_limit_error")
    assert "x-should-retry" not in refused[0].headers
    assert refused[0].headers["retry-after"] == "1"


def test_a_budget_that_is_spent_is_not_asked_again(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, budget_usd=1e-9) as ready:
        refused = ask_as(ready, model="small", max_tokens=8)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert refused.error["type"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert int(refused.headers["retry-after"]) > 1
    assert upstream.seen == []


def test_who_is_too_dear_for_what_is_left_is_passed_over(upstream: Upstream, tmp_path: Path) -> None:
    """The large one is chosen, and the budget pays the small one only."""
    budget = (20 * 0.1 + 100 * 0.4) / 1e6 * 1.5
    with serving(upstream, tmp_path, budget_usd=budget) as ready:
        answer = ask_as(ready, max_tokens=100)
    assert answer.status == 200
    assert answer.headers["x-turnout-chosen"] == "large"
    assert answer.headers["x-turnout-model"] == "small"
    assert row(tmp_path / "l.sqlite", answer.decision_id)["faults"] == "large: beyond_budget"


def test_several_answers_to_one_request_are_reserved_for(upstream: Upstream, tmp_path: Path) -> None:
    budget = (20 * 0.1 + 100 * 0.4) / 1e6 * 1.5
    with serving(upstream, tmp_path, budget_usd=budget) as ready:
        assert ask_as(ready, model="small", max_tokens=100, n=4).status == 429
        assert ask_as(ready, model="small", max_tokens=100, n=1).status == 200


def test_nobody_spends_where_the_price_is_not_known(upstream: Upstream, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, (SMALL, ADAPTED), budget_usd=1.0) as ready:
        answer = ask_as(ready, model=ADAPTED.name)
    assert (answer.status, answer.error["code"]) == (403, "price_unknown")
    assert upstream.seen == []


def test_a_failed_upstream_costs_nothing_and_gives_all_back(upstream: Upstream, tmp_path: Path) -> None:
    budget = (20 * 0.1 + 100 * 0.4) / 1e6 * 1.5
    upstream.behave["small"] = "500"
    with serving(upstream, tmp_path, budget_usd=budget) as ready:
        assert [ask_as(ready, model="small", max_tokens=100).status for _ in range(5)] == [502] * 5
        upstream.behave["small"] = "well"
        assert ask_as(ready, model="small", max_tokens=100).status == 200


def test_a_client_that_leaves_frees_its_budget_but_for_the_prompt(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "slow"
    prompt = "x " * 2000
    most = (2020 * 0.1 + 100 * 0.4) / 1e6
    with serving(upstream, tmp_path, budget_usd=most * 1.2) as ready:
        with (
            openai.OpenAI(base_url=ready.base_url, api_key=SECRET, max_retries=0, timeout=0.2) as client,
            pytest.raises(openai.APITimeoutError),
        ):
            client.chat.completions.create(
                model="small", max_tokens=100, messages=[{"role": "user", "content": prompt}]
            )
        assert upstream.last.gone.wait(2)
        # Nobody knows what the upstream charges for a prompt that it had read: its estimate is kept.
        upstream.behave["small"] = "well"
        told = ask_as(ready, model="small", max_tokens=250)
        for _ in range(100):
            if told.status == 200:
                break
            threading.Event().wait(0.02)
            told = ask_as(ready, model="small", max_tokens=250)
        assert told.status == 200
        left = most * 1.2 - 1000 * 0.1 / 1e6 - SMALL_USD
        assert ask_as(ready, model="small", max_tokens=int((left * 1e6 - 2) / 0.4) + 8).status == 429


def test_a_hedge_reserves_for_both(upstream: Upstream, tmp_path: Path) -> None:
    budget = (20 * 0.1 + 100 * 0.4) / 1e6 * 1.5
    config = make(upstream, tmp_path, team=KeySettings(sha256=hashed(), budget_usd=budget))
    config = msgspec.structs.replace(config, routing=RoutingSettings(retries=0, hedge_after_s=5.0))
    with running(config, deployment=make_deployment()) as ready:
        assert ask_as(ready, model="small", max_tokens=100).status == 429
        assert ask_as(ready, model="small", max_tokens=40).status == 200


def test_spend_is_remembered_over_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    budget = SMALL_USD * 2.5 + (20 * 0.1) / 1e6
    for _ in range(2):
        with serving(upstream, tmp_path, budget_usd=budget) as ready:
            assert ask_as(ready, model="small", max_tokens=7).status == 200
    with serving(upstream, tmp_path, budget_usd=budget) as ready:
        assert ask_as(ready, model="small", max_tokens=7).status == 429


def test_admin_paths_need_a_key_that_says_so(upstream: Upstream, tmp_path: Path) -> None:
    config = make(
        upstream,
        tmp_path,
        team=KeySettings(sha256=hashed()),
        boss=KeySettings(sha256=hashed("tk-boss"), is_admin=True),
    )
    with running(config, deployment=make_deployment()) as ready:
        root = ready.base_url.removesuffix("/v1")
        bearer = {secret: {"authorization": f"Bearer {secret}"} for secret in (SECRET, "tk-boss")}
        assert call(root, "/admin/breakers").status == 401
        refused = call(root, "/admin/breakers", headers=bearer[SECRET])
        assert (refused.status, refused.error["code"]) == (403, "admin_only")
        assert call(root, "/admin/breakers", headers=bearer["tk-boss"]).status == 200
        assert call(root, "/healthz").status == 200
        assert call(root, "/v1/models").status == 401
        assert call(root, "/v1/models", headers=bearer[SECRET]).status == 200


def test_a_gateway_without_keys_asks_nobody_and_writes_no_file(upstream: Upstream, tmp_path: Path) -> None:
    with running(make(upstream, tmp_path), deployment=make_deployment()) as ready:
        assert ask_as(ready, "anything").status == 200
    assert not (tmp_path / "keys.sqlite").exists()
