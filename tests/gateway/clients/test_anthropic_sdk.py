"""What Anthropic's client offers beyond a call: parsed forms, a runner of tools, helpers of streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.gateway.clients.willing import TEXT, THOUGHT
from tests.gateway.conftest import Served

HELLO: Any = [{"role": "user", "content": "Hello"}]
BOTH = pytest.mark.parametrize("model", ["claude", "plain"])


class Joke(BaseModel):
    setup: str
    punchline: str


@pytest.fixture
def client(served: Served) -> Iterator[anthropic.Anthropic]:
    base_url = served.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


@BOTH
def test_the_runner_of_tools_goes_round(client: anthropic.Anthropic, model: str) -> None:
    asked: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Say how the weather is.

        Args:
            city: Where.
        """
        asked.append(city)
        return "sunny"

    question: Any = [{"role": "user", "content": "How is the weather in 'Rome'?"}]
    runner = client.beta.messages.tool_runner(
        model=model, max_tokens=100, tools=[get_weather], messages=question
    )
    final = runner.until_done()
    assert asked == ["Rome"]
    assert [block.text for block in final.content if block.type == "text"] == [TEXT]


@BOTH
def test_a_form_is_parsed(client: anthropic.Anthropic, model: str) -> None:
    got = client.messages.parse(model=model, max_tokens=100, messages=HELLO, output_format=Joke)
    assert got.parsed_output == Joke(setup="some setup", punchline="some punchline")


@BOTH
def test_the_helper_of_streams_puts_it_together(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == TEXT
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    usage = final.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == ((5, 4) if model == "claude" else (7, 4))


@BOTH
def test_thoughts_and_media(client: anthropic.Anthropic, model: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    document = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    content: Any = [
        {"type": "text", "text": "look"},
        {"type": "image", "source": source},
        {"type": "document", "source": document},
    ]
    got = client.messages.create(
        model=model,
        max_tokens=2000,
        messages=[{"role": "user", "content": content}],
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "high"},
    )
    assert [block.type for block in got.content] == ["thinking", "text"]
    thought: Any = got.content[0]
    said: Any = got.content[1]
    assert thought.thinking == THOUGHT
    assert said.text == f"{TEXT} You sent image. You sent file."


@BOTH
def test_raw_answers_and_errors(client: anthropic.Anthropic, model: str) -> None:
    raw = client.messages.with_raw_response.create(model=model, max_tokens=100, messages=HELLO)
    assert raw.headers["x-turnout-model"] == model
    assert raw.parse().role == "assistant"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=100, messages=HELLO)
    assert client.messages.count_tokens(model=model, messages=HELLO).input_tokens > 0


@pytest.mark.anyio
@BOTH
async def test_the_asynchronous_client_says_the_same(served: Served, model: str) -> None:
    base_url = served.base_url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key="none", max_retries=0) as client:
        async with client.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
        got = await client.messages.create(model=model, max_tokens=100, messages=HELLO)
        assert got.content[0].type == "text"
