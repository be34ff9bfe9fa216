"""Sockets, starts that fail, and headers from the outside."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.gateway.client import ask
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.core import Candidate, ConfigError, Goal, PriceCard
from turnout.gateway.app import _end
from turnout.gateway.config import LedgerSettings, RoutingSettings, ServerSettings
from turnout.gateway.lifecycle import Ready, _log_notices, running
from turnout.gateway.reply import header_text
from turnout.gateway.settings_models import CandidateSettings

ROOT = Path(__file__).parents[2]


def test_a_gateway_that_shares_nothing_starts_without_the_packages_of_sharing(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] in ("redis", "psycopg")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    config = make_config(upstream.base_url, tmp_path / "ledger.sqlite")
    with running(config, deployment=make_deployment()) as ready:
        assert ask(ready.base_url).status == 200


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = make_config("http://127.0.0.1:1/v1", tmp_path / "l.sqlite")
        config = msgspec.structs.replace(config, server=ServerSettings(port=port))
        with (
            pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"),
            running(config, deployment=make_deployment()),
        ):
            pass
    assert not (tmp_path / "l.sqlite").exists()


def test_an_alias_that_hides_a_candidate_stops_the_start(tmp_path: Path) -> None:
    config = make_config("http://127.0.0.1:1/v1", tmp_path / "l.sqlite")
    config = msgspec.structs.replace(config, routing=RoutingSettings(alias="small"))
    with (
        pytest.raises(ConfigError, match=r"'routing.alias' is the name of a candidate.*got: 'small'; choose"),
        running(config, deployment=make_deployment()),
    ):
        pass


def test_a_ledger_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    config = make_config("http://127.0.0.1:1/v1", tmp_path)
    with pytest.raises(ConfigError, match="cannot be used"), running(config, deployment=make_deployment()):
        pass


def test_why_the_start_failed_is_said_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.gateway.pool import make_deployment; "
        "from tests.gateway.settings import make_config; from turnout.core import ConfigError; "
        "from turnout.gateway.lifecycle import serve\n"
        "try: serve(make_config('http://127.0.0.1:1/v1', Path(sys.argv[1])), deployment=make_deployment())\n"
        "except ConfigError as error: print(error, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"the ledger {str(tmp_path)!r} cannot be used" in done.stderr
    assert "choose another ledger.path" in done.stderr


def test_an_open_door_is_announced(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    with running(config, deployment=make_deployment()) as ready:
        assert ready.notices == ()
    config = msgspec.structs.replace(config, server=ServerSettings(host="0.0.0.0", port=0))
    with running(config, deployment=make_deployment()) as ready:
        assert "asks nobody for a key" in ready.notices[0]
        assert ask(ready.base_url.replace("0.0.0.0", "127.0.0.1")).status == 200


def test_without_a_callback_notices_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    _log_notices(Ready(base_url="http://127.0.0.1:1/v1", notices=("the door is open",)))
    assert caplog.messages == ["the door is open"]


def test_an_error_inside_the_block_comes_out_and_the_server_stops(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    with pytest.raises(KeyError), running(config, deployment=make_deployment()) as ready:
        raise KeyError(ready.base_url)


def test_candidates_are_mapped_to_upstream_names(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite", adapter_model="{adapter}")
    odd = Candidate(model="small", adapter="legal", effort="low")
    config = msgspec.structs.replace(config, candidates={"small": CandidateSettings(model="tiny-v2")})
    with running(config, deployment=make_deployment((SMALL, LARGE, odd))) as ready:
        ask(ready.base_url, model="small")
        assert upstream.last.json["model"] == "tiny-v2"
        ask(ready.base_url, model=odd.name)
        assert (upstream.last.json["model"], upstream.last.json["reasoning_effort"]) == ("legal", "low")


def test_nobody_who_may_serve_is_a_422_even_where_money_counts(upstream: Upstream, tmp_path: Path) -> None:
    blind = Candidate(
        model="blind",
        price_card=PriceCard(input_usd_per_mtok=1, output_usd_per_mtok=1),
        capabilities=frozenset({"tools"}),
    )
    deployment = make_deployment((blind,), goal=Goal(usd_per_quality=1.0))
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with running(make_config(upstream.base_url, tmp_path / "l.sqlite"), deployment=deployment) as ready:
        answer = ask(ready.base_url, messages=image)
    assert (answer.status, answer.error["code"]) == (422, "no_feasible_candidate")
    assert "blind: lacks vision" in answer.error["message"]


def test_a_failure_inside_is_a_500_without_its_inside(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = make_deployment()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    with running(make_config(upstream.base_url, tmp_path / "l.sqlite"), deployment=deployment) as ready:
        monkeypatch.setattr(deployment, "consider", broken)
        answer = ask(ready.base_url)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        500,
        "internal_error",
        "server_error",
    )
    assert "secret" not in answer.error["message"]
    assert answer.decision_id in answer.error["message"]
    assert "a secret of the inside" in caplog.text


def test_usage_is_not_asked_for_where_the_upstream_cannot_say(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(
        upstream.base_url, tmp_path / "l.sqlite", ask_usage=False, max_tokens_field="max_tokens"
    )
    config = msgspec.structs.replace(config, ledger=LedgerSettings(path=str(tmp_path / "l.sqlite")))
    with running(config, deployment=make_deployment()) as ready:
        answer = ask(ready.base_url, stream=True)
    assert "stream_options" not in upstream.last.json
    assert answer.body == b"".join(upstream.sent)


@pytest.mark.parametrize(
    ("text", "value"), [("a b", b"a b"), ("a\r\nb", b"a  b"), ("caf\u00e9", b"caf\\xe9")]
)
def test_header_values_are_visible_ascii(text: str, value: bytes) -> None:
    assert header_text(text) == value


def test_a_task_that_swallows_a_cancellation_does_not_hold_the_end() -> None:
    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def end() -> None:
        tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(60))]
        await asyncio.sleep(0)
        await asyncio.wait_for(_end(tasks), 10)
        assert all(task.done() for task in tasks)

    asyncio.run(end())
