"""This module reads what needs care: personal data, attempts to lift the rules, a user's discontent."""

from __future__ import annotations

from collections import Counter
from typing import final

from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.features.feedback import LABELS, read_feedback
from turnout.features.jailbreak import jailbreak_score
from turnout.features.pii import KINDS, find_pii
from turnout.gateway.settings_signals import FeedbackSettings, JailbreakSettings, PiiSettings
from turnout.gateway.signals.base import Facts, Finding, Signal


@final
class PiiSignal(Signal):
    """Personal data that has a form; the whole text is read, since a find may stand anywhere."""

    def __init__(self, *, name: str, settings: PiiSettings) -> None:
        self.settings = settings
        for kind in settings.kinds:
            if kind not in KINDS:
                raise _unknown(f"signals.{name}.kinds", kind, KINDS)
        self._kinds = tuple(settings.kinds) or KINDS

    def read(self, facts: Facts) -> Finding:
        """Return whether there is enough of it."""
        text = facts.text("conversation" if self.settings.whole else "user")
        counts = Counter(span.kind for span in find_pii(text, self._kinds))
        return Finding(
            holds=counts.total() >= self.settings.min_finds,
            value=float(counts.total()),
            note=", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or None,
        )


@final
class JailbreakSignal(Signal):
    """Signs that a text tries to lift the rules before it; the whole text is read."""

    def __init__(self, *, name: str, settings: JailbreakSettings) -> None:
        self.settings = settings

    def read(self, facts: Facts) -> Finding:
        """Return whether the signs are strong enough."""
        score = jailbreak_score(facts.text(self.settings.scope))
        holds = score >= self.settings.min_score
        return Finding(holds=holds, value=float(score), note=", ".join(score.signs) or None)


@final
class FeedbackSignal(Signal):
    """What the last user message says about the answer before it."""

    def __init__(self, *, name: str, settings: FeedbackSettings) -> None:
        self.settings = settings
        for label in settings.labels:
            if label not in LABELS:
                raise _unknown(f"signals.{name}.labels", label, LABELS)

    def read(self, facts: Facts) -> Finding:
        """Return whether it is one of the labels."""
        label = read_feedback(facts.user, facts.before)
        return Finding(holds=label in self.settings.labels, value=label)


def _unknown(where: str, got: str, known: tuple[str, ...]) -> ConfigError:
    what, allowed = f"the setting {where!r} names nothing known", ", ".join(known)
    return ConfigError(sentence(what, allowed=allowed, got=got, do=did_you_mean(got, known)))
