"""How long to wait before another try, and whether there may be one."""

from __future__ import annotations

import random

import pytest

from turnout.gateway.retry import Allowance, backoff_s, read_retry_after

NOW_S = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after", b"0.5")], 0.5),
        ([(b"retry-after", b"7"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", b"Tue, 14 Nov 2023 22:13:50 GMT")], 30.0),
        ([(b"retry-after", b"Tue, 14 Nov 2023 22:00:00 GMT")], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"1_0")], None),
        ([(b"retry-after", b"")], None),
    ],
)
def test_retry_after_in_all_its_forms(headers: list[tuple[bytes, bytes]], expected: float | None) -> None:
    assert read_retry_after(headers, NOW_S) == expected


def test_an_allowance_bounds_the_extra_calls_to_its_share() -> None:
    allowance, extra = Allowance(share=0.2), 0
    for _ in range(1000):
        allowance.earn()
        extra += allowance.spend()
    assert 200 <= extra <= 210, "a fifth of all, and the ten of a quiet gateway"


def test_an_allowance_of_nothing_allows_nothing() -> None:
    allowance = Allowance(share=0.0)
    allowance.earn()
    assert not allowance.spend()


def test_the_backoff_doubles_and_scatters() -> None:
    waits = [[backoff_s(number, 0.25, random.Random(seed)) for seed in range(200)] for number in range(4)]
    for number, found in enumerate(waits):
        longest = 0.25 * 2**number
        assert min(found) >= longest / 2
        assert max(found) <= longest
        assert max(found) - min(found) > 0.4 * longest
