"""A language is told by its script or its commonest words, and not guessed where nothing tells it."""

from __future__ import annotations

import pytest

from tests.features.corpora import real_queries
from turnout.features.languages import LANGUAGES, UNKNOWN, detect_language

SENTENCES = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "fr": "Tous les \u00eatres humains naissent libres et \u00e9gaux en dignit\u00e9 et en droits.",
    "de": "Alle Menschen sind frei und gleich an W\u00fcrde und Rechten geboren.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignit\u00e0 e diritti.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren, en dat is het.",
    "sv": "Alla m\u00e4nniskor \u00e4r f\u00f6dda fria och lika i v\u00e4rde och r\u00e4ttigheter.",
    "pl": (
        "Wszyscy ludzie rodz\u0105 si\u0119 wolni i r\u00f3wni pod wzgl\u0119dem swej "
        "godno\u015bci i swych praw."
    ),
    "tr": (
        "B\u00fct\u00fcn insanlar h\u00fcr, haysiyet ve haklar bak\u0131m\u0131ndan e\u015fit "
        "do\u011farlar, ve bu \u00e7ok \u00f6nemli."
    ),
    "zh": (
        "\u4eba\u4eba\u751f\u800c\u81ea\u7531\uff0c\u5728\u5c0a\u4e25\u548c\u6743\u5229\u4e0a"
        "\u4e00\u5f8b\u5e73\u7b49\u3002"
    ),
    "ja": (
        "\u3059\u3079\u3066\u306e\u4eba\u9593\u306f\u3001\u751f\u307e\u308c\u306a\u304c\u3089"
        "\u306b\u3057\u3066\u81ea\u7531\u3067\u3042\u308b\u3002"
    ),
    "ko": (
        "\ubaa8\ub4e0 \uc778\uac04\uc740 \ud0dc\uc5b4\ub0a0 \ub54c\ubd80\ud130 \uc790\uc720\ub85c\uc6b0\uba70"
    ),
    "ru": (
        "\u0412\u0441\u0435 \u043b\u044e\u0434\u0438 "
        "\u0440\u043e\u0436\u0434\u0430\u044e\u0442\u0441\u044f "
        "\u0441\u0432\u043e\u0431\u043e\u0434\u043d\u044b\u043c\u0438 \u0438 "
        "\u0440\u0430\u0432\u043d\u044b\u043c\u0438."
    ),
    "el": (
        "\u038c\u03bb\u03bf\u03b9 \u03bf\u03b9 \u03ac\u03bd\u03b8\u03c1\u03c9\u03c0\u03bf\u03b9 "
        "\u03b3\u03b5\u03bd\u03bd\u03b9\u03bf\u03cd\u03bd\u03c4\u03b1\u03b9 "
        "\u03b5\u03bb\u03b5\u03cd\u03b8\u03b5\u03c1\u03bf\u03b9."
    ),
    "ar": (
        "\u064a\u0648\u0644\u062f \u062c\u0645\u064a\u0639 \u0627\u0644\u0646\u0627\u0633 "
        "\u0623\u062d\u0631\u0627\u0631\u0627 \u0645\u062a\u0633\u0627\u0648\u064a\u0646 "
        "\u0641\u064a \u0627\u0644\u0643\u0631\u0627\u0645\u0629 "
        "\u0648\u0627\u0644\u062d\u0642\u0648\u0642"
    ),
    "he": (
        "\u05db\u05dc \u05d1\u05e0\u05d9 \u05d0\u05d3\u05dd \u05e0\u05d5\u05dc\u05d3\u05d5 "
        "\u05d1\u05e0\u05d9 \u05d7\u05d5\u05e8\u05d9\u05df"
    ),
    "hi": (
        "\u0938\u092d\u0940 \u092e\u0928\u0941\u0937\u094d\u092f\u094b\u0902 \u0915\u094b "
        "\u0917\u094c\u0930\u0935 \u0914\u0930 \u0905\u0927\u093f\u0915\u093e\u0930\u094b\u0902 "
        "\u0915\u0947 \u092e\u093e\u092e\u0932\u0947 \u092e\u0947\u0902"
    ),
    "th": (
        "\u0e21\u0e19\u0e38\u0e29\u0e22\u0e4c\u0e17\u0e31\u0e49\u0e07\u0e2b\u0e25\u0e32\u0e22"
        "\u0e40\u0e01\u0e34\u0e14\u0e21\u0e32\u0e21\u0e35\u0e2d\u0e34\u0e2a\u0e23\u0e30"
    ),
}
"""The first sentence of the Universal Declaration of Human Rights, a text in the public domain."""


def test_there_is_a_sentence_for_every_language() -> None:
    assert set(SENTENCES) == set(LANGUAGES)


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_in_its_language(code: str) -> None:
    assert detect_language(SENTENCES[code]) == code


@pytest.mark.parametrize("text", ["", "17 * 23", "???", "xyzzy plugh"])
def test_nothing_is_guessed(text: str) -> None:
    assert detect_language(text) == UNKNOWN


def test_english_questions_are_english() -> None:
    """Some are a name and nothing else, which is no sign of a language."""
    codes = [detect_language(query.words) for query in real_queries()]
    assert codes.count("en") > 0.85 * len(codes)
    assert sum(code not in ("en", UNKNOWN) for code in codes) < 0.01 * len(codes)
