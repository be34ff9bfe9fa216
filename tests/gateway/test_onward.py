"""A client's trace, and the betas that it asks for, go on upstream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.client import ask
from tests.gateway.conftest import Served
from tests.gateway.test_stored import client_of, servers, stand
from tests.gateway.test_telemetry import PARENT, ended
from tests.gateway.test_telemetry import told as telling
from tests.gateway.told import Told
from tests.gateway.upstream import Upstream
from turnout.gateway.onward import passed_on

_ = servers, stand
TRACE = {"traceparent": PARENT, "tracestate": "vendor=opaque,other=1"}


def test_the_trace_and_the_betas_of_openais_client_arrive(client: openai.OpenAI, upstream: Upstream) -> None:
    hello: Any = [{"role": "user", "content": "hello"}]
    sent = {**TRACE, "OpenAI-Beta": "assistants=v2"}
    client.chat.completions.create(model="small", messages=hello, extra_headers=sent)
    told = upstream.last.headers
    assert {name: told[name] for name in TRACE} == TRACE
    assert told["openai-beta"] == "assistants=v2"
    list(client.chat.completions.create(model="small", messages=hello, stream=True, extra_headers=TRACE))
    assert upstream.last.headers["traceparent"] == PARENT
    client.chat.completions.create(model="small", messages=hello)
    assert not {*TRACE, "openai-beta"} & upstream.last.headers.keys()


def test_so_they_do_for_what_is_kept(stand: Served, servers: dict[str, Told]) -> None:
    with client_of(stand) as client:
        made = client.responses.create(model="small", input="an easy one", extra_headers=TRACE)
        assert servers["first"].last.headers["tracestate"] == TRACE["tracestate"]
        client.responses.retrieve(made.id, extra_headers={**TRACE, "openai-beta": "responses=v1"})
        told = servers["first"].last.headers
    assert (told["traceparent"], told["openai-beta"]) == (PARENT, "responses=v1")


def test_where_spans_are_told_the_upstream_belongs_to_the_gateways_own(
    upstream: Upstream, tmp_path: Path
) -> None:
    with telling(upstream, tmp_path) as gateway:
        answer = ask(gateway.base_url, headers=TRACE)
        ended(gateway, answer)
        context, parent = gateway.span.context, gateway.span.parent
        told = upstream.last.headers
    assert context is not None
    assert parent is not None
    version, trace_id, span_id, flags = told["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", PARENT.split("-")[1], "01")
    assert span_id == f"{context.span_id:016x}" != PARENT.split("-")[2]
    assert f"{parent.span_id:016x}" == PARENT.split("-")[2]
    assert told["tracestate"] == TRACE["tracestate"]


def test_where_spans_are_told_a_request_without_a_trace_begins_one(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.behave["large"] = "500"
    with telling(upstream, tmp_path) as gateway:
        ended(gateway, ask(gateway.base_url))
        context = gateway.span.context
    assert context is not None
    parents = {seen.headers["traceparent"] for seen in upstream.seen}
    assert len(upstream.seen) == 2, "the one that failed and the one that answered"
    (parent,) = parents
    assert parent.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ([], ()),
        ([(b"tracestate", b"a=1")], ()),
        ([(b"traceparent", b"x"), (b"traceparent", b"y"), (b"tracestate", b"a=1")], ()),
        (
            [(b"tracestate", b"a=1"), (b"traceparent", b"x"), (b"tracestate", b"b=2")],
            ((b"traceparent", b"x"), (b"tracestate", b"a=1,b=2")),
        ),
    ],
)
def test_state_may_come_in_pieces_and_says_nothing_without_one_trace(headers: Any, trace: Any) -> None:
    assert passed_on(headers) == (trace, ())
