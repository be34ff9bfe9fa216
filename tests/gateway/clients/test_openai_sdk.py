"""What OpenAI's client offers beyond a call: parsed forms, helpers of streams, raw answers, retries."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.gateway.clients.willing import TEXT
from tests.gateway.clients.willing_chat import say_chat
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Say, Told, told_server, whole
from turnout.gateway.lifecycle import running

HELLO: Any = [{"role": "user", "content": "Hello"}]
BOTH = pytest.mark.parametrize("model", ["plain", "claude"])


class Joke(BaseModel):
    setup: str
    punchline: str


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


@BOTH
def test_a_form_is_parsed(client: openai.OpenAI, model: str) -> None:
    got = client.chat.completions.parse(model=model, messages=HELLO, response_format=Joke)
    assert got.choices[0].message.parsed == Joke(setup="some setup", punchline="some punchline")


@BOTH
def test_the_helper_of_streams_puts_forms_and_calls_together(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(
        model=model, messages=HELLO, response_format=Joke, stream_options={"include_usage": True}
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"content.delta", "content.done"} <= kinds
    assert final.choices[0].message.parsed == Joke(setup="some setup", punchline="some punchline")
    assert final.usage is not None
    assert final.usage.prompt_tokens == 11
    tool = openai.pydantic_function_tool(Joke)
    with client.chat.completions.stream(
        model=model, messages=HELLO, tools=[tool], tool_choice="required"
    ) as stream:
        done: Any = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert done[0].parsed_arguments == Joke(setup="some setup", punchline="some punchline")


@BOTH
def test_pictures_and_files_arrive(client: openai.OpenAI, model: str) -> None:
    data = base64.b64encode(b"%PDF-1.4").decode()
    parts: Any = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}},
    ]
    got = client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    assert got.choices[0].message.content == f"{TEXT} You sent image. You sent file."


def test_raw_and_streamed_answers_keep_their_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="turnout/auto", messages=HELLO)
    assert raw.headers["x-turnout-decision-id"]
    assert raw.parse().choices[0].message.content == TEXT
    with client.chat.completions.with_streaming_response.create(model="plain", messages=HELLO) as slow:
        assert json.loads(slow.read())["choices"][0]["message"]["content"] == TEXT


@pytest.mark.anyio
@BOTH
async def test_the_asynchronous_client_says_the_same(served: Served, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        got = await client.chat.completions.create(model=model, messages=HELLO)
        assert got.choices[0].message.content == TEXT
        stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(pieces) == TEXT
        parsed = await client.responses.parse(model=model, input="Hello", text_format=Joke)
        assert parsed.output_parsed == Joke(setup="some setup", punchline="some punchline")


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, str]]:
    """An upstream that a test makes busy or slow, and the address of a gateway before it."""
    ledger = Path(tmp_path_factory.mktemp("moody") / "ledger.sqlite")
    with (
        told_server() as told,
        running(make_config(told.base_url, ledger), deployment=make_deployment()) as ready,
    ):
        yield told, ready.base_url


def test_the_client_tries_again_when_it_is_told_to(moody: tuple[Told, str]) -> None:
    """One 429 with its own `retry-after`, passed on, and obeyed by the client."""
    told, base_url = moody
    told.seen.clear()

    def say(asked: Asked) -> Say:
        error = {"message": "slow down", "type": "rate_limit", "param": None, "code": "rate_limit"}
        return say_chat(asked) if len(told.seen) > 1 else whole({"error": error}, 429, **{"retry-after": "1"})

    told.say = say
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=1, timeout=20) as client:
        begin_s = time.monotonic()
        got = client.chat.completions.create(model="small", messages=HELLO)
    assert got.choices[0].message.content == TEXT
    assert time.monotonic() - begin_s >= 1.0
    assert len(told.seen) == 2


def test_a_client_that_gives_up_is_told_so_by_its_own_clock(moody: tuple[Told, str]) -> None:
    told, base_url = moody

    def say(asked: Asked) -> Say:
        return Say([b" "] * 400, is_cut=True)

    told.say = say
    with (
        openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=0.3) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="small", messages=HELLO)


def test_embeddings_come_in_the_clients_own_base64(moody: tuple[Told, str]) -> None:
    told, base_url = moody
    packed = base64.b64encode(struct.pack("<3f", 0.5, -1.25, 3.0)).decode()

    def say(asked: Asked) -> Say:
        assert asked.json["encoding_format"] == "base64"
        data = [{"object": "embedding", "index": 0, "embedding": packed}]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return whole({"object": "list", "model": "small", "data": data, "usage": usage})

    told.say = say
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        got = client.embeddings.create(model="small", input=["a b"])
    assert got.data[0].embedding == [0.5, -1.25, 3.0]
    assert got.usage.total_tokens == 2
