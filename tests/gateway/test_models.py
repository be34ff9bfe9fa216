"""The paths that change nothing: models and health."""

from __future__ import annotations

import anthropic
import openai
import pytest
from anthropic.types import ModelInfo

from tests.gateway.client import call
from tests.gateway.conftest import Served

NAMES = ["turnout/auto", "small", "large", "large[effort=high,max_output_tokens=500]", "small[adapter=legal]"]


def test_models_lists_the_alias_and_every_candidate(client: openai.OpenAI) -> None:
    listed = list(client.models.list())
    assert [model.id for model in listed] == NAMES
    assert [model.owned_by for model in listed] == ["turnout"] + ["main"] * 4
    assert {model.object for model in listed} == {"model"}
    assert min(model.created for model in listed) > 1_700_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_retrieved_by_its_name(client: openai.OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == name


def test_anthropics_client_lists_them_in_its_own_shape(gateway: Served) -> None:
    root = gateway.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=root, api_key="none", max_retries=0) as client:
        page = client.models.list()
        listed = [ModelInfo.model_validate(model.to_dict()) for model in page]
        assert [model.id for model in listed] == NAMES
        assert {model.type for model in listed} == {"model"}
        assert all(model.created_at.year > 2020 for model in listed)
        assert (page.has_more, page.first_id, page.last_id) == (False, NAMES[0], NAMES[-1])
        assert client.models.retrieve("small").display_name == "small"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("smal")
    assert caught.value.code == "model_not_found"


def test_health_names_what_is_deployed(gateway: Served) -> None:
    answer = call(gateway.base_url.removesuffix("/v1"), "/healthz")
    assert answer.status == 200
    assert answer.json["status"] == "ok"
    assert answer.json["candidates"] == 4
    assert len(answer.json["deployment"]) == 16
    assert call(gateway.base_url.removesuffix("/v1"), "/healthz", method="HEAD").body == b""
