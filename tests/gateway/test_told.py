"""A client tells the task and tags of a request, and a router that learned from them is asked with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import openai
import pytest

from tests.gateway.client import Answer, ask, call, check_advice, row
from tests.gateway.conftest import Served
from tests.gateway.pool import LARGE, SMALL
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.core import Goal, OutcomeTable, Query, Router
from turnout.datasets import load
from turnout.features import ColumnsEmbedder
from turnout.gateway.config import LedgerSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_cache import CacheSettings
from turnout.gateway.settings_rules import RuleSettings
from turnout.policies import Best, Deployment
from turnout.routers import GroupMeanRouter, RidgeRouter

NEAR, FAR = "0.1 0.2", "0.9 0.8"


def learned(router: Router) -> Deployment:
    """Return a deployment on queries of one text: the task, or the numbers, say that `large` is needed."""
    queries = [
        Query(id=f"q{at}", text="the same", task=task, tags={"image": numbers})
        for at in range(0, 40, 2)
        for at, task, numbers in ((at, "talk", NEAR), (at + 1, "maths", FAR))
    ]
    needs_large = np.arange(40) % 2 == 1
    quality_QM = np.stack([np.where(needs_large, 0.1, 0.9), np.full(40, 0.7)], axis=1)
    index_Q, index_M = np.divmod(np.arange(80), 2)
    table = OutcomeTable(
        queries=queries,
        candidates=(SMALL, LARGE),
        query_index=index_Q,
        candidate_index=index_M,
        quality=quality_QM.ravel(),
        cost_usd=np.tile([1e-5, 1e-4], 40),
    )
    fitted = router.fit(table)
    return Deployment(router=fitted, fallback=fitted, policy=Best(), goal=Goal())


@pytest.fixture(scope="module")
def by_task(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("task") / "ledger.sqlite"
    config = msgspec.structs.replace(
        make_config(one_upstream.base_url, ledger),
        ledger=LedgerSettings(path=str(ledger), keep_text=True),
        rules=[RuleSettings(name="clean", redact=["EMAIL_ADDRESS"], cache=CacheSettings())],
    )
    with running(config.check(), deployment=learned(GroupMeanRouter())) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture(scope="module")
def by_tag(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("tag") / "ledger.sqlite"
    router = RidgeRouter(embedder=ColumnsEmbedder(names=("image",)))
    with running(
        make_config(one_upstream.base_url, ledger, apis=["chat"]), deployment=learned(router)
    ) as ready:
        yield Served(ready.base_url, ledger)


def chosen(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return answer.headers["x-turnout-model"]


def test_a_task_in_a_header_or_in_the_body_decides(by_task: Served, upstream: Upstream) -> None:
    url = by_task.base_url
    for task, model in (("talk", "small"), ("maths", "large")):
        assert chosen(ask(url, headers={"x-turnout-task": task})) == model
        assert "metadata" not in upstream.last.json
        own: Any = {"task": task}
        for told in (own, json.dumps(own)):
            answer = ask(url, metadata={"turnout": told, "team": "a"}, user=str(told))
            assert chosen(answer) == model
            assert upstream.last.json["metadata"] == {"team": "a"}, "it goes no further"
    both = ask(url, headers={"x-turnout-task": "talk"}, metadata={"turnout": {"task": "maths"}})
    assert chosen(both) == "small", "a header comes first"
    assert not any(name.startswith("x-turnout") for name in upstream.last.headers)


def test_it_stands_beside_the_dial(by_task: Served, upstream: Upstream) -> None:
    told = {"task": "maths", "usd_per_quality": 1e-9}
    assert chosen(ask(by_task.base_url, metadata={"turnout": told})) == "small"
    assert chosen(ask(by_task.base_url, metadata={"turnout": {"task": "maths"}}, user="b")) == "large"


def test_tags_decide_where_the_router_reads_numbers(by_tag: Served, upstream: Upstream) -> None:
    url = by_tag.base_url
    for numbers, model in ((NEAR, "small"), (FAR, "large")):
        assert chosen(ask(url, headers={"x-turnout-tag": f"image={numbers}"})) == model
        assert chosen(ask(url, metadata={"turnout": {"tags": {"image": numbers, "more": "x"}}})) == model
    with openai.OpenAI(base_url=url, api_key="none") as client:
        raw = client.responses.with_raw_response.create(
            model="turnout/auto", input="x", metadata={"turnout": json.dumps({"tags": {"image": FAR}})}
        )
    assert raw.headers["x-turnout-model"] == "large"
    body = {"model": "turnout/auto", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    body["metadata"] = {"turnout": {"tags": {"image": FAR}}}
    answer = call(url, "/messages", method="POST", body=json.dumps(body).encode())
    assert answer.headers["x-turnout-model"] == "large"


def test_route_explains_with_them(by_tag: Served) -> None:
    body = {"model": "turnout/auto", "messages": [{"role": "user", "content": "x"}]}
    for numbers, model in ((NEAR, "small"), (FAR, "large")):
        told = call(
            by_tag.base_url, "/route", method="POST", body=json.dumps(body).encode(),
            headers={"x-turnout-tag": f"image={numbers}", "x-turnout-task": "t"},
        ).json  # fmt: skip
        assert told["chosen"] == model
        assert (told["request"]["task"], told["request"]["tags"]) == ("t", {"image": numbers})


def test_the_ledger_keeps_them_with_the_text_and_gives_them_back(by_task: Served, by_tag: Served) -> None:
    headers = {"x-turnout-task": "for ann@example.com", "x-turnout-tag": "image=4111 1111 1111 1111"}
    told = {"turnout": {"tags": {"who": "ann@example.com"}}}
    answer = ask(by_task.base_url, headers=headers, metadata=told)
    found = row(by_task.ledger, answer.decision_id)
    assert found["task"] == "for [EMAIL_ADDRESS_1]", "the rule takes it out of what is remembered"
    assert json.loads(found["tags"]) == {"image": "4111 1111 1111 1111", "who": "[EMAIL_ADDRESS_1]"}
    query = next(one for one in load(by_task.ledger).queries if one.id == answer.decision_id)
    assert (query.task, query.tags["image"]) == (found["task"], "4111 1111 1111 1111")
    plain = ask(by_tag.base_url, headers=headers)
    found = row(by_tag.ledger, plain.decision_id)
    assert (found["text"], found["task"], found["tags"]) == (None, None, None), "content is off by default"


def test_an_answer_is_not_given_again_for_another_task(by_task: Served, upstream: Upstream) -> None:
    def asked(**headers: str) -> str | None:
        answer = ask(by_task.base_url, user="cached", headers=headers)
        assert answer.status == 200
        return answer.headers.get("x-turnout-cache")

    assert asked(**{"x-turnout-task": "talk"}) != "hit"
    num_seen = len(upstream.seen)
    asked(**{"x-turnout-task": "talk"})
    assert len(upstream.seen) == num_seen
    asked(**{"x-turnout-task": "maths"})
    asked()
    assert len(upstream.seen) == num_seen + 2


WRONG: list[tuple[dict[str, str], Any, str, str]] = [
    ({"x-turnout-task": " "}, None, "bad_header", "one task"),
    ({"x-turnout-tag": "image"}, None, "bad_header", "NAME=VALUE"),
    ({"x-turnout-tag": "=1"}, None, "bad_header", "NAME=VALUE"),
    ({"x-turnout-tags": "image=1"}, None, "unknown_header", "did you mean 'x-turnout-tag'"),
    ({}, {"task": 3}, "bad_metadata", "metadata.turnout.task"),
    ({}, {"tags": ["image"]}, "bad_metadata", "metadata.turnout.tags"),
    ({}, {"tags": {"image": [0.1, 0.2]}}, "bad_metadata", "an object of texts"),
    ({}, {"taks": "x"}, "bad_metadata", "did you mean 'task'"),
    ({"x-turnout-tag": "image=0.1"}, None, "bad_tag", "2 numbers"),
    ({"x-turnout-tag": "image=a b"}, None, "bad_tag", "finite numbers"),
]


@pytest.mark.parametrize(("headers", "told", "code", "words"), WRONG)
def test_what_is_wrong_is_a_400_that_names_it(
    by_tag: Served, upstream: Upstream, headers: dict[str, str], told: Any, code: str, words: str
) -> None:
    answer = ask(
        by_tag.base_url, headers=headers, **({} if told is None else {"metadata": {"turnout": told}})
    )
    assert (answer.status, answer.error["code"]) == (400, code)
    assert words in answer.error["message"]
    check_advice(answer.error["message"])
    assert upstream.seen == []
