"""This module guesses the language of a text: by script, and among Latin ones by their commonest words."""

from __future__ import annotations

import re

SCRIPTS = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "greek": re.compile(r"[\u0370-\u03ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "indic": re.compile(r"[\u0900-\u0dff]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
}
"""Script -> a pattern of one of its characters."""

UNKNOWN = "unknown"
"""The label of a text whose language cannot be told."""

_BY_SCRIPT = {
    "han": "zh",
    "kana": "ja",
    "hangul": "ko",
    "cyrillic": "ru",
    "greek": "el",
    "arabic": "ar",
    "hebrew": "he",
    "indic": "hi",
    "thai": "th",
}
_WORDS = {
    "en": "the of and to in is that it for with are what how this you be on as at by have not from "
    "or an can "
    "i my me do does did was were will would should could when where who why which if there your we they "
    "please give write find has had been any all so but about into than then some many much",
    "es": "el la los las de que y en es una un por con para no se del al lo como m\u00e1s pero sus "
    "le ya este s\u00ed "
    "porque esta entre cuando muy sin sobre ser tiene tambi\u00e9n me hasta hay donde quien "
    "c\u00f3mo qu\u00e9 cu\u00e1l mi",
    "fr": "le la les de des et est une un que dans pour qui pas sur au aux ce il elle je vous nous "
    "avec plus "
    "par ne se sont mais ou du en comme tout cette ses \u00eatre fait quel quelle comment pourquoi mon ma",
    "de": "der die das und ist nicht ein eine mit von auf den zu im dem f\u00fcr es sie er wir ich "
    "auch als an "
    "werden aus wie bei oder nach wird einen einer kann was warum wer wo mein meine gibt sind hat",
    "pt": "o a os as de que e do da em um uma para com n\u00e3o no na por mais se como mas foi ao "
    "ele das dos "
    "tem \u00e0 seu sua ou ser quando muito nos j\u00e1 eu tamb\u00e9m s\u00f3 pelo pela at\u00e9 "
    "isso qual meu voc\u00ea",
    "it": "il la di che e un una per non sono con del gli le lo della dei si come pi\u00f9 ma ha "
    "nel alla questo "
    "anche al dal essere ho mi se chi cosa perch\u00e9 quando dove quale \u00e8 degli delle io tu",
    "nl": "de het een en van is dat op te in voor met niet zijn aan ook er maar om ik je hij wat "
    "hoe waarom "
    "bij als naar dan nog worden door over heb mijn deze wel geen kan",
    "sv": "och att det som en p\u00e5 \u00e4r av f\u00f6r med till den inte har jag ett om var men "
    "s\u00e5 vi fr\u00e5n kan n\u00e4r hur "
    "vad eller du ska detta min",
    "pl": "i w na nie si\u0119 z do to \u017ce jest jak co o ale po tak czy od za przez dla jego "
    "s\u0105 by\u0107 ja ty jaki "
    "dlaczego gdzie kiedy kt\u00f3ry moje",
    "tr": "ve bir bu da de i\u00e7in ne ile \u00e7ok m\u0131 mi var gibi daha ben sen o olarak "
    "nas\u0131l neden ama en "
    "kadar de\u011fil her \u015fey",
}
_SETS = {code: frozenset(words.split()) for code, words in _WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_MAX_CHARS = 2_000

LANGUAGES = (*_WORDS, *_BY_SCRIPT.values())
"""The codes (ISO 639-1) that `detect_language` returns, besides `UNKNOWN`."""


def detect_language(text: str) -> str:
    """Return an ISO 639-1 code, or `UNKNOWN`; reads at most the first 2,000 characters.

    A script other than Latin stands for its largest language (Cyrillic for Russian, Devanagari and its
    neighbours for Hindi); kana anywhere means Japanese. Among Latin languages the one with the largest share
    of its commonest words wins, if it beats the second by a word; two words or fewer say nothing.
    """
    text = text[:_MAX_CHARS]
    if text.isascii():
        return _by_words(text)
    counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    if counts["kana"] > 0.05 * (counts["han"] + counts["kana"]) and counts["kana"]:
        counts["kana"] += counts.pop("han")
    script = max(counts, key=lambda name: counts[name])
    # A Han character carries about as much as two letters.
    if script != "latin" or not counts["latin"]:
        return _BY_SCRIPT.get(script, UNKNOWN) if counts[script] else UNKNOWN
    return _by_words(text)


def _by_words(text: str) -> str:
    words = [word.lower() for word in _WORD.findall(text)]
    hits = {code: sum(word in common for word in words) for code, common in _SETS.items()}
    (first, most), (_, second) = sorted(hits.items(), key=lambda item: -item[1])[:2]
    return first if most > second and (most >= 2 or len(words) <= 4) else UNKNOWN
