"""Request signals measure what their names say, and are standardised on the training texts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.features.corpora import ODD_TEXTS, as_queries, real_queries
from turnout.core.query import Query
from turnout.features import SignalsEmbedder, signals
from turnout.features.signals import NAMES, measure


def signal(name: str, query: Query) -> float:
    return float(measure([query], 2_000)[0, NAMES.index(name)])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("log_chars", "short", "a much longer request than that"),
        ("code_share", "please write a poem", "def f(x):\n    return x == 1;"),
        ("digit_share", "no numbers", "12 + 34 = 46"),
        ("math_share", "no formula", "x^2 + y^2 = z^2"),
        ("script_han", "hello", "\u4f60\u597d"),
        ("script_cyrillic", "hello", "\u043f\u0440\u0438\u0432\u0435\u0442"),
        ("language_german", "the cat is in the house", "die Katze ist nicht in der Kiste"),
        ("language_english", "die Katze ist nicht da", "what is the name of the cat"),
        ("question_marks", "tell me", "why?"),
        ("upper_share", "quiet", "LOUD"),
    ],
)
def test_a_signal_tells_two_texts_apart(name: str, low: str, high: str) -> None:
    left, right = as_queries([low, high])
    assert signal(name, left) < signal(name, right)


def test_turns_needs_and_tokens_are_read_from_the_request() -> None:
    plain = Query(id="a", text="x")
    rich = Query(id="b", text="x", num_turns=9, input_tokens=5_000, needs=frozenset({"tools"}))
    for name in ("log_turns", "log_input_tokens", "needs_tools"):
        assert signal(name, plain) < signal(name, rich)
    assert signal("needs_vision", rich) == 0.0


def test_columns_are_standardised_and_constant_ones_are_zero() -> None:
    x_QF = SignalsEmbedder(limit=1e9).fit(real_queries()).embed(real_queries()) * np.sqrt(len(NAMES))
    deviation = x_QF.std(axis=0)
    assert set(np.round(deviation, 3)) <= {0.0, 1.0}
    np.testing.assert_allclose(x_QF.mean(axis=0), 0.0, atol=1e-4)
    assert deviation[NAMES.index("needs_audio")] == 0.0


@pytest.mark.parametrize("texts", [[], [None], list(ODD_TEXTS)])
def test_any_texts_are_sane(texts: list[str | None]) -> None:
    x_QF = SignalsEmbedder().fit(as_queries(texts)).embed(as_queries(ODD_TEXTS))
    assert np.isfinite(x_QF).all()
    assert np.abs(x_QF).max() <= 4.0 / np.sqrt(len(NAMES)) + 1e-6


def test_a_plain_text_is_counted_as_any_other() -> None:
    # Bytes are counted faster than patterns; a character beyond ASCII takes the slow way.
    every = "".join(map(chr, range(128))) + " The house of the rising sun, 42 = 6 * 7?"
    fast, slow = (
        dict(zip(NAMES, measure([Query(id="a", text=text)], 2_000)[0], strict=True))
        for text in (every, every + "\u2603")
    )
    for name in ("digit_share", "math_share", "upper_share", "script_latin", "script_greek"):
        assert fast[name] * len(every) == pytest.approx(slow[name] * (len(every) + 1))
    assert fast["sign_share"] * len(every) == pytest.approx(slow["sign_share"] * (len(every) + 1) - 1)
    assert fast["language_english"] == slow["language_english"] > 0


def test_a_request_is_measured_once_for_all_who_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (SignalsEmbedder().fit(real_queries(50)[low:]) for low in (0, 10))
    measured: list[str] = []
    of_one = signals._measure_one

    def measure_one(query: Query, text: str) -> list[float]:
        measured.append(text)
        return of_one(query, text)

    monkeypatch.setattr(signals, "_measure_one", measure_one)
    queries = [Query(id="a", text="17 * 23"), Query(id="b", text="HELLO")]
    together = first.embed(queries), second.embed(list(queries))
    assert measured == ["17 * 23", "HELLO"]
    other = first.embed([queries[0], Query(id="b", text="hello 4")])
    assert measured[2:] == ["17 * 23", "hello 4"]
    assert not np.array_equal(other[1], together[0][1])
    np.testing.assert_array_equal(second.embed(queries), together[1])
    assert first.embed([]).shape == (0, len(NAMES))
