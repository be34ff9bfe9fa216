"""JSON answers before upstreams that have no JSON mode: the model is told, and what it adds is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from tests.gateway.anthropic_upstream import TEXT, AnthropicUpstream, message
from tests.gateway.client import ask
from tests.gateway.conftest import Served
from tests.gateway.converse_told import answer, delta, frame
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.test_anthropic import ASK, claude, client, served, stand  # noqa: F401
from tests.gateway.told import Say, told_server, whole
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_providers import BedrockSettings
from turnout.gateway.translate.json_form import ObjectCutter, form_of, object_in
from turnout.gateway.translate.json_schema import fitted

OBJECT = '{"a": {"b": "}{\\\\\\"}"}, "n": [1, {}]}'
AROUND = [OBJECT, f"```json\n{OBJECT}\n```", f"Here it is:\n{OBJECT}\nAnything else?", f"{OBJECT} {{}}"]
MODE: Any = {"type": "json_object"}
HEADER = "x-turnout-json"


def closed(**more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"n": {"type": "integer", **more}}, "additionalProperties": False}


def schema_form(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize("text", AROUND)
def test_an_object_is_cut_out_at_every_place_where_a_stream_may_be_cut(text: str) -> None:
    assert json.loads(OBJECT)["a"]["b"] == '}{\\"}'
    assert object_in(text) == OBJECT
    for at in range(len(text) + 1):
        cutter = ObjectCutter()
        assert cutter.feed(text[:at]) + cutter.feed(text[at:]) + cutter.end() == OBJECT
    cutter = ObjectCutter()
    assert "".join(map(cutter.feed, text)) + cutter.end() == OBJECT


def test_a_text_without_an_object_is_told_whole() -> None:
    cutter = ObjectCutter()
    assert cutter.feed("I cannot ") + cutter.feed("do that.") == ""
    assert (cutter.end(), cutter.end()) == ("I cannot do that.", "")
    assert object_in('{"cut": "off') == '{"cut": "off', "what a token limit leaves is passed on"


@pytest.mark.parametrize("text", AROUND)
def test_json_mode_works_before_anthropic(
    client: openai.OpenAI,  # noqa: F811
    served: Served,  # noqa: F811
    claude: AnthropicUpstream,  # noqa: F811
    text: str,
) -> None:
    claude.told = message("claude", {"type": "text", "text": text})
    raw = client.chat.completions.with_raw_response.create(model="large", messages=ASK, response_format=MODE)
    assert raw.headers[HEADER] == "instructed"
    assert json.loads(raw.text)["choices"][0]["message"]["content"] == OBJECT
    assert "one JSON object" in claude.seen[-1]["system"]
    assert "output_config" not in claude.seen[-1]
    fields: Any = {"model": "large", "messages": ASK, "response_format": MODE, "stream": True}
    assert ask(served.base_url, **fields).headers[HEADER] == "instructed"
    with client.chat.completions.create(**fields) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == OBJECT
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_system_prompt_stays_before_the_instruction(
    client: openai.OpenAI,  # noqa: F811
    claude: AnthropicUpstream,  # noqa: F811
) -> None:
    claude.told = message("claude", TEXT)
    turns: Any = [{"role": "system", "content": "be brief"}, *ASK]
    got = client.chat.completions.create(model="large", messages=turns, response_format=MODE)
    assert got.choices[0].message.content == TEXT["text"], "a refusal is no object, and is told as it is"
    assert claude.seen[-1]["system"].startswith("be brief\n\nAnswer with one JSON object")
    plain = client.chat.completions.with_raw_response.create(model="large", messages=turns)
    assert HEADER not in plain.headers
    small = client.chat.completions.with_raw_response.create(
        model="small", messages=ASK, response_format=MODE
    )
    assert HEADER not in small.headers, "an upstream of OpenAI's kind has a JSON mode of its own"


def test_the_responses_api_has_it_too(client: openai.OpenAI, claude: AnthropicUpstream) -> None:  # noqa: F811
    claude.told = message("claude", {"type": "text", "text": AROUND[1]})
    form: Any = {"format": {"type": "json_object"}}
    raw = client.responses.with_raw_response.create(model="large", input="give me JSON", text=form)
    assert (raw.parse().output_text, raw.headers[HEADER]) == (OBJECT, "instructed")


def test_a_schema_with_free_keys_is_told_to_the_model(
    client: openai.OpenAI,  # noqa: F811
    claude: AnthropicUpstream,  # noqa: F811
) -> None:
    claude.told = message("claude", {"type": "text", "text": AROUND[1]})
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    raw = client.chat.completions.with_raw_response.create(
        model="large", messages=ASK, response_format=schema_form(schema)
    )
    assert raw.headers[HEADER] == "instructed"
    assert json.dumps(schema, separators=(",", ":")) in claude.seen[-1]["system"]
    raw = client.chat.completions.with_raw_response.create(
        model="large", messages=ASK, response_format=schema_form(closed(minimum=1))
    )
    assert HEADER not in raw.headers
    sent = claude.seen[-1]["output_config"]["format"]["schema"]["properties"]["n"]
    assert sent == {"type": "integer", "description": "{minimum: 1}"}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


FITTING: list[dict[str, Any]] = [
    closed(),
    closed(minimum=1, maximum=10, description="A number"),
    {**of(a={"type": "string", "format": "date", "minLength": 2}), "title": "T", "required": ["a"]},
    of(a={"type": "string", "pattern": "x"}),
    of(a={"type": "array", "items": closed(), "minItems": 1, "maxItems": 3}),
    of(a={"type": "array", "items": {"type": "null"}, "minItems": 2}),
    of(a={"enum": ["x", 1, None]}, b={"const": True}),
    of(a={"oneOf": [{"type": "string"}, closed()]}, b={"allOf": [closed()]}),
    {"$defs": {"d": closed()}, **of(a={"$ref": "#/$defs/d"})},
]


@pytest.mark.parametrize("schema", FITTING)
def test_a_schema_is_fitted_as_anthropics_own_client_fits_it(schema: dict[str, Any]) -> None:
    assert fitted(schema) == anthropic.transform_schema(schema)


def test_an_optional_value_is_one_of_two() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "description": "d", "maxLength": 3}},
    }
    found = fitted(schema)
    assert found is not None
    assert found["properties"]["a"] == {
        "anyOf": [{"type": "string", "description": "{maxLength: 3}"}, {"type": "null"}],
        "description": "d",
    }


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": True}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {"x": {}}},
        {"type": "object", "properties": {"a": {"enum": [[1]]}}},
        {"$defs": {"d": {"type": "object", "properties": {"a": {"$ref": "#/$defs/d"}}}}, "$ref": "#/$defs/d"},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
    ],
)
def test_a_schema_that_would_mean_something_else_does_not_fit(schema: dict[str, Any]) -> None:
    assert fitted(schema) is None
    form = form_of({"response_format": msgspec.Raw(json.dumps(schema_form(schema)).encode())}, "x")
    assert form is not None
    assert form.instruction is not None


@pytest.fixture
def bedrock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with told_server() as told, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEARER", "x")
        root = told.base_url.removesuffix("/v1")
        config = make_config("http://x", tmp_path_factory.mktemp("json") / "l.sqlite")
        config = msgspec.structs.replace(
            config, providers={"main": BedrockSettings(base_url=root, api_key_env="BEARER")}
        )
        with running(config, deployment=make_deployment()) as ready:
            yield ready.base_url, told


def test_json_mode_works_before_bedrock(bedrock: tuple[str, Any]) -> None:
    base_url, told = bedrock
    told.say = lambda _: whole(answer({"text": AROUND[1]}))
    got = ask(base_url, model="large", messages=ASK, response_format=MODE)
    assert got.headers[HEADER] == "instructed"
    assert got.json["choices"][0]["message"]["content"] == OBJECT
    assert "one JSON object" in told.last.json["system"][0]["text"]
    frames = [frame("messageStart", {"role": "assistant"}), *(delta(0, {"text": sign}) for sign in AROUND[1])]
    frames += [
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("messageStop", {"stopReason": "end_turn"}),
    ]
    told.say = lambda _: Say(frames, kind="application/vnd.amazon.eventstream")
    streaming = ask(base_url, model="large", messages=ASK, response_format=MODE, stream=True)
    data = [line[6:] for line in streaming.body.decode().splitlines() if line.startswith("data: {")]
    choices = [choice for one in data for choice in json.loads(one)["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == OBJECT
