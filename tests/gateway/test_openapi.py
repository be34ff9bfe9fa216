"""The gateway describes all of its paths, and what it says of bodies is what it reads."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.gateway.client import call
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from turnout.gateway.app import Gateway
from turnout.gateway.build import build_all
from turnout.gateway.openapi import document


@pytest.fixture(scope="module")
def gateway_document(one_gateway: Served) -> dict[str, Any]:
    answer = call(one_gateway.base_url.removesuffix("/v1"), "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return dict(answer.json)


def test_every_path_is_described(gateway_document: dict[str, Any], tmp_path: Any) -> None:
    built = build_all(make_config("http://x/v1", tmp_path / "ledger.sqlite"), deployment=make_deployment())
    app = Gateway(built=built)
    told = document(app.routes)
    assert told == gateway_document
    described = {f"{method.upper()} {path}" for path, one in told["paths"].items() for method in one}
    assert described == set(app.routes.listed())
    for path, methods in told["paths"].items():
        for operation in methods.values():
            assert operation["summary"].endswith("."), path
            assert ("{id}" in path) == ("parameters" in operation)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
        ("/v1/route", {"messages": [{"role": "user", "content": "x"}]}),
    ],
)
def test_a_body_that_fits_is_taken_and_one_that_lacks_a_member_is_not(
    gateway: Served, gateway_document: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    operation = gateway_document["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    whole = {"model": "turnout/auto", **body}
    jsonschema.validate(whole, schema)
    root = gateway.base_url.removesuffix("/v1")
    assert call(root, path, method="POST", body=json.dumps(whole).encode()).status == 200
    for name in ("model", "messages"):
        less = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(less, schema)
        assert call(root, path, method="POST", body=json.dumps(less).encode()).status == 400
