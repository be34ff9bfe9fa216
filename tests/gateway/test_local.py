"""A model in the gateway's own process: its compute budgets are candidates like any other."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import openai
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.gateway.client import Answer, ask, check_advice, row, rows
from tests.gateway.pool import make_deployment
from tests.nn.serving.models import PAIRS, VARIANTS, save_folder, trained
from turnout.core import Candidate, PriceCard
from turnout.core.errors import ConfigError
from turnout.gateway.config import (
    Config,
    LedgerSettings,
    SequencerSettings,
    ServerSettings,
    load_config,
)
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import LocalSettings
from turnout.nn.serving.local import Variant, save_variants
from turnout.nn.tiny import tiny_llama

UNKNOWN = {
    "response_format": {"type": "json_object"},
    "logit_bias": {"5": -100},
    "top_p": 0.5,
    "presence_penalty": 1,
    "frequency_penalty": -0.5,
    "reasoning_effort": "low",
    "top_logprobs": 2,
    "modalities": ["text", "audio"],
    "tool_choice": "required",
    "chat_template_kwargs": {"enable_thinking": False},
    "guided_json": {"type": "object"},
    "stop_token_ids": [5],
    "ignore_eos": True,
    "best_of": 4,
}
POOL = tuple(variant.candidate for variant in VARIANTS)
FULL, NONE = POOL[0].name, POOL[1].name


@dataclass
class Local:
    base_url: str
    ledger: Path


def config(folder: Path, ledger: Path, **settings: object) -> Config:
    local = LocalSettings(folder=str(folder), threads=1, **settings)  # type: ignore[arg-type]
    return Config(
        deployment="unused",
        providers={"here": local},
        server=ServerSettings(port=0),
        ledger=LedgerSettings(path=str(ledger)),
    ).check()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    save_folder(place)
    return place


@pytest.fixture(scope="module")
def local(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    ledger = tmp_path_factory.mktemp("local") / "ledger.sqlite"
    with running(config(folder, ledger), deployment=make_deployment(POOL)) as ready:
        yield Local(ready.base_url, ledger)


@pytest.fixture
def client(local: Local) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=local.base_url, api_key="none", max_retries=0, timeout=30) as made:
        yield made


def test_the_official_client_gets_an_answer_with_measured_usage(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model=FULL, messages=[{"role": "user", "content": "ab="}])
    assert done.choices[0].message.content == "bcabcabc"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (4, 9)
    assert done.model == FULL


def test_a_stream_brings_the_text_as_it_is_written(client: openai.OpenAI) -> None:
    events = list(
        client.chat.completions.create(
            model=FULL,
            messages=[{"role": "user", "content": "ab="}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [event.choices[0].delta.content for event in events if event.choices]
    assert [text for text in texts if text] == list("bcabcabc")
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == 9


def test_variants_answer_under_their_own_names_and_are_accounted(local: Local) -> None:
    full = ask(local.base_url, model=FULL, messages=[{"role": "user", "content": "ab="}])
    none = ask(local.base_url, model=NONE, messages=[{"role": "user", "content": "ab="}], max_tokens=8)
    assert full.headers["x-turnout-model"] == FULL
    assert none.headers["x-turnout-model"] == NONE
    contents = [answer.json["choices"][0]["message"]["content"] for answer in (full, none)]
    assert contents[0] == "bcabcabc" != contents[1]
    tokens = none.json["usage"]["completion_tokens"]
    wanted = {full.decision_id: (FULL, 9, 0), none.decision_id: (NONE, tokens, 0)}
    found: dict[str, tuple[str, int, int]] = {}
    deadline = time.monotonic() + 5
    while len(found) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        found = {
            one["decision_id"]: (one["served"], one["output_tokens"], one["usage_estimated"])
            for one in rows(local.ledger)
            if one["decision_id"] in wanted and one["status"] == 200
        }
    assert found == wanted


def test_requests_that_come_together_are_all_answered_rightly(local: Local) -> None:
    found: dict[int, str] = {}

    def one(number: int) -> None:
        prompt, _ = PAIRS[number % len(PAIRS)]
        answer = ask(local.base_url, model=FULL, messages=[{"role": "user", "content": prompt}])
        found[number] = answer.json["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {number: PAIRS[number % len(PAIRS)][1] for number in range(12)}


def test_a_client_that_leaves_frees_the_model(local: Local) -> None:
    url = urlsplit(local.base_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    body = {
        "model": FULL,
        "messages": [{"role": "user", "content": "ab="}],
        "stream": True,
        "temperature": 50,
        "max_tokens": 60,
    }
    connection.request("POST", url.path + "/chat/completions", json.dumps(body))
    connection.getresponse().read(1)
    connection.close()
    answer = ask(local.base_url, model=FULL, messages=[{"role": "user", "content": "b="}])
    assert answer.json["choices"][0]["message"]["content"] == "cc"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "does not know 'tools'"),
        ({"n": 2}, "1 with a local model"),
        ({"messages": [{"role": "user", "content": "a" * 80}]}, "1 to 63 tokens"),
        ({"stop": 5}, "the field 'stop' is wrong; allowed: "),
        ({"stop": ["a", ""]}, "the field 'stop"),
        ({"temperature": -1}, "the field 'temperature' is wrong; allowed: a number"),
        ({"max_tokens": 0}, "the field 'max_tokens' is wrong; allowed: a whole number"),
        ({"max_completion_tokens": "8"}, "the field 'max_completion_tokens' is wrong"),
        ({"seed": 1.5}, "the field 'seed' is wrong"),
        ({"seed": 2**70}, "the field 'seed' is wrong"),
        *(({name: value}, f"does not know {name!r}") for name, value in UNKNOWN.items()),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "text with a local model",
        ),
    ],
)
def test_what_a_local_model_cannot_do_is_refused(local: Local, fields: dict, words: str) -> None:
    answer = ask(local.base_url, **{"model": FULL, "messages": [{"role": "user", "content": "a="}], **fields})
    assert answer.status == 400, answer.body
    assert words in answer.error["message"]
    assert not any(inside in answer.error["message"] for inside in ("Generation", "max_new_tokens"))
    assert answer.error["param"] == (next(iter(fields)) if fields else None)
    check_advice(answer.error["message"])


def test_values_that_change_nothing_are_accepted(local: Local) -> None:
    neutral: dict = {
        **dict.fromkeys(UNKNOWN),
        "response_format": {"type": "text"},
        "logit_bias": {},
        "top_p": 1.0,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "tools": [],
        "logprobs": False,
        "seed": None,
        "tool_choice": "auto",
        "chat_template_kwargs": {},
        "stop_token_ids": [],
        "ignore_eos": False,
        "best_of": 1,
    }
    question = [{"role": "user", "content": "ab="}]
    answer = ask(local.base_url, model=FULL, messages=question, **neutral)
    assert answer.json["choices"][0]["message"]["content"] == "bcabcabc"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Two local models: `large`, which is chosen, holds 64 tokens, and `small` 256."""
    root = tmp_path_factory.mktemp("two")
    _, tokenizer = trained()
    for name, positions in (("large", 64), ("small", 256)):
        model = tiny_llama(vocab_size=len(tokenizer), width=16, layers=1, positions=positions)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        save_variants(root / name, [Variant(model=name)])
    settings = Config(
        deployment="unused",
        default_provider="small",
        providers={n: LocalSettings(folder=str(root / n), threads=1) for n in ("small", "large")},
        candidates={"large": CandidateSettings(provider="large")},
        server=ServerSettings(port=0),
        ledger=LedgerSettings(path=str(root / "ledger.sqlite")),
    ).check()
    pool = (Candidate(model="small"), Candidate(model="large"))
    with running(settings, deployment=make_deployment(pool)) as ready:
        yield Local(ready.base_url, root / "ledger.sqlite")


def test_what_one_model_cannot_hold_goes_to_the_next(two: Local) -> None:
    def served(size: int, **fields: Any) -> Answer:
        messages = [{"role": "user", "content": "a" * size}]
        return ask(two.base_url, model="turnout/auto", messages=messages, max_tokens=4, **fields)

    for size, name in ((5, "large"), (200, "small")):
        answer = served(size)
        assert (answer.status, answer.headers["x-turnout-model"]) == (200, name)
    # What nobody can do was asked of both; for a field that is wrong nobody else is asked.
    for size, fields, faults in ((400, {}, 2), (5, {"top_p": 0.5}, 2), (5, {"temperature": -1}, 1)):
        answer = served(size, **fields)
        assert (answer.status, answer.error["code"]) == (400, "local_bad_request")
        told = row(two.ledger, answer.decision_id)["faults"]
        assert len(told.split("; ")) == faults, told


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_computed_for_a_client_that_left_is_accounted(
    folder: Path, tmp_path: Path, stream: bool
) -> None:
    card = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    pool = tuple(dataclasses.replace(candidate, price_card=card) for candidate in POOL)
    ledger = tmp_path / "ledger.sqlite"
    with running(config(folder, ledger), deployment=make_deployment(pool)) as ready:
        url = urlsplit(ready.base_url)
        found: list[dict] = []
        for attempt in range(60):
            connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
            body = {
                "model": FULL,
                "messages": [{"role": "user", "content": "ab="}],
                "stream": stream,
                "temperature": 50,
                "max_tokens": 60,
                "stop": ["no such text"],
            }
            connection.request("POST", url.path + "/chat/completions", json.dumps(body))
            # Sooner and later, since machines differ: in the middle of the answer at some time.
            time.sleep(0.001 * (1 + attempt % 20))
            connection.close()
            until_s = time.monotonic() + 10
            while len(rows(ledger)) <= attempt and time.monotonic() < until_s:
                time.sleep(0.02)
            found = [row for row in rows(ledger) if row["status"] == 499 and row["output_tokens"]]
            if found:
                break
    assert found
    for one in found:
        assert (one["served"], one["usage_estimated"], one["input_tokens"]) == (FULL, 1, 1)
        assert one["usd"] == pytest.approx((1.0 + 2.0 * one["output_tokens"]) / 1e6)


def test_a_tiny_temperature_harms_nobody(local: Local) -> None:
    question = [{"role": "user", "content": "ab="}]
    for temperature in (*[1e-40] * 6, 0):
        answer = ask(local.base_url, model=FULL, messages=question, temperature=temperature)
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["message"]["content"] == "bcabcabc"


def test_messages_that_the_template_refuses_are_the_clients_fault(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    (place / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0].content }}",
        encoding="utf-8",
    )
    user = {"role": "user", "content": "ab="}
    with running(config(place, tmp_path / "ledger.sqlite"), deployment=make_deployment(POOL)) as ready:
        answer = ask(ready.base_url, model=FULL, messages=[{"role": "system", "content": "a"}, user])
        assert (answer.status, answer.error["code"]) == (400, "local_bad_request")
        assert "System role not supported" in answer.error["message"]
        assert ask(ready.base_url, model=FULL, messages=[user]).status == 200


def test_a_candidate_that_is_no_variant_stops_the_start(folder: Path, tmp_path: Path) -> None:
    settings = config(folder, tmp_path / "ledger.sqlite")
    pool = (*POOL, dataclasses.replace(POOL[0], effort="huge"))
    thinks = SequencerSettings(kind="router_r1", policy_model="tini", policy_provider="here")
    for changed, candidates, words in (
        (settings, pool, r"effort=huge.*providers\.here has"),
        (msgspec.structs.replace(settings, sequencers={"r1": thinks}), POOL, "got: 'tini'; did you mean"),
    ):
        with (
            pytest.raises(ConfigError, match=words) as told,
            running(changed, deployment=make_deployment(candidates)),
        ):
            pass
        check_advice(str(told.value))


def test_a_full_queue_is_answered_with_503(folder: Path, tmp_path: Path) -> None:
    settings = config(folder, tmp_path / "ledger.sqlite", max_waiting=1, max_batch=1)
    statuses: list[int] = []
    with running(settings, deployment=make_deployment(POOL)) as ready:
        together = threading.Barrier(16)

        def one() -> None:
            fields: dict = {"temperature": 50, "max_tokens": 50, "stop": ["cabbage"]}
            together.wait(30)
            sent = ask(ready.base_url, model=FULL, messages=[{"role": "user", "content": "ab="}], **fields)
            statuses.append(sent.status)

        # A quick machine may answer each before the next has come in; then they come together once more.
        for _ in range(20):
            threads = [threading.Thread(target=one) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            if 503 in statuses:
                break
    assert set(statuses) == {200, 503}


def test_a_folder_that_holds_no_model_stops_the_start(tmp_path: Path) -> None:
    settings = config(tmp_path / "nowhere", tmp_path / "ledger.sqlite")
    with (
        pytest.raises(ConfigError, match="the provider 'here' cannot start; no model can be loaded"),
        running(settings, deployment=make_deployment(POOL)),
    ):
        pass


def test_the_folder_of_a_file_starts_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        'deployment = "deployment"\n[providers.here]\nkind = "local"\nfolder = "model"\n', encoding="utf-8"
    )
    provider = load_config(path).providers["here"]
    assert isinstance(provider, LocalSettings)
    assert provider.folder == str(tmp_path / "model")
