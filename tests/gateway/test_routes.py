"""The table of paths: exact ones, those with a rest, and what is said of all others."""

from __future__ import annotations

import pytest

from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.errors import ApiError
from turnout.gateway.routes import REST, Routes


async def first(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for a handler."""


async def second(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for another."""


def made() -> Routes:
    routes = Routes()
    routes.add("GET", "/things", first)
    routes.add("POST", "/things", second)
    routes.add("GET", "/things/{id}", first)
    routes.add("GET", "/things/own/{id}", second)
    return routes


def test_a_path_is_found_by_its_method_and_get_answers_head() -> None:
    assert made().find({"path": "/things", "method": "GET"}) is first
    assert made().find({"path": "/things", "method": "HEAD"}) is first
    assert made().find({"path": "/things", "method": "POST"}) is second


def test_the_longest_prefix_wins_and_leaves_the_rest_in_the_scope() -> None:
    scope: Scope = {"path": "/things/own/a/b", "method": "GET"}
    assert made().find(scope) is second
    assert scope[REST] == "a/b"
    scope = {"path": "/things/own", "method": "GET"}
    assert made().find(scope) is first
    assert scope[REST] == "own"


@pytest.mark.parametrize("path", ["/", "/thing", "/things/"])
def test_a_path_that_is_in_no_table_is_a_404_that_lists_them(path: str) -> None:
    with pytest.raises(
        ApiError, match=r"no such path.*GET /things, POST /things, GET /things/\{id\}"
    ) as info:
        made().find({"path": path, "method": "GET"})
    assert (info.value.status, info.value.code) == (404, "unknown_url")


def test_another_method_is_a_405_that_names_those_there_are() -> None:
    with pytest.raises(ApiError, match="GET, POST") as info:
        made().find({"path": "/things", "method": "DELETE"})
    assert info.value.status == 405
    assert info.value.headers == [(b"allow", b"GET, POST")]


def test_a_handler_is_not_replaced_in_silence() -> None:
    routes = made()
    with pytest.raises(ValueError, match="GET /things has a handler"):
        routes.add("GET", "/things", second)
