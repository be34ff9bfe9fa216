"""Whatever schemathesis makes of the OpenAPI document, the gateway never answers 500."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.gateway.chat_told import SAID, completion
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Say, sse, stream, told_server, whole
from turnout.gateway.lifecycle import running

pytestmark = pytest.mark.filterwarnings("default")


def say(asked: Asked) -> Say:
    """Answer anything well, in the form that was asked for."""
    if asked.path.endswith("/embeddings"):
        return whole({"data": [], "usage": {"prompt_tokens": 1, "total_tokens": 1}})
    if asked.path.endswith("/responses"):
        return whole({"id": "resp_1", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}})
    body = json.loads(asked.body)
    chunk = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}],
    }
    return stream(sse(chunk)) if body.get("stream") is True else whole(completion(SAID, "tool_calls"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    ledger = tmp_path_factory.mktemp("schemathesis") / "ledger.sqlite"
    with told_server() as told:
        told.say = say
        with running(make_config(told.base_url, Path(ledger)), deployment=make_deployment()) as ready:
            yield schemathesis.openapi.from_url(ready.base_url.removesuffix("/v1") + "/openapi.json")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_never_a_500(api: Any, mode: Any) -> None:
    """Cases that fit the document, and cases that break it, for every operation."""
    api.config.generation.update(modes=[mode])
    num_answers: Counter[int] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if mode.is_negative and not operation.body:
            continue  # nothing that could be broken

        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            response = case.call(timeout=20)
            num_answers[response.status_code] += 1
            assert response.status_code != 500, (case.as_curl_command(), response.text)
            assert "Traceback" not in response.text

        check()
    assert num_answers[200] > 0
    assert sum(num_answers.values()) > 50
