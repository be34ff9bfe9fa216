"""A pattern is judged before it is used: what passes is fast on the worst text, what explodes is refused."""

from __future__ import annotations

import re
import time

import pytest

from turnout.gateway.signals.patterns import MAX_STEPS, PATTERN_CHARS, worst_steps


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+b", r"(?:a|aa)+b", r"(\w+\s?)*$", r"a.*b.*c", r"(?>(a+)+b)c", r"(\w+)\s\1", r"(?:a{1,5}){1,7}"],
)
def test_what_can_explode_is_refused(pattern: str) -> None:
    assert worst_steps(pattern, PATTERN_CHARS) > MAX_STEPS


@pytest.mark.parametrize(
    ("pattern", "worst"),
    [
        (r"foo", "fo" * 2_000),
        (r"\bfoo\d+\b", "foo" + "1" * 3_997),
        (r"a.*b", "a" * 4_000),
        (r"\w*x", "a" * 4_000),
        (r".{0,40}x.{0,40}y", "x" * 4_000),
        (r"(?:foo|bar)+z", "foobar" * 666),
        (r"(?:[a-z]++\s)+z", "a " * 2_000),
        (r"^(\d{1,3}\.){3}\d{1,3}$", "1." * 2_000),
    ],
)
def test_what_passes_is_fast_on_the_worst_text(pattern: str, worst: str) -> None:
    assert worst_steps(pattern, PATTERN_CHARS) <= MAX_STEPS
    started_s = time.process_time()
    re.search(pattern, worst)
    assert time.process_time() - started_s < 0.5
