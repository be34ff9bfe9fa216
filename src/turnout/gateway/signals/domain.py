"""This module reads the task of a text from a learned classifier (`TaskEmbedder`)."""

from __future__ import annotations

from typing import final

from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.features.task import TaskEmbedder
from turnout.gateway.artifacts import load_named
from turnout.gateway.settings_signals import DomainSettings
from turnout.gateway.signals.base import Facts, Finding, Signal


@final
class DomainSignal(Signal):
    """The probability of some tasks."""

    is_slow = True

    def __init__(self, *, name: str, settings: DomainSettings) -> None:
        self.settings = settings
        loaded = load_named(settings.artifact, f"signals.{name}.artifact")
        if not isinstance(loaded, TaskEmbedder):
            raise ConfigError(
                sentence(
                    f"the artifact of the section 'signals.{name}' is no classifier of tasks",
                    allowed="a folder with a saved TaskEmbedder",
                    got=type(loaded).__name__,
                    do="fit one on queries with a task, and save it with turnout.core.artifact.save",
                )
            )
        self._classifier = loaded
        for label in settings.labels:
            if label not in loaded.labels:
                raise ConfigError(
                    sentence(
                        f"the setting 'signals.{name}.labels' names no task of its classifier",
                        allowed=", ".join(loaded.labels),
                        got=label,
                        do=did_you_mean(label, loaded.labels),
                    )
                )

    def read(self, facts: Facts) -> Finding:
        """Return whether the tasks are likely enough; several signals of one artifact ask it once."""
        shares = facts.shares.get(self.settings.artifact)
        if shares is None:
            found = self._classifier.embed([facts.query])[0]
            shares = dict(zip(self._classifier.labels, found.tolist(), strict=True))
            facts.shares[self.settings.artifact] = shares
        share = sum(shares[label] for label in set(self.settings.labels))
        return Finding(
            holds=share >= self.settings.min_share, value=share, note=max(shares, key=lambda key: shares[key])
        )
