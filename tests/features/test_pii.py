"""Personal data with a form is found, what only looks like it is not, and no text takes long."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from turnout.core import UnknownNameError
from turnout.features import pii
from turnout.features.pii import KINDS, find_pii, redact

CORPUS = Path(__file__).with_name("fixtures") / "presidio_pii.parquet"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to ann.lee+x@mail.example.org today", "EMAIL_ADDRESS", "ann.lee+x@mail.example.org"),
        ("my card is 4111 1111 1111 1111.", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("pay GB82 WEST 1234 5698 7654 32 now", "IBAN_CODE", "GB82 WEST 1234 5698 7654 32"),
        ("my ssn: 123-45-6789", "US_SSN", "123-45-6789"),
        ("from 192.168.0.17 they came", "IP_ADDRESS", "192.168.0.17"),
        ("from fe80::1ff:fe23:4567:890a they came", "IP_ADDRESS", "fe80::1ff:fe23:4567:890a"),
        ("call +44 20 7946 0958 at noon", "PHONE_NUMBER", "+44 20 7946 0958"),
        ("see https://example.org/a?b=c for it", "URL", "https://example.org/a?b=c"),
        ("key=AKIAIOSFODNN7EXAMPLE, keep it", "SECRET", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_each_kind_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    spans = find_pii(text)
    assert [(span.kind, text[span.start : span.end]) for span in spans] == [(kind, value)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("to bob@exa\u200bmple.com!", "EMAIL_ADDRESS", "bob@exa\u200bmple.com"),
        ("to \u200bb\u2060o\ufeffb@example.com\u200b!", "EMAIL_ADDRESS", "b\u2060o\ufeffb@example.com"),
        ("to \uff42ob\uff20example\uff0ecom!", "EMAIL_ADDRESS", "\uff42ob\uff20example\uff0ecom"),
        ("4111\u200d 1111 1111 1\u00ad111", "CREDIT_CARD", "4111\u200d 1111 1111 1\u00ad111"),
        ("card \uff14111 1111 1111 1111", "CREDIT_CARD", "\uff14111 1111 1111 1111"),
        ("key AKIAIOSF\U000e0041ODNN7EXAMPLE", "SECRET", "AKIAIOSF\U000e0041ODNN7EXAMPLE"),
        # Between words of a script without blanks it is a boundary: taken out alone, the find would be lost.
        ("\u0e15\u0e34\u0e14\u200bhttps://example.org/a now", "URL", "https://example.org/a"),
        ("\U0001f468\u200d\U0001f469 a@x.org", "EMAIL_ADDRESS", "a@x.org"),
        ("\ufe0f" * 5_000 + "a@x.org", "EMAIL_ADDRESS", "a@x.org"),
    ],
)
def test_what_is_not_seen_hides_nothing(text: str, kind: str, value: str) -> None:
    spans = find_pii(text)
    assert [(span.kind, text[span.start : span.end]) for span in spans] == [(kind, value)]
    assert redact(text, spans) == text.replace(value, f"[{kind}_1]")


def test_one_address_has_one_number_however_it_is_hidden() -> None:
    text = "a@x.org, a@x\u200b.org, \uff41@x.org and b@x.org"
    assert (
        redact(text, find_pii(text))
        == "[EMAIL_ADDRESS_1], [EMAIL_ADDRESS_1], [EMAIL_ADDRESS_1] and [EMAIL_ADDRESS_2]"
    )


@pytest.mark.parametrize(
    "text",
    [
        "my card is 4111 1111 1111 1112.",  # the check digit is wrong
        "pay GB82 WEST 1234 5698 7654 33 now",
        "version 1.2.3 of 2024-05-17 12:30, 999.999.1.1",
        "the numbers 1, 2, 3, 4, 5 and 1000000",
        "a@b and @everyone",
        "0000000000000000",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find_pii(text) == ()


def test_a_redacted_text_keeps_apart_who_is_who() -> None:
    text = "a@x.org wrote to b@x.org, and a@x.org waits"
    assert redact(text, find_pii(text)) == (
        "[EMAIL_ADDRESS_1] wrote to [EMAIL_ADDRESS_2], and [EMAIL_ADDRESS_1] waits"
    )
    assert find_pii(redact(text, find_pii(text))) == ()


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    text = "a@x.org, 192.168.0.17"
    assert [span.kind for span in find_pii(text, ["IP_ADDRESS"])] == ["IP_ADDRESS"]
    with pytest.raises(UnknownNameError, match="EMAIL_ADDRESS"):
        find_pii(text, ["EMAIL"])


def test_precision_and_recall_on_the_corpus() -> None:
    """On 1,500 sentences by somebody else; the benchmark `signals` reports the same numbers."""
    right = dict.fromkeys(KINDS, 0)
    found, there = dict(right), dict(right)
    for row in pq.read_table(CORPUS).to_pylist():
        gold = [("URL" if k == "DOMAIN_NAME" else k, a, b) for k, a, b in json.loads(row["spans"])]
        spans = find_pii(row["text"])
        for span in spans:
            found[span.kind] += 1
            right[span.kind] += any(k == span.kind and a < span.end and span.start < b for k, a, b in gold)
        for kind, _, _ in gold:
            if kind in there:
                there[kind] += 1
    for kind in ("EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "URL", "CREDIT_CARD"):
        assert there[kind] > 10
        assert right[kind] == there[kind], f"{kind}: recall"
        assert right[kind] >= 0.98 * found[kind], f"{kind}: precision"
    # Phone numbers have many forms, and short ones look like any number.
    assert 0.65 * there["PHONE_NUMBER"] < right["PHONE_NUMBER"]
    assert right["PHONE_NUMBER"] > 0.85 * found["PHONE_NUMBER"]


def slowdown(work: Callable[[str], object], text: str, *, rounds: int = 8) -> float:
    """Return how much longer a text takes than its first tenth.

    Time of this thread's own processor, and the least of several rounds: a busy machine adds to a round, and
    nothing takes away from one. Rounds end once the two lie as linear work has them.
    """
    texts, least_s = (text[: len(text) // 10], text), [float("inf")] * 2
    for _ in range(rounds):
        for index, part in enumerate(texts):
            started_s = time.thread_time()
            work(part)
            least_s[index] = min(least_s[index], time.thread_time() - started_s)
        if least_s[1] < LINEAR * least_s[0]:
            break
    return least_s[1] / least_s[0]


LINEAR = 30.0
"""Linear work takes ten times as long for ten times the text, a quadratic pattern a hundred times."""


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1 ",
        "1-",
        "a@",
        "a.",
        "+1 (",
        ":",
        "0:",
        "sk-",
        "eyJaaaaaaaaaaa.",
        "AB12 ",
        "a@b.co ",
        "1.2.3.4 ",
        "a\u200b@",
        "\u200b",
        "\uff20",
    ],
)
def test_the_time_is_linear_in_the_text(unit: str) -> None:
    assert slowdown(find_pii, unit * (40_000 // len(unit))) < LINEAR


def test_the_time_is_linear_in_what_is_taken_out() -> None:
    text = " ".join(f"a{number:05d}@b.co" for number in range(4_000))
    assert slowdown(lambda part: redact(part, find_pii(part)), text) < LINEAR


def test_a_quadratic_pattern_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = re.compile(r"[\w.+-]+@\w+")
    monkeypatch.setitem(pii._PATTERNS, "EMAIL_ADDRESS", (unbounded, bool))
    assert slowdown(find_pii, "a" * 6_000, rounds=3) > LINEAR
