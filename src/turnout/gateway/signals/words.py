"""This module reads the words of a text: keywords, patterns, language, program text, complexity."""

from __future__ import annotations

import re
from typing import final

from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.features.complexity import code_share, complexity
from turnout.features.languages import LANGUAGES, UNKNOWN, detect_language
from turnout.features.signals import CODE
from turnout.features.tokens import clip
from turnout.gateway.settings_signals import (
    CodeSettings,
    ComplexitySettings,
    KeywordSettings,
    LanguageSettings,
    RegexSettings,
)
from turnout.gateway.signals.base import Facts, Finding, Signal
from turnout.gateway.signals.patterns import MAX_STEPS, PATTERN_CHARS, worst_steps


@final
class KeywordSignal(Signal):
    """Words that stand in the text, whole and in any case."""

    def __init__(self, *, name: str, settings: KeywordSettings) -> None:
        self.settings = settings
        # The longest first, so that a phrase is found before a word that it begins with.
        words = sorted({" ".join(word.split()).lower() for word in settings.words}, key=len, reverse=True)
        if len(words) < settings.min_hits or not all(words):
            raise ConfigError(
                sentence(
                    f"the setting 'signals.{name}.min_hits' can never be reached",
                    allowed=f"at most {len(words)}, the number of different words, none of them blank",
                    got=settings.min_hits,
                    do="lower it, or add words",
                )
            )
        spelt = "|".join(r"\s+".join(map(re.escape, word.split())) for word in words)
        self._pattern = re.compile(rf"(?<!\w)(?:{spelt})(?!\w)", re.IGNORECASE)

    def read(self, facts: Facts) -> Finding:
        """Return whether enough different words are there."""
        hits = self._pattern.findall(facts.clipped(self.settings.scope))
        found = {" ".join(hit.lower().split()) for hit in hits}
        holds = len(found) >= self.settings.min_hits
        return Finding(holds=holds, value=float(len(found)), note=", ".join(sorted(found)[:8]) or None)


@final
class RegexSignal(Signal):
    """A pattern that occurs in the text."""

    def __init__(self, *, name: str, settings: RegexSettings) -> None:
        self.settings = settings
        where = f"signals.{name}.pattern"
        try:
            self._pattern = re.compile(settings.pattern)
        except re.error as error:
            what = f"the setting {where!r} is no regular expression: {error}"
            allowed, do = "the syntax of Python's re", "correct it there"
            raise ConfigError(sentence(what, allowed=allowed, got=settings.pattern, do=do)) from error
        steps = worst_steps(settings.pattern, PATTERN_CHARS)
        if steps > MAX_STEPS:
            raise ConfigError(
                sentence(
                    f"the setting {where!r} can take far too long on some text",
                    allowed=f"{MAX_STEPS:.0e} steps on {PATTERN_CHARS} characters at worst",
                    got=settings.pattern,
                    do="bound its repeats, as in .{0,40}; make the inner ones possessive, as in a++; "
                    "or split it into several signals",
                )
            )

    def read(self, facts: Facts) -> Finding:
        """Return whether the pattern occurs."""
        text = clip(facts.text(self.settings.scope), PATTERN_CHARS)
        return Finding(holds=self._pattern.search(text) is not None)


@final
class LanguageSignal(Signal):
    """The language of the text."""

    def __init__(self, *, name: str, settings: LanguageSettings) -> None:
        self.settings = settings
        for code in settings.languages:
            if code not in (*LANGUAGES, UNKNOWN):
                raise ConfigError(
                    sentence(
                        f"the setting 'signals.{name}.languages' names no language",
                        allowed=", ".join([*LANGUAGES, UNKNOWN]),
                        got=code,
                        do=did_you_mean(code, [*LANGUAGES, UNKNOWN]),
                    )
                )

    def read(self, facts: Facts) -> Finding:
        """Return whether the text is in one of the languages."""
        code = detect_language(facts.text(self.settings.scope))
        return Finding(holds=code in self.settings.languages, value=code)


@final
class CodeSignal(Signal):
    """Program text."""

    def __init__(self, *, name: str, settings: CodeSettings) -> None:
        self.settings = settings

    def read(self, facts: Facts) -> Finding:
        """Return whether enough of the text looks like a program."""
        text = facts.clipped(self.settings.scope)
        share = code_share(text)
        # One mark alone is a word of prose as well: a class of ships, a return ticket.
        holds = share >= self.settings.min_marks and len(CODE.findall(text)) > 1
        return Finding(holds=holds, value=share)


@final
class ComplexitySignal(Signal):
    """How much work the text asks for."""

    def __init__(self, *, name: str, settings: ComplexitySettings) -> None:
        self.settings = settings

    def read(self, facts: Facts) -> Finding:
        """Return whether the score is high enough."""
        score = complexity(facts.text(self.settings.scope))
        return Finding(holds=score >= self.settings.min_score, value=score)
