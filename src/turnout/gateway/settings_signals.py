"""This module holds the settings of signals: what a rule may ask about a request, by kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from turnout.gateway.settings import Count, Name, Settings, Share

Names = Annotated[list[Name], msgspec.Meta(min_length=1)]
Scope = Literal["user", "conversation"]
"""The last user message, or every text of the request."""


class SignalBase(Settings, frozen=True, kw_only=True):
    """What every signal states: how long it may take, and what holds where it fails."""

    budget_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)] = 20.0
    """Milliseconds after which a rule no longer waits for it."""
    default: bool = False
    """What holds where it fails or takes too long."""


class KeywordSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="keyword"):
    """Words or phrases that stand in the text, whole and in any case."""

    words: Names
    """The words and phrases."""
    min_hits: Count = 1
    """How many different ones must be there."""
    scope: Scope = "user"
    """What is read: the last user message, or the whole conversation."""


class RegexSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="regex"):
    """A pattern that occurs in the text."""

    pattern: Name
    """Python's syntax; one that can take more than about n^2 steps is refused at the start."""
    scope: Scope = "user"
    """What is read."""


class LanguageSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="language"):
    """The language of the text."""

    languages: Names
    """ISO 639-1 codes, or `unknown`."""
    scope: Scope = "user"
    """What is read."""


class LengthSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="length"):
    """The size of the request; every bound that is given must hold."""

    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Least input tokens, estimated at 4 characters each."""
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Most input tokens."""
    min_turns: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Least number of user messages."""
    max_turns: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Most user messages."""


class CodeSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="code"):
    """Program text."""

    min_marks: Share = 0.1
    """Least marks of program text per word."""
    scope: Scope = "user"
    """What is read."""


class NeedsSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="needs"):
    """What the request needs of a model: tools, images, JSON and the like."""

    needs: Names
    """All of these must be needed."""


class ComplexitySettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="complexity"):
    """How much work the text asks for, by its form."""

    min_score: Share = 0.6
    """Least score."""
    scope: Scope = "user"
    """What is read."""


class DomainSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="domain"):
    """The task that a learned classifier reads in the text."""

    artifact: Name
    """Folder of a saved `TaskEmbedder`."""
    labels: Names
    """Tasks whose probabilities are added up."""
    min_share: Share = 0.5
    """Least probability."""


class SimilaritySettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="similarity"):
    """Nearness of the text to example prompts."""

    examples: Annotated[list[Name], msgspec.Meta(min_length=2)]
    """Prompts that the signal stands for."""
    unlike: list[Name] = msgspec.field(default_factory=list)
    """Near misses: prompts that it must not fire on."""
    embedder: Name = "words"
    """`words`, or a registered embedder that reads the texts."""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """Arguments of that embedder."""
    strictness: Share = 0.5
    """Where the threshold lies between the nearest unlike text (0) and the examples themselves (1)."""


class HeaderSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="header"):
    """A request header that a proxy in front sets, such as a role."""

    header: Name
    """Its name."""
    values: Names
    """One of these must be in it; a header may list several, with commas."""


class TenantSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="tenant"):
    """Whose request it is, as the client's key says."""

    tenants: Names
    """One of these; a key that names no tenant is its own."""


class PiiSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="pii"):
    """Personal data that has a form: addresses, card and account numbers, keys."""

    kinds: list[Name] = msgspec.field(default_factory=list)
    """Kinds that count; none means all."""
    min_finds: Count = 1
    """Least number of finds."""
    whole: bool = True
    """Whether every text of the request is read, or the last user message only."""


class JailbreakSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="jailbreak"):
    """Signs that a text tries to lift the rules before it."""

    min_score: Share = 0.6
    """Least score."""
    scope: Scope = "user"
    """What is read."""


class FeedbackSettings(SignalBase, frozen=True, kw_only=True, tag_field="kind", tag="feedback"):
    """What the last user message says about the answer before it."""

    labels: Names
    """`thanks`, `wrong`, `again`, `more` or `none`."""


SignalSettings = (
    KeywordSettings
    | RegexSettings
    | LanguageSettings
    | LengthSettings
    | CodeSettings
    | NeedsSettings
    | ComplexitySettings
    | DomainSettings
    | SimilaritySettings
    | HeaderSettings
    | TenantSettings
    | PiiSettings
    | JailbreakSettings
    | FeedbackSettings
)

SIGNAL_KINDS: dict[str, type[SignalBase]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        KeywordSettings,
        RegexSettings,
        LanguageSettings,
        LengthSettings,
        CodeSettings,
        NeedsSettings,
        ComplexitySettings,
        DomainSettings,
        SimilaritySettings,
        HeaderSettings,
        TenantSettings,
        PiiSettings,
        JailbreakSettings,
        FeedbackSettings,
    )
}
"""Kind -> its settings."""
