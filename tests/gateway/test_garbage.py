"""A process that only serves looks for cycles of garbage rarely; somebody else's process is left as it is."""

from __future__ import annotations

import gc
import threading

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
