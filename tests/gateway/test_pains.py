"""What users of other gateways suffer from: the tests of docs/pains.md that have no better place."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import re
import threading
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

from benchmarks.pains import REMOVALS, applied
from tests.docs import markdown
from tests.gateway.client import Answer, ask, call, row, rows
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_keys import HEADERS_OF, hashed
from tests.gateway.upstream import Upstream
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_keys import AuthSettings, KeySettings

PAGE = markdown.ROOT / "docs" / "pains.md"
NUMBERS = [*range(1, 15), 18, 19, 20]


def named_tests() -> dict[int, list[str]]:
    """Return the tests that the page names, by the number of the pain."""
    found: dict[int, list[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 4 and cells[1].isdigit():
            found[int(cells[1])] = re.findall(r"`(tests/[\w/.]+::\w+)`", cells[4])
    return found


def test_every_pain_has_tests_and_they_exist() -> None:
    found = named_tests()
    assert sorted(found) == NUMBERS
    assert all(found.values())
    for name in (name for names in found.values() for name in names):
        path, _, function = name.partition("::")
        tree = ast.parse((markdown.ROOT / path).read_text(encoding="utf-8"))
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in there, name


def test_every_pain_has_a_line_that_protects_from_it() -> None:
    """`python -m benchmarks.pains` takes each away and sees the test turn red; here they must be there."""
    named = named_tests()
    assert sorted({removal.pain for removal in REMOVALS}) == NUMBERS
    for removal in REMOVALS:
        assert removal.test in named[removal.pain]
        without, _ = applied((markdown.ROOT / removal.file).read_text(encoding="utf-8"), removal)
        ast.parse(without)


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def test_nothing_grows_with_requests(upstream: Upstream, tmp_path: Path) -> None:
    """Mixed requests, good and bad ones, of a client that names itself anew each time."""
    config = make_config(upstream.base_url, tmp_path / "l.sqlite")
    keys = {"team": KeySettings(sha256=hashed(), requests_per_min=100_000, budget_usd=1000.0)}
    auth = AuthSettings(path=str(tmp_path / "k.sqlite"))
    config = msgspec.structs.replace(config, keys=keys, auth=auth)

    def some(base_url: str, start: int) -> None:
        for number in range(start, start + 60):
            ask(base_url, model="small", headers=HEADERS_OF)
            ask(base_url, model="small", stream=True, headers=HEADERS_OF, user=f"user {number}")
            ask(base_url, model=f"model {number}", headers=HEADERS_OF)
            ask(base_url, headers={"authorization": f"Bearer tk-{number % 5}"})
            ask(base_url, f"no json {number}".encode(), headers=HEADERS_OF)

    with running(config, deployment=make_deployment()) as ready:
        upstream.script["small"] = []
        some(ready.base_url, 0)
        upstream.reset()
        before = objects()
        some(ready.base_url, 60)
        upstream.reset()
        grown = objects() - before
    # 300 requests: a map with an entry or two for each would show.
    assert grown < 150, grown


def test_a_decision_that_takes_long_delays_nobody_else(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of a megabyte is decided beside the event loop."""
    deployment = make_deployment()
    decide = deployment.consider
    has_begun, is_free = threading.Event(), threading.Event()

    def slow(*arguments: object, **options: object) -> object:
        has_begun.set()
        is_free.wait(5)
        return decide(*arguments, **options)  # type: ignore[arg-type]

    with running(make_config(upstream.base_url, tmp_path / "l.sqlite"), deployment=deployment) as ready:
        monkeypatch.setattr(deployment, "consider", slow)
        text = "word " * 100_000
        thread = threading.Thread(
            target=lambda: ask(ready.base_url, messages=[{"role": "user", "content": text}])
        )
        thread.start()
        assert has_begun.wait(10)
        # Nobody lets the decision go before these are answered.
        answers = [ask(ready.base_url, model="small").status for _ in range(10)]
        was_running = thread.is_alive()
        is_free.set()
        thread.join()
    assert answers == [200] * 10
    assert was_running, "the others were served meanwhile"


def test_many_streams_are_held_at_once_and_all_come_to_their_end(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite", first_byte_s=30.0, idle_s=30.0)
    with running(config, deployment=make_deployment()) as ready:
        bodies = hold_streams(ready.base_url, upstream, 200)
    assert len(bodies) == 200
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    assert {entry["status"] for entry in rows(tmp_path / "l.sqlite")} == {200}


def hold_streams(base_url: str, upstream: Upstream, count: int) -> list[bytes]:
    """Open so many streams, let none of them end before the last is open, and return what they brought."""
    upstream.behave["small"] = "drips"
    body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "x"}]}

    async def one(session: aiohttp.ClientSession) -> bytes:
        async with session.post(f"{base_url}/chat/completions", json=body) as response:
            assert response.status == 200
            return await response.read()

    async def main() -> list[bytes]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            streams = [asyncio.create_task(one(session)) for _ in range(count)]
            while len(upstream.seen) < count:
                assert not any(stream.done() for stream in streams)
                await asyncio.sleep(0.01)
            upstream.release.set()
            return await asyncio.gather(*streams)

    return asyncio.run(main())


def test_a_large_body_with_images_arrives_byte_for_byte(gateway: Served, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 200_000}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": "long " * 20_000}}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "long " * 80_000}, image, image]}]
    started_s = time.monotonic()
    answer = ask(gateway.base_url, model="small[adapter=legal]", messages=messages, tools=[tool])
    assert answer.status == 200, answer.body
    assert time.monotonic() - started_s < 5.0
    assert len(upstream.last.body) > 2_500_000
    told = upstream.last.json
    assert (told["messages"], told["tools"]) == (messages, [tool])


def test_events_leave_as_they_come(gateway: Served, upstream: Upstream) -> None:
    """The upstream sends four events and falls silent: the client has them all while it still waits."""
    upstream.behave["small"] = "drips"
    body = json.dumps(
        {"model": "small", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    ).encode()

    async def main() -> float:
        async with aiohttp.ClientSession() as session:
            started_s = time.monotonic()
            async with session.post(f"{gateway.base_url}/chat/completions", data=body) as response:
                assert response.headers["cache-control"] == "no-cache"
                assert response.headers["x-accel-buffering"] == "no"
                assert "content-encoding" not in response.headers
                received = b""
                while received.count(b"data: ") < 4:
                    received += await response.content.readany()
                waited_s = time.monotonic() - started_s
                assert not upstream.release.is_set()
                return waited_s

    assert asyncio.run(main()) < 0.8, "sooner than the silence limit of 1 s would have cut it"


def test_a_client_that_leaves_frees_its_place(upstream: Upstream, tmp_path: Path) -> None:
    config = make_config(upstream.base_url, tmp_path / "l.sqlite", first_byte_s=30.0)
    server = msgspec.structs.replace(config.server, max_running=1, max_queued=0)
    upstream.behave["small"] = "slow"
    with running(msgspec.structs.replace(config, server=server), deployment=make_deployment()) as ready:

        async def main() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
                body = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
                with pytest.raises(TimeoutError):
                    await session.post(f"{ready.base_url}/chat/completions", json=body)

        asyncio.run(main())
        assert upstream.last.gone.wait(2)
        assert ask(ready.base_url, model="large").status == 200


def test_golden_rows_of_streams_and_of_those_that_were_cut(gateway: Served, upstream: Upstream) -> None:
    """Tokens and USD of a stream, worked by hand; a cut one is an estimate that says so."""
    whole = ask(gateway.base_url, model="small", stream=True)
    found = row(gateway.ledger, whole.decision_id)
    assert (found["input_tokens"], found["output_tokens"], found["usage_estimated"]) == (11, 40, 0)
    assert found["usd"] == pytest.approx((11 * 0.1 + 40 * 0.4) / 1e6)
    upstream.behave["small"] = "cut"
    cut = ask(gateway.base_url, model="small", stream=True)
    found = row(gateway.ledger, cut.decision_id)
    assert (found["usage_estimated"], found["error"]) == (1, "upstream_cut")
    assert found["output_tokens"] == 3
    same = [entry for entry in rows(gateway.ledger) if entry["decision_id"] == whole.decision_id]
    assert len(same) == 1


def test_who_was_asked_and_in_vain_stands_in_headers_and_row(gateway: Served, upstream: Upstream) -> None:
    upstream.behave["large"] = "500"
    answer: Answer = ask(gateway.base_url)
    assert answer.headers["x-turnout-chosen"] == "large[effort=high,max_output_tokens=500]"
    assert answer.headers["x-turnout-model"] == "small"
    assert int(answer.headers["x-turnout-attempts"]) == 3
    found = row(gateway.ledger, answer.decision_id)
    assert found["faults"].count("upstream_error") == 2
    assert call(gateway.base_url.removesuffix("/v1"), "/admin/breakers").status == 200
