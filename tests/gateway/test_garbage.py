"""A process that only serves looks for cycles of garbage rarely; somebody else's process is left as it is."""

from __future__ import annotations

import gc
import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest

from tests.gateway.conftest import Served
from turnout.gateway.garbage import YOUNG, RareSearch


def test_the_main_thread_searches_rarely_and_as_before_in_the_end() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    search = RareSearch()
    search.stop()
    assert gc.get_threshold() == before
    search.start()
    try:
        assert gc.get_threshold()[0] == YOUNG
        assert gc.get_freeze_count() > 10_000, "what was there is looked at no more"
    finally:
        search.stop()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() <= frozen


def test_a_guest_changes_nothing() -> None:
    before = gc.get_threshold()
    guest = threading.Thread(target=RareSearch().start)
    guest.start()
    guest.join()
    assert gc.get_threshold() == before


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_request_makes_dies_by_itself(gateway: Served, stream: bool) -> None:
    body = {"model": "turnout/auto", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    connection = http.client.HTTPConnection(urlsplit(gateway.base_url).netloc)

    def ask() -> None:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        assert response.status == 200
        response.read()

    ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            ask()
        num_left = gc.collect()
    finally:
        gc.enable()
        connection.close()
    assert num_left < 20, "some cycle is made by every request"
