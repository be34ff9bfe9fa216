"""This module tells whether a text is near to example prompts, and how near is near enough.

Nearness of two texts says little by itself: any two prompts share words, and by how much differs from measure
to measure. So the threshold is relative. `far` is the nearest of the unrelated and the unlike texts to the
examples; `near` is how near an example is to the other ones, in the median. The threshold lies between the
two, at `strictness` of the way. Where `near` is not above `far`, the examples have nothing in common by which
they could be recognised, which stops the start.
"""

from __future__ import annotations

import statistics
from typing import final

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.settings_signals import SimilaritySettings
from turnout.gateway.signals.background import UNRELATED
from turnout.gateway.signals.base import Facts, Finding, Signal
from turnout.gateway.signals.likeness import EmbeddedLikeness, Likeness, WordLikeness, embedder_of

WORDS = "words"
"""The measure that needs no embedder."""

_LEAST = 0.05
"""Examples that are no nearer to each other than this share no more than a stray word."""


@final
class SimilaritySignal(Signal):
    """Nearness to example prompts."""

    def __init__(self, *, name: str, settings: SimilaritySettings) -> None:
        examples = list(dict.fromkeys(settings.examples))
        others = [*UNRELATED, *settings.unlike]
        self.is_slow = settings.embedder != WORDS
        self._likeness = _likeness(name, settings, examples, others)
        self.far = max(self._likeness.near(others))
        self.near = statistics.median(self._likeness.among()) if len(examples) > 1 else 0.0
        self.threshold = self.far + settings.strictness * (self.near - self.far)
        if self.near <= max(self.far, _LEAST):
            raise ConfigError(
                sentence(
                    f"the examples of 'signals.{name}' have too little in common to be recognised",
                    allowed=f"prompts that are nearer to each other than {_LEAST:g} and than to other texts",
                    got=f"{self.near:.2f} among them, {self.far:.2f} to the nearest other text",
                    do="give more examples of one thing, split the signal, or name a better embedder",
                )
            )

    def read(self, facts: Facts) -> Finding:
        """Return whether the text is near enough."""
        nearness = self._likeness.near([facts.user])[0]
        note = f"threshold {self.threshold:.3f}"
        return Finding(holds=nearness >= self.threshold, value=nearness, note=note)


def _likeness(name: str, settings: SimilaritySettings, examples: list[str], others: list[str]) -> Likeness:
    if settings.embedder == WORDS:
        return WordLikeness(examples=examples, others=others)
    embedder = embedder_of(
        settings.embedder,
        settings.options,
        where=f"signals.{name}",
        texts=[*examples, *others],
        others=f"'{WORDS}', or ",
    )
    return EmbeddedLikeness(embedder=embedder, examples=examples)
